// A checkpoint: the weight files of a folder, as one map from tensor name to place. safetensors first (one file or shards with an
// index), else PyTorch's .bin/.pt. matchParameters then pairs a model's parameters with tensors, and reports all that does not fit at once.

import { readdir, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { FileSource } from '../../typings/addon.js'
import { BYTES_PER_ELEMENT } from '../core/dtype.js'
import { CheckpointError } from '../core/errors.js'
import { type Shape, rowMajor, sameShape, sizeOf } from '../core/shape.js'
import { Tensor } from '../core/tensor.js'
import type { Derived, Parameter, StoredView } from '../core/value.js'
import { type TensorEntry, fileSource, readError, readFloats } from './entry.js'
import { readJsonObject } from './json.js'
import { checkInside } from './paths.js'
import { readPytorchEntries } from './pytorch.js'
import { readSafetensorsHeader } from './safetensors.js'

export interface NameOptions {
  /** Put before every name, tried in order: `['', 'bert.']`. Default: as it is. */
  prefixes?: readonly string[]
  /** Other spellings of a name: each `[pattern, replacement]` is applied with String.replace, in all combinations. */
  renames?: readonly (readonly [RegExp | string, string])[]
}

/** Spellings of older checkpoints, always tried. */
const OLDER_NAMES: readonly (readonly [RegExp, string])[] = [
  [/LayerNorm\.weight$/, 'LayerNorm.gamma'],
  [/LayerNorm\.bias$/, 'LayerNorm.beta'],
]

export class Checkpoint {
  constructor(
    /** The folder it was opened from (or the file). */
    readonly folder: string,
    /** Paths of the weight files. */
    readonly files: readonly string[],
    readonly tensors: ReadonlyMap<string, TensorEntry>,
  ) {}

  /** The tensor of this name, by any of its spellings. */
  find(name: string, options: NameOptions = {}): TensorEntry | undefined {
    const spellings = spell(name, options.renames ?? [])
    for (const prefix of options.prefixes ?? ['']) {
      for (const spelling of spellings) {
        const entry = this.tensors.get(prefix + spelling)
        if (entry) return entry
      }
    }
    return undefined
  }

  /** Whether the tensor is there, for optional parts such as poolers and heads. */
  has(name: string, options: NameOptions = {}): boolean {
    return this.find(name, options) !== undefined
  }

  shapeOf(name: string): readonly number[] | undefined {
    return this.find(name)?.shape
  }
}

function spell(name: string, renames: readonly (readonly [RegExp | string, string])[]): Set<string> {
  const names = new Set([name])
  for (const [pattern, replacement] of [...renames, ...OLDER_NAMES]) {
    for (const known of [...names]) names.add(known.replace(pattern, replacement))
  }
  return names
}

export interface MatchedParameter {
  readonly parameter: Parameter
  /** Where it is read from, or what it is computed from. */
  readonly source: FileSource | DerivedSource
  readonly rowScale?: DerivedSource
}

interface DerivedSource {
  readonly entries: readonly TensorEntry[]
  readonly compute: Derived['compute']
}

/**
 * Finds the tensor of every parameter, or the tensors it is computed from. A tensor fits if it has the parameter's shape, or has it after
 * leading dimensions of 1 are dropped (`[1, 197, C]` for `[197, C]`), or is a convolution kernel `[N, c, y, x]` for a `linear` weight
 * `[N, c·y·x]`.
 * @returns what `weightSources` takes, and the names of the tensors that no parameter wants.
 * @throws CheckpointError listing all missing and misshapen tensors at once, and the unexpected ones with them.
 */
export function matchParameters(
  checkpoint: Checkpoint,
  parameters: readonly Parameter[],
  options: NameOptions = {},
): { entries: MatchedParameter[]; unused: string[] } {
  const entries: MatchedParameter[] = []
  let missing: string[] = []
  let mismatched: string[] = []
  const used = new Set<string>()
  const find = (name: string, shape: Shape, role?: Parameter['role']): TensorEntry | undefined => {
    const entry = checkpoint.find(name, options)
    if (!entry) {
      missing.push(name)
      return undefined
    }
    used.add(entry.name)
    if (!fits(entry.shape, shape, role)) mismatched.push(`${entry.name} is [${entry.shape}]; expected [${shape}]`)
    else if (!entry.dtype) mismatched.push(`${entry.name} is ${entry.storedType}, a type that is not read`)
    else return entry
    return undefined
  }
  const findAll = ({ from, compute }: Derived): DerivedSource | undefined => {
    const found = from.map(({ name, shape }) => find(name, shape))
    return found.every(entry => entry !== undefined) ? { entries: found, compute } : undefined
  }
  for (const parameter of parameters) {
    const { name, shape, role, view, derived } = parameter
    const rowScale = parameter.rowScale && findAll(parameter.rowScale)
    if (derived) {
      const source = findAll(derived)
      if (source) entries.push({ parameter, source, ...(rowScale && { rowScale }) })
      continue
    }
    const entry = find(name, view?.shape ?? shape, role)
    if (!entry) continue
    const source = view ? viewOf(fileSource(entry), view, shape) : reshaped(fileSource(entry), shape)
    entries.push({ parameter, source, ...(rowScale && { rowScale }) })
  }
  const unused = [...checkpoint.tensors.keys()].filter(name => !used.has(name))
  if (missing.length + mismatched.length > 0) {
    missing = [...new Set(missing)]
    mismatched = [...new Set(mismatched)]
    throw new CheckpointError(describe(checkpoint.folder, missing, mismatched, unused), {
      file: checkpoint.folder,
      missing,
      mismatched,
      unexpected: unused,
    })
  }
  return { entries, unused }
}

/**
 * What Device.loadWeights takes: places in files as they are, and the computed ones computed, one after the other.
 * @throws CheckpointError for a tensor that cannot be read
 */
export async function weightSources(
  entries: readonly MatchedParameter[],
  options: { signal?: AbortSignal | undefined } = {},
): Promise<{ parameter: Parameter; source: FileSource | Tensor; rowScale?: Float32Array }[]> {
  const compute = async (source: DerivedSource, shape: Shape): Promise<Tensor> => {
    const tensors: Float32Array[] = []
    for (const entry of source.entries) tensors.push(await readFloats(entry, options))
    return new Tensor('float32', await source.compute(tensors), shape)
  }
  const sources: { parameter: Parameter; source: FileSource | Tensor; rowScale?: Float32Array }[] = []
  for (const { parameter, source, rowScale } of entries) {
    sources.push({
      parameter,
      source: 'file' in source ? source : await compute(source, parameter.shape),
      ...(rowScale && { rowScale: (await compute(rowScale, [parameter.shape[0]!])).data as Float32Array }),
    })
  }
  return sources
}

function fits(stored: Shape, shape: Shape, role?: Parameter['role']): boolean {
  let lead = 0
  while (stored.length - lead > shape.length && stored[lead] === 1) lead++
  if (sameShape(stored.slice(lead), shape)) return true
  return role === 'linear' && stored.length === 4 && shape.length === 2 && stored[0] === shape[0] && sizeOf(stored.slice(1)) === shape[1]
}

/** The part of a tensor that `view` is, with its dimensions in the order of the view; of `shape`'s size. */
function viewOf(source: FileSource, { shape: stored, begin = 0, order = stored.map((_, i) => i) }: StoredView, shape: Shape): FileSource {
  const strides = source.strides?.slice(-stored.length) ?? rowMajor(stored)
  const rows = begin === 0 && sizeOf(stored) === sizeOf(shape) ? stored[0]! : (sizeOf(shape) * stored[0]!) / sizeOf(stored)
  const dims = [rows, ...stored.slice(1)]
  return {
    ...source,
    offset: source.offset + begin * strides[0]! * BYTES_PER_ELEMENT[source.dtype],
    shape: order.map(axis => dims[axis]!),
    strides: order.map(axis => strides[axis]!),
  }
}

/** Row-major data has whatever shape of its size; strided data keeps its own, and is read in row-major order. */
function reshaped(source: FileSource, shape: Shape): FileSource {
  return source.strides ? source : { ...source, shape: [...shape] }
}

function describe(folder: string, missing: string[], mismatched: string[], unexpected: string[]): string {
  const list = (title: string, items: string[]) => (items.length > 0 ? [`${title} (${items.length}):`, ...items.map(item => `  ${item}`)] : [])
  return [
    `${folder} does not have the tensors of this model`,
    ...list('missing', missing),
    ...list('of another shape', mismatched),
    ...list('not expected', unexpected),
  ].join('\n')
}

/**
 * Opens the weights of a model folder, or of one weight file. Reads headers only.
 *
 * Looked for in this order: model.safetensors, model.safetensors.index.json, open_clip_model.safetensors, pytorch_model.bin,
 * pytorch_model.bin.index.json, open_clip_pytorch_model.bin; the only other *.safetensors, the only other *.bin, *.pt or *.pth.
 * @throws CheckpointError: no or several candidates, a broken file, a shard that is missing or outside the folder.
 */
export async function openCheckpoint(path: string, options: { signal?: AbortSignal } = {}): Promise<Checkpoint> {
  options.signal?.throwIfAborted()
  const { weights, index } = await findWeights(path)
  const tensors = index ? await openShards(index, options.signal) : await readEntries(weights!, options.signal)
  const files = [...new Set([...tensors.values()].map(entry => entry.file))]
  return new Checkpoint(path, files.length > 0 ? files : [weights ?? index!], tensors)
}

const isSafetensors = (name: string) => name.endsWith('.safetensors')
const isPytorch = (name: string) => /\.(bin|pt|pth)$/.test(name)
/** Whether a file of this name may hold weights. */
export const isWeights = (name: string) => isSafetensors(name) || isPytorch(name)
/** Files that training leaves in a folder; they hold no weights of the model. */
const isTrainingState = (name: string) => /^(training_args|optimizer|scheduler|scaler|rng_state.*|random_states.*)\.(bin|pt|pth)$/.test(name)

async function findWeights(path: string): Promise<{ weights?: string; index?: string }> {
  let names: string[]
  try {
    if ((await stat(path)).isFile()) return path.endsWith('.index.json') ? { index: path } : { weights: path }
    names = await readdir(path)
  } catch (cause) {
    throw readError(path, cause)
  }
  const { weights, index } = chooseWeights(names, path)
  if (weights !== undefined) return { weights: join(path, weights) }
  if (index !== undefined) return { index: join(path, index) }
  throw new CheckpointError(`${path} has no weights; expected model.safetensors, model.safetensors.index.json or pytorch_model.bin`, { file: path })
}

/**
 * Which of the files of a folder are its weights: one file, the index of shards, or neither.
 * @param where what errors call the folder
 */
export function chooseWeights(names: readonly string[], where: string): { weights?: string; index?: string } {
  const kinds = [
    { file: 'model.safetensors', index: 'model.safetensors.index.json', second: 'open_clip_model.safetensors', others: names.filter(isSafetensors) },
    { file: 'pytorch_model.bin', index: 'pytorch_model.bin.index.json', second: 'open_clip_pytorch_model.bin', others: names.filter(name => isPytorch(name) && !isTrainingState(name)) },
  ]
  for (const { file, index, second } of kinds) {
    if (names.includes(file)) return { weights: file }
    if (names.includes(index)) return { index }
    if (names.includes(second)) return { weights: second }
  }
  for (const { file, others } of kinds) {
    if (others.length === 1) return { weights: others[0]! }
    if (others.length > 1) {
      throw new CheckpointError(`${where} has several weight files and none of the usual name: ${others.join(', ')}; expected ${file}`, { file: where })
    }
  }
  return {}
}

const WRAPPER = 'module.'

async function readEntries(file: string, signal?: AbortSignal): Promise<Map<string, TensorEntry>> {
  const entries = isPytorch(file) ? await readPytorchEntries(file, { signal }) : (await readSafetensorsHeader(file)).entries
  // PyTorch's wrapper for several devices puts itself before all names.
  const wrapped = entries.length > 0 && entries.every(({ name }) => name.startsWith(WRAPPER))
  return new Map((wrapped ? entries.map(entry => ({ ...entry, name: entry.name.slice(WRAPPER.length) })) : entries).map(entry => [entry.name, entry]))
}

/** weight_map of an index: the file of each tensor, relative to the index and inside its folder. */
async function readIndex(index: string): Promise<Map<string, string>> {
  const { weight_map: map } = await readJsonObject(index)
  if (map === null || typeof map !== 'object' || Array.isArray(map) || !Object.values(map).every(file => typeof file === 'string')) {
    throw new CheckpointError(`${index}: weight_map is no map from tensor names to file names`, { file: index, field: 'weight_map' })
  }
  const files = new Map(Object.entries(map as Record<string, string>))
  for (const name of new Set(files.values())) checkInside(name, `${index}: weight_map`, index)
  return files
}

/** The files that an index names. */
export async function shardFiles(index: string): Promise<string[]> {
  return [...new Set((await readIndex(index)).values())]
}

async function openShards(index: string, signal?: AbortSignal): Promise<Map<string, TensorEntry>> {
  const map = await readIndex(index)
  const shards = new Map<string, Map<string, TensorEntry>>()
  for (const name of new Set(map.values())) {
    signal?.throwIfAborted()
    shards.set(name, await readEntries(join(dirname(index), name), signal))
  }
  const tensors = new Map<string, TensorEntry>()
  const missing: string[] = []
  for (const [name, shard] of map) {
    const entry = shards.get(shard)!.get(name)
    if (entry) tensors.set(name, entry)
    else missing.push(`${name} (in ${shard})`)
  }
  if (missing.length > 0) throw new CheckpointError(`${index} lists tensors that are not in their files: ${missing.join(', ')}`, { file: index, missing })
  // A tensor that the index forgot is there all the same.
  for (const shard of shards.values()) for (const entry of shard.values()) if (!tensors.has(entry.name)) tensors.set(entry.name, entry)
  return tensors
}
