// Embedding files: `embeddings` float32 [n, d] and the item each row belongs to, in five formats chosen by the file's extension.
// .safetensors and .npy hold the matrix, with FILE.items.jsonl ({"item": …} a line) beside; .jsonl, .arrow and .parquet hold item and embedding.
// What made them (the model, its weights' hash, …) is in the file, or in FILE.metadata.json beside .npy and .jsonl, which have no place for it.
// Written a block of rows at a time and put in place only when complete, with what stands beside: an old file stays whole until then. Arrow and Parquet come from optional peer packages.

import { createReadStream } from 'node:fs'
import { rename, rm, stat } from 'node:fs/promises'
import { dirname, extname } from 'node:path'
import { ArgumentError, CheckpointError, UnsupportedError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { isFile, readExactly, readInto, withFile, writeError } from './entry.js'
import { readJsonObject } from './json.js'
import { linesOf } from './lines.js'
import { readSafetensorsHeader, readTensors, temporaryName, writeAtomically, writeSafetensors } from './safetensors.js'

/** A block of consecutive rows: `rows` is float32 [items.length, dimensions]. */
export interface RowBlock {
  readonly items: readonly string[]
  readonly rows: Float32Array
}

export interface EmbeddingSource {
  readonly count: number
  readonly dimensions: number
  blocks(): AsyncIterable<RowBlock>
  /** Said about the file (model, weights, dtype, …). */
  readonly metadata?: EmbeddingMetadata
}

export type EmbeddingMetadata = Readonly<Record<string, string>>

export interface EmbeddingTable {
  readonly items: string[]
  /** float32 [n, d] */
  readonly embeddings: Tensor
  /** What the file says about itself; of a file that others wrote nothing, or something else. */
  readonly metadata: EmbeddingMetadata
}

interface Format {
  write(file: string, source: EmbeddingSource): Promise<void>
  read(file: string): Promise<EmbeddingTable>
  /** The optional package it needs. */
  load?: () => Promise<unknown>
}

/** How names of these files end. */
export const embeddingFormats = (): string[] => Object.keys(formats)

/**
 * Checks that a file of this name can be written here, before any work is done for it.
 * @throws ArgumentError for an unknown extension, a folder, and a file in one that is not there; UnsupportedError naming an optional package that is not installed.
 */
export async function checkFormat(file: string): Promise<void> {
  await formatOf(file).load?.()
  const there = await stat(file).catch(() => undefined)
  if (there?.isDirectory()) throw new ArgumentError(`${file} is a folder; expected the name of a file`, { file })
  const folder = dirname(file)
  if (!(await stat(folder).catch(() => undefined))?.isDirectory()) throw new ArgumentError(`${file} cannot be written: there is no folder ${folder}`, { file })
}

/** Writes the rows of `source`; an existing file is replaced once the new one is complete. */
export async function writeEmbeddings(file: string, source: EmbeddingSource): Promise<void> {
  await formatOf(file).write(file, source)
}

/**
 * Reads a file that `writeEmbeddings` (or the `embed` command) wrote.
 * @throws CheckpointError naming the file and what is wrong with it.
 */
export async function readEmbeddings(file: string): Promise<EmbeddingTable> {
  const table = await formatOf(file).read(file)
  const [rows] = table.embeddings.dims
  if (rows !== table.items.length) {
    throw new CheckpointError(`${file} has ${rows} embeddings and ${table.items.length} items`, { file })
  }
  return table
}

/** Where what is said about a .npy or .jsonl file is. */
function metadataFile(file: string): string {
  return `${file}.metadata.json`
}

/** Where the items of a .safetensors or .npy file are. */
function itemsFile(file: string): string {
  return `${file}.items.jsonl`
}

/** The file and what may stand beside it. */
export function filesOf(file: string): string[] {
  return [file, itemsFile(file), metadataFile(file)]
}

function formatOf(file: string): Format {
  const format = formats[extname(file).toLowerCase()]
  if (!format) throw new ArgumentError(`${file}: unknown format; expected a name ending in ${embeddingFormats().join(', ')}`, { file })
  return format
}

/** How an Arrow file begins and ends. */
const ARROW_MAGIC = 'ARROW1'

const formats: Readonly<Record<string, Format>> = {
  '.safetensors': {
    async write(file, source) {
      const bytes = async function* () {
        for await (const { rows } of source.blocks()) yield bytesOf(rows)
      }
      const tensor = { name: 'embeddings', dtype: 'float32' as const, shape: [source.count, source.dimensions], bytes }
      await withItems(file, source, () => writeSafetensors(file, [tensor], source.metadata))
    },
    async read(file) {
      const { metadata } = await readSafetensorsHeader(file)
      const { embeddings } = await readTensors(file, { names: ['embeddings'] })
      if (embeddings!.type !== 'float32' || embeddings!.dims.length !== 2) {
        throw new CheckpointError(`${file}: embeddings is ${embeddings!.type} [${embeddings!.dims}]; expected float32 [n, d]`, { file })
      }
      return { items: await readItems(file), embeddings: embeddings!, metadata }
    },
  },
  '.npy': {
    async write(file, source) {
      const writeMatrix = () =>
        writeAtomically(file, async (write) => {
          await write(npyHeader(source.count, source.dimensions))
          for await (const { rows } of source.blocks()) await write(bytesOf(rows))
        })
      await withItems(file, source, () => withMetadata(file, source, writeMatrix))
    },
    async read(file) {
      return { embeddings: await readNpy(file), items: await readItems(file), metadata: await readMetadata(file) }
    },
  },
  '.jsonl': {
    async write(file, source) {
      const writeLines = () =>
        writeAtomically(file, async (write) => {
          for await (const { items, rows } of source.blocks()) {
            const lines = items.map((item, i) => {
              const row = rows.subarray(i * source.dimensions, (i + 1) * source.dimensions)
              return `{"item":${JSON.stringify(item)},"embedding":[${Array.from(row, shortest).join(',')}]}\n`
            })
            await write(Buffer.from(lines.join('')))
          }
        })
      await withMetadata(file, source, writeLines)
    },
    async read(file) {
      const table = new TableReader(file)
      let line = 0
      for await (const text of fileLines(file)) {
        line++
        if (text) table.add(parseLine(text, file, line), `line ${line}`)
      }
      return table.finish(await readMetadata(file))
    },
  },
  '.arrow': {
    load: arrow,
    async write(file, source) {
      const { AsyncByteQueue, FixedSizeList, Field, Float32, Table, Utf8, vectorFromArray, makeData, makeVector, RecordBatchFileWriter, Schema } = await arrow()
      const type = new FixedSizeList(source.dimensions, new Field('item', new Float32(), false))
      const schema = new Schema([new Field('item', new Utf8(), false), new Field('embedding', type, false)], new Map(Object.entries(source.metadata ?? {})))
      // A queue would take all there is, however slow the disk.
      const chunks: Uint8Array[] = []
      const sink = new (class extends AsyncByteQueue {
        override write(chunk: ArrayBufferView): void {
          chunks.push(new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.byteLength))
        }
      })()
      const writer = new RecordBatchFileWriter()
      writer.reset(sink, schema)
      await writeAtomically(file, async (write) => {
        const drain = async () => {
          for (const chunk of chunks.splice(0)) await write(chunk)
        }
        for await (const { items, rows } of source.blocks()) {
          const child = makeData({ type: new Float32(), data: rows })
          const embedding = makeVector(makeData({ type, length: items.length, nullCount: 0, child }))
          const table = new Table(schema, { item: vectorFromArray(items as string[], new Utf8()), embedding })
          for (const batch of table.batches) writer.write(batch)
          await drain()
        }
        writer.finish()
        await drain()
      })
    },
    async read(file) {
      const { RecordBatchReader } = await arrow()
      return withFile(file, async (handle, size) => {
        const magicAt = async (position: number) => (await readExactly(handle, file, position, ARROW_MAGIC.length)).toString('latin1') === ARROW_MAGIC
        if (size < ARROW_MAGIC.length) throw new CheckpointError(`${file} has ${size} bytes, and is no Arrow file`, { file })
        // A stream, which other programs write, has no such ends.
        if ((await magicAt(0)) && !(await magicAt(size - ARROW_MAGIC.length))) {
          throw new CheckpointError(`${file} is cut off: it begins with ${ARROW_MAGIC} and does not end with it`, { file })
        }
        const table = new TableReader(file)
        try {
          // A batch at a time, whatever the file's size.
          const batches = await (await RecordBatchReader.from(handle)).open()
          const { schema } = batches // gone once it is read through
          const columns = schema.names.map(String)
          if (!columns.includes('item') || !columns.includes('embedding')) {
            throw new CheckpointError(`${file} has the columns ${columns.join(', ')}; expected item and embedding`, { file })
          }
          for await (const batch of batches) {
            for (const row of batch) table.add({ item: row['item'], embedding: row['embedding']?.toArray() }, `row ${table.rows}`)
          }
          return table.finish(Object.fromEntries(schema.metadata))
        } catch (cause) {
          throw cause instanceof CheckpointError ? cause : new CheckpointError(`${file} cannot be read as Arrow: ${(cause as Error).message}`, { file, cause })
        }
      })
    },
  },
  '.parquet': {
    load: parquetWriter,
    async write(file, source) {
      const { ParquetWriter, fileWriter } = await parquetWriter()
      const temporary = temporaryName(file)
      try {
        const writer = new ParquetWriter({
          writer: fileWriter(temporary),
          schema: [
            { name: 'root', num_children: 2 },
            { name: 'item', type: 'BYTE_ARRAY', converted_type: 'UTF8', repetition_type: 'REQUIRED' },
            { name: 'embedding', converted_type: 'LIST', repetition_type: 'REQUIRED', num_children: 1 },
            { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
            { name: 'element', type: 'FLOAT', repetition_type: 'REQUIRED' },
          ],
          kvMetadata: Object.entries(source.metadata ?? {}).map(([key, value]) => ({ key, value })),
        })
        for await (const { items, rows } of source.blocks()) {
          const embedding = items.map((_, i) => Array.from(rows.subarray(i * source.dimensions, (i + 1) * source.dimensions)))
          await writer.write({
            columnData: [
              { name: 'item', data: [...items] },
              { name: 'embedding', data: embedding, encoding: 'PLAIN', statistics: false },
            ],
            rowGroupSize: Math.max(1, items.length),
          })
        }
        await writer.finish()
        await rename(temporary, file)
      } catch (cause) {
        throw writeError(file, cause)
      } finally {
        await rm(temporary, { force: true })
      }
    },
    async read(file) {
      const { asyncBufferFromFile, parquetMetadataAsync, parquetReadObjects } = await parquetReader()
      const reader = new TableReader(file)
      const metadata: Record<string, string> = {}
      let rows: Record<string, unknown>[]
      try {
        const buffer = await asyncBufferFromFile(file)
        const { key_value_metadata: said = [] } = await parquetMetadataAsync(buffer)
        for (const { key, value } of said) metadata[key] = value ?? ''
        rows = await parquetReadObjects({ file: buffer, columns: ['item', 'embedding'] })
      } catch (cause) {
        throw new CheckpointError(`${file} cannot be read as Parquet: ${(cause as Error).message}`, { file, cause })
      }
      for (const row of rows) reader.add(row, `row ${reader.rows}`)
      return reader.finish(metadata)
    },
  },
}

/** Collects rows of one length. */
class TableReader {
  rows = 0
  readonly #items: string[] = []
  #data = new Float32Array(0)
  #dimensions = 0

  constructor(readonly file: string) {}

  add(row: { item?: unknown; embedding?: unknown }, where: string): void {
    const { item, embedding } = row
    if (typeof item !== 'string' || !isNumbers(embedding)) {
      throw new CheckpointError(`${this.file}: ${where} has no item and embedding`, { file: this.file })
    }
    if (this.rows === 0) this.#dimensions = embedding.length
    if (embedding.length !== this.#dimensions) {
      throw new CheckpointError(`${this.file}: ${where} has ${embedding.length} dimensions; the rows before have ${this.#dimensions}`, { file: this.file })
    }
    const begin = this.rows * this.#dimensions
    if (begin + embedding.length > this.#data.length) {
      const larger = new Float32Array(Math.max(2 * this.#data.length, 1024 * this.#dimensions))
      larger.set(this.#data)
      this.#data = larger
    }
    this.#data.set(embedding, begin)
    this.#items.push(item)
    this.rows++
  }

  finish(metadata: EmbeddingMetadata): EmbeddingTable {
    const data = this.#data.slice(0, this.rows * this.#dimensions)
    return { items: this.#items, embeddings: new Tensor('float32', data, [this.rows, this.#dimensions]), metadata }
  }
}

function isNumbers(value: unknown): value is ArrayLike<number> {
  return value instanceof Float32Array || (Array.isArray(value) && value.every((x) => typeof x === 'number'))
}

/** Writes the items, and puts them in place once `writeFile` has done so with the file that they belong to. */
async function withItems(file: string, source: EmbeddingSource, writeFile: () => Promise<void>): Promise<void> {
  await writeAtomically(itemsFile(file), async (write) => {
    for await (const { items } of source.blocks()) {
      await write(Buffer.from(items.map((item) => `${JSON.stringify({ item })}\n`).join('')))
    }
    await writeFile()
  })
}

/** As `withItems`, for what is said about the file. */
async function withMetadata(file: string, { metadata = {} }: EmbeddingSource, writeFile: () => Promise<void>): Promise<void> {
  await writeAtomically(metadataFile(file), async (write) => {
    await write(Buffer.from(`${JSON.stringify(metadata)}\n`))
    await writeFile()
  })
}

async function readMetadata(file: string): Promise<EmbeddingMetadata> {
  const beside = metadataFile(file)
  if (!(await isFile(beside))) return {}
  return Object.fromEntries(Object.entries(await readJsonObject(beside)).map(([key, value]) => [key, String(value)]))
}

async function readItems(file: string): Promise<string[]> {
  const items: string[] = []
  for await (const text of fileLines(itemsFile(file))) {
    if (!text) continue
    const { item } = parseLine(text, itemsFile(file), items.length + 1)
    if (typeof item !== 'string') throw new CheckpointError(`${itemsFile(file)}: line ${items.length + 1} has no item`, { file: itemsFile(file) })
    items.push(item)
  }
  return items
}

async function* fileLines(file: string): AsyncGenerator<string, void, undefined> {
  const input = createReadStream(file)
  try {
    yield* linesOf(input)
  } catch (cause) {
    throw new CheckpointError(`${file} cannot be read: ${(cause as Error).message}`, { file, cause })
  } finally {
    input.destroy()
  }
}

function parseLine(text: string, file: string, line: number): { item?: unknown; embedding?: unknown } {
  try {
    return JSON.parse(text) ?? {}
  } catch (cause) {
    throw new CheckpointError(`${file}: line ${line} is not JSON: ${(cause as Error).message}`, { file, cause })
  }
}

/** The shortest decimal that reads back as the same float32; null, as JSON has it, for what is no number. */
function shortest(value: number): string {
  if (!Number.isFinite(value)) return 'null'
  for (let digits = 6; digits < 9; digits++) {
    const text = value.toPrecision(digits)
    if (Math.fround(Number(text)) === value) return String(Number(text))
  }
  return String(Number(value.toPrecision(9)))
}

/** NumPy's format, version 1.0: magic, header length, a Python dict padded to 64 bytes. */
function npyHeader(rows: number, columns: number): Uint8Array {
  const dict = `{'descr': '<f4', 'fortran_order': False, 'shape': (${rows}, ${columns}), }`
  const length = Math.ceil((10 + dict.length + 1) / 64) * 64 - 10
  const header = Buffer.alloc(10 + length, ' ')
  header.write('\x93NUMPY\x01\x00', 0, 'latin1')
  header.writeUInt16LE(length, 8)
  header.write(dict, 10, 'latin1')
  header.write('\n', 9 + length, 'latin1')
  return header
}

async function readNpy(file: string): Promise<Tensor> {
  return withFile(file, async (handle, size) => {
    const refuse = (why: string): CheckpointError => new CheckpointError(`${file}: ${why}`, { file })
    if (size < 10) throw refuse('is too short for an .npy file')
    const start = await readExactly(handle, file, 0, 10)
    if (start.toString('latin1', 0, 6) !== '\x93NUMPY') throw refuse('is no .npy file')
    const length = start.readUInt16LE(8)
    if (10 + length > size) throw refuse(`header length ${length} goes past the end of the file`)
    const dict = (await readExactly(handle, file, 10, length)).toString('latin1')
    const shape = /'shape':\s*\((\d+),\s*(\d+),?\s*\)/.exec(dict)
    if (!shape || !dict.includes("'<f4'") || !/'fortran_order':\s*False/.test(dict)) throw refuse(`holds ${dict.trim()}; expected row-major '<f4' of two dimensions`)
    const [rows, columns] = [Number(shape[1]), Number(shape[2])]
    if (10 + length + rows * columns * 4 !== size) throw refuse(`has ${size} bytes; [${rows}, ${columns}] float32 needs ${10 + length + rows * columns * 4}`)
    const data = new Float32Array(rows * columns)
    await readInto(handle, file, 10 + length, data)
    return new Tensor('float32', data, [rows, columns])
  })
}

function bytesOf(rows: Float32Array): Uint8Array {
  return new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength)
}

function arrow() {
  return optional('apache-arrow', '.arrow', () => import('apache-arrow'))
}
function parquetWriter() {
  return optional('hyparquet-writer', '.parquet', () => import('hyparquet-writer'))
}
function parquetReader() {
  return optional('hyparquet', '.parquet', () => import('hyparquet'))
}

async function optional<T>(name: string, extension: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load()
  } catch (cause) {
    throw new UnsupportedError(`${extension} files need the package ${name}, which is not installed; run: npm install ${name}`, { cause })
  }
}
