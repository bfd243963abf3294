// Multi-head self-attention over packed sequences: four projections around one fused op. Which rows belong together is told by
// `Sequences`; padding does not exist here.

import type { Value } from '../core/value.js'
import { constant } from '../core/value.js'
import { Tensor } from '../core/tensor.js'
import { add, attention, columns, gather, matmul, softmax } from '../ops/index.js'
import { sideBySide } from './side-by-side.js'
import { Linear } from './linear.js'
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
  readonly keys?: { readonly rows: Value; readonly cuSeqlens: Value }
}

export interface AttentionOptions {
  width: number
  heads: number
  /** Checkpoint names below the scope. `fused`: queries, keys and values are one layer, in this order. */
  names: ({ query: string; key: string; value: string } | { fused: string; fusedNames?: { weight: string; bias: string } }) & { out: string }
  /** Whether the query, key and value projections have biases. Default true. */
  qkvBias?: boolean
  /** Whether the output projection has a bias. Default true. */
  outBias?: boolean
  /** Full name of the LayerScale of its output. */
  outputScale?: string | undefined
  causal?: boolean
}

export class Attention {
  readonly query: Linear
  readonly key: Linear
  readonly value: Linear
  readonly out: Linear
  /** Of queries, keys and values. */
  readonly dtype: ComputeType

  private readonly scale: number

  constructor(
    scope: Scope,
    private readonly options: AttentionOptions,
  ) {
    const { width, names, qkvBias: bias = true, outBias, outputScale } = options
    const dtype = scope.productType
    const inputs = (name: 'query' | 'key' | 'value', i: number) =>
      'fused' in names
        ? new Linear(scope.at(names.fused), width, width, { bias, dtype, part: { begin: i * width, rows: 3 * width }, names: names.fusedNames })
        : new Linear(scope.at(names[name]), width, width, { bias, dtype })
    this.query = inputs('query', 0)
    this.key = inputs('key', 1)
    this.value = inputs('value', 2)
    this.out = new Linear(scope.at(names.out), width, width, { bias: outBias, dtype, outputScale })
    this.dtype = scope.computeType
    this.scale = (width / options.heads) ** -0.5
  }

  /** x: [T, C]; residual: float32 [T, C], added to the result -> float32 [T, C] */
  forward(x: Value, sequences: Sequences, { residual, relativeBias, scoreBias }: { residual?: Value } & ScoreBias = {}): Value {
    const { dtype } = this
    const q = this.query.forward(x, { dtype })
    const keyed = sequences.keys ? gather(x, sequences.keys.rows, { dtype }) : x
    const k = this.key.forward(keyed, { dtype })
    const v = this.value.forward(keyed, { dtype })
    if (scoreBias) return this.out.forward(this.mixApart(q, k, v, scoreBias), { residual, dtype: 'float32' })
    const mixed = attention(q, k, v, {
      heads: this.options.heads,
      scale: this.scale,
      causal: this.options.causal ?? false,
      cuSeqlensQ: sequences.cuSeqlens,
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
    const { heads, width } = this.options
    const size = width / heads
    const identity = new Float32Array(size * size)
    for (let i = 0; i < size; i++) identity[i * (size + 1)] = 1
    const mixed = scoreBias.map((bias, head) => {
      const [queries, keys, values] = [q, k, v].map(x => columns(x, head * size, (head + 1) * size)) as [Value, Value, Value]
      const weights = softmax(add(matmul(queries, keys, { scale: this.scale, dtype: 'float32' }), bias), { dtype: 'float32' })
      const transposed = matmul(constant(new Tensor('float32', identity, [size, size])), values, { dtype: 'float32' })
      return matmul(weights, transposed, { dtype: 'float32' })
    })
    return sideBySide(mixed)
  }
}
