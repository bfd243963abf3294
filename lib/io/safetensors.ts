// safetensors: 8 bytes little-endian header length N, N bytes of JSON, then the tensors' data without hole, overlap or rest.
// The header is believed only after every claim in it has been checked against the file's size; nothing is allocated before.

import { randomBytes } from 'node:crypto'
import { open, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { DataType } from '../core/dtype.js'
import { ArgumentError, CheckpointError } from '../core/errors.js'
import { sizeOf } from '../core/shape.js'
import { Tensor, type TensorLike } from '../core/tensor.js'
import { type TensorEntry, lfsPointerError, readExactly, readTensor, withFile, writeError } from './entry.js'
import { parseJsonObject } from './json.js'

/** Header lengths above this are refused, as the format's own library does. */
const MAX_HEADER = 100_000_000

/** Bits of one element, for every type the format knows. */
const BITS = {
  BOOL: 8, F4: 4, F6_E2M3: 6, F6_E3M2: 6, U8: 8, I8: 8, F8_E5M2: 8, F8_E4M3: 8, F8_E8M0: 8, F8_E4M3FNUZ: 8, F8_E5M2FNUZ: 8, I16: 16, U16: 16, F16: 16, BF16: 16,
  I32: 32, U32: 32, F32: 32, C64: 64, F64: 64, I64: 64, U64: 64,
} as const

/** A type of the format, by its own name. */
export type SafetensorsType = keyof typeof BITS

const DTYPES: Readonly<Record<string, DataType>> = {
  F32: 'float32', F16: 'float16', BF16: 'bfloat16', I64: 'int64', I32: 'int32', I8: 'int8', U8: 'uint8', BOOL: 'bool',
}
const STORED = Object.fromEntries(Object.entries(DTYPES).map(([stored, dtype]) => [dtype, stored])) as Record<DataType, SafetensorsType>

/** Whether the format has a type of this name. */
export function isSafetensorsType(name: string): name is SafetensorsType {
  return Object.hasOwn(BITS, name)
}

/** The format's name of a type of ours; its own names stay. */
const storedType = (dtype: DataType | SafetensorsType) => (isSafetensorsType(dtype) ? dtype : STORED[dtype])

/** Bytes of one element; types of less than a byte are not written. */
export const bytesOf = (dtype: DataType | SafetensorsType) => BITS[storedType(dtype)] / 8

export interface SafetensorsHeader {
  readonly entries: readonly TensorEntry[]
  readonly metadata: Readonly<Record<string, string>>
}

/**
 * Reads and checks the header of a safetensors file; the data stays where it is.
 * @throws CheckpointError naming the file and what is wrong with it.
 */
export async function readSafetensorsHeader(file: string): Promise<SafetensorsHeader> {
  return withFile(file, async (handle, size) => {
    if (size < 8) throw new CheckpointError(`${file} has ${size} bytes, which is shorter than the 8-byte header length of safetensors`, { file })
    const length = (await readExactly(handle, file, 0, 8)).readBigUInt64LE()
    if (length > BigInt(MAX_HEADER)) throw (await lfsPointerError(handle, file, size)) ?? new CheckpointError(`${file}: header length ${length} is over 100 MB`, { file })
    const headerSize = Number(length)
    if (8 + headerSize > size) {
      throw new CheckpointError(`${file}: header length ${headerSize} goes past the end of the file, which has ${size} bytes`, { file })
    }
    const bytes = await readExactly(handle, file, 8, headerSize)
    if (bytes[0] !== 0x7b) throw new CheckpointError(`${file}: header does not start with {`, { file })
    const header = parseJsonObject(bytes, `${file}: header`, file)
    return layOut(file, header, 8 + headerSize, size - 8 - headerSize)
  })
}

interface Span {
  name: string
  begin: number
  end: number
}

function layOut(file: string, header: Record<string, unknown>, dataStart: number, dataSize: number): SafetensorsHeader {
  let metadata: Record<string, string> = {}
  const entries: TensorEntry[] = []
  const spans: Span[] = []
  for (const [name, info] of Object.entries(header)) {
    if (name === '__metadata__') {
      metadata = checkMetadata(file, info)
      continue
    }
    const { storedType, shape, begin, end } = checkTensor(file, name, info, dataSize)
    entries.push({ name, file, offset: dataStart + begin, storedType, dtype: DTYPES[storedType], shape })
    spans.push({ name, begin, end })
  }
  checkCover(file, spans, dataSize)
  return { entries, metadata }
}

function checkMetadata(file: string, info: unknown): Record<string, string> {
  const ok = info !== null && typeof info === 'object' && !Array.isArray(info) && Object.values(info).every(value => typeof value === 'string')
  if (!ok) throw new CheckpointError(`${file}: __metadata__ is no map of strings`, { file })
  return info as Record<string, string>
}

function checkTensor(file: string, name: string, info: unknown, dataSize: number) {
  const refuse = (why: string): never => {
    throw new CheckpointError(`${file}: tensor ${name}: ${why}`, { file, field: name })
  }
  if (info === null || typeof info !== 'object') return refuse('no object with dtype, shape and data_offsets')
  const { dtype, shape, data_offsets: offsets } = info as Record<string, unknown>
  if (typeof dtype !== 'string' || !isSafetensorsType(dtype)) return refuse(`unknown dtype ${typeof dtype === 'string' ? dtype : JSON.stringify(dtype)}`)
  if (!isIntegers(shape) || shape.some(dim => dim < 0)) return refuse(`shape ${JSON.stringify(shape)} is no list of integers >= 0`)
  if (!isIntegers(offsets) || offsets.length !== 2) return refuse(`data_offsets ${JSON.stringify(offsets)} are no two integers`)
  const [begin, end] = offsets as [number, number]
  if (begin < 0 || end < 0) return refuse('negative data offset')
  if (end < begin) return refuse(`data_offsets [${begin}, ${end}] end before they begin`)
  if (end > dataSize) return refuse(`data_offsets end at ${end}, past the data section of ${dataSize} bytes`)
  const bits = shape.reduce((product, dim) => product * dim, BITS[dtype] as number)
  if (!Number.isSafeInteger(bits)) return refuse(`shape [${shape}] has too many elements`)
  if (bits !== (end - begin) * 8) return refuse(`${end - begin} bytes of data, but dtype and shape need ${bits / 8}`)
  return { storedType: dtype, shape, begin, end }
}

function isIntegers(value: unknown): value is number[] {
  return Array.isArray(value) && value.every(item => Number.isSafeInteger(item))
}

/** The tensors must cover the data section exactly: safetensors allows neither holes nor sharing. */
function checkCover(file: string, spans: Span[], dataSize: number): void {
  spans.sort((a, b) => a.begin - b.begin || a.end - b.end)
  let covered = 0
  for (const { name, begin, end } of spans) {
    if (begin < covered) throw new CheckpointError(`${file}: tensor ${name}: data overlaps another tensor`, { file, field: name })
    if (begin > covered) throw new CheckpointError(`${file}: hole of ${begin - covered} bytes before tensor ${name}`, { file, field: name })
    covered = end
  }
  if (covered < dataSize) throw new CheckpointError(`${file}: ${dataSize - covered} bytes after the last tensor`, { file })
}

/**
 * Reads a small safetensors file whole: all tensors or the named ones.
 * @throws CheckpointError if the file is broken, a named tensor is absent, or one is of a type that is not read.
 */
export async function readTensors(file: string, options: { names?: readonly string[]; signal?: AbortSignal } = {}): Promise<Record<string, Tensor>> {
  const { entries } = await readSafetensorsHeader(file)
  const byName = new Map(entries.map(entry => [entry.name, entry]))
  const names = options.names ?? [...byName.keys()]
  const missing = names.filter(name => !byName.has(name))
  if (missing.length > 0) throw new CheckpointError(`${file} has no tensor ${missing.join(', ')}`, { file, missing })
  const tensors: [string, Tensor][] = []
  for (const name of names) tensors.push([name, await readTensor(byName.get(name)!, options)])
  return Object.fromEntries(tensors)
}

/** A tensor to be written: its bytes come in pieces, when they are asked for. */
export interface TensorStream {
  readonly name: string
  /** A type of ours, or the format's name of one that it knows and we do not ('F64'). */
  readonly dtype: DataType | SafetensorsType
  readonly shape: readonly number[]
  /** Row-major little-endian bytes, exactly as many as dtype and shape need. */
  bytes(): AsyncIterable<Uint8Array> | Iterable<Uint8Array>
}

export interface WriteOptions {
  signal?: AbortSignal
  /** Called after each piece with the bytes of data written so far and in all. */
  onProgress?: (written: number, total: number) => void
}

/**
 * Writes a safetensors file. It appears under its name only when it is complete and on the disk; an existing file is replaced then.
 * @param tensors by name: host tensors, or streams for what should not be in memory at once
 * @throws ArgumentError for a name twice or a stream of the wrong length; CheckpointError where the system refuses (a full disk).
 */
export async function writeSafetensors(
  file: string,
  tensors: Readonly<Record<string, TensorLike>> | readonly TensorStream[],
  metadata: Readonly<Record<string, string>> = {},
  options: WriteOptions = {},
): Promise<void> {
  const streams = Array.isArray(tensors) ? (tensors as readonly TensorStream[]) : fromTensors(tensors as Readonly<Record<string, TensorLike>>)
  const { header, total } = makeHeader(streams, metadata)
  await writeAtomically(file, async write => {
    await write(header)
    let written = 0
    for (const stream of streams) {
      const expected = byteSize(stream)
      let size = 0
      for await (const piece of stream.bytes()) {
        options.signal?.throwIfAborted()
        size += piece.length
        if (size > expected) break
        await write(piece)
        options.onProgress?.((written += piece.length), total)
      }
      if (size !== expected) {
        throw new ArgumentError(`[writeSafetensors] tensor ${stream.name} gave ${size > expected ? 'more than' : `${size} of`} the ${expected} bytes that its shape needs`)
      }
    }
  })
}

function fromTensors(tensors: Readonly<Record<string, TensorLike>>): TensorStream[] {
  return Object.entries(tensors).map(([name, like]) => {
    const { type, data, dims } = Tensor.from(like, name)
    return { name, dtype: type, shape: dims, bytes: () => [new Uint8Array(data.buffer, data.byteOffset, data.byteLength)] }
  })
}

function byteSize(stream: TensorStream): number {
  return sizeOf(stream.shape) * bytesOf(stream.dtype)
}

function makeHeader(streams: readonly TensorStream[], metadata: Readonly<Record<string, string>>): { header: Buffer; total: number } {
  const fields: [string, unknown][] = Object.keys(metadata).length > 0 ? [['__metadata__', metadata]] : []
  const names = new Set(['__metadata__'])
  let total = 0
  for (const stream of streams) {
    if (names.has(stream.name)) throw new ArgumentError(`[writeSafetensors] the name ${stream.name} is given twice or reserved`)
    names.add(stream.name)
    const end = total + byteSize(stream)
    fields.push([stream.name, { dtype: storedType(stream.dtype), shape: stream.shape, data_offsets: [total, end] }])
    total = end
  }
  const json = Buffer.from(JSON.stringify(Object.fromEntries(fields)))
  // Padded with spaces, so that the data starts at a multiple of 8.
  const padded = Math.ceil(json.length / 8) * 8
  const header = Buffer.alloc(8 + padded, ' ')
  header.writeBigUInt64LE(BigInt(padded))
  json.copy(header, 8)
  return { header, total }
}

/**
 * Writes to a temporary file beside `file`, puts it on the disk and renames it. On any failure the temporary file is removed and a
 * file that was there before is untouched.
 */
export async function writeAtomically(file: string, fill: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>): Promise<void> {
  const temporary = temporaryName(file)
  try {
    const handle = await open(temporary, 'wx')
    try {
      await fill(async bytes => {
        for (let done = 0; done < bytes.length; ) done += (await handle.write(bytes, done, Math.min(bytes.length - done, 1 << 30))).bytesWritten
      })
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, file)
    await syncFolder(dirname(file))
  } catch (cause) {
    await rm(temporary, { force: true })
    throw writeError(file, cause)
  }
}

/** A name beside `file` for what is to become it. */
export function temporaryName(file: string): string {
  return `${file}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`
}

/** Makes a rename last through a power cut, where the system offers it. */
async function syncFolder(folder: string): Promise<void> {
  try {
    const handle = await open(folder, 'r')
    await handle.sync().finally(() => handle.close())
  } catch {
    // Windows does not open folders; the file itself is safe already.
  }
}
