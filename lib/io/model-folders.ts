// The files of a model's folder by what they are: weights, and what belongs to them (configuration, tokenizer, processor, texts), in the folder
// itself and in the module folders of sentence-transformers. And hashes of what decides what the model computes.

import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { BYTES_PER_ELEMENT } from '../core/dtype.js'
import { CheckpointError } from '../core/errors.js'
import { chooseWeights, isWeights, openCheckpoint } from './checkpoint.js'
import { isFile, readError, tensorBytes } from './entry.js'
import { moduleFolders } from './hub-files.js'

/** Files beside the weights that belong to the model. */
const isCompanion = (name: string) => !name.startsWith('.') && (/\.(json|txt|md|model|jinja)$/.test(name) || isText(name)) && !name.endsWith('.index.json')
/** Files that are there for people. */
const isText = (name: string) => /^(LICENSE|NOTICE)|\.md$/.test(name)

export interface ModelFolder {
  /** Relative to the source: '' or a module's folder. */
  name: string
  path: string
  /** A weight file in it or the index of several, where there are weights. */
  weights?: string
  companions: string[]
}

/** The folders of a model. `source` may be a weight file: then it is that alone. */
export async function modelFolders(source: string): Promise<ModelFolder[]> {
  if (await isFile(source)) return [{ name: '', path: dirname(source), weights: source, companions: [] }]
  const modules = join(source, 'modules.json')
  const names = [...new Set(['', ...((await isFile(modules)) ? await moduleFolders(modules) : [])])]
  return Promise.all(
    names.map(async name => {
      const path = join(source, name)
      const files = await readdir(path).catch((cause: NodeJS.ErrnoException) => {
        if (name !== '' && cause.code === 'ENOENT') return [] // a module without settings, which git does not keep an empty folder for
        throw new CheckpointError(`${path} cannot be read: ${cause.message}`, { file: path, cause })
      })
      const { weights, index } = chooseWeights(files.filter(file => isWeights(file) || file.endsWith('.index.json')), path)
      return { name, path, weights: weights !== undefined ? join(path, weights) : index !== undefined ? join(path, index) : undefined, companions: files.filter(isCompanion) }
    }),
  )
}

/**
 * A hash of the weights: names, types, shapes and all values, the same for one checkpoint as safetensors, in shards and as PyTorch's file. Of a
 * tensor of a type that no model reads, name and shape count. About a second a gigabyte; the event loop has its turns.
 * @throws CheckpointError for a file that cannot be read
 */
export async function hashWeights(source: string): Promise<string> {
  const hash = createHash('sha256')
  for (const { name: folder, weights } of await modelFolders(source)) {
    if (weights === undefined) continue
    const { tensors } = await openCheckpoint(weights)
    for (const name of [...tensors.keys()].sort()) {
      const entry = tensors.get(name)!
      hash.update(JSON.stringify([folder, name, entry.dtype ?? null, entry.shape]))
      if (entry.dtype) for await (const piece of tensorBytes(entry, BYTES_PER_ELEMENT[entry.dtype])) hash.update(piece)
    }
  }
  return hash.digest('hex')
}

/**
 * A hash of what belongs to the weights: configuration, tokenizer and preprocessor files.
 * @throws CheckpointError for a file that cannot be read
 */
export async function hashCompanions(source: string): Promise<string> {
  const hash = createHash('sha256')
  for (const { name, path, companions } of await modelFolders(source)) {
    const files = companions.filter(file => !isText(file)).sort().map(file => join(path, file))
    for (const file of files) {
      try {
        hash.update(JSON.stringify([name, basename(file), (await stat(file)).size]))
        for await (const piece of createReadStream(file, { highWaterMark: 1 << 20 })) hash.update(piece as Buffer)
      } catch (cause) {
        throw readError(file, cause)
      }
    }
  }
  return hash.digest('hex')
}
