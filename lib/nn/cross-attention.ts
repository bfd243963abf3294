// Multi-head attention of the rows of one stream to those of another: words that look at regions, say. Which rows belong together is told
// for either stream by `Sequences`.

import type { Value } from '../core/value.js'
import { attention, gather } from '../ops/index.js'
import type { Sequences } from './attention.js'
import { Linear } from './linear.js'
import type { ComputeType, Scope } from './scope.js'

export interface CrossAttentionOptions {
  width: number
  /** Of the rows that are looked at. Default: as wide. */
  contextWidth?: number
  heads: number
  /** Checkpoint names below the scope. */
  names: { query: string; key: string; value: string; out: string }
}

export class CrossAttention {
  private readonly query: Linear
  private readonly key: Linear
  private readonly value: Linear
  private readonly out: Linear
  private readonly dtype: ComputeType

  constructor(
    scope: Scope,
    private readonly options: CrossAttentionOptions,
  ) {
    const { width, contextWidth = width, names } = options
    const dtype = scope.productType
    this.query = new Linear(scope.at(names.query), width, width, { dtype })
    this.key = new Linear(scope.at(names.key), contextWidth, width, { dtype })
    this.value = new Linear(scope.at(names.value), contextWidth, width, { dtype })
    this.out = new Linear(scope.at(names.out), width, width, { dtype })
    this.dtype = scope.computeType
  }

  /** x: [Tq, C]; context: [Tk, D]; residual: float32 [Tq, C], added to the result -> float32 [Tq, C] */
  forward(x: Value, sequences: Sequences, context: Value, contextSequences: Sequences, residual?: Value): Value {
    const { dtype } = this
    const { heads, width } = this.options
    const { keys } = contextSequences
    const seen = keys ? gather(context, keys.rows) : context
    const mixed = attention(this.query.forward(x, { dtype }), this.key.forward(seen, { dtype }), this.value.forward(seen, { dtype }), {
      heads,
      scale: (width / heads) ** -0.5,
      cuSeqlensQ: sequences.cuSeqlens,
      cuSeqlensK: keys?.cuSeqlens ?? contextSequences.cuSeqlens,
      queryLength: sequences.length,
      keyLength: keys ? undefined : contextSequences.length,
      dtype,
    })
    return this.out.forward(mixed, { residual, dtype: 'float32' })
  }
}
