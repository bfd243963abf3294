// The journal of an embedding run, so that an interrupted one (SIGKILL too) goes on where it stopped: FILE.part holds the rows, raw
// float32, and FILE.part.jsonl one line an item, after a first line that says what made them. A line is written after its row,
// so whatever both files agree on is complete; anything beyond that, and anything that no longer fits the run, is cut off.
// FILE.part.lock names the process that writes, so that two runs do not mix their rows.

import { constants, createReadStream } from 'node:fs'
import { copyFile, type FileHandle, link, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { ArgumentError, CheckpointError } from '../core/errors.js'
import type { EmbeddingSource, RowBlock } from '../io/embeddings.js'
import { writeError } from '../io/entry.js'
import { rawLinesOf } from '../io/lines.js'
import { isAlive } from '../io/process-alive.js'
import { temporaryName } from '../io/safetensors.js'

/** What a line says: the item, a mark of its contents (size and time), and the error if it has no row. */
export interface JournalEntry {
  readonly item: string
  readonly mark?: string
  readonly error?: string
}

/** The files of the journal beside `file`: rows, lines and lock. */
export function journalFiles(file: string): [rows: string, lines: string, lock: string] {
  return [`${file}.part`, `${file}.part.jsonl`, lockOf(file)]
}

export class Journal {
  /** What the journal holds, in order. */
  readonly entries: JournalEntry[] = []
  /** What differs from the run that left a journal here, which was dropped for that: 'model', 'dtype', … */
  readonly differs: readonly string[]
  /** How many entries of that run are not kept, since the item of the first of them is another now. */
  readonly dropped: number
  #rows = 0
  #lineBytes = 0
  readonly #rowsFile: FileHandle
  readonly #linesFile: FileHandle

  private constructor(
    readonly file: string,
    readonly dimensions: number,
    rowsFile: FileHandle,
    linesFile: FileHandle,
    { differs, dropped }: { differs: readonly string[]; dropped: number },
  ) {
    this.differs = differs
    this.dropped = dropped
    this.#rowsFile = rowsFile
    this.#linesFile = linesFile
  }

  /**
   * Opens the journal beside `file`, keeping what an earlier run with the same `identity` left.
   * @param identity all that decides the numbers beside the items
   * @param fits whether entry `i` of the earlier run is still item `i` of this one; the first that is not ends what is kept
   * @throws CheckpointError where the system refuses (a full disk), ArgumentError while another process writes there
   */
  static async open(
    file: string,
    identity: Readonly<Record<string, unknown>>,
    dimensions: number,
    fits: (entry: JournalEntry, index: number) => boolean | Promise<boolean>,
  ): Promise<Journal> {
    const [rowsPath, linesPath] = journalFiles(file)
    await lock(file)
    try {
      return await Journal.#read(file, { rowsPath, linesPath }, { ...identity, dimensions }, fits)
    } catch (cause) {
      await rm(lockOf(file), { force: true })
      throw writeError(`${file}.part`, cause)
    }
  }

  static async #read(
    file: string,
    { rowsPath, linesPath }: { rowsPath: string; linesPath: string },
    identity: Readonly<Record<string, unknown>> & { dimensions: number },
    fits: (entry: JournalEntry, index: number) => boolean | Promise<boolean>,
  ): Promise<Journal> {
    const { dimensions } = identity
    const head = `${JSON.stringify(identity)}\n`
    const entries: JournalEntry[] = []
    let differs: readonly string[] = []
    let [rows, available, lineBytes, dropped] = [0, 0, 0, 0]
    try {
      for await (const line of rawLinesOf(createReadStream(linesPath))) {
        const text = line.toString('utf8')
        if (lineBytes === 0) {
          if (text !== head) {
            differs = differences(text, identity)
            break
          }
          available = await rowsThere(rowsPath, dimensions)
        } else {
          const entry = text.endsWith('\n') ? parseEntry(text) : undefined
          if (!entry) break
          if (dropped || !(await fits(entry, entries.length))) {
            dropped++
            continue
          }
          if (entry.error === undefined && rows === available) break
          if (entry.error === undefined) rows++
          entries.push(entry)
        }
        lineBytes += line.length
      }
    } catch (error) {
      // Only what is not there is taken for empty: that is begun anew.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
    const flags = lineBytes ? 'r+' : 'w+'
    const rowsFile = await open(rowsPath, flags).catch(() => open(rowsPath, 'w+'))
    const linesFile = await open(linesPath, flags)
    const journal = new Journal(file, dimensions, rowsFile, linesFile, { differs, dropped })
    for (const entry of entries) journal.entries.push(entry)
    journal.#rows = rows
    await rowsFile.truncate(rows * dimensions * 4)
    // What is kept is how the file begins; it is never taken away and written again.
    journal.#lineBytes = lineBytes
    await linesFile.truncate(lineBytes)
    if (lineBytes === 0) await journal.#writeLines(head)
    return journal
  }

  /** Rows so far; entries less those with an error. */
  get rows(): number {
    return this.#rows
  }

  /**
   * Appends entries with their rows (none for an entry with an error).
   * @throws CheckpointError where the system refuses (a full disk); what was there before is as it was
   */
  async append(added: readonly { entry: JournalEntry; row?: Float32Array }[]): Promise<void> {
    const rows = added.flatMap(({ row }) => (row ? [Buffer.from(row.buffer, row.byteOffset, row.byteLength)] : []))
    try {
      await writeAll(this.#rowsFile, Buffer.concat(rows), this.#rows * this.dimensions * 4)
      await this.#writeLines(added.map(({ entry }) => `${JSON.stringify(entry)}\n`).join(''))
    } catch (cause) {
      throw writeError(`${this.file}.part`, cause)
    }
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

  /** Closes the files and leaves them for a later run; an empty journal goes. */
  async close(): Promise<void> {
    if (!this.entries.length) return this.remove()
    await this.#close()
    await rm(lockOf(this.file), { force: true })
  }

  async #close(): Promise<void> {
    await Promise.all([this.#rowsFile.close(), this.#linesFile.close()])
  }

  /** Deletes the journal's files, its lock last; the run is complete. */
  async remove(): Promise<void> {
    await this.#close()
    for (const file of journalFiles(this.file)) await rm(file, { force: true })
  }
}

/** How many whole rows a file has; none if it is not there. */
async function rowsThere(path: string, dimensions: number): Promise<number> {
  const { size } = await stat(path).catch(() => ({ size: 0 }))
  return Math.floor(size / (4 * dimensions))
}

/** One write may take less than it is given, when the disk is nearly full. */
async function writeAll(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await file.write(bytes, done, bytes.length - done, position + done)).bytesWritten
  }
}

function parseEntry(line: string): JournalEntry | undefined {
  const entry = parseJson(line) as JournalEntry | null | undefined
  return typeof entry?.item === 'string' ? entry : undefined
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** The fields in which the head of an earlier journal is another. */
function differences(head: string, identity: Readonly<Record<string, unknown>>): string[] {
  const earlier = (parseJson(head) ?? {}) as Record<string, unknown>
  return Object.keys(identity).filter((name) => earlier[name] !== identity[name])
}

const lockOf = (file: string) => `${file}.part.lock`

/** Makes the lock ours, unless the process that made it is still there. It comes and goes whole where a file may have two names. */
async function lock(file: string): Promise<void> {
  const path = lockOf(file)
  const own = temporaryName(path)
  try {
    await writeFile(own, `${process.pid} ${await startOf(process.pid)}`, { flag: 'wx' })
    for (let attempt = 0; ; attempt++) {
      const cause = await place(own, path).then(() => undefined, (error: NodeJS.ErrnoException) => error)
      if (!cause) return
      if (cause.code !== 'EEXIST' || attempt === 3) throw cause
      const held = await readFile(path, 'utf8').catch(() => '')
      const [pid = 0, start] = held.split(' ')
      if (Number(pid) > 0 && isAlive(Number(pid)) && (await startOf(Number(pid))) === start) {
        throw new ArgumentError(`another run (process ${pid}) is writing ${file}; wait for its end, or give another --out`, { file })
      }
      await removeStale(path, held)
    }
  } catch (cause) {
    throw writeError(`${file}.part`, cause)
  } finally {
    await rm(own, { force: true })
  }
}

/** Gives the file `own` a second name, which nothing has yet. */
async function place(own: string, path: string): Promise<void> {
  await link(own, path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'EEXIST') throw cause
    return copyFile(own, path, constants.COPYFILE_EXCL) // a file system without links
  })
}

/** Takes a lock away that holds `content`. Of two that try only one moves it; what came in its place meanwhile is put back. */
async function removeStale(path: string, content: string): Promise<void> {
  const moved = temporaryName(path)
  try {
    await rename(path, moved)
    if ((await readFile(moved, 'utf8')) !== content) await place(moved, path)
  } catch (cause) {
    if (!['ENOENT', 'EEXIST'].includes((cause as NodeJS.ErrnoException).code!)) throw cause
  } finally {
    await rm(moved, { force: true })
  }
}

/** When a process began, where the system says so: numbers of processes come back. */
async function startOf(pid: number): Promise<string> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '')
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? ''
}
