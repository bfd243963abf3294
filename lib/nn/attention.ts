// Multi-head self-attention over packed sequences: four projections around one fused op. Which rows belong together is told by
// `Sequences`; padding does not exist here.

import type { Value } from '../core/value.js'
import { attention, gather } from '../ops/index.js'
import { Linear } from './linear.js'
import type { ComputeType, Scope } from './scope.js'

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

  /**
   * x: [T, C]; residual: float32 [T, C], added to the result -> float32 [T, C]
   * @param relativeBias float32 [2L − 1, heads], added to the scores; see the op
   */
  forward(x: Value, sequences: Sequences, { residual, relativeBias }: { residual?: Value; relativeBias?: Value | undefined } = {}): Value {
    const { dtype } = this
    const q = this.query.forward(x, { dtype })
    const keyed = sequences.keys ? gather(x, sequences.keys.rows, { dtype }) : x
    const k = this.key.forward(keyed, { dtype })
    const v = this.value.forward(keyed, { dtype })
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
}
