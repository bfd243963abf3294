// A transformer block. Pre-norm (ViT, CLIP): x + f(norm(x)), twice. Post-norm (BERT): norm(x + f(x)), twice. The stream between
// blocks is float32.

import type { Value } from '../core/value.js'
import { Attention, type AttentionExtra, type AttentionOptions, type Sequences } from './attention.js'
import type { Activation } from './linear.js'
import { Mlp, type MlpOptions } from './mlp.js'
import { LayerNorm, type Norm, RmsNorm } from './norm.js'
import type { Scope } from './scope.js'

export interface BlockOptions extends Omit<AttentionOptions, 'names' | 'eps' | 'outputScale'> {
  order: 'pre' | 'post'
  hidden: number
  activation: Activation
  eps: number
  /** Default 'layer'. */
  norm?: 'layer' | 'layer without bias' | 'rms'
  mlpBias?: boolean
  /** Names of the LayerScale of the attention and of the MLP. */
  layerScale?: readonly [string, string]
  /** Checkpoint names below the block's scope; norm1 belongs to the attention, norm2 to the MLP. Without a name there is no norm1. */
  names: { attention: AttentionOptions['names']; norm1?: string; mlp: MlpOptions['names']; norm2: string }
}

export class TransformerBlock {
  readonly attention: Attention
  readonly norm1?: Norm
  readonly mlp: Mlp
  readonly norm2: Norm

  constructor(
    scope: Scope,
    private readonly options: BlockOptions,
  ) {
    const { width, eps, names, layerScale, norm = 'layer' } = options
    const makeNorm = (name: string) => (norm === 'rms' ? new RmsNorm(scope.at(name), width, eps) : new LayerNorm(scope.at(name), width, eps, { bias: norm === 'layer' }))
    this.attention = new Attention(scope, { ...options, names: names.attention, outputScale: layerScale && scope.nameOf(layerScale[0]) })
    if (names.norm1 !== undefined) this.norm1 = makeNorm(names.norm1)
    this.mlp = new Mlp(scope, { ...options, names: names.mlp, outputScale: layerScale && scope.nameOf(layerScale[1]) })
    this.norm2 = makeNorm(names.norm2)
  }

  /** x: float32 [T, C] -> float32 [T, C] */
  forward(x: Value, sequences: Sequences, extra: AttentionExtra = {}): Value {
    if (this.options.order === 'post') {
      const mixed = this.attention.forward(x, sequences, { ...extra, residual: x })
      const attended = this.norm1?.forward(mixed) ?? mixed
      return this.norm2.forward(this.mlp.forward(attended, attended))
    }
    // The norm's result only feeds matrix products, which would round it to the compute type anyway.
    const dtype = this.attention.dtype
    const attended = this.attention.forward(this.norm1?.forward(x, { dtype }) ?? x, sequences, { ...extra, residual: x })
    return this.mlp.forward(this.norm2.forward(attended, { dtype }), attended)
  }
}

/** Runs blocks one after the other; gives the stream before the first, and after each. `extra` may differ from block to block. */
export function hiddenStates(
  blocks: readonly TransformerBlock[],
  x: Value,
  sequences: Sequences,
  extra: AttentionExtra | ((block: number) => AttentionExtra) = {},
): Value[] {
  const states = [x]
  blocks.forEach((block, i) => states.push(block.forward(states.at(-1)!, sequences, typeof extra === 'function' ? extra(i) : extra)))
  return states
}
