// Compiles and links the addon and the C++ tests for systems that this one is not, from Linux, by zig's Clang (zig.mjs): Windows, macOS and musl.
// Where there is wine, the Windows tests are run.
//   node scripts/test-platforms.mjs [part of a target's name]... [-- part of a test's name...]
// Builds land in build/platforms/TARGET. Wants python3 with pip once, for zig.
import { spawnSync } from 'node:child_process'
import { mkdirSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { zigTools } from './zig.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const headers = createRequire(import.meta.url)('node-api-headers')

// As node's own builds: macOS 11, any Windows 10, any musl.
const targets = [
  { name: 'x86_64-windows-gnu', system: 'Windows', processor: 'AMD64' },
  { name: 'aarch64-macos.11.0', system: 'Darwin', processor: 'arm64' },
  { name: 'x86_64-macos.11.0', system: 'Darwin', processor: 'x86_64' },
  { name: 'x86_64-linux-musl', system: 'Linux', processor: 'x86_64' },
]

function run(command, args) {
  const { status, error, signal } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, WINEDEBUG: '-all' } })
  if (error) console.error(`${command}: ${error.message}`)
  if (signal) console.error(`${command} was ended by ${signal}`)
  if (status !== 0) process.exit(status ?? 1)
}

/** What cmake-js would say of the addon on that system. */
function addonOptions({ system }, folder, tools) {
  const options = [`-DCMAKE_JS_INC=${headers.include_dir}`]
  if (system === 'Darwin') options.push('-DCMAKE_SHARED_LINKER_FLAGS=-undefined dynamic_lookup')
  if (system === 'Windows') {
    const library = join(folder, 'node.lib')
    options.push(`-DCMAKE_JS_NODELIB_DEF=${headers.def_paths.node_api_def}`, `-DCMAKE_JS_NODELIB_TARGET=${library}`, `-DCMAKE_JS_LIB=${library}`)
    options.push(`-DCMAKE_DLLTOOL=${tools.dlltool}`, `-DCMAKE_RC_COMPILER=${tools.rc}`)
  }
  return options
}

const parted = process.argv.indexOf('--')
const wanted = process.argv.slice(2, parted < 0 ? undefined : parted)
const chosen = targets.filter(({ name }) => wanted.length === 0 || wanted.some((part) => name.includes(part)))
if (chosen.length === 0) throw new Error(`no target is called ${wanted.join(' or ')}; there are ${targets.map(({ name }) => name).join(', ')}`)
const wine = spawnSync('wine', ['--version'], { stdio: 'ignore' }).status === 0

for (const target of chosen) {
  const folder = join(root, 'build/platforms', target.name)
  const tools = zigTools(target.name)
  mkdirSync(folder, { recursive: true })
  console.log(`\n=== ${target.name}`)
  run('cmake', [
    '-S', '.', '-B', folder, `-DCMAKE_SYSTEM_NAME=${target.system}`, `-DCMAKE_SYSTEM_PROCESSOR=${target.processor}`, '-DCMAKE_BUILD_TYPE=Release',
    `-DCMAKE_CXX_COMPILER=${tools.cxx}`, `-DCMAKE_AR=${tools.ar}`, `-DCMAKE_RANLIB=${tools.ranlib}`,
    '-DCHIASMA_ADDON=ON', '-DCHIASMA_TESTS=ON', `-DCHIASMA_OUTPUT=${folder}`, ...addonOptions(target, folder, tools),
  ])
  run('cmake', ['--build', folder, '--parallel', String(availableParallelism()), '--target', 'chiasma', 'chiasma_native_tests'])
  console.log(`${target.name}: the addon, ${statSync(join(folder, 'chiasma.node')).size} bytes, and the tests are linked`)
  if (target.system === 'Windows' && wine) run('wine', [join(folder, 'chiasma_native_tests.exe'), ...(parted < 0 ? [] : process.argv.slice(parted + 1))])
  else if (target.system === 'Windows') console.log('there is no wine here: the tests are not run')
}
