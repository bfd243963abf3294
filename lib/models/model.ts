// Model: one forward for every architecture. Names decide: which towers the inputs and wanted outputs need, and nothing else is computed.
// Long because what it makes of its parts, encoders and scorers, are closures over them.

import type { Program } from '../core/compile.js'
import type { Device } from '../core/device.js'
import { ArgumentError, CheckpointError, DisposedError, type UnsupportedError } from '../core/errors.js'
import { checkOptions, option, type OptionRules, shown } from '../core/options.js'
import { Tensor, type TensorLike } from '../core/tensor.js'
import type { Parameter } from '../core/value.js'
import type { PixelScale } from '../nn/index.js'
import { matmul } from '../ops/index.js'
import type { Config } from './config.js'
import { type Architecture, EMBEDDING, type SentenceSettings } from './encoder.js'
import { AudioRunner } from './audio-runner.js'
import { ImageRunner } from './image-runner.js'
import { JointRunner } from './joint-runner.js'
import { bucket, checkKernels, Programs } from './programs.js'
import type { Part, Prepared } from './part.js'
import type { PartWeights } from './part-weights.js'
import { countedTokens } from './text-inputs.js'
import { TextRunner } from './text-runner.js'

export interface ForwardOptions {
  /** Names of the outputs wanted; nothing else is computed. Default: all that the inputs allow. */
  outputs?: readonly string[] | undefined
  /** Adds hidden_state_0 (the embeddings) to hidden_state_N, with the sub-model's prefix. */
  outputHiddenStates?: boolean | undefined
  /** The promise rejects with its reason. */
  signal?: AbortSignal | undefined
}

const forwardRules: OptionRules<ForwardOptions> = { outputs: option.texts, outputHiddenStates: option.flag, signal: option.signal }

/** What parts of a model have in common. */
export interface PartOfModel {
  /**
   * Reads the part's weights now. Parts that share none, as CLIP's towers, else read them when they first run.
   * @throws CheckpointError for a file that is broken or was changed since the model was loaded, DisposedError
   */
  load(options?: { signal?: AbortSignal | undefined }): Promise<void>
}

/** Pictures to embeddings. */
export interface ImageEncoder extends PartOfModel {
  /** Of the pictures it takes. */
  readonly size: { readonly height: number; readonly width: number }
  readonly dimensions: number
  /** pixels: uint8 [n, height, width, 3] -> float32 [n, dimensions], not normalised */
  encode(pixels: Uint8Array, count: number, options?: { signal?: AbortSignal | undefined }): Promise<Float32Array>
}

/** Pictures that a processor has cut into patches, each as many as it has, to embeddings. */
export interface PatchEncoder extends PartOfModel {
  readonly dimensions: number
  /** pictures: what the processor makes of each -> float32 [n, dimensions], not normalised */
  encode(pictures: readonly Readonly<Record<string, Tensor>>[], options?: { signal?: AbortSignal | undefined }): Promise<Float32Array>
}

/** The scores of texts beside one picture, by a model that looks at both together. */
export interface PairScorer {
  /** What a score is: a probability, or any number, more for a better match. */
  readonly kind: 'probability' | 'logit'
  /** Tokens a text may have. */
  readonly maxLength: number
  /**
   * picture: what the processor makes of one; sequences: ids of each text, with special tokens and without padding -> a score for each
   * @param options.padId the tokenizer's padding token
   */
  score(picture: Readonly<Record<string, Tensor>>, sequences: readonly Int32Array[], options?: { padId?: number | undefined; signal?: AbortSignal | undefined }): Promise<Float32Array>
}

/** Token ids to embeddings. */
export interface TextEncoder extends PartOfModel {
  readonly dimensions: number
  /** Tokens a text may have. */
  readonly maxLength: number
  /** Of a folder that says how texts are read. */
  readonly sentence: SentenceSettings | undefined
  /**
   * Whether `encode` takes these ids of text `index`.
   * @throws ArgumentError for a text without tokens, with too many, or with one that the model does not know
   */
  check(ids: Int32Array, index: number): void
  /**
   * sequences: ids of each text, with special tokens and without padding -> float32 [n, dimensions], not normalised
   * @param options.unpooled so many tokens at the front, a prompt's, are left out by poolings
   * @param options.padId the tokenizer's padding token, for towers that are given texts of one length
   */
  encode(sequences: readonly Int32Array[], options?: { unpooled?: number | undefined; padId?: number | undefined; signal?: AbortSignal | undefined }): Promise<Float32Array>
}

/** Sound to embeddings. */
export interface AudioEncoder extends PartOfModel {
  readonly dimensions: number
  /** The fewest samples that a clip may have. */
  readonly minSamples: number
  /** clips: samples at the checkpoint's rate, as its feature extractor makes them -> float32 [n, dimensions], not normalised */
  encode(clips: readonly Float32Array[], options?: { signal?: AbortSignal | undefined }): Promise<Float32Array>
}

/** Pictures to scores of the classes that a checkpoint was trained on. */
export interface Classifier {
  readonly labels: readonly string[]
  /** pixels: uint8 [n, height, width, 3] -> float32 [n, labels], before softmax */
  logits(pixels: Uint8Array, count: number, options?: { signal?: AbortSignal | undefined }): Promise<Float32Array>
}

/** @internal */
export interface ModelParts {
  readonly config: Config
  readonly device: Device
  /** The weights of parts that read these parameters, in the same order; not loaded yet. */
  readonly weightsOf: (reads: readonly ReadonlySet<Parameter>[]) => readonly PartWeights[]
  readonly architecture: Architecture
  /** How uint8 pixels become numbers, or why they cannot. */
  readonly scale: PixelScale | UnsupportedError | undefined
  /** Of pictures that are embedded; default the architecture's own. */
  readonly imageSize?: ImageEncoder['size'] | undefined
  /** The factor of image-text cosines, and what is added to the product. */
  readonly logitScale: number | undefined
  readonly logitBias: number | undefined
  /** Where everything of the model is. */
  readonly folder: string
  readonly unusedTensors: readonly string[]
  readonly file: string
}

const PER_IMAGE = 'logits_per_image'
const PER_TEXT = 'logits_per_text'
const SIGMOIDS = 'probs_sigmoid'
/** Texts scored beside a picture in one run. */
const PAIRS_AT_ONCE = 16
/** Rows and columns of logits in one run. */
const LOGITS_BLOCK = 512

/** What is computed of every picture and every text, and from which outputs. */
interface Pairing {
  images: string
  texts: string
  outputs: readonly string[]
}

/** The outputs wanted of each part whose inputs are there, and of what is computed from two parts' embeddings. */
interface Wanted {
  parts: Map<Part, string[]>
  joint: string[]
}

/**
 * A model on a device.
 *
 * @example
 * const model = await AutoModel.fromPretrained('openai/clip-vit-base-patch32')
 * const { text_embeds } = await model.forward({ input_ids })
 * await model.dispose()
 */
export class Model {
  /** config.json as it is. */
  readonly config: Config
  /** 'cpu', 'cuda:0', … */
  readonly device: string
  /** What matrix products are computed in: 'f32', 'bf16', 'f16' (CUDA) or 'int8'. */
  readonly dtype: string
  /** The folder it was loaded from: the source, or its snapshot in the Hub's cache. */
  readonly folder: string
  /** Tensors of the checkpoint that nothing here reads. */
  readonly unusedTensors: readonly string[]
  readonly imageEncoder: ImageEncoder | undefined
  /** In imageEncoder's place for pictures of any aspect ratio. */
  readonly patchEncoder: PatchEncoder | undefined
  readonly textEncoder: TextEncoder | undefined
  /** Of models that were trained to match pictures and texts. */
  readonly pairScorer: PairScorer | undefined
  readonly audioEncoder: AudioEncoder | undefined
  readonly classifier: Classifier | undefined
  /** The factor that turns cosines of images and texts into logits, of models that have one. */
  readonly logitScale: number | undefined
  /** What is added to the logits, of models whose pairs are scored one by one. */
  readonly logitBias: number | undefined
  /** Of what is computed from parts' outputs; reads no weights. */
  private readonly jointPrograms: Programs
  /** Of each part. */
  private readonly programs: readonly Programs[]
  private readonly images: ImageRunner | undefined
  private readonly texts: TextRunner | undefined
  /** All there are, in the order in which outputs are listed. */
  private readonly runners: readonly Part[]
  private readonly pairing: Pairing | undefined
  private disposed = false

  /** @internal */
  constructor(private readonly parts: ModelParts) {
    const { architecture, device } = parts
    this.config = parts.config
    this.device = device.id
    this.dtype = device.dtype
    this.folder = parts.folder
    this.unusedTensors = parts.unusedTensors
    this.logitScale = parts.logitScale
    this.logitBias = parts.logitBias
    this.jointPrograms = new Programs(device)
    this.pairing = pairingOf(parts)
    if (this.pairing) checkKernels(device, ['matmul'])
    this.images = architecture.images && new ImageRunner(architecture.images, new Programs(device), parts.scale!, parts.imageSize)
    this.texts = architecture.texts && new TextRunner(architecture.texts, new Programs(device))
    const joint = architecture.joint && new JointRunner(architecture.joint, new Programs(device), parts.scale)
    const audio = architecture.audio && new AudioRunner(architecture.audio, new Programs(device))
    const runners = [this.images, this.texts, joint, audio].filter(part => part !== undefined)
    this.runners = runners
    this.programs = runners.map(({ programs }) => programs)
    const weights = parts.weightsOf(this.programs.map(({ reads }) => reads))
    this.programs.forEach((programs, i) => (programs.weights = weights[i]))
    this.patchEncoder = joint?.tower.embedsPictures ? this.makePatchEncoder(joint) : undefined
    this.pairScorer = joint && architecture.matching && this.makePairScorer(joint, architecture.matching)
    this.imageEncoder = this.images && this.makeImageEncoder(this.images)
    this.textEncoder = this.texts && this.makeTextEncoder(this.texts)
    this.audioEncoder = audio && this.makeAudioEncoder(audio)
    this.classifier = this.images && architecture.labels && this.makeClassifier(this.images, architecture.labels)
  }

  /**
   * Runs the model.
   *
   * Inputs, by the reference's names: `pixel_values` uint8 [n, H, W, 3] or float32 [n, 3, H, W] (as the processor makes them);
   * `input_values` float32 [n, samples], with `attention_mask` of the same shape; `input_ids` int64 or int32 [B, L], with `attention_mask`, `token_type_ids` and `position_ids` of the same shape. One modality is
   * enough for its outputs. Outputs are float32, masks among them int64. Positions whose mask is 0 are not computed and come back as zeros, as does
   * everything of a text whose mask is 0 throughout.
   *
   * @example
   * const { last_hidden_state } = await model.forward({ input_ids, attention_mask }, { outputs: ['last_hidden_state'] })
   * @throws ArgumentError for an unknown input or output, a token id or pixel out of range, a text that is too long; ShapeError and
   *   DTypeError for tensors that do not fit; CheckpointError for an output whose tensors the checkpoint lacks; DisposedError
   */
  async forward(inputs: Readonly<Record<string, TensorLike>>, options: ForwardOptions = {}): Promise<Record<string, Tensor>> {
    this.checkAlive()
    checkOptions('forward', options, forwardRules)
    const { signal } = options
    signal?.throwIfAborted()
    const given = this.readInputs(inputs)
    const present = new Map<Part, Prepared>()
    for (const part of this.runners) if (part.required.every(name => given[name])) present.set(part, part.prepare(given))
    const { parts, joint } = this.resolve(present, given, options)
    const results: Record<string, Tensor> = {}
    // What is not asked for, but what logits or later parts are computed from.
    const used = new Set([...parts].flatMap(([part, names]) => (names.length > 0 ? (part.uses ?? []) : [])))
    const { pairing } = this
    if (pairing && joint.length > 0) for (const name of [pairing.images, pairing.texts]) used.add(name)
    for (const [part, names] of parts) {
      const want = [...new Set([...names, ...part.outputs.filter(name => used.has(name))])]
      if (want.length > 0) Object.assign(results, await present.get(part)!(want, signal, pick(results, part.uses ?? [])))
    }
    if (pairing && joint.length > 0) Object.assign(results, await this.logits(results[pairing.images]!, results[pairing.texts]!, joint, signal))
    return Object.fromEntries([...[...parts.values()].flat(), ...joint].map(name => [name, results[name]!]))
  }

  /** Frees weights and plans when the last run that uses them ends. */
  async dispose(): Promise<void> {
    if (this.disposed) return
    this.disposed = true
    for (const programs of [this.jointPrograms, ...this.programs]) programs.dispose()
    await this.parts.device.dispose()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }

  private checkAlive(): void {
    if (this.disposed) throw new DisposedError('the model has been disposed of')
  }

  private readInputs(inputs: Readonly<Record<string, TensorLike>>): Record<string, Tensor> {
    if (inputs === null || typeof inputs !== 'object') throw new ArgumentError(`[forward] the inputs are ${shown(inputs)}; expected an object of tensors by name`, { field: 'inputs' })
    const known = [...new Set(this.runners.flatMap(part => part.inputs))]
    const given: Record<string, Tensor> = {}
    for (const [name, value] of Object.entries(inputs)) {
      if (value === undefined) continue
      if (!known.includes(name)) throw new ArgumentError(`[forward] there is no input '${name}'; expected ${known.join(', ')}`, { field: name })
      given[name] = Tensor.from(value, `[forward] ${name}`)
    }
    if (this.runners.some(part => part.required.every(name => given[name]))) return given
    const needed = [...new Set(this.runners.flatMap(part => part.required))].filter(name => !given[name])
    throw new ArgumentError(`[forward] ${needed.join(' and ')} ${needed.length > 1 ? 'are' : 'is'} missing`, { field: needed[0]! })
  }

  /** Which part gives each output. */
  private resolve(present: ReadonlyMap<Part, Prepared>, given: Readonly<Record<string, Tensor>>, { outputs, outputHiddenStates }: ForwardOptions): Wanted {
    const { images, texts, outputs: joint } = this.pairing ?? { images: '', texts: '', outputs: [] }
    const bothTowers = this.runners.filter(part => part.outputs.includes(images) || part.outputs.includes(texts))
    const isState = (name: string) => /(^|_)hidden_state_\d+$/.test(name)
    const wanted: Wanted = { parts: new Map([...present.keys()].map(part => [part, []])), joint: [] }
    if (!outputs) {
      for (const [part, names] of wanted.parts) names.push(...part.outputs.filter(name => !isState(name)))
      if (bothTowers.every(part => present.has(part))) wanted.joint = [...joint]
    }
    const need = (name: string, parts: readonly Part[]) => {
      const input = parts.flatMap(part => part.required).find(input => !given[input])!
      throw new ArgumentError(`[forward] the output '${name}' needs ${input}`, { field: input })
    }
    for (const name of new Set(outputs)) {
      const givers = this.runners.filter(part => part.outputs.includes(name))
      const giver = givers.find(part => present.has(part))
      if (giver) wanted.parts.get(giver)!.push(name)
      else if (givers.length > 0) need(name, givers)
      else if (!joint.includes(name)) throw this.noOutput(name, [...new Set([...this.runners.flatMap(part => part.outputs), ...joint])])
      else if (bothTowers.every(part => present.has(part))) wanted.joint.push(name)
      else need(name, bothTowers)
    }
    if (outputHiddenStates) {
      for (const [part, names] of wanted.parts) wanted.parts.set(part, [...new Set([...names, ...part.outputs.filter(isState)])])
    }
    return wanted
  }

  private noOutput(name: string, known: string[]): Error {
    const tensor = this.runners.map(part => part.absent[name]).find(absent => absent !== undefined)
    if (tensor !== undefined) {
      return new CheckpointError(`[forward] the output '${name}' needs the tensor ${tensor}, which ${this.parts.file} does not have`, {
        file: this.parts.file,
        field: name,
        missing: [tensor],
      })
    }
    return new ArgumentError(`[forward] there is no output '${name}'; expected ${known.join(', ')}`, { field: name })
  }

  /** Of scale · images · textsᵀ + bias, its transpose, and its sigmoids what is wanted. Texts are padded to a few counts, so that plans are few. */
  private async logits(images: Tensor, texts: Tensor, want: readonly string[], signal: AbortSignal | undefined): Promise<Record<string, Tensor>> {
    const [rows, width] = images.dims as [number, number]
    const columns = texts.dims[0]!
    const { logitBias: bias = 0 } = this.parts
    const room = (name: string) => (want.includes(name) ? new Float32Array(rows * columns) : undefined)
    const perImage = room(this.parts.architecture.cosines?.output ?? PER_IMAGE)
    const perText = room(PER_TEXT)
    const sigmoids = room(SIGMOIDS)
    for (let c = 0; c < columns; c += LOGITS_BLOCK) {
      const textCount = Math.min(LOGITS_BLOCK, columns - c)
      const padded = new Float32Array(bucket(textCount) * width)
      padded.set((texts.data as Float32Array).subarray(c * width, (c + textCount) * width))
      for (let r = 0; r < rows; r += LOGITS_BLOCK) {
        const imageCount = Math.min(LOGITS_BLOCK, rows - r)
        const a = new Tensor('float32', images.data.subarray(r * width, (r + imageCount) * width) as Float32Array, [imageCount, width])
        const b = new Tensor('float32', padded, [bucket(textCount), width])
        const { logits } = await this.logitsProgram(bucket(imageCount), bucket(textCount), width).run({ images: a, texts: b }, { signal })
        for (let i = 0; i < imageCount; i++) {
          for (let j = 0; j < textCount; j++) {
            const value = Math.fround((logits!.data[i * bucket(textCount) + j] as number) + bias)
            const at = (r + i) * columns + c + j
            if (perImage) perImage[at] = value
            if (perText) perText[(c + j) * rows + r + i] = value
            if (sigmoids) sigmoids[at] = 1 / (1 + Math.exp(-value))
          }
        }
      }
    }
    const made = (name: string) => {
      if (name === PER_TEXT) return new Tensor('float32', perText!, [columns, rows])
      return new Tensor('float32', (name === SIGMOIDS ? sigmoids : perImage)!, [rows, columns])
    }
    return Object.fromEntries(want.map(name => [name, made(name)]))
  }

  private logitsProgram(images: number, texts: number, width: number): Program {
    return this.jointPrograms.get(
      JSON.stringify(['logits', images, texts]),
      inputs => ({ logits: matmul(inputs['images']!, inputs['texts']!, { scale: this.logitScale ?? 1, dtype: 'float32' }) }),
      {
        images: { shape: [images, width], dtype: 'float32', extent: { name: 'images', per: 1 } },
        texts: { shape: [texts, width], dtype: 'float32' },
      },
    )
  }

  /** Reads the weights of parts that cannot be read apart. @internal */
  async loadTogether(signal: AbortSignal | undefined): Promise<void> {
    const [first, ...others] = this.programs
    if (others.every(({ weights }) => weights === first!.weights)) await first!.load(signal)
  }

  private loadOf({ programs }: { readonly programs: Programs }): PartOfModel['load'] {
    return async ({ signal } = {}) => {
      this.checkAlive()
      await programs.load(signal)
    }
  }

  private makeImageEncoder(runner: ImageRunner): ImageEncoder {
    return {
      load: this.loadOf(runner),
      size: runner.size,
      dimensions: runner.kinds.get(EMBEDDING)!.width,
      encode: (pixels, count, options) => this.fromPixels(runner, EMBEDDING, pixels, count, options?.signal),
    }
  }

  private makeAudioEncoder(runner: AudioRunner): AudioEncoder {
    const { width } = runner.kinds.get(EMBEDDING)!
    return {
      load: this.loadOf(runner),
      dimensions: width,
      minSamples: runner.leastSamples,
      // Clips of one length run together; nothing is padded.
      encode: async (clips, { signal } = {}) => {
        this.checkAlive()
        const results = new Float32Array(clips.length * width)
        const byLength = new Map<number, number[]>()
        clips.forEach(({ length }, i) => byLength.set(length, [...(byLength.get(length) ?? []), i]))
        for (const [length, indices] of byLength) {
          const samples = new Float32Array(indices.length * length)
          indices.forEach((index, i) => samples.set(clips[index]!, i * length))
          const outputs = await runner.prepare({ input_values: new Tensor('float32', samples, [indices.length, length]) })([EMBEDDING], signal)
          indices.forEach((index, i) => results.set((outputs[EMBEDDING]!.data as Float32Array).subarray(i * width, (i + 1) * width), index * width))
        }
        return results
      },
    }
  }

  private makePatchEncoder(runner: JointRunner): PatchEncoder {
    return {
      load: this.loadOf(runner),
      dimensions: runner.kinds.get(EMBEDDING)!.width,
      encode: async (pictures, { signal } = {}) => {
        this.checkAlive()
        if (pictures.length === 0) return new Float32Array(0)
        const inputs = Object.fromEntries(runner.inputs.map(name => [name, stacked(pictures.map(picture => picture[name]!))]))
        const results = await runner.prepare(inputs)([EMBEDDING], signal)
        return results[EMBEDDING]!.data as Float32Array
      },
    }
  }

  private makePairScorer(runner: JointRunner, { output, column, kind }: NonNullable<Architecture['matching']>): PairScorer {
    const score = async (picture: Readonly<Record<string, Tensor>>, used: Readonly<Record<string, Tensor>>, sequences: readonly Int32Array[], padId: number, signal: AbortSignal | undefined) => {
      const count = sequences.length
      const length = Math.max(...sequences.map(ids => ids.length))
      const ids = new Int32Array(count * length).fill(padId)
      const mask = new Int32Array(count * length)
      sequences.forEach((sequence, i) => {
        ids.set(sequence, i * length)
        mask.fill(1, i * length, i * length + sequence.length)
      })
      // What another tower made of the picture serves all texts as it is.
      const repeated = Object.fromEntries(Object.entries(runner.uses.length === 0 ? picture : {}).map(([name, tensor]) => [name, stacked(sequences.map(() => tensor))]))
      const inputs = { ...repeated, input_ids: new Tensor('int32', ids, [count, length]), attention_mask: new Tensor('int32', mask, [count, length]) }
      const results = await runner.prepare(inputs)([output], signal, used)
      const { data, dims } = results[output]!
      return Float32Array.from({ length: count }, (_, i) => data[i * dims[1]! + column] as number)
    }
    return {
      kind,
      maxLength: runner.tower.maxLength ?? Number.POSITIVE_INFINITY,
      score: async (picture, sequences, { padId = 0, signal } = {}) => {
        this.checkAlive()
        // What is of the picture alone is computed once.
        const used = runner.uses.length > 0 ? await this.images!.prepare(picture)(runner.uses, signal) : {}
        const scores = new Float32Array(sequences.length)
        for (let at = 0; at < sequences.length; at += PAIRS_AT_ONCE) scores.set(await score(picture, used, sequences.slice(at, at + PAIRS_AT_ONCE), padId, signal), at)
        return scores
      },
    }
  }

  private makeClassifier(runner: ImageRunner, labels: readonly string[]): Classifier {
    return { labels, logits: (pixels, count, options) => this.fromPixels(runner, 'logits', pixels, count, options?.signal) }
  }

  private async fromPixels(runner: ImageRunner, name: string, pixels: Uint8Array, count: number, signal?: AbortSignal): Promise<Float32Array> {
    this.checkAlive()
    const { height, width } = runner.size
    const results = await runner.prepare({ pixel_values: new Tensor('uint8', pixels, [count, height, width, 3]) })([name], signal)
    return results[name]!.data as Float32Array
  }

  private makeTextEncoder(runner: TextRunner): TextEncoder {
    const { tower } = runner
    const { width } = runner.kinds.get(EMBEDDING)!
    const { sentence } = this.parts.architecture
    const read = (ids: Int32Array, index: number, unpooled: number, padId: number | undefined) => {
      const none = () => new ArgumentError(`[encode] text ${index} has no tokens`, { index })
      if (ids.length === 0) throw none()
      const filled = padded(ids, tower.pad && { ...tower.pad, id: tower.padded?.id ?? padId ?? tower.pad.id })
      const used = tower.endOf && !tower.padded ? filled.subarray(0, tower.endOf(filled) + 1) : filled
      if (used.length > tower.maxLength) throw new ArgumentError(`[encode] text ${index} has ${used.length} tokens; this model takes at most ${tower.maxLength}`, { index })
      const wrong = used.findIndex(id => id < 0 || id >= tower.vocabulary)
      if (wrong >= 0) {
        throw new ArgumentError(`[encode] text ${index} has the token id ${used[wrong]} at position ${wrong}; expected 0 to ${tower.vocabulary - 1}`, { index })
      }
      const { ids: all, mask } = countedTokens(tower, used)
      const positions = tower.positionIds(tower.padded ? all : filled)
      // One row at least is pooled.
      if (!mask) return { ids: all, positions: positions.subarray(0, all.length), unpooled: Math.min(unpooled, all.length - 1) }
      const lastIsMasked = tower.endOf !== undefined && mask.at(-1) === 0
      const counts = (_: number, i: number) => mask[i] === 1 || (lastIsMasked && i === mask.length - 1)
      const counted = all.filter(counts)
      if (counted.length === 0) throw none()
      return { ids: counted, positions: positions.filter(counts), unpooled: Math.min(unpooled, counted.length - 1), lastIsMasked }
    }
    return {
      load: this.loadOf(runner),
      dimensions: width,
      maxLength: Math.min(tower.maxLength, sentence?.maxLength ?? tower.maxLength),
      sentence,
      check: (ids, index) => void read(ids, index, 0, undefined),
      encode: async (sequences, { unpooled = 0, padId, signal } = {}) => {
        this.checkAlive()
        const results = new Float32Array(sequences.length * width)
        await runner.run(
          sequences.length,
          index => read(sequences[index]!, index, unpooled, padId),
          [EMBEDDING],
          ({ texts, outputs }) => results.set(outputs[EMBEDDING]!.data as Float32Array, texts[0]! * width), // none is left out
          signal,
        )
        return results
      },
    }
  }
}

/** Tensors of one shape, one after the other: [a, …] of n as [n·a, …]. */
function stacked(tensors: readonly Tensor[]): Tensor {
  const [first] = tensors as [Tensor]
  const data = new (first.data.constructor as new (length: number) => Float32Array)(tensors.length * first.size)
  tensors.forEach((tensor, i) => data.set(tensor.data as Float32Array, i * first.size))
  return new Tensor(first.type, data, [tensors.length * first.dims[0]!, ...first.dims.slice(1)])
}

function pairingOf({ architecture: { cosines }, logitScale, logitBias }: ModelParts): Pairing | undefined {
  if (cosines) return { images: cosines.images, texts: cosines.texts, outputs: [cosines.output] }
  if (logitScale === undefined) return undefined
  return { images: 'image_embeds', texts: 'text_embeds', outputs: [PER_IMAGE, PER_TEXT, ...(logitBias === undefined ? [] : [SIGMOIDS])] }
}

function pick(results: Readonly<Record<string, Tensor>>, names: readonly string[]): Record<string, Tensor> {
  return Object.fromEntries(names.map(name => [name, results[name]!]))
}

/** ids filled up to the length that the tower wants. */
function padded(ids: Int32Array, pad: { id: number; length: number } | undefined): Int32Array {
  if (!pad || ids.length >= pad.length) return ids
  const filled = new Int32Array(pad.length).fill(pad.id)
  filled.set(ids)
  return filled
}
