// chiasma embed: images or texts to a file of embeddings, resumable.

import { type Command, Option } from 'commander'
import { readFile } from 'node:fs/promises'
import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { ArgumentError, ChiasmaError } from '../core/errors.js'
import type { EmbedTimings } from '../data/timings.js'
import { Embedder, type StreamItem } from '../embed/embedder.js'
import { checkFormat, writeEmbeddings } from '../io/embeddings.js'
import { print, say } from './console.js'
import { fileMark, imagePaths, readTexts } from './inputs.js'
import { Journal, type JournalEntry } from './journal.js'
import { type ModelOptions, loadOptions, positiveInteger, withModel } from './options.js'
import { Progress } from './progress.js'

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
    .argument('[paths...]', 'image files, folders or glob patterns')
    .requiredOption('-o, --out <file>', 'output: .safetensors, .npy, .jsonl, .arrow or .parquet')
    .option('--texts <file>', 'texts instead of images: one a line, or .jsonl')
    .option('--batch-size <n>', 'items given to the model at once; default: 32 images, or texts of 2048 tokens in all', positiveInteger)
    .option('--prompt-name <name>', "one of the checkpoint's prompts, for texts")
    .option('--no-normalize', 'keep the length of the vectors')
    .option('--timings', 'say where the time went')
    .addOption(new Option('--json', 'print a summary as JSON on stdout'))
    .action(run)
}

async function run(paths: string[], options: EmbedOptions): Promise<void> {
  if (Boolean(options.texts) === paths.length > 0) {
    throw new ArgumentError('embed takes image paths or --texts FILE, one of the two', { code: 'ERR_USAGE' })
  }
  await checkFormat(options.out)
  const items = options.texts ? await textItems(options.texts) : await imageItems(paths)
  await using embedder = await Embedder.fromPretrained(options.model, loadOptions(options))
  say(`${options.model} on ${embedder.device} in ${embedder.dtype}, ${embedder.dimensions} dimensions`)
  const journal = await Journal.open(options.out, await identityOf(embedder, options), embedder.dimensions, (entry, index) => fits(entry, items[index]))
  const resumed = journal.entries.length
  if (resumed) say(`going on after ${resumed} of ${items.length} items`)

  const started = performance.now()
  let skipped = journal.entries.filter(({ error }) => error !== undefined).length
  const progress = new Progress(options.texts ? 'texts' : 'images', items.length, resumed)
  try {
    const rest = items.slice(resumed)
    const stream = embedder.embedStream(
      rest.map(({ value }) => value),
      { batchSize: options.batchSize, normalize: options.normalize, promptName: options.promptName, onTimings: options.timings ? sayTimings : undefined },
    )
    let pending: { entry: JournalEntry; row?: Float32Array }[] = []
    for await (const { index, embedding, error } of stream) {
      const item = rest[index]!
      if (error && !(error instanceof ChiasmaError)) throw error
      const mark = await item.mark()
      if (error) {
        skipped++
        say(`skipped ${item.name}: ${error.message}`)
        pending.push({ entry: { item: item.name, mark, error: error.message } })
      } else {
        pending.push({ entry: { item: item.name, mark }, row: embedding })
      }
      if (pending.length === (options.batchSize ?? journalled) || index === rest.length - 1) {
        await journal.append(pending)
        pending = []
        progress.update(resumed + index + 1)
      }
    }
  } catch (error) {
    await journal.close()
    throw error
  } finally {
    progress.stop()
  }

  if (!journal.rows && items.length) {
    await journal.remove()
    throw new ArgumentError(`none of the ${items.length} items could be embedded`)
  }
  const rows = journal.rows
  await writeEmbeddings(options.out, journal.source({ model: options.model, dtype: embedder.dtype, normalized: String(options.normalize) }))
  await journal.remove()
  const seconds = (performance.now() - started) / 1000
  const rate = (items.length - resumed) / seconds
  say(`${options.out}: ${rows} embeddings of ${embedder.dimensions} dimensions${skipped ? `, ${skipped} items skipped` : ''}; ${rate.toFixed(1)} a second`)
  if (options.json) {
    await print(JSON.stringify({ out: options.out, embedded: rows, skipped, dimensions: embedder.dimensions, seconds, device: embedder.device, dtype: embedder.dtype }))
  }
}

function sayTimings({ total, ...stages }: EmbedTimings): void {
  const shares = Object.entries(stages).map(([stage, seconds]) => `${stage} ${Math.round((100 * seconds) / total)}%`)
  say(`of ${total.toFixed(1)} s, the time in which each stage had work: ${shares.join(', ')}`)
}

async function imageItems(paths: string[]): Promise<Item[]> {
  return (await imagePaths(paths)).map((path) => ({ name: path, value: { image: path }, mark: () => fileMark(path) }))
}

async function textItems(file: string): Promise<Item[]> {
  return (await readTexts(file)).map((text) => ({ name: text, value: { text }, mark: async () => undefined }))
}

async function fits(entry: JournalEntry, item: Item | undefined): Promise<boolean> {
  return item !== undefined && entry.item === item.name && entry.mark === (await item.mark())
}

/** What decides the numbers beside the items. */
async function identityOf(embedder: Embedder, options: EmbedOptions): Promise<Record<string, unknown>> {
  const config = await readFile(join(embedder.model.folder, 'config.json'))
  return {
    model: options.model,
    revision: options.revision,
    config: createHash('sha256').update(config).digest('hex').slice(0, 16),
    device: embedder.device,
    dtype: embedder.dtype,
    normalize: options.normalize,
    promptName: options.promptName,
  }
}
