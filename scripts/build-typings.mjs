// Writes the declarations that users get, typings/*.d.ts, from lib: one file for each entry of package.json's exports, and what several of
// them share in typings/shared.d.ts, so that a class is one type whichever entry it comes from. They are checked in: a diff shows every
// change of the public surface.
//   node scripts/build-typings.mjs [--check]     --check writes nothing and ends with 1 where the files and lib differ
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { rollup } from 'rollup'
import { dts } from 'rollup-plugin-dts'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
process.chdir(root)

const entries = {}
for (const { types, default: script } of Object.values(JSON.parse(readFileSync('package.json', 'utf8')).exports)) {
  if (types) entries[relative('typings', types).replace(/\.d\.ts$/, '')] = script.replace('./dist/', 'lib/').replace(/\.js$/, '.ts')
}
const bundle = await rollup({
  input: entries,
  plugins: [dts({ tsconfig: 'tsconfig.json', compilerOptions: { stripInternal: true, noEmit: false } })],
  onLog: (level, log) => process.env.VERBOSE && console.error(level, log.message),
})
const names = { entryFileNames: '[name].d.ts', chunkFileNames: 'shared.d.ts', minifyInternalExports: false }
const { output } = await bundle.generate({ format: 'es', ...names })

const check = process.argv.includes('--check')
let differ = 0
for (const { fileName, code } of output) {
  const file = join('typings', fileName)
  // Since TypeScript 6 a project loads no types that nobody names.
  const node = /\bBuffer\b/.test(code) ? '/// <reference types="node" />\n' : ''
  const text = `// Generated from lib by \`npm run build:typings\`.\n${node}\n${code}`
  let old
  try {
    old = readFileSync(file, 'utf8')
  } catch {}
  if (old === text) continue
  differ++
  if (check) console.error(`${file} differs from lib: run \`npm run build:typings\` and commit it`)
  else writeFileSync(file, text)
}
process.exitCode = check && differ ? 1 : 0
