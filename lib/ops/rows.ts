// Ops that take, place or summarise whole rows of packed tokens [T, C]: gather, scatter, pickToken, pool, repeatRows, prependRows.

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

export const repeatRowsOp = defineOp({
  name: 'repeatRows',
  inputs: ['table', 'like', 'cuSeqlens?'],
  attributes: { length: attribute.integer(0, 0), dtype: attribute.outputType() },
  infer({ table, like, cuSeqlens }, { length, dtype }, check) {
    check.float('table', 'like')
    check.rank('table', 2, '[L, C]')
    check.fixed('table')
    check.rank('like', 2, '[T, C]')
    const sequences = sequencesOf(check, { name: 'like', value: like }, { name: 'cuSeqlens', value: cuSeqlens }, { field: 'length', value: length })
    const rows = table.shape[0]!
    return { shape: [sequences.count * rows, table.shape[1]!], dtype, extent: sequences.extent && { ...sequences.extent, per: sequences.extent.per * rows } }
  },
})

/**
 * The rows of `table` once for each sequence of `like`, [S·L, C]: learned queries, say.
 *
 * @param table float [L, C]
 * @param like float [T, …], of which only the number of sequences is read: that of cuSeqlens, or T / length
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function repeatRows(table: Value, like: Value, options: SequenceOptions): Value {
  const { cuSeqlens, ...attributes } = options
  return repeatRowsOp.one(repeatRows, { table, like, cuSeqlens }, attributes)
}

export const prependRowsOp = defineOp({
  name: 'prependRows',
  inputs: ['prefix', 'x'],
  attributes: { length: attribute.integer(0, 0), dtype: attribute.outputType() },
  infer({ prefix, x }, { length, dtype }, check) {
    check.float('prefix', 'x')
    check.rank('prefix', 2, '[P, C]')
    check.fixed('prefix')
    check.rank('x', 2, '[T, C]')
    check.shape(prefix.shape[1] === x.shape[1], ['prefix', 'x'], `prefix to be [P, ${x.shape[1]}]`)
    const { count, extent } = sequencesOf(check, { name: 'x', value: x }, { name: 'cuSeqlens', value: undefined }, { field: 'length', value: length })
    const rows = prefix.shape[0]! + length
    return { shape: [count * rows, x.shape[1]!], dtype, extent: extent && { ...extent, per: extent.per * rows } }
  },
})

/**
 * The rows of `prefix` before those of each sequence of `x`, [S·(P + length), C]: register tokens, say.
 *
 * @param prefix float [P, C], the same for all
 * @param x float [S·length, C]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function prependRows(prefix: Value, x: Value, options: { length: number; dtype?: DataType | undefined }): Value {
  return prependRowsOp.one(prependRows, { prefix, x }, options)
}
