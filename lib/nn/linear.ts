// y = act(x·Wᵀ + bias) + residual, weight [out, in] as PyTorch has it.

import type { FloatType } from '../core/dtype.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { linear } from '../ops/index.js'
import type { Scope } from './scope.js'

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

  constructor(scope: Scope, inputs: number, outputs: number, options: { bias?: boolean } = {}) {
    this.weight = scope.parameter('weight', [outputs, inputs], { role: 'linear' })
    this.bias = options.bias === false ? undefined : scope.parameter('bias', [outputs])
  }

  /** x: [..., in] -> [..., out] */
  forward(x: Value, options: LinearOptions = {}): Value {
    return linear(x, parameter(this.weight), { ...options, bias: this.bias && parameter(this.bias) })
  }
}
