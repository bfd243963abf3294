// For every op, a batch of items whose results must have the same bits in whatever order, company and number they are computed:
// `build` makes the op's inputs from the items of an order, `rows` says how many rows of the outputs belong to each.

import type { Attributes } from '../lib/core/value.js'
import type { OpName } from '../lib/ops/index.js'
import type { CaseInput, OpCase } from './op-cases.js'

export interface Batch {
  readonly title: string
  readonly items: number
  build(order: readonly number[]): OpCase
  rows(item: number): number
}

const wave = (i: number) => 1.7 * Math.sin(i * 12.9898 + 78.233 * Math.cos(i))
const fixed = (shape: readonly number[], more: Partial<CaseInput> = {}): CaseInput => ({ shape, fill: (i) => wave(i + 0.5), ...more })
const weight = (n: number, k: number): CaseInput => fixed([n, k], { role: 'linear' })
const length = (item: number) => [5, 1, 17, 2, 0, 33, 64, 9, 3, 70][item % 10]!

/** Rows [sum of rows(item), ...rest] in which every item has numbers of its own. */
function stacked(order: readonly number[], rows: (item: number) => number, rest: readonly number[], salt: number, more: Partial<CaseInput> = {}): CaseInput {
  const size = rest.reduce((product, dim) => product * dim, 1)
  const bytes = more.dtype === 'uint8'
  const fill = order.flatMap((item) =>
    Array.from({ length: rows(item) * size }, (_, i) => (bytes ? (i * 73 + item * 29 + salt) % 256 : wave(item * 977 + i + salt * 0.37))),
  )
  return { shape: [order.reduce((sum, item) => sum + rows(item), 0), ...rest], fill, ...more }
}

function cuSeqlens(order: readonly number[]): CaseInput {
  const fill = order.reduce((all, item) => [...all, all.at(-1)! + length(item)], [0])
  return { shape: [fill.length], fill, dtype: 'int32' }
}

function rowBatch(
  title: string,
  items: number,
  inputs: (order: readonly number[], rows: (columns: number, salt: number) => CaseInput) => Record<string, CaseInput>,
  attributes: Attributes | ((order: readonly number[]) => Attributes) = {},
  rows = 1,
): Batch {
  return {
    title,
    items,
    rows: () => rows,
    build: (order) => ({
      title,
      inputs: inputs(order, (columns, salt) => stacked(order, () => 1, [columns], salt)),
      attributes: typeof attributes === 'function' ? attributes(order) : attributes,
    }),
  }
}

const x = (columns: number, attributes: Attributes = {}) => [rowBatch('rows', 37, (_, rows) => ({ x: rows(columns, 1) }), attributes)]
const ab = (columns: number) => [
  rowBatch('rows', 37, (_, rows) => ({ a: rows(columns, 1), b: rows(columns, 2) })),
  rowBatch('a row for all', 37, (_, rows) => ({ a: rows(columns, 1), b: fixed([columns]) })),
]
const ragged = (attributes: Attributes): Batch => ({
  title: `ragged ${JSON.stringify(attributes)}`,
  items: 20,
  rows: () => 1,
  build: (order) => ({ title: '', inputs: { x: stacked(order, length, [13], 1), cuSeqlens: cuSeqlens(order) }, attributes }),
})

const raggedAttention = (heads: number, D: number, attributes: Attributes, kvHeads = heads): Batch => ({
  title: `ragged, ${heads} heads of ${D}, ${JSON.stringify(attributes)}`,
  items: 20,
  rows: length,
  build: (order) => {
    const [q, k, v] = [heads, kvHeads, kvHeads].map((count, i) => stacked(order, length, [count * D], i + 1)) as [CaseInput, CaseInput, CaseInput]
    return { title: '', inputs: { q, k, v, cuSeqlensQ: cuSeqlens(order), cuSeqlensK: cuSeqlens(order) }, attributes: { heads, kvHeads, ...attributes } }
  },
})

/** Pictures of 4 x 6 pixels. */
function pictures(title: string, items: number, channels: number, inputs: (x: CaseInput, order: readonly number[]) => Record<string, CaseInput>, attributes: Record<string, any>): Batch {
  const { kernel, stride = [1, 1], padding = [0, 0, 0, 0] } = attributes as Record<string, number[]>
  const windows = [4, 6].map((side, i) => Math.floor((side + padding[i]! + padding[i + 2]! - kernel![i]!) / stride[i]!) + 1)
  return {
    title,
    items,
    rows: () => windows[0]! * windows[1]!,
    build: (order) => ({ title: '', inputs: inputs(stacked(order, () => 24, [channels], 1), order), attributes: { height: 4, width: 6, ...attributes } }),
  }
}

export const batches: Readonly<Record<OpName, readonly Batch[]>> = {
  linear: [
    rowBatch('bias, gelu, residual', 37, (_, rows) => ({ x: rows(70, 1), weight: weight(45, 70), bias: fixed([45], { dtype: 'float32' }), residual: rows(45, 2) }), {
      activation: 'gelu',
    }),
    rowBatch('more rows than a tile', 201, (_, rows) => ({ x: rows(133, 1), weight: weight(33, 133) })),
  ],
  matmul: [rowBatch('rows', 37, (_, rows) => ({ a: rows(70, 1), b: fixed([29, 70]) }), { scale: 0.3 })],
  attention: [
    raggedAttention(2, 16, {}),
    raggedAttention(3, 8, { causal: true }),
    raggedAttention(4, 8, { window: 5 }, 2),
    {
      title: 'of one length',
      items: 9,
      rows: () => 50,
      build: (order) => {
        const [q, k, v] = [1, 2, 3].map((salt) => stacked(order, () => 50, [64], salt)) as [CaseInput, CaseInput, CaseInput]
        return { title: '', inputs: { q, k, v }, attributes: { heads: 2, queryLength: 50, keyLength: 50 } }
      },
    },
  ],
  patchEmbed: [
    {
      title: 'pictures',
      items: 9,
      rows: () => 13,
      build: (order) => ({
        title: '',
        inputs: {
          pixels: stacked(order, () => 1, [12, 16, 3], 1, { dtype: 'uint8' }),
          weight: weight(19, 48),
          classToken: fixed([19], { dtype: 'float32' }),
          positionEmbedding: fixed([13, 19], { dtype: 'float32' }),
        },
        attributes: { patch: 4, mean: [0.4, 0.5, 0.6], std: [0.2, 0.3, 0.25], rescale: 1 / 255 },
      }),
    },
  ],
  convolution: [
    pictures('3 x 3', 9, 16, (x) => ({ x, weight: weight(19, 144), bias: fixed([19], { dtype: 'float32' }) }), { kernel: [3, 3], stride: [2, 2], padding: [1, 1, 1, 1], activation: 'gelu' }),
    pictures('many pictures, a residual', 40, 6, (x, items) => ({ x, weight: weight(9, 24), residual: stacked(items, () => 12, [9], 2) }), { kernel: [2, 2], stride: [1, 2], padding: [0, 0, 1, 0] }),
  ],
  depthwiseConvolution: [
    pictures('3 x 3', 9, 21, (x) => ({ x, weight: fixed([9, 21], { dtype: 'float32' }), bias: fixed([21], { dtype: 'float32' }) }), { kernel: [3, 3], stride: [2, 2], padding: [1, 1, 1, 1], activation: 'silu' }),
  ],
  poolWindows: [pictures('max', 9, 21, (x) => ({ x }), { mode: 'max', kernel: [3, 3], stride: [2, 2], padding: [1, 1, 1, 1] }), pictures('mean', 9, 21, (x) => ({ x }), { mode: 'mean', kernel: [2, 3] })],
  layerNorm: [rowBatch('rows', 37, (_, rows) => ({ x: rows(131, 1), weight: fixed([131], { dtype: 'float32' }), bias: fixed([131], { dtype: 'float32' }) }), { eps: 1e-5 })],
  rmsNorm: [rowBatch('rows', 37, (_, rows) => ({ x: rows(131, 1), weight: fixed([131], { dtype: 'float32' }) }), { eps: 1e-6 })],
  rotary: [
    rowBatch(
      'positions',
      37,
      (order, rows) => ({
        x: rows(64, 1),
        table: fixed([50, 16], { dtype: 'float32' }),
        positions: { shape: [order.length], fill: order.map((item) => (item * 7) % 50), dtype: 'int32' },
      }),
      { heads: 4 },
    ),
  ],
  l2Normalize: x(131),
  softmax: x(131),
  gather: [
    rowBatch('indices', 37, (order) => ({ table: fixed([50, 24]), indices: { shape: [order.length], fill: order.map((item) => (item * 7) % 50), dtype: 'int32' } })),
  ],
  scatter: [
    rowBatch(
      'every other row',
      37,
      (order, rows) => ({ x: rows(24, 1), indices: { shape: [order.length], fill: order.map((_, place) => 2 * place), dtype: 'int32' } }),
      (order) => ({ rows: 2 * order.length }),
      2,
    ),
  ],
  pickToken: [ragged({ which: 'first' }), ragged({ which: 'last' })],
  pool: [ragged({ mode: 'mean' }), ragged({ mode: 'max' }), ragged({ mode: 'mean_sqrt_len' })],
  repeatRows: [rowBatch('sequences', 9, (_, rows) => ({ table: fixed([3, 24]), like: rows(5, 1) }), { length: 1 }, 3)],
  prependRows: [rowBatch('sequences', 9, (_, rows) => ({ prefix: fixed([3, 24]), x: rows(24, 1) }), { length: 1 }, 4)],
  scaleSequences: [
    {
      title: 'sequences',
      items: 9,
      rows: () => 5,
      build: (order) => ({
        title: '',
        inputs: { x: stacked(order, () => 5, [24], 1), scale: stacked(order, () => 1, [24], 2, { dtype: 'float32' }), shift: stacked(order, () => 1, [24], 3, { dtype: 'float32' }) },
        attributes: { length: 5 },
      }),
    },
  ],
  add: ab(29),
  sub: ab(29),
  mul: ab(29),
  div: ab(29),
  unary: (['gelu', 'quick_gelu', 'gelu_tanh', 'silu', 'tanh', 'exp'] as const).flatMap((kind) => x(29, { kind })),
  cast: x(29),
  cosineTopK: [
    rowBatch('queries', 21, (_, rows) => ({ queries: rows(40, 1), corpus: fixed([333, 40], { float16: false }) }), { k: 9 }),
    rowBatch('queries, int8 corpus', 21, (_, rows) => ({ queries: rows(40, 1), corpus: { shape: [333, 40], dtype: 'int8', fill: (i) => ((i * 37) % 255) - 127 } }), { k: 9 }),
  ],
  reshape: [
    {
      title: 'rows cut in two',
      items: 9,
      rows: () => 2,
      build: (order) => ({ title: '', inputs: { x: stacked(order, () => 1, [6], 1) }, attributes: { shape: [order.length * 2, 3] } }),
    },
  ],
  columns: x(29, { begin: 3, end: 20 }),
}
