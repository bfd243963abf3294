// Two linear layers with an activation between; the middle is in the compute type.

import type { Value } from '../core/value.js'
import { type Activation, Linear } from './linear.js'
import type { ComputeType, Scope } from './scope.js'

export interface MlpOptions {
  width: number
  hidden: number
  activation: Activation
  /** Checkpoint names below the scope. */
  names: { in: string; out: string }
}

export class Mlp {
  readonly in: Linear
  readonly out: Linear
  private readonly activation: Activation
  private readonly dtype: ComputeType

  constructor(scope: Scope, { width, hidden, activation, names }: MlpOptions) {
    this.in = new Linear(scope.at(names.in), width, hidden, { dtype: scope.productType })
    this.out = new Linear(scope.at(names.out), hidden, width, { dtype: scope.productType })
    this.dtype = scope.computeType
    this.activation = activation
  }

  /** x: [T, C]; residual: float32 [T, C], added to the result -> float32 [T, C] */
  forward(x: Value, residual?: Value): Value {
    const middle = this.in.forward(x, { activation: this.activation, dtype: this.dtype })
    return this.out.forward(middle, { residual, dtype: 'float32' })
  }
}
