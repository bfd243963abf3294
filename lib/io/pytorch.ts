// PyTorch checkpoints without PyTorch: zip archives of torch.save, TorchScript archives (as OpenAI ships CLIP; their code is not
// looked at), and the legacy format before 1.6. The pickle is decoded into inert data (pickle.ts, pytorch-rules.ts), the tensors become
// entries that point into the file. Tied tensors point to the same bytes.
// Legacy file: pickles of a magic number, the protocol, system facts, the object, the storage keys; then per key an int64 count and the elements.

import type { FileHandle } from 'node:fs/promises'
import { CheckpointError } from '../core/errors.js'
import { type TensorEntry, lfsPointerError, readExactly, withFile } from './entry.js'
import { PickleDict, PickleRecord, PickleTruncated, unpickle } from './pickle.js'
import { type TorchStorage, TorchTensor, pytorchRules } from './pytorch-rules.js'
import { type ZipArchive, looksLikeZip, openZip } from './zip.js'

const MAX_PICKLE = 64 * 1024 * 1024
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn
const LEGACY_PROTOCOL = 1001
/** Keys that trainers put a state dictionary under. */
const WRAPPERS = ['state_dict', 'model_state_dict', 'model', 'module', 'net', 'params']
const MAX_DEPTH = 64
const MAX_NAME = 2000
const MAX_VISITS = 1_000_000

/** Where each storage's bytes start. */
type Places = ReadonlyMap<string, number>

/**
 * Lists the tensors of a .bin, .pt or .pth file, with their places in it. Nothing in the file is executed.
 * @throws CheckpointError naming the file: unknown format, truncated, a global that is not allowed, lying sizes, no tensors.
 */
export async function readPytorchEntries(file: string, options: { signal?: AbortSignal } = {}): Promise<TensorEntry[]> {
  return withFile(file, async (handle, size) => {
    const start = await readExactly(handle, file, 0, Math.min(size, 4))
    if (looksLikeZip(start)) return readArchive(handle, file, size, options.signal)
    if (start[0] === 0x80) return readLegacy(handle, file, size, options.signal)
    throw (await lfsPointerError(handle, file, size)) ?? new CheckpointError(`${file} is no PyTorch file: it begins neither as a zip archive nor as a pickle`, { file })
  })
}

async function readArchive(handle: FileHandle, file: string, size: number, signal?: AbortSignal): Promise<TensorEntry[]> {
  const archive = await openZip(handle, file, size)
  const pickles = archive.names.filter(name => /^[^/]*\/data\.pkl$/.test(name))
  if (pickles.length !== 1) {
    const old = archive.names.some(name => name.endsWith('/model.json')) ? ' (it is a TorchScript archive from before PyTorch 1.4)' : ''
    throw new CheckpointError(`${file} has ${pickles.length} data.pkl${old}; expected one, as torch.save writes it`, { file })
  }
  const root = pickles[0]!.slice(0, -'data.pkl'.length)
  await checkByteOrder(handle, file, archive, `${root}byteorder`)
  const pickle = await archive.locate(pickles[0]!)
  if (pickle.size > MAX_PICKLE) throw new CheckpointError(`${file}: data.pkl has ${pickle.size} bytes; at most ${MAX_PICKLE} are read`, { file })
  const bytes = await readExactly(handle, file, pickle.offset, pickle.size)
  const storages = new Map<string, TorchStorage>()
  const { value } = await unpickle(bytes, pytorchRules(`${file}: data.pkl`, file, storages, archive.has(`${root}constants.pkl`)), 0, signal)
  const places = new Map<string, number>()
  for (const { key, count, type } of storages.values()) {
    const member = await archive.locate(`${root}data/${key}`)
    if (member.size !== count * type.width) {
      throw new CheckpointError(`${file}: data/${key} has ${member.size} bytes; its pickle says ${count} elements of ${type.width} bytes`, { file })
    }
    places.set(key, member.offset)
  }
  return toEntries(file, value, places)
}

async function checkByteOrder(handle: FileHandle, file: string, archive: ZipArchive, name: string): Promise<void> {
  if (!archive.has(name)) return
  const { offset, size } = await archive.locate(name)
  const order = (await readExactly(handle, file, offset, Math.min(size, 16))).toString('latin1')
  if (order !== 'little') throw new CheckpointError(`${file} has byte order ${JSON.stringify(order)}; only little-endian is read`, { file })
}

/** The pickles come first and do not say how long they are, so the part read for them grows until it holds them. */
async function readLegacy(handle: FileHandle, file: string, size: number, signal?: AbortSignal): Promise<TensorEntry[]> {
  for (let part = 1 << 20; ; part *= 4) {
    const bytes = await readExactly(handle, file, 0, Math.min(size, part, MAX_PICKLE))
    try {
      return await readLegacyParts(handle, file, size, bytes, signal)
    } catch (error) {
      if (!(error instanceof PickleTruncated) || bytes.length === size) throw error
      if (bytes.length === MAX_PICKLE) throw new CheckpointError(`${file}: its pickles have more than ${MAX_PICKLE} bytes`, { file })
    }
  }
}

async function readLegacyParts(handle: FileHandle, file: string, size: number, bytes: Buffer, signal?: AbortSignal): Promise<TensorEntry[]> {
  const storages = new Map<string, TorchStorage>()
  const rules = pytorchRules(file, file, storages, false)
  let at = 0
  const next = async () => {
    const { value, end } = await unpickle(bytes, rules, at, signal)
    at = end
    return value
  }
  if ((await next()) !== LEGACY_MAGIC) throw new CheckpointError(`${file} is a pickle but no PyTorch file: the magic number is missing`, { file })
  const protocol = await next()
  if (protocol !== LEGACY_PROTOCOL) throw new CheckpointError(`${file} has PyTorch protocol ${String(protocol)}; expected ${LEGACY_PROTOCOL}`, { file })
  const facts = await next()
  if (!(facts instanceof PickleDict) || lookUp(facts, 'little_endian') !== true) throw new CheckpointError(`${file} does not say it is little-endian`, { file })
  const object = await next()
  const keys = await next()
  if (!Array.isArray(keys) || !keys.every(key => typeof key === 'string')) throw new CheckpointError(`${file} has no list of storages after its object`, { file })
  const places = await findStorages(handle, file, size, at, keys as string[], storages)
  return toEntries(file, object, places)
}

async function findStorages(handle: FileHandle, file: string, size: number, at: number, keys: string[], storages: Map<string, TorchStorage>): Promise<Places> {
  const places = new Map<string, number>()
  for (const key of keys) {
    const storage = storages.get(key)
    if (!storage || places.has(key)) throw new CheckpointError(`${file} lists the storage ${key} ${storage ? 'twice' : 'that nothing refers to'}`, { file })
    if (at + 8 > size) throw new CheckpointError(`${file} ends before storage ${key}`, { file })
    const count = (await readExactly(handle, file, at, 8)).readBigInt64LE()
    if (count !== BigInt(storage.count)) throw new CheckpointError(`${file}: storage ${key} has ${count} elements; its pickle says ${storage.count}`, { file })
    const bytes = storage.count * storage.type.width
    if (at + 8 + bytes > size) throw new CheckpointError(`${file}: storage ${key} ends at byte ${at + 8 + bytes}; the file has ${size}`, { file })
    places.set(key, at + 8)
    at += 8 + bytes
  }
  for (const key of storages.keys()) if (!places.has(key)) throw new CheckpointError(`${file} has no storage ${key}, which its pickle refers to`, { file })
  return places
}

function toEntries(file: string, object: unknown, places: Places): TensorEntry[] {
  const tensors = new Map<string, TorchTensor>()
  collect(file, unwrap(object), '', 0, { left: MAX_VISITS }, tensors)
  if (tensors.size === 0) throw new CheckpointError(`${file} holds no tensors; expected a dictionary of them, or one under ${WRAPPERS.join(', ')}`, { file })
  return [...tensors].map(([name, { storage, type, offset, shape, strides }]) => {
    const entry = {
      name,
      file,
      offset: places.get(storage.key)! + storage.start * storage.type.width + offset * type.width,
      storedType: `torch.${type.name}`,
      dtype: type.dtype,
      shape,
    }
    return isRowMajor(shape, strides) ? entry : { ...entry, strides }
  })
}

/** Trainers save `{ state_dict: {…}, epoch: … }`. A dictionary with tensors of its own is taken as it is. */
function unwrap(object: unknown, depth = 0): unknown {
  if (!(object instanceof PickleDict) || depth === MAX_DEPTH) return object
  if (object.items.some((value, i) => i % 2 === 1 && value instanceof TorchTensor)) return object
  for (const key of WRAPPERS) {
    const inner = lookUp(object, key)
    if (inner instanceof PickleDict) return unwrap(inner, depth + 1)
  }
  return object
}

/** Names are the keys (of dictionaries) and attributes (of TorchScript objects) on the way, joined by dots, as in state_dict(). */
function collect(file: string, value: unknown, name: string, depth: number, visits: { left: number }, found: Map<string, TorchTensor>): void {
  if (value instanceof TorchTensor) {
    if (name !== '') found.set(name, value)
    return
  }
  const fields = value instanceof PickleRecord ? value.state : value
  if (!(fields instanceof PickleDict)) return
  if (depth === MAX_DEPTH) throw new CheckpointError(`${file} nests dictionaries deeper than ${MAX_DEPTH}`, { file })
  for (let i = 0; i < fields.items.length; i += 2) {
    if (visits.left-- === 0) throw new CheckpointError(`${file} has more than ${MAX_VISITS} entries`, { file })
    const key = fields.items[i]
    if (typeof key !== 'string' && typeof key !== 'number') continue
    const path = name === '' ? `${key}` : `${name}.${key}`
    if (path.length > MAX_NAME) throw new CheckpointError(`${file} has a name of more than ${MAX_NAME} characters`, { file })
    collect(file, fields.items[i + 1], path, depth + 1, visits, found)
  }
}

function lookUp(dict: PickleDict, key: string): unknown {
  for (let i = dict.items.length - 2; i >= 0; i -= 2) if (dict.items[i] === key) return dict.items[i + 1]
  return undefined
}

function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let step = 1
  for (let i = shape.length - 1; i >= 0; i--) {
    if (shape[i] !== 1 && strides[i] !== step) return shape.includes(0)
    step *= shape[i]!
  }
  return true
}
