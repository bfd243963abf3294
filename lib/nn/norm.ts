// Layer normalisation over the last dimension; statistics in float32.

import type { FloatType } from '../core/dtype.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { layerNorm } from '../ops/index.js'
import type { Scope } from './scope.js'

export class LayerNorm {
  readonly weight: Parameter
  readonly bias: Parameter

  constructor(
    scope: Scope,
    width: number,
    readonly eps: number,
  ) {
    this.weight = scope.parameter('weight', [width])
    this.bias = scope.parameter('bias', [width])
  }

  /** x: [..., C] -> [..., C] */
  forward(x: Value, options: { dtype?: FloatType } = {}): Value {
    return layerNorm(x, { ...options, weight: parameter(this.weight), bias: parameter(this.bias), eps: this.eps })
  }
}
