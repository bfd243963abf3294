// What the compiler makes of each CUDA kernel, without a GPU: its registers, memory and instructions, and what the kernels that matter for speed
// must and must not have. `hot` is the one list of them; every other kernel stands in `plain`, with the reason, so that a new one is judged once.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const sources = join(root, 'native/cuda')
const kept = join(root, 'build/cuda-kernels')

export const architectures = { always: ['sm_80', 'sm_89', 'sm_90a'], all: ['sm_80', 'sm_86', 'sm_89', 'sm_90a', 'sm_100', 'sm_120'] }

/** Instructions by the names used below. */
const instructions = {
  HMMA: /^HMMA\./,
  IMMA: /^IMMA\./,
  LDSM: /^LDSM\./,
  'LDGSTS.128': /^LDGSTS\..*\.128/,
  'LDG.128': /^LDG\..*\.128/,
  'STG.128': /^STG\..*\.128/,
  'STG.64': /^STG\..*\.64/,
}

const bytesOf = { float: 4, bf16: 2, f16: 2, int8_t: 1, 'signed char': 1, 'unsigned char': 1, int: 4 }
/** Eight elements at a time: one or two accesses of 16 bytes. */
const wideAccess = ([from, to = from]) => [
  ...(bytesOf[from] >= 2 ? [['LDG.128', bytesOf[from] / 2]] : []),
  ...(bytesOf[to] >= 2 ? [['STG.128', bytesOf[to] / 2]] : []),
]

/**
 * The kernels that a model's time goes to. `holds`: of an instance's template arguments, the instructions that it must have, or [name, how
 * many at least]. Local memory it must not have: no spilled registers, no stack frame. `shared`: bytes of dynamic shared memory, as its launcher gives them.
 */
export const hot = {
  gemm_mma_kernel: {
    // The epilogue stands there for each 16 rows of a warp: results as float32 in two stores, as bf16 and as f16 in one.
    holds: ([type, shape]) => [type === 'signed char' ? 'IMMA' : 'HMMA', 'LDSM', 'LDGSTS.128', 'LDG.128', ['STG.128', 4 * (shape.match(/\d+/)[0] / 16)]],
    shared: ([, shape]) => {
      const [rows, columns, down, across, stages] = shape.match(/\d+/g).map(Number)
      return Math.max(stages * (rows * down + columns * across) * 64, down * across * 16 * (columns + 8) * 4)
    },
  },
  gemm_float_kernel: { holds: () => ['LDGSTS.128', 'LDG.128', ['STG.128', 4]], shared: () => 4 * 2 * 64 * 64 },
  attention_mma_kernel: { holds: () => ['HMMA', 'LDSM', 'LDGSTS.128', 'STG.128'], shared: ([, headSize]) => (64 + 4 * 64) * headSize * 2 },
  attention_resident_kernel: {
    holds: () => ['HMMA', 'LDSM', 'LDGSTS.128', 'STG.128'],
    // Of 128, 256 and 288 keys whole rows of scores are kept; 64 at a time belong to longer ones, of which it is as many as ViT-L/14@336 has, or ViT-H/14 for wider heads.
    shared: ([, headSize, keys, warps]) => (warps * 16 + 2 * (keys > 64 ? Number(keys) : headSize > 64 ? 288 : 608)) * headSize * 2 + 16,
  },
  layer_norm_kernel: { holds: wideAccess },
  rms_norm_kernel: { holds: wideAccess },
  rotary_kernel: { holds: wideAccess },
  l2_normalize_kernel: { holds: wideAccess },
  softmax_kernel: { holds: wideAccess },
  quantize_kernel: { holds: ([from]) => [...wideAccess([from, 'signed char']), 'STG.64'] },
  gather_kernel: { holds: wideAccess },
  pick_token_kernel: { holds: wideAccess },
  prefix_kernel: { holds: ([table, from, to]) => wideAccess([from, to]) },
  pool_kernel: { holds: wideAccess },
  unfold_kernel: { holds: wideAccess },
  depthwise_kernel: { holds: wideAccess },
  pool_windows_kernel: { holds: wideAccess },
  scale_sequences_kernel: { holds: wideAccess },
  binary_kernel: { holds: ([a, b, out]) => wideAccess([a, out]) },
  unary_kernel: { holds: wideAccess },
  cast_kernel: { holds: wideAccess },
  patchify_bytes_kernel: { holds: ([out]) => ['LDG.128', ...wideAccess([undefined, out])], shared: () => 32 * 8 * 32 * 3 },
  scan_kernel: {
    holds: () => ['HMMA', 'LDSM', 'LDGSTS.128'],
    shared: ([type, parts, queries]) => {
      const stage = 128 * 64 + parts * queries * { bf16: 64, 'signed char': 128, float: 32 }[type]
      return (stage * 4 <= 72 * 1024 ? 4 : 3) * stage + queries * (32 * 8 + 8 + 8 + 68 * 4 + 4) + 4 * 32 * 8
    },
  },
}

export const plain = {
  attention_float_kernel: 'heads over 128 and mixed types, which no model in half precision has',
  patchify_kernel: 'pictures of floats, and patches of more than 32',
  prepare_queries_kernel: 'once for each query of a search',
  merge_kernel: 'the lists that a search found, a few kilobytes for each query',
  finish_kernel: 'the few rows that a search keeps',
  scatter_kernel: 'only in models that pack padded text',
  scatter_check_kernel: 'one index for each thread',
  scatter_sources_kernel: 'one index for each thread',
}

/** What an unlisted kernel is hot by: products of tensor cores, or copies under way while it computes. */
const hotByNature = [instructions.HMMA, instructions.IMMA, instructions['LDGSTS.128']]

/**
 * One instance of a kernel as compiled for one architecture.
 * @typedef {{ name: string, arguments: string[], source: string, architecture: string, registers: number, stack: number, spills: number,
 *   staticShared: number, threads: number, counts: Record<string, number> }} Kernel
 */

function output(command, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: root, stdio: ['pipe', 'pipe', 'pipe'] })
    const out = []
    const err = []
    child.stdout.on('data', (data) => out.push(data))
    child.stderr.on('data', (data) => err.push(data))
    child.on('error', reject)
    child.on('close', (status) => {
      const errors = Buffer.concat(err).toString()
      if (status === 0) resolve({ out: Buffer.concat(out).toString(), errors })
      else reject(new Error(`${command.split('/').at(-1)} ${args.at(-1)} ended with ${status}\n${errors}`))
    })
    child.stdin.end()
  })
}

/** `void a::(anonymous namespace)::kernel<a::T, 3>(a::Arguments)` as its name and template arguments. */
export function parseName(demangled) {
  const text = demangled.replace(/^void /, '').replaceAll('(anonymous namespace)::', '').replaceAll('chiasma::cuda::', '')
  const [, name, rest] = /^(\w+)(.*)$/s.exec(text)
  const found = []
  if (rest.startsWith('<')) {
    let depth = 0
    for (let at = 0, begin = 1; at < rest.length; at++) {
      if ('<('.includes(rest[at])) depth++
      if ('>)'.includes(rest[at])) depth--
      if ((depth === 1 && rest[at] === ',') || depth === 0) {
        found.push(rest.slice(begin, at).trim().replace(/ >/g, '>').replace(/^\(\w+\)/, ''))
        begin = at + 1
      }
      if (depth === 0) break
    }
  }
  return { name, arguments: found }
}

/** Of ptxas's -v for one or several architectures: { [mangled name]: what it says for this one }. */
export function parseResources(text, architecture) {
  const found = {}
  let current
  let compiled
  for (const line of text.split('\n')) {
    compiled = /Compiling entry function '\S+' for '(\w+)'/.exec(line)?.[1] ?? compiled
    if (compiled !== architecture) continue
    const properties = /Function properties for (\S+)/.exec(line)
    if (properties) current = found[properties[1]] ??= { registers: 0, stack: 0, spills: 0, staticShared: 0 }
    const stack = /(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line)
    if (stack) [current.stack, current.spills] = [Number(stack[1]), Number(stack[2]) + Number(stack[3])]
    const used = /Used (\d+) registers/.exec(line)
    if (used) {
      current.registers = Number(used[1])
      current.staticShared = Number(/(\d+) bytes smem/.exec(line)?.[1] ?? 0)
    }
  }
  return found
}

/** Of a disassembly: { [mangled name]: { [opcode]: how often } }. */
export function parseInstructions(text) {
  const found = {}
  let current
  for (const line of text.split('\n')) {
    const start = /^\s*Function : (\S+)/.exec(line)
    if (start) current = found[start[1]] = {}
    const instruction = /^\s*\/\*[0-9a-f]+\*\/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.a-z]*)/.exec(line)
    if (instruction && current) current[instruction[1]] = (current[instruction[1]] ?? 0) + 1
  }
  return found
}

/** Most threads of a block, as the kernel's launch bounds say: { [mangled name]: threads }. */
function parseThreads(text) {
  const found = {}
  let current
  const lines = text.split('\n')
  lines.forEach((line, i) => {
    const section = /^\.nv\.info\.(\S+)/.exec(line)
    if (section) current = section[1]
    if (line.includes('EIATTR_MAX_THREADS')) found[current] = lines[i + 2].match(/0x[0-9a-f]+/g).reduce((product, size) => product * Number(size), 1)
  })
  return found
}

const flags = ['-std=c++20', '-O3', '-DNDEBUG', '-I', 'native', '-I', 'native/cpp']
const format = 1 // of what is kept; to be raised with every change of what is read from the compiler

/** A source's text and those of the files of ours that it includes. */
function textsOf(file, seen = new Map()) {
  if (seen.has(file)) return seen
  const text = readFileSync(file, 'utf8')
  seen.set(file, text)
  for (const [, folder, rest] of text.matchAll(/#include "(cuda|core)(\/(?!sim\/)[^"]+)"/g)) textsOf(join(root, folder === 'cuda' ? 'native/cuda' : 'native/cpp/core', rest), seen)
  return seen
}

/** A source as it is now, for one architecture: `file` keeps what is known of its kernels, valid for `key`. */
export function compilationOf(toolkit, source, architecture) {
  const what = JSON.stringify([format, toolkit.version, flags, architecture, [...textsOf(join(sources, source)).values()]])
  return { source, architecture, file: join(kept, architecture, `${source}.json`), key: createHash('sha256').update(what).digest('hex') }
}

async function compileOne(toolkit, source, architecture) {
  const compilation = compilationOf(toolkit, source, architecture)
  const { file, key } = compilation
  if (existsSync(file)) {
    const old = JSON.parse(readFileSync(file, 'utf8'))
    if (old.key === key) return old.kernels
  }
  const began = performance.now()
  mkdirSync(dirname(file), { recursive: true })
  const cubin = file.replace(/json$/, 'cubin')
  const { errors } = await output(toolkit.nvcc, [...flags, `-arch=${architecture}`, '-cubin', '-Xptxas=-v', '-o', cubin, join('native/cuda', source)])
  const kernels = await keepKernels(toolkit, compilation, cubin, errors)
  console.error(`${architecture}: ${source}, ${((performance.now() - began) / 1000).toFixed(0)} s`)
  return kernels
}

/**
 * Reads the kernels of one architecture out of what nvcc made of a source, with these flags, and keeps them for `compileKernels`.
 * @param compilation what was compiled, as it was before
 * @param binary a cubin or an object
 * @param words what ptxas said with -v
 * @returns {Promise<Kernel[]>}
 */
export async function keepKernels(toolkit, { source, architecture, file, key }, binary, words) {
  mkdirSync(dirname(file), { recursive: true })
  const resources = parseResources(words, architecture)
  const cuobjdump = join(toolkit.bin, 'cuobjdump')
  const threads = parseThreads((await output(cuobjdump, ['-elf', '-arch', architecture, binary])).out)
  const counts = parseInstructions((await output(cuobjdump, ['-sass', '-arch', architecture, binary])).out)
  const mangled = Object.keys(resources).filter((name) => counts[name])
  const demangled = mangled.length ? (await output('c++filt', mangled)).out.trim().split('\n') : []
  const kernels = mangled.map((name, i) => ({
    ...parseName(demangled[i]), source, architecture, ...resources[name], threads: threads[name] ?? 0, counts: counts[name],
  }))
  writeFileSync(`${file}.new`, JSON.stringify({ key, kernels }))
  renameSync(`${file}.new`, file)
  return kernels
}

/** SHA-256 of the files of native/cuda with such names, and of the types that they share with the host. */
export function hashOf(pattern) {
  const texts = readdirSync(sources).sort().filter((name) => pattern.test(name)).map((name) => readFileSync(join(sources, name), 'utf8'))
  return createHash('sha256').update(texts.join('\0') + readFileSync(join(root, 'native/cpp/core/dtype.h'), 'utf8')).digest('hex')
}

/**
 * Compiles every .cu of native/cuda for the architectures, with a line on stderr for each; what has not changed since the last time, here or in
 * `build:cuda`, is not compiled again.
 * @returns {Promise<Kernel[]>} Throws with the compiler's words if one does not compile.
 */
export async function compileKernels(toolkit, wanted) {
  const names = readdirSync(sources).sort()
  const jobs = wanted.flatMap((architecture) => names.filter((name) => name.endsWith('.cu')).map((source) => ({ source, architecture })))
  const results = []
  const work = async () => {
    for (let job = jobs.shift(); job; job = jobs.shift()) results.push(...(await compileOne(toolkit, job.source, job.architecture)))
  }
  await Promise.all(Array.from({ length: availableParallelism() }, work))
  const order = ({ architecture, source, name, arguments: types }) => JSON.stringify([wanted.indexOf(architecture), source, name, types])
  return results.sort((a, b) => (order(a) < order(b) ? -1 : 1))
}

export function titleOf({ name, arguments: types }) {
  return types.length ? `${name}<${types.join(', ')}>` : name
}

/** What is wrong with the kernels of one architecture, in sentences. */
export function complaints(kernels) {
  const found = []
  for (const name of [...Object.keys(hot), ...Object.keys(plain)]) {
    if (!kernels.some((kernel) => kernel.name === name)) found.push(`${name} is listed in scripts/cuda-kernels.mjs, and no source has it`)
  }
  for (const kernel of kernels) {
    const title = titleOf(kernel)
    const count = (pattern) => Object.entries(kernel.counts).reduce((sum, [opcode, times]) => sum + (pattern.test(opcode) ? times : 0), 0)
    const rules = hot[kernel.name]
    if (!rules) {
      if (!(kernel.name in plain)) found.push(`${title} of ${kernel.source} is in neither list of scripts/cuda-kernels.mjs: say whether it is hot`)
      else if (hotByNature.some(count)) found.push(`${title} is listed as plain, but has tensor core products or cp.async`)
      continue
    }
    if (kernel.spills) found.push(`${title} spills ${kernel.spills} bytes of registers`)
    if (kernel.stack) found.push(`${title} has a stack frame of ${kernel.stack} bytes`)
    for (const opcode of Object.keys(kernel.counts)) if (/^(LDL|STL)\b/.test(opcode)) found.push(`${title} uses local memory: ${kernel.counts[opcode]} × ${opcode}`)
    for (const wanted of rules.holds(kernel.arguments)) {
      const [instruction, least] = [wanted, 1].flat()
      const there = count(instructions[instruction])
      if (there < least) found.push(`${title} has ${there} × ${instruction}; expected ${least} at least`)
    }
    if (!kernel.threads) found.push(`${title} has no __launch_bounds__`)
  }
  return found
}
