// Convolutions over the frames behind wav2vec 2.0's transformer: an adapter that leaves fewer of them (transformers' add_adapter), and the
// x-vector of a voice (Snyder et al., ICASSP 2018; Wav2Vec2ForXVector). Both read frames side by side, so all of a clip must count.

import { Tensor } from '../core/tensor.js'
import { constant, type Parameter, parameter, type Value } from '../core/value.js'
import { type ComputeType, LayerNorm, Linear, type Scope } from '../nn/index.js'
import { cast, convolution, linear, mul, pool, repeatRows, scaleSequences, unary, windowCount } from '../ops/index.js'

/** Clips of so many frames each, [B·length, C]. */
export interface Frames {
  readonly rows: Value
  readonly length: number
}

/** Twice as many channels, one half of which gates the other. */
class GatedConvolution {
  private readonly halves: readonly { weight: Parameter; bias: Parameter }[]
  private readonly dtype: ComputeType

  constructor(
    scope: Scope,
    private readonly options: { width: number; kernel: number; stride: number },
  ) {
    const { width, kernel } = options
    this.dtype = scope.computeType
    this.halves = [0, width].map(begin => ({
      weight: scope.parameter('weight', [width, kernel * width], { role: 'linear', dtype: this.dtype, view: { shape: [2 * width, width, kernel], begin, order: [0, 2, 1] } }),
      bias: scope.parameter('bias', [width], { view: { shape: [2 * width], begin } }),
    }))
  }

  framesOf(length: number): number {
    const { kernel, stride } = this.options
    return Math.max(0, windowCount(length, kernel, stride, 1, 1))
  }

  /** The fewest frames of which so many come. */
  framesFor(frames: number): number {
    const { kernel, stride } = this.options
    return Math.max(1, (frames - 1) * stride + kernel - 2)
  }

  forward({ rows, length }: Frames): Frames {
    const { kernel, stride } = this.options
    const windows = { height: 1, width: length, kernel: [1, kernel], stride: [1, stride], padding: [0, 1, 0, 1] }
    const x = cast(rows, this.dtype)
    const [values, gates] = this.halves.map(({ weight, bias }) => convolution(x, parameter(weight), { ...windows, bias: parameter(bias), dtype: 'float32' })) as [Value, Value]
    return { rows: mul(values, unary(gates, 'sigmoid')), length: this.framesOf(length) }
  }
}

/** Perhaps another width, then gated convolutions that skip frames. */
export class FrameAdapter {
  private readonly projection?: Linear
  private readonly norm?: LayerNorm
  private readonly layers: readonly GatedConvolution[]

  constructor(scope: Scope, { inputs, width, layers, kernel, stride }: { inputs: number; width: number; layers: number; kernel: number; stride: number }) {
    if (inputs !== width) {
      this.projection = new Linear(scope.at('proj'), inputs, width)
      this.norm = new LayerNorm(scope.at('proj_layer_norm'), width, 1e-5)
    }
    this.layers = Array.from({ length: layers }, (_, i) => new GatedConvolution(scope.at('layers', i, 'conv'), { width, kernel, stride }))
  }

  get leastFrames(): number {
    return this.layers.reduceRight((frames, layer) => layer.framesFor(frames), 1)
  }

  framesOf(length: number): number {
    return this.layers.reduce((frames, layer) => layer.framesOf(frames), length)
  }

  forward({ rows, length }: Frames): Frames {
    const projected = this.projection && this.norm ? this.norm.forward(this.projection.forward(rows, { dtype: 'float32' }), { dtype: 'float32' }) : rows
    return this.layers.reduce((frames, layer) => layer.forward(frames), { rows: projected, length })
  }
}

interface SpacedSizes {
  readonly inputs: number
  readonly outputs: number
  readonly kernel: number
  readonly dilation: number
}

/** Frames from the first to the last of a window. */
const reachOf = ({ kernel, dilation }: SpacedSizes) => (kernel - 1) * dilation + 1
/** Numbers in the weight of a convolution with gaps, zeros included. */
export const spacedNumbers = (sizes: SpacedSizes) => sizes.outputs * reachOf(sizes) * sizes.inputs
/** A GiB in float32; the largest by config.json's defaults has 1.8 million. */
export const MOST_SPACED_NUMBERS = 2 ** 28

/** A convolution whose windows have gaps: `dilation` − 1 frames between those that it reads, whose weights are zeros here. */
class SpacedConvolution {
  private readonly weight: Parameter
  private readonly bias: Parameter
  private readonly dtype: ComputeType
  readonly reach: number

  /** @param sizes with gaps, of at most MOST_SPACED_NUMBERS */
  constructor(scope: Scope, sizes: SpacedSizes) {
    const { inputs, outputs, kernel, dilation } = sizes
    this.dtype = scope.computeType
    const reach = (this.reach = reachOf(sizes))
    // Stored with a window's frames one after the other.
    const stored = { name: scope.nameOf('weight'), shape: [outputs, kernel * inputs] }
    const spaced = (weight: Float32Array) => {
      const all = new Float32Array(spacedNumbers(sizes))
      for (let at = 0; at < outputs * kernel; at++) {
        const place = Math.floor(at / kernel) * reach + (at % kernel) * dilation
        all.set(weight.subarray(at * inputs, (at + 1) * inputs), place * inputs)
      }
      return all
    }
    this.weight = scope.parameter(dilation === 1 ? 'weight' : 'weight with gaps', [outputs, reach * inputs], {
      ...{ role: 'linear', dtype: this.dtype },
      ...(dilation > 1 && { derived: { from: [stored], compute: ([weight]) => spaced(weight!) } }),
    })
    this.bias = scope.parameter('bias', [outputs])
  }

  forward({ rows, length }: Frames): Frames {
    const windows = { height: 1, width: length, kernel: [1, this.reach] }
    const forwarded = convolution(cast(rows, this.dtype), parameter(this.weight), { ...windows, bias: parameter(this.bias), activation: 'relu', dtype: 'float32' })
    return { rows: forwarded, length: length - this.reach + 1 }
  }
}

export interface XVectorSizes {
  readonly tdnn_dim: readonly number[]
  readonly tdnn_kernel: readonly number[]
  readonly tdnn_dilation: readonly number[]
  readonly xvector_output_dim: number
}

/** Spaced convolutions, then mean and deviation of every channel, projected. */
export class XVector {
  /** The deviation is of two frames or more. */
  readonly leastFrames: number
  private readonly projector: Linear
  private readonly layers: readonly SpacedConvolution[]
  /** One layer in two parts: what it makes of the means and of the deviations. */
  private readonly extractor: { readonly mean: Parameter; readonly deviation: Parameter; readonly bias: Parameter }
  private readonly classifier: Linear
  private readonly channels: number

  constructor(scope: Scope, width: number, { tdnn_dim: dims, tdnn_kernel, tdnn_dilation, xvector_output_dim: outputs }: XVectorSizes) {
    this.projector = new Linear(scope.at('projector'), width, dims[0]!)
    this.layers = dims.map((dim, i) => {
      const sizes = { inputs: dims[Math.max(0, i - 1)]!, outputs: dim, kernel: tdnn_kernel[i]!, dilation: tdnn_dilation[i]! }
      return new SpacedConvolution(scope.at('tdnn', i, 'kernel'), sizes)
    })
    this.channels = dims.at(-1)!
    const extractor = scope.at('feature_extractor')
    const part = (name: string, begin: number) => extractor.parameter(`weight of the ${name}`, [outputs, this.channels], {
      ...{ role: 'linear', dtype: scope.computeType },
      derived: {
        from: [{ name: extractor.nameOf('weight'), shape: [outputs, 2 * this.channels] }],
        compute: ([weight]) => Float32Array.from({ length: outputs * this.channels }, (_, i) => weight![2 * i - (i % this.channels) + begin]!),
      },
    })
    this.extractor = { mean: part('means', 0), deviation: part('deviations', this.channels), bias: extractor.parameter('bias', [outputs]) }
    this.classifier = new Linear(scope.at('classifier'), outputs, outputs)
    this.leastFrames = this.layers.reduce((frames, { reach }) => frames + reach - 1, 2)
  }

  forward({ rows, length }: Frames): { embeddings: Value; logits: Value } {
    const last = this.layers.reduce((frames, layer) => layer.forward(frames), { rows: this.projector.forward(rows, { dtype: 'float32' }), length })
    const [mean, deviation] = this.statistics(last)
    const ofMean = linear(mean, parameter(this.extractor.mean), { bias: parameter(this.extractor.bias), dtype: 'float32' })
    const embeddings = linear(deviation, parameter(this.extractor.deviation), { residual: ofMean, dtype: 'float32' })
    return { embeddings, logits: this.classifier.forward(embeddings, { dtype: 'float32' }) }
  }

  /** Of each clip, [B, C]: the mean, and the deviation by one frame less than there are. */
  private statistics({ rows, length }: Frames): [Value, Value] {
    const fill = (value: number, dims: number[]) => constant(new Tensor('float32', new Float32Array(dims[1] ?? 1).fill(value), dims))
    const mean = pool(rows, { mode: 'mean', length, dtype: 'float32' })
    const ones = repeatRows(fill(1, [1, this.channels]), mean, { length: 1, dtype: 'float32' })
    const centred = scaleSequences(rows, ones, { shift: unary(mean, 'neg'), length })
    const variance = pool(mul(centred, centred), { mode: 'mean', length, dtype: 'float32' })
    return [mean, unary(mul(variance, fill(length / (length - 1), [])), 'sqrt')]
  }
}
