// Builds the CUDA library (build/Release/libchiasma_cuda.so) with the toolkit that CUDACXX names, or that of `npm run cuda:toolkit`.
//   node scripts/build-cuda.mjs [--release] [--bench]
// --release: for every architecture that is published; else for sm_80 and sm_90a, which compile in a third of the time: other GPUs compile PTX at their first use.
// --bench: the benchmark of the kernels too, chiasma_bench_cuda.
import { spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { findToolkit, oldest } from './cuda-toolkit.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const architectures = {
  development: '80;90a-real',
  release: '80-real;86-real;89-real;90a-real;100-real;120-real;80-virtual',
}

/**
 * Builds with `toolkit`, and links with the C++ compiler that CXX names; gives the library's path. Objects are there for every linker: they are made by
 * nvcc and its own host compiler. Throws if a step fails.
 */
export function buildCuda(toolkit, { release = false, bench = false } = {}) {
  const folder = join(root, `build/cmake-cuda-${toolkit.version}${release ? '-release' : ''}`)
  const { CXX: linker = '', CMAKE_CUDA_COMPILER_LAUNCHER: other, ...environment } = process.env
  const run = (...args) => {
    const { status, error } = spawnSync('cmake', args, { cwd: root, stdio: 'inherit', env: { ...environment, ...toolkit.env } })
    if (error || status !== 0) throw new Error(`cmake ${args[0]} failed${error ? `: ${error.message}` : ''}`)
  }
  const options = ['-DCHIASMA_ADDON=OFF', '-DCHIASMA_TESTS=OFF', '-DCHIASMA_CUDA=ON', `-DCMAKE_CUDA_ARCHITECTURES=${architectures[release ? 'release' : 'development']}`]
  const launcher = [process.execPath, join(root, 'scripts/cuda-launcher.mjs'), ...(other ? [other] : [])]
  options.push(`-DCMAKE_CUDA_COMPILER_LAUNCHER=${launcher.join(';')}`, `-DCHIASMA_CUDA_LINKER=${linker}`)
  if (toolkit.libraries) options.push(`-DCMAKE_SHARED_LINKER_FLAGS=-L${toolkit.libraries}`)
  run('-S', '.', '-B', folder, ...options, `-DCHIASMA_BENCH=${bench ? 'ON' : 'OFF'}`)
  run('--build', folder, '--parallel', String(availableParallelism()), '--target', 'chiasma_cuda', ...(bench ? ['chiasma_bench_cuda'] : []))
  return join(root, 'build/Release/libchiasma_cuda.so')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const toolkit = findToolkit()
    if (!toolkit) throw new Error(`no CUDA toolkit: \`npm run cuda:toolkit\` makes one, or name an nvcc of ${oldest.join('.')} or later with CUDACXX`)
    console.log(`CUDA ${toolkit.version}: ${toolkit.nvcc}`)
    buildCuda(toolkit, { release: process.argv.includes('--release'), bench: process.argv.includes('--bench') })
  } catch (error) {
    console.error(`build:cuda: ${error.message}`)
    process.exit(1)
  }
}
