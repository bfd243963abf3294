// Views: the same memory seen otherwise. Devices have no kernel for them; lowering turns them into aliases.

import { attribute, defineOp, withLast } from '../core/op.js'
import { type Shape, sizeOf } from '../core/shape.js'
import type { Extent, Value } from '../core/value.js'

export const reshapeOp = defineOp({
  name: 'reshape',
  inputs: ['x'],
  attributes: {
    shape: {
      expected: 'an array of non-negative integers',
      accepts: (value: unknown): value is readonly number[] => Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0),
    },
  },
  infer({ x }, { shape }, check) {
    check.shape(sizeOf(shape) === sizeOf(x.shape), ['x'], `as many elements as [${shape.join(', ')}]`)
    // Rows that are part of wider ones lie apart in memory: they can be grouped anew but not cut or joined.
    check.shape(!isColumnsView(x) || shape.at(-1) === x.shape.at(-1), ['x'], `[..., ${x.shape.at(-1)}], since x is a view of some columns`)
    return { shape, dtype: x.dtype, extent: x.extent && reshapedExtent(x.shape, x.extent, shape, check.require.bind(check)) }
  },
})

/** Whether rows of `x` are parts of wider rows. */
export function isColumnsView(x: Value): boolean {
  return x.node.op === 'columns' || (x.node.op === 'reshape' && isColumnsView(x.node.inputs[0]!))
}

function reshapedExtent(
  from: Shape,
  extent: Extent,
  to: Shape,
  require: (holds: boolean, came: string, expected: string) => void,
): Extent {
  const perCount = sizeOf(from.slice(1)) * extent.per
  const row = sizeOf(to.slice(1))
  const fits = to.length > 0 && (row === sizeOf(from.slice(1)) || (perCount % row === 0 && !extent.extra))
  require(fits, `x is [${from.join(', ')}] with ${extent.per} rows for each of '${extent.name}'`, `whole rows of [${to.join(', ')}] for each`)
  return row === sizeOf(from.slice(1)) ? extent : { name: extent.name, per: perCount / row }
}

/**
 * The same elements in another shape. The rows of a value that varies from run to run may be cut or joined as long as each of what
 * they are counted by keeps whole rows.
 *
 * @throws ShapeError, ArgumentError
 */
export function reshape(x: Value, shape: Shape): Value {
  return reshapeOp.one(reshape, { x }, { shape })
}

export const columnsOp = defineOp({
  name: 'columns',
  inputs: ['x'],
  attributes: { begin: attribute.integer(0), end: attribute.integer(0) },
  infer({ x }, { begin, end }, check) {
    check.rows('x')
    check.shape(begin <= end && end <= x.shape.at(-1)!, ['x'], `columns ${begin} to ${end} to lie within the last dimension`)
    return { shape: withLast(x.shape, end - begin), dtype: x.dtype, extent: x.extent }
  },
})

/**
 * Columns `begin` to `end` (exclusive) of the last dimension, [..., end − begin].
 *
 * @throws ShapeError, ArgumentError
 */
export function columns(x: Value, begin: number, end: number): Value {
  return columnsOp.one(columns, { x }, { begin, end })
}
