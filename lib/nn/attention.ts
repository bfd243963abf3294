// Multi-head self-attention over packed sequences: four projections around one fused op. Which rows belong together is told by
// `Sequences`; padding does not exist here.

import type { Value } from '../core/value.js'
import { constant } from '../core/value.js'
import { Tensor } from '../core/tensor.js'
import { add, attention, columns, gather, matmul, reshape, softmax } from '../ops/index.js'
import { sideBySide } from './side-by-side.js'
import { Linear } from './linear.js'
import { LayerNorm, type Norm, RmsNorm } from './norm.js'
import { type Rotation, turned } from './rotary.js'
import type { ComputeType, Scope } from './scope.js'

/** What is added to the scores before the softmax. */
export interface ScoreBias {
  /** float32 [2L − 1, heads], by distance; see the op. */
  readonly relativeBias?: Value | undefined
  /** float32 [Tq, Tk] for each head, of a single sequence of fixed length; computed without the fused op. */
  readonly scoreBias?: readonly Value[] | undefined
}

/** Where sequences begin and end among the rows of x: cumulative lengths, or one length for all. */
export interface Sequences {
  /** int32 [S + 1] */
  readonly cuSeqlens?: Value
  readonly length?: number
  /** Rows that may be attended to, where these are not all: a padded first token that is read itself but is no key of the others. */
  readonly keys?: { readonly rows: Value; readonly cuSeqlens: Value } | undefined
  /** Cumulative lengths of the queries, where those of one sequence see different keys: as many as `keys` has. */
  readonly queries?: Value | undefined
}

/** What a layer's attention depends on beside its rows. */
export interface AttentionExtra extends ScoreBias {
  /** Queries and keys are turned by it. */
  readonly rotation?: Rotation | undefined
}

export interface AttentionOptions {
  width: number
  heads: number
  /** Features of a head. Default width / heads. */
  headSize?: number
  /** Heads of keys and values, each for heads / kvHeads neighbours. Default: as many. */
  kvHeads?: number
  /**
   * Checkpoint names below the scope. `fused`: queries, keys and values are one layer, in this order. `queryNorm`, `keyNorm`: norms of each head,
   * with `eps`.
   */
  names: ({ query: string; key: string; value: string } | { fused: string; fusedNames?: { weight: string; bias: string } }) & {
    out: string
    queryNorm?: string
    keyNorm?: string
  }
  eps?: number
  /** Of `queryNorm` and `keyNorm`. Default 'rms'. */
  headNorm?: 'rms' | 'layer'
  /** Whether the query, key and value projections have biases. Default true. */
  qkvBias?: boolean | { query: boolean; key: boolean; value: boolean }
  /** Whether the output projection has a bias. Default true. */
  outBias?: boolean
  /** Full name of the LayerScale of its output. */
  outputScale?: string | undefined
  causal?: boolean
  /** Tokens further apart do not see each other. */
  window?: number | undefined
}

export class Attention {
  readonly query: Linear
  readonly key: Linear
  readonly value: Linear
  readonly out: Linear
  /** Of queries, keys and values. */
  readonly dtype: ComputeType

  private readonly headSize: number
  private readonly kvHeads: number
  private readonly queryNorm?: Norm
  private readonly keyNorm?: Norm

  constructor(
    scope: Scope,
    private readonly options: AttentionOptions,
  ) {
    const { width, heads, headSize = width / heads, kvHeads = heads, names, eps = 1e-6, qkvBias = true, outBias, outputScale, headNorm = 'rms' } = options
    const dtype = scope.productType
    const [queries, keys] = [heads * headSize, kvHeads * headSize]
    const inputs = (name: 'query' | 'key' | 'value', begin: number, outputs: number) => {
      const bias = typeof qkvBias === 'boolean' ? qkvBias : qkvBias[name]
      if (!('fused' in names)) return new Linear(scope.at(names[name]), width, outputs, { bias, dtype })
      return new Linear(scope.at(names.fused), width, outputs, { bias, dtype, part: { begin, rows: queries + 2 * keys }, names: names.fusedNames })
    }
    this.query = inputs('query', 0, queries)
    this.key = inputs('key', queries, keys)
    this.value = inputs('value', queries + keys, keys)
    this.out = new Linear(scope.at(names.out), queries, width, { bias: outBias, dtype, outputScale })
    const NormOfHeads = headNorm === 'rms' ? RmsNorm : LayerNorm
    if (names.queryNorm !== undefined) this.queryNorm = new NormOfHeads(scope.at(names.queryNorm), headSize, eps)
    if (names.keyNorm !== undefined) this.keyNorm = new NormOfHeads(scope.at(names.keyNorm), headSize, eps)
    this.dtype = scope.computeType
    this.headSize = headSize
    this.kvHeads = kvHeads
  }

  /** x: [T, C]; residual: float32 [T, C], added to the result -> float32 [T, C] */
  forward(x: Value, sequences: Sequences, { residual, relativeBias, scoreBias, rotation }: { residual?: Value } & AttentionExtra = {}): Value {
    const { dtype, kvHeads } = this
    const { heads, causal, window } = this.options
    const keys = sequences.keys?.rows
    // What is normalised or turned is rounded once, behind that.
    const placed = (layer: Linear, of: Value, heads: number, norm: Norm | undefined) => {
      const rows = layer.forward(of, { dtype: norm || rotation ? 'float32' : dtype })
      const normed = norm ? normedHeads(rows, heads, norm, rotation ? 'float32' : dtype) : rows
      return rotation ? turned(normed, heads, rotation, dtype) : normed
    }
    const q = placed(this.query, x, heads, this.queryNorm)
    // A key is turned by the place of its row, and where rows are keys more than once they are projected once.
    const later = rotation !== undefined || sequences.queries !== undefined
    const keyed = keys && !later ? gather(x, keys) : x
    const ofKeys = (all: Value) => (keys && later ? gather(all, keys) : all)
    const k = ofKeys(placed(this.key, keyed, kvHeads, this.keyNorm))
    const v = ofKeys(this.value.forward(keyed, { dtype }))
    if (scoreBias) return this.out.forward(this.mixApart(q, k, v, scoreBias), { residual, dtype: 'float32' })
    const mixed = attention(q, k, v, {
      heads,
      kvHeads,
      scale: this.headSize ** -0.5,
      causal: causal ?? false,
      window,
      cuSeqlensQ: sequences.queries ?? sequences.cuSeqlens,
      cuSeqlensK: sequences.keys?.cuSeqlens ?? sequences.cuSeqlens,
      queryLength: sequences.length,
      keyLength: sequences.length,
      relativeBias,
      dtype,
    })
    return this.out.forward(mixed, { residual, dtype: 'float32' })
  }

  /** softmax(q·kᵀ·scale + bias)·v, head by head. */
  private mixApart(q: Value, k: Value, v: Value, scoreBias: readonly Value[]): Value {
    const { headSize: size, kvHeads } = this
    const share = this.options.heads / kvHeads
    const identity = new Float32Array(size * size)
    for (let i = 0; i < size; i++) identity[i * (size + 1)] = 1
    const mixed = scoreBias.map((bias, head) => {
      const part = (x: Value, head: number) => columns(x, head * size, (head + 1) * size)
      const [queries, keys, values] = [part(q, head), part(k, Math.floor(head / share)), part(v, Math.floor(head / share))]
      const weights = softmax(add(matmul(queries, keys, { scale: size ** -0.5, dtype: 'float32' }), bias), { dtype: 'float32' })
      const transposed = matmul(constant(new Tensor('float32', identity, [size, size])), values, { dtype: 'float32' })
      return matmul(weights, transposed, { dtype: 'float32' })
    })
    return sideBySide(mixed)
  }
}

/** x: [T, heads·D] -> the same, each head normalised. */
function normedHeads(x: Value, heads: number, norm: Norm, dtype: ComputeType): Value {
  const [rows, width] = x.shape as [number, number]
  return reshape(norm.forward(reshape(x, [rows * heads, width / heads]), { dtype }), [rows, width])
}
