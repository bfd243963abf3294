// Builds the C++ tests without Node and runs them.
//   node scripts/test-native.mjs [--sanitize address,undefined | thread | --sim | --arm64] [--] [part of a test's name]...
// --sim: the CUDA kernels' tests, on the simulator. --arm64: cross-compiled and run in QEMU; wants aarch64-linux-gnu-g++ and qemu-aarch64.
// Builds land in the addon's build/cmake, whose objects serve, or where there is none in build/native; in build/arm64, build/sanitize, build/sanitize-thread and
// build/cmake-sim.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const { values, positionals } = parseArgs({
  options: { sanitize: { type: 'string', default: '' }, sim: { type: 'boolean', default: false }, arm64: { type: 'boolean', default: false } },
  allowPositionals: true,
})
const { sanitize, sim, arm64 } = values
const addon = 'build/cmake'
const withAddon = existsSync(join(root, addon, 'CMakeCache.txt'))
const folder = sanitize === 'thread' ? 'build/sanitize-thread' : sanitize ? 'build/sanitize' : withAddon ? addon : 'build/native'

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
if (arm64) {
  const tools = 'aarch64-linux-gnu'
  const target = ['-DCMAKE_SYSTEM_NAME=Linux', '-DCMAKE_SYSTEM_PROCESSOR=aarch64', `-DCMAKE_C_COMPILER=${tools}-gcc`, `-DCMAKE_CXX_COMPILER=${tools}-g++`]
  run('cmake', ['-S', '.', '-B', 'build/arm64', '-DCHIASMA_ADDON=OFF', '-DCHIASMA_TESTS=ON', '-DCMAKE_BUILD_TYPE=Release', ...target])
  run('cmake', ['--build', 'build/arm64', '--parallel', '2', '--target', 'chiasma_native_tests'])
  run('qemu-aarch64', ['-L', `/usr/${tools}`, join(root, 'build/arm64/chiasma_native_tests'), ...positionals])
  process.exit(0)
}
const own = folder === addon ? [] : [`-DCHIASMA_SANITIZE=${sanitize}`, `-DCMAKE_BUILD_TYPE=${sanitize ? 'RelWithDebInfo' : 'Release'}`]
run('cmake', ['-S', '.', '-B', folder, '-DCHIASMA_TESTS=ON', ...own])
run('cmake', ['--build', folder, '--parallel', '2', '--target', 'chiasma_native_tests'])
run(join(root, folder, 'chiasma_native_tests'), positionals, {
  UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
  ASAN_OPTIONS: 'detect_stack_use_after_return=1',
  TSAN_OPTIONS: 'halt_on_error=1',
})
