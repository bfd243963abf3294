// AutoModel: from a folder or Hub repository to a Model. config.json is read first and the architecture built from it; then all its
// parameters are matched with the checkpoint at once, and only then is anything loaded: parts that share nothing, when they first run.

import { join } from 'node:path'
import { compile } from '../core/compile.js'
import { Device } from '../core/device.js'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import { checkOptions, option, type OptionRules } from '../core/options.js'
import { type Parameter, parameter } from '../core/value.js'
import type { ImageRules } from '../data/image-config.js'
import { defaultImageRules, findImageRules } from '../data/processor.js'
import { type Checkpoint, type MatchedParameter, matchParameters, openCheckpoint, weightSources } from '../io/checkpoint.js'
import { resolveSource, sourceOptionRules, type SourceOptions } from '../io/hub.js'
import { ifThere, isAbsent, readJsonObject } from '../io/json.js'
import { checkMarks, type FileMark, marksOf } from '../io/marks.js'
import { Scope } from '../nn/index.js'
import { unary } from '../ops/index.js'
import { configFromOpenAI, hasOpenAINames, withHuggingFaceNames } from './clip-openai.js'
import type { Config, ConfigFile } from './config.js'
import type { Architecture } from './encoder.js'
import { Model } from './model.js'
import { hasOpenClipNames, openClipConfig } from './open-clip.js'
import { areApart, PartWeights } from './part-weights.js'
import { buildArchitecture } from './registry.js'
import { hasTimmNames, timmConfig } from './timm-vit.js'
import { hasUniterNames } from './uniter.js'
import { buildSentence, readSentenceModules, type SentenceModules } from './sentence-transformers.js'

export interface LoadOptions extends Omit<SourceOptions, 'files'> {
  /** 'auto' (default: cuda where one works, else cpu), 'cpu', 'cuda', 'cuda:N'. */
  device?: string | undefined
  /** 'auto' (default: bf16 where the device has bf16 arithmetic, else f32), 'f32', 'bf16', 'int8', on CUDA 'f16'; transformers.js's spellings too. */
  dtype?: string | undefined
  /** Cores to use at most. */
  threads?: number | undefined
  /** Caps the CPU's instruction set, for tests and measurements. @internal */
  isa?: string | undefined
}

const { files: _, ...locationRules } = sourceOptionRules
const loadRules: OptionRules<LoadOptions> = {
  ...locationRules,
  device: option.text,
  dtype: option.text,
  threads: option.positiveInteger,
  isa: option.text,
}

/** @throws ArgumentError naming `call` and the option. @internal */
export function checkLoadOptions(call: string, options: LoadOptions): void {
  checkOptions(call, options, loadRules)
}

interface Built {
  architecture: Architecture
  /** Parameters by the checkpoint they are in; the encoder's first. */
  parts: { checkpoint: Checkpoint; scope: Scope }[]
}

export const AutoModel = {
  /**
   * Loads a model.
   *
   * @example
   * await using model = await AutoModel.fromPretrained('sentence-transformers/all-MiniLM-L6-v2', { dtype: 'f32' })
   * @param source a folder with config.json and weights, or a Hub repository id
   * @throws CheckpointError for a file that is missing or broken, naming it and the field; UnsupportedError for an architecture that is
   *   not there; DeviceError for a device that is not there
   */
  async fromPretrained(source: string, options: LoadOptions = {}): Promise<Model> {
    checkLoadOptions('AutoModel.fromPretrained', options)
    return (await loadModel(source, options, async () => {})).model
  },
}

/**
 * AutoModel.fromPretrained, and what the caller does while the weights are read on other threads.
 * @param meanwhile gets the architecture; what it rejects with is thrown
 */
export async function loadModel<T>(source: string, options: LoadOptions, meanwhile: (architecture: Architecture) => Promise<T>): Promise<{ model: Model; rest: T }> {
  const { signal, device: wanted, dtype, threads, isa } = options
  signal?.throwIfAborted()
  const { folder } = await resolveSource(source, { ...options, files: ['config', 'weights', 'processor'] })
  const device = await Device.open({ device: wanted, dtype, threads, isa })
  try {
    const modules = await readSentenceModules(folder)
    const encoderFolder = modules?.encoder ?? folder
    const { config, checkpoint } = await openModel(encoderFolder, signal)
    const built = await build(config, checkpoint, modules, device)
    const matched = built.parts.map(({ checkpoint, scope }) => matchParameters(checkpoint, scope.parameters))
    const { images, joint } = built.architecture
    const scale = images || joint?.takesPixels ? await readPixelScale(encoderFolder, modelKind(config.json)) : undefined
    const others = meanwhile(built.architecture)
    others.catch(() => {}) // awaited below
    const entries = matched.flatMap(({ entries }) => entries)
    const files = await marksOf([...new Set(built.parts.flatMap(({ checkpoint }) => checkpoint.files))])
    const model = new Model({
      config: config.json,
      device,
      weightsOf: weightsOf(device, entries, built.architecture, files),
      architecture: built.architecture,
      folder,
      scale,
      imageSize: images?.anySize && scale && !(scale instanceof Error) ? outputSize(scale) : undefined,
      ...(await readLogitScale(built.architecture, device, entries, signal)),
      unusedTensors: matched.flatMap(({ unused }) => unused),
      file: encoderFolder,
    })
    await model.loadTogether(signal)
    options.onProgress?.({ status: 'ready', task: 'feature-extraction', model: source })
    return { model, rest: await others }
  } catch (error) {
    await device.dispose()
    throw error
  }
}

/** config.json and the weights; of a CLIP with OpenAI's names as if it had Hugging Face's, with no config.json if need be. */
async function openModel(folder: string, signal: AbortSignal | undefined): Promise<{ config: ConfigFile; checkpoint: Checkpoint }> {
  const file = join(folder, 'config.json')
  const given = await readJsonObject(file).catch((error: CheckpointError) => error)
  if (given instanceof Error && !isAbsent(given.cause)) throw given
  const json = given instanceof Error ? {} : given
  const checkpoint = await openCheckpoint(folder, { signal }).catch(error => {
    throw given instanceof Error ? given : error
  })
  const named = json['model_type'] != null || Array.isArray(json['architectures'])
  const made = named && !hasOpenClipNames(checkpoint) ? undefined : await madeConfig(folder, file, json, checkpoint)
  if (made) return made
  if (!named && hasUniterNames(checkpoint.tensors) && !(given instanceof Error)) return { config: { json: Object.freeze({ ...json, model_type: 'uniter' }), file }, checkpoint }
  if (named || !hasOpenAINames(checkpoint)) {
    if (given instanceof Error) throw given
    return { config: { json: Object.freeze(json), file }, checkpoint }
  }
  return { config: { json: Object.freeze(configFromOpenAI(checkpoint, json)), file }, checkpoint: withHuggingFaceNames(checkpoint) }
}

/** Of open_clip's and timm's folders, whose files say what they are in other words. */
async function madeConfig(folder: string, file: string, json: Config, checkpoint: Checkpoint): Promise<{ config: ConfigFile; checkpoint: Checkpoint } | undefined> {
  if (typeof json['architecture'] === 'string' && json['pretrained_cfg'] != null && !hasTimmNames(checkpoint)) {
    throw new UnsupportedError(`${file}: architecture is '${json['architecture']}'; of timm's models only vision transformers are supported`, { file, field: 'architecture' })
  }
  if (typeof json['architecture'] === 'string' && hasTimmNames(checkpoint)) {
    return { config: { json: Object.freeze({ ...json, model_type: 'timm_vit', timm: timmConfig(checkpoint, json, file) }), file }, checkpoint }
  }
  const openClip = join(folder, 'open_clip_config.json')
  const described = hasOpenClipNames(checkpoint) ? await ifThere(openClip) : undefined
  if (!described) return undefined
  return { config: { json: Object.freeze(openClipConfig(checkpoint, described, openClip, json)), file: openClip }, checkpoint }
}

async function build(config: Parameters<typeof buildArchitecture>[0], checkpoint: Checkpoint, modules: SentenceModules | undefined, { computeType, productType }: Device): Promise<Built> {
  const scope = Scope.root(checkpoint, computeType, productType)
  const architecture = buildArchitecture(config, scope)
  const parts = [{ checkpoint, scope }]
  if (!modules) return { architecture, parts }
  const sentence = await buildSentence(architecture, modules, computeType)
  return { architecture: sentence.architecture, parts: [...parts, ...sentence.parts] }
}

/**
 * How uint8 pixels become numbers: what the folder's processor says, or the class's defaults where there is none. A processor that is not
 * supported leaves float32 pixels, which the caller makes.
 */
async function readPixelScale(folder: string, modelType: string): Promise<ImageRules | UnsupportedError> {
  try {
    return (await findImageRules(folder)) ?? defaultImageRules(modelType)
  } catch (error) {
    if (error instanceof UnsupportedError) return error
    throw error
  }
}

/** Of the pictures that a processor makes; undefined if it is not one for all. */
function outputSize({ crop, resize }: ImageRules): { height: number; width: number } | undefined {
  if (crop) return { height: crop.height, width: crop.width }
  return resize?.kind === 'fixed' ? { height: resize.height, width: resize.width } : undefined
}

/** model_type, or the class that stands for it: 'clip…', 'vit…'. */
function modelKind({ model_type: type, architectures }: Config): string {
  return String(type ?? (architectures as string[])[0]).toLowerCase()
}

/** Weights of parts that are read one by one, or of all in one. Files that were written to in between are refused: their parts need not belong together. */
function weightsOf(device: Device, entries: readonly MatchedParameter[], { logitScale, logitBias }: Architecture, files: readonly FileMark[]) {
  const load = async (some: readonly MatchedParameter[], signal: AbortSignal) => device.loadWeights(await weightSources(some, { signal }), { signal })
  return (reads: readonly ReadonlySet<Parameter>[]): PartWeights[] => {
    const all = new Set(entries.map(({ parameter }) => parameter))
    for (const own of [logitScale, logitBias]) if (own) all.delete(own)
    if (!areApart(reads, all)) {
      const together = new PartWeights(signal => load(entries.filter(({ parameter }) => all.has(parameter)), signal))
      return reads.map(() => together)
    }
    return reads.map(
      parameters =>
        new PartWeights(async signal => {
          await checkMarks(files)
          return load(entries.filter(({ parameter }) => parameters.has(parameter)), signal)
        }),
    )
  }
}

/** The factor of image-text cosines, and what is added to it. */
async function readLogitScale(
  { logitScale, logitBias }: Architecture,
  device: Device,
  entries: readonly MatchedParameter[],
  signal: AbortSignal | undefined,
): Promise<{ logitScale: number | undefined; logitBias: number | undefined }> {
  if (!logitScale) return { logitScale: undefined, logitBias: undefined }
  using weights = await device.loadWeights(await weightSources(entries.filter(({ parameter }) => parameter === logitScale || parameter === logitBias), { signal }), { signal })
  using program = compile(() => ({ scale: unary(parameter(logitScale), 'exp'), ...(logitBias && { minusBias: unary(parameter(logitBias), 'neg') }) }), {}, device, weights)
  const { scale, minusBias } = await program.run({})
  return { logitScale: scale!.data[0] as number, logitBias: minusBias && -(minusBias.data[0] as number) }
}
