// Matching pictures and texts: a score for every picture and every text, by a model that looks at both together (ViLT, BLIP), or by the cosine
// of embeddings where the checkpoint is a dual encoder.

import { ArgumentError, DisposedError, UnsupportedError } from '../core/errors.js'
import { checkOptions, option, type OptionRules, shown } from '../core/options.js'
import { Tensor } from '../core/tensor.js'
import { type ImageInput, loadSharp } from '../data/image.js'
import { AutoProcessor, type Processor } from '../data/processor.js'
import { loadTokenizer, type Tokenizer } from '../data/tokenizer.js'
import { resolveSource } from '../io/hub.js'
import { checkLoadOptions, loadModel, type LoadOptions } from '../models/auto-model.js'
import type { Model } from '../models/model.js'
import * as ops from '../ops/host.js'
import { Embedder, withIndex } from './embedder.js'

export interface MatchOptions {
  allowRemote?: boolean
  signal?: AbortSignal
}

export interface Match {
  readonly text: string
  /** Among the texts given. */
  readonly index: number
  /** See `scoreKind`. */
  readonly score: number
}

export type MatchResult = { index: number; matches: Match[]; error?: undefined } | { index: number; error: Error; matches?: undefined }

const scoresRules: OptionRules<MatchOptions> = { allowRemote: option.flag, signal: option.signal }
const matchRules: OptionRules<MatchOptions & { topK?: number }> = { ...scoresRules, topK: option.positiveInteger }

/** How scores are made. */
interface Scorer {
  readonly kind: Matcher['scoreKind']
  readonly model: Model
  /** Made once for all pictures. */
  texts(texts: readonly string[], signal: AbortSignal | undefined): Promise<(image: ImageInput, options: MatchOptions) => Promise<Float32Array>>
  /** All scores in one go, where that is quicker. */
  all?(images: readonly ImageInput[], texts: readonly string[], options: MatchOptions): Promise<Tensor>
  dispose(): Promise<void>
}

/**
 * Scores pictures and texts.
 *
 * @example
 * await using matcher = await Matcher.fromPretrained('Salesforce/blip-itm-base-coco')
 * for await (const { matches } of matcher.match(['cat.jpg'], ['a cat', 'a dog'])) console.log(matches[0]) // { text: 'a cat', index: 0, score: 0.99 }
 */
export class Matcher {
  /** What scores are: the probability that a text belongs to a picture, a number that is larger for better matches, or a cosine. */
  readonly scoreKind: 'probability' | 'logit' | 'cosine'
  readonly #scorer: Scorer
  #disposed = false

  private constructor(scorer: Scorer) {
    this.#scorer = scorer
    this.scoreKind = scorer.kind
  }

  /**
   * Loads a checkpoint from a folder or the Hub: one with a matching head, or a dual encoder.
   * @throws CheckpointError, DeviceError, UnsupportedError for one that is neither
   */
  static async fromPretrained(source: string, options: LoadOptions = {}): Promise<Matcher> {
    checkLoadOptions('Matcher.fromPretrained', options)
    const { folder } = await resolveSource(source, options)
    const joint = await openJoint(folder, options)
    if (joint) return new Matcher(joint)
    const embedder = await Embedder.fromPretrained(folder, options)
    const { imageEncoder, patchEncoder, textEncoder } = embedder.model
    if ((imageEncoder ?? patchEncoder) && textEncoder) return new Matcher(ofEmbedder(embedder))
    await embedder.dispose()
    throw new UnsupportedError(`${source} neither scores pairs of pictures and texts nor embeds both`)
  }

  /** The model beneath. */
  get model(): Model {
    return this.#scorer.model
  }

  /**
   * The score of every picture and every text.
   * @returns float32 [images, texts]
   * @throws ImageError, ArgumentError with `index` set to the first picture or text that failed
   */
  async scores(images: readonly ImageInput[], texts: readonly string[], options: MatchOptions = {}): Promise<Tensor> {
    this.#check('scores', images, texts)
    checkOptions('scores', options, scoresRules)
    if (this.#scorer.all) return this.#scorer.all(images, texts, options)
    const score = await this.#scorer.texts(texts, options.signal)
    const result = new Float32Array(images.length * texts.length)
    for (const [index, image] of images.entries()) {
      try {
        result.set(await score(image, options), index * texts.length)
      } catch (error) {
        throw options.signal?.aborted ? error : withIndex(error as Error, index)
      }
    }
    return new Tensor('float32', result, [images.length, texts.length])
  }

  /**
   * The texts of each picture, best first. A picture that cannot be read gives a result with `error`, and the others go on.
   * @param options.topK how many; default all
   */
  async *match(images: readonly ImageInput[], texts: readonly string[], options: MatchOptions & { topK?: number } = {}): AsyncGenerator<MatchResult, void, undefined> {
    this.#check('match', images, texts)
    checkOptions('match', options, matchRules)
    const { topK = texts.length, ...rest } = options
    const score = await this.#scorer.texts(texts, rest.signal)
    for (const [index, image] of images.entries()) {
      let scores: Float32Array
      try {
        scores = await score(image, rest)
      } catch (error) {
        if (rest.signal?.aborted || this.#disposed) throw error
        yield { index, error: withIndex(error as Error, index) }
        continue
      }
      const order = Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b)
      yield { index, matches: order.slice(0, topK).map(at => ({ text: texts[at]!, index: at, score: scores[at]! })) }
    }
  }

  /** Frees the model. */
  async dispose(): Promise<void> {
    this.#disposed = true
    await this.#scorer.dispose()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  #check(call: string, images: unknown, texts: unknown): void {
    if (this.#disposed) throw new DisposedError('this Matcher was disposed of')
    if (!Array.isArray(images)) throw new ArgumentError(`[${call}] images is ${shown(images)}; expected an array of images`, { field: 'images' })
    if (!Array.isArray(texts) || texts.length === 0) throw new ArgumentError(`[${call}] texts is ${shown(texts)}; expected an array of at least one string`, { field: 'texts' })
  }
}

/** Undefined for a checkpoint without a matching head. */
async function openJoint(folder: string, options: LoadOptions): Promise<Scorer | undefined> {
  const none = new UnsupportedError('no matching head')
  try {
    const { model, rest } = await loadModel(folder, options, async ({ matching }) => {
      if (!matching) throw none
      void loadSharp().catch(() => {}) // the first image that needs it says so
      const [processor, tokenizer] = await Promise.all([AutoProcessor.fromPretrained(folder), loadTokenizer(folder, { threads: options.threads })])
      return { processor, tokenizer }
    })
    return ofPairs(model, rest)
  } catch (error) {
    if (error === none) return undefined
    throw error
  }
}

function ofPairs(model: Model, { processor, tokenizer }: { processor: Processor; tokenizer: Tokenizer }): Scorer {
  const pairs = model.pairScorer!
  return {
    kind: pairs.kind,
    model,
    texts: async (texts, signal) => {
      const sequences = await tokenizer.encodeAll(texts, { maxLength: Math.min(pairs.maxLength, tokenizer.maxLength), signal })
      return async (image, options) => {
        const picture = await processor([image], { ...options, output: 'uint8' })
        return pairs.score({ ...picture }, sequences, { padId: tokenizer.padId, signal: options.signal })
      }
    },
    dispose: () => model.dispose(),
  }
}

function ofEmbedder(embedder: Embedder): Scorer {
  const { device } = embedder
  return {
    kind: 'cosine',
    model: embedder.model,
    texts: async (texts, signal) => {
      const words = await embedder.embedTexts(texts, { signal })
      return async (image, { allowRemote, signal }) => {
        let picture: Tensor
        for await (const { embedding, error } of embedder.embedStream([{ image }], { allowRemote, signal })) {
          if (error) throw error // as it is: only the caller knows which of its images this is
          picture = new Tensor('float32', embedding, [1, embedder.dimensions])
        }
        return (await ops.cosineSimilarity(picture!, words, { device, signal })).data as Float32Array
      }
    },
    all: async (images, texts, { allowRemote, signal }) => {
      const words = await embedder.embedTexts(texts, { signal })
      return ops.cosineSimilarity(await embedder.embedImages(images, { allowRemote, signal }), words, { device, signal })
    },
    dispose: () => embedder.dispose(),
  }
}
