// A tensor inside a checkpoint file: where its bytes are, not the bytes. Headers are read here in TypeScript; the data is read by
// ranges, by native code straight into weight preparation (FileSource), or with `readTensor` into a small host tensor.
// Files are opened, read and closed, never mapped, so one that shrinks meanwhile gives an error and no signal.

import { type FileHandle, open } from 'node:fs/promises'
import type { FileSource } from '../../typings/addon.js'
import { BYTES_PER_ELEMENT, type DataType, dataView } from '../core/dtype.js'
import { CheckpointError } from '../core/errors.js'
import { sizeOf } from '../core/shape.js'
import { Tensor } from '../core/tensor.js'

export interface TensorEntry {
  readonly name: string
  /** Path of the file that holds the data. */
  readonly file: string
  /** Bytes from the start of the file. */
  readonly offset: number
  /** The file's own name for the type: 'F32', 'F64', 'torch.ComplexFloatStorage', … */
  readonly storedType: string
  /** undefined: listed, but nothing here reads this type (float64, int16, …). */
  readonly dtype: DataType | undefined
  readonly shape: readonly number[]
  /** In elements; absent means row-major without gaps. */
  readonly strides?: readonly number[]
}

/**
 * Where native code finds the tensor.
 * @throws CheckpointError if the tensor is of a type that cannot be read.
 */
export function fileSource(entry: TensorEntry): FileSource {
  if (!entry.dtype) {
    throw new CheckpointError(`${entry.file}: tensor ${entry.name} is ${entry.storedType}, which is not read; expected F32, F16, BF16, I64, I32, I8, U8 or BOOL`, {
      file: entry.file,
      field: entry.name,
    })
  }
  const source: FileSource = { file: entry.file, offset: entry.offset, dtype: entry.dtype, shape: [...entry.shape] }
  if (entry.strides) source.strides = [...entry.strides]
  return source
}

/** Opens a file for reading, gives it with its size to `use`, and closes it. System errors come out as CheckpointError. */
export async function withFile<T>(file: string, use: (handle: FileHandle, size: number) => Promise<T>): Promise<T> {
  let handle: FileHandle
  try {
    handle = await open(file, 'r')
  } catch (cause) {
    throw readError(file, cause)
  }
  try {
    const stats = await handle.stat()
    if (!stats.isFile()) throw new CheckpointError(`${file} is no regular file`, { file })
    return await use(handle, stats.size)
  } catch (cause) {
    throw isSystemError(cause) ? readError(file, cause) : cause
  } finally {
    await handle.close()
  }
}

/** Reads exactly `length` bytes at `position`; a shorter file is a CheckpointError. The caller has checked `length` against the file. */
export async function readExactly(handle: FileHandle, file: string, position: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length)
  await readInto(handle, file, position, bytes)
  return bytes
}

/** Fills `bytes` from `position` of the file. */
export async function readInto(handle: FileHandle, file: string, position: number, bytes: Uint8Array): Promise<void> {
  let done = 0
  while (done < bytes.length) {
    // One read call is limited to 2 GiB by the system.
    const { bytesRead } = await handle.read(bytes, done, Math.min(bytes.length - done, 1 << 30), position + done)
    if (bytesRead === 0) {
      throw new CheckpointError(`${file} ends at byte ${position + done}; ${bytes.length - done} more bytes were expected there`, { file })
    }
    done += bytesRead
  }
}

/**
 * Reads one tensor into host memory, row-major. Meant for small ones; weights go to a device with `fileSource`.
 * @throws CheckpointError if the type is not read, or the file is shorter than its header said.
 */
export async function readTensor(entry: TensorEntry, options: { signal?: AbortSignal } = {}): Promise<Tensor> {
  options.signal?.throwIfAborted()
  const { dtype, shape, offset, strides } = fileSource(entry)
  return withFile(entry.file, async (handle, fileSize) => {
    const width = BYTES_PER_ELEMENT[dtype]
    const count = sizeOf(shape)
    const span = strides ? stridedSpan(shape, strides) : count
    if (offset + span * width > fileSize) {
      throw new CheckpointError(`${entry.file}: tensor ${entry.name} ends at byte ${offset + span * width}; the file has ${fileSize}`, { file: entry.file })
    }
    const stored = new Uint8Array(span * width)
    await readInto(handle, entry.file, offset, stored)
    const bytes = strides ? gatherStrided(stored, width, shape, strides) : stored
    return new Tensor(dtype, dataView(dtype, bytes.buffer as ArrayBuffer, 0, count), shape)
  })
}

/** Elements from the first to the last one that a strided tensor touches. */
export function stridedSpan(shape: readonly number[], strides: readonly number[]): number {
  if (sizeOf(shape) === 0) return 0
  return 1 + shape.reduce((sum, dim, i) => sum + (dim - 1) * strides[i]!, 0)
}

/** Copies a strided tensor into row-major order. */
export function gatherStrided(stored: Uint8Array, width: number, shape: readonly number[], strides: readonly number[]): Uint8Array {
  const count = sizeOf(shape)
  const out = new Uint8Array(count * width)
  const index = new Array<number>(shape.length).fill(0)
  let from = 0
  for (let to = 0; to < count; to++) {
    for (let b = 0; b < width; b++) out[to * width + b] = stored[from * width + b]!
    for (let d = shape.length - 1; d >= 0; d--) {
      from += strides[d]!
      if (++index[d]! < shape[d]!) break
      from -= strides[d]! * shape[d]!
      index[d] = 0
    }
  }
  return out
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).code === 'string' && 'syscall' in error
}

/** A CheckpointError that says what the system refused. */
export function readError(file: string, cause: unknown): CheckpointError {
  const code = (cause as NodeJS.ErrnoException).code
  const reason = code === 'ENOENT' ? 'is not there' : code === 'EISDIR' ? 'is a folder; expected a file' : `cannot be read: ${(cause as Error).message}`
  return new CheckpointError(`${file} ${reason}`, { file, cause })
}
