// SigLIP (Zhai et al., arXiv:2303.15343): two pre-norm towers without causality; pictures are pooled by a learned query, texts at their
// last position, padding included. SiglipModel, each tower alone, and SiglipForImageClassification.

import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import type { Value } from '../core/value.js'
import { AttentionPool, Embedding, hiddenStates, LayerNorm, Linear, Mlp, PatchEmbed, type PixelScale, type Scope, type Sequences, TransformerBlock } from '../nn/index.js'
import { pool } from '../ops/index.js'
import { activation, checkHeads, type ConfigFile, epsilon, flag, headCount, integer, labelNames, labels, layerCount, readConfig, sectionOf, sides, squarePatch, tableRows, threeChannels, width } from './config.js'
import type { Architecture, ImageTower, TokenInputs, Traced } from './encoder.js'
import { EndTokenText } from './end-token-text.js'
import { projectedImages, projectedTexts } from './projected.js'

// Checkpoints of the base size save nothing that is the class's default.
export const towerFields = {
  hidden_size: v.nullish(width(), 768),
  intermediate_size: v.nullish(width(), 3072),
  num_hidden_layers: v.nullish(layerCount(), 12),
  num_attention_heads: v.nullish(headCount(), 12),
  hidden_act: activation('gelu_pytorch_tanh'),
  layer_norm_eps: epsilon(1e-6),
}
const visionSchema = v.object({
  ...towerFields,
  image_size: v.nullish(sides(16384), 224),
  patch_size: v.nullish(sides(1024), 16),
  num_channels: threeChannels(),
  vision_use_head: flag(true),
})
const textSchema = v.object({
  ...towerFields,
  vocab_size: v.nullish(tableRows(), 32000),
  max_position_embeddings: v.nullish(tableRows(), 64),
  projection_size: v.nullish(width()),
  pad_token_id: v.nullish(integer(0, 10_000_000), 1),
})
const towerSchema = v.object(towerFields)
export type SiglipTowerConfig = v.InferOutput<typeof towerSchema>

const BLOCK_NAMES = {
  norm1: 'layer_norm1',
  attention: { query: 'self_attn.q_proj', key: 'self_attn.k_proj', value: 'self_attn.v_proj', out: 'self_attn.out_proj' },
  norm2: 'layer_norm2',
  mlp: { in: 'mlp.fc1', out: 'mlp.fc2' },
}

export function makeLayers(scope: Scope, config: SiglipTowerConfig): TransformerBlock[] {
  const options = {
    order: 'pre' as const,
    width: config.hidden_size,
    heads: config.num_attention_heads,
    hidden: config.intermediate_size,
    activation: config.hidden_act,
    eps: config.layer_norm_eps,
    names: BLOCK_NAMES,
  }
  return Array.from({ length: config.num_hidden_layers }, (_, i) => new TransformerBlock(scope.at('encoder.layers', i), options))
}

/** The attention pooling over a picture's patches, with an MLP behind it. */
export class PoolingHead {
  private readonly attention: AttentionPool
  private readonly norm: LayerNorm
  private readonly mlp: Mlp

  constructor(scope: Scope, { hidden_size: width, num_attention_heads: heads, intermediate_size: hidden, hidden_act: activation, layer_norm_eps: eps }: SiglipTowerConfig) {
    this.attention = new AttentionPool(scope, { width, heads, names: { queries: 'probe', attention: 'attention' } })
    this.norm = new LayerNorm(scope.at('layernorm'), width, eps)
    this.mlp = new Mlp(scope, { width, hidden, activation, names: { in: 'mlp.fc1', out: 'mlp.fc2' } })
  }

  /** x: float32 [T, C] -> float32 [B, C] */
  forward(x: Value, sequences: Pick<Sequences, 'cuSeqlens' | 'length'>): Value {
    const attended = this.attention.forward(x, sequences)
    return this.mlp.forward(this.norm.forward(attended), attended)
  }
}

class SiglipVision implements ImageTower {
  readonly prefix = ''
  readonly absent: Record<string, string> = {}
  readonly imageSize
  private readonly tokens: number
  private readonly embeddings: PatchEmbed
  private readonly layers: TransformerBlock[]
  private readonly postNorm: LayerNorm
  private readonly head?: PoolingHead

  constructor(
    scope: Scope,
    config: v.InferOutput<typeof visionSchema>,
    patch: number,
    private readonly classifier?: Linear,
  ) {
    const { hidden_size: width } = config
    this.imageSize = config.image_size
    this.tokens = Math.floor(this.imageSize.height / patch) * Math.floor(this.imageSize.width / patch)
    this.embeddings = new PatchEmbed(scope.at('embeddings'), {
      ...{ width, patch, tokens: this.tokens },
      names: { weight: 'patch_embedding.weight', bias: 'patch_embedding.bias', positions: 'position_embedding.weight' },
    })
    this.layers = makeLayers(scope, config)
    this.postNorm = new LayerNorm(scope.at('post_layernorm'), width, config.layer_norm_eps)
    if (config.vision_use_head && scope.has('head.probe')) this.head = new PoolingHead(scope.at('head'), config)
    else this.absent['pooler_output'] = scope.nameOf('head.probe')
  }

  trace(pixels: Value, scale: PixelScale): Traced {
    const length = this.tokens
    const states = hiddenStates(this.layers, this.embeddings.forward(pixels, scale), { length })
    const last = this.postNorm.forward(states.at(-1)!, { dtype: 'float32' })
    const mean = pool(last, { mode: 'mean', length, dtype: 'float32' })
    const pooled = this.head?.forward(last, { length })
    return {
      outputs: {
        last_hidden_state: last, // [B·tokens, C]
        ...(pooled && { pooler_output: pooled }),
        ...(this.classifier && { logits: this.classifier.forward(mean, { dtype: 'float32' }) }),
      },
      hiddenStates: states,
      embedding: pooled ?? mean,
    }
  }
}

class SiglipText extends EndTokenText {
  readonly readsMaskedEnd = true
  readonly pad: { id: number; length: number }
  private readonly head: Linear

  constructor(scope: Scope, config: v.InferOutput<typeof textSchema>) {
    const { hidden_size: width, vocab_size: vocabulary, max_position_embeddings: positions } = config
    super({
      ...{ vocabulary, positions },
      words: new Embedding(scope.at('embeddings.token_embedding'), vocabulary, width),
      places: new Embedding(scope.at('embeddings.position_embedding'), positions, width),
      layers: makeLayers(scope, config),
      norm: new LayerNorm(scope.at('final_layer_norm'), width, config.layer_norm_eps),
    })
    this.pad = { id: config.pad_token_id, length: positions }
    this.head = new Linear(scope.at('head'), width, config.projection_size ?? width)
  }

  override endOf(ids: Int32Array): number {
    return ids.length - 1
  }

  override trace(tokens: TokenInputs): Traced {
    const { outputs, hiddenStates, embedding } = super.trace(tokens)
    const pooled = this.head.forward(embedding, { dtype: 'float32' })
    return { outputs: { ...outputs, pooler_output: pooled }, hiddenStates, embedding: pooled }
  }
}

function buildVision(file: ConfigFile, scope: Scope, section: string | undefined, classifier?: Linear): SiglipVision {
  const config = readConfig(visionSchema, file, section)
  checkHeads(file.file, 'num_attention_heads', config.num_attention_heads, config.hidden_size)
  return new SiglipVision(scope, config, squarePatch(file.file, config.patch_size, config.image_size), classifier)
}

/** SigLIP's text tower, and SigLIP 2's. */
export function buildSiglipText(file: ConfigFile, scope: Scope, section: string | undefined): SiglipText {
  const config = readConfig(textSchema, file, section)
  checkHeads(file.file, 'num_attention_heads', config.num_attention_heads, config.hidden_size)
  return new SiglipText(scope, config)
}

/** @param architecture the reference's class, say 'SiglipVisionModel' */
export function buildSiglip(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  const vision = sectionOf(file, 'siglip', 'vision_config')
  const text = sectionOf(file, 'siglip', 'text_config')
  const visionScope = scope.firstWith('embeddings.patch_embedding.weight', ['vision_model', ''])
  const textScope = scope.firstWith('embeddings.token_embedding.weight', ['text_model', ''])
  switch (architecture) {
    case 'SiglipVisionModel':
      return { images: buildVision(file, visionScope, vision) }
    case 'SiglipTextModel':
      return { texts: buildSiglipText(file, textScope, text) }
    case 'SiglipForImageClassification': {
      const names = labelNames(readConfig(v.object(labels), file))
      const { hidden_size: inputs } = readConfig(visionSchema, file, vision)
      return { images: buildVision(file, visionScope, vision, new Linear(scope.at('classifier'), inputs, names.length)), labels: names }
    }
    case 'SiglipModel': {
      const images = buildVision(file, visionScope, vision)
      const missing = images.absent['pooler_output']
      if (missing !== undefined) throw new CheckpointError(`${file.file}: SiglipModel needs the tensor ${missing}, which is missing`, { file: file.file, field: 'vision_use_head', missing: [missing] })
      return {
        images: projectedImages(images),
        texts: projectedTexts(buildSiglipText(file, textScope, text), { readsFirst: false }),
        logitScale: scope.parameter('logit_scale', [1]),
        logitBias: scope.parameter('logit_bias', [1]),
      }
    }
    default:
      throw new UnsupportedError(`${file.file}: ${architecture} is not supported; of SigLIP there are SiglipModel, its towers alone and SiglipForImageClassification`, {
        file: file.file,
        field: 'architectures',
      })
  }
}
