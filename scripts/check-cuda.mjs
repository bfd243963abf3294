// Compiles every CUDA kernel, and fails on what the hot ones must not have (spilled registers, stack frames, local memory) or lack (tensor core
// products, ldmatrix, cp.async, 16-byte accesses). No GPU is needed; the toolkit is that of CUDACXX or of `npm run cuda:toolkit`.
//   node scripts/check-cuda.mjs [--all]     --all: for sm_80, 86, 89, 90a, 100 and 120; else for sm_80, 89 and 90a
import { architectures, compileKernels, complaints, hot, titleOf } from './cuda-kernels.mjs'
import { findToolkit } from './cuda-toolkit.mjs'

const wanted = architectures[process.argv.includes('--all') ? 'all' : 'always']
try {
  const toolkit = findToolkit()
  if (!toolkit) throw new Error('no CUDA toolkit: `npm run cuda:toolkit` makes one')
  const kernels = await compileKernels(toolkit, wanted)
  let wrong = 0
  for (const architecture of wanted) {
    const mine = kernels.filter((kernel) => kernel.architecture === architecture)
    const found = complaints(mine)
    const spilling = mine.filter(({ name, spills }) => spills && !hot[name])
    console.log(`${architecture}: ${mine.length} kernels, ${mine.filter(({ name }) => hot[name]).length} of them hot; ${found.length} complaints`)
    for (const kernel of spilling) console.log(`  not hot, and spills ${kernel.spills} bytes: ${titleOf(kernel)}`)
    for (const text of found) console.log(`  ${text}`)
    wrong += found.length
  }
  process.exitCode = wrong ? 1 : 0
} catch (error) {
  console.error(`check:cuda: ${error.message}`)
  process.exitCode = 1
}
