// Learned queries that attend to the tokens of each sequence: attention pooling (Set Transformer, arXiv:1810.00825; SigLIP's head).

import { type Parameter, parameter, type Value } from '../core/value.js'
import { attention, repeatRows } from '../ops/index.js'
import type { Sequences } from './attention.js'
import { Linear } from './linear.js'
import { LayerNorm } from './norm.js'
import type { Scope } from './scope.js'

export interface AttentionPoolOptions {
  width: number
  /** Of the tokens. Default: as wide. */
  contextWidth?: number
  heads: number
  /** Learned queries. Default 1. */
  queries?: number
  /** Of so many that are stored, the first ones. Default: all. */
  storedQueries?: number
  /** Checkpoint names below the scope; `attention` is a torch.nn.MultiheadAttention. Without names there are no norms. */
  names: { queries: string; attention: string; queryNorm?: string; keyNorm?: string }
}

/** PyTorch's. */
const EPS = 1e-5

export class AttentionPool {
  private readonly queries: Parameter
  private readonly query: Linear
  private readonly key: Linear
  private readonly value: Linear
  private readonly out: Linear
  private readonly queryNorm?: LayerNorm
  private readonly keyNorm?: LayerNorm

  constructor(
    scope: Scope,
    private readonly options: AttentionPoolOptions,
  ) {
    const { width, contextWidth = width, queries = 1, storedQueries = queries, names } = options
    const at = scope.at(names.attention)
    // PyTorch keeps one tensor where all are equally wide.
    const part = (name: string, i: number, inputs: number) => {
      const third = { begin: i * width, rows: 3 * width }
      const [weight, parts] = contextWidth === width ? ['in_proj_weight', { part: third }] : [`${name}_proj_weight`, { biasPart: third }]
      return new Linear(at, inputs, width, { ...parts, names: { weight, bias: 'in_proj_bias' }, dtype: scope.productType })
    }
    this.queries = scope.parameter(names.queries, [queries, width], storedQueries === queries ? {} : { view: { shape: [storedQueries, width], begin: 0 } })
    this.query = part('q', 0, width)
    this.key = part('k', 1, contextWidth)
    this.value = part('v', 2, contextWidth)
    if (names.queryNorm !== undefined) this.queryNorm = new LayerNorm(scope.at(names.queryNorm), width, EPS)
    if (names.keyNorm !== undefined) this.keyNorm = new LayerNorm(scope.at(names.keyNorm), contextWidth, EPS)
    this.out = new Linear(at.at('out_proj'), width, width)
  }

  /** tokens: [T, contextWidth] -> float32 [S·queries, C] */
  forward(tokens: Value, { cuSeqlens, length }: Pick<Sequences, 'cuSeqlens' | 'length'>): Value {
    const { heads, width, queries = 1 } = this.options
    const x = this.keyNorm?.forward(tokens) ?? tokens
    const k = this.key.forward(x)
    const learned = parameter(this.queries)
    const q = repeatRows(this.query.forward(this.queryNorm?.forward(learned, { dtype: 'float32' }) ?? learned, { dtype: k.dtype as never }), k, { cuSeqlens, length })
    const v = this.value.forward(x)
    const mixed = attention(q, k, v, { heads, scale: (width / heads) ** -0.5, queryLength: queries, cuSeqlensK: cuSeqlens, keyLength: length, dtype: k.dtype })
    return this.out.forward(mixed, { dtype: 'float32' })
  }
}
