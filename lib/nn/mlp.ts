// Two linear layers with an activation between, or three with a gate (GLU variants: Shazeer, arXiv:2002.05202):
// down(act(gate(x)) · up(x)). The middle is in the compute type.

import type { Value } from '../core/value.js'
import { mul } from '../ops/index.js'
import { type Activation, Linear } from './linear.js'
import type { ComputeType, Scope } from './scope.js'

export interface MlpOptions {
  width: number
  hidden: number
  activation: Activation
  /** Checkpoint names below the scope. `fused`: the gate and what it multiplies are one layer, in this order. */
  names: { in: string; out: string } | { gate: string; up: string; out: string } | { fused: string; out: string }
  /** Whether the layers have biases. Default true. */
  mlpBias?: boolean | undefined
  /** Full name of the LayerScale of its output. */
  outputScale?: string | undefined
}

export class Mlp {
  readonly in: Linear
  /** What the activated `in` is multiplied by. */
  readonly up?: Linear
  readonly out: Linear
  private readonly activation: Activation
  private readonly dtype: ComputeType

  constructor(scope: Scope, { width, hidden, activation, names, mlpBias: bias, outputScale }: MlpOptions) {
    const dtype = scope.productType
    const layer = (name: string, part?: { begin: number; rows: number }) => new Linear(scope.at(name), width, hidden, { bias, dtype, part })
    if ('in' in names) {
      this.in = layer(names.in)
    } else if ('gate' in names) {
      this.in = layer(names.gate)
      this.up = layer(names.up)
    } else {
      this.in = layer(names.fused, { begin: 0, rows: 2 * hidden })
      this.up = layer(names.fused, { begin: hidden, rows: 2 * hidden })
    }
    this.out = new Linear(scope.at(names.out), hidden, width, { bias, dtype, outputScale })
    this.dtype = scope.computeType
    this.activation = activation
  }

  /** x: [T, C]; residual: float32 [T, C], added to the result -> float32 [T, C] */
  forward(x: Value, residual?: Value): Value {
    const { dtype } = this
    const activated = this.in.forward(x, { activation: this.activation, dtype })
    const middle = this.up ? mul(activated, this.up.forward(x, { dtype }), { dtype }) : activated
    return this.out.forward(middle, { residual, dtype: 'float32' })
  }
}
