// What references compute with: float64 numbers in row-major order, and the dtype they were stored in on the device.

import { type DataType, fromBfloat16, toBfloat16 } from '../../lib/core/dtype.js'

export interface RefArray {
  readonly shape: readonly number[]
  readonly data: Float64Array
  readonly dtype: DataType
}

/** An op in plain float64: from its inputs, in order, and all its attributes, to its outputs. */
export type Reference = (inputs: readonly (RefArray | undefined)[], attributes: Readonly<Record<string, any>>) => RefArray[]

export function sizeOf(shape: readonly number[]): number {
  return shape.reduce((product, dim) => product * dim, 1)
}

/** The values that `fn` gives for each position. */
export function fill(shape: readonly number[], fn: (i: number) => number, dtype: DataType = 'float32'): RefArray {
  return { shape, data: Float64Array.from({ length: sizeOf(shape) }, (_, i) => fn(i)), dtype }
}

export function columnsOf({ shape }: RefArray): number {
  return shape.at(-1) ?? 1
}

/** The rows of an array, along its last dimension. */
export function rowsOf(x: RefArray): Float64Array[] {
  const columns = columnsOf(x)
  return Array.from({ length: sizeOf(x.shape.slice(0, -1)) }, (_, i) => x.data.subarray(i * columns, (i + 1) * columns))
}

/** An array of rows joined again. */
export function fromRows(shape: readonly number[], rows: readonly ArrayLike<number>[]): RefArray {
  const data = new Float64Array(sizeOf(shape))
  let at = 0
  for (const row of rows) {
    data.set(row, at)
    at += row.length
  }
  return { shape, data, dtype: 'float32' }
}

export function roundTo(value: number, dtype: DataType): number {
  if (dtype === 'bfloat16') return fromBfloat16(toBfloat16(Math.fround(value)))
  return dtype === 'float32' ? Math.fround(value) : value
}

/** First row and number of rows of each sequence. */
export function sequences(cuSeqlens: RefArray | undefined, length: number, rows: number): { begin: number; length: number }[] {
  if (!cuSeqlens) return Array.from({ length: rows / length }, (_, s) => ({ begin: s * length, length }))
  const { data } = cuSeqlens
  return Array.from({ length: data.length - 1 }, (_, s) => ({ begin: data[s]!, length: data[s + 1]! - data[s]! }))
}
