// DINOv2 (Oquab et al., arXiv:2304.07193), with register tokens or not (Darcet et al., arXiv:2309.16588): a pre-norm vision transformer
// with LayerScale; its positions are interpolated to the size of the pictures. Dinov2Model, Dinov2WithRegistersModel, and their classifiers, which
// read the class token beside the mean of the patches.

import * as v from 'valibot'
import type { Value } from '../core/value.js'
import { parameter, type Parameter } from '../core/value.js'
import { GridPositions, hiddenStates, LayerNorm, Linear, PatchEmbed, type PixelScale, type Scope, sideBySide, TransformerBlock } from '../nn/index.js'
import { pickToken, pool, prependRows } from '../ops/index.js'
import { activation, checkHeads, type ConfigFile, epsilon, flag, headCount, integer, labelNames, labels, layerCount, readConfig, sides, squarePatch, threeChannels, width } from './config.js'
import type { Architecture, ImageTower, Traced } from './encoder.js'
import { BLOCK_NAMES, MEMORY_ATTENTION } from './vit.js'

const schema = v.object({
  hidden_size: v.nullish(width(), 768),
  num_hidden_layers: v.nullish(layerCount(), 12),
  num_attention_heads: v.nullish(headCount(), 12),
  mlp_ratio: v.nullish(v.pipe(v.number('a number above 0'), v.gtValue(0, 'a number above 0'), v.maxValue(64, 'a number up to 64')), 4),
  hidden_act: activation('gelu'),
  layer_norm_eps: epsilon(1e-6),
  image_size: v.nullish(sides(16384), 224),
  patch_size: v.nullish(sides(1024), 16),
  num_channels: threeChannels(),
  qkv_bias: flag(true),
  use_swiglu_ffn: flag(false),
  num_register_tokens: v.nullish(integer(0, 1000)),
  ...labels,
})
type Dinov2Config = v.InferOutput<typeof schema>

/** The gated MLP keeps two thirds of the width, rounded up to a multiple of 8. */
function hiddenWidth({ hidden_size, mlp_ratio, use_swiglu_ffn }: Dinov2Config): number {
  const hidden = Math.trunc(hidden_size * mlp_ratio)
  return use_swiglu_ffn ? 8 * Math.floor((Math.trunc((hidden * 2) / 3) + 7) / 8) : hidden
}

class Dinov2 implements ImageTower {
  readonly prefix = ''
  readonly absent: Record<string, string> = {}
  readonly anySize = true
  readonly imageSize
  private readonly prefixRows: number
  private readonly embeddings: PatchEmbed
  private readonly positions: GridPositions
  /** The class token with its position, and the registers, which have none. */
  private readonly before: Parameter
  private readonly layers: TransformerBlock[]
  private readonly layernorm: LayerNorm

  constructor(
    scope: Scope,
    config: Dinov2Config,
    private readonly patch: number,
    /** undefined: a model that knows none, which is not the same as 0 of them. */
    registers: number | undefined,
    private readonly classifier: Linear | undefined,
  ) {
    const { hidden_size: width, image_size: size, layer_norm_eps: eps } = config
    this.imageSize = size
    const grid = this.grid(size)
    const patches = grid.height * grid.width
    const embeddings = scope.at('embeddings')
    const names = { weight: 'patch_embeddings.projection.weight', bias: 'patch_embeddings.projection.bias' }
    this.embeddings = new PatchEmbed(embeddings, { width, patch, tokens: patches, names })
    this.positions = new GridPositions(embeddings, 'position_embeddings', { width, grid, skip: 1, antialias: registers !== undefined })
    this.prefixRows = 1 + (registers ?? 0)
    this.before = embeddings.parameter('cls_token and register_tokens', [this.prefixRows, width], {
      derived: {
        from: [
          { name: embeddings.nameOf('cls_token'), shape: [1, width] },
          { name: embeddings.nameOf('position_embeddings'), shape: [1 + patches, width] },
          ...(registers ? [{ name: embeddings.nameOf('register_tokens'), shape: [registers, width] }] : []),
        ],
        compute: ([token, positions, more]) => Float32Array.of(...token!.map((value, i) => value + positions![i]!), ...(more ?? [])),
      },
    })
    const hidden = hiddenWidth(config)
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, i) => {
      const layer = scope.at('encoder.layer', i)
      const swiglu = layer.has('mlp.weights_in.weight') ? { fused: 'mlp.weights_in', out: 'mlp.weights_out' } : { gate: 'mlp.gate_proj', up: 'mlp.up_proj', out: 'mlp.down_proj' }
      return new TransformerBlock(layer, {
        ...{ order: 'pre', width, heads: config.num_attention_heads, hidden, eps, qkvBias: config.qkv_bias },
        activation: config.use_swiglu_ffn ? 'silu' : config.hidden_act,
        layerScale: ['layer_scale1.lambda1', 'layer_scale2.lambda1'],
        names: {
          norm1: 'norm1',
          attention: layer.has('attention.q_proj.weight') ? MEMORY_ATTENTION : BLOCK_NAMES.attention,
          norm2: 'norm2',
          mlp: config.use_swiglu_ffn ? swiglu : { in: 'mlp.fc1', out: 'mlp.fc2' },
        },
      })
    })
    this.layernorm = new LayerNorm(scope.at('layernorm'), width, eps)
  }

  trace(pixels: Value, scale: PixelScale): Traced {
    const [, a, b, c] = pixels.shape as [number, number, number, number]
    const grid = this.grid(pixels.dtype === 'uint8' ? { height: a, width: b } : { height: b, width: c })
    const patches = grid.height * grid.width
    const embedded = this.embeddings.forward(pixels, scale, this.positions.forward(grid))
    const tokens = prependRows(parameter(this.before), embedded, { length: patches, dtype: 'float32' })
    const length = this.prefixRows + patches
    const states = hiddenStates(this.layers, tokens, { length })
    const last = this.layernorm.forward(states.at(-1)!, { dtype: 'float32' })
    const classToken = pickToken(last, { which: 'first', length })
    const logits = () => {
      const patchMean = pool(last, { mode: 'mean', skip: this.prefixRows, length, dtype: 'float32' })
      return this.classifier!.forward(sideBySide([classToken, patchMean]), { dtype: 'float32' })
    }
    return {
      outputs: { last_hidden_state: last, pooler_output: classToken, ...(this.classifier && { logits: logits() }) },
      hiddenStates: states,
      embedding: classToken,
    }
  }

  private grid({ height, width }: { height: number; width: number }): { height: number; width: number } {
    return { height: Math.floor(height / this.patch), width: Math.floor(width / this.patch) }
  }
}

/** @param architecture the reference's class, say 'Dinov2WithRegistersModel' */
export function buildDinov2(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  const config = readConfig(schema, file)
  checkHeads(file.file, 'num_attention_heads', config.num_attention_heads, config.hidden_size)
  const patch = squarePatch(file.file, config.patch_size, config.image_size)
  const withRegisters = file.json['model_type'] === 'dinov2_with_registers' || architecture.startsWith('Dinov2WithRegisters')
  const backbone = scope.firstWith('embeddings.cls_token', ['', 'dinov2', 'dinov2_with_registers'])
  const names = labelNames(config)
  const classifier = architecture.endsWith('ForImageClassification') ? new Linear(scope.at('classifier'), 2 * config.hidden_size, names.length) : undefined
  return {
    images: new Dinov2(backbone, config, patch, withRegisters ? (config.num_register_tokens ?? 4) : undefined, classifier),
    ...(classifier && { labels: names }),
  }
}
