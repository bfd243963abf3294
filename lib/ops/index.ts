// THE op table, and the functions that models call. docs/ops.md says what each op computes.

import { attentionOp } from './attention.js'
import { convolutionOp, depthwiseConvolutionOp, poolWindowsOp } from './convolution.js'
import { addOp, castOp, divOp, mulOp, subOp, unaryOp } from './elementwise.js'
import { linearOp, matmulOp } from './linear.js'
import { l2NormalizeOp, layerNormOp, rmsNormOp, softmaxOp } from './norm.js'
import { patchEmbedOp } from './patch-embed.js'
import { rotaryOp } from './rotary.js'
import { gatherOp, pickTokenOp, poolOp, prependRowsOp, repeatRowsOp, scaleSequencesOp, scatterOp } from './rows.js'
import { cosineTopKOp } from './search.js'
import { columnsOp, reshapeOp } from './view.js'

export const opTable = {
  linear: linearOp,
  matmul: matmulOp,
  attention: attentionOp,
  patchEmbed: patchEmbedOp,
  convolution: convolutionOp,
  depthwiseConvolution: depthwiseConvolutionOp,
  poolWindows: poolWindowsOp,
  layerNorm: layerNormOp,
  rmsNorm: rmsNormOp,
  rotary: rotaryOp,
  gather: gatherOp,
  scatter: scatterOp,
  pickToken: pickTokenOp,
  pool: poolOp,
  repeatRows: repeatRowsOp,
  prependRows: prependRowsOp,
  scaleSequences: scaleSequencesOp,
  l2Normalize: l2NormalizeOp,
  softmax: softmaxOp,
  add: addOp,
  sub: subOp,
  mul: mulOp,
  div: divOp,
  unary: unaryOp,
  cast: castOp,
  cosineTopK: cosineTopKOp,
  reshape: reshapeOp,
  columns: columnsOp,
} as const

export type OpName = keyof typeof opTable

export { type AttentionOptions, attention } from './attention.js'
export { convolution, depthwiseConvolution, poolWindows, windowCount, type Windows } from './convolution.js'
export { add, cast, div, type ElementwiseOptions, mul, sub, unary, type UnaryKind, unaryKinds } from './elementwise.js'
export { type Activation, activations, linear, matmul } from './linear.js'
export { l2Normalize, layerNorm, rmsNorm, softmax } from './norm.js'
export { patchEmbed, type PatchEmbedOptions } from './patch-embed.js'
export { rotary, type RotaryOptions } from './rotary.js'
export { gather, pickToken, pool, prependRows, repeatRows, scaleSequences, scatter, type SequenceOptions } from './rows.js'
export { cosineTopK } from './search.js'
export { columns, reshape } from './view.js'
