// ALIGN (Jia et al., arXiv:2102.05918): an EfficientNet picture tower (Tan and Le, arXiv:1905.11946) beside a BERT whose first token is
// projected. AlignModel, and each tower alone; pictures of any size.

import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import type { Value } from '../core/value.js'
import { type Activation, type ComputeType, Convolution, DepthwiseConvolution, type FeatureMap, Linear, PixelRows, type PixelScale, type Scope } from '../nn/index.js'
import { cast, pickToken, pool, scaleSequences, unary } from '../ops/index.js'
import { BertEncoder, bertOptions, readBertConfig, readBertSection } from './bert.js'
import { activation, type ConfigFile, epsilon, integer, readConfig, sides, threeChannels, width } from './config.js'
import type { Architecture, ImageTower, TextTower, TokenInputs, Traced } from './encoder.js'
import { projectedImages, projectedTexts } from './projected.js'

const factor = (otherwise: number) => {
  const expected = 'a number above 0, at most 16'
  return v.nullish(v.pipe(v.number(expected), v.gtValue(0, expected), v.maxValue(16, expected)), otherwise)
}
const stages = (least: number, most: number, otherwise: number[]) => {
  const expected = `integers from ${least} to ${most}, one for each stage`
  return v.nullish(v.pipe(v.array(integer(least, most), expected), v.minLength(1, expected), v.maxLength(16, expected)), otherwise)
}

const visionSchema = v.object({
  num_channels: threeChannels(),
  image_size: v.nullish(sides(16384), 600),
  width_coefficient: factor(2),
  depth_coefficient: factor(3.1),
  depth_divisor: v.nullish(integer(1, 1024), 8),
  kernel_sizes: stages(1, 63, [3, 3, 5, 3, 5, 5, 3]),
  in_channels: stages(1, 65536, [32, 16, 24, 40, 80, 112, 192]),
  out_channels: stages(1, 65536, [16, 24, 40, 80, 112, 192, 320]),
  depthwise_padding: v.nullish(v.array(integer(0, 10_000), 'numbers of blocks'), []),
  strides: stages(1, 2, [1, 2, 2, 2, 1, 2, 1]),
  num_block_repeats: stages(1, 100, [1, 2, 2, 3, 3, 4, 1]),
  expand_ratios: stages(1, 64, [1, 6, 6, 6, 6, 6, 6]),
  squeeze_expansion_ratio: factor(0.25),
  hidden_act: activation('swish'),
  hidden_dim: v.nullish(width(), 2560),
  pooling_type: v.nullish(v.picklist(['mean', 'max'], "'mean' or 'max'"), 'mean'),
  batch_norm_eps: epsilon(0.001),
})
type VisionConfig = v.InferOutput<typeof visionSchema>

/** Channels times the width's coefficient, to a multiple of the divisor, never a tenth less. */
function channels({ depth_divisor: divisor, width_coefficient }: VisionConfig, count: number): number {
  const wanted = count * width_coefficient
  const rounded = Math.max(divisor, Math.floor(Math.trunc(wanted + divisor / 2) / divisor) * divisor)
  return rounded < 0.9 * wanted ? rounded + divisor : rounded
}

interface BlockOptions {
  inputs: number
  outputs: number
  stride: number
  kernel: number
  ratio: number
  /** Whether its input is added to its output. */
  skip: boolean
  /** Whether windows reach further over the right and lower edges. */
  uneven: boolean
}

/** An inverted bottleneck: widened, convolved channel by channel, gated by the mean over the picture, and narrowed. */
class Block {
  private readonly expand: Convolution | undefined
  private readonly depthwise: DepthwiseConvolution
  private readonly squeeze: Linear
  private readonly excite: Linear
  private readonly project: Convolution
  private readonly activation: Activation

  constructor(
    scope: Scope,
    private readonly options: BlockOptions,
    { hidden_act, batch_norm_eps: eps, squeeze_expansion_ratio }: VisionConfig,
  ) {
    const { inputs, outputs, stride, kernel, ratio, uneven } = options
    const wide = inputs * ratio
    const half = Math.floor(kernel / 2)
    const before = half - (stride === 2 ? (uneven ? 1 : 0) : kernel % 2 === 0 ? 1 : 0)
    this.activation = hidden_act
    if (ratio !== 1) this.expand = new Convolution(scope.at('expansion'), { inputs, outputs: wide, kernel: 1, name: 'expand_conv', norm: { name: 'expand_bn', eps } })
    this.depthwise = new DepthwiseConvolution(scope.at('depthwise_conv'), {
      ...{ outputs: wide, kernel, stride, padding: [before, before, half, half], name: 'depthwise_conv' },
      norm: { name: 'depthwise_norm', eps },
    })
    const squeezed = Math.max(1, Math.trunc(inputs * squeeze_expansion_ratio))
    this.squeeze = new Linear(scope.at('squeeze_excite.reduce'), wide, squeezed)
    this.excite = new Linear(scope.at('squeeze_excite.expand'), squeezed, wide)
    this.project = new Convolution(scope.at('projection'), { inputs: wide, outputs, kernel: 1, name: 'project_conv', norm: { name: 'project_bn', eps } })
  }

  forward(x: FeatureMap, dtype: ComputeType): FeatureMap {
    const { activation } = this
    const wide = this.expand ? this.expand.forward(x, { activation, dtype }) : x
    const filtered = this.depthwise.forward(wide, { activation, dtype })
    const length = filtered.height * filtered.width
    const squeezed = this.squeeze.forward(pool(filtered.rows, { mode: 'mean', length, dtype: 'float32' }), { activation, dtype })
    const gate = unary(this.excite.forward(squeezed, { dtype: 'float32' }), 'sigmoid')
    const gated = { ...filtered, rows: scaleSequences(filtered.rows, gate, { length, dtype }) }
    return this.project.forward(gated, { residual: this.options.skip ? x.rows : undefined, dtype })
  }
}

class EfficientNet implements ImageTower {
  readonly prefix = ''
  readonly absent = {}
  readonly anySize = true
  readonly imageSize
  /** Features of a picture. */
  readonly width: number
  private readonly dtype: ComputeType
  private readonly pixels: PixelRows
  private readonly stem: Convolution
  private readonly blocks: Block[] = []

  constructor(
    scope: Scope,
    private readonly config: VisionConfig,
  ) {
    this.imageSize = config.image_size
    this.dtype = scope.computeType
    const embeddings = scope.at('embeddings')
    this.pixels = new PixelRows(embeddings)
    this.stem = new Convolution(embeddings, {
      ...{ inputs: 3, outputs: channels(config, 32), kernel: 3, stride: 2, padding: [0, 0, 1, 1], name: 'convolution' },
      norm: { name: 'batchnorm', eps: config.batch_norm_eps },
    })
    config.in_channels.forEach((count, stage) => {
      const outputs = channels(config, config.out_channels[stage]!)
      const repeats = Math.ceil(config.depth_coefficient * config.num_block_repeats[stage]!)
      for (let i = 0; i < repeats; i++) {
        const stride = i === 0 ? config.strides[stage]! : 1
        const number = this.blocks.length
        const options = {
          inputs: i === 0 ? channels(config, count) : outputs,
          ...{ outputs, stride, kernel: config.kernel_sizes[stage]!, ratio: config.expand_ratios[stage]! },
          ...{ skip: i > 0, uneven: !config.depthwise_padding.includes(number) },
        }
        this.blocks.push(new Block(scope.at('encoder.blocks', number), options, config))
      }
    })
    this.width = channels(config, config.out_channels.at(-1)!)
  }

  trace(pixels: Value, scale: PixelScale): Traced {
    const { dtype } = this
    const { hidden_act: activation, pooling_type: mode } = this.config
    const stem = this.stem.forward(this.pixels.forward(pixels, scale, dtype), { activation, dtype })
    const map = this.blocks.reduce((x, block) => block.forward(x, dtype), stem)
    const vector = pool(map.rows, { mode, length: map.height * map.width, dtype: 'float32' })
    return { outputs: { last_hidden_state: cast(map.rows, 'float32'), pooler_output: vector }, hiddenStates: [], maps: { last_hidden_state: map }, embedding: vector }
  }
}

function buildVision(file: ConfigFile, scope: Scope, section?: string): EfficientNet {
  const config = readConfig(visionSchema, file, section)
  const fail = (field: string, came: string) => {
    const path = section === undefined ? field : `${section}.${field}`
    throw new CheckpointError(`${file.file}: ${path} ${came}`, { file: file.file, field: path })
  }
  const count = config.in_channels.length
  for (const field of ['kernel_sizes', 'out_channels', 'strides', 'num_block_repeats', 'expand_ratios'] as const) {
    if (config[field].length !== count) fail(field, `has ${config[field].length} stages, in_channels has ${count}; expected as many`)
  }
  if (config.kernel_sizes.some((kernel, i) => kernel === 1 && config.strides[i] === 2)) fail('kernel_sizes', 'has 1 where the stride is 2; expected at least 2')
  for (let i = 0; i < count; i++) {
    const [before, inputs] = [i === 0 ? 32 : config.out_channels[i - 1]!, config.in_channels[i]!]
    if (channels(config, before) !== channels(config, inputs)) fail('in_channels', `has ${inputs} for stage ${i}; expected the ${before} of what is before it`)
  }
  return new EfficientNet(scope, config)
}

/** BERT, whose first token stands for the text. */
class AlignText extends BertEncoder {
  override trace(tokens: TokenInputs): Traced {
    const traced = super.trace(tokens)
    return { ...traced, embedding: pickToken(traced.outputs['last_hidden_state']!, { which: 'first', cuSeqlens: tokens.sequences.cuSeqlens }) }
  }
}

function buildText(file: ConfigFile, scope: Scope, section?: string): { tower: TextTower; width: number } {
  const config = section === undefined ? readBertConfig(file) : readBertSection(file, section, scope)
  return { tower: new AlignText(scope, bertOptions(config)), width: config.hidden_size }
}

const schema = v.object({ projection_dim: v.nullish(width(), 640) })

/** @param architecture the reference's class: AlignModel, AlignVisionModel or AlignTextModel */
export function buildAlign(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  const joint = file.json['model_type'] === 'align' || file.json['model_type'] == null
  if (architecture === 'AlignVisionModel') {
    return { images: buildVision(file, scope.firstWith('embeddings.convolution.weight', ['', 'vision_model']), joint ? 'vision_config' : undefined) }
  }
  if (architecture === 'AlignTextModel') {
    return { texts: buildText(file, scope.firstWith('embeddings.word_embeddings.weight', ['', 'text_model']), joint ? 'text_config' : undefined).tower }
  }
  if (architecture !== 'AlignModel') {
    throw new UnsupportedError(`${file.file}: ${architecture} is not supported; of ALIGN there are AlignModel and its towers alone`, { file: file.file, field: 'architectures' })
  }
  const { projection_dim: projection } = readConfig(schema, file)
  const vision = buildVision(file, scope.at('vision_model'), 'vision_config')
  if (vision.width !== projection) {
    throw new CheckpointError(`${file.file}: projection_dim is ${projection}; expected the picture tower's ${vision.width} features`, { file: file.file, field: 'projection_dim' })
  }
  const text = buildText(file, scope.at('text_model'), 'text_config')
  return {
    images: projectedImages(vision),
    texts: projectedTexts(text.tower, { pooled: ({ embedding }) => embedding, projection: new Linear(scope.at('text_projection'), text.width, projection), readsFirst: true }),
    // Cosines are divided by a temperature here.
    logitScale: scope.parameter('logarithm of the inverse temperature', [], {
      derived: { from: [{ name: scope.nameOf('temperature'), shape: [] }], compute: ([temperature]) => Float32Array.of(-Math.log(temperature![0]!)) },
    }),
  }
}
