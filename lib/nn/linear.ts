// y = act(x·Wᵀ + bias) + residual, weight [out, in] as PyTorch has it.

import type { FloatType } from '../core/dtype.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { linear } from '../ops/index.js'
import type { ProductType, Scope } from './scope.js'

export type Activation = 'none' | 'gelu' | 'quick_gelu' | 'gelu_tanh' | 'relu' | 'silu' | 'tanh'

export interface LinearOptions {
  activation?: Activation
  /** Added after the activation, same shape as the result. */
  residual?: Value | undefined
  dtype?: FloatType
}

export class Linear {
  readonly weight: Parameter
  readonly bias: Parameter | undefined

  /**
   * @param options.dtype of the weight; default the compute type. Layers in transformer blocks have the scope's product type: heads and
   *   projections of pooled tokens cost little and are not worth int8's error.
   */
  constructor(scope: Scope, inputs: number, outputs: number, options: { bias?: boolean; dtype?: ProductType } = {}) {
    this.weight = scope.parameter('weight', [outputs, inputs], { role: 'linear', dtype: options.dtype ?? scope.computeType })
    this.bias = options.bias === false ? undefined : scope.parameter('bias', [outputs])
  }

  /** x: [..., in] -> [..., out] */
  forward(x: Value, options: LinearOptions = {}): Value {
    return linear(x, parameter(this.weight), { ...options, bias: this.bias && parameter(this.bias) })
  }
}
