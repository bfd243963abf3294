// ResNet (He et al., arXiv:1512.03385): stages of residual layers, basic (two 3 x 3 convolutions) or bottlenecks, batch norms folded.
// ResNetModel and ResNetForImageClassification, at any picture size.

import * as v from 'valibot'
import { CheckpointError } from '../core/errors.js'
import type { Value } from '../core/value.js'
import { type Activation, activated, type ComputeType, Convolution, type FeatureMap, Linear, PixelRows, type PixelScale, type Scope } from '../nn/index.js'
import { cast, pool, poolWindows } from '../ops/index.js'
import { activation, type ConfigFile, flag, labelNames, labels, layerCount, readConfig, threeChannels, width } from './config.js'
import type { Architecture, ImageTower, Traced } from './encoder.js'

const list = <S extends v.GenericSchema>(item: S, expected: string) => v.pipe(v.array(item, expected), v.minLength(1, expected), v.maxLength(16, expected))

const schema = v.object({
  num_channels: threeChannels(),
  embedding_size: v.nullish(width(), 64),
  hidden_sizes: v.nullish(list(width(), 'widths, one for each stage'), [256, 512, 1024, 2048]),
  depths: v.nullish(list(layerCount(), 'numbers of layers, one for each stage'), [3, 4, 6, 3]),
  layer_type: v.nullish(v.picklist(['basic', 'bottleneck'], "'basic' or 'bottleneck'"), 'bottleneck'),
  hidden_act: activation('relu'),
  downsample_in_first_stage: flag(false),
  downsample_in_bottleneck: flag(false),
  ...labels,
})
type ResNetConfig = v.InferOutput<typeof schema>

/** Of every batch norm. */
const EPS = 1e-5
/** A bottleneck's inner layers are this much narrower. */
const REDUCTION = 4

interface LayerOptions {
  inputs: number
  outputs: number
  stride: number
}

function convolution(scope: Scope, name: string, options: LayerOptions & { kernel: number }): Convolution {
  const { kernel } = options
  return new Convolution(scope.at(name), { ...options, padding: Math.floor(kernel / 2), name: 'convolution', norm: { name: 'normalization', eps: EPS } })
}

/** act(layers(x) + shortcut(x)); between its layers it is always ReLU. */
class ResidualLayer {
  private readonly layers: Convolution[]
  private readonly shortcut: Convolution | undefined

  constructor(
    scope: Scope,
    private readonly activation: Activation,
    options: LayerOptions,
    { layer_type, downsample_in_bottleneck }: ResNetConfig,
  ) {
    const { inputs, outputs, stride } = options
    const layer = (i: number, more: LayerOptions & { kernel: number }) => convolution(scope, `layer.${i}`, more)
    if (layer_type === 'basic') {
      this.layers = [layer(0, { ...options, kernel: 3 }), layer(1, { inputs: outputs, outputs, stride: 1, kernel: 3 })]
    } else {
      const inner = Math.floor(outputs / REDUCTION)
      const [first, second] = downsample_in_bottleneck ? [stride, 1] : [1, stride]
      this.layers = [
        layer(0, { inputs, outputs: inner, stride: first, kernel: 1 }),
        layer(1, { inputs: inner, outputs: inner, stride: second, kernel: 3 }),
        layer(2, { inputs: inner, outputs, stride: 1, kernel: 1 }),
      ]
    }
    if (inputs !== outputs || stride !== 1) this.shortcut = convolution(scope, 'shortcut', { ...options, kernel: 1 })
  }

  forward(x: FeatureMap, dtype: ComputeType): FeatureMap {
    const residual = this.shortcut ? this.shortcut.forward(x, { dtype }) : x
    let map = x
    for (const layer of this.layers.slice(0, -1)) map = layer.forward(map, { activation: 'relu', dtype })
    const sum = this.layers.at(-1)!.forward(map, { residual: residual.rows, dtype })
    return { ...sum, rows: activated(sum.rows, this.activation) }
  }
}

class ResNet implements ImageTower {
  readonly prefix = ''
  readonly absent: Record<string, string> = {}
  readonly anySize = true
  readonly imageSize = { height: 224, width: 224 }
  private readonly dtype: ComputeType
  private readonly pixels: PixelRows
  private readonly stem: Convolution
  private readonly stages: ResidualLayer[][]
  private readonly classifier?: Linear

  constructor(
    scope: Scope,
    private readonly config: ResNetConfig,
    labelCount: number,
  ) {
    this.dtype = scope.computeType
    const { hidden_sizes: widths, embedding_size, hidden_act } = config
    const root = scope.firstWith('embedder.embedder.convolution.weight', ['', 'resnet'])
    this.pixels = new PixelRows(root)
    this.stem = convolution(root, 'embedder.embedder', { inputs: 3, outputs: embedding_size, stride: 2, kernel: 7 })
    this.stages = config.depths.map((depth, stage) => {
      const outputs = widths[stage]!
      const before = stage === 0 ? embedding_size : widths[stage - 1]!
      const stride = stage === 0 && !config.downsample_in_first_stage ? 1 : 2
      return Array.from({ length: depth }, (_, i) => {
        const options = i === 0 ? { inputs: before, outputs, stride } : { inputs: outputs, outputs, stride: 1 }
        return new ResidualLayer(root.at('encoder.stages', stage, 'layers', i), hidden_act, options, config)
      })
    })
    if (scope.has('classifier.1.weight')) this.classifier = new Linear(scope.at('classifier.1'), widths.at(-1)!, labelCount)
    else this.absent['logits'] = 'classifier.1.weight'
  }

  get classifies(): boolean {
    return this.classifier !== undefined
  }

  trace(pixels: Value, scale: PixelScale): Traced {
    const { dtype } = this
    const embedded = this.stem.forward(this.pixels.forward(pixels, scale, dtype), { activation: this.config.hidden_act, dtype })
    const { height, width } = embedded
    const pooled = poolWindows(embedded.rows, { mode: 'max', height, width, kernel: [3, 3], stride: [2, 2], padding: [1, 1, 1, 1] })
    const states: FeatureMap[] = [{ rows: pooled, height: Math.ceil(height / 2), width: Math.ceil(width / 2) }]
    for (const stage of this.stages) states.push(stage.reduce((map, layer) => layer.forward(map, dtype), states.at(-1)!))
    const last = states.at(-1)!
    const vector = pool(last.rows, { mode: 'mean', length: last.height * last.width, dtype: 'float32' })
    const maps = { last_hidden_state: last, pooler_output: { rows: vector, height: 1, width: 1 }, ...Object.fromEntries(states.map((map, k) => [`hidden_state_${k}`, map])) }
    return {
      outputs: {
        ...Object.fromEntries(Object.entries(maps).map(([name, { rows }]) => [name, cast(rows, 'float32')])),
        ...(this.classifier && { logits: this.classifier.forward(vector, { dtype: 'float32' }) }),
      },
      hiddenStates: [],
      maps,
      embedding: vector,
    }
  }
}

/** ResNet of microsoft/resnet-50 and its kind. */
export function buildResNet(file: ConfigFile, scope: Scope): Architecture {
  const config = readConfig(schema, file)
  const { hidden_sizes, depths, layer_type } = config
  if (hidden_sizes.length !== depths.length) {
    throw new CheckpointError(`${file.file}: hidden_sizes has ${hidden_sizes.length} stages, depths has ${depths.length}; expected as many`, { file: file.file, field: 'depths' })
  }
  const narrow = layer_type === 'bottleneck' ? hidden_sizes.find(size => size < REDUCTION) : undefined
  if (narrow !== undefined) throw new CheckpointError(`${file.file}: hidden_sizes has ${narrow}; expected at least ${REDUCTION} in bottlenecks`, { file: file.file, field: 'hidden_sizes' })
  const names = labelNames(config)
  const images = new ResNet(scope, config, names.length)
  return { images, ...(images.classifies && { labels: names }) }
}
