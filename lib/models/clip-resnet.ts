// CLIP's convolutional picture tower (Radford et al., arXiv:2103.00020): a ResNet with a stem of three convolutions, average pooling in place
// of strides, and attention pooling. With OpenAI's parameter names; the text tower beside it is the other CLIPs'.

import * as v from 'valibot'
import { CheckpointError } from '../core/errors.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { activated, type ComputeType, Convolution, type FeatureMap, Linear, PixelRows, type PixelScale, type Scope } from '../nn/index.js'
import { add, attention, cast, pickToken, pool, poolWindows, prependRows, reshape } from '../ops/index.js'
import { type ConfigFile, headCount, layerCount, readConfig, sides, width } from './config.js'
import type { ImageTower, Traced } from './encoder.js'

/** vision_config's model_type, as configFromOpenAI writes it. */
export const MODIFIED_RESNET = 'modified_resnet'

const LAYERS = 'four numbers of layers'
const schema = v.object({
  layers: v.tuple([layerCount(), layerCount(), layerCount(), layerCount()], LAYERS),
  width: width(),
  heads: headCount(),
  image_size: sides(16384),
  projection_dim: width(),
})
type ModifiedResNetConfig = v.InferOutput<typeof schema>

/** Of every batch norm. */
const EPS = 1e-5
/** A block's outputs are so much wider than what is within. */
const EXPANSION = 4
/** Pixels of a side of the picture for one of the last map: five halvings. */
export const REDUCTION = 32

function layer(scope: Scope, name: string, norm: string, options: { inputs: number; outputs: number; kernel: number; stride?: number }): Convolution {
  return new Convolution(scope, { ...options, padding: Math.floor(options.kernel / 2), name, norm: { name: norm, eps: EPS } })
}

function averaged(map: FeatureMap, stride: number): FeatureMap {
  if (stride === 1) return map
  const { height, width } = map
  const size = [stride, stride]
  return { rows: poolWindows(map.rows, { mode: 'mean', height, width, kernel: size, stride: size }), height: Math.floor(height / stride), width: Math.floor(width / stride) }
}

class Bottleneck {
  private readonly layers: readonly [Convolution, Convolution, Convolution]
  private readonly downsample: Convolution | undefined

  constructor(
    scope: Scope,
    inputs: number,
    inner: number,
    private readonly stride: number,
  ) {
    const outputs = inner * EXPANSION
    this.layers = [
      layer(scope, 'conv1', 'bn1', { inputs, outputs: inner, kernel: 1 }),
      layer(scope, 'conv2', 'bn2', { inputs: inner, outputs: inner, kernel: 3 }),
      layer(scope, 'conv3', 'bn3', { inputs: inner, outputs, kernel: 1 }),
    ]
    if (stride > 1 || inputs !== outputs) this.downsample = layer(scope.at('downsample'), '0', '1', { inputs, outputs, kernel: 1 })
  }

  forward(x: FeatureMap, dtype: ComputeType): FeatureMap {
    const [first, second, third] = this.layers
    const identity = this.downsample ? this.downsample.forward(averaged(x, this.stride), { dtype }) : x
    const within = second.forward(first.forward(x, { activation: 'relu', dtype }), { activation: 'relu', dtype })
    const sum = third.forward(averaged(within, this.stride), { residual: identity.rows, dtype })
    return { ...sum, rows: activated(sum.rows, 'relu') }
  }
}

/** The mean over a map's pixels attends to itself and to the pixels. */
class AttentionPool2d {
  private readonly positions: Parameter
  private readonly query: Linear
  private readonly key: Linear
  private readonly value: Linear
  private readonly out: Linear

  constructor(
    scope: Scope,
    private readonly options: { width: number; heads: number; outputs: number; pixels: number },
  ) {
    const { width, outputs, pixels } = options
    this.positions = scope.parameter('positional_embedding', [1 + pixels, width])
    this.query = new Linear(scope.at('q_proj'), width, width)
    this.key = new Linear(scope.at('k_proj'), width, width)
    this.value = new Linear(scope.at('v_proj'), width, width)
    this.out = new Linear(scope.at('c_proj'), width, outputs)
  }

  /** -> float32 [B, outputs] */
  forward({ rows }: FeatureMap, dtype: ComputeType): Value {
    const { width, heads, pixels } = this.options
    const length = 1 + pixels
    const mean = pool(rows, { mode: 'mean', length: pixels, dtype: 'float32' })
    const all = prependRows(mean, rows, { length: pixels, each: true, dtype: 'float32' })
    const placed = add(reshape(all, [all.shape[0]! / length, length, width]), parameter(this.positions), { dtype })
    const tokens = reshape(placed, all.shape)
    const q = this.query.forward(pickToken(tokens, { which: 'first', length }), { dtype })
    const [k, v] = [this.key.forward(tokens, { dtype }), this.value.forward(tokens, { dtype })]
    const mixed = attention(q, k, v, { heads, scale: (width / heads) ** -0.5, queryLength: 1, keyLength: length, dtype })
    return this.out.forward(mixed, { dtype: 'float32' })
  }
}

class ModifiedResNet implements ImageTower {
  readonly prefix = ''
  readonly absent = {}
  readonly imageSize
  private readonly dtype: ComputeType
  private readonly pixels: PixelRows
  private readonly stem: readonly Convolution[]
  private readonly blocks: readonly Bottleneck[]
  private readonly attnpool: AttentionPool2d

  constructor(scope: Scope, { layers, width, heads, image_size, projection_dim }: ModifiedResNetConfig) {
    this.imageSize = image_size
    this.dtype = scope.computeType
    this.pixels = new PixelRows(scope)
    const half = Math.floor(width / 2)
    this.stem = [
      layer(scope, 'conv1', 'bn1', { inputs: 3, outputs: half, kernel: 3, stride: 2 }),
      layer(scope, 'conv2', 'bn2', { inputs: half, outputs: half, kernel: 3 }),
      layer(scope, 'conv3', 'bn3', { inputs: half, outputs: width, kernel: 3 }),
    ]
    this.blocks = layers.flatMap((depth, stage) => {
      const inner = width * 2 ** stage
      const before = stage === 0 ? width : (inner / 2) * EXPANSION
      return Array.from({ length: depth }, (_, i) => {
        return new Bottleneck(scope.at(`layer${stage + 1}`, i), i === 0 ? before : inner * EXPANSION, inner, i === 0 && stage > 0 ? 2 : 1)
      })
    })
    const pixels = Math.floor(image_size.height / REDUCTION) * Math.floor(image_size.width / REDUCTION)
    this.attnpool = new AttentionPool2d(scope.at('attnpool'), { width: width * REDUCTION, heads, outputs: projection_dim, pixels })
  }

  trace(pixels: Value, scale: PixelScale): Traced {
    const { dtype } = this
    let map = this.pixels.forward(pixels, scale, dtype)
    for (const convolution of this.stem) map = convolution.forward(map, { activation: 'relu', dtype })
    map = averaged(map, 2)
    for (const block of this.blocks) map = block.forward(map, dtype)
    const embedding = this.attnpool.forward(map, dtype)
    return { outputs: { last_hidden_state: cast(map.rows, 'float32'), pooler_output: embedding }, hiddenStates: [], maps: { last_hidden_state: map }, embedding }
  }
}

/** The tower that a vision_config of configFromOpenAI describes. */
export function buildModifiedResNet(file: ConfigFile, scope: Scope, section: string): ImageTower {
  const config = readConfig(schema, file, section)
  const { width, heads, image_size } = config
  if ((width * REDUCTION) % heads !== 0) {
    throw new CheckpointError(`${file.file}: vision_heads is ${heads}, which does not divide the width ${width * REDUCTION}`, { file: file.file, field: 'vision_heads' })
  }
  if (Math.min(image_size.height, image_size.width) < REDUCTION) {
    throw new CheckpointError(`${file.file}: image_resolution is ${image_size.height}; expected at least ${REDUCTION} pixels`, { file: file.file, field: 'image_resolution' })
  }
  return new ModifiedResNet(scope, config)
}
