// THE op-case table: for every op (a missing one does not compile) inputs and attributes that the runner tries on every device and
// instruction set, in all mixtures of float32 and bfloat16, against the float64 references. Tolerances stand here, per dtype.

import type { DataType } from '../lib/core/dtype.js'
import type { Attributes } from '../lib/core/value.js'
import type { OpName } from '../lib/ops/index.js'

/** How an input is filled: normally distributed, zeros, given values, a function of the position, or normal with values put in. */
export type Fill = 'normal' | 'zeros' | readonly number[] | ((i: number) => number) | { readonly put: Readonly<Record<number, number>>; readonly scale?: number }

export interface CaseInput {
  readonly shape: readonly number[]
  readonly fill?: Fill
  /** Fixed dtype; absent: floats of the variant's type. */
  readonly dtype?: DataType
  /** The op takes no float16 here: float32 stands in. */
  readonly float16?: false
  /** A parameter that is loaded as a weight; 'linear' ones have a dtype of their own in each variant. */
  readonly role?: 'plain' | 'linear'
  /** A view: columns from here on of a value this wide. */
  readonly view?: { readonly begin: number; readonly of: number }
}

export interface OpCase {
  readonly title: string
  readonly inputs: Readonly<Record<string, CaseInput>>
  readonly attributes?: Attributes
  /** Instead of the op's tolerance, where the case loses digits by its nature. */
  readonly allowed?: number
}

/** Largest difference allowed, as a part of 1 + |reference|; rounding of a bfloat16 result comes on top. */
export interface Tolerance {
  readonly float32: number
  /** Where an input is bfloat16: products of bfloat16 are exact in float32, so only what a kernel rounds in between needs more. */
  readonly bfloat16: number
  /** The same on CUDA and with AMX or AVX512_BF16, where products of bfloat16 are made of more than the inputs. */
  readonly tileBfloat16?: number
}

/** What gelus may lose besides where their results are rounded to bfloat16 on 512-bit vectors; test/native checks it more closely. */
export const geluTolerance = 2 ** -12

const { NaN: nan, POSITIVE_INFINITY: inf } = Number
const f32 = (shape: readonly number[], fill: Fill = 'normal'): CaseInput => ({ shape, fill, dtype: 'float32' })
const any = (shape: readonly number[], fill: Fill = 'normal'): CaseInput => ({ shape, fill })
const ints = (values: readonly number[]): CaseInput => ({ shape: [values.length], fill: values, dtype: 'int32' })
const weight = (n: number, k: number, fill: Fill = (i) => wave(i) / Math.sqrt(k)): CaseInput => ({ shape: [n, k], fill, role: 'linear' })
const view = (shape: readonly number[], begin: number, of: number, fill: Fill = 'normal'): CaseInput => ({ shape, fill, view: { begin, of } })
const put = (values: Readonly<Record<number, number>>, scale = 1): Fill => ({ put: values, scale })
/** Numbers in [−1.7, 1.7] without a pattern that a kernel's tiles could share. */
const wave = (i: number) => 1.7 * Math.sin(i * 12.9898 + 78.233 * Math.cos(i))

function linearCase(title: string, rows: readonly number[], k: number, n: number, more: Partial<OpCase> & { x?: CaseInput } = {}): OpCase {
  return { title, inputs: { x: more.x ?? any([...rows, k]), weight: weight(n, k), ...more.inputs }, attributes: more.attributes ?? {} }
}

const linear: OpCase[] = [
  linearCase('one by one', [1], 1, 1, { inputs: { bias: f32([1]) } }),
  linearCase('odd sizes', [7], 13, 11, { inputs: { bias: f32([11]) } }),
  linearCase('a single row', [1], 65, 33),
  linearCase('a single output', [9], 31, 1),
  linearCase('rank 1', [], 24, 16),
  linearCase('rank 3', [2, 5], 48, 40, { inputs: { bias: f32([40]), residual: any([2, 5, 40]) } }),
  linearCase('no rows', [0], 16, 8, { inputs: { bias: f32([8]) } }),
  linearCase('more than a tile in every direction', [130], 257, 131, { inputs: { bias: f32([131]), residual: any([130, 131]) } }),
  linearCase('a long sum', [3], 4099, 5, { inputs: { bias: f32([5]) } }),
  linearCase('many outputs', [2], 17, 2051, { inputs: { bias: f32([2051]) } }),
  linearCase('a view of columns', [19], 32, 24, { x: view([19, 32], 5, 99), inputs: { residual: any([19, 24]) } }),
  linearCase('NaN and infinity stay in their rows', [5], 33, 17, { x: any([5, 33], put({ 40: nan, 70: inf, 140: -inf })) }),
  linearCase('NaN in bias and residual', [5], 8, 9, { inputs: { bias: f32([9], put({ 4: nan })), residual: any([5, 9], put({ 11: inf, 30: -inf })) } }),
  linearCase('large values', [4], 40, 12, { x: any([4, 40], put({}, 1e4)) }),
  ...(['gelu', 'quick_gelu', 'gelu_tanh', 'relu', 'silu', 'tanh'] as const).map((activation) =>
    linearCase(`${activation} alone`, [70], 40, 150, { inputs: { bias: f32([150], put({ 3: nan, 5: inf, 7: -9, 8: 9 }, 3)) }, attributes: { activation } }),
  ),
  ...(['gelu', 'quick_gelu', 'gelu_tanh', 'relu', 'silu', 'tanh'] as const).map((activation) =>
    linearCase(activation, [9], 20, 37, { inputs: { bias: f32([37], put({ 3: nan, 5: inf }, 3)), residual: any([9, 37]) }, attributes: { activation } }),
  ),
]

const matmul: OpCase[] = [
  { title: 'one by one', inputs: { a: any([1, 1]), b: any([1, 1]) } },
  { title: 'odd sizes', inputs: { a: any([7, 29]), b: any([5, 29]) }, attributes: { scale: 0.37 } },
  { title: 'more than a tile', inputs: { a: any([131, 130]), b: any([67, 130]) }, attributes: { scale: -2 } },
  { title: 'no rows', inputs: { a: any([0, 8]), b: any([3, 8]) } },
  { title: 'no columns', inputs: { a: any([2, 8]), b: any([0, 8]) } },
  { title: 'an empty sum', inputs: { a: any([2, 0]), b: any([3, 0]) } },
  { title: 'one float32, one given', inputs: { a: any([6, 20]), b: f32([9, 20]) } },
  { title: 'a long sum', inputs: { a: any([2, 4099]), b: any([3, 4099], (i) => wave(i) / 64) } },
  { title: 'views of columns', inputs: { a: view([6, 21], 3, 40), b: view([7, 21], 1, 30) } },
  { title: 'NaN and infinity', inputs: { a: any([4, 9], put({ 10: nan, 20: inf })), b: any([3, 9], put({ 2: -inf })) } },
]

const selfAttention = (title: string, lengths: readonly number[], heads: number, D: number, attributes: Attributes = {}): OpCase => {
  const cu = lengths.reduce((all, length) => [...all, all.at(-1)! + length], [0])
  const shape = [cu.at(-1)!, heads * D]
  return {
    title,
    inputs: { q: any(shape), k: any(shape), v: any(shape), cuSeqlensQ: ints(cu), cuSeqlensK: ints(cu) },
    attributes: { heads, ...attributes },
  }
}

const attention: OpCase[] = [
  { title: 'one query, one key', inputs: { q: any([1, 1]), k: any([1, 1]), v: any([1, 1]) }, attributes: { heads: 1, queryLength: 1, keyLength: 1 } },
  { title: 'odd sizes', inputs: { q: any([14, 15]), k: any([14, 15]), v: any([14, 15]) }, attributes: { heads: 3, queryLength: 7, keyLength: 7 } },
  {
    title: 'cross, other lengths',
    inputs: { q: any([6, 32]), k: any([22, 32]), v: any([22, 32]) },
    attributes: { heads: 2, queryLength: 3, keyLength: 11, scale: 0.5 },
  },
  {
    title: 'cross, causal, more keys than queries',
    inputs: { q: any([6, 16]), k: any([10, 16]), v: any([10, 16]) },
    attributes: { heads: 1, queryLength: 3, keyLength: 5, causal: true },
  },
  {
    title: 'cross, causal, queries that see nothing',
    inputs: { q: any([10, 16]), k: any([6, 16]), v: any([6, 16]) },
    attributes: { heads: 2, queryLength: 5, keyLength: 3, causal: true },
  },
  {
    title: 'CLIP: 50 tokens, 12 heads of 64',
    inputs: { q: any([100, 768]), k: any([100, 768]), v: any([100, 768]) },
    attributes: { heads: 12, queryLength: 50, keyLength: 50 },
  },
  { title: 'many keys', inputs: { q: any([2, 64]), k: any([1300, 64]), v: any([1300, 64]) }, attributes: { heads: 1, queryLength: 2, keyLength: 1300 } },
  { title: 'causal past a tile', inputs: { q: any([197, 40]), k: any([197, 40]), v: any([197, 40]) }, attributes: { heads: 1, queryLength: 197, keyLength: 197, causal: true } },
  { title: 'wide heads', inputs: { q: any([9, 128]), k: any([9, 128]), v: any([9, 128]) }, attributes: { heads: 1, queryLength: 9, keyLength: 9 } },
  { title: 'very wide heads', inputs: { q: any([21, 512]), k: any([38, 512]), v: any([38, 512]) }, attributes: { heads: 2, queryLength: 21, keyLength: 38 } },
  selfAttention('ragged', [5, 1, 17, 2], 2, 16),
  selfAttention('ragged and causal', [5, 1, 17, 33], 2, 8, { causal: true }),
  selfAttention('ragged with empty sequences', [0, 3, 0, 4, 0], 1, 8),
  selfAttention('no sequences', [], 2, 8),
  {
    title: 'one picked query of each ragged sequence, one of them empty',
    inputs: { q: any([4, 32]), k: any([12, 32]), v: any([12, 32]), cuSeqlensK: ints([0, 5, 5, 11, 12]) },
    attributes: { heads: 2, queryLength: 1 },
  },
  {
    title: 'ragged queries, keys of one length',
    inputs: { q: any([7, 32]), k: any([9, 32]), v: any([9, 32]), cuSeqlensQ: ints([0, 1, 1, 7]) },
    attributes: { heads: 2, keyLength: 3 },
  },
  ...[false, true].flatMap((causal): OpCase[] => [
    selfAttention(`a window of 4, causal: ${causal}`, [5, 1, 17, 33], 2, 8, { causal, window: 4 }),
    selfAttention(`a window of 40 past a tile, causal: ${causal}`, [300, 3], 1, 16, { causal, window: 40 }),
    {
      title: `a window, cross, queries that see nothing, causal: ${causal}`,
      inputs: { q: any([24, 16]), k: any([8, 16]), v: any([8, 16]) },
      attributes: { heads: 2, queryLength: 12, keyLength: 4, window: 2, causal },
    },
    {
      title: `a window wider than the keys, cross, queries before it, causal: ${causal}`,
      inputs: { q: any([24, 16]), k: any([6, 16]), v: any([6, 16]) },
      attributes: { heads: 2, queryLength: 12, keyLength: 3, window: 5, causal },
    },
    {
      title: `fewer heads of keys and values, causal: ${causal}`,
      inputs: { q: any([14, 48]), k: any([14, 16]), v: any([14, 16]) },
      attributes: { heads: 6, kvHeads: 2, queryLength: 7, keyLength: 7, causal },
    },
  ]),
  selfAttention('a window of nothing but oneself', [9, 2], 2, 8, { window: 0 }),
  {
    title: 'one head of keys and values, a window, all in one projection',
    inputs: { q: view([18, 32], 0, 48), k: view([18, 8], 32, 48), v: view([18, 8], 40, 48) },
    attributes: { heads: 4, kvHeads: 1, queryLength: 9, keyLength: 9, window: 3 },
  },
  {
    title: 'NaN outside the window is not seen',
    inputs: { q: any([9, 8]), k: any([9, 8], put({ 1: nan, 71: nan })), v: any([9, 8], put({ 1: nan, 65: inf })) },
    attributes: { heads: 1, queryLength: 9, keyLength: 9, window: 2 },
  },
  {
    title: 'relative bias and a window',
    inputs: { q: any([12, 24]), k: any([12, 24]), v: any([12, 24]), cuSeqlensQ: ints([0, 7, 12]), cuSeqlensK: ints([0, 7, 12]), relativeBias: f32([19, 3], put({ 10: nan })) },
    attributes: { heads: 3, window: 5 },
  },
  {
    title: 'rows past the last sequence are zeros',
    inputs: { q: any([8, 8]), k: any([8, 8]), v: any([8, 8]), cuSeqlensQ: ints([0, 2, 6]), cuSeqlensK: ints([0, 2, 6]) },
    attributes: { heads: 1 },
  },
  {
    title: 'relative bias',
    inputs: { q: any([12, 24]), k: any([12, 24]), v: any([12, 24]), cuSeqlensQ: ints([0, 7, 12]), cuSeqlensK: ints([0, 7, 12]), relativeBias: f32([19, 3]) },
    attributes: { heads: 3 },
  },
  {
    title: 'relative bias, causal, cross',
    inputs: { q: any([4, 8]), k: any([6, 8]), v: any([6, 8]), relativeBias: f32([11, 1]) },
    attributes: { heads: 1, queryLength: 4, keyLength: 6, causal: true },
  },
  {
    title: 'q, k and v in one projection',
    inputs: { q: view([18, 32], 0, 96), k: view([18, 32], 32, 96), v: view([18, 32], 64, 96) },
    attributes: { heads: 2, queryLength: 9, keyLength: 9 },
  },
  {
    title: 'large scores',
    inputs: { q: any([5, 16], put({}, 30)), k: any([5, 16], put({}, 30)), v: any([5, 16]) },
    attributes: { heads: 1, queryLength: 5, keyLength: 5, scale: 1 },
  },
  {
    title: 'NaN stays in its sequence and head',
    inputs: { q: any([9, 8], put({ 3: nan })), k: any([9, 8], put({ 29: nan })), v: any([9, 8], put({ 60: nan })) },
    attributes: { heads: 2, queryLength: 3, keyLength: 3 },
  },
  {
    title: 'NaN behind the causal mask is not seen',
    inputs: { q: any([4, 8]), k: any([4, 8], put({ 25: nan })), v: any([4, 8], put({ 26: nan, 18: inf })) },
    attributes: { heads: 1, queryLength: 4, keyLength: 4, causal: true },
  },
  {
    title: 'infinite scores',
    inputs: { q: any([4, 4], put({ 0: inf })), k: any([4, 4], put({ 8: -inf })), v: any([4, 4]) },
    attributes: { heads: 1, queryLength: 4, keyLength: 4 },
  },
]

const bytes = (shape: readonly number[]): CaseInput => ({ shape, fill: (i) => (i * 73 + (i >> 3)) % 256, dtype: 'uint8' })
const imagenet = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225], rescale: 1 / 255 }
const tokens = (n: number, C: number): Record<string, CaseInput> => ({ bias: f32([C]), classToken: f32([C]), positionEmbedding: f32([n, C]) })

const patchEmbed: OpCase[] = [
  { title: 'one pixel', inputs: { pixels: bytes([1, 1, 1, 3]), weight: weight(1, 3) }, attributes: { patch: 1 } },
  { title: 'odd sizes', inputs: { pixels: bytes([3, 10, 15, 3]), weight: weight(7, 75), ...tokens(7, 7) }, attributes: { patch: 5, ...imagenet } },
  { title: 'ViT-B/32 in small', inputs: { pixels: bytes([2, 64, 96, 3]), weight: weight(40, 3072), ...tokens(7, 40) }, attributes: { patch: 32, ...imagenet } },
  { title: 'float pixels', inputs: { pixels: f32([2, 3, 12, 8]), weight: weight(20, 48), ...tokens(7, 20) }, attributes: { patch: 4, ...imagenet } },
  { title: 'no class token, no positions', inputs: { pixels: bytes([2, 8, 8, 3]), weight: weight(9, 48), bias: f32([9]) }, attributes: { patch: 4 } },
  { title: 'no bias', inputs: { pixels: f32([1, 3, 8, 4]), weight: weight(16, 48) }, attributes: { patch: 4 } },
  { title: 'the rest of the picture is ignored', inputs: { pixels: bytes([2, 9, 11, 3]), weight: weight(8, 48), ...tokens(5, 8) }, attributes: { patch: 4, ...imagenet } },
  { title: 'float pixels, the rest is ignored', inputs: { pixels: f32([2, 3, 7, 5], put({ 30: nan, 4: inf })), weight: weight(8, 27) }, attributes: { patch: 3 } },
  { title: 'patches of 14, more than a block of them', inputs: { pixels: bytes([2, 28, 140, 3]), weight: weight(9, 588), ...tokens(21, 9) }, attributes: { patch: 14, ...imagenet } },
  { title: 'large patches', inputs: { pixels: bytes([1, 66, 33, 3]), weight: weight(3, 3267), ...tokens(3, 3) }, attributes: { patch: 33, ...imagenet } },
  { title: 'no pictures', inputs: { pixels: bytes([0, 8, 8, 3]), weight: weight(8, 48), ...tokens(5, 8) }, attributes: { patch: 4 } },
  { title: 'more patches than a tile', inputs: { pixels: bytes([5, 28, 28, 3]), weight: weight(70, 12), ...tokens(197, 70) }, attributes: { patch: 2, ...imagenet } },
  { title: 'NaN pixels stay in their patch', inputs: { pixels: f32([2, 3, 4, 6], put({ 7: nan, 80: inf })), weight: weight(5, 12), ...tokens(7, 5) }, attributes: { patch: 2 } },
]

/** Windows over `pictures` pictures. */
function windowCases(inputs: (channels: number, area: number, x: CaseInput) => Record<string, CaseInput>, attributes: Attributes = {}): OpCase[] {
  const one = (title: string, [pictures, height, width, C]: readonly [number, number, number, number], more: Record<string, number[]> = {}, fill?: Fill, x?: CaseInput): OpCase => ({
    title,
    inputs: inputs(C, (more['kernel'] ?? [1, 1]).reduce((a, b) => a * b), x ?? any([pictures * height * width, C], fill)),
    attributes: { height, width, ...more, ...attributes },
  })
  return [
    one('one pixel', [1, 1, 1, 1]),
    one('every other pixel', [2, 5, 4, 8], { stride: [2, 2] }),
    one('3 x 3 at every pixel', [2, 6, 5, 8], { kernel: [3, 3], padding: [1, 1, 1, 1] }),
    one('odd sizes, unlike sides', [3, 7, 10, 5], { kernel: [2, 3], stride: [3, 2], padding: [1, 2, 0, 1] }),
    one('more at the end', [2, 6, 6, 16], { kernel: [3, 3], stride: [2, 2], padding: [0, 0, 1, 1] }),
    one('5 x 5 over a small picture', [1, 2, 3, 24], { kernel: [5, 5], padding: [2, 2, 2, 2] }),
    one('a signal', [2, 1, 37, 9], { kernel: [1, 10], stride: [1, 5] }),
    one('a long kernel', [1, 1, 21, 16], { kernel: [1, 16], padding: [0, 8, 0, 7] }),
    one('many channels', [1, 3, 3, 131], { kernel: [3, 3], padding: [1, 1, 1, 1] }),
    one('no pictures', [0, 4, 4, 8], { kernel: [3, 3] }),
    one('a view of columns', [2, 4, 3, 11], { kernel: [3, 3], padding: [1, 1, 1, 1] }, undefined, view([24, 11], 3, 40)),
    one('NaN and infinity', [2, 5, 5, 8], { kernel: [3, 3], stride: [2, 2], padding: [1, 1, 1, 1] }, put({ 9: nan, 100: inf, 101: -inf, 300: nan })),
  ]
}
const convolutionOutputs = 13
const convolutionCases = windowCases((C, area, x) => ({ x, weight: weight(convolutionOutputs, area * C), bias: f32([convolutionOutputs]) }))
const convolution: OpCase[] = [
  ...convolutionCases,
  { title: 'more than a tile, residual', inputs: { x: any([2 * 12 * 11, 32]), weight: weight(70, 288), residual: any([2 * 12 * 11, 70]) }, attributes: { height: 12, width: 11, kernel: [3, 3], padding: [1, 1, 1, 1] } },
  { title: 'three channels', inputs: { x: any([300, 3]), weight: weight(16, 147), bias: f32([16]) }, attributes: { height: 15, width: 20, kernel: [7, 7], stride: [2, 2], padding: [3, 3, 3, 3], activation: 'relu' } },
  ...(['gelu', 'quick_gelu', 'gelu_tanh', 'silu', 'tanh'] as const).map((activation): OpCase => ({
    title: activation,
    inputs: { x: any([20, 4]), weight: weight(9, 24), bias: f32([9], put({ 3: nan }, 3)), residual: any([4, 9]) },
    attributes: { height: 5, width: 4, kernel: [2, 3], stride: [3, 1], activation },
  })),
]
const depthwiseConvolution: OpCase[] = [
  ...windowCases((C, area, x) => ({ x, weight: f32([area, C]), bias: f32([C]) })),
  ...windowCases((C, area, x) => ({ x, weight: f32([area, C]) }), { activation: 'silu' }).slice(1, 5),
  ...(['gelu', 'quick_gelu', 'gelu_tanh', 'relu', 'tanh'] as const).map((activation): OpCase => ({
    title: activation,
    inputs: { x: any([20, 70]), weight: f32([6, 70]), bias: f32([70], put({ 3: nan }, 3)) },
    attributes: { height: 5, width: 4, kernel: [2, 3], stride: [3, 1], activation },
  })),
]
const poolWindows: OpCase[] = (['max', 'mean'] as const).flatMap((mode) => windowCases((_, __, x) => ({ x }), { mode }))

const scaleSequences: OpCase[] = [
  { title: 'one to one', inputs: { x: any([1, 1]), scale: f32([1, 1]) }, attributes: { length: 1 } },
  { title: 'odd sizes', inputs: { x: any([21, 13]), scale: f32([3, 13]), shift: f32([3, 13]) }, attributes: { length: 7 } },
  { title: 'long sequences', inputs: { x: any([1400, 24]), scale: f32([2, 24]) }, attributes: { length: 700 } },
  { title: 'large rows', inputs: { x: any([4, 5003]), scale: f32([2, 5003]), shift: f32([2, 5003]) }, attributes: { length: 2 } },
  { title: 'no sequences', inputs: { x: any([0, 5]), scale: f32([0, 5]) }, attributes: { length: 3 } },
  { title: 'views of columns', inputs: { x: view([6, 10], 2, 17), scale: { ...view([3, 10], 5, 19), dtype: 'float32' }, shift: { ...view([3, 10], 1, 12), dtype: 'float32' } }, attributes: { length: 2 } },
  { title: 'NaN and infinity', inputs: { x: any([6, 4], put({ 1: nan, 8: inf })), scale: f32([2, 4], put({ 6: nan })), shift: f32([2, 4], put({ 0: -inf })) }, attributes: { length: 3 } },
]

/** Shapes that every op of single rows meets. */
function rowCases(attributes: Attributes, more: (columns: number) => Record<string, CaseInput> = () => ({})): OpCase[] {
  const one = (title: string, x: CaseInput): OpCase => ({ title, inputs: { x, ...more(x.shape.at(-1)!) }, attributes })
  return [
    one('a single element', any([1, 1])),
    one('odd sizes', any([5, 13])),
    one('a row alone', any([37])),
    one('rank 4', any([2, 3, 4, 19])),
    one('no rows', any([0, 8])),
    one('large rows', any([2, 10007])),
    one('many rows', any([333, 24])),
    one('zeros', any([2, 9], 'zeros')),
    one('equal elements', any([2, 33], () => 0.75)),
    one('large values', any([3, 65], put({}, 1e4))),
    one('a view of columns', view([11, 21], 7, 64)),
    one('NaN and infinity stay in their rows', any([6, 17], put({ 3: nan, 40: inf, 55: -inf, 72: nan, 73: inf }))),
  ]
}

const layerNorm: OpCase[] = [
  ...rowCases({ eps: 1e-5 }, (C) => ({ weight: f32([C]), bias: f32([C]) })),
  { title: 'without weight and bias', inputs: { x: any([7, 40]) }, attributes: { eps: 1e-12 } },
  { title: 'weight alone', inputs: { x: any([7, 40]), weight: f32([40]) }, attributes: { eps: 1e-6 } },
  ...[1e-5, 1e-6, 1e-12].map((eps) => ({ title: `rows as little as an eps of ${eps}`, inputs: { x: any([5, 128], put({}, 1e-3)), weight: f32([128]) }, attributes: { eps } })),
  {
    title: 'far from zero',
    inputs: { x: any([3, 100], (i) => 1000 + wave(i)), weight: f32([100]), bias: f32([100]) },
    attributes: { eps: 1e-5 },
    allowed: 2 * 1000 * 2 ** -23, // a float32 mean of 1000 is known to a step of 2^-14
  },
]

const rmsNorm: OpCase[] = [
  ...rowCases({ eps: 1e-5 }, (C) => ({ weight: f32([C]) })),
  { title: 'without weight', inputs: { x: any([7, 40]) }, attributes: { eps: 1e-6 } },
  { title: 'a little row, a great eps', inputs: { x: any([3, 128], put({}, 0.01)), weight: f32([128]) }, attributes: { eps: 0.1 } },
  { title: 'a row of some pieces', inputs: { x: any([3, 1000]), weight: f32([1000]) }, attributes: { eps: 1e-6 } },
]

/** A table of cosines and sines, of angles that no two places or features share. */
const angles = (rows: number, rotated: number): CaseInput => f32([rows, rotated], (i) => (i % rotated < rotated / 2 ? Math.cos : Math.sin)(0.7 * Math.floor(i / rotated) + 1.3 * (i % (rotated / 2))))

const rotary: OpCase[] = [
  { title: 'one pair', inputs: { x: any([1, 2]), table: angles(2, 2), positions: ints([1]) }, attributes: { heads: 1 } },
  { title: 'odd sizes', inputs: { x: any([7, 30]), table: angles(9, 10), positions: ints([0, 8, 3, 3, 1, 7, 2]) }, attributes: { heads: 3 } },
  { title: 'a part of each head', inputs: { x: any([4, 39]), table: angles(5, 6), positions: ints([4, 0, 1, 2]) }, attributes: { heads: 3 } },
  { title: 'nothing of a head', inputs: { x: any([2, 6]), table: f32([3, 0]), positions: ints([2, 0]) }, attributes: { heads: 2 } },
  { title: 'heads of 64', inputs: { x: any([40, 256]), table: angles(40, 64), positions: ints(Array.from({ length: 40 }, (_, i) => (i * 7) % 40)) }, attributes: { heads: 4 } },
  { title: 'the last rows of each sequence', inputs: { x: any([24, 32]), table: angles(5, 16) }, attributes: { heads: 2, length: 8 } },
  { title: 'all rows of each sequence', inputs: { x: any([10, 24]), table: angles(5, 12) }, attributes: { heads: 2, length: 5 } },
  { title: 'no rows', inputs: { x: any([0, 8]), table: angles(3, 8), positions: ints([]) }, attributes: { heads: 1 } },
  { title: 'large rows', inputs: { x: any([2, 10008]), table: angles(3, 10008), positions: ints([2, 1]) }, attributes: { heads: 1 } },
  { title: 'views of columns', inputs: { x: view([6, 32], 5, 99), table: { ...view([4, 16], 3, 30, (i) => Math.sin(i)), dtype: 'float32' }, positions: ints([3, 2, 1, 0, 1, 2]) }, attributes: { heads: 2 } },
  { title: 'NaN and infinity stay in their rows and pairs', inputs: { x: any([4, 16], put({ 3: nan, 20: inf, 40: -inf })), table: angles(4, 8), positions: ints([0, 1, 2, 3]) }, attributes: { heads: 1 } },
]

const softmax: OpCase[] = [
  ...rowCases({}),
  { title: 'minus infinity has no share', inputs: { x: any([2, 6], [1, -inf, 2, -inf, 0, 3, -inf, -inf, -inf, -inf, -inf, -inf]) } },
]

const cu = [0, 4, 4, 5, 30]
const pickCases = (attributes: Attributes): OpCase[] => [
  { title: 'one token', inputs: { x: any([1, 1]), cuSeqlens: ints([0, 1]) }, attributes },
  { title: 'ragged, one empty', inputs: { x: any([30, 13]), cuSeqlens: ints(cu) }, attributes },
  { title: 'one length', inputs: { x: any([21, 10]) }, attributes: { ...attributes, length: 7 } },
  { title: 'no sequences', inputs: { x: any([0, 5]), cuSeqlens: ints([0]) }, attributes },
  { title: 'only empty sequences', inputs: { x: any([0, 5]), cuSeqlens: ints([0, 0, 0]) }, attributes },
  { title: 'rows past the last sequence', inputs: { x: any([9, 6]), cuSeqlens: ints([0, 3, 7]) }, attributes },
  { title: 'large rows', inputs: { x: any([4, 5003]), cuSeqlens: ints([0, 1, 4]) }, attributes },
  { title: 'long sequences', inputs: { x: any([1500, 9]), cuSeqlens: ints([0, 700, 1500]) }, attributes },
  { title: 'a view of columns', inputs: { x: view([30, 13], 3, 40), cuSeqlens: ints(cu) }, attributes },
  { title: 'NaN and infinity', inputs: { x: any([6, 4], put({ 1: nan, 8: inf, 14: -inf, 21: nan })), cuSeqlens: ints([0, 1, 3, 6]) }, attributes },
]

const arithmetic: OpCase[] = [
  { title: 'one element', inputs: { a: any([1]), b: any([1], [2]) } },
  { title: 'odd sizes', inputs: { a: any([3, 5, 7]), b: any([3, 5, 7], (i) => 1.5 + Math.sin(i)) } },
  { title: 'a row for all', inputs: { a: any([9, 37]), b: any([37], (i) => 1.5 + Math.sin(i)) } },
  { title: 'trailing dimensions', inputs: { a: any([4, 3, 11]), b: any([3, 11], (i) => 2 + Math.cos(i)) } },
  { title: 'a scalar', inputs: { a: any([5, 6]), b: any([], [0.3]) } },
  { title: 'two scalars', inputs: { a: any([], [0.7]), b: any([], [0.3]) } },
  { title: 'no elements', inputs: { a: any([0, 4]), b: any([4], [1, 2, 3, 4]) } },
  { title: 'no columns', inputs: { a: any([4, 0]), b: any([0]) } },
  { title: 'large', inputs: { a: any([3, 20011]), b: any([3, 20011], (i) => 1.5 + Math.sin(i)) } },
  { title: 'float32 with the given', inputs: { a: any([6, 10]), b: f32([6, 10], (i) => 1.5 + Math.sin(i)) } },
  { title: 'views of columns', inputs: { a: view([6, 10], 2, 17), b: view([6, 10], 5, 19, (i) => 1.5 + Math.sin(i)) } },
  { title: 'NaN, infinity and zero', inputs: { a: any([10], [nan, 1, inf, inf, -inf, 0, 0, 1, -1, inf]), b: any([10], [1, nan, inf, -inf, 2, 0, inf, 0, 0, 0]) } },
]

const unaryKinds = ['gelu', 'quick_gelu', 'gelu_tanh', 'relu', 'silu', 'tanh', 'sigmoid', 'exp', 'neg', 'sqrt', 'abs'] as const

const rows = (shape: readonly number[], fill: Fill = 'normal'): CaseInput => ({ shape, fill, float16: false })

/** Whose squares float32 does not hold, and 1. */
const magnitudes = [1, 1e25, 1e-25, 1e37, 1e-36, 3e19, 1e-21]

const cosineTopK: OpCase[] = [
  { title: 'one of one', inputs: { queries: any([1, 1]), corpus: rows([1, 1]) }, attributes: { k: 1 } },
  { title: 'odd sizes', inputs: { queries: any([5, 13]), corpus: rows([57, 13]) }, attributes: { k: 7 } },
  { title: 'float32 corpus', inputs: { queries: any([3, 40]), corpus: f32([600, 40]) }, attributes: { k: 10 } },
  { title: 'int8 corpus', inputs: { queries: any([3, 33]), corpus: { shape: [70, 33], dtype: 'int8', fill: (i) => ((i * 37) % 255) - 127 } }, attributes: { k: 5 } },
  { title: 'norms given', inputs: { queries: any([4, 16]), corpus: rows([30, 16]), inverseNorms: f32([30], (i) => 0.1 + (i % 7) / 9) }, attributes: { k: 4 } },
  { title: 'k exceeds the corpus', inputs: { queries: any([2, 8]), corpus: rows([3, 8]) }, attributes: { k: 6 } },
  { title: 'an empty corpus', inputs: { queries: any([2, 8]), corpus: rows([0, 8]) }, attributes: { k: 3 } },
  { title: 'no queries', inputs: { queries: any([0, 8]), corpus: rows([5, 8]) }, attributes: { k: 2 } },
  { title: 'ties go to the lower index', inputs: { queries: any([2, 4], [1, 0, 0, 0, 0, 1, 0, 0]), corpus: rows([40, 4], (i) => (i % 4 === (i >> 2) % 2 ? 1 : 0)) }, attributes: { k: 25 } },
  { title: 'zero rows score 0', inputs: { queries: any([2, 4], [0, 0, 0, 0, 1, 2, 3, 4]), corpus: rows([5, 4], (i) => (i >> 2 === 2 ? 0 : wave(i))) }, attributes: { k: 5 } },
  { title: 'NaN comes last', inputs: { queries: any([2, 4], put({ 5: nan })), corpus: rows([9, 4], put({ 9: nan, 21: inf })) }, attributes: { k: 9 } },
  { title: 'a large corpus', inputs: { queries: any([2, 24]), corpus: rows([5000, 24]) }, attributes: { k: 100 } },
  { title: 'many queries', inputs: { queries: any([70, 24]), corpus: rows([300, 24]) }, attributes: { k: 3 } },
  { title: 'long rows', inputs: { queries: any([2, 3001]), corpus: rows([40, 3001]) }, attributes: { k: 3 } },
  { title: 'most of the corpus', inputs: { queries: any([2, 16]), corpus: rows([900, 16]) }, attributes: { k: 700 } },
  { title: 'many queries, int8 corpus', inputs: { queries: any([40, 32]), corpus: { shape: [200, 32], dtype: 'int8', fill: (i) => ((i * 37 + (i >> 5)) % 255) - 127 } }, attributes: { k: 20 } },
  { title: 'views of columns', inputs: { queries: view([3, 12], 2, 17), corpus: { ...view([50, 12], 3, 21), float16: false } }, attributes: { k: 6 } },
  { title: 'great and tiny rows', inputs: { queries: any([3, 24]), corpus: rows([600, 24], (i) => wave(i) * magnitudes[Math.floor(i / 24) % 7]!) }, attributes: { k: 10 } },
  { title: 'great and tiny queries', inputs: { queries: rows([7, 24], (i) => wave(i + 5) * magnitudes[Math.floor(i / 24)]!), corpus: rows([90, 24]) }, attributes: { k: 5 } },
  {
    title: 'great and tiny rows, norms given',
    inputs: {
      queries: any([3, 24]),
      corpus: rows([300, 24], (i) => wave(i) * magnitudes[Math.floor(i / 24) % 7]!),
      inverseNorms: f32([300], (i) => 0.2 / magnitudes[i % 7]!),
    },
    attributes: { k: 10 },
  },
  {
    title: 'infinity with norms given',
    inputs: { queries: any([2, 4]), corpus: f32([30, 4], put({ 25: inf, 50: -inf, 70: nan })), inverseNorms: f32([30], (i) => 0.2 + (i % 5) / 7) },
    attributes: { k: 30 },
  },
]

export const opCases: Readonly<Record<OpName, readonly OpCase[]>> = {
  linear,
  matmul,
  attention,
  patchEmbed,
  convolution,
  depthwiseConvolution,
  poolWindows,
  layerNorm,
  rmsNorm,
  rotary,
  softmax,
  l2Normalize: [...rowCases({}), { title: 'a great eps', inputs: { x: any([4, 10], put({}, 0.01)) }, attributes: { eps: 0.5 } }],
  gather: [
    { title: 'one of one', inputs: { table: any([1, 1]), indices: ints([0]) } },
    { title: 'odd sizes, repeated', inputs: { table: any([7, 13]), indices: ints([6, 0, 3, 3, 5]) } },
    { title: 'no indices', inputs: { table: any([7, 13]), indices: ints([]) } },
    { title: 'an empty table, no indices', inputs: { table: any([0, 13]), indices: ints([]) } },
    { title: 'large rows', inputs: { table: any([3, 5003]), indices: ints([2, 2, 0]) } },
    { title: 'a parameter', inputs: { table: { ...any([50, 24]), role: 'plain' }, indices: ints(Array.from({ length: 100 }, (_, i) => (i * 7) % 50)) } },
    { title: 'a view of columns', inputs: { table: view([7, 13], 2, 20), indices: ints([6, 0, 3]) } },
    { title: 'NaN and infinity', inputs: { table: any([3, 2], [nan, 1, inf, 2, 3, -inf]), indices: ints([2, 1, 0, 1]) } },
  ],
  scatter: [
    { title: 'one to one', inputs: { x: any([1, 1]), indices: ints([0]) }, attributes: { rows: 1 } },
    { title: 'odd sizes with gaps', inputs: { x: any([5, 13]), indices: ints([6, 0, 3, 8, 5]) }, attributes: { rows: 9 } },
    { title: 'nothing to put', inputs: { x: any([0, 13]), indices: ints([]) }, attributes: { rows: 4 } },
    { title: 'no rows', inputs: { x: any([0, 13]), indices: ints([]) }, attributes: { rows: 0 } },
    { title: 'large rows', inputs: { x: any([2, 5003]), indices: ints([2, 0]) }, attributes: { rows: 3 } },
    { title: 'a view of columns', inputs: { x: view([3, 13], 2, 20), indices: ints([2, 0, 1]) }, attributes: { rows: 4 } },
    { title: 'NaN and infinity', inputs: { x: any([3, 2], [nan, 1, inf, 2, 3, -inf]), indices: ints([3, 1, 0]) }, attributes: { rows: 5 } },
  ],
  pickToken: [...pickCases({ which: 'first' }), ...pickCases({ which: 'last' })],
  pool: [...pickCases({ mode: 'mean' }), ...pickCases({ mode: 'max' }), ...pickCases({ mode: 'mean_sqrt_len' }), ...pickCases({ mode: 'mean', skip: 2 })],
  repeatRows: [
    { title: 'one row, one sequence', inputs: { table: any([1, 1]), like: any([1, 1]) }, attributes: { length: 1 } },
    { title: 'odd sizes', inputs: { table: any([3, 13]), like: any([10, 2]) }, attributes: { length: 2 } },
    { title: 'ragged sequences, one empty', inputs: { table: any([3, 13]), like: any([9, 2]), cuSeqlens: ints([0, 4, 4, 9]) } },
    { title: 'no sequences', inputs: { table: any([3, 13]), like: any([0, 2]) }, attributes: { length: 4 } },
    { title: 'no rows', inputs: { table: any([0, 13]), like: any([4, 2]) }, attributes: { length: 2 } },
    { title: 'large rows', inputs: { table: any([2, 5003]), like: any([3, 1]) }, attributes: { length: 1 } },
    { title: 'a view of columns', inputs: { table: view([3, 13], 2, 20), like: view([4, 3], 1, 9) }, attributes: { length: 2 } },
    { title: 'NaN and infinity', inputs: { table: any([1, 3], [nan, inf, -inf]), like: any([2, 1], [nan, 1]) }, attributes: { length: 1 } },
  ],
  prependRows: [
    { title: 'one to one', inputs: { prefix: any([1, 1]), x: any([1, 1]) }, attributes: { length: 1 } },
    { title: 'odd sizes', inputs: { prefix: any([3, 13]), x: any([10, 13]) }, attributes: { length: 2 } },
    { title: 'no sequences', inputs: { prefix: any([3, 13]), x: any([0, 13]) }, attributes: { length: 4 } },
    { title: 'no prefix', inputs: { prefix: any([0, 13]), x: any([4, 13]) }, attributes: { length: 2 } },
    { title: 'large rows', inputs: { prefix: any([2, 5003]), x: any([3, 5003]) }, attributes: { length: 3 } },
    { title: 'views of columns', inputs: { prefix: view([3, 13], 2, 20), x: view([4, 13], 1, 19) }, attributes: { length: 2 } },
    { title: 'NaN and infinity', inputs: { prefix: any([1, 3], [nan, inf, -inf]), x: any([2, 3], [1, nan, 2, inf, 3, -inf]) }, attributes: { length: 1 } },
    { title: 'a prefix for each', inputs: { prefix: any([6, 13]), x: any([12, 13]) }, attributes: { length: 4, each: true } },
    { title: 'a prefix for each of none', inputs: { prefix: any([0, 13]), x: any([0, 13]) }, attributes: { length: 4, each: true } },
  ],
  scaleSequences,
  add: arithmetic,
  sub: arithmetic,
  mul: arithmetic,
  div: arithmetic,
  unary: unaryKinds.flatMap((kind): OpCase[] => [
    { title: `${kind}, all magnitudes`, inputs: { x: any([401], (i) => (i - 200) / 16) }, attributes: { kind } },
    { title: `${kind}, large`, inputs: { x: any([3, 4001]) }, attributes: { kind } },
    { title: `${kind}, nothing`, inputs: { x: any([0, 3]) }, attributes: { kind } },
    { title: `${kind}, a scalar`, inputs: { x: any([], [0.3]) }, attributes: { kind } },
    { title: `${kind}, a view of columns`, inputs: { x: view([5, 9], 4, 30) }, attributes: { kind } },
    { title: `${kind}, NaN and infinity`, inputs: { x: any([7], [nan, inf, -inf, 0, -0, 88, -110]) }, attributes: { kind } },
  ]),
  cast: [
    { title: 'odd sizes', inputs: { x: any([3, 5, 7]) } },
    { title: 'nothing', inputs: { x: any([0]) } },
    { title: 'int32', inputs: { x: ints([0, 1, -1, 255, -32768, 65537, 16777217, -2147483648, 2147483647]) } },
    { title: 'uint8', inputs: { x: { shape: [256], dtype: 'uint8', fill: (i) => i } } },
    { title: 'ties and the largest', inputs: { x: f32([8], [1.00390625, 1.01171875, -1.00390625, 3.4e38, -3.4e38, 1e-40, 2 ** -126, 0]) } },
    { title: 'a view of columns', inputs: { x: view([5, 9], 4, 30) } },
    { title: 'large', inputs: { x: any([3, 20011]) } },
    { title: 'NaN and infinity', inputs: { x: any([5], [nan, inf, -inf, -0, 1]) } },
  ],
  cosineTopK,
  reshape: [
    { title: 'odd sizes', inputs: { x: any([6, 35]) }, attributes: { shape: [5, 7, 2, 3] } },
    { title: 'to a scalar', inputs: { x: any([1, 1]) }, attributes: { shape: [] } },
    { title: 'nothing', inputs: { x: any([0, 4]) }, attributes: { shape: [2, 0] } },
    { title: 'rows of a view', inputs: { x: view([6, 5], 3, 11) }, attributes: { shape: [2, 3, 5] } },
    { title: 'NaN and infinity', inputs: { x: any([2, 2], [nan, inf, -inf, 1]) }, attributes: { shape: [4] } },
  ],
  columns: [
    { title: 'the middle', inputs: { x: any([5, 9]) }, attributes: { begin: 2, end: 5 } },
    { title: 'one column', inputs: { x: any([5, 9]) }, attributes: { begin: 8, end: 9 } },
    { title: 'none', inputs: { x: any([5, 9]) }, attributes: { begin: 4, end: 4 } },
    { title: 'all', inputs: { x: any([5, 9]) }, attributes: { begin: 0, end: 9 } },
    { title: 'rank 1', inputs: { x: any([9]) }, attributes: { begin: 1, end: 4 } },
    { title: 'of a view', inputs: { x: view([4, 3, 8], 2, 13) }, attributes: { begin: 3, end: 8 } },
    { title: 'large rows', inputs: { x: any([2, 10007]) }, attributes: { begin: 1, end: 10006 } },
    { title: 'NaN and infinity', inputs: { x: any([2, 3], [nan, inf, -inf, 1, 2, nan]) }, attributes: { begin: 1, end: 3 } },
  ],
}

const exact: Tolerance = { float32: 0, bfloat16: 0 }
const rounding: Tolerance = { float32: 1e-6, bfloat16: 1e-6 }

export const tolerances: Readonly<Record<OpName, Tolerance>> = {
  linear: { float32: 1e-5, bfloat16: 1e-5 },
  matmul: { float32: 2e-5, bfloat16: 2e-5 },
  attention: { float32: 1e-5, bfloat16: 1e-3, tileBfloat16: 2 ** -8 }, // each of softmax's weights is rounded to bfloat16, by 2^-9 of it at most
  patchEmbed: { float32: 1e-5, bfloat16: 4e-5 },
  convolution: { float32: 1e-5, bfloat16: 1e-5 },
  depthwiseConvolution: { float32: 2e-6, bfloat16: 2e-6 },
  poolWindows: rounding,
  layerNorm: { float32: 2e-6, bfloat16: 2e-6 },
  rmsNorm: { float32: 2e-6, bfloat16: 2e-6 },
  rotary: { float32: 1e-6, bfloat16: 1e-6 },
  gather: exact,
  scatter: exact,
  pickToken: exact,
  pool: rounding,
  repeatRows: exact,
  prependRows: exact,
  scaleSequences: rounding,
  l2Normalize: rounding,
  softmax: rounding,
  add: exact,
  sub: exact,
  mul: exact,
  div: exact,
  unary: rounding,
  cast: exact,
  cosineTopK: rounding,
  reshape: exact,
  columns: exact,
}
