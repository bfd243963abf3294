// A transformer block. Pre-norm (ViT, CLIP): x + f(norm(x)), twice. Post-norm (BERT): norm(x + f(x)), twice. The stream between
// blocks is float32.

import type { Value } from '../core/value.js'
import { Attention, type AttentionOptions, type ScoreBias, type Sequences } from './attention.js'
import type { Activation } from './linear.js'
import { Mlp, type MlpOptions } from './mlp.js'
import { LayerNorm } from './norm.js'
import type { Scope } from './scope.js'

export interface BlockOptions {
  order: 'pre' | 'post'
  width: number
  heads: number
  hidden: number
  activation: Activation
  eps: number
  causal?: boolean
  qkvBias?: boolean
  /** Names of the LayerScale of the attention and of the MLP. */
  layerScale?: readonly [string, string]
  /** Checkpoint names below the block's scope; norm1 belongs to the attention, norm2 to the MLP. */
  names: { attention: AttentionOptions['names']; norm1: string; mlp: MlpOptions['names']; norm2: string }
}

export class TransformerBlock {
  readonly attention: Attention
  readonly norm1: LayerNorm
  readonly mlp: Mlp
  readonly norm2: LayerNorm

  constructor(
    scope: Scope,
    private readonly options: BlockOptions,
  ) {
    const { width, eps, names, layerScale } = options
    this.attention = new Attention(scope, { ...options, names: names.attention, outputScale: layerScale && scope.nameOf(layerScale[0]) })
    this.norm1 = new LayerNorm(scope.at(names.norm1), width, eps)
    this.mlp = new Mlp(scope, { ...options, names: names.mlp, outputScale: layerScale && scope.nameOf(layerScale[1]) })
    this.norm2 = new LayerNorm(scope.at(names.norm2), width, eps)
  }

  /** x: float32 [T, C] -> float32 [T, C] */
  forward(x: Value, sequences: Sequences, extra: ScoreBias = {}): Value {
    if (this.options.order === 'post') {
      const attended = this.norm1.forward(this.attention.forward(x, sequences, { ...extra, residual: x }))
      return this.norm2.forward(this.mlp.forward(attended, attended))
    }
    // The norm's result only feeds matrix products, which would round it to the compute type anyway.
    const dtype = this.attention.dtype
    const attended = this.attention.forward(this.norm1.forward(x, { dtype }), sequences, { ...extra, residual: x })
    return this.mlp.forward(this.norm2.forward(attended, { dtype }), attended)
  }
}

/** Runs blocks one after the other; gives the stream before the first, and after each. */
export function hiddenStates(blocks: readonly TransformerBlock[], x: Value, sequences: Sequences, extra: ScoreBias = {}): Value[] {
  const states = [x]
  for (const block of blocks) states.push(block.forward(states.at(-1)!, sequences, extra))
  return states
}
