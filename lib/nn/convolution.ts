// Convolutions over packed pixels, with the batch norm behind them folded into weight and bias while they are loaded. A picture's pixels are
// rows, channels last; a signal is a picture of height 1.

import type { FloatType } from '../core/dtype.js'
import { type Derived, type Parameter, parameter, type Value } from '../core/value.js'
import { convolution, depthwiseConvolution, linear, patchEmbed, windowCount, type Windows } from '../ops/index.js'
import type { Activation } from './linear.js'
import type { PixelScale } from './patch-embed.js'
import type { Scope } from './scope.js'

/** Pictures as rows [B·height·width, C]. */
export interface FeatureMap {
  readonly rows: Value
  readonly height: number
  readonly width: number
}

export interface ConvolutionOptions {
  inputs: number
  outputs: number
  /** Down and across; one number for both. */
  kernel: number | readonly [number, number]
  stride?: number | readonly [number, number]
  /** Before and behind, for both sides; or [top, left, bottom, right]. Default 0. */
  padding?: number | readonly [number, number, number, number]
  /** Checkpoint name of the layer below the scope. */
  name: string
  bias?: boolean
  /** The batch norm behind it: its name below the scope. */
  norm?: { readonly name: string; readonly eps: number } | undefined
  /** Dimensions of the stored kernel. Default 2; 1 for signals. */
  rank?: 1 | 2
}

export interface ConvolveOptions {
  activation?: Activation
  residual?: Value | undefined
  dtype?: FloatType
}

const pair = (value: number | readonly [number, number]): readonly [number, number] => (typeof value === 'number' ? [value, value] : value)

/** Windows of a layer, and what they leave of a picture. */
class Sliding {
  readonly kernel: readonly [number, number]
  readonly stride: readonly [number, number]
  readonly padding: readonly [number, number, number, number]

  constructor({ kernel, stride = 1, padding = 0 }: Pick<ConvolutionOptions, 'kernel' | 'stride' | 'padding'>) {
    this.kernel = pair(kernel)
    this.stride = pair(stride)
    this.padding = typeof padding === 'number' ? [padding, padding, padding, padding] : padding
  }

  over({ height, width }: FeatureMap): Windows & { height: number; width: number } {
    return { height, width, kernel: this.kernel, stride: this.stride, padding: this.padding }
  }

  result(rows: Value, { height, width }: FeatureMap): FeatureMap {
    const [top, left, bottom, right] = this.padding
    return {
      rows,
      height: windowCount(height, this.kernel[0], this.stride[0], top, bottom),
      width: windowCount(width, this.kernel[1], this.stride[1], left, right),
    }
  }
}

/** The bias of a layer [outputs], and the factor of its outputs, with its batch norm folded: w·x·s + (b − mean)·s + shift, s = weight/√(var + eps). */
function folded(scope: Scope, { name, outputs, bias, norm }: Pick<ConvolutionOptions, 'name' | 'outputs' | 'bias' | 'norm'>): { factor?: Derived; bias?: Parameter } {
  const stored = scope.at(name)
  if (!norm) return bias ? { bias: stored.parameter('bias', [outputs]) } : {}
  const at = scope.at(norm.name)
  const shape = [outputs]
  const vector = (field: string) => ({ name: at.nameOf(field), shape })
  const factors = (weight: Float32Array, variance: Float32Array) => weight.map((w, i) => w / Math.sqrt(variance[i]! + norm.eps))
  return {
    factor: { from: [vector('weight'), vector('running_var')], compute: ([weight, variance]) => factors(weight!, variance!) },
    bias: at.parameter('folded bias', shape, {
      derived: {
        from: [...['weight', 'running_var', 'running_mean', 'bias'].map(vector), ...(bias ? [{ name: stored.nameOf('bias'), shape }] : [])],
        compute: ([weight, variance, mean, shift, own]) => {
          const factor = factors(weight!, variance!)
          return shift!.map((value, i) => value + ((own?.[i] ?? 0) - mean![i]!) * factor[i]!)
        },
      },
    }),
  }
}

export class Convolution {
  private readonly weight: Parameter
  private readonly bias: Parameter | undefined
  private readonly sliding: Sliding
  /** A kernel of one pixel at each is a linear layer. */
  private readonly pointwise: boolean

  constructor(scope: Scope, options: ConvolutionOptions) {
    const { inputs, outputs, name, rank = 2 } = options
    this.sliding = new Sliding(options)
    const { kernel, stride, padding } = this.sliding
    const { factor: rowScale, bias } = folded(scope, options)
    this.bias = bias
    const area = kernel[0] * kernel[1]
    this.pointwise = area === 1 && stride[0] * stride[1] === 1 && padding.every(pixels => pixels === 0)
    // Stored with channels first.
    const stored = rank === 2 ? { shape: [outputs, inputs, ...kernel], order: [0, 2, 3, 1] } : { shape: [outputs, inputs, kernel[1]], order: [0, 2, 1] }
    this.weight = scope.at(name).parameter('weight', [outputs, area * inputs], { role: 'linear', view: stored, ...(rowScale && { rowScale }) })
  }

  forward(x: FeatureMap, options: ConvolveOptions = {}): FeatureMap {
    const all = { ...options, bias: this.bias && parameter(this.bias) }
    const weight = parameter(this.weight)
    if (this.pointwise) return { ...x, rows: linear(x.rows, weight, all) }
    return this.sliding.result(convolution(x.rows, weight, { ...this.sliding.over(x), ...all }), x)
  }
}

/** Each channel by itself. */
export class DepthwiseConvolution {
  private readonly weight: Parameter
  private readonly bias: Parameter | undefined
  private readonly sliding: Sliding

  constructor(scope: Scope, options: Omit<ConvolutionOptions, 'inputs' | 'rank'>) {
    const { outputs, name } = options
    this.sliding = new Sliding(options)
    const { kernel } = this.sliding
    const area = kernel[0] * kernel[1]
    const { factor, bias } = folded(scope, options)
    this.bias = bias
    const stored = scope.at(name)
    // Small, and the batch norm's factor is of a column here.
    this.weight = stored.parameter('weight by pixel', [area, outputs], {
      derived: {
        from: [{ name: stored.nameOf('weight'), shape: [outputs, 1, ...kernel] }, ...(factor?.from ?? [])],
        compute: async ([weight, ...norm]) => {
          const factors = await factor?.compute(norm)
          return Float32Array.from({ length: area * outputs }, (_, i) => weight![(i % outputs) * area + Math.floor(i / outputs)]! * (factors?.[i % outputs] ?? 1))
        },
      },
    })
  }

  forward(x: FeatureMap, options: Omit<ConvolveOptions, 'residual'> = {}): FeatureMap {
    const rows = depthwiseConvolution(x.rows, parameter(this.weight), { ...this.sliding.over(x), ...options, bias: this.bias && parameter(this.bias) })
    return this.sliding.result(rows, x)
  }
}

/** Pictures as rows of normalised pixels, [B·height·width, 3]: patches of one pixel, projected by the identity, which is exact. */
export class PixelRows {
  private readonly identity: Parameter

  constructor(scope: Scope) {
    const identity = Float32Array.of(1, 0, 0, 0, 1, 0, 0, 0, 1)
    this.identity = scope.parameter('identity of the channels', [3, 3], { role: 'linear', derived: { from: [], compute: () => identity } })
  }

  /** pixels: uint8 [B, Y, X, 3] or float32 [B, 3, Y, X] */
  forward(pixels: Value, { rescale, mean, std }: PixelScale, dtype: FloatType): FeatureMap {
    const [height, width] = (pixels.dtype === 'uint8' ? pixels.shape.slice(1, 3) : pixels.shape.slice(2)) as [number, number]
    return { rows: patchEmbed(pixels, parameter(this.identity), { patch: 1, rescale, mean, std, dtype }), height, width }
  }
}
