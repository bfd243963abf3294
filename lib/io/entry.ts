// A tensor inside a checkpoint file: where its bytes are, not the bytes. Headers are read here in TypeScript; the data is read by
// ranges, by native code straight into weight preparation (FileSource), or with `readTensor` into a small host tensor.
// Files are opened, read and closed, never mapped, so one that shrinks meanwhile gives an error and no signal.

import { type FileHandle, open, stat } from 'node:fs/promises'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { FileSource } from '../../typings/addon.js'
import { BYTES_PER_ELEMENT, type DataType, dataView, fromBfloat16, fromFloat16, isFloat } from '../core/dtype.js'
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
  const handle = await openFile(file)
  try {
    return await use(handle, (await handle.stat()).size)
  } catch (cause) {
    throw isSystemError(cause) ? readError(file, cause) : cause
  } finally {
    await handle.close()
  }
}

async function openFile(file: string): Promise<FileHandle> {
  try {
    // Opening a pipe would wait for a writer.
    if (!(await stat(file)).isFile()) throw new CheckpointError(`${file} is no regular file`, { file })
    return await open(file, 'r')
  } catch (cause) {
    throw isSystemError(cause) ? readError(file, cause) : cause
  }
}

/** Reads exactly `length` bytes at `position`; a shorter file is a CheckpointError. The caller has checked `length` against the file. */
export async function readExactly(handle: FileHandle, file: string, position: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(length)
  await readInto(handle, file, position, bytes)
  return bytes
}

/** As `readExactly`, into memory of any size that is there already. */
export async function readInto(handle: FileHandle, file: string, position: number, { buffer, byteOffset, byteLength }: ArrayBufferView): Promise<void> {
  for (let done = 0; done < byteLength; ) {
    // One read call is limited to 2 GiB by the system, and an array of bytes to 4 GiB by Node 20.
    const piece = new Uint8Array(buffer, byteOffset + done, Math.min(byteLength - done, 1 << 30))
    const { bytesRead } = await handle.read(piece, 0, piece.length, position + done)
    if (bytesRead === 0) {
      throw new CheckpointError(`${file} ends at byte ${position + done}; ${byteLength - done} more bytes were expected there`, { file })
    }
    done += bytesRead
  }
}

const LFS_POINTER = 'version https://git-lfs.github.com/'

/** That the file is what a clone without Git LFS has in its place; undefined if it is not. */
export async function lfsPointerError(handle: FileHandle, file: string, size: number): Promise<CheckpointError | undefined> {
  const start = await readExactly(handle, file, 0, Math.min(size, LFS_POINTER.length))
  return start.equals(Buffer.from(LFS_POINTER)) ? new CheckpointError(`${file} is a Git LFS pointer, not the file itself; run: git lfs pull`, { file }) : undefined
}

/**
 * Reads one tensor into host memory, row-major. Meant for small ones; weights go to a device with `fileSource`.
 * @throws CheckpointError if the type is not read, or the file is shorter than its header said.
 */
export async function readTensor(entry: TensorEntry, options: { signal?: AbortSignal | undefined } = {}): Promise<Tensor> {
  const { dtype, shape } = fileSource(entry)
  const count = sizeOf(shape)
  const width = BYTES_PER_ELEMENT[dtype]
  // Nothing is allocated for a tensor that the file cannot hold.
  await withFile(entry.file, async (_, fileSize) => checkSpan(entry, width, fileSize))
  const data = dataView(dtype, new ArrayBuffer(count * width), 0, count)
  let done = 0
  for await (const piece of tensorBytes(entry, width, options)) {
    new Uint8Array(data.buffer, done, piece.length).set(piece)
    done += piece.length
  }
  return new Tensor(dtype, data, shape)
}

/**
 * A small tensor of a float type as float32.
 * @throws CheckpointError
 */
export async function readFloats(entry: TensorEntry, options: { signal?: AbortSignal | undefined } = {}): Promise<Float32Array> {
  const { type, data } = await readTensor(entry, options)
  if (!isFloat(type)) {
    throw new CheckpointError(`${entry.file}: tensor ${entry.name} is ${entry.storedType}; expected floats`, { file: entry.file, field: entry.name })
  }
  if (type === 'float32') return data as Float32Array
  const convert = type === 'float16' ? fromFloat16 : fromBfloat16
  return Float32Array.from(data as Uint16Array, convert)
}

const PIECE = 1 << 20 // bytes

/**
 * The bytes of a tensor in row-major order, in pieces of about a megabyte, of any type whose elements have `width` bytes. A tensor that is
 * not contiguous is held in memory meanwhile; others only a piece at a time.
 */
export async function* tensorBytes(entry: TensorEntry, width: number, options: { signal?: AbortSignal | undefined } = {}): AsyncGenerator<Uint8Array> {
  const { file, offset, shape, strides } = entry
  options.signal?.throwIfAborted()
  const handle = await openFile(file)
  try {
    const span = checkSpan(entry, width, (await handle.stat()).size)
    if (strides) {
      const stored = await readExactly(handle, file, offset, span)
      for (const piece of gatherStrided(stored, width, shape, strides)) {
        await nextTurn()
        options.signal?.throwIfAborted()
        yield piece
      }
      return
    }
    for (let at = 0; at < span; at += PIECE) {
      options.signal?.throwIfAborted()
      yield await readExactly(handle, file, offset + at, Math.min(PIECE, span - at))
    }
  } catch (cause) {
    throw isSystemError(cause) ? readError(file, cause) : cause
  } finally {
    await handle.close()
  }
}

/** Bytes from the tensor's first element to the end of its last, once it is known that the file has them. */
function checkSpan({ file, name, offset, shape, strides }: TensorEntry, width: number, fileSize: number): number {
  const span = (strides ? stridedSpan(shape, strides) : sizeOf(shape)) * width
  if (offset + span > fileSize) throw new CheckpointError(`${file}: tensor ${name} ends at byte ${offset + span}; the file has ${fileSize}`, { file })
  return span
}

/** Elements from the first to the last one that a strided tensor touches. */
export function stridedSpan(shape: readonly number[], strides: readonly number[]): number {
  if (sizeOf(shape) === 0) return 0
  return 1 + shape.reduce((sum, dim, i) => sum + (dim - 1) * strides[i]!, 0)
}

/** A strided tensor's elements in row-major order, in pieces. */
function* gatherStrided(stored: Uint8Array, width: number, shape: readonly number[], strides: readonly number[]): Generator<Uint8Array> {
  const count = sizeOf(shape)
  const index = new Array<number>(shape.length).fill(0)
  let from = 0
  for (let start = 0; start < count; ) {
    const elements = Math.min(count - start, Math.ceil(PIECE / width))
    const piece = new Uint8Array(elements * width)
    for (let to = 0; to < piece.length; ) {
      for (let byte = 0; byte < width; byte++) piece[to++] = stored[from * width + byte]!
      for (let d = shape.length - 1; d >= 0; d--) {
        from += strides[d]!
        if (++index[d]! < shape[d]!) break
        from -= strides[d]! * shape[d]!
        index[d] = 0
      }
    }
    yield piece
    start += elements
  }
}

export async function isFile(path: string): Promise<boolean> {
  return stat(path).then(stats => stats.isFile(), () => false)
}

function isSystemError(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && typeof (error as NodeJS.ErrnoException).code === 'string' && 'syscall' in error
}

/** A CheckpointError that says why `file` cannot be written; what is no error of the system comes back as it is. */
export function writeError(file: string, cause: unknown): unknown {
  if (!isSystemError(cause)) return cause
  const reason = cause.code === 'ENOSPC' ? 'its disk is full' : cause.code === 'EDQUOT' ? 'the quota of its disk is used up' : cause.message
  return new CheckpointError(`${file} cannot be written: ${reason}`, { file, cause })
}

/** A CheckpointError that says what the system refused. */
export function readError(file: string, cause: unknown): CheckpointError {
  const code = (cause as NodeJS.ErrnoException).code
  const reason = code === 'ENOENT' ? 'is not there' : code === 'EISDIR' ? 'is a folder; expected a file' : `cannot be read: ${(cause as Error).message}`
  return new CheckpointError(`${file} ${reason}`, { file, cause })
}
