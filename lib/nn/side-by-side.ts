// Values next to each other in one row.

import { Tensor } from '../core/tensor.js'
import { constant, type Value } from '../core/value.js'
import { add, matmul } from '../ops/index.js'

/** n values [S, C] as one, [S, n·C]: each times the part of the identity that moves it to its place, which is exact. */
export function sideBySide(values: readonly Value[]): Value {
  if (values.length === 1) return values[0]!
  const width = values[0]!.shape[1]!
  const moved = values.map((value, part) => {
    const place = new Float32Array(values.length * width * width)
    for (let c = 0; c < width; c++) place[(part * width + c) * width + c] = 1
    return matmul(value, constant(new Tensor('float32', place, [values.length * width, width])), { dtype: 'float32' })
  })
  return moved.reduce((a, b) => add(a, b))
}
