// Builds the C++ tests without Node and runs them.
//   node scripts/test-native.mjs [--sanitize address,undefined | thread | --sim] [--] [part of a test's name]...
// --sim: the CUDA kernels' tests, on the simulator. Builds land in build/native, build/sanitize, build/sanitize-thread and build/cmake-sim.
import { spawnSync } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const { values, positionals } = parseArgs({
  options: { sanitize: { type: 'string', default: '' }, sim: { type: 'boolean', default: false } },
  allowPositionals: true,
})
const { sanitize, sim } = values
const folder = join('build', sanitize === '' ? 'native' : sanitize === 'thread' ? 'sanitize-thread' : 'sanitize')

function run(command, parameters, env = {}) {
  const { status, error, signal } = spawnSync(command, parameters, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } })
  if (error) console.error(`${command}: ${error.message}`)
  if (signal) console.error(`${command} was ended by ${signal}`)
  if (status !== 0) process.exit(status ?? 1)
}

if (sim) {
  run('cmake', ['-S', '.', '-B', 'build/cmake-sim', '-DCHIASMA_ADDON=OFF', '-DCHIASMA_TESTS=ON', '-DCHIASMA_CUDA=OFF', '-DCHIASMA_SIM=ON'])
  run('cmake', ['--build', 'build/cmake-sim', '--parallel', '2', '--target', 'chiasma_sim_tests'])
  run(join(root, 'build/cmake-sim/chiasma_sim_tests'), positionals)
  process.exit(0)
}
run('cmake', ['-S', '.', '-B', folder, '-DCHIASMA_TESTS=ON', `-DCHIASMA_SANITIZE=${sanitize}`, `-DCMAKE_BUILD_TYPE=${sanitize ? 'RelWithDebInfo' : 'Release'}`])
run('cmake', ['--build', folder, '--parallel', '2', '--target', 'chiasma_native_tests'])
run(join(root, folder, 'chiasma_native_tests'), positionals, {
  UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  ASAN_OPTIONS: 'detect_stack_use_after_return=1',
  TSAN_OPTIONS: 'halt_on_error=1',
})
