// DINOv3 (Siméoni et al., arXiv:2508.10104): a pre-norm vision transformer with register tokens, LayerScale, and rotary positions of the patches
// instead of a table, so that pictures may have any size. DINOv3ViTModel.

import * as v from 'valibot'
import { CheckpointError } from '../core/errors.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { gridRotation, hiddenStates, LayerNorm, PatchEmbed, type PixelScale, type Rotation, type Scope, TransformerBlock } from '../nn/index.js'
import { pickToken, prependRows } from '../ops/index.js'
import { activation, checkHeads, type ConfigFile, epsilon, flag, headCount, integer, layerCount, readConfig, sides, squarePatch, threeChannels, width } from './config.js'
import type { Architecture, ImageTower, Traced } from './encoder.js'
import { theta } from './rope-config.js'

const schema = v.object({
  hidden_size: v.nullish(width(), 384),
  intermediate_size: v.nullish(width(), 1536),
  num_hidden_layers: v.nullish(layerCount(), 12),
  num_attention_heads: v.nullish(headCount(), 6),
  hidden_act: activation('gelu'),
  layer_norm_eps: epsilon(1e-5),
  rope_theta: v.nullish(theta(), 100),
  image_size: v.nullish(sides(16384), 224),
  patch_size: v.nullish(sides(1024), 16),
  num_channels: threeChannels(),
  num_register_tokens: v.nullish(integer(0, 1000), 0),
  query_bias: flag(true),
  key_bias: flag(false),
  value_bias: flag(true),
  proj_bias: flag(true),
  mlp_bias: flag(true),
  use_gated_mlp: flag(false),
})
type Dinov3Config = v.InferOutput<typeof schema>

class Dinov3 implements ImageTower {
  readonly prefix = ''
  readonly absent = {}
  readonly anySize = true
  readonly imageSize
  private readonly prefixRows: number
  private readonly embeddings: PatchEmbed
  /** The class token, then the registers. */
  private readonly before: Parameter
  private readonly layers: TransformerBlock[]
  private readonly norm: LayerNorm
  private latest?: { key: string; rotation: Rotation }

  constructor(
    scope: Scope,
    private readonly config: Dinov3Config,
    private readonly patch: number,
  ) {
    const { hidden_size: width, layer_norm_eps: eps, num_register_tokens: registers, image_size: size } = config
    this.imageSize = size
    this.prefixRows = 1 + registers
    const embeddings = scope.at('embeddings')
    const tokens = Math.floor(size.height / patch) * Math.floor(size.width / patch)
    this.embeddings = new PatchEmbed(embeddings, { width, patch, tokens, names: { weight: 'patch_embeddings.weight', bias: 'patch_embeddings.bias' } })
    this.before = embeddings.parameter('cls_token and register_tokens', [this.prefixRows, width], {
      derived: {
        from: [{ name: embeddings.nameOf('cls_token'), shape: [1, width] }, ...(registers > 0 ? [{ name: embeddings.nameOf('register_tokens'), shape: [registers, width] }] : [])],
        compute: tokens => Float32Array.of(...tokens.flatMap(token => [...token])),
      },
    })
    const layers = scope.firstWith('layer.0.norm1.weight', ['', 'model'])
    this.layers = Array.from(
      { length: config.num_hidden_layers },
      (_, i) =>
        new TransformerBlock(layers.at('layer', i), {
          ...{ order: 'pre', width, heads: config.num_attention_heads, hidden: config.intermediate_size, eps, activation: config.hidden_act },
          ...{ qkvBias: { query: config.query_bias, key: config.key_bias, value: config.value_bias }, outBias: config.proj_bias, mlpBias: config.mlp_bias },
          layerScale: ['layer_scale1.lambda1', 'layer_scale2.lambda1'],
          names: {
            norm1: 'norm1',
            attention: { query: 'attention.q_proj', key: 'attention.k_proj', value: 'attention.v_proj', out: 'attention.o_proj' },
            norm2: 'norm2',
            mlp: config.use_gated_mlp ? { gate: 'mlp.gate_proj', up: 'mlp.up_proj', out: 'mlp.down_proj' } : { in: 'mlp.up_proj', out: 'mlp.down_proj' },
          },
        }),
    )
    this.norm = new LayerNorm(scope.at('norm'), width, eps)
  }

  trace(pixels: Value, scale: PixelScale): Traced {
    const [, a, b, c] = pixels.shape as [number, number, number, number]
    const [height, width] = pixels.dtype === 'uint8' ? [a, b] : [b, c]
    const rotation = this.rotation(Math.floor(height / this.patch), Math.floor(width / this.patch))
    const length = rotation.length!
    const embedded = this.embeddings.forward(pixels, scale)
    const tokens = prependRows(parameter(this.before), embedded, { length: length - this.prefixRows, dtype: 'float32' })
    const states = hiddenStates(this.layers, tokens, { length }, { rotation })
    const last = this.norm.forward(states.at(-1)!, { dtype: 'float32' })
    const classToken = pickToken(last, { which: 'first', length })
    return { outputs: { last_hidden_state: last, pooler_output: classToken }, hiddenStates: states, embedding: classToken }
  }

  private rotation(height: number, width: number): Rotation {
    const key = `${height} ${width}`
    if (this.latest?.key !== key) {
      const { hidden_size, num_attention_heads, rope_theta: theta } = this.config
      this.latest = { key, rotation: gridRotation({ height, width }, { size: hidden_size / num_attention_heads, theta, prefix: this.prefixRows }) }
    }
    return this.latest.rotation
  }
}

export function buildDinov3(file: ConfigFile, scope: Scope): Architecture {
  const config = readConfig(schema, file)
  checkHeads(file.file, 'num_attention_heads', config.num_attention_heads, config.hidden_size)
  const headSize = config.hidden_size / config.num_attention_heads
  if (headSize % 4 !== 0) {
    throw new CheckpointError(`${file.file}: num_attention_heads gives heads of ${headSize} features; expected a multiple of 4`, { file: file.file, field: 'num_attention_heads' })
  }
  return { images: new Dinov3(scope, config, squarePatch(file.file, config.patch_size, config.image_size)) }
}
