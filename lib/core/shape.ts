// Shapes: plain arrays of non-negative integers.

import { ShapeError } from './errors.js'

export type Shape = readonly number[]

/** Number of elements; 1 for a scalar. */
export function sizeOf(shape: Shape): number {
  let size = 1
  for (const dim of shape) {
    if (!Number.isSafeInteger(dim) || dim < 0) throw new ShapeError(`[${shape}] is no shape: ${dim} is not a non-negative integer`)
    size *= dim
  }
  if (!Number.isSafeInteger(size)) throw new ShapeError(`[${shape}] has too many elements`)
  return size
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((dim, i) => dim === b[i])
}

/** Strides of row-major data, in elements. */
export function rowMajor(shape: Shape): number[] {
  const strides = new Array<number>(shape.length).fill(1)
  for (let i = shape.length - 1; i > 0; i--) strides[i - 1] = strides[i]! * shape[i]!
  return strides
}
