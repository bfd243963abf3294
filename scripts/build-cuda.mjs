// Builds the CUDA library (build/Release/libchiasma_cuda.so) with the toolkit that CUDACXX names, or that of `npm run cuda:toolkit`.
//   node scripts/build-cuda.mjs [--release]
// --release: for every architecture that is published; else for sm_80 and sm_90a, which compile in a third of the time.
import { spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findToolkit, oldest } from './cuda-toolkit.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const architectures = {
  development: '80-real;90a-real',
  release: '80-real;86-real;89-real;90a-real;100-real;120-real;80-virtual',
}

/** Builds with `toolkit` in a folder of build/; gives CMake's output folder. Throws if a step fails. */
export function buildCuda(toolkit, { release = false } = {}) {
  const folder = join(root, release ? 'build/cmake-cuda-release' : 'build/cmake-cuda')
  const run = (...args) => {
    const { status, error } = spawnSync('cmake', args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...toolkit.env } })
    if (error || status !== 0) throw new Error(`cmake ${args[0]} failed${error ? `: ${error.message}` : ''}`)
  }
  run('-S', '.', '-B', folder, '-DCHIASMA_ADDON=OFF', '-DCHIASMA_TESTS=OFF', '-DCHIASMA_CUDA=ON', `-DCMAKE_CUDA_ARCHITECTURES=${architectures[release ? 'release' : 'development']}`)
  run('--build', folder, '--target', 'chiasma_cuda', '--parallel', String(availableParallelism()))
  return folder
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const toolkit = findToolkit()
    if (!toolkit) throw new Error(`no CUDA toolkit: \`npm run cuda:toolkit\` makes one, or name an nvcc of ${oldest.join('.')} or later with CUDACXX`)
    console.log(`CUDA ${toolkit.version}: ${toolkit.nvcc}`)
    buildCuda(toolkit, { release: process.argv.includes('--release') })
  } catch (error) {
    console.error(`build:cuda: ${error.message}`)
    process.exit(1)
  }
}
