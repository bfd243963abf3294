// Embedder: from files, strings and sounds to vectors. Decoding and tokenising run ahead of the model by a bounded number of items, so that both
// overlap and memory does not grow with the input; results come in the order of the input. Long because one pipeline serves images, texts and sounds.

import { ArgumentError, CheckpointError, DisposedError, ShapeError, UnsupportedError } from '../core/errors.js'
import { checkOptions, option, type OptionRules, shown } from '../core/options.js'
import { Tensor, type TensorLike } from '../core/tensor.js'
import { type ImageInput, type ImageOptions, imageOptionRules, loadSharp } from '../data/image.js'
import { type AudioInput, type AudioOptions, audioOptionRules } from '../data/audio.js'
import type { AudioProcessor } from '../data/audio-processor.js'
import { audioProcessorOf, AutoProcessor, type Processor, type ProcessorOutput } from '../data/processor.js'
import { cleanText } from '../data/text-cleaning.js'
import { during, type EmbedTimings, StageClock } from '../data/timings.js'
import { type LazyTokenizer, lazyTokenizer, loadTokenizer, type TokenizerSource } from '../data/tokenizer.js'
import { resolveSource } from '../io/hub.js'
import { hashWeights } from '../io/model-folders.js'
import { checkLoadOptions, loadModel, type LoadOptions } from '../models/auto-model.js'
import type { Model } from '../models/model.js'
import { SAMPLES_AT_ONCE } from '../models/audio-runner.js'
import { TEXTS_AT_ONCE, TOKENS_AT_ONCE } from '../models/text-runner.js'
import { inBatches } from './batches.js'
import { gathered } from './gathered.js'
import { type Precision, normalizeRows, precisions, toPrecision, truncateRows } from './vectors.js'
import { type EmbeddingDefaults, readEmbeddingDefaults } from './prompts.js'

/** Called while a long call runs: items done so far, and how many there are where that is known. */
export interface EmbedProgress {
  readonly done: number
  readonly total?: number
}

export interface EmbedOptions {
  /** L2-normalise each embedding; default true. */
  normalize?: boolean
  /** Items given to the model at once, 1024 at most; default 32 images, or texts of 2048 tokens in all. It changes speed, never results. */
  batchSize?: number
  /** Keep this many leading dimensions (Matryoshka), before normalising; default all, or what the checkpoint says (`truncate_dim`). */
  truncateDim?: number
  signal?: AbortSignal
  onProgress?: (progress: EmbedProgress) => void
  /** Called at the end of the call with where its time went. */
  onTimings?: (timings: EmbedTimings) => void
}

export interface EmbedImagesOptions extends EmbedOptions, ImageOptions {}

export interface EmbedAudioOptions extends EmbedOptions, AudioOptions {}

export interface EmbedTextsOptions extends EmbedOptions {
  /** Put before every text. */
  prompt?: string
  /** The name of one of the checkpoint's `prompts`. */
  promptName?: string
  precision?: Precision
  /** Tokens a text may have, at most the checkpoint's own limit. */
  maxLength?: number
  /** Cut texts that are longer; with false they are an error. Default true. */
  truncation?: boolean
}

export type StreamItem = ImageInput | { text: string } | { image: ImageInput } | { audio: AudioInput } | { text: string; image: ImageInput }
export type StreamResult = { index: number; embedding: Float32Array; error?: undefined } | { index: number; error: Error; embedding?: undefined }

type Prepared = { pixels: Uint8Array } | { patches: Readonly<Record<string, Tensor>> } | { samples: Float32Array } | { tokens: Int32Array } | { error: Error }

/** What a stream takes: the options of images and of texts; its embeddings are float32. */
export type EmbedStreamOptions = EmbedImagesOptions & AudioOptions & Omit<EmbedTextsOptions, 'precision'>

/** What a stream's items go through. */
interface Preparation {
  readonly images: ImageOptions
  readonly audio: AudioOptions
  /** The tokens of one text, prompt included. */
  tokens(text: { readonly text: string; readonly index: number }): Promise<Int32Array>
  readonly clock: StageClock | undefined
}

const imagesAtOnce = 32
/** A sound may be megabytes of samples. */
const soundsAtOnce = 2
/** Texts tokenised in one go: two lists are under way at once. */
const textsTogether = 32
/** Larger batches are no faster, and pixels of a batch are in memory at once. */
export const largestBatch = 1024

const embedRules: OptionRules<EmbedOptions> = {
  normalize: option.flag,
  batchSize: option.positiveInteger,
  truncateDim: option.positiveInteger,
  signal: option.signal,
  onProgress: option.callback,
  onTimings: option.callback,
}
const imagesRules: OptionRules<EmbedImagesOptions> = { ...embedRules, ...imageOptionRules }
const audioRules: OptionRules<EmbedAudioOptions> = { ...embedRules, ...audioOptionRules }
const textsRules: OptionRules<EmbedTextsOptions> = {
  ...embedRules,
  prompt: option.text,
  promptName: option.text,
  precision: option.oneOf(precisions),
  maxLength: option.positiveInteger,
  truncation: option.flag,
}
/** A stream's embeddings are float32. */
const { precision: _, ...streamTextsRules } = textsRules
const streamRules: OptionRules<EmbedStreamOptions> = { ...imagesRules, ...audioRules, ...streamTextsRules }

/**
 * Embeds images and texts with a checkpoint.
 *
 * @example
 * const embedder = await Embedder.fromPretrained('openai/clip-vit-base-patch32')
 * const images = await embedder.embedImages(['cat.jpg', 'dog.jpg']) // Tensor float32 [2, 512]
 * const texts = await embedder.embedTexts(['a photo of a cat'])     // Tensor float32 [1, 512]
 */
export class Embedder {
  /** Length of an embedding, unless `truncateDim` asks for another. */
  readonly dimensions: number
  /** Tokens a text may have; longer ones are cut. 0 if the checkpoint embeds no text. */
  readonly maxLength: number
  /** The checkpoint's named prompts, empty if it has none. */
  readonly prompts: Readonly<Record<string, string>>
  readonly #model: Model
  readonly #processor: Processor | undefined
  readonly #audio: AudioProcessor | undefined
  readonly #tokenizer: LazyTokenizer | undefined
  readonly #defaultPrompt: string | undefined
  /** Of an embedding before it is truncated. */
  readonly #width: number
  #disposed = false

  private constructor(parts: {
    model: Model
    processor: Processor | undefined
    audio: AudioProcessor | undefined
    tokenizer: LazyTokenizer | undefined
    defaults: EmbeddingDefaults
  }) {
    this.#model = parts.model
    this.#processor = parts.processor
    this.#audio = parts.audio
    this.#tokenizer = parts.tokenizer
    this.#defaultPrompt = parts.defaults.defaultPrompt
    this.prompts = parts.defaults.prompts
    const { imageEncoder, patchEncoder, textEncoder, audioEncoder } = parts.model
    this.#width = (imageEncoder ?? patchEncoder ?? textEncoder ?? audioEncoder)!.dimensions
    this.dimensions = Math.min(this.#width, parts.defaults.defaultDimensions ?? this.#width)
    const { sentence, maxLength } = textEncoder ?? { maxLength: 0 }
    this.maxLength = sentence?.maxLength !== undefined ? maxLength : Math.min(maxLength, parts.tokenizer?.maxLength ?? Number.POSITIVE_INFINITY)
  }

  /**
   * Loads a checkpoint from a folder or the Hugging Face Hub.
   * @throws CheckpointError, UnsupportedError (an architecture that embeds nothing), DeviceError.
   */
  static async fromPretrained(source: string, options: LoadOptions = {}): Promise<Embedder> {
    checkLoadOptions('Embedder.fromPretrained', options)
    const { onProgress, ...rest } = options
    const { folder } = await resolveSource(source, options)
    const { model, rest: parts } = await loadModel(folder, rest, async ({ images: towers, joint, texts, audio: takesSound, sentence }) => {
      const images = towers ?? joint?.embedsPictures
      if (images) void loadSharp().catch(() => {}) // the first image that needs it says so
      const [processor, audio, tokenizer, defaults] = await Promise.all([
        images ? AutoProcessor.fromPretrained(folder) : undefined,
        takesSound ? audioProcessorOf(folder) : undefined,
        texts ? tokenizerOf(folder, { ...sentence, threads: options.threads }, Boolean(images || takesSound)) : undefined,
        readEmbeddingDefaults(folder),
      ])
      return { processor, audio, tokenizer, defaults }
    })
    if (!model.imageEncoder && !model.patchEncoder && !model.textEncoder && !model.audioEncoder) {
      await model.dispose()
      throw new UnsupportedError(`${source} is a ${model.config['model_type']} checkpoint, which embeds neither images nor texts nor sounds`)
    }
    try {
      onProgress?.({ status: 'ready', task: 'embedding', model: source })
    } catch (error) {
      await model.dispose()
      throw error
    }
    return new Embedder({ model, ...parts })
  }

  /** The model beneath, for its raw outputs. */
  get model(): Model {
    return this.#model
  }

  /**
   * A hash of the checkpoint's weights, the same on every device, in every dtype and file format: vectors of other weights are not comparable.
   * Reads them all, about a gigabyte a second.
   * @throws CheckpointError
   */
  async weightsHash(): Promise<string> {
    return hashWeights(this.#model.folder)
  }

  /** The device in use: 'cpu', 'cuda:0', … */
  get device(): string {
    return this.#model.device
  }

  /** The compute dtype in use: 'f32', 'bf16', 'f16' (CUDA) or 'int8'. */
  get dtype(): string {
    return this.#model.dtype
  }

  /**
   * Embeds images, or one uint8 Tensor [n, H, W, 3] of images already at the model's size.
   * @returns float32 [n, dimensions]
   * @throws ImageError, ArgumentError with `index` set to the first input that failed.
   */
  async embedImages(images: readonly ImageInput[] | TensorLike, options: EmbedImagesOptions = {}): Promise<Tensor> {
    this.#check()
    if (!this.#model.imageEncoder && !this.#model.patchEncoder) throw new UnsupportedError('this checkpoint has no image encoder')
    checkOptions('embedImages', options, imagesRules)
    if (!Array.isArray(images) && isTensor(images)) return this.#embedPixels(Tensor.from(images, 'images'), options)
    const list = images as readonly ImageInput[]
    if (!Array.isArray(list)) throw new ArgumentError(`[embedImages] images is ${shown(images)}; expected an array of images or a uint8 tensor [n, H, W, 3]`, { field: 'images' })
    return this.#collect(Array.from(list, (image) => ({ image })), options)
  }

  /**
   * Embeds texts.
   * @returns float32 [n, dimensions], or what `precision` says
   * @throws ArgumentError with `index` set to the first text that failed; CheckpointError for a tokenizer that cannot be read.
   */
  async embedTexts(texts: readonly string[], options: EmbedTextsOptions = {}): Promise<Tensor> {
    this.#check()
    const { textEncoder } = this.#model
    if (!textEncoder) throw new UnsupportedError('this checkpoint has no text encoder')
    if (!Array.isArray(texts)) throw new ArgumentError(`[embedTexts] texts is ${shown(texts)}; expected an array of strings`, { field: 'texts' })
    checkOptions('embedTexts', options, textsRules)
    const { precision = 'float32', ...rest } = options
    const { data, dims } = await this.#collect(Array.from(texts, (text) => ({ text })), rest)
    return toPrecision(data as Float32Array, dims[1]!, precision)
  }

  /**
   * Embeds sounds: the mean over the frames of each. WAV files are decoded, mixed to one channel and resampled to the checkpoint's rate.
   *
   * @example
   * const clips = await embedder.embedAudio(['bell.wav', { samples: new Float32Array(16000), sampleRate: 16000 }]) // Tensor float32 [2, 768]
   * @returns float32 [n, dimensions]
   * @throws AudioError, ArgumentError with `index` set to the first input that failed.
   */
  async embedAudio(clips: readonly AudioInput[], options: EmbedAudioOptions = {}): Promise<Tensor> {
    this.#check()
    if (!this.#model.audioEncoder) throw new UnsupportedError('this checkpoint has no audio encoder')
    if (!Array.isArray(clips)) throw new ArgumentError(`[embedAudio] clips is ${shown(clips)}; expected an array of sounds`, { field: 'clips' })
    checkOptions('embedAudio', options, audioRules)
    return this.#collect(Array.from(clips, (audio) => ({ audio })), options)
  }

  /**
   * Embeds a stream of images and texts with bounded memory. An item that fails gives a result with `error`, and the stream goes on; a checkpoint
   * whose weights or tokenizer cannot be read ends it. Results come in the order of the items. Leaving the loop early stops the work.
   */
  async *embedStream(
    items: Iterable<StreamItem> | AsyncIterable<StreamItem>,
    options: EmbedStreamOptions = {},
  ): AsyncGenerator<StreamResult, void, undefined> {
    this.#check()
    if (!isIterable(items)) throw new ArgumentError(`[embedStream] items is ${shown(items)}; expected an iterable of images and texts`, { field: 'items' })
    checkOptions('embedStream', options, streamRules)
    this.#checkTruncateDim(options)
    const { normalize = true, signal, onProgress, onTimings } = options
    const clock = onTimings && new StageClock()
    const batchSize = options.batchSize && Math.min(options.batchSize, largestBatch)
    const prompt = this.#prompt(options)
    const unpooled = await this.#unpooledTokens(prompt, options)
    const stop = new AbortController()
    const stoppable = { ...options, signal: stop.signal }
    const preparation: Preparation = {
      images: imageOptionsOf(stoppable),
      audio: audioOptionsOf(stoppable),
      tokens: gathered(textsTogether, (texts) => during(clock, 'tokenise', () => this.#tokenise(texts, prompt, stoppable))),
      clock,
    }
    const batches = inBatches<StreamItem, Prepared, Float32Array | Error>(items, {
      prepare: (item, index) => this.#prepare(item, index, preparation, stop.signal),
      share: (item) => (batchSize !== undefined ? 1 / batchSize : shareOf(item)),
      run: (batch) => during(clock, 'compute', () => this.#encode(batch, normalize, unpooled, stoppable)),
      atOnce: 2 * (batchSize ?? (this.#model.audioEncoder ? soundsAtOnce : imagesAtOnce)),
      signal,
      stop,
    })
    let done = 0
    for await (const batch of batches) {
      for (const result of batch) {
        yield result instanceof Error ? { index: done++, error: result } : { index: done++, embedding: result }
      }
      onProgress?.({ done })
    }
    if (clock) onTimings(clock.read())
  }

  async #samples(clip: AudioInput, options: AudioOptions, clock?: StageClock): Promise<Float32Array> {
    const encoder = this.#model.audioEncoder
    if (!this.#audio || !encoder) throw new UnsupportedError('this checkpoint has no audio encoder')
    const samples = await this.#audio.process(clip, options, clock)
    if (samples.length < encoder.minSamples) {
      throw new ArgumentError(`a sound has ${samples.length} samples at the checkpoint's rate of ${this.#audio.sampleRate} a second; expected at least ${encoder.minSamples}`, { field: 'samples' })
    }
    return samples
  }

  /** One image as the model takes it: uint8 RGB [height, width, 3]. */
  async preprocess(image: ImageInput, options: ImageOptions = {}): Promise<Uint8Array> {
    this.#check()
    return this.#pixels(image, options)
  }

  async #pixels(image: ImageInput, options: ImageOptions, clock?: StageClock): Promise<Uint8Array> {
    const encoder = this.#model.imageEncoder
    if (!this.#processor || !encoder) throw new UnsupportedError('this checkpoint has no image encoder')
    const pixels = await this.#processor.process(image, options, clock)
    const { height, width } = encoder.size
    if (pixels.length !== 3 * height * width) {
      throw new ShapeError(`the checkpoint's processor makes pictures of ${pixels.length / 3} pixels, its model takes ${height} x ${width}`, { field: 'size' })
    }
    return pixels
  }

  async #patches(image: ImageInput, options: ImageOptions, clock?: StageClock): Promise<ProcessorOutput> {
    if (!this.#processor?.cut) throw new UnsupportedError("the checkpoint's processor cuts no pictures into patches, which its model takes")
    return this.#processor.cut(image, options, clock)
  }

  /** Frees the model. Calls under way end with a DisposedError or their result; later ones are refused. */
  async dispose(): Promise<void> {
    this.#disposed = true
    await this.#model.dispose()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  #check(): void {
    if (this.#disposed) throw new DisposedError('this Embedder was disposed of')
  }

  #prompt(options: EmbedTextsOptions): string {
    const { prompt, promptName } = options
    if (prompt !== undefined) return prompt
    if (promptName !== undefined) {
      if (Object.hasOwn(this.prompts, promptName)) return this.prompts[promptName]!
      // 'query' and 'document' may be asked of any checkpoint: one without prompts treats both alike.
      if (promptName === 'query' || promptName === 'document') return ''
      throw new ArgumentError(`promptName is '${promptName}'; this checkpoint has ${listed(Object.keys(this.prompts))}`, { field: 'promptName' })
    }
    return this.#defaultPrompt ?? ''
  }

  /** Tokens of a prompt that the checkpoint leaves out of its poolings: all of its own but a special one at the end. */
  async #unpooledTokens(prompt: string, { maxLength = this.maxLength }: EmbedTextsOptions): Promise<number> {
    if (prompt === '' || !this.#tokenizer || this.#model.textEncoder?.sentence?.poolsPrompt !== false) return 0
    const tokenizer = await this.#tokenizer.read()
    const [ids] = (await tokenizer.encodeAll([prompt], { maxLength: Math.min(maxLength, this.maxLength) })) as [Int32Array]
    return tokenizer.specialIds.has(ids.at(-1)!) ? ids.length - 1 : ids.length
  }

  #checkTruncateDim({ truncateDim }: EmbedOptions): void {
    if (truncateDim === undefined || truncateDim <= this.#width) return
    throw new ArgumentError(`truncateDim is ${truncateDim}; expected an integer from 1 to ${this.#width}`, { field: 'truncateDim' })
  }

  async #embedPixels(images: Tensor, options: EmbedImagesOptions): Promise<Tensor> {
    const encoder = this.#model.imageEncoder
    if (!encoder) throw new UnsupportedError('this checkpoint takes pictures of any aspect ratio, from files; expected no tensor of pixels')
    const { height, width } = encoder.size
    const [n = 0, h, w, channels] = images.dims
    if (images.type !== 'uint8' || images.dims.length !== 4 || h !== height || w !== width || channels !== 3) {
      throw new ShapeError(`images are ${images.type} [${images.dims}]; expected uint8 [n, ${height}, ${width}, 3]`, { shapes: [images.dims] })
    }
    this.#checkTruncateDim(options)
    const { normalize = true, truncateDim: columns = this.dimensions, signal, onProgress, onTimings } = options
    const clock = onTimings && new StageClock()
    const rows = await during(clock, 'compute', () => encoder.encode(images.data as Uint8Array, n, { signal }))
    const data = truncateRows(rows, encoder.dimensions, columns)
    if (normalize) normalizeRows(data, columns)
    onProgress?.({ done: n, total: n })
    if (clock) onTimings(clock.read())
    return new Tensor('float32', data, [n, columns])
  }

  async #collect(items: readonly StreamItem[], options: EmbedStreamOptions): Promise<Tensor> {
    this.#checkTruncateDim(options)
    const { onProgress, truncateDim: columns = this.dimensions } = options
    const result = new Float32Array(items.length * columns)
    const report = onProgress && (({ done }: EmbedProgress) => onProgress({ done, total: items.length }))
    for await (const { index, embedding, error } of this.embedStream(items, { ...options, onProgress: report })) {
      if (error) throw withIndex(error, index)
      result.set(embedding, index * columns)
    }
    return new Tensor('float32', result, [items.length, columns])
  }

  async #prepare(item: StreamItem, index: number, { images, audio, tokens, clock }: Preparation, signal: AbortSignal): Promise<Prepared> {
    try {
      signal.throwIfAborted()
      const parts = split(item)
      const { image, text, audio: sound } = parts
      this.#readEarly(image, text, sound)
      if (sound !== undefined || ('audio' in parts && image === undefined && text === undefined)) return { samples: await this.#samples(sound as AudioInput, audio, clock) }
      if (image !== undefined && text !== undefined) {
        throw new UnsupportedError('this checkpoint embeds an image or a text, not both as one; give them as two items')
      }
      if (text !== undefined || (image === undefined && 'text' in parts)) {
        if (!this.#tokenizer) throw new UnsupportedError('this checkpoint has no text encoder')
        if (typeof text !== 'string') throw new ArgumentError(`text ${index} is ${shown(text)}; expected a string`, { index })
        const ids = await tokens({ text, index })
        this.#model.textEncoder!.check(ids, index)
        return { tokens: ids }
      }
      if (this.#model.patchEncoder) return { patches: { ...(await this.#patches(image!, images, clock)) } }
      return { pixels: await this.#pixels(image!, images, clock) }
    } catch (error) {
      if (signal.aborted) throw signal.reason
      if (error instanceof CheckpointError) throw error // no fault of the item
      return { error: error as Error }
    }
  }

  /** Has the weights read while the first items are decoded or tokenised; what fails is thrown when they are needed. */
  #readEarly(image: unknown, text: unknown, sound: unknown): void {
    const { imageEncoder, patchEncoder, textEncoder, audioEncoder } = this.#model
    const part = sound !== undefined ? audioEncoder : image === undefined ? textEncoder : text === undefined ? (imageEncoder ?? patchEncoder) : undefined
    part?.load().catch(() => {})
  }

  async #tokenise(texts: readonly { readonly text: string; readonly index: number }[], prompt: string, options: EmbedTextsOptions): Promise<Int32Array[]> {
    const { maxLength = this.maxLength, truncation, signal } = options
    const limit = Math.min(maxLength, this.maxLength)
    const { cleaning, withoutSeparator } = this.#model.textEncoder?.sentence ?? {}
    const cleaned = texts.map(({ text }) => (cleaning ? cleanText(prompt + text, cleaning) : prompt + text))
    const tokenizer = await this.#tokenizer!.read()
    const tokens = await tokenizer.encodeAll(cleaned, { maxLength: limit, truncation, signal, firstIndex: texts[0]!.index })
    if (!withoutSeparator) return tokens
    const separator = tokenizer.encode('').at(-1)
    return tokens.map(ids => ids.map(id => (id === separator ? 0 : id)))
  }

  async #encode(batch: readonly Prepared[], normalize: boolean, unpooled: number, options: EmbedStreamOptions): Promise<(Float32Array | Error)[]> {
    const { signal, truncateDim: columns = this.dimensions } = options
    const results: (Float32Array | Error)[] = batch.map((item) => ('error' in item ? item.error : noVector))
    const place = (where: number[], rows: Float32Array, dimensions: number): void => {
      const kept = truncateRows(rows, dimensions, columns)
      if (normalize) normalizeRows(kept, columns)
      where.forEach((at, row) => (results[at] = kept.slice(row * columns, (row + 1) * columns)))
    }
    const imagesAt = batch.flatMap((item, i) => ('pixels' in item ? [i] : []))
    if (imagesAt.length) {
      const encoder = this.#model.imageEncoder!
      const size = encoder.size.height * encoder.size.width * 3
      const pixels = new Uint8Array(imagesAt.length * size)
      imagesAt.forEach((at, i) => pixels.set((batch[at] as { pixels: Uint8Array }).pixels, i * size))
      place(imagesAt, await encoder.encode(pixels, imagesAt.length, { signal }), encoder.dimensions)
    }
    const patchesAt = batch.flatMap((item, i) => ('patches' in item ? [i] : []))
    if (patchesAt.length) {
      const encoder = this.#model.patchEncoder!
      const pictures = patchesAt.map((at) => (batch[at] as { patches: Readonly<Record<string, Tensor>> }).patches)
      place(patchesAt, await encoder.encode(pictures, { signal }), encoder.dimensions)
    }
    const soundsAt = batch.flatMap((item, i) => ('samples' in item ? [i] : []))
    if (soundsAt.length) {
      const encoder = this.#model.audioEncoder!
      const clips = soundsAt.map((at) => (batch[at] as { samples: Float32Array }).samples)
      place(soundsAt, await encoder.encode(clips, { signal }), encoder.dimensions)
    }
    const textsAt = batch.flatMap((item, i) => ('tokens' in item ? [i] : []))
    if (textsAt.length) {
      const encoder = this.#model.textEncoder!
      const sequences = textsAt.map((at) => (batch[at] as { tokens: Int32Array }).tokens)
      const { padId } = await this.#tokenizer!.read()
      place(textsAt, await encoder.encode(sequences, { unpooled, padId, signal }), encoder.dimensions)
    }
    return results
  }
}

/** Read at once where it is sure to be needed. */
async function tokenizerOf(folder: string, settings: TokenizerSource, later: boolean): Promise<LazyTokenizer> {
  if (later) return lazyTokenizer(folder, settings)
  const tokenizer = await loadTokenizer(folder, settings)
  return { maxLength: tokenizer.maxLength, read: async () => tokenizer }
}

const noVector = new Float32Array(0)

function isTensor(value: unknown): value is TensorLike {
  return value !== null && typeof value === 'object' && 'type' in value && 'data' in value && 'dims' in value
}

function split(item: StreamItem): { image?: ImageInput; text?: string; audio?: AudioInput } {
  if (item !== null && typeof item === 'object' && ('text' in item || 'image' in item || 'audio' in item)) return item as { image?: ImageInput; text?: string; audio?: AudioInput }
  return { image: item as ImageInput }
}

/** The part of a batch that an item fills. */
function shareOf(item: Prepared): number {
  if ('tokens' in item) return Math.max(item.tokens.length / TOKENS_AT_ONCE, 1 / TEXTS_AT_ONCE)
  if ('samples' in item) return Math.max(item.samples.length / SAMPLES_AT_ONCE, 1 / imagesAtOnce)
  return 1 / imagesAtOnce
}

export function isIterable(value: unknown): value is Iterable<unknown> | AsyncIterable<unknown> {
  return value !== null && typeof value === 'object' && (Symbol.iterator in value || Symbol.asyncIterator in value)
}

function imageOptionsOf({ allowRemote, maxBytes, timeout, maxPixels, allowSvg, signal }: ImageOptions): ImageOptions {
  return { allowRemote, maxBytes, timeout, maxPixels, allowSvg, signal }
}

function audioOptionsOf({ allowRemote, maxBytes, timeout, maxSeconds, signal }: AudioOptions): AudioOptions {
  return { allowRemote, maxBytes, timeout, maxSeconds, signal }
}

/** The error of one input among many, saying which. */
export function withIndex(error: Error, index: number): Error {
  if ((error as { index?: unknown }).index === index) return error
  Object.defineProperty(error, 'index', { value: index, enumerable: true, configurable: true })
  error.message = `input ${index}: ${error.message}`
  return error
}

function listed(names: readonly string[]): string {
  return names.length ? names.map((name) => `'${name}'`).join(', ') : 'no prompts'
}
