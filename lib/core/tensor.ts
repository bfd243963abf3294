// Host tensor: the shape that users of onnxruntime-common and transformers.js know. Row-major, contiguous.

import { constants } from 'node:buffer'
import { BYTES_PER_ELEMENT, type DataType, dataView, holds, type TensorData } from './dtype.js'
import { ArgumentError, OutOfMemoryError } from './errors.js'
import { shown } from './options.js'
import { sizeOf } from './shape.js'

/** Anything with a tensor's three fields; another library's tensor is as good as ours. */
export interface TensorLike {
  readonly type: DataType
  readonly data: TensorData | ArrayLike<number> | ArrayLike<bigint>
  readonly dims: readonly number[]
}

/**
 * A tensor in host memory.
 *
 * @example
 * const t = new Tensor('float32', new Float32Array([1, 2, 3, 4]), [2, 2])
 * @throws ArgumentError for an unknown type, if `data` is not the array class of `type`, or its length is not the product of `dims`.
 */
export class Tensor implements TensorLike {
  readonly type: DataType
  readonly data: TensorData
  readonly dims: readonly number[]

  constructor(type: DataType, data: TensorData, dims: readonly number[]) {
    if (!Object.hasOwn(BYTES_PER_ELEMENT, type)) {
      throw new ArgumentError(`[Tensor] type is ${shown(type)}; expected one of ${Object.keys(BYTES_PER_ELEMENT).join(', ')}`, { field: 'type' })
    }
    if (!Array.isArray(dims) || !dims.every((dim) => Number.isSafeInteger(dim) && dim >= 0)) {
      throw new ArgumentError(`[Tensor] dims is ${shown(dims)}; expected an array of integers of at least 0`, { field: 'dims' })
    }
    if (!holds(type, data)) {
      throw new ArgumentError(`[Tensor] ${type} data cannot be held in ${(data as object)?.constructor?.name ?? typeof data}`)
    }
    if (data.length !== sizeOf(dims)) {
      throw new ArgumentError(`[Tensor] ${data.length} elements given; dims [${dims}] need ${sizeOf(dims)}`)
    }
    this.type = type
    this.data = data
    this.dims = [...dims]
  }

  /** Number of elements. */
  get size(): number {
    return this.data.length
  }

  /** Checks a tensor-like object and wraps it; `name` is what the error calls it. */
  static from(value: TensorLike, name = 'tensor'): Tensor {
    if (value instanceof Tensor) return value
    if (value === null || typeof value !== 'object' || !('type' in value) || !('data' in value) || !Array.isArray(value.dims)) {
      throw new ArgumentError(`${name} is no tensor; expected an object with type, data and dims`, { field: name })
    }
    return new Tensor(value.type, value.data as TensorData, value.dims)
  }
}

/**
 * For work that goes on reading a caller's tensor after an `await`.
 *
 * @throws ArgumentError if its memory has been transferred or resized since the tensor was made
 */
export function checkHeld(tensor: Tensor, name: string): void {
  if (tensor.data.length === sizeOf(tensor.dims)) return
  throw new ArgumentError(`${name} was transferred or resized while it was read`, { field: name })
}

/** Elements from `begin` on as a tensor [dims] of the same memory; checked as by `checkHeld`. */
export function partOf(tensor: Tensor, begin: number, dims: readonly number[], name: string): Tensor {
  checkHeld(tensor, name)
  return new Tensor(tensor.type, tensor.data.subarray(begin, begin + sizeOf(dims)) as TensorData, dims)
}

/**
 * Room for a result, not cleared: clearing fresh memory would hold up the event loop, and all of it is written before anybody sees it.
 *
 * @throws OutOfMemoryError
 */
export function unwritten(type: 'float32', dims: readonly number[], op: string): Float32Array
export function unwritten(type: DataType, dims: readonly number[], op: string): TensorData
export function unwritten(type: DataType, dims: readonly number[], op: string): TensorData {
  const bytes = sizeOf(dims) * BYTES_PER_ELEMENT[type]
  try {
    return dataView(type, bytes <= constants.MAX_LENGTH ? Buffer.allocUnsafeSlow(bytes).buffer : new ArrayBuffer(bytes))
  } catch (cause) {
    throw new OutOfMemoryError(`[${op}] the result [${dims.join(', ')}] is larger than memory`, { op, cause })
  }
}
