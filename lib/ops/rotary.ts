// Rotary position embedding (Su et al., arXiv:2104.09864): pairs of features of each head are turned by angles that depend on the row's place.

import type { DataType } from '../core/dtype.js'
import { attribute, defineOp } from '../core/op.js'
import type { Value } from '../core/value.js'
import { sequencesOf } from './sequences.js'

export const rotaryOp = defineOp({
  name: 'rotary',
  inputs: ['x', 'table', 'positions?'],
  attributes: { heads: attribute.integer(1), length: attribute.integer(0, 0), dtype: attribute.outputType() },
  infer({ x, table, positions }, { heads, length, dtype }, check) {
    check.float('x')
    check.rank('x', 2, '[T, H·D]')
    const width = x.shape[1]!
    check.shape(width > 0 && width % heads === 0, ['x'], `x to have a multiple of ${heads} columns, one share for each head`)
    check.dtype('table', 'float32')
    check.rank('table', 2, '[L, R]')
    check.fixed('table')
    const [rows, rotated] = table.shape as [number, number]
    check.shape(rotated % 2 === 0 && rotated <= width / heads, ['x', 'table'], `table to have an even number of columns, at most ${width / heads}`)
    if (positions) {
      check.argument(length === 0, 'length', 'positions and length are both given', 'one of them')
      check.dtype('positions', 'int32')
      check.shape(positions.shape.length === 1 && positions.shape[0] === x.shape[0], ['x', 'positions'], 'a position for each row of x')
      check.sameExtent('x', 'positions')
    } else {
      sequencesOf(check, { name: 'x', value: x }, { name: 'positions', value: undefined }, { field: 'length', value: length })
      check.shape(rows <= length, ['table'], `table to have at most ${length} rows`)
    }
    return { shape: x.shape, dtype, extent: x.extent }
  },
})

export interface RotaryOptions {
  heads: number
  /** int32 [T]: the row of the table for each row of x; one outside makes the run fail with an ArgumentError. */
  positions?: Value | undefined
  /** Instead: sequences have so many rows, of which the last ones are turned by the table's rows in order and those before are not. */
  length?: number | undefined
  dtype?: DataType | undefined
}

/**
 * Turns the first R of each head's D features: (a, b) = (x[j], x[j + R/2]) becomes (a·cos − b·sin, b·cos + a·sin) for j < R/2. The others stay.
 *
 * @param x float [T, H·D]
 * @param table float32 [L, R]: a row has R/2 cosines, then R/2 sines
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function rotary(x: Value, table: Value, options: RotaryOptions): Value {
  const { positions, ...attributes } = options
  return rotaryOp.one(rotary, { x, table, positions }, attributes)
}
