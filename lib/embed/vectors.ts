// What happens to an embedding after the model: truncation (Matryoshka), L2 normalisation, and the small output precisions.
// Every vector is treated on its own, so its bytes do not depend on its neighbours.

import { ArgumentError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'

/**
 * How embeddings are returned. `int8` is round(127·x) of the normalised vector and `uint8` the same plus 128; `binary` and `ubinary` pack the signs,
 * eight dimensions a byte, the first in the highest bit, as sentence-transformers does (`binary` subtracts 128).
 */
export type Precision = 'float32' | 'int8' | 'uint8' | 'binary' | 'ubinary'

export const precisions: readonly Precision[] = ['float32', 'int8', 'uint8', 'binary', 'ubinary']

/** Divides each row of `data` [rows, columns] by its Euclidean norm in place; a zero row stays zero. */
export function normalizeRows(data: Float32Array, columns: number): void {
  for (let begin = 0; begin + columns <= data.length; begin += columns) {
    let sum = 0
    for (let i = begin; i < begin + columns; i++) sum += data[i]! * data[i]!
    const scale = 1 / Math.max(Math.sqrt(sum), 1e-12)
    for (let i = begin; i < begin + columns; i++) data[i] = data[i]! * scale
  }
}

/** The first `keep` of each row's `columns`. */
export function truncateRows(data: Float32Array, columns: number, keep: number): Float32Array {
  if (!Number.isInteger(keep) || keep < 1 || keep > columns) {
    throw new ArgumentError(`truncateDim is ${keep}; expected an integer from 1 to ${columns}`, { field: 'truncateDim' })
  }
  if (keep === columns) return data
  const rows = data.length / columns
  const result = new Float32Array(rows * keep)
  for (let row = 0; row < rows; row++) result.set(data.subarray(row * columns, row * columns + keep), row * keep)
  return result
}

/** Rows [n, columns] of float32 as a tensor of the asked precision: [n, columns], or [n, ceil(columns / 8)] for the packed ones. */
export function toPrecision(data: Float32Array, columns: number, precision: Precision): Tensor {
  const rows = columns ? data.length / columns : 0
  switch (precision) {
    case 'float32':
      return new Tensor('float32', data, [rows, columns])
    case 'int8':
      return new Tensor('int8', Int8Array.from(data, toInt8), [rows, columns])
    case 'uint8':
      return new Tensor('uint8', Uint8Array.from(data, (x) => toInt8(x) + 128), [rows, columns])
    case 'binary':
    case 'ubinary': {
      const packed = packSigns(data, rows, columns)
      const width = Math.ceil(columns / 8)
      if (precision === 'ubinary') return new Tensor('uint8', packed, [rows, width])
      return new Tensor('int8', Int8Array.from(packed, (x) => x - 128), [rows, width])
    }
    default:
      throw new ArgumentError(`precision is ${JSON.stringify(precision)}; expected one of ${precisions.join(', ')}`, { field: 'precision' })
  }
}

function toInt8(x: number): number {
  return Math.round(Math.max(-1, Math.min(1, x)) * 127)
}

function packSigns(data: Float32Array, rows: number, columns: number): Uint8Array {
  const width = Math.ceil(columns / 8)
  const packed = new Uint8Array(rows * width)
  for (let row = 0; row < rows; row++) {
    for (let i = 0; i < columns; i++) {
      if (data[row * columns + i]! > 0) packed[row * width + (i >> 3)]! |= 0x80 >> (i & 7)
    }
  }
  return packed
}
