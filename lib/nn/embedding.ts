// A table of rows picked by index. Stored in the compute type; what is read from it goes into sums, so it comes out as float32.

import { type Parameter, parameter, type Value } from '../core/value.js'
import { gather } from '../ops/index.js'
import type { Scope } from './scope.js'

export class Embedding {
  readonly weight: Parameter

  constructor(
    scope: Scope,
    readonly rows: number,
    width: number,
    name = 'weight',
  ) {
    this.weight = scope.parameter(name, [rows, width], { dtype: scope.computeType })
  }

  /** indices: int32 [T] -> float32 [T, C] */
  forward(indices: Value): Value {
    return gather(parameter(this.weight), indices, { dtype: 'float32' })
  }
}
