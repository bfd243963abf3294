// Ops that take, place or summarise whole rows of packed tokens [T, C]: gather, scatter, pickToken, pool.

import type { DataType } from '../core/dtype.js'
import { attribute, describe, defineOp } from '../core/op.js'
import type { Extent, Value } from '../core/value.js'
import { sequencesOf } from './sequences.js'

export const gatherOp = defineOp({
  name: 'gather',
  inputs: ['table', 'indices'],
  attributes: { dtype: attribute.outputType() },
  infer({ table, indices }, { dtype }, check) {
    check.float('table')
    check.dtype('indices', 'int32')
    check.rank('table', 2, '[V, C]')
    check.rank('indices', 1, '[T]')
    return { shape: [indices.shape[0]!, table.shape[1]!], dtype, extent: indices.extent }
  },
})

/**
 * table[indices], [T, C].
 *
 * @param table float [V, C]
 * @param indices int32 [T], within [0, V); one outside makes the run fail with an ArgumentError
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function gather(table: Value, indices: Value, options: { dtype?: DataType | undefined } = {}): Value {
  return gatherOp.one(gather, { table, indices }, options)
}

export const scatterOp = defineOp({
  name: 'scatter',
  inputs: ['x', 'indices'],
  attributes: { rows: attribute.integer(0), dtype: attribute.outputType() },
  infer({ x, indices }, { rows, dtype }, check, extent) {
    check.float('x')
    check.dtype('indices', 'int32')
    check.rank('x', 2, '[T, C]')
    check.rank('indices', 1, '[T]')
    check.shape(x.shape[0] === indices.shape[0], ['x', 'indices'], 'an index for each row of x')
    check.sameExtent('x', 'indices')
    const varying = rows - (extent?.extra ?? 0)
    check.argument(!extent || (varying >= 0 && varying % extent.per === 0), 'extent', `rows is ${rows}`, describe(extent))
    return { shape: [rows, x.shape[1]!], dtype, extent }
  },
})

/**
 * Zeros [rows, C] into which row t of `x` is put at indices[t].
 *
 * @param x float [T, C]
 * @param indices int32 [T], distinct, within the rows; one outside makes the run fail with an ArgumentError
 * @param options.rows of the result: its capacity, if `extent` says how they vary
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function scatter(
  x: Value,
  indices: Value,
  options: { rows: number; extent?: Extent | undefined; dtype?: DataType | undefined },
): Value {
  const { extent, ...attributes } = options
  return scatterOp.one(scatter, { x, indices }, attributes, extent)
}

export const pickTokenOp = defineOp({
  name: 'pickToken',
  inputs: ['x', 'cuSeqlens?'],
  attributes: { which: attribute.oneOf(['first', 'last']), length: attribute.integer(0, 0), dtype: attribute.outputType() },
  infer({ x, cuSeqlens }, { length, dtype }, check) {
    check.float('x')
    check.rank('x', 2, '[T, C]')
    const sequences = sequencesOf(check, { name: 'x', value: x }, { name: 'cuSeqlens', value: cuSeqlens }, { field: 'length', value: length })
    return { shape: [sequences.count, x.shape[1]!], dtype, extent: sequences.extent }
  },
})

export interface SequenceOptions {
  /** int32 [S + 1]: sequence s has rows cuSeqlens[s] to cuSeqlens[s + 1]; or `length`, if all have as many. */
  cuSeqlens?: Value | undefined
  length?: number | undefined
  dtype?: DataType | undefined
}

/**
 * The first or last token of each sequence, [S, C]; zeros for an empty one. A pick after a block makes the block compute only what
 * is picked (see core/rewrite.ts).
 *
 * @param x float [T, C]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function pickToken(x: Value, options: SequenceOptions & { which: 'first' | 'last' }): Value {
  const { cuSeqlens, ...attributes } = options
  return pickTokenOp.one(pickToken, { x, cuSeqlens }, attributes)
}

export const poolOp = defineOp({
  name: 'pool',
  inputs: ['x', 'cuSeqlens?'],
  attributes: { mode: attribute.oneOf(['mean', 'max', 'mean_sqrt_len']), length: attribute.integer(0, 0), dtype: attribute.outputType() },
  infer({ x, cuSeqlens }, { length, dtype }, check) {
    check.float('x')
    check.rank('x', 2, '[T, C]')
    const sequences = sequencesOf(check, { name: 'x', value: x }, { name: 'cuSeqlens', value: cuSeqlens }, { field: 'length', value: length })
    return { shape: [sequences.count, x.shape[1]!], dtype, extent: sequences.extent }
  },
})

/**
 * Mean, maximum, or sum/√length of each sequence's tokens, [S, C]; zeros for an empty one.
 *
 * @param x float [T, C]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function pool(x: Value, options: SequenceOptions & { mode: 'mean' | 'max' | 'mean_sqrt_len' }): Value {
  const { cuSeqlens, ...attributes } = options
  return poolOp.one(pool, { x, cuSeqlens }, attributes)
}
