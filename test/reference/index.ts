// The references of all ops: plain float64 TypeScript, written from docs/ops.md and not from the kernels.

import type { OpName } from '../../lib/ops/index.js'
import { fromRows, type Reference, rowsOf } from './array.js'
import { attention } from './attention.js'
import { convolution, depthwiseConvolution, poolWindows } from './convolution.js'
import { add, cast, div, mul, sub, unary } from './elementwise.js'
import { linear, matmul, patchEmbed } from './linear.js'
import { l2Normalize, layerNorm, rmsNorm, softmax } from './norm.js'
import { rotary } from './rotary.js'
import { gather, pickToken, pool, prependRows, repeatRows, scaleSequences, scatter } from './rows.js'
import { cosineTopK } from './search.js'

const reshape: Reference = ([x], { shape }) => [{ ...x!, shape }]
const columns: Reference = ([x], { begin, end }) => [
  fromRows([...x!.shape.slice(0, -1), end - begin], rowsOf(x!).map((row) => row.subarray(begin, end))),
]

export const references: Readonly<Record<OpName, Reference>> = {
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
  gather,
  scatter,
  pickToken,
  pool,
  repeatRows,
  prependRows,
  scaleSequences,
  l2Normalize,
  softmax,
  add,
  sub,
  mul,
  div,
  unary,
  cast,
  cosineTopK,
  reshape,
  columns,
}

export * from './array.js'
