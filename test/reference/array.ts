// What references compute with: float64 numbers in row-major order, and the dtype they were stored in on the device.

import { type DataType, fromBfloat16, toBfloat16, fromFloat16 } from '../../lib/core/dtype.js'

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
  if (dtype === 'float16') return fromFloat16(toFloat16(Math.fround(value)))
  return dtype === 'float32' ? Math.fround(value) : value
}

/** float16 bits of a number, rounded to nearest even. */
export function toFloat16(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0
  const size = Math.abs(value)
  if (size !== size) return 0x7e00
  if (size >= 65520) return sign | 0x7c00
  const exponent = size < 2 ** -14 ? -15 : Math.floor(Math.log2(size))
  const steps = exponent === -15 ? size * 2 ** 24 : (size / 2 ** exponent - 1) * 1024
  const below = Math.floor(steps)
  const up = steps - below > 0.5 || (steps - below === 0.5 && below % 2 === 1)
  return sign | (((exponent + 15) << 10) + below + (up ? 1 : 0)) // a carry goes to the exponent
}

/** First row and number of rows of each sequence. */
export function sequences(cuSeqlens: RefArray | undefined, length: number, rows: number): { begin: number; length: number }[] {
  if (!cuSeqlens) return Array.from({ length: rows / length }, (_, s) => ({ begin: s * length, length }))
  const { data } = cuSeqlens
  return Array.from({ length: data.length - 1 }, (_, s) => ({ begin: data[s]!, length: data[s + 1]! - data[s]! }))
}
