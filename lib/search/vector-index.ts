// VectorIndex: exact cosine search over embeddings kept on a device. Rows live in segments, each in one place at a time: in host memory from
// when they are added until the next search, which uploads them, and on the device from then on; the last segment, if it is small, is read back
// before rows are added to it. A search asks every segment and merges.

import type { FileSource } from '../../typings/addon.js'
import { BYTES_PER_ELEMENT, type DataType, toBfloat16 } from '../core/dtype.js'
import { compile, type Program } from '../core/compile.js'
import { Device, type Weights } from '../core/device.js'
import { ArgumentError, CheckpointError, DisposedError, ShapeError } from '../core/errors.js'
import { checkOptions, option, type OptionRules, shown } from '../core/options.js'
import { checkHeld, partOf, Tensor, type TensorLike } from '../core/tensor.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { fileSource } from '../io/entry.js'
import { readSafetensorsHeader, readTensors, writeSafetensors } from '../io/safetensors.js'
import { cosineTopK } from '../ops/index.js'

export interface VectorIndexOptions {
  /** Length of a vector. */
  dimensions: number
  /** How rows are stored: float32, bfloat16, or int8 with one scale a row. Default 'f32'. */
  dtype?: 'f32' | 'bf16' | 'int8'
  /** What makes the rows, such as `await embedder.weightsHash()`: saved with them, so that `load` notices vectors of another model. */
  model?: string
  device?: string
  threads?: number
}

export interface VectorIndexLoadOptions {
  /** What makes the queries; an index that was saved with another `model` is refused, one without is taken. */
  model?: string
  device?: string
  threads?: number
}

export interface Hit {
  /** The id the row was added with. */
  id?: string
  /** The row's position in order of adding. */
  index: number
  /** Cosine similarity. */
  score: number
}

const storage = { f32: 'float32', bf16: 'bfloat16', int8: 'int8' } as const
/** Large, since every segment is a run of its own, which has to learn anew what is near. */
const segmentBytes = 128 << 20
/** A larger segment on the device gets no more rows: these go into the next one. */
const readBackBytes = 16 << 20
/** Queries of one run, if these are not too many places for hits. */
const mostQueries = 512
const placesAtOnce = 1 << 20
/** Kept for each segment, those used last: each may keep the lengths of all rows. */
const mostPrograms = 8
/** Segments whose search is queued at once. */
const runsAhead = 3
/** Elements converted before the event loop gets a turn. */
const sliceElements = 1 << 20

type Rows = Float32Array | Uint16Array | Int8Array

/** `count` rows [count, dimensions] as stored: in `host`, with room for more, or on the device. */
interface Segment {
  count: number
  host?: Rows
  loaded?: Loaded
}

interface Loaded {
  readonly weights: Weights
  readonly parameter: Parameter
  readonly programs: Map<string, Program>
}

const createRules: OptionRules<VectorIndexOptions> = {
  dimensions: option.positiveInteger,
  dtype: option.oneOf(Object.keys(storage)),
  model: option.text,
  device: option.text,
  threads: option.positiveInteger,
}
const { dimensions: _dimensions, dtype: _dtype, ...loadRules } = createRules
const format = 'chiasma-vector-index'

/**
 * An index of embeddings for exact nearest-neighbour search by cosine similarity.
 *
 * @example
 * const index = await VectorIndex.create({ dimensions: embedder.dimensions, model: await embedder.weightsHash() })
 * await index.add(await embedder.embedImages(paths), paths)
 * const [hits] = await index.search(await embedder.embedTexts(['a photo of a cat']), 10)
 */
export class VectorIndex {
  readonly dimensions: number
  readonly dtype: 'f32' | 'bf16' | 'int8'
  /** What makes the rows, as it was created or saved with. */
  readonly model: string | undefined
  readonly #device: Device
  readonly #capacity: number
  readonly #segments: Segment[] = []
  #ids: (string | undefined)[] = []
  #disposed = false
  /** Adding and searching take turns, so that a search sees all or none of an `add`. */
  #turn: Promise<unknown> = Promise.resolve()

  private constructor(device: Device, dimensions: number, dtype: 'f32' | 'bf16' | 'int8', model: string | undefined) {
    this.#device = device
    this.model = model
    this.dimensions = dimensions
    this.dtype = dtype
    this.#capacity = Math.max(1, Math.floor(segmentBytes / (BYTES_PER_ELEMENT[storage[dtype]] * dimensions)))
  }

  /** @throws ArgumentError for options that make no index, DeviceError. */
  static async create(options: VectorIndexOptions): Promise<VectorIndex> {
    checkOptions('VectorIndex.create', options, createRules)
    const { dimensions, dtype = 'f32', model, device, threads } = options
    if (dimensions === undefined) throw new ArgumentError('[VectorIndex.create] dimensions is missing; expected a positive integer', { field: 'dimensions' })
    return new VectorIndex(await Device.open({ device, dtype: 'f32', threads }), dimensions, dtype, model)
  }

  /** Rows in the index. */
  get size(): number {
    return this.#ids.length
  }

  /**
   * Adds rows, in order; a search that starts later sees all of them. The tensor is read until the promise resolves.
   * @param embeddings float32 [n, dimensions]
   * @param ids one for each row
   * @throws ShapeError, ArgumentError (NaN or infinity, ids of another number); nothing is added then
   */
  async add(embeddings: TensorLike, ids?: readonly string[]): Promise<void> {
    const rows = this.#checkRows(embeddings, 'embeddings')
    const n = rows.dims[0]!
    if (ids !== undefined && !option.texts.accepts(ids)) throw new ArgumentError(`[add] ids is ${shown(ids)}; expected an array of strings`, { field: 'ids' })
    if (ids && ids.length !== n) throw new ArgumentError(`[add] ${ids.length} ids for ${n} embeddings`, { field: 'ids' })
    const names = ids ? [...ids] : new Array<undefined>(n).fill(undefined)
    await this.#inTurn(async () => {
      await this.#append(rows)
      for (const name of names) this.#ids.push(name)
    })
  }

  /**
   * The `k` nearest rows of each query, best first; ties to the lower index.
   * @param queries float32 [m, dimensions]
   * @returns m lists of min(k, size) hits
   * @throws ArgumentError for a query with a number that is not finite, ShapeError
   */
  async search(queries: TensorLike, k: number): Promise<Hit[][]> {
    const rows = this.#checkRows(queries, 'queries')
    if (!Number.isInteger(k) || k < 1) throw new ArgumentError(`[search] k is ${shown(k)}; expected a positive integer`, { field: 'k' })
    return this.#inTurn(async () => {
      const hits: Hit[][] = []
      const m = rows.dims[0]!
      const most = Math.min(k, this.size)
      const atOnce = Math.max(1, Math.min(mostQueries, Math.floor(placesAtOnce / most)))
      for (let begin = 0; begin < m; begin += atOnce) {
        const some = partOf(rows, begin * this.dimensions, [Math.min(atOnce, m - begin), this.dimensions], 'queries')
        checkFinite(some, begin)
        hits.push(...(await this.#searchSome(some, most, m === 1 ? 1 : atOnce)))
      }
      return hits
    })
  }

  /** Writes the index to one safetensors file: `embeddings` as stored, and the ids. */
  async save(path: string): Promise<void> {
    checkPath('save', path)
    await this.#inTurn(async () => {
      const ids = Buffer.from(JSON.stringify(this.#ids.some((id) => id !== undefined) ? this.#ids.map((id) => id ?? null) : []))
      const width = this.dimensions
      await writeSafetensors(
        path,
        [
          { name: 'embeddings', dtype: storage[this.dtype], shape: [this.size, width], bytes: () => this.#bytes() },
          { name: 'ids', dtype: 'uint8', shape: [ids.length], bytes: () => [ids] },
        ],
        { format, ...(this.model !== undefined && { model: this.model }) },
      )
    })
  }

  /**
   * Reads an index that `save` wrote.
   * @throws CheckpointError naming the file and what is wrong with it; ArgumentError where it was made by another `model` than is asked for
   */
  static async load(path: string, options: VectorIndexLoadOptions = {}): Promise<VectorIndex> {
    checkPath('VectorIndex.load', path)
    checkOptions('VectorIndex.load', options, loadRules)
    const { entries, metadata } = await readSafetensorsHeader(path)
    if (metadata['format'] !== format) throw new CheckpointError(`${path} is no saved VectorIndex`, { file: path })
    const { model } = metadata
    if (options.model !== undefined && model !== undefined && options.model !== model) {
      throw new ArgumentError(`[VectorIndex.load] ${path} holds vectors of ${model}; model is ${options.model}`, { file: path, field: 'model' })
    }
    const { ids } = await readTensors(path, { names: ['ids'] })
    const embeddings = entries.find(({ name }) => name === 'embeddings')
    const dtype = (Object.keys(storage) as (keyof typeof storage)[]).find((name) => storage[name] === embeddings?.dtype)
    const [count = 0, dimensions = 0] = embeddings?.shape ?? []
    if (!embeddings || !dtype || embeddings.shape.length !== 2 || dimensions < 1) {
      throw new CheckpointError(`${path}: embeddings is ${embeddings ? `${embeddings.storedType} [${embeddings.shape}]` : 'missing'}`, { file: path, field: 'embeddings' })
    }
    let names: unknown
    try {
      names = JSON.parse(Buffer.from(ids!.data as Uint8Array).toString('utf8'))
    } catch (cause) {
      throw new CheckpointError(`${path}: ids is not JSON`, { file: path, field: 'ids', cause })
    }
    if (!Array.isArray(names) || (names.length && names.length !== count) || !names.every((name) => name === null || typeof name === 'string')) {
      throw new CheckpointError(`${path}: ids is no list of ${count} strings`, { file: path, field: 'ids' })
    }
    const index = await VectorIndex.create({ dimensions, dtype, ...options, model })
    try {
      const rowBytes = dimensions * BYTES_PER_ELEMENT[storage[dtype]]
      for (let begin = 0; begin < count; begin += index.#capacity) {
        const shape = [Math.min(index.#capacity, count - begin), dimensions]
        const segment: Segment = { count: shape[0]! }
        segment.loaded = await index.#upload(segment.count, fileSource({ ...embeddings, offset: embeddings.offset + begin * rowBytes, shape }))
        index.#segments.push(segment)
      }
      for (let i = 0; i < count; i++) index.#ids.push(names[i] ?? undefined)
      return index
    } catch (error) {
      await index.dispose()
      throw error
    }
  }

  /** Frees the device's memory. */
  async dispose(): Promise<void> {
    if (this.#disposed) return
    this.#disposed = true
    await this.#turn
    for (const segment of this.#segments) unload(segment)
    this.#segments.length = 0
    await this.#device.dispose()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (this.#disposed) return Promise.reject(new DisposedError('this VectorIndex was disposed of'))
    const result = this.#turn.then(work)
    this.#turn = result.catch(() => {})
    return result
  }

  #checkRows(given: TensorLike, name: string): Tensor {
    const tensor = Tensor.from(given, name)
    const { type, dims } = tensor
    if (type !== 'float32' || dims.length !== 2 || dims[1] !== this.dimensions) {
      throw new ShapeError(`${name} is ${type} [${dims}]; expected float32 [n, ${this.dimensions}]`, { shapes: [dims] })
    }
    return tensor
  }

  /** Adds rows to the last segment and to new ones; all of them, or none if one is refused. */
  async #append(tensor: Tensor): Promise<void> {
    const n = tensor.dims[0]!
    const added: { segment: Segment; take: number }[] = []
    let segment = this.#segments.at(-1)
    if (segment?.loaded && segment.loaded.weights.bytes > readBackBytes) segment = undefined
    for (let begin = 0; begin < n; ) {
      if (!segment || segment.count === this.#capacity) segment = { count: 0 }
      const take = Math.min(n - begin, this.#capacity - segment.count)
      const target = await this.#roomFor(segment, take, begin + take < n)
      await this.#convert(tensor, begin, take, target)
      added.push({ segment, take })
      begin += take
      if (begin < n) segment = undefined
    }
    for (const { segment, take } of added) {
      if (!segment.count) this.#segments.push(segment)
      segment.count += take
      unload(segment)
    }
  }

  /** Host memory of a segment from its last row on, for `take` rows more. */
  async #roomFor(segment: Segment, take: number, full: boolean): Promise<Rows> {
    const { dimensions } = this
    const used = segment.count * dimensions
    const needed = used + take * dimensions
    let host = segment.host ?? (segment.loaded && (await this.#readBack(segment.count, segment.loaded)))
    if (!host || needed > host.length) {
      const length = full ? needed : Math.min(this.#capacity * dimensions, Math.max(needed, 2 * used))
      const larger = this.dtype === 'f32' ? new Float32Array(length) : this.dtype === 'bf16' ? new Uint16Array(length) : new Int8Array(length)
      for (let from = 0; host && from < used; from += sliceElements) {
        if (from > 0) await nextTurn()
        larger.set(host.subarray(from, Math.min(used, from + sliceElements)), from)
      }
      host = larger
    }
    // Until the rows are in, a segment on the device stays the one that counts.
    segment.host = host
    return host.subarray(used, needed)
  }

  /** Rows [begin, begin + take) in the stored type. int8: round(x · 127 / max|row|); the scale does not matter to a cosine. */
  async #convert(tensor: Tensor, begin: number, take: number, stored: Rows): Promise<void> {
    const { dimensions, dtype } = this
    const offset = begin * dimensions
    const step = Math.max(1, Math.floor(sliceElements / dimensions)) * dimensions
    for (let from = 0; from < stored.length; from += step) {
      if (from > 0 || begin > 0) await nextTurn()
      checkHeld(tensor, 'embeddings')
      const rows = (tensor.data as Float32Array).subarray(offset, offset + take * dimensions)
      const to = Math.min(stored.length, from + step)
      for (let row = from; row < to; row += dimensions) {
        let largest = 0
        for (let i = row; i < row + dimensions; i++) {
          const x = Math.abs(rows[i]!)
          if (!(x < Number.POSITIVE_INFINITY)) throw new ArgumentError(`embedding ${begin + row / dimensions} holds ${rows[i]}`, { index: begin + row / dimensions })
          if (x > largest) largest = x
        }
        if (dtype === 'int8') {
          const scale = largest > 0 ? 127 / largest : 0
          for (let i = row; i < row + dimensions; i++) stored[i] = Math.round(rows[i]! * scale)
        } else if (dtype === 'bf16') {
          for (let i = row; i < row + dimensions; i++) stored[i] = toBfloat16(rows[i]!)
        }
      }
      if (dtype === 'f32') stored.set(rows.subarray(from, to), from)
    }
  }

  async *#bytes(): AsyncGenerator<Uint8Array, void, undefined> {
    for (const { count, host, loaded } of this.#segments) {
      const rows = loaded ? await this.#readBack(count, loaded) : host!
      yield new Uint8Array(rows.buffer, rows.byteOffset, count * this.dimensions * rows.BYTES_PER_ELEMENT)
    }
  }

  /** A segment's rows, from the device. */
  async #readBack(count: number, { weights, parameter: rows }: Loaded): Promise<Rows> {
    using program = compile(() => ({ rows: parameter(rows) }), {}, this.#device, weights)
    return (await program.run({}))['rows']!.data.subarray(0, count * this.dimensions) as Rows
  }

  async #upload(count: number, source: FileSource | Tensor): Promise<Loaded> {
    const rows = { name: 'corpus', shape: [count, this.dimensions], dtype: storage[this.dtype], role: 'plain' } satisfies Parameter
    return { weights: await this.#device.loadWeights([{ parameter: rows, source, held: true }]), parameter: rows, programs: new Map() }
  }

  async #load(segment: Segment): Promise<Loaded> {
    if (!segment.loaded) {
      const { count, host } = segment
      const type: DataType = storage[this.dtype]
      segment.loaded = await this.#upload(count, new Tensor(type, host!.subarray(0, count * this.dimensions), [count, this.dimensions]))
    }
    delete segment.host
    return segment.loaded
  }

  #program({ weights, parameter: rows, programs }: Loaded, capacity: number, k: number): Program {
    const key = `${capacity} ${k}`
    let program = programs.get(key)
    programs.delete(key) // to be the last used
    if (!program) {
      const specs = { queries: { shape: [capacity, this.dimensions], dtype: 'float32', extent: { name: 'queries', per: 1 } } } as const
      const search = (inputs: Record<string, Value>) => {
        const [scores, indices] = cosineTopK(inputs['queries']!, parameter(rows), { k })
        return { scores, indices }
      }
      program = compile(search, specs, this.#device, weights)
      for (const [oldest, unused] of programs) {
        if (programs.size < mostPrograms) break
        unused.dispose()
        programs.delete(oldest)
      }
    }
    programs.set(key, program)
    return program
  }

  /** @param capacity at least as many queries: one for all runs of a search, so that they share programs */
  async #searchSome(queries: Tensor, k: number, capacity: number): Promise<Hit[][]> {
    const m = queries.dims[0]!
    const best = new BestRows(m, k)
    // The next ones are queued before the first has ended, so that the device need not wait for this thread.
    const running: Promise<() => void>[] = []
    let first = 0
    for (const segment of k ? this.#segments : []) {
      const [begin, count] = [first, Math.min(k, segment.count)]
      const loaded = await this.#load(segment)
      const result = this.#program(loaded, capacity, count).run({ queries }, { counts: { queries: m } })
      const merge = result.then(({ scores, indices }) => () => best.merge(scores!.data as Float32Array, indices!.data as Int32Array, count, begin))
      merge.catch(() => {}) // awaited below
      running.push(merge)
      if (running.length === runsAhead) (await running.shift()!)()
      first += segment.count
    }
    for (const merge of running) (await merge)()
    return Array.from({ length: m }, (_, query) =>
      best.of(query).map(([index, score]) => {
        const id = this.#ids[index]
        return id === undefined ? { index, score } : { id, index, score }
      }),
    )
  }
}

/** The k best rows of each of m queries, out of lists that come in order of their rows. */
class BestRows {
  #count = 0
  #scores: Float32Array
  #indices: Float64Array

  constructor(
    private readonly m: number,
    private readonly k: number,
  ) {
    this.#scores = new Float32Array(m * k)
    this.#indices = new Float64Array(m * k)
  }

  /**
   * Takes in the lists of a segment, best first.
   * @param scores [m, count]
   * @param indices [m, count], counted from the segment's first row
   */
  merge(scores: Float32Array, indices: Int32Array, count: number, first: number): void {
    const { m, k } = this
    const [oldScores, oldIndices, old] = [this.#scores, this.#indices, this.#count]
    this.#scores = new Float32Array(m * k)
    this.#indices = new Float64Array(m * k)
    this.#count = Math.min(k, old + count)
    for (let query = 0; query < m; query++) {
      let [a, b] = [query * k, query * count]
      const [endA, endB] = [a + old, b + count]
      for (let to = query * k; to < query * k + this.#count; to++) {
        // Ties stay with the lower index, NaN goes last.
        if (b < endB && (a === endA || scores[b]! > oldScores[a]! || (Number.isNaN(oldScores[a]) && !Number.isNaN(scores[b])))) {
          this.#scores[to] = scores[b]!
          this.#indices[to] = first + indices[b++]!
        } else {
          this.#scores[to] = oldScores[a]!
          this.#indices[to] = oldIndices[a++]!
        }
      }
    }
  }

  /** Index and score, best first. */
  of(query: number): [number, number][] {
    return Array.from({ length: this.#count }, (_, i) => [this.#indices[query * this.k + i]!, this.#scores[query * this.k + i]!])
  }
}

/** @throws ArgumentError naming the first query with a number that is not finite: it has no nearest rows. */
function checkFinite({ data, dims }: Tensor, first: number): void {
  const at = (data as Float32Array).findIndex((value) => !Number.isFinite(value))
  if (at < 0) return
  const index = first + Math.floor(at / dims[1]!)
  throw new ArgumentError(`[search] query ${index} holds ${data[at]} at ${at % dims[1]!}; expected finite numbers`, { field: 'queries', index })
}

const nextTurn = () => new Promise((resolve) => setImmediate(resolve))

function checkPath(call: string, path: unknown): void {
  if (typeof path !== 'string' || path === '') throw new ArgumentError(`[${call}] path is ${shown(path)}; expected the path of a file`, { field: 'path' })
}

function unload(segment: Segment): void {
  if (!segment.loaded) return
  for (const program of segment.loaded.programs.values()) program.dispose()
  segment.loaded.weights.dispose()
  delete segment.loaded
}
