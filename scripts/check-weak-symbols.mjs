// Looks with `nm` at the objects that are compiled once for each instruction set: none may hold a weak symbol, for the linker keeps one copy of
// those and could give baseline code the one with AVX-512 instructions in it; and what they define for others must carry the set's name.
//   node scripts/check-weak-symbols.mjs [build folder, default build/cmake]
// Prints what it finds and ends with 1 if there is any, with 2 if there is nothing to look at.
import { spawnSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** The objects of each instruction set: `[{ isa, file }]`. */
export function simdObjects(build) {
  const objects = []
  for (const entry of readdirSync(join(build, 'CMakeFiles'), { withFileTypes: true })) {
    const isa = /^chiasma_simd_(\w+)\.dir$/.exec(entry.name)?.[1]
    if (!isa) continue
    const folder = join(build, 'CMakeFiles', entry.name)
    for (const name of readdirSync(folder, { recursive: true })) if (/\.o(bj)?$/.test(name)) objects.push({ isa, file: join(folder, name) })
  }
  return objects
}

/** Complaints about one object, from the symbols that nm lists. */
export function complaints(isa, symbols) {
  const found = []
  for (const line of symbols.split('\n')) {
    const [, type, name] = /(?:^| )([A-Za-z]) (\S+)$/.exec(line) ?? []
    if (!type) continue
    if ('WVwvu'.includes(type)) found.push(`weak symbol ${name}`)
    else if ('TDBRSGC'.includes(type) && !name.includes(`3cpu${isa.length}${isa}`)) found.push(`symbol ${name} outside the namespace chiasma::cpu::${isa}`)
  }
  return found
}

export function nm(file) {
  const { status, stdout, stderr, error } = spawnSync('nm', [file], { encoding: 'utf8', maxBuffer: 1 << 28 })
  if (error) throw error
  if (status !== 0) throw new Error(`nm ${file}: ${stderr}`)
  return stdout
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const objects = simdObjects(resolve(root, process.argv[2] ?? 'build/cmake'))
  let bad = 0
  for (const { isa, file } of objects) {
    for (const complaint of complaints(isa, nm(file))) {
      console.log(`${file}: ${complaint}`)
      ++bad
    }
  }
  console.log(`${objects.length} objects, ${bad} complaints`)
  process.exitCode = objects.length === 0 ? 2 : bad ? 1 : 0
}
