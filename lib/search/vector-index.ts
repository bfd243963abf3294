// VectorIndex: exact cosine search over embeddings kept on a device. Rows live in segments; a full segment is uploaded once and never
// touched again, the last one is uploaded anew after rows were added to it. A search asks every segment and merges.

import { type DataType, toBfloat16 } from '../core/dtype.js'
import { compile, type Program } from '../core/compile.js'
import { Device, type Weights } from '../core/device.js'
import { ArgumentError, CheckpointError, DisposedError, ShapeError } from '../core/errors.js'
import { checkHeld, partOf, Tensor, type TensorLike } from '../core/tensor.js'
import { type Parameter, parameter } from '../core/value.js'
import { readSafetensorsHeader, readTensors, writeSafetensors } from '../io/safetensors.js'
import { cosineTopK } from '../ops/index.js'

export interface VectorIndexOptions {
  /** Length of a vector. */
  dimensions: number
  /** How rows are stored: float32, bfloat16, or int8 with one scale a row. Default 'f32'. */
  dtype?: 'f32' | 'bf16' | 'int8'
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
const segmentBytes = 128 << 20
const queriesAtOnce = 256
/** Elements converted before the event loop gets a turn. */
const sliceElements = 1 << 20

type Rows = Float32Array | Uint16Array | Int8Array

interface Segment {
  /** Stored rows [count, dimensions]; kept for saving. */
  data: Rows
  count: number
  loaded?: { weights: Weights; parameter: Parameter; programs: Map<string, Program> }
}

/**
 * An index of embeddings for exact nearest-neighbour search by cosine similarity.
 *
 * @example
 * const index = await VectorIndex.create({ dimensions: 512 })
 * await index.add(await embedder.embedImages(paths), paths)
 * const [hits] = await index.search(await embedder.embedTexts(['a photo of a cat']), 10)
 */
export class VectorIndex {
  readonly dimensions: number
  readonly dtype: 'f32' | 'bf16' | 'int8'
  readonly #device: Device
  readonly #capacity: number
  readonly #segments: Segment[] = []
  #ids: (string | undefined)[] = []
  #disposed = false
  /** Adding and searching take turns, so that a search sees all or none of an `add`. */
  #turn: Promise<unknown> = Promise.resolve()

  private constructor(device: Device, dimensions: number, dtype: 'f32' | 'bf16' | 'int8') {
    this.#device = device
    this.dimensions = dimensions
    this.dtype = dtype
    this.#capacity = Math.max(1, Math.floor(segmentBytes / (4 * dimensions)))
  }

  /** @throws ArgumentError for options that make no index, DeviceError. */
  static async create(options: VectorIndexOptions): Promise<VectorIndex> {
    const { dimensions, dtype = 'f32', device, threads } = options
    if (!Number.isInteger(dimensions) || dimensions < 1) {
      throw new ArgumentError(`dimensions is ${dimensions}; expected a positive integer`, { field: 'dimensions' })
    }
    if (!(dtype in storage)) throw new ArgumentError(`dtype is ${JSON.stringify(dtype)}; expected 'f32', 'bf16' or 'int8'`, { field: 'dtype' })
    return new VectorIndex(await Device.open({ device, dtype: 'f32', threads }), dimensions, dtype)
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
    if (ids && ids.length !== n) throw new ArgumentError(`${ids.length} ids for ${n} embeddings`, { field: 'ids' })
    await this.#inTurn(async () => this.#append(await this.#convert(rows), n, ids ?? []))
  }

  /**
   * The `k` nearest rows of each query, best first; ties to the lower index.
   * @param queries float32 [m, dimensions]
   * @returns m lists of min(k, size) hits
   */
  async search(queries: TensorLike, k: number): Promise<Hit[][]> {
    const rows = this.#checkRows(queries, 'queries')
    if (!Number.isInteger(k) || k < 1) throw new ArgumentError(`k is ${k}; expected a positive integer`, { field: 'k' })
    return this.#inTurn(async () => {
      const hits: Hit[][] = []
      const m = rows.dims[0]!
      for (let begin = 0; begin < m; begin += queriesAtOnce) {
        const some = partOf(rows, begin * this.dimensions, [Math.min(queriesAtOnce, m - begin), this.dimensions], 'queries')
        hits.push(...(await this.#searchSome(some, Math.min(k, this.size))))
      }
      return hits
    })
  }

  /** Writes the index to one safetensors file: `embeddings` as stored, and the ids. */
  async save(path: string): Promise<void> {
    await this.#inTurn(async () => {
      const ids = Buffer.from(JSON.stringify(this.#ids.some((id) => id !== undefined) ? this.#ids.map((id) => id ?? null) : []))
      const segments = this.#segments
      const width = this.dimensions
      const embeddings = function* () {
        for (const { data, count } of segments) yield new Uint8Array(data.buffer, data.byteOffset, count * width * data.BYTES_PER_ELEMENT)
      }
      await writeSafetensors(
        path,
        [
          { name: 'embeddings', dtype: storage[this.dtype], shape: [this.size, width], bytes: embeddings },
          { name: 'ids', dtype: 'uint8', shape: [ids.length], bytes: () => [ids] },
        ],
        { format: 'chiasma-vector-index' },
      )
    })
  }

  /**
   * Reads an index that `save` wrote.
   * @throws CheckpointError naming the file and what is wrong with it.
   */
  static async load(path: string, options: { device?: string; threads?: number } = {}): Promise<VectorIndex> {
    const { metadata } = await readSafetensorsHeader(path)
    if (metadata['format'] !== 'chiasma-vector-index') throw new CheckpointError(`${path} is no saved VectorIndex`, { file: path })
    const { embeddings, ids } = await readTensors(path, { names: ['embeddings', 'ids'] })
    const dtype = (Object.keys(storage) as (keyof typeof storage)[]).find((name) => storage[name] === embeddings!.type)
    const [count = 0, dimensions = 0] = embeddings!.dims
    if (!dtype || embeddings!.dims.length !== 2) {
      throw new CheckpointError(`${path}: embeddings is ${embeddings!.type} [${embeddings!.dims}]`, { file: path, field: 'embeddings' })
    }
    let names: unknown
    try {
      names = JSON.parse(Buffer.from(ids!.data as Uint8Array).toString('utf8'))
    } catch (cause) {
      throw new CheckpointError(`${path}: ids is not JSON`, { file: path, field: 'ids', cause })
    }
    if (!Array.isArray(names) || (names.length && names.length !== count)) {
      throw new CheckpointError(`${path} has ${count} rows and ${(names as unknown[])?.length} ids`, { file: path, field: 'ids' })
    }
    const index = await VectorIndex.create({ dimensions, dtype, ...options })
    index.#append(embeddings!.data as Rows, count, names.map((name) => name ?? undefined))
    return index
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

  /** Rows in the stored type. int8: round(x · 127 / max|row|); the scale does not matter to a cosine. */
  async #convert(tensor: Tensor): Promise<Rows> {
    const { dimensions, dtype } = this
    const rows = tensor.data as Float32Array
    checkHeld(tensor, 'embeddings')
    const stored = dtype === 'f32' ? new Float32Array(rows.length) : dtype === 'bf16' ? new Uint16Array(rows.length) : new Int8Array(rows.length)
    const step = Math.max(1, Math.floor(sliceElements / dimensions)) * dimensions
    for (let begin = 0; begin < rows.length; begin += step) {
      const end = Math.min(rows.length, begin + step)
      for (let row = begin; row < end; row += dimensions) {
        let largest = 0
        for (let i = row; i < row + dimensions; i++) {
          const x = Math.abs(rows[i]!)
          if (!(x < Number.POSITIVE_INFINITY)) throw new ArgumentError(`embedding ${row / dimensions} holds ${rows[i]}`, { index: row / dimensions })
          if (x > largest) largest = x
        }
        if (dtype === 'int8') {
          const scale = largest > 0 ? 127 / largest : 0
          for (let i = row; i < row + dimensions; i++) stored[i] = Math.round(rows[i]! * scale)
        } else if (dtype === 'bf16') {
          for (let i = row; i < row + dimensions; i++) stored[i] = toBfloat16(rows[i]!)
        }
      }
      if (dtype === 'f32') stored.set(rows.subarray(begin, end), begin)
      if (end < rows.length) await new Promise((resolve) => setImmediate(resolve))
      checkHeld(tensor, 'embeddings')
    }
    return stored
  }

  #append(rows: Rows, n: number, ids: readonly (string | undefined)[]): void {
    const { dimensions } = this
    for (let begin = 0; begin < n; ) {
      let last = this.#segments.at(-1)
      if (!last || last.count === this.#capacity) {
        last = { data: rows.slice(0, 0), count: 0 }
        this.#segments.push(last)
      }
      const take = Math.min(n - begin, this.#capacity - last.count)
      const needed = (last.count + take) * dimensions
      if (needed > last.data.length) {
        const grown = Math.min(this.#capacity * dimensions, Math.max(needed, 2 * last.data.length))
        const larger = new (rows.constructor as new (length: number) => Rows)(begin + take < n ? needed : grown)
        larger.set(last.data.subarray(0, last.count * dimensions))
        last.data = larger
      }
      last.data.set(rows.subarray(begin * dimensions, (begin + take) * dimensions), last.count * dimensions)
      last.count += take
      unload(last)
      begin += take
    }
    for (let i = 0; i < n; i++) this.#ids.push(ids[i])
  }

  async #load(segment: Segment): Promise<NonNullable<Segment['loaded']>> {
    if (segment.loaded) return segment.loaded
    const type: DataType = storage[this.dtype]
    const shape = [segment.count, this.dimensions]
    const rows = { name: 'corpus', shape, dtype: type, role: 'plain' } satisfies Parameter
    const source = new Tensor(type, segment.data.subarray(0, segment.count * this.dimensions), shape)
    const weights = await this.#device.loadWeights([{ parameter: rows, source }])
    segment.loaded = { weights, parameter: rows, programs: new Map() }
    return segment.loaded
  }

  async #searchSome(queries: Tensor, k: number): Promise<Hit[][]> {
    const m = queries.dims[0]!
    const lists: Hit[][] = Array.from({ length: m }, () => [])
    if (!k) return lists
    let first = 0
    for (const segment of this.#segments) {
      const { weights, parameter: rows, programs } = await this.#load(segment)
      const kHere = Math.min(k, segment.count)
      const capacity = m === 1 ? 1 : queriesAtOnce
      const key = `${capacity} ${kHere}`
      let program = programs.get(key)
      if (!program) {
        const specs = { queries: { shape: [capacity, this.dimensions], dtype: 'float32', extent: { name: 'queries', per: 1 } } } as const
        program = compile(
          (inputs) => {
            const [scores, indices] = cosineTopK(inputs['queries']!, parameter(rows), { k: kHere })
            return { scores, indices }
          },
          specs,
          this.#device,
          weights,
        )
        programs.set(key, program)
      }
      const { scores, indices } = await program.run({ queries }, { counts: { queries: m } })
      for (let query = 0; query < m; query++) {
        for (let i = query * kHere; i < (query + 1) * kHere; i++) {
          const index = first + Number(indices!.data[i])
          const hit: Hit = { index, score: Number(scores!.data[i]) }
          const id = this.#ids[index]
          lists[query]!.push(id === undefined ? hit : { id, ...hit })
        }
      }
      first += segment.count
    }
    // Segments come in order of their indices and sort is stable, so ties stay with the lower index.
    if (this.#segments.length > 1) for (const list of lists) list.sort((a, b) => b.score - a.score).splice(k)
    return lists
  }
}

function unload(segment: Segment): void {
  if (!segment.loaded) return
  for (const program of segment.loaded.programs.values()) program.dispose()
  segment.loaded.weights.dispose()
  delete segment.loaded
}
