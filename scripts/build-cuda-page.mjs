// Writes docs/cuda-kernels.md from what the compiler says of the kernels and from what models ask of them.
//   node scripts/build-cuda-page.mjs [--check]     --check writes nothing and ends with 1 where the page is not what would be written
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { callsOf, floorOf, models, peak, searches } from '../bench/cuda-cases.mjs'
import { compileKernels, hashOf, hot, titleOf } from './cuda-kernels.mjs'
import { findToolkit } from './cuda-toolkit.mjs'

const file = join(dirname(dirname(fileURLToPath(import.meta.url))), 'docs/cuda-kernels.md')
const batch = 256

/** Of one multiprocessor: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". Sizes in bytes. */
const limits = {
  sm_80: { name: '8.0', threads: 2048, blocks: 32, registers: 65536, shared: 164 << 10, sharedOfBlock: 163 << 10 },
  sm_89: { name: '8.9', threads: 1536, blocks: 24, registers: 65536, shared: 100 << 10, sharedOfBlock: 99 << 10 },
  sm_90a: { name: '9.0', threads: 2048, blocks: 32, registers: 65536, shared: 228 << 10, sharedOfBlock: 227 << 10 },
}
const roundUp = (size, unit) => Math.ceil(size / unit) * unit

/** Blocks that a multiprocessor holds at once, by the rules of the toolkit's cuda_occupancy.h. */
function blocksOf(kernel, shared) {
  const limit = limits[kernel.architecture]
  const warps = Math.ceil(kernel.threads / 32)
  const warpsByRegisters = Math.floor(limit.registers / 4 / roundUp(kernel.registers * 32, 256)) * 4 // four parts, each with its own registers
  const sharedOfBlock = roundUp(shared + 1024, 128) // 1 KiB is the system's
  if (shared > limit.sharedOfBlock) return 0
  return Math.min(limit.blocks, Math.floor(limit.threads / 32 / warps), Math.floor(warpsByRegisters / warps), Math.floor(limit.shared / sharedOfBlock))
}

function table(head, rows) {
  return [`| ${head.join(' | ')} |`, `|${head.map((_, i) => (i === 0 ? ' --- ' : ' ---: ')).join('|')}|`, ...rows.map((row) => `| ${row.join(' | ')} |`)].join('\n')
}

function resources(kernels) {
  const byTitle = new Map()
  for (const kernel of kernels) {
    if (!hot[kernel.name] || kernel.arguments.includes('f16')) continue
    const title = titleOf(kernel)
    byTitle.set(title, { ...byTitle.get(title), [kernel.architecture]: kernel })
  }
  const shown = Object.keys(limits)
  const rows = [...byTitle].map(([title, found]) => {
    const all = shown.map((architecture) => found[architecture])
    const shared = all[0].staticShared + (hot[all[0].name].shared?.(all[0].arguments) ?? 0)
    return [`\`${title}\``, all[0].threads, all.map(({ registers }) => registers).join(' / '), shared ? (shared / 1024).toFixed(1) : '0', all.map((kernel) => blocksOf(kernel, shared)).join(' / ')]
  })
  const names = shown.map((architecture) => limits[architecture].name).join(' / ')
  return table(['kernel', 'threads', `registers, ${names}`, 'shared, KiB', `blocks, ${names}`], rows)
}

/** Three digits. */
const short = (x) => (x === 0 ? '0' : x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1) : x >= 0.01 ? x.toFixed(2) : '<0.01')

function callTable(calls, ...more) {
  const rows = calls.map((each) => {
    const { flops, bytes } = each
    const bound = flops / peak.flops > bytes / peak.bytes ? 'products' : 'memory'
    return [`${each.name}, \`${each.kernel}\``, each.times, short(flops / 1e9), short(bytes / 1e6), short(floorOf(each) * 1e6), bound]
  })
  return table(['call, kernel', 'times', 'GFLOP', 'MB', 'floor, µs', 'bound by'], [...rows, ...more])
}

function floors(model) {
  const calls = callsOf(model, batch)
  const total = calls.reduce((sum, each) => sum + each.times * floorOf(each), 0)
  const products = calls.reduce((sum, each) => sum + each.times * each.flops, 0)
  const whole = ['**the whole pass**', '', short(products / 1e9), '', short(total * 1e6), '']
  const rate = Math.round(batch / total / 100) * 100
  const { tokens, width, heads, layers } = models[model]
  return `### ${model}: ${layers} layers of ${width}, ${heads} heads, ${tokens} tokens\n\n${callTable(calls, whole)}\n\nAt most ${rate.toLocaleString('en')} items a second by these floors.`
}

async function page() {
  const toolkit = findToolkit()
  if (!toolkit) throw new Error('no CUDA toolkit: `npm run cuda:toolkit` makes one')
  const kernels = await compileKernels(toolkit, Object.keys(limits))
  const halves = kernels.filter(({ name }) => hot[name]).length
  return `# The CUDA kernels in numbers

Written by \`npm run build:cuda-page\` from what nvcc ${toolkit.version} makes of \`native/cuda\` (SHA-256 of its sources: ${hashOf(/\.(h|cu|cuh)$/).slice(0, 12)}…);
\`-- --check\` fails where the two differ. Nothing here was measured on a GPU.

## What each hot kernel takes

The kernels that a model's time goes to (\`hot\` in \`scripts/cuda-kernels.mjs\`, ${halves / Object.keys(limits).length} instances), those for float16 left out: they have the shape of the bfloat16 ones. No instance spills
registers or has a stack frame; \`npm run check:cuda\` fails where one does. Blocks are those that a multiprocessor holds at once, from the registers and the shared memory, by the limits of the
CUDA C++ Programming Guide ("Technical Specifications per Compute Capability") and the rules of the toolkit's \`cuda_occupancy.h\`;
none where sequences of that length do not fit into shared memory, and another kernel has them:

${table(
  ['compute capability', 'threads', 'blocks', 'registers', 'shared memory, KiB', 'of one block, KiB'],
  Object.values(limits).map((limit) => [limit.name, limit.threads, limit.blocks, limit.registers, limit.shared >> 10, limit.sharedOfBlock >> 10]),
)}

${resources(kernels)}

## What they must do

One pass over a batch of ${batch} items in bfloat16, every token computed. Operations are two for each multiplication and addition of a product (of those that a causal query sees); bytes are each input
read once and each output written once. The floor is the longer of the two times, at ${peak.flops / 1e12} TFLOP/s and ${peak.bytes / 1e12} TB/s.
\`softmax_kernel\`, \`pool_kernel\`, \`unary_kernel\` and \`cast_kernel\` belong to other models: their floor is their bytes.

${Object.keys(models).map(floors).join('\n\n')}

### Search: the 10 nearest of a million vectors in bfloat16

${callTable(searches)}
`
}

try {
  const text = await page()
  let old
  try {
    old = readFileSync(file, 'utf8')
  } catch {}
  if (!process.argv.includes('--check')) writeFileSync(file, text)
  else if (old !== text) throw new Error('docs/cuda-kernels.md is not what the compiler and bench/cuda-cases.mjs give: run `npm run build:cuda-page` and commit it')
} catch (error) {
  console.error(`build:cuda-page: ${error.message}`)
  process.exitCode = 1
}
