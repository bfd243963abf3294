// chiasma classify: images into the labels of a classifier checkpoint, or zero-shot into labels given in words.

import type { Command } from 'commander'
import { ArgumentError, UnsupportedError } from '../core/errors.js'
import { Embedder } from '../embed/embedder.js'
import { type Classification, classifyImages } from '../embed/classify.js'
import { print, sayOfItem } from './console.js'
import { imagePaths } from './inputs.js'
import { type ModelOptions, labelList, loadOptions, positiveInteger, withModel } from './options.js'

interface ClassifyOptions extends ModelOptions {
  labels?: string[]
  template?: string
  topK: number
  batchSize: number
  json?: boolean
}

export function define(command: Command): void {
  withModel(command)
    .argument('<paths...>', 'image files, folders or glob patterns')
    .option('--labels <a,b,c>', 'labels in words, separated by commas', labelList)
    .option('--template <text>', 'the sentence a label is put into, at {}')
    .option('-k, --top-k <n>', 'labels to list for an image', positiveInteger, 5)
    .option('--batch-size <n>', 'images given to the model at once', positiveInteger, 32)
    .option('--json', 'print [{item, labels: [{label, score}]}] on stdout')
    .action(run)
}

async function run(given: string[], options: ClassifyOptions): Promise<void> {
  const { labels } = options
  const paths = await imagePaths(given)
  await using embedder = await Embedder.fromPretrained(options.model, loadOptions(options))
  if (!labels && !embedder.model.classifier) {
    const { imageEncoder, textEncoder } = embedder.model
    const way = imageEncoder && textEncoder ? 'give some with --labels' : 'labels in words need a checkpoint with an image and a text encoder, such as CLIP'
    throw new UnsupportedError(`${options.model} has no labels of its own; ${way}`)
  }
  const results: { item: string; labels: Classification[] }[] = []
  let failed = 0
  const classified = classifyImages(embedder, paths, { labels, template: options.template, topK: options.topK, batchSize: options.batchSize })
  for await (const { index, labels: found, error } of classified) {
    const item = paths[index]!
    if (error) {
      failed++
      sayOfItem(item, error)
    } else if (options.json) {
      results.push({ item, labels: found })
    } else {
      await print(`${item}  ${found.map(({ label, score }) => `${label} ${score.toFixed(3)}`).join(', ')}`)
    }
  }
  if (options.json) await print(JSON.stringify(results))
  if (failed === paths.length) throw new ArgumentError(`none of the ${paths.length} images could be read`)
}
