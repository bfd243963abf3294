// Normalisation over the last dimension, with its mean taken off (LayerNorm) or not (RMSNorm: arXiv:1910.07467); statistics in float32.

import type { FloatType } from '../core/dtype.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { layerNorm, rmsNorm } from '../ops/index.js'
import type { Scope } from './scope.js'

export interface Norm {
  /** x: [..., C] -> [..., C] */
  forward(x: Value, options?: { dtype?: FloatType }): Value
}

export class LayerNorm implements Norm {
  readonly weight: Parameter
  readonly bias?: Parameter

  constructor(
    scope: Scope,
    width: number,
    readonly eps: number,
    { bias = true }: { bias?: boolean } = {},
  ) {
    this.weight = scope.parameter('weight', [width])
    if (bias) this.bias = scope.parameter('bias', [width])
  }

  /** x: [..., C] -> [..., C] */
  forward(x: Value, options: { dtype?: FloatType } = {}): Value {
    return layerNorm(x, { ...options, weight: parameter(this.weight), bias: this.bias && parameter(this.bias), eps: this.eps })
  }
}

export class RmsNorm implements Norm {
  readonly weight: Parameter

  constructor(
    scope: Scope,
    width: number,
    readonly eps: number,
  ) {
    this.weight = scope.parameter('weight', [width])
  }

  forward(x: Value, options: { dtype?: FloatType } = {}): Value {
    return rmsNorm(x, { ...options, weight: parameter(this.weight), eps: this.eps })
  }
}
