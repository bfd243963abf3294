// Vision Transformer (Dosovitskiy et al., arXiv:2010.11929): patches and a class token through pre-norm blocks and a last norm.
// ViTModel with or without pooler, prefixed with `vit.` or not, and ViTForImageClassification.

import * as v from 'valibot'
import type { Value } from '../core/value.js'
import { hiddenStates, LayerNorm, Linear, PatchEmbed, type PixelScale, type Scope, TransformerBlock } from '../nn/index.js'
import { pickToken } from '../ops/index.js'
import { activation, checkHeads, type ConfigFile, epsilon, flag, headCount, labelNames, labels, layerCount, readConfig, sides, squarePatch, threeChannels, width } from './config.js'
import type { Architecture, ImageTower, Traced } from './encoder.js'

const schema = v.object({
  hidden_size: width(),
  num_hidden_layers: layerCount(),
  num_attention_heads: headCount(),
  intermediate_size: width(),
  image_size: sides(16384),
  patch_size: sides(1024),
  num_channels: threeChannels(),
  hidden_act: activation('gelu'),
  layer_norm_eps: epsilon(1e-12),
  qkv_bias: flag(true),
  pooler_output_size: v.nullish(width()),
  pooler_act: activation('tanh'),
  ...labels,
})
type ViTConfig = v.InferOutput<typeof schema>

/** Below a block, of ViT and of what has its names. */
export const BLOCK_NAMES = {
  norm1: 'layernorm_before',
  attention: {
    query: 'attention.attention.query',
    key: 'attention.attention.key',
    value: 'attention.attention.value',
    out: 'attention.output.dense',
  },
  norm2: 'layernorm_after',
  mlp: { in: 'intermediate.dense', out: 'output.dense' },
}

/** As transformers 5 has them in memory; it saves models with the names above, and others save its state dicts. */
export const MEMORY_ATTENTION = { query: 'attention.q_proj', key: 'attention.k_proj', value: 'attention.v_proj', out: 'attention.o_proj' }
const MEMORY_NAMES = { ...BLOCK_NAMES, attention: MEMORY_ATTENTION, mlp: { in: 'mlp.fc1', out: 'mlp.fc2' } }

class ViT implements ImageTower {
  readonly prefix = ''
  readonly absent: Record<string, string> = {}
  readonly imageSize
  private readonly tokens: number
  private readonly embeddings: PatchEmbed
  private readonly layers: TransformerBlock[]
  private readonly layernorm: LayerNorm
  private readonly pooler?: Linear
  private readonly classifier?: Linear

  constructor(
    scope: Scope,
    private readonly config: ViTConfig,
    patch: number,
    labelCount: number,
  ) {
    const { hidden_size: width, image_size: size } = config
    this.imageSize = size
    this.tokens = Math.floor(size.height / patch) * Math.floor(size.width / patch) + 1
    const vit = scope.firstWith('embeddings.cls_token', ['', 'vit'])
    this.embeddings = new PatchEmbed(vit.at('embeddings'), {
      width,
      patch,
      tokens: this.tokens,
      names: {
        weight: 'patch_embeddings.projection.weight',
        bias: 'patch_embeddings.projection.bias',
        classToken: 'cls_token',
        positions: 'position_embeddings',
      },
    })
    const [path, names] = vit.has('layers.0.layernorm_before.weight') ? ['layers', MEMORY_NAMES] : ['encoder.layer', BLOCK_NAMES]
    this.layers = Array.from(
      { length: config.num_hidden_layers },
      (_, i) =>
        new TransformerBlock(vit.at(path, i), {
          order: 'pre',
          width,
          heads: config.num_attention_heads,
          hidden: config.intermediate_size,
          activation: config.hidden_act,
          eps: config.layer_norm_eps,
          qkvBias: config.qkv_bias,
          names,
        }),
    )
    this.layernorm = new LayerNorm(vit.at('layernorm'), width, config.layer_norm_eps)
    if (vit.has('pooler.dense.weight')) this.pooler = new Linear(vit.at('pooler.dense'), width, config.pooler_output_size ?? width)
    else this.absent['pooler_output'] = vit.nameOf('pooler.dense.weight')
    if (scope.has('classifier.weight')) this.classifier = new Linear(scope.at('classifier'), width, labelCount)
    else this.absent['logits'] = 'classifier.weight'
  }

  get classifies(): boolean {
    return this.classifier !== undefined
  }

  trace(pixels: Value, scale: PixelScale): Traced {
    const states = hiddenStates(this.layers, this.embeddings.forward(pixels, scale), { length: this.tokens })
    const last = this.layernorm.forward(states.at(-1)!, { dtype: 'float32' })
    const classToken = pickToken(last, { which: 'first', length: this.tokens })
    return {
      outputs: {
        last_hidden_state: last, // [B·tokens, C]
        ...(this.pooler && { pooler_output: this.pooler.forward(classToken, { activation: this.config.pooler_act, dtype: 'float32' }) }),
        ...(this.classifier && { logits: this.classifier.forward(classToken, { dtype: 'float32' }) }),
      },
      hiddenStates: states,
      embedding: classToken,
    }
  }
}

export function buildViT(file: ConfigFile, scope: Scope): Architecture {
  const config = readConfig(schema, file)
  checkHeads(file.file, 'num_attention_heads', config.num_attention_heads, config.hidden_size)
  const patch = squarePatch(file.file, config.patch_size, config.image_size)
  const names = labelNames(config)
  const images = new ViT(scope, config, patch, names.length)
  return { images, ...(images.classifies && { labels: names }) }
}
