// A checkpoint of any readable kind as one safetensors file. Types are kept, also those that nothing here computes with; tied tensors are
// written once each, as the format knows no sharing. Configuration and tokenizer files go along, and module folders of sentence-transformers.

import { copyFile, mkdir, realpath, rm, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { CheckpointError } from '../core/errors.js'
import { openCheckpoint } from './checkpoint.js'
import { type TensorEntry, tensorBytes, writeError } from './entry.js'
import { modelFolders } from './model-folders.js'
import { type SafetensorsType, type TensorStream, bytesOf, isSafetensorsType, writeSafetensors } from './safetensors.js'

/** safetensors' names of the PyTorch types that we do not read. */
const TORCH_TYPES: Readonly<Record<string, SafetensorsType>> = {
  'torch.float64': 'F64', 'torch.int16': 'I16', 'torch.uint16': 'U16', 'torch.uint32': 'U32', 'torch.uint64': 'U64', 'torch.complex64': 'C64',
  'torch.float8_e4m3fn': 'F8_E4M3', 'torch.float8_e5m2': 'F8_E5M2', 'torch.float8_e4m3fnuz': 'F8_E4M3FNUZ', 'torch.float8_e5m2fnuz': 'F8_E5M2FNUZ', 'torch.float8_e8m0fnu': 'F8_E8M0',
}

export interface ConvertOptions {
  /** Replace files that are there; otherwise that is an error, and nothing is written. */
  overwrite?: boolean
  signal?: AbortSignal
  /** Bytes of weights written, and in all. */
  onProgress?: (written: number, total: number) => void
}

/**
 * Writes the checkpoint in `source` (a folder, or a weight file) as `destination`/model.safetensors, with the files that belong to it.
 * The memory it takes does not grow with the model: tensors are copied in pieces (one that is not contiguous is held whole meanwhile).
 *
 * @returns the files written
 * @throws CheckpointError: a broken checkpoint, a type that safetensors does not have, files in the way, a full disk. Files that were not there
 *   before are removed then.
 */
export async function convertCheckpoint(source: string, destination: string, options: ConvertOptions = {}): Promise<string[]> {
  const { signal, overwrite = false } = options
  const folders = await modelFolders(source)
  const weights: { file: string; streams: TensorStream[] }[] = []
  const copies: { from: string; to: string }[] = []
  for (const folder of folders) {
    const target = join(destination, folder.name)
    if (folder.weights !== undefined) {
      const { tensors } = await openCheckpoint(folder.weights, { signal })
      weights.push({ file: join(target, 'model.safetensors'), streams: toStreams(source, [...tensors.values()], signal) })
    }
    for (const name of folder.companions) copies.push({ from: join(folder.path, name), to: join(target, name) })
  }
  if (weights.length === 0) throw new CheckpointError(`${source} has no weights to convert`, { file: source })
  // Converting inside of one folder leaves its other files alone.
  const moved = await filter(copies, async ({ from, to }) => (await real(from)) !== (await real(to)))
  const written = [...weights.map(({ file }) => file), ...moved.map(({ to }) => to)]
  const inTheWay = overwrite ? [] : await filter(written, file => stat(file).then(() => true, () => false))
  if (inTheWay.length > 0) throw new CheckpointError(`not converted, since these files are there already: ${inTheWay.join(', ')}`, { file: inTheWay[0] })

  const total = weights.flatMap(({ streams }) => streams).reduce((sum, stream) => sum + sizeOfStream(stream), 0)
  let before = 0
  const made: string[] = []
  try {
    for (const { file, streams } of weights) {
      made.push(...(await makeFolderOf(file)))
      const onProgress = (done: number) => options.onProgress?.(before + done, total)
      await writeSafetensors(file, streams, { format: 'pt' }, { signal, onProgress })
      if (!overwrite) made.push(file)
      before += streams.reduce((sum, stream) => sum + sizeOfStream(stream), 0)
    }
    for (const { from, to } of moved) {
      signal?.throwIfAborted()
      made.push(...(await makeFolderOf(to)))
      if (!overwrite) made.push(to)
      await copyFile(from, to).catch((cause: unknown) => {
        throw writeError(to, cause)
      })
    }
  } catch (error) {
    for (const path of made.reverse()) await rm(path, { recursive: true, force: true })
    throw error
  }
  return written
}

function toStreams(source: string, entries: readonly TensorEntry[], signal?: AbortSignal): TensorStream[] {
  const types = entries.map(entry => entry.dtype ?? TORCH_TYPES[entry.storedType] ?? (isSafetensorsType(entry.storedType) ? entry.storedType : undefined))
  const strange = entries.filter((_, i) => types[i] === undefined || bytesOf(types[i]) % 1 !== 0)
  if (strange.length > 0) {
    const list = strange.map(({ name, storedType }) => `${name} (${storedType})`).join(', ')
    throw new CheckpointError(`${source} has tensors of types that cannot be written: ${list}`, { file: source, mismatched: strange.map(({ name }) => name) })
  }
  return entries.map((entry, i) => ({
    name: entry.name,
    dtype: types[i]!,
    shape: entry.shape,
    bytes: () => tensorBytes(entry, bytesOf(types[i]!), { signal }),
  }))
}

const sizeOfStream = ({ shape, dtype }: TensorStream) => shape.reduce((product, dim) => product * dim, bytesOf(dtype))

async function filter<T>(items: readonly T[], test: (item: T) => Promise<boolean>): Promise<T[]> {
  const keep = await Promise.all(items.map(test))
  return items.filter((_, i) => keep[i])
}

const real = (path: string) => realpath(path).catch(() => path)

/** Makes the folder that `file` is to be in; returns what was not there before, if anything. */
async function makeFolderOf(file: string): Promise<string[]> {
  const folder = dirname(file)
  const first = await mkdir(folder, { recursive: true }).catch((cause: Error) => {
    throw new CheckpointError(`${folder} cannot be made: ${cause.message}`, { file: folder, cause })
  })
  return first === undefined ? [] : [first]
}
