// Data types: one spelling in TypeScript, in the wire form and in C++. Host storage follows onnxruntime-common.

export type DataType = 'float32' | 'float16' | 'bfloat16' | 'int8' | 'uint8' | 'int32' | 'int64' | 'bool'

/** Bytes of one element. */
export const BYTES_PER_ELEMENT: Readonly<Record<DataType, number>> = {
  float32: 4,
  float16: 2,
  bfloat16: 2,
  int8: 1,
  uint8: 1,
  int32: 4,
  int64: 8,
  bool: 1,
}

export type FloatType = 'float32' | 'bfloat16' | 'float16'

export function isFloat(dtype: DataType): dtype is FloatType {
  return dtype === 'float32' || dtype === 'bfloat16' || dtype === 'float16'
}

/** Float16Array, for programs that are compiled with a library that has it. */
type Float16Data = typeof globalThis extends { Float16Array: { prototype: infer Data } } ? Data : never
export type TensorData = Float32Array | Uint16Array | Int8Array | Uint8Array | Int32Array | BigInt64Array | Float16Data

const arrays = {
  float32: Float32Array,
  float16: Uint16Array,
  bfloat16: Uint16Array,
  int8: Int8Array,
  uint8: Uint8Array,
  int32: Int32Array,
  int64: BigInt64Array,
  bool: Uint8Array,
} as const

/** A view of `buffer` as the elements of `dtype`. */
export function dataView(dtype: DataType, buffer: ArrayBuffer, byteOffset = 0, length?: number): TensorData {
  return new arrays[dtype](buffer, byteOffset, length)
}

/** Whether `data` is the array class that holds `dtype`. */
export function holds(dtype: DataType, data: unknown): data is TensorData {
  if (dtype === 'float16' && data !== null && typeof data === 'object' && data.constructor?.name === 'Float16Array') return true
  if (dtype === 'uint8' || dtype === 'bool') return data instanceof Uint8Array || data instanceof Uint8ClampedArray
  return data instanceof arrays[dtype]
}

const f32 = new Float32Array(1)
const u32 = new Uint32Array(f32.buffer)

/** bfloat16 bits of a number, rounded to nearest even; NaN stays NaN. */
export function toBfloat16(value: number): number {
  f32[0] = value
  const bits = u32[0]!
  if (value !== value) return (bits >>> 16) | 0x40
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff
}

export function fromBfloat16(bits: number): number {
  u32[0] = bits << 16
  return f32[0]!
}

export function fromFloat16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}
