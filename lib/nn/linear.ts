// y = act(x·Wᵀ + bias) + residual, weight [out, in] as PyTorch has it.

import type { FloatType } from '../core/dtype.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { linear, unary } from '../ops/index.js'
import type { ProductType, Scope } from './scope.js'

export type Activation = 'none' | 'gelu' | 'quick_gelu' | 'gelu_tanh' | 'relu' | 'silu' | 'tanh'

/** An activation by itself. */
export function activated(x: Value, activation: Activation): Value {
  return activation === 'none' ? x : unary(x, activation)
}

export interface LinearOptions {
  activation?: Activation
  /** Added after the activation, same shape as the result. */
  residual?: Value | undefined
  dtype?: FloatType
}

export interface LinearParameters {
  bias?: boolean | undefined
  /**
   * Of the weight; default the compute type. Layers in transformer blocks have the scope's product type: heads and projections of pooled
   * tokens cost little and are not worth int8's error.
   */
  dtype?: ProductType | undefined
  /** The layer is rows `begin` … of stored ones with `rows` outputs: queries, keys and values in one tensor. */
  part?: { begin: number; rows: number } | undefined
  /** The same of the bias alone. */
  biasPart?: { begin: number; rows: number } | undefined
  /** Checkpoint names below the scope; default 'weight' and 'bias'. */
  names?: { weight: string; bias: string } | undefined
  /** The weight is stored as [in, out]. */
  transposed?: boolean | undefined
  /** Full name of a vector [out] that every output is multiplied by: LayerScale (Touvron et al., arXiv:2103.17239), folded. */
  outputScale?: string | undefined
}

export class Linear {
  readonly weight: Parameter
  readonly bias?: Parameter

  constructor(scope: Scope, inputs: number, outputs: number, options: LinearParameters = {}) {
    const { part, biasPart = part, names = { weight: 'weight', bias: 'bias' }, dtype = scope.computeType, outputScale, transposed } = options
    const view = (of: typeof part, ...more: number[]) => of && { view: { shape: [of.rows, ...more], begin: of.begin } }
    const stored = transposed ? { view: { shape: [inputs, outputs], order: [1, 0] } } : view(part, inputs)
    const factors = outputScale === undefined ? undefined : { name: outputScale, shape: [outputs] }
    this.weight = scope.parameter(names.weight, [outputs, inputs], {
      ...{ role: 'linear', dtype, ...stored },
      ...(factors && { rowScale: { from: [factors], compute: ([scale]) => scale! } }),
    })
    if (options.bias === false) return
    this.bias = scope.parameter(names.bias, [outputs], {
      ...view(biasPart),
      ...(factors && { rowScale: { from: [factors], compute: ([scale]) => scale! } }),
    })
  }

  /** x: [..., in] -> [..., out] */
  forward(x: Value, options: LinearOptions = {}): Value {
    return linear(x, parameter(this.weight), { ...options, bias: this.bias && parameter(this.bias) })
  }
}
