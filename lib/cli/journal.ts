// The journal of an embedding run, so that an interrupted one (SIGKILL too) goes on where it stopped: FILE.part holds the rows, raw
// float32, and FILE.part.jsonl one line an item, after a first line that says what made them. A line is written after its row,
// so whatever both files agree on is complete; anything beyond that, and anything that no longer fits the run, is cut off.

import { type FileHandle, open, readFile, rm } from 'node:fs/promises'
import { CheckpointError } from '../core/errors.js'
import type { EmbeddingSource, RowBlock } from '../io/embeddings.js'

/** What a line says: the item, a mark of its contents (size and time), and the error if it has no row. */
export interface JournalEntry {
  readonly item: string
  readonly mark?: string
  readonly error?: string
}

export class Journal {
  /** What the journal holds, in order. */
  readonly entries: JournalEntry[] = []
  #rows = 0
  #lineBytes = 0
  readonly #rowsFile: FileHandle
  readonly #linesFile: FileHandle

  private constructor(
    readonly file: string,
    readonly dimensions: number,
    rowsFile: FileHandle,
    linesFile: FileHandle,
  ) {
    this.#rowsFile = rowsFile
    this.#linesFile = linesFile
  }

  /**
   * Opens the journal beside `file`, keeping what an earlier run with the same `identity` left.
   * @param fits whether entry `i` of the earlier run is still item `i` of this one; the first that is not ends what is kept
   */
  static async open(
    file: string,
    identity: Readonly<Record<string, unknown>>,
    dimensions: number,
    fits: (entry: JournalEntry, index: number) => boolean | Promise<boolean>,
  ): Promise<Journal> {
    const [rowsPath, linesPath] = [`${file}.part`, `${file}.part.jsonl`]
    const head = `${JSON.stringify({ ...identity, dimensions })}\n`
    let text = await readFile(linesPath, 'utf8').catch(() => '')
    if (!text.startsWith(head)) text = ''
    const rowsFile = await open(rowsPath, text ? 'r+' : 'w+')
    const linesFile = await open(linesPath, text ? 'r+' : 'w+')
    const journal = new Journal(file, dimensions, rowsFile, linesFile)
    const rowBytes = dimensions * 4
    let rows = 0
    let kept = head
    if (text) {
      const available = Math.floor((await rowsFile.stat()).size / rowBytes)
      const lines = text.slice(head.length, text.lastIndexOf('\n') + 1).split('\n')
      for (const line of lines.slice(0, -1)) {
        const entry = parseEntry(line)
        if (!entry || !(await fits(entry, journal.entries.length))) break
        if (entry.error === undefined && ++rows > available) {
          rows = available
          break
        }
        journal.entries.push(entry)
        kept += `${line}\n`
      }
    }
    journal.#rows = rows
    await rowsFile.truncate(rows * rowBytes)
    await linesFile.truncate(0)
    await journal.#writeLines(kept)
    return journal
  }

  /** Rows so far; entries less those with an error. */
  get rows(): number {
    return this.#rows
  }

  /** Appends entries with their rows (none for an entry with an error). */
  async append(added: readonly { entry: JournalEntry; row?: Float32Array }[]): Promise<void> {
    const rows = added.flatMap(({ row }) => (row ? [Buffer.from(row.buffer, row.byteOffset, row.byteLength)] : []))
    await writeAll(this.#rowsFile, Buffer.concat(rows), this.#rows * this.dimensions * 4)
    await this.#writeLines(added.map(({ entry }) => `${JSON.stringify(entry)}\n`).join(''))
    this.#rows += rows.length
    for (const { entry } of added) this.entries.push(entry)
  }

  async #writeLines(lines: string): Promise<void> {
    const bytes = Buffer.from(lines)
    await writeAll(this.#linesFile, bytes, this.#lineBytes)
    this.#lineBytes += bytes.length
  }

  /** The finished rows, read back a block at a time. */
  source(metadata: Readonly<Record<string, string>>): EmbeddingSource {
    return { count: this.#rows, dimensions: this.dimensions, metadata, blocks: () => this.#blocks() }
  }

  async *#blocks(): AsyncGenerator<RowBlock, void, undefined> {
    const items = this.entries.filter(({ error }) => error === undefined).map(({ item }) => item)
    for (let begin = 0; begin < items.length; begin += 1024) {
      const block = items.slice(begin, begin + 1024)
      const rows = new Float32Array(block.length * this.dimensions)
      const { bytesRead } = await this.#rowsFile.read(new Uint8Array(rows.buffer), 0, rows.byteLength, begin * this.dimensions * 4)
      if (bytesRead !== rows.byteLength) throw new CheckpointError(`${this.file}.part is shorter than it was`, { file: `${this.file}.part` })
      yield { items: block, rows }
    }
  }

  async close(): Promise<void> {
    await Promise.all([this.#rowsFile.close(), this.#linesFile.close()])
  }

  /** Deletes the journal's files; the run is complete. */
  async remove(): Promise<void> {
    await this.close()
    await Promise.all([rm(`${this.file}.part`, { force: true }), rm(`${this.file}.part.jsonl`, { force: true })])
  }
}

/** One write may take less than it is given, when the disk is nearly full. */
async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten
  }
}

function parseEntry(line: string): JournalEntry | undefined {
  try {
    const entry = JSON.parse(line)
    return typeof entry?.item === 'string' ? entry : undefined
  } catch {
    return undefined
  }
}
