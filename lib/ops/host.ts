// The kernels themselves on host tensors: what users import as `ops`. Each call compiles a small program (the device caches the plans)
// and runs it on a device shared by all calls. Tensors are copied to the device in pieces of a few megabytes, so that a large call does
// not hold up the event loop; results do not depend on the pieces.

import { compile, type Program, type TracedFunction } from '../core/compile.js'
import { type Device, sharedDevice } from '../core/device.js'
import { BYTES_PER_ELEMENT, type DataType } from '../core/dtype.js'
import { ArgumentError, DTypeError, ShapeError, UnsupportedError } from '../core/errors.js'
import { checkOptions, option, type OptionRules, shown } from '../core/options.js'
import { sizeOf } from '../core/shape.js'
import { partOf, Tensor, type TensorLike, unwritten } from '../core/tensor.js'
import { type Parameter, parameter, type Value, type ValueType } from '../core/value.js'
import { attention as attentionOp } from './attention.js'
import { cast } from './elementwise.js'
import { matmul } from './linear.js'
import { l2Normalize } from './norm.js'
import { patchEmbed as patchEmbedOp } from './patch-embed.js'
import { cosineTopK as cosineTopKOp } from './search.js'

/** Bytes that one run may copy in and out. Fresh memory costs about a millisecond a megabyte, most of it page faults. */
const CHUNK_BYTES = 2 << 20

export interface OpsOptions {
  /** Default 'auto'. */
  device?: string
  /** The type of the products: 'f32' (default) or 'bf16'. Results are float32. */
  dtype?: string
  /** Cores to use at most. */
  threads?: number
  signal?: AbortSignal
}

export interface AttentionOptions extends OpsOptions {
  /** Query i sees key j if j ≤ i + (Sk − Sq); default false. */
  causal?: boolean
  /** Default 1/√D. */
  scale?: number
  /** int32 [n + 1], from 0 to S: cuts the S rows of every batch and head into sequences that do not see each other. */
  cuSeqlens?: TensorLike
}

export interface PatchEmbedOptions extends OpsOptions {
  /** float32 [C] */
  bias?: TensorLike
  /** Of each channel, taken from rescaled uint8 pixels; default 0. */
  mean?: readonly number[]
  /** Of each channel; default 1. */
  std?: readonly number[]
  /** Factor of uint8 pixels; default 1/255. */
  rescale?: number
  /** float32 [C] */
  classToken?: TensorLike
  /** float32 [tokens, C] */
  positionEmbedding?: TensorLike
}

const opsRules: OptionRules<OpsOptions> = { device: option.text, dtype: option.text, threads: option.positiveInteger, signal: option.signal }
const attentionRules: OptionRules<AttentionOptions> = { ...opsRules, causal: option.flag, scale: option.finite, cuSeqlens: option.any }
const patchEmbedRules: OptionRules<PatchEmbedOptions> = {
  ...opsRules,
  bias: option.any,
  mean: option.any,
  std: option.any,
  rescale: option.finite,
  classToken: option.any,
  positionEmbedding: option.any,
}

/**
 * softmax(q·kᵀ·scale)·v for each batch and head, float32 [B, H, Sq, D].
 *
 * @param q float [B, H, Sq, D]
 * @param k float [B, H, Sk, D]
 * @param v float [B, H, Sk, D]
 * @example
 * const y = await ops.attention(q, k, v, { causal: true })
 * @throws ShapeError, DTypeError, ArgumentError, DeviceError
 */
export async function attention(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options: AttentionOptions = {},
): Promise<Tensor> {
  const name = 'ops.attention'
  checkOptions(name, options, attentionRules)
  const [Q, K, V] = [floats(name, 'q', q, 4), floats(name, 'k', k, 4), floats(name, 'v', v, 4)]
  const [B, H, Sq, D] = Q.dims as [number, number, number, number]
  const Sk = K.dims[2]!
  for (const [what, { dims }] of [['k', K], ['v', V]] as const) {
    if (dims[0] === B && dims[1] === H && dims[2] === Sk && dims[3] === D) continue
    throw new ShapeError(`[${name}] q is [${Q.dims.join(', ')}], ${what} is [${dims.join(', ')}]; expected [${B}, ${H}, ${Sk}, ${D}]`, {
      op: name,
      shapes: [Q.dims, dims],
    })
  }
  const cu = options.cuSeqlens && cumulative(name, options.cuSeqlens, Sq, Sk)
  const { causal = false, scale } = options
  const device = await open(options)
  const result = unwritten('float32', Q.dims, name)
  if (result.length === 0 || Sk === 0) return new Tensor('float32', result.fill(0), Q.dims)

  // Each batch and head is a sequence (or, with cuSeqlens, some) of one head; nothing is transposed.
  const perPair = D * (Sq * (bytesOf(Q) + 4) + Sk * (bytesOf(K) + bytesOf(V)))
  const pairs = atMost(B * H, perPair)
  const rows = (type: DataType, per: number): ValueType => ({ shape: [pairs * per, D], dtype: type, extent: { name: 'pairs', per } })
  const lengths: ValueType | undefined = cu && {
    shape: [pairs * (cu.length - 1) + 1],
    dtype: 'int32',
    extent: { name: 'pairs', per: cu.length - 1, extra: 1 },
  }
  const fn: TracedFunction = ({ q, k, v, cuSeqlens }) => ({
    y: attentionOp(as(q!, device), as(k!, device), as(v!, device), {
      heads: 1,
      causal,
      scale,
      dtype: 'float32',
      ...(cuSeqlens ? { cuSeqlensQ: cuSeqlens, cuSeqlensK: cuSeqlens } : { queryLength: Sq, keyLength: Sk }),
    }),
  })
  const specs = { q: rows(Q.type, Sq), k: rows(K.type, Sk), v: rows(V.type, Sk), ...(lengths && { cuSeqlens: lengths }) }
  await withProgram(compile(fn, specs, device), async (program) => {
    for (let begin = 0; begin < B * H; begin += pairs) {
      const count = Math.min(pairs, B * H - begin)
      const part = (t: Tensor, per: number, field: string) => partOf(t, begin * per * D, [count * per, D], `[${name}] ${field}`)
      const inputs = { q: part(Q, Sq, 'q'), k: part(K, Sk, 'k'), v: part(V, Sk, 'v'), ...(cu && { cuSeqlens: repeated(cu, count) }) }
      const into = { y: result.subarray(begin * Sq * D, (begin + count) * Sq * D) }
      await program.run(inputs, { counts: { pairs: count }, signal: options.signal, into })
    }
  })
  return new Tensor('float32', result, Q.dims)
}

/**
 * Pictures to tokens, float32 [B, tokens, C]: uint8 pixels become (pixel/255 − mean)/std, patches are projected, the class token comes
 * first, positions are added.
 *
 * @param images uint8 [B, H, W, 3] or float32 [B, 3, H, W] (taken as they are)
 * @param weight float [C, 3, P, P], or [C, 3·P·P]
 * @throws ShapeError, DTypeError, ArgumentError, DeviceError
 */
export async function patchEmbed(
  images: TensorLike,
  weight: TensorLike,
  options: PatchEmbedOptions = {},
): Promise<Tensor> {
  const name = 'ops.patchEmbed'
  checkOptions(name, options, patchEmbedRules)
  const pixels = Tensor.from(images, `[${name}] images`)
  const W = floats(name, 'weight', weight)
  const [C, patch] = patchOf(name, W)
  const device = await open(options)
  const { mean, std, rescale } = options
  const weightParameter: Parameter = { name: 'weight', shape: [C, 3 * patch * patch], dtype: device.computeType, role: 'linear' }
  const entries: { parameter: Parameter; source: Tensor }[] = [{ parameter: weightParameter, source: W }]
  const optional = (field: 'bias' | 'classToken' | 'positionEmbedding'): Value | undefined => {
    const given = options[field]
    if (!given) return undefined
    const source = floats(name, field, given)
    // A row [C] may come as [1, C] or [1, 1, C], positions as [1, tokens, C]: checkpoints have them so.
    const shape = source.dims.filter((dim, i) => dim !== 1 || i >= source.dims.length - (field === 'positionEmbedding' ? 2 : 1))
    const plain: Parameter = { name: field, shape, dtype: 'float32', role: 'plain' }
    entries.push({ parameter: plain, source })
    return parameter(plain)
  }
  const [bias, classToken, positionEmbedding] = [optional('bias'), optional('classToken'), optional('positionEmbedding')]

  const [B, ...picture] = pixels.dims as [number, ...number[]]
  const fn: TracedFunction = ({ pixels }) => ({
    y: patchEmbedOp(pixels!, parameter(weightParameter), { bias, classToken, positionEmbedding, patch, mean, std, rescale, dtype: 'float32' }),
  })
  const perImage = sizeOf(picture) * (bytesOf(pixels) + (4 * C) / (3 * patch * patch))
  const chunk = atMost(B, perImage)
  const weights = await device.loadWeights(entries, { signal: options.signal })
  try {
    const specs = { pixels: { shape: [chunk, ...picture], dtype: pixels.type, extent: { name: 'images', per: 1 } } }
    return await withProgram(compile(fn, specs, device, weights), async (program) => {
      const tokens = program.outputTypes['y']!.shape[0]! / chunk
      const result = unwritten('float32', [B, tokens, C], name)
      for (let begin = 0; begin < B; begin += chunk) {
        const count = Math.min(chunk, B - begin)
        const inputs = { pixels: partOf(pixels, begin * sizeOf(picture), [count, ...picture], `[${name}] images`) }
        const into = { y: result.subarray(begin * tokens * C, (begin + count) * tokens * C) }
        await program.run(inputs, { counts: { images: count }, signal: options.signal, into })
      }
      return new Tensor('float32', result, [B, tokens, C])
    })
  } finally {
    weights.dispose()
  }
}

/**
 * The cosine of each row of `a` with each row of `b`, float32 [m, n]; a row of zeros has cosine 0 with everything.
 *
 * @param a float [m, d]
 * @param b float [n, d]
 * @throws ShapeError, DTypeError, ArgumentError, DeviceError
 */
export async function cosineSimilarity(a: TensorLike, b: TensorLike, options: OpsOptions = {}): Promise<Tensor> {
  const name = 'ops.cosineSimilarity'
  checkOptions(name, options, opsRules)
  const [A, Bt] = [floats(name, 'a', a, 2), floats(name, 'b', b, 2)]
  const [m, d, n] = [A.dims[0]!, A.dims[1]!, Bt.dims[0]!]
  sameWidth(name, 'a', A, 'b', Bt)
  const device = await open(options)
  const result = unwritten('float32', [m, n], name)
  if (result.length === 0) return new Tensor('float32', result, [m, n])
  const columns = atMost(n, d * bytesOf(Bt) + 4)
  const rows = atMost(m, d * bytesOf(A) + 4 * columns)
  const fn: TracedFunction = ({ a, b }) => ({
    y: matmul(l2Normalize(a!, { dtype: device.computeType }), l2Normalize(b!, { dtype: device.computeType }), { dtype: 'float32' }),
  })
  for (let left = 0; left < n; left += columns) {
    const width = Math.min(columns, n - left)
    const specs = {
      a: { shape: [rows, d], dtype: A.type, extent: { name: 'rows', per: 1 } },
      b: { shape: [width, d], dtype: Bt.type },
    }
    await withProgram(compile(fn, specs, device), async (program) => {
      const part = partOf(Bt, left * d, [width, d], `[${name}] b`)
      for (let top = 0; top < m; top += rows) {
        const count = Math.min(rows, m - top)
        const { y } = await program.run({ a: partOf(A, top * d, [count, d], `[${name}] a`), b: part }, { signal: options.signal })
        const data = y!.data as Float32Array
        for (let i = 0; i < count; ++i) result.set(data.subarray(i * width, (i + 1) * width), (top + i) * n + left)
      }
    })
  }
  return new Tensor('float32', result, [m, n])
}

/**
 * The k rows of `corpus` with the greatest cosine to each query: best first, ties to the lower index, NaN last; where k exceeds the
 * corpus, the rest is −Infinity and −1.
 *
 * @param queries float [m, d]
 * @param corpus float32, bfloat16 or int8 [n, d]
 * @returns scores float32 [m, k], indices int32 [m, k]
 * @throws ShapeError, DTypeError, ArgumentError, DeviceError
 */
export async function cosineTopK(
  queries: TensorLike,
  corpus: TensorLike,
  k: number,
  options: OpsOptions = {},
): Promise<{ scores: Tensor; indices: Tensor }> {
  const name = 'ops.cosineTopK'
  checkOptions(name, options, opsRules)
  const Q = floats(name, 'queries', queries, 2)
  const N = tensor(name, 'corpus', corpus, ['float32', 'bfloat16', 'int8'], 2)
  sameWidth(name, 'queries', Q, 'corpus', N)
  if (!Number.isSafeInteger(k) || k < 1) throw new ArgumentError(`[${name}] k is ${shown(k)}; expected an integer of at least 1`, { op: name, field: 'k' })
  const [m, d, n] = [Q.dims[0]!, Q.dims[1]!, N.dims[0]!]
  const device = await open(options)
  const scores = unwritten('float32', [m, k], name).fill(-Infinity)
  const indices = new Int32Array(m * k).fill(-1)
  const done = { scores: new Tensor('float32', scores, [m, k]), indices: new Tensor('int32', indices, [m, k]) }
  if (m === 0 || n === 0) return done
  const rows = atMost(m, d * bytesOf(Q) + 64 * k) // merging k results costs far more than copying them
  const depth = atMost(n, d * bytesOf(N))
  const fn: TracedFunction = ({ queries, corpus }) => {
    const stored = device.dtype === 'bf16' && corpus!.dtype === 'float32' ? cast(corpus!, 'bfloat16') : corpus!
    const [scores, indices] = cosineTopKOp(queries!, stored, { k: Math.min(k, depth) })
    return { scores, indices }
  }
  const specs = {
    queries: { shape: [rows, d], dtype: Q.type, extent: { name: 'queries', per: 1 } },
    corpus: { shape: [depth, d], dtype: N.type, extent: { name: 'corpus', per: 1 } },
  }
  await withProgram(compile(fn, specs, device), async (program) => {
    for (let below = 0; below < n; below += depth) {
      const part = partOf(N, below * d, [Math.min(depth, n - below), d], `[${name}] corpus`)
      for (let top = 0; top < m; top += rows) {
        const count = Math.min(rows, m - top)
        const found = await program.run({ queries: partOf(Q, top * d, [count, d], `[${name}] queries`), corpus: part }, { signal: options.signal })
        const width = found['scores']!.dims[1]!
        for (let i = 0; i < count; ++i) {
          const at = (top + i) * k
          mergeBest(
            { scores: scores.subarray(at, at + k), indices: indices.subarray(at, at + k) },
            {
              scores: (found['scores']!.data as Float32Array).subarray(i * width, (i + 1) * width),
              indices: (found['indices']!.data as Int32Array).subarray(i * width, (i + 1) * width),
            },
            below,
          )
        }
      }
    }
  })
  return done
}

interface Best {
  readonly scores: Float32Array
  readonly indices: Int32Array
}

/** Merges `found`, whose indices count from `offset`, into `best`; both are sorted, and all of `found` comes after `best` in the corpus. */
function mergeBest(best: Best, found: Best, offset: number): void {
  const { scores, indices } = { scores: best.scores.slice(), indices: best.indices.slice() }
  for (let to = 0, i = 0, j = 0; to < best.scores.length; ++to) {
    const old = i < scores.length && (j >= found.scores.length || !precedes(found, j, { scores, indices }, i))
    if (old) {
      best.scores[to] = scores[i]!
      best.indices[to] = indices[i++]!
    } else {
      best.scores[to] = found.scores[j]!
      best.indices[to] = found.indices[j]! < 0 ? -1 : found.indices[j]! + offset
      ++j
    }
  }
}

/** Whether entry j of `later` goes before entry i of `earlier`: by score, NaN after all scores, nothing (−1) after NaN. */
function precedes(later: Best, j: number, earlier: Best, i: number): boolean {
  if (later.indices[j]! < 0) return false
  if (earlier.indices[i]! < 0) return true
  const [a, b] = [later.scores[j]!, earlier.scores[i]!]
  return a > b || (b !== b && a === a)
}

// --- helpers ---

function open(options: OpsOptions): Promise<Device> {
  options.signal?.throwIfAborted()
  if (options.dtype === 'int8') throw new UnsupportedError(`[ops] dtype is 'int8'; expected 'f32' or 'bf16'`, { field: 'dtype' })
  return sharedDevice({ device: options.device, dtype: options.dtype ?? 'f32', threads: options.threads })
}

async function withProgram<T>(program: Program, use: (program: Program) => Promise<T>): Promise<T> {
  try {
    return await use(program)
  } finally {
    program.dispose()
  }
}

function tensor(op: string, name: string, given: TensorLike, types: readonly DataType[], rank?: number): Tensor {
  const result = Tensor.from(given, `[${op}] ${name}`)
  if (!types.includes(result.type)) throw new DTypeError(`[${op}] ${name} is ${result.type}; expected ${types.join(' or ')}`, { op })
  if (rank !== undefined && result.dims.length !== rank) {
    throw new ShapeError(`[${op}] ${name} is [${result.dims.join(', ')}]; expected ${rank} dimensions`, { op, shapes: [result.dims] })
  }
  return result
}

function floats(op: string, name: string, given: TensorLike, rank?: number): Tensor {
  return tensor(op, name, given, ['float32', 'bfloat16'], rank)
}

function sameWidth(op: string, left: string, a: Tensor, right: string, b: Tensor): void {
  if (a.dims[1] === b.dims[1]) return
  throw new ShapeError(`[${op}] ${left} is [${a.dims.join(', ')}], ${right} is [${b.dims.join(', ')}]; expected ${right} to be [..., ${a.dims[1]}]`, {
    op,
    shapes: [a.dims, b.dims],
  })
}

function cumulative(op: string, given: TensorLike, queries: number, keys: number): Int32Array {
  const { data, dims } = tensor(op, 'cuSeqlens', given, ['int32'], 1)
  const cu = data as Int32Array
  const rising = cu.every((at, i) => i === 0 || at >= cu[i - 1]!)
  if (dims[0]! >= 2 && cu[0] === 0 && rising && cu.at(-1) === queries && queries === keys) return cu
  throw new ArgumentError(`[${op}] cuSeqlens is [${cu.subarray(0, 8).join(', ')}${cu.length > 8 ? ', …' : ''}] for ${queries} queries and ${keys} keys; ` +
    'expected numbers that rise from 0 to as many queries as keys', { op, field: 'cuSeqlens' })
}

/** The cumulative lengths of `count` copies, one after the other. */
function repeated(cu: Int32Array, count: number): Tensor {
  const sequences = cu.length - 1
  const all = new Int32Array(count * sequences + 1)
  for (let c = 0; c < count; ++c) for (let s = 0; s <= sequences; ++s) all[c * sequences + s] = c * cu[sequences]! + cu[s]!
  return new Tensor('int32', all, [all.length])
}

function patchOf(op: string, { dims }: Tensor): [channels: number, patch: number] {
  const patch = dims.length === 4 ? dims[2]! : Math.round(Math.sqrt((dims[1] ?? 0) / 3))
  const fits = dims.length === 4 ? dims[1] === 3 && dims[3] === patch : dims.length === 2 && dims[1] === 3 * patch * patch
  if (fits && patch >= 1) return [dims[0]!, patch]
  throw new ShapeError(`[${op}] weight is [${dims.join(', ')}]; expected [C, 3, P, P] or [C, 3·P·P]`, { op, shapes: [dims] })
}

function as(value: Value, device: Device): Value {
  return value.dtype === device.computeType ? value : cast(value, device.computeType)
}

function bytesOf({ type }: Tensor): number {
  return BYTES_PER_ELEMENT[type]
}

/** How many of `count` things of so many bytes make one chunk; at least one. */
function atMost(count: number, bytes: number): number {
  return Math.max(1, Math.min(count, Math.floor(CHUNK_BYTES / Math.max(1, bytes))))
}
