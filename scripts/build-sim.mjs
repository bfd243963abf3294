// Builds the simulator device (build/sim/libchiasma_cuda_sim.so): the same kernels, by the host's C++ compiler. Needs no CUDA toolkit.
import { spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const folder = 'build/cmake-sim'
for (const args of [
  ['-S', '.', '-B', folder, '-DCHIASMA_ADDON=OFF', '-DCHIASMA_TESTS=OFF', '-DCHIASMA_CUDA=OFF', '-DCHIASMA_SIM=ON', ...process.argv.slice(2)],
  ['--build', folder, '--target', 'chiasma_cuda_sim', '--parallel', String(availableParallelism())],
]) {
  const { status, error } = spawnSync('cmake', args, { cwd: root, stdio: 'inherit' })
  if (error || status !== 0) {
    console.error(`build:sim: cmake failed${error ? `: ${error.message}` : ''}`)
    process.exit(1)
  }
}
