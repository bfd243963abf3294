// Learned queries that attend to the tokens of each sequence: attention pooling (Set Transformer, arXiv:1810.00825; SigLIP's head).

import { type Parameter, parameter, type Value } from '../core/value.js'
import { attention, repeatRows } from '../ops/index.js'
import type { Sequences } from './attention.js'
import { Linear } from './linear.js'
import type { Scope } from './scope.js'

export interface AttentionPoolOptions {
  width: number
  heads: number
  /** Learned queries. Default 1. */
  queries?: number
  /** Checkpoint names below the scope; `attention` is a torch.nn.MultiheadAttention. */
  names: { queries: string; attention: string }
}

export class AttentionPool {
  private readonly queries: Parameter
  private readonly query: Linear
  private readonly key: Linear
  private readonly value: Linear
  private readonly out: Linear

  constructor(
    scope: Scope,
    private readonly options: AttentionPoolOptions,
  ) {
    const { width, queries = 1, names } = options
    const at = scope.at(names.attention)
    const part = (i: number) =>
      new Linear(at, width, width, { part: { begin: i * width, rows: 3 * width }, names: { weight: 'in_proj_weight', bias: 'in_proj_bias' }, dtype: scope.productType })
    this.queries = scope.parameter(names.queries, [queries, width])
    this.query = part(0)
    this.key = part(1)
    this.value = part(2)
    this.out = new Linear(at.at('out_proj'), width, width)
  }

  /** x: [T, C] -> float32 [S·queries, C] */
  forward(x: Value, { cuSeqlens, length }: Pick<Sequences, 'cuSeqlens' | 'length'>): Value {
    const { heads, width, queries = 1 } = this.options
    const k = this.key.forward(x)
    const q = repeatRows(this.query.forward(parameter(this.queries), { dtype: k.dtype as never }), k, { cuSeqlens, length })
    const v = this.value.forward(x)
    const mixed = attention(q, k, v, { heads, scale: (width / heads) ** -0.5, queryLength: queries, cuSeqlensK: cuSeqlens, keyLength: length, dtype: k.dtype })
    return this.out.forward(mixed, { dtype: 'float32' })
  }
}
