// chiasma demo: a short tour on the user's own images or texts: embed them, classify the images, list the nearest of one, say how fast.

import type { Command } from 'commander'
import { basename } from 'node:path'
import { ArgumentError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { classifyImages } from '../embed/classify.js'
import { Embedder, type StreamItem } from '../embed/embedder.js'
import * as ops from '../ops/host.js'
import { print, say, sayOfItem } from './console.js'
import { imagePaths, readTexts } from './inputs.js'
import { type ModelOptions, labelList, loadOptions, withModel } from './options.js'
import { Progress } from './progress.js'

interface DemoOptions extends ModelOptions {
  images?: string
  texts?: string
  query?: string
  labels?: string[]
}

export function define(command: Command): void {
  withModel(command)
    .option('--images <folder>', 'a folder of images')
    .option('--texts <file>', 'texts, one a line, or .jsonl')
    .option('--query <item>', 'the image or text whose nearest are listed; default: one in the middle')
    .option('--labels <a,b,c>', 'classify the images into these words (dual encoders)', labelList)
    .action(run)
}

async function run(options: DemoOptions): Promise<void> {
  if (!options.images && !options.texts) throw new ArgumentError('demo takes --images FOLDER or --texts FILE', { code: 'ERR_USAGE' })
  const started = performance.now()
  await using embedder = await Embedder.fromPretrained(options.model, loadOptions(options))
  say(`loaded ${options.model} in ${seconds(started)} s: ${embedder.device}, ${embedder.dtype}, ${embedder.dimensions} dimensions`)
  if (options.images) await tourImages(embedder, await imagePaths([options.images]), options)
  if (options.texts) await tourTexts(embedder, await readTexts(options.texts), options)
}

async function tourImages(embedder: Embedder, paths: string[], options: DemoOptions): Promise<void> {
  const { kept, rows } = await embedAll(embedder, paths, (image) => ({ image }), 'images')
  const { labels } = options
  if (labels || embedder.model.classifier) {
    const shown = kept.filter((_, i) => i % Math.ceil(kept.length / 8) === 0)
    await print('\nclassified:')
    for await (const { index, labels: found } of classifyImages(embedder, shown, { labels, topK: 3 })) {
      const list = found?.map(({ label, score }) => `${label} ${(100 * score).toFixed(1)} %`).join(', ')
      await print(`  ${basename(shown[index]!).padEnd(36)} ${list ?? 'unreadable'}`)
    }
  }
  let at = Math.floor(kept.length / 2)
  let query = rowOf(rows, at)
  let name = kept[at]!
  if (options.query) {
    query = await embedder.embedImages([options.query])
    name = options.query
    at = -1
  }
  await printNearest(`nearest to ${basename(name)}`, query, rows, at, (i) => basename(kept[i]!))
}

async function tourTexts(embedder: Embedder, texts: string[], options: DemoOptions): Promise<void> {
  const unique = [...new Set(texts)]
  const { kept, rows } = await embedAll(embedder, unique, (text) => ({ text }), 'texts')
  const at = options.query ? -1 : Math.floor(kept.length / 2)
  const query = options.query ? await embedder.embedTexts([options.query], { promptName: 'query' }) : rowOf(rows, at)
  await printNearest(`nearest to "${options.query ?? kept[at]}"`, query, rows, at, (i) => kept[i]!)
}

async function embedAll<T extends string>(
  embedder: Embedder,
  items: readonly T[],
  toItem: (item: T) => StreamItem,
  what: string,
): Promise<{ kept: T[]; rows: Tensor }> {
  if (!items.length) throw new ArgumentError(`there are no ${what} to embed`)
  const data = new Float32Array(items.length * embedder.dimensions)
  const kept: T[] = []
  const started = performance.now()
  const progress = new Progress(what, items.length)
  try {
    if (what === 'texts') {
      const all = await embedder.embedTexts(items, { onProgress: ({ done }) => progress.update(done) })
      data.set(all.data as Float32Array)
      kept.push(...items)
    } else {
      for await (const { index, embedding, error } of embedder.embedStream(items.map(toItem))) {
        if (error) {
          sayOfItem(items[index]!, error)
          continue
        }
        data.set(embedding, kept.length * embedder.dimensions)
        kept.push(items[index]!)
        progress.update(index + 1)
      }
    }
  } finally {
    progress.stop()
  }
  if (!kept.length) throw new ArgumentError(`none of the ${items.length} ${what} could be read`)
  const time = (performance.now() - started) / 1000
  await print(`embedded ${kept.length} ${what} in ${time.toFixed(2)} s: ${(kept.length / time).toFixed(1)} ${what} per second`)
  return { kept, rows: new Tensor('float32', data.slice(0, kept.length * embedder.dimensions), [kept.length, embedder.dimensions]) }
}

async function printNearest(title: string, query: Tensor, rows: Tensor, self: number, name: (index: number) => string): Promise<void> {
  const { scores, indices } = await ops.cosineTopK(query, rows, Math.min(6, rows.dims[0]!), { dtype: 'f32' })
  await print(`\n${title}:`)
  for (let i = 0; i < indices.size; i++) {
    const index = Number(indices.data[i])
    if (index !== self) await print(`  ${Number(scores.data[i]).toFixed(4)}  ${name(index)}`)
  }
}

function rowOf(rows: Tensor, index: number): Tensor {
  const columns = rows.dims[1]!
  return new Tensor('float32', (rows.data as Float32Array).slice(index * columns, (index + 1) * columns), [1, columns])
}

function seconds(since: number): string {
  return ((performance.now() - since) / 1000).toFixed(2)
}
