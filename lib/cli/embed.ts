// chiasma embed: images, sounds or texts to a file of embeddings, resumable.

import { type Command, InvalidArgumentError, Option } from 'commander'
import { type BigIntStats, fstatSync } from 'node:fs'
import { stat } from 'node:fs/promises'
import { extname } from 'node:path'
import { listDevices } from '../core/device.js'
import { ArgumentError, ChiasmaError, UnsupportedError } from '../core/errors.js'
import type { EmbedTimings } from '../data/timings.js'
import { Embedder, type StreamItem } from '../embed/embedder.js'
import { checkFormat, embeddingFormats, filesOf, writeEmbeddings } from '../io/embeddings.js'
import { hashCompanions, hashWeights } from '../io/model-folders.js'
import { packageVersion, print, say, sayOfItem } from './console.js'
import { fileMark, filePaths, readTexts } from './inputs.js'
import { Journal, type JournalEntry, journalFiles } from './journal.js'
import { type ModelOptions, loadOptions, positiveInteger, withModel } from './options.js'
import { Progress } from './progress.js'
import { StopSignals } from './stop-signals.js'

interface EmbedOptions extends ModelOptions {
  out: string
  texts?: string
  batchSize?: number
  normalize: boolean
  promptName?: string
  timings?: boolean
  json?: boolean
}

/** Items written to the journal at once: what an interruption may cost. */
const journalled = 32

interface Item {
  readonly name: string
  readonly value: StreamItem
  /** Changes when the item's contents do. */
  mark(): Promise<string | undefined>
}

export function define(command: Command): void {
  withModel(command)
    .argument('[paths...]', 'image files, or WAV files for a model that embeds sounds; folders or glob patterns')
    .requiredOption('-o, --out <file>', 'output: .safetensors, .npy, .jsonl, .arrow or .parquet', outputFile)
    .option('--texts <file>', "texts instead of files: one a line, or .jsonl; '-' for standard input")
    .option('--batch-size <n>', 'items given to the model at once; default: 32 images, texts of 2048 tokens in all, or sounds of some seconds', positiveInteger)
    .option('--prompt-name <name>', "one of the checkpoint's prompts, for texts")
    .option('--no-normalize', 'keep the length of the vectors')
    .option('--timings', 'say where the time went')
    .addOption(new Option('--json', 'print a summary as JSON on stdout'))
    .action(run)
}

function outputFile(name: string): string {
  if (!embeddingFormats().includes(extname(name).toLowerCase())) throw new InvalidArgumentError(`expected a name ending in ${embeddingFormats().join(', ')}`)
  return name
}

async function run(paths: string[], options: EmbedOptions): Promise<void> {
  if (Boolean(options.texts) === paths.length > 0) {
    throw new ArgumentError('embed takes paths of images or sounds, or --texts FILE, one of the two', { code: 'ERR_USAGE' })
  }
  await checkFormat(options.out)
  if (options.texts) await checkApart(options.texts, options.out)
  const texts = options.texts ? await textItems(options.texts) : undefined
  await using embedder = await Embedder.fromPretrained(options.model, loadOptions(options))
  const items = texts ?? (await fileItems(embedder, paths, options.model))
  say(`${options.model} on ${embedder.device} in ${embedder.dtype}, ${embedder.dimensions} dimensions`)
  const identity = await identityOf(embedder, options)
  const journal = await Journal.open(options.out, identity, embedder.dimensions, (entry, index) => fits(entry, items[index]))
  if (journal.differs.length) say(`starting anew: what ${options.out}.part held was made with another ${journal.differs.join(', ')}`)
  const resumed = journal.entries.length
  if (journal.dropped) {
    say(`${journal.dropped} of ${resumed + journal.dropped} items kept in ${options.out}.part no longer fit: item ${resumed + 1} is another, has changed or is gone`)
  }
  if (resumed) say(`going on after ${resumed} of ${items.length} items`)

  const started = performance.now()
  const stop = new StopSignals()
  try {
    await embedRest(embedder, items, journal, options, stop.signal)
    if (!journal.rows && items.length) throw new ArgumentError(`none of the ${items.length} items could be embedded`)
    stop.signal.throwIfAborted()
    const metadata = { model: options.model, weights: identity.model, dtype: embedder.dtype, normalized: String(options.normalize) }
    await writeEmbeddings(options.out, journal.source(metadata))
  } catch (error) {
    if (!journal.rows) await journal.remove()
    else await journal.close()
    if (journal.rows) say(`${journal.entries.length} of ${items.length} items are kept in ${options.out}.part; the same command goes on from there`)
    if (stop.signal.aborted) return stop.end()
    throw error
  }
  stop.forget()
  const rows = journal.rows
  await journal.remove()
  const seconds = (performance.now() - started) / 1000
  const rate = (items.length - resumed) / seconds
  const skipped = journal.entries.length - rows
  say(`${options.out}: ${rows} embeddings of ${embedder.dimensions} dimensions${skipped ? `, ${skipped} items skipped` : ''}; ${rate.toFixed(1)} a second`)
  if (options.json) {
    await print(JSON.stringify({ out: options.out, embedded: rows, skipped, dimensions: embedder.dimensions, seconds, device: embedder.device, dtype: embedder.dtype }))
  }
}

/**
 * The texts' own file is not written, by whatever name or link.
 * @throws ArgumentError
 */
async function checkApart(texts: string, out: string): Promise<void> {
  const same = (a: BigIntStats, b: BigIntStats) => a.isFile() && a.dev === b.dev && a.ino === b.ino
  const source = texts === '-' ? fstatSync(0, { bigint: true }) : await stat(texts, { bigint: true }).catch(() => undefined)
  for (const file of [...filesOf(out), ...journalFiles(out)]) {
    const there = await stat(file, { bigint: true }).catch(() => undefined)
    if (source && there && same(source, there)) {
      throw new ArgumentError(`--out ${out} writes ${file}, which --texts ${texts} reads; give another --out`, { code: 'ERR_USAGE', file })
    }
  }
}

/** Embeds what the journal does not have yet. What is finished is in the journal, however this ends. */
async function embedRest(embedder: Embedder, items: readonly Item[], journal: Journal, options: EmbedOptions, signal: AbortSignal): Promise<void> {
  const first = journal.entries.length
  const rest = items.slice(first)
  const progress = new Progress(options.texts ? 'texts' : takesSounds(embedder) ? 'sounds' : 'images', items.length, first)
  const pending: { entry: JournalEntry; row?: Float32Array }[] = []
  const write = async () => {
    const ready = pending.splice(0)
    if (ready.length) await journal.append(ready)
    progress.update(journal.entries.length)
  }
  const { batchSize, normalize, promptName } = options
  const streamOptions = { batchSize, normalize, promptName, signal, onTimings: options.timings ? sayTimings : undefined }
  try {
    for await (const { index, embedding, error } of embedder.embedStream(rest.map(({ value }) => value), streamOptions)) {
      const item = rest[index]!
      if (error && !(error instanceof ChiasmaError)) throw error
      const entry = { item: item.name, mark: await item.mark() }
      if (error) sayOfItem(item.name, error)
      pending.push(error ? { entry: { ...entry, error: error.message } } : { entry, row: embedding })
      if (pending.length >= Math.min(batchSize ?? journalled, journalled)) await write()
    }
    await write()
  } catch (error) {
    if (signal.aborted) await write()
    throw error
  } finally {
    progress.stop()
  }
}

function sayTimings({ total, ...stages }: EmbedTimings): void {
  const shares = Object.entries(stages).map(([stage, seconds]) => `${stage} ${Math.round((100 * seconds) / total)}%`)
  say(`of ${total.toFixed(1)} s, the time in which each stage had work: ${shares.join(', ')}`)
}

function takesSounds({ model }: Embedder): boolean {
  return model.audioEncoder !== undefined
}

/** What the model takes of files: no model takes images and sounds. */
async function fileItems(embedder: Embedder, paths: string[], source: string): Promise<Item[]> {
  const { imageEncoder, patchEncoder } = embedder.model
  const sounds = takesSounds(embedder)
  if (!sounds && !imageEncoder && !patchEncoder) throw new UnsupportedError(`${source} embeds neither images nor sounds; give texts with --texts FILE`)
  return (await filePaths(paths, sounds ? 'sound' : 'image')).map((path) => ({ name: path, value: sounds ? { audio: path } : { image: path }, mark: () => fileMark(path) }))
}

async function textItems(file: string): Promise<Item[]> {
  return (await readTexts(file)).map((text) => ({ name: text, value: { text }, mark: async () => undefined }))
}

async function fits(entry: JournalEntry, item: Item | undefined): Promise<boolean> {
  return item !== undefined && entry.item === item.name && entry.mark === (await item.mark())
}

/** What decides the numbers beside the items. */
async function identityOf(embedder: Embedder, { normalize, promptName }: EmbedOptions) {
  const info = (await listDevices()).find(({ id }) => id === embedder.device)
  return {
    version: packageVersion(),
    model: await hashWeights(embedder.model.folder),
    configuration: await hashCompanions(embedder.model.folder),
    device: info?.kind === 'cpu' ? `cpu ${info.isa?.at(-1)}` : `${info?.kind} ${info?.name}`,
    dtype: embedder.dtype,
    normalize,
    promptName: promptName ?? null,
  }
}
