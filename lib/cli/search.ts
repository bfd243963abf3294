// chiasma search: the items of an embedding file that are nearest to a text, an image or a sound.

import type { Command } from 'commander'
import { ArgumentError } from '../core/errors.js'
import type { Tensor } from '../core/tensor.js'
import { Embedder } from '../embed/embedder.js'
import { type EmbeddingMetadata, readEmbeddings } from '../io/embeddings.js'
import { hashWeights } from '../io/model-folders.js'
import * as ops from '../ops/host.js'
import { print, say } from './console.js'
import { type ModelOptions, loadOptions, positiveInteger, withModel } from './options.js'

interface SearchOptions extends ModelOptions {
  index: string
  text?: string
  image?: string
  audio?: string
  topK: number
  promptName: string
  otherModel?: boolean
  json?: boolean
}

export function define(command: Command): void {
  withModel(command)
    .requiredOption('--index <file>', 'a file written by chiasma embed')
    .option('--text <text>', 'the query')
    .option('--image <path>', 'the query')
    .option('--audio <path>', 'the query, a WAV file')
    .option('-k, --top-k <n>', 'how many to list', positiveInteger, 10)
    .option('--prompt-name <name>', "the checkpoint's prompt for the query", 'query')
    .option('--other-model', 'search although the file was made with other weights, whose vectors go with those of this model')
    .option('--json', 'print [{item, index, score}] on stdout')
    .action(run)
}

async function run(options: SearchOptions): Promise<void> {
  if ([options.text, options.image, options.audio].filter((query) => query !== undefined).length !== 1) {
    throw new ArgumentError('search takes --text, --image or --audio, one of the three', { code: 'ERR_USAGE' })
  }
  const { items, embeddings, metadata } = await readEmbeddings(options.index)
  await using embedder = await Embedder.fromPretrained(options.model, loadOptions(options))
  const [, dimensions] = embeddings.dims
  if (items.length && dimensions !== embedder.dimensions) {
    throw new ArgumentError(`${options.index} has ${dimensions} dimensions and ${options.model} ${embedder.dimensions}; was it written with another model?`, { file: options.index })
  }
  // The weights are hashed while the query is embedded, on other threads.
  const [query] = await Promise.all([embedQuery(embedder, options), options.otherModel || checkModel(options, metadata, embedder.model.folder)])
  const k = Math.min(options.topK, items.length)
  const hits: { item: string; index: number; score: number }[] = []
  if (k) {
    const { scores, indices } = await ops.cosineTopK(query, embeddings, k, { device: options.device, dtype: 'f32' })
    for (let i = 0; i < k; i++) {
      const index = Number(indices.data[i])
      hits.push({ item: items[index]!, index, score: Number(scores.data[i]) })
    }
  }
  if (options.json) await print(JSON.stringify(hits))
  else for (const { item, score } of hits) await print(`${score.toFixed(4)}  ${item}`)
}

/** Vectors of two models have nothing to do with each other, and no score would show it. */
async function checkModel({ index, model }: SearchOptions, metadata: EmbeddingMetadata, folder: string): Promise<void> {
  const { weights, model: other = 'a model without a name' } = metadata
  if (weights === undefined) {
    say(`${index} does not say which weights made it: whether they are those of ${model} is not known`)
  } else if (weights !== (await hashWeights(folder))) {
    throw new ArgumentError(`${index} was made with ${other}, whose weights are others than those of ${model}; search it with that model, or with --other-model if the vectors go together`, { file: index })
  }
}

function embedQuery(embedder: Embedder, { text, image, audio, promptName }: SearchOptions): Promise<Tensor> {
  if (text !== undefined) return embedder.embedTexts([text], { promptName })
  return image !== undefined ? embedder.embedImages([image]) : embedder.embedAudio([audio!])
}
