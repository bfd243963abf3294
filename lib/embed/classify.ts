// Classification of images: by a checkpoint's own head, or zero-shot by comparing with the embeddings of labels in words
// (CLIP, Radford et al. 2021: softmax over the scaled cosine similarities).

import { ArgumentError, UnsupportedError } from '../core/errors.js'
import { checkOptions, option, type OptionRules, shown } from '../core/options.js'
import type { ImageInput } from '../data/image.js'
import { type Embedder, isIterable, largestBatch } from './embedder.js'
import { inBatches } from './batches.js'

export interface Classification {
  readonly label: string
  /** Probability over all labels. */
  readonly score: number
}

export interface ClassifyOptions {
  /** Labels in words; absent: the checkpoint's own. */
  labels?: readonly string[]
  /** The sentence a label is put into, at `{}`; default 'This is a photo of {}', as transformers.js has it. */
  template?: string
  /** How many labels to return, best first; default 5. */
  topK?: number
  /** Images given to the model at once, 1024 at most; default 32. It changes speed, never results. */
  batchSize?: number
  allowRemote?: boolean
  signal?: AbortSignal
}

const classifyRules: OptionRules<ClassifyOptions> = {
  labels: { expected: 'an array of at least one string', accepts: (value) => option.texts.accepts(value) && (value as string[]).length > 0 },
  template: { expected: 'a string with {} where the label goes', accepts: (value) => typeof value === 'string' && value.includes('{}') },
  topK: option.positiveInteger,
  batchSize: option.positiveInteger,
  allowRemote: option.flag,
  signal: option.signal,
}

export type ClassifyResult = { index: number; labels: Classification[]; error?: undefined } | { index: number; error: Error; labels?: undefined }

/**
 * Classifies images one after another, with bounded memory; an image that cannot be read gives a result with `error`.
 * @throws ArgumentError for a wrong option, UnsupportedError if the checkpoint has neither labels of its own nor a text encoder for those given.
 */
export async function* classifyImages(
  embedder: Embedder,
  images: Iterable<ImageInput> | AsyncIterable<ImageInput>,
  options: ClassifyOptions = {},
): AsyncGenerator<ClassifyResult, void, undefined> {
  checkOptions('classifyImages', options, classifyRules)
  if (!isIterable(images)) throw new ArgumentError(`[classifyImages] images is ${shown(images)}; expected an iterable of images`, { field: 'images' })
  const { labels, template = 'This is a photo of {}', topK = 5, allowRemote, signal } = options
  const batchSize = Math.min(options.batchSize ?? 32, largestBatch)
  if (labels) {
    yield* zeroShot(embedder, images, { labels, template, topK, batchSize, allowRemote, signal })
    return
  }
  const { classifier } = embedder.model
  if (!classifier) throw new UnsupportedError('this checkpoint has no labels of its own; give some in words')
  const stop = new AbortController()
  const batches = inBatches<ImageInput, Uint8Array | Error, Classification[] | Error>(images, {
    prepare: (image) =>
      embedder.preprocess(image, { allowRemote, signal: stop.signal }).catch((error: Error) => {
        stop.signal.throwIfAborted()
        return error
      }),
    share: () => 1 / batchSize,
    run: async (batch) => {
      const good = batch.filter((pixels): pixels is Uint8Array => !(pixels instanceof Error))
      const size = good[0]?.length ?? 0
      const pixels = new Uint8Array(good.length * size)
      good.forEach((one, i) => pixels.set(one, i * size))
      const logits = good.length ? await classifier.logits(pixels, good.length, { signal: stop.signal }) : new Float32Array(0)
      let row = 0
      return batch.map((one) => (one instanceof Error ? one : best(logits, row++, classifier.labels, topK)))
    },
    atOnce: 2 * batchSize,
    signal,
    stop,
  })
  let index = 0
  for await (const batch of batches) {
    for (const labels of batch) yield labels instanceof Error ? { index: index++, error: labels } : { index: index++, labels }
  }
}

async function* zeroShot(
  embedder: Embedder,
  images: Iterable<ImageInput> | AsyncIterable<ImageInput>,
  options: Required<Pick<ClassifyOptions, 'labels' | 'template' | 'topK' | 'batchSize'>> & ClassifyOptions,
): AsyncGenerator<ClassifyResult, void, undefined> {
  const { labels, template, topK, batchSize, allowRemote, signal } = options
  const { imageEncoder, patchEncoder, textEncoder, audioEncoder, logitScale, logitBias } = embedder.model
  if (audioEncoder && !textEncoder) {
    throw new UnsupportedError('classifying sounds into labels in words needs a checkpoint with an audio and a text encoder; this one has no text encoder')
  }
  if (!(imageEncoder ?? patchEncoder) || !textEncoder || logitScale === undefined) {
    throw new UnsupportedError('classifying into labels in words needs a checkpoint with an image and a text encoder, such as CLIP')
  }
  const words = await embedder.embedTexts(labels.map((label) => template.replaceAll('{}', () => label)), { signal })
  const vectors = words.data as Float32Array
  const columns = embedder.dimensions
  const stream = async function* () {
    for await (const item of images) yield { image: item }
  }
  for await (const { index, embedding, error } of embedder.embedStream(stream(), { batchSize, allowRemote, signal })) {
    if (error) {
      yield { index, error }
      continue
    }
    const logits = new Float32Array(labels.length)
    for (let label = 0; label < labels.length; label++) {
      let dot = 0
      for (let i = 0; i < columns; i++) dot += embedding[i]! * vectors[label * columns + i]!
      logits[label] = dot * logitScale + (logitBias ?? 0)
    }
    yield { index, labels: best(logits, 0, labels, topK, logitBias !== undefined) }
  }
}

/** The `topK` labels of row `row` of logits [n, labels], with their softmax, or each with its sigmoid (SigLIP). */
function best(logits: Float32Array, row: number, labels: readonly string[], topK: number, independent = false): Classification[] {
  const values = logits.subarray(row * labels.length, (row + 1) * labels.length)
  let highest = Number.NEGATIVE_INFINITY
  for (const value of values) highest = Math.max(highest, value)
  let sum = 0
  for (const value of values) sum += Math.exp(value - highest)
  const order = Array.from(values.keys()).sort((a, b) => values[b]! - values[a]! || a - b)
  return order.slice(0, topK).map((at) => ({ label: labels[at]!, score: independent ? 1 / (1 + Math.exp(-values[at]!)) : Math.exp(values[at]! - highest) / sum }))
}
