// wav2vec 2.0 (Baevski et al., arXiv:2006.11477): convolutions over raw audio, a grouped convolution for positions, and a transformer.
// Wav2Vec2Model in both variants (a group norm behind the first convolution and post-norm blocks, or layer norms and pre-norm blocks),
// Wav2Vec2ForCTC, Wav2Vec2ForSequenceClassification, Wav2Vec2ForAudioFrameClassification and Wav2Vec2ForXVector; the first two also with an adapter
// that leaves fewer frames.

import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { constant, type Parameter, parameter, type Value } from '../core/value.js'
import { activated, type Activation, type BlockOptions, type ComputeType, Convolution, type FeatureMap, hiddenStates, LayerNorm, Linear, Mlp, type Scope, type Sequences, sideBySide, TransformerBlock } from '../nn/index.js'
import { add, cast, columns, convolution, div, gather, mul, pool, repeatRows, reshape, scaleSequences, scatter, unary } from '../ops/index.js'
import { activation, checkHeads, type ConfigFile, epsilon, flag, headCount, integer, labelNames, labels, layerCount, readConfig, tableRows, width } from './config.js'
import type { Architecture, AudioTower, Traced, ValidFrames } from './encoder.js'
import { FrameAdapter, type Frames, MOST_SPACED_NUMBERS, spacedNumbers, XVector } from './wav2vec2-heads.js'

const each = (most: number) => {
  const expected = `integers from 1 to ${most}, one for each convolution`
  return v.pipe(v.array(integer(1, most), expected), v.minLength(1, expected), v.maxLength(32, expected))
}
const listOf = (most: number, otherwise: number[]) => v.nullish(each(most), otherwise)

const schema = v.object({
  hidden_size: v.nullish(width(), 768),
  num_hidden_layers: v.nullish(layerCount(), 12),
  num_attention_heads: v.nullish(headCount(), 12),
  intermediate_size: v.nullish(width(), 3072),
  hidden_act: activation('gelu'),
  layer_norm_eps: epsilon(1e-5),
  feat_extract_norm: v.nullish(v.picklist(['group', 'layer'], "'group' or 'layer'"), 'group'),
  feat_extract_activation: activation('gelu'),
  conv_dim: listOf(65536, [512, 512, 512, 512, 512, 512, 512]),
  conv_stride: listOf(4096, [5, 2, 2, 2, 2, 2, 2]),
  conv_kernel: listOf(4096, [10, 3, 3, 3, 3, 2, 2]),
  conv_bias: flag(false),
  num_conv_pos_embeddings: v.nullish(integer(1, 4096), 128),
  num_conv_pos_embedding_groups: v.nullish(integer(1, 4096), 16),
  do_stable_layer_norm: flag(false),
  vocab_size: v.nullish(tableRows(), 32),
  add_adapter: flag(false),
  output_hidden_size: v.nullish(width()),
  num_adapter_layers: v.nullish(integer(1, 100), 3),
  adapter_kernel_size: v.nullish(integer(2, 4096), 3), // its padding is 1
  adapter_stride: v.nullish(integer(1, 4096), 2),
  adapter_attn_dim: v.nullish(integer(1, 65536)),
  use_weighted_layer_sum: flag(false),
  classifier_proj_size: v.nullish(width(), 256),
  tdnn_dim: listOf(65536, [512, 512, 512, 512, 1500]),
  tdnn_kernel: listOf(1024, [5, 3, 3, 1, 1]),
  tdnn_dilation: listOf(1024, [1, 2, 3, 1, 1]),
  xvector_output_dim: v.nullish(width(), 512),
  ...labels,
})
type Wav2Vec2Config = v.InferOutput<typeof schema>

/** Of the norms between convolutions, which config.json does not know. */
const EPS = 1e-5

/** Each channel of a signal normalised over its length: a group norm with a group for each channel. */
class ChannelNorm {
  private readonly weight: Parameter
  private readonly bias: Parameter

  constructor(
    scope: Scope,
    private readonly channels: number,
  ) {
    const row = (name: string) =>
      scope.parameter(`${name} as a row`, [1, channels], { derived: { from: [{ name: scope.nameOf(name), shape: [channels] }], compute: ([values]) => values! } })
    this.weight = row('weight')
    this.bias = row('bias')
  }

  /** x: float32; two passes, as the mean may be far from zero. */
  forward({ rows, height, width }: FeatureMap, dtype: ComputeType): Value {
    const length = height * width
    const number = (values: Float32Array, dims: number[]) => constant(new Tensor('float32', values, dims))
    const mean = pool(rows, { mode: 'mean', length, dtype: 'float32' })
    const forEach = (row: Value) => repeatRows(row, mean, { length: 1, dtype: 'float32' })
    const centred = scaleSequences(rows, forEach(number(new Float32Array(this.channels).fill(1), [1, this.channels])), { shift: unary(mean, 'neg'), length })
    const variance = pool(mul(centred, centred), { mode: 'mean', length, dtype: 'float32' })
    const deviation = unary(add(variance, number(Float32Array.of(EPS), [])), 'sqrt')
    return scaleSequences(centred, div(forEach(parameter(this.weight)), deviation), { shift: forEach(parameter(this.bias)), length, dtype })
  }
}

/** One of the convolutions over the signal: with a norm over its channels, over its length, or none. */
class FeatureLayer {
  private readonly convolution: Convolution
  private readonly norm: LayerNorm | ChannelNorm | undefined

  constructor(
    scope: Scope,
    private readonly activation: Activation,
    options: { inputs: number; outputs: number; kernel: number; stride: number; bias: boolean; norm: 'layer' | 'channel' | undefined },
  ) {
    const { inputs, outputs, kernel, stride, bias, norm } = options
    this.convolution = new Convolution(scope, { inputs, outputs, kernel: [1, kernel], stride: [1, stride], name: 'conv', bias, rank: 1 })
    if (norm === 'layer') this.norm = new LayerNorm(scope.at('layer_norm'), outputs, EPS)
    if (norm === 'channel') this.norm = new ChannelNorm(scope.at('layer_norm'), outputs)
  }

  forward(x: FeatureMap, dtype: ComputeType): FeatureMap {
    const { activation, norm } = this
    if (!norm) return this.convolution.forward(x, { activation, dtype })
    const map = this.convolution.forward(x, { dtype: 'float32' })
    const normed = norm instanceof ChannelNorm ? norm.forward(map, dtype) : norm.forward(map.rows, { dtype })
    return { ...map, rows: activated(normed, activation) }
  }
}

/** A convolution of groups of channels, as wide as its input, weight-normalised: the weight is g · v / ‖v‖ for each place of the kernel. */
class PositionalConvolution {
  private readonly weights: readonly Parameter[]
  private readonly biases: readonly Parameter[]

  constructor(
    scope: Scope,
    private readonly options: { width: number; kernel: number; groups: number; activation: Activation },
  ) {
    const { width, kernel, groups } = options
    const own = width / groups
    const v = { shape: [width, own, kernel] }
    const [g, direction] = scope.has('parametrizations.weight.original0')
      ? ['parametrizations.weight.original0', 'parametrizations.weight.original1']
      : scope.has('weight_g') || !scope.has('weight')
        ? ['weight_g', 'weight_v']
        : [undefined, 'weight']
    const from = [{ name: scope.nameOf(direction), ...v }, ...(g === undefined ? [] : [{ name: scope.nameOf(g), shape: [1, 1, kernel] }])]
    this.weights = Array.from({ length: groups }, (_, group) =>
      scope.parameter(`weight of group ${group}`, [own, kernel * own], {
        ...{ role: 'linear', dtype: scope.computeType },
        derived: {
          from,
          compute: ([directions, lengths]) => {
            const factors = lengths ? normFactors(directions!, lengths) : new Float32Array(kernel).fill(1)
            const weight = new Float32Array(own * kernel * own)
            for (let o = 0; o < own; o++) {
              for (let c = 0; c < own; c++) {
                const at = ((group * own + o) * own + c) * kernel
                for (let k = 0; k < kernel; k++) weight[(o * kernel + k) * own + c] = directions![at + k]! * factors[k]!
              }
            }
            return weight
          },
        },
      }),
    )
    this.biases = Array.from({ length: groups }, (_, group) => scope.parameter('bias', [own], { view: { shape: [width], begin: group * own } }))
  }

  /** x: [B·length, C] -> float32 [B·length, C] */
  forward(x: Value, length: number): Value {
    const { width, kernel, groups, activation } = this.options
    const own = width / groups
    const before = Math.floor(kernel / 2)
    const windows = { height: 1, width: length, kernel: [1, kernel], padding: [0, before, 0, kernel - 1 - before] }
    return sideBySide(
      this.weights.map((weight, group) =>
        convolution(columns(x, group * own, (group + 1) * own), parameter(weight), { ...windows, bias: parameter(this.biases[group]!), activation, dtype: 'float32' }),
      ),
    )
  }
}

/** g / ‖v‖ for each place of the kernel, over all channels. */
function normFactors(directions: Float32Array, lengths: Float32Array): Float32Array {
  const kernel = lengths.length
  const squares = new Float64Array(kernel)
  for (let i = 0; i < directions.length; i++) squares[i % kernel]! += directions[i]! ** 2
  return lengths.map((length, k) => length / Math.sqrt(squares[k]!))
}

/** Classes whose heads read a weighted sum of layers, where config.json says so. */
const WEIGHING = ['Wav2Vec2ForSequenceClassification', 'Wav2Vec2ForAudioFrameClassification', 'Wav2Vec2ForXVector']
const POOLED_HEAD = ['projector.weight', 'classifier.weight']

/** The softmax of `layer_weights`, a number each. */
function layerShares(scope: Scope, count: number): Parameter[] {
  const from = [{ name: scope.nameOf('layer_weights'), shape: [count] }]
  return Array.from({ length: count }, (_, i) =>
    scope.parameter(`share of state ${i} by layer_weights`, [], {
      derived: {
        from,
        compute: ([weights]) => {
          const most = Math.max(...weights!)
          const powers = [...weights!].map(weight => Math.exp(weight - most))
          return Float32Array.of(powers[i]! / powers.reduce((sum, power) => sum + power, 0))
        },
      },
    }),
  )
}

/** A block with an adapter behind it: a small MLP for one language of many (MMS: arXiv:2305.13516). */
class AdaptedBlock extends TransformerBlock {
  private readonly adapterNorm: LayerNorm
  private readonly adapter: Mlp

  constructor(scope: Scope, options: BlockOptions, hidden: number) {
    super(scope, options)
    const { width } = options
    this.adapterNorm = new LayerNorm(scope.at('adapter_layer.norm'), width, EPS)
    this.adapter = new Mlp(scope.at('adapter_layer'), { width, hidden, activation: 'relu', names: { in: 'linear_1', out: 'linear_2' } })
  }

  override forward(x: Value, sequences: Sequences): Value {
    const before = super.forward(x, sequences)
    return this.adapter.forward(this.adapterNorm.forward(before, { dtype: this.attention.dtype }), before)
  }
}

/** What makes logits of the frames of clips: a row for each frame, or one for each clip. */
interface Head {
  readonly perFrame: boolean
  forward(last: Value, frames: { cuSeqlens?: Value; length?: number }): Value
}

class Wav2Vec2 implements AudioTower {
  readonly prefix = ''
  readonly absent: Record<string, string> = {}
  readonly dimensions: number
  private readonly dtype: ComputeType
  private readonly layers: readonly FeatureLayer[]
  private readonly featureNorm: LayerNorm
  private readonly projection: Linear
  private readonly positions: PositionalConvolution
  private readonly norm: LayerNorm
  private readonly blocks: readonly TransformerBlock[]
  /** What each of the states counts for the classifier, where it reads them all. */
  private readonly shares: readonly Parameter[] | undefined
  private readonly head: Head | undefined
  private readonly adapter: FrameAdapter | undefined
  private readonly voice: XVector | undefined
  readonly reduced: AudioTower['reduced']

  constructor(
    scope: Scope,
    private readonly config: Wav2Vec2Config,
    labelCount: number,
    architecture: string,
  ) {
    const { hidden_size: width, conv_dim, conv_kernel, conv_stride, feat_extract_activation: activation, layer_norm_eps: eps, feat_extract_norm } = config
    this.dtype = scope.computeType
    const ownWidth = config.add_adapter ? (config.output_hidden_size ?? width) : width
    this.dimensions = architecture === 'Wav2Vec2ForXVector' ? config.xvector_output_dim : ownWidth
    const root = scope.firstWith('feature_projection.projection.weight', ['', 'wav2vec2'])
    this.layers = conv_dim.map((outputs, i) => {
      const norm = feat_extract_norm === 'layer' ? 'layer' : i === 0 ? 'channel' : undefined
      const options = { inputs: i === 0 ? 1 : conv_dim[i - 1]!, outputs, kernel: conv_kernel[i]!, stride: conv_stride[i]!, bias: config.conv_bias, norm } as const
      return new FeatureLayer(root.at('feature_extractor.conv_layers', i), activation, options)
    })
    this.featureNorm = new LayerNorm(root.at('feature_projection.layer_norm'), conv_dim.at(-1)!, eps)
    this.projection = new Linear(root.at('feature_projection.projection'), conv_dim.at(-1)!, width)
    const encoder = root.at('encoder')
    const groups = config.num_conv_pos_embedding_groups
    this.positions = new PositionalConvolution(encoder.at('pos_conv_embed.conv'), { width, kernel: config.num_conv_pos_embeddings, groups, activation })
    this.norm = new LayerNorm(encoder.at('layer_norm'), width, eps)
    this.blocks = Array.from({ length: config.num_hidden_layers }, (_, i) => {
      const options: BlockOptions = {
        ...{ order: config.do_stable_layer_norm ? 'pre' : 'post', width, heads: config.num_attention_heads, hidden: config.intermediate_size },
        ...{ activation: config.hidden_act, eps },
        names: {
          attention: { query: 'attention.q_proj', key: 'attention.k_proj', value: 'attention.v_proj', out: 'attention.out_proj' },
          norm1: 'layer_norm',
          mlp: { in: 'feed_forward.intermediate_dense', out: 'feed_forward.output_dense' },
          norm2: 'final_layer_norm',
        },
      }
      // The other order has none, in the reference.
      const adapted = config.do_stable_layer_norm ? config.adapter_attn_dim : undefined
      return adapted == null ? new TransformerBlock(encoder.at('layers', i), options) : new AdaptedBlock(encoder.at('layers', i), options, adapted)
    })
    this.shares = config.use_weighted_layer_sum && (WEIGHING.includes(architecture) || scope.has('layer_weights')) ? layerShares(scope, config.num_hidden_layers + 1) : undefined
    if (architecture === 'Wav2Vec2ForXVector') {
      this.voice = new XVector(scope, width, config)
      return
    }
    this.head = this.makeHead(scope, ownWidth, labelCount, architecture)
    if (config.add_adapter) {
      const sizes = { layers: config.num_adapter_layers, kernel: config.adapter_kernel_size, stride: config.adapter_stride }
      const adapter = (this.adapter = new FrameAdapter(root.at('adapter'), { inputs: width, width: ownWidth, ...sizes }))
      this.reduced = { outputs: ['last_hidden_state', ...(this.head?.perFrame ? ['logits'] : [])], framesOf: frames => adapter.framesOf(frames) }
    }
    if (!this.head) this.absent['logits'] = (architecture === 'Wav2Vec2ForSequenceClassification' && POOLED_HEAD.find(name => !scope.has(name))) || 'lm_head.weight'
  }

  get leastFrames(): number {
    return this.voice?.leastFrames ?? this.adapter?.leastFrames ?? 1
  }

  get mixesFrames(): string | undefined {
    return this.voice ? 'the x-vector' : this.adapter ? 'the adapter behind the transformer (add_adapter)' : undefined
  }

  private makeHead(scope: Scope, width: number, labelCount: number, architecture: string): Head | undefined {
    const { classifier_proj_size, vocab_size } = this.config
    if (architecture === 'Wav2Vec2ForAudioFrameClassification') {
      const layer = new Linear(scope.at('classifier'), width, labelCount)
      return { perFrame: true, forward: last => layer.forward(last, { dtype: 'float32' }) }
    }
    if (scope.has('lm_head.weight')) {
      const layer = new Linear(scope.at('lm_head'), width, vocab_size)
      return { perFrame: true, forward: last => layer.forward(last, { dtype: 'float32' }) }
    }
    if (!POOLED_HEAD.every(name => scope.has(name))) return undefined
    const projector = new Linear(scope.at('projector'), width, classifier_proj_size)
    const classifier = new Linear(scope.at('classifier'), classifier_proj_size, labelCount)
    const pooled: Head['forward'] = (last, frames) => pool(projector.forward(last, { dtype: 'float32' }), { mode: 'mean', ...frames })
    return { perFrame: false, forward: (last, frames) => classifier.forward(pooled(last, frames), { dtype: 'float32' }) }
  }

  /** The sum of the states by their shares, or the last. */
  private read(states: readonly Value[], last: Value): Value {
    if (!this.shares) return last
    const weighted = states.map((state, i) => mul(state, parameter(this.shares![i]!), { dtype: 'float32' }))
    return weighted.reduce((sum, state) => add(sum, state))
  }

  framesOf(samples: number): number {
    const { conv_kernel, conv_stride } = this.config
    return Math.max(0, conv_kernel.reduce((length, kernel, i) => Math.floor((length - kernel) / conv_stride[i]!) + 1, samples))
  }

  samplesFor(frames: number): number {
    const { conv_kernel, conv_stride } = this.config
    return conv_kernel.reduceRight((length, kernel, i) => (length - 1) * conv_stride[i]! + kernel, frames)
  }

  trace(samples: Value, valid?: ValidFrames): Traced {
    const { dtype } = this
    const [clips, length] = samples.shape as [number, number]
    const signal: FeatureMap = { rows: reshape(samples, [clips * length, 1]), height: 1, width: length }
    const features = this.layers.reduce((map, layer) => layer.forward(map, dtype), signal)
    const frames = features.width
    const normed = this.featureNorm.forward(features.rows, { dtype: 'float32' })
    const projected = this.projection.forward(normed, { dtype: 'float32' })
    const rowsOf = (x: Value) => (valid ? gather(x, valid.rows, { dtype: 'float32' }) : x)
    // Frames that do not count are zeros for their neighbours, and are then left out.
    const seen = valid ? scatter(rowsOf(projected), valid.rows, { rows: clips * frames, extent: { name: 'clips', per: frames } }) : projected
    const placed = rowsOf(add(seen, this.positions.forward(cast(seen, dtype), frames)))
    const sequences = valid ? { cuSeqlens: valid.cuSeqlens } : { length: frames }
    const stable = this.config.do_stable_layer_norm
    const states = hiddenStates(this.blocks, stable ? placed : this.norm.forward(placed, { dtype: 'float32' }), sequences)
    const last = stable ? this.norm.forward(states.at(-1)!, { dtype: 'float32' }) : states.at(-1)!
    const all = { hiddenStates: states, outputs: { last_hidden_state: last, extract_features: normed } }
    if (this.voice) {
      const { embeddings, logits } = this.voice.forward({ rows: this.read(states, last), length: frames })
      return { ...all, outputs: { ...all.outputs, embeddings, logits }, embedding: embeddings }
    }
    if (this.adapter) return { ...all, ...this.reduce(this.adapter.forward({ rows: last, length: frames }), normed) }
    return {
      ...all,
      outputs: { ...all.outputs, ...(this.head && { logits: this.head.forward(this.read(states, last), sequences) }) },
      embedding: pool(last, { mode: 'mean', ...sequences }),
    }
  }

  private reduce({ rows, length }: Frames, normed: Value): Pick<Traced, 'outputs' | 'embedding'> {
    return {
      outputs: { last_hidden_state: rows, extract_features: normed, ...(this.head && { logits: this.head.forward(rows, { length }) }) },
      embedding: pool(rows, { mode: 'mean', length }),
    }
  }
}

const CLASSES = ['Wav2Vec2Model', 'Wav2Vec2ForCTC', 'Wav2Vec2ForSequenceClassification', 'Wav2Vec2ForAudioFrameClassification', 'Wav2Vec2ForXVector', 'Wav2Vec2ForPreTraining']

/** @param architecture the reference's class, one of CLASSES */
export function buildWav2Vec2(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  const config = readConfig(schema, file)
  const unsupported = (field: string, what: string) => {
    throw new UnsupportedError(`${file.file}: ${what} is not supported`, { file: file.file, field })
  }
  const wrong = (field: string, came: string) => {
    throw new CheckpointError(`${file.file}: ${field} ${came}`, { file: file.file, field })
  }
  if (!CLASSES.includes(architecture)) unsupported('architectures', `${architecture}; expected one of ${CLASSES.join(', ')}: it`)
  if (config.add_adapter && !['Wav2Vec2Model', 'Wav2Vec2ForCTC'].includes(architecture)) unsupported('add_adapter', `a convolutional adapter (add_adapter) in ${architecture}`)
  // transformers 4 normalises the last of the states before it is summed, transformers 5 does not.
  if (config.use_weighted_layer_sum && config.do_stable_layer_norm) unsupported('use_weighted_layer_sum', 'a weighted sum of layers (use_weighted_layer_sum) with do_stable_layer_norm')
  const { hidden_size, conv_dim, num_conv_pos_embedding_groups: groups } = config
  checkHeads(file.file, 'num_attention_heads', config.num_attention_heads, hidden_size)
  for (const field of ['conv_stride', 'conv_kernel'] as const) {
    if (config[field].length !== conv_dim.length) wrong(field, `has ${config[field].length} convolutions, conv_dim has ${conv_dim.length}; expected as many`)
  }
  for (const field of ['tdnn_kernel', 'tdnn_dilation'] as const) {
    if (config[field].length !== config.tdnn_dim.length) wrong(field, `has ${config[field].length} layers, tdnn_dim has ${config.tdnn_dim.length}; expected as many`)
  }
  config.tdnn_dim.forEach((outputs, i) => {
    const [kernel, dilation, inputs] = [config.tdnn_kernel[i]!, config.tdnn_dilation[i]!, config.tdnn_dim[Math.max(0, i - 1)]!]
    const numbers = spacedNumbers({ inputs, outputs, kernel, dilation })
    if (architecture === 'Wav2Vec2ForXVector' && dilation > 1 && numbers > MOST_SPACED_NUMBERS) {
      wrong('tdnn_dilation', `is ${dilation} for convolution ${i}, whose tdnn_kernel of ${kernel} makes ${numbers} weights with the gaps; expected at most ${MOST_SPACED_NUMBERS}`)
    }
  })
  if (hidden_size % groups !== 0) wrong('num_conv_pos_embedding_groups', `is ${groups}, which does not divide the width ${hidden_size}`)
  return { audio: new Wav2Vec2(scope, config, labelNames(config).length, architecture) }
}
