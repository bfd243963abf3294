// Reading the inputs of joint towers: tensors with their dimensions and types checked, rows as int32 within limits, masks turned into the
// columns that are computed. Every complaint names the field and, where there is one, the example.

import { ArgumentError, DTypeError, ShapeError } from '../core/errors.js'
import type { DataType } from '../core/dtype.js'
import { checkHeld, type Tensor } from '../core/tensor.js'
import type { SequenceRows } from './joint.js'

const INTEGERS: readonly DataType[] = ['int64', 'int32']
/** Masks are made in all of these. */
const MASKS: readonly DataType[] = ['int64', 'int32', 'uint8', 'bool', 'float32']

/** The inputs of one call by name. A dimension is a number that it must have, or a word for one that may be any. */
export class Given {
  constructor(private readonly tensors: Readonly<Record<string, Tensor>>) {}

  has(name: string): boolean {
    return this.tensors[name] !== undefined
  }

  dims(name: string): readonly number[] {
    return this.tensors[name]!.dims
  }

  /** @throws DTypeError, ShapeError unless the tensor, if there is one, has these. */
  private check(name: string, types: readonly DataType[], dims: readonly (number | string)[]): Tensor | undefined {
    const tensor = this.tensors[name]
    if (!tensor) return undefined
    if (!types.includes(tensor.type)) throw new DTypeError(`[forward] ${name} is ${tensor.type}; expected ${types.join(' or ')}`, { field: name })
    if (tensor.dims.length !== dims.length || dims.some((dim, i) => (typeof dim === 'number' ? dim !== tensor.dims[i] : tensor.dims[i] === 0 && i > 0))) {
      throw new ShapeError(`[forward] ${name} is [${tensor.dims.join(', ')}]; expected [${dims.join(', ')}]`, { field: name, shapes: [tensor.dims] })
    }
    return tensor
  }

  /** Integers from 0 to below `limit`; `dims` leading ones of 1 stand for all examples if `shared`. */
  integers(name: string, dims: readonly (number | string)[], least: number, limit: number, { shared = false } = {}): Rows<Int32Array> | undefined {
    const one = shared && this.tensors[name]?.dims[0] === 1
    const tensor = this.check(name, INTEGERS, one ? [1, ...dims.slice(1)] : dims)
    return tensor && new Rows(name, tensor, one, (data, from, length, index) => integersOf(name, data, from, length, least, limit, index))
  }

  mask(name: string, dims: readonly (number | string)[]): Rows<Int32Array> | undefined {
    const tensor = this.check(name, MASKS, dims)
    return tensor && new Rows(name, tensor, false, (data, from, length, index) => integersOf(name, data, from, length, 0, 2, index))
  }

  floats(name: string, dims: readonly (number | string)[]): Rows<Float32Array> | undefined {
    const tensor = this.check(name, ['float32'], dims)
    return tensor && new Rows(name, tensor, false, (data, from, length, index) => finite(name, (data as Float32Array).subarray(from, from + length), index))
  }

  /** @throws ShapeError unless there are as many of one as of the other. */
  same(count: number, name: string, expected: number, as: string): void {
    if (count === expected) return
    throw new ShapeError(`[forward] ${name} has ${count} examples; expected ${expected} as ${as}`, { field: name, shapes: [this.dims(name)] })
  }
}

/** A tensor whose first dimension counts examples. */
export class Rows<T> {
  readonly dims: readonly number[]
  private readonly size: number

  constructor(
    private readonly name: string,
    private readonly tensor: Tensor,
    private readonly shared: boolean,
    private readonly take: (data: Tensor['data'], from: number, length: number, index: number) => T,
  ) {
    this.dims = tensor.dims
    this.size = tensor.dims.slice(1).reduce((a, b) => a * b, 1)
  }

  /** What belongs to one example. @throws ArgumentError naming it and the number that is out of range */
  of(index: number): T {
    checkHeld(this.tensor, `[forward] ${this.name}`)
    return this.take(this.tensor.data, this.shared ? 0 : index * this.size, this.size, index)
  }
}

function integersOf(name: string, data: Tensor['data'], from: number, length: number, least: number, limit: number, index: number): Int32Array {
  const row = new Int32Array(length)
  for (let i = 0; i < length; i++) {
    const value = Number(data[from + i])
    if (!Number.isInteger(value) || value < least || value >= limit) {
      throw new ArgumentError(`[forward] ${name} of example ${index} is ${data[from + i]} at element ${i}; expected ${least} to ${limit - 1}`, { field: name, index })
    }
    row[i] = value
  }
  return row
}

function finite(name: string, row: Float32Array, index: number): Float32Array {
  let sum = 0
  for (let i = 0; i < row.length; i++) sum += row[i]! * 0 // NaN as soon as one is not finite
  if (sum === 0) return row
  const at = row.findIndex(value => !Number.isFinite(value))
  throw new ArgumentError(`[forward] ${name} of example ${index} holds ${row[at]} at element ${at}; expected finite numbers`, { field: name, index })
}

/** Columns of a masked row that are computed: those that count, and others that are read all the same. */
export interface Chosen {
  readonly columns: Int32Array
  /** 1 for those that are masked. */
  readonly unseen: Uint8Array | undefined
}

/** @param read columns that are read, masked or not */
export function chosen(mask: Int32Array | undefined, length: number, read: readonly number[] = []): Chosen {
  const columns: number[] = []
  const unseen: number[] = []
  for (let c = 0; c < length; c++) {
    const counts = !mask || mask[c] === 1
    if (!counts && !read.includes(c)) continue
    columns.push(c)
    unseen.push(counts ? 0 : 1)
  }
  return { columns: Int32Array.from(columns), unseen: unseen.includes(1) ? Uint8Array.from(unseen) : undefined }
}

/** Rows `rows` of a table of so many numbers each. */
export function pickRows<T extends Int32Array | Float32Array>(table: T, rows: Int32Array, width = 1): T {
  const picked = (table instanceof Int32Array ? new Int32Array(rows.length * width) : new Float32Array(rows.length * width)) as T
  rows.forEach((row, i) => picked.set(table.subarray(row * width, (row + 1) * width), i * width))
  return picked
}

/** 0, 1, … after `from`. */
export function counting(count: number, from = 0): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => from + i)
}

/** One sequence made of parts, one after the other, whose columns are counted on; without inputs of its own. */
export function joined(parts: readonly { rows: SequenceRows; length: number }[]): SequenceRows {
  const columns: number[] = []
  const unseen: number[] = []
  let from = 0
  for (const { rows, length } of parts) {
    for (let r = 0; r < rows.count; r++) {
      const column = rows.columns ? rows.columns[r]! : r
      columns.push(column < 0 ? -1 : from + column)
      unseen.push(rows.unseen?.[r] ?? 0)
    }
    from += length
  }
  return { count: columns.length, values: {}, columns: Int32Array.from(columns), unseen: unseen.includes(1) ? Uint8Array.from(unseen) : undefined }
}

/** The columns for outputs: −1 for what is masked. */
export function shownColumns({ columns, unseen }: Chosen): Int32Array {
  return unseen ? columns.map((column, i) => (unseen[i] ? -1 : column)) : columns
}
