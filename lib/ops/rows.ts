// Ops that take, place, summarise or scale whole rows of packed tokens [T, C]: gather, scatter, pickToken, pool, repeatRows, prependRows,
// scaleSequences.

import type { DataType } from '../core/dtype.js'
import { attribute, describe, defineOp } from '../core/op.js'
import { sameShape } from '../core/shape.js'
import { type Extent, sameExtent, type Value } from '../core/value.js'
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
  attributes: { mode: attribute.oneOf(['mean', 'max', 'mean_sqrt_len']), skip: attribute.integer(0, 0), length: attribute.integer(0, 0), dtype: attribute.outputType() },
  infer({ x, cuSeqlens }, { length, dtype }, check) {
    check.float('x')
    check.rank('x', 2, '[T, C]')
    const sequences = sequencesOf(check, { name: 'x', value: x }, { name: 'cuSeqlens', value: cuSeqlens }, { field: 'length', value: length })
    return { shape: [sequences.count, x.shape[1]!], dtype, extent: sequences.extent }
  },
})

/**
 * Mean, maximum, or sum/√length of each sequence's tokens, [S, C]; zeros where there is none.
 *
 * @param x float [T, C]
 * @param options.skip tokens at the front of each sequence that are left out, a class token say
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function pool(x: Value, options: SequenceOptions & { mode: 'mean' | 'max' | 'mean_sqrt_len'; skip?: number | undefined }): Value {
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
  attributes: { length: attribute.integer(0, 0), each: attribute.flag(false), dtype: attribute.outputType() },
  infer({ prefix, x }, { length, each, dtype }, check) {
    check.float('prefix', 'x')
    check.rank('prefix', 2, each ? '[S·P, C]' : '[P, C]')
    if (!each) check.fixed('prefix')
    check.rank('x', 2, '[T, C]')
    check.shape(prefix.shape[1] === x.shape[1], ['prefix', 'x'], `prefix to be [P, ${x.shape[1]}]`)
    const { count, extent } = sequencesOf(check, { name: 'x', value: x }, { name: 'cuSeqlens', value: undefined }, { field: 'length', value: length })
    const own = each ? prefix.shape[0]! / Math.max(1, count) : prefix.shape[0]!
    check.shape(Number.isInteger(own), ['prefix', 'x'], `as many rows of prefix for each of the ${count} sequences of x`)
    const perCount = each && extent ? own * extent.per : undefined
    check.require(
      !each || (prefix.extent?.name === extent?.name && prefix.extent?.per === perCount),
      `prefix has ${describe(prefix.extent)}, the sequences of x are ${describe(extent)}`,
      'the rows of both to vary alike',
    )
    const rows = own + length
    return { shape: [count * rows, x.shape[1]!], dtype, extent: extent && { ...extent, per: extent.per * rows } }
  },
})

/**
 * The rows of `prefix` before those of each sequence of `x`, [S·(P + length), C]: register tokens, say.
 *
 * @param prefix float [P, C], the same for all; with `each`, [S·P, C], every sequence's own
 * @param x float [S·length, C]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function prependRows(prefix: Value, x: Value, options: { length: number; each?: boolean | undefined; dtype?: DataType | undefined }): Value {
  return prependRowsOp.one(prependRows, { prefix, x }, options)
}

export const scaleSequencesOp = defineOp({
  name: 'scaleSequences',
  inputs: ['x', 'scale', 'shift?'],
  attributes: { length: attribute.integer(1), dtype: attribute.outputType() },
  infer({ x, scale, shift }, { length, dtype }, check) {
    check.float('x')
    check.dtype('scale', 'float32')
    check.dtype('shift', 'float32')
    check.rank('x', 2, '[T, C]')
    const { count, extent } = sequencesOf(check, { name: 'x', value: x }, { name: 'cuSeqlens', value: undefined }, { field: 'length', value: length })
    for (const [name, value] of [['scale', scale], ['shift', shift]] as const) {
      check.shape(!value || sameShape(value.shape, [count, x.shape[1]!]), ['x', name], `${name} to be [${count}, ${x.shape[1]}]`)
      check.require(!value || sameExtent(value.extent, extent), `${name} has ${describe(value?.extent)}, the sequences of x are ${describe(extent)}`, 'both to vary alike')
    }
    return { shape: x.shape, dtype, extent: x.extent }
  },
})

/**
 * x · scale + shift, with a row of `scale` and `shift` for all rows of a sequence, [S·length, C]: gates and norms of whole sequences.
 *
 * @param x float [S·length, C]
 * @param scale float32 [S, C]
 * @param options.shift float32 [S, C]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function scaleSequences(x: Value, scale: Value, options: { shift?: Value | undefined; length: number; dtype?: DataType | undefined }): Value {
  const { shift, ...attributes } = options
  return scaleSequencesOp.one(scaleSequences, { x, scale, shift }, attributes)
}
