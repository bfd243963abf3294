// AutoModel: from a folder or Hub repository to a Model. config.json is read first and the architecture built from it; then all its
// parameters are matched with the checkpoint at once, and only then is anything loaded.

import { join } from 'node:path'
import { compile } from '../core/compile.js'
import { Device, type Weights } from '../core/device.js'
import { UnsupportedError } from '../core/errors.js'
import { checkOptions, option, type OptionRules } from '../core/options.js'
import { parameter } from '../core/value.js'
import { defaultImageRules, findImageRules } from '../data/processor.js'
import { type Checkpoint, matchParameters, openCheckpoint, weightSources } from '../io/checkpoint.js'
import { resolveSource, sourceOptionRules, type SourceOptions } from '../io/hub.js'
import { readJsonObject } from '../io/json.js'
import { type PixelScale, Scope } from '../nn/index.js'
import { unary } from '../ops/index.js'
import type { Config } from './config.js'
import type { Architecture } from './encoder.js'
import { Model } from './model.js'
import { buildArchitecture } from './registry.js'
import { buildSentence, readSentenceModules, type SentenceModules } from './sentence-transformers.js'

export interface LoadOptions extends Omit<SourceOptions, 'files'> {
  /** 'auto' (default: cuda where one works, else cpu), 'cpu', 'cuda', 'cuda:N'. */
  device?: string | undefined
  /** 'auto' (default: bf16 where the device has bf16 arithmetic, else f32), 'f32', 'bf16', 'int8'; transformers.js's spellings too. */
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
  const { signal } = options
  signal?.throwIfAborted()
  const { folder } = await resolveSource(source, { ...options, files: ['config', 'weights', 'processor'] })
  const device = await Device.open(options)
  try {
    const modules = await readSentenceModules(folder)
    const encoderFolder = modules?.encoder ?? folder
    const file = join(encoderFolder, 'config.json')
    const config = { json: Object.freeze(await readJsonObject(file)), file }
    const checkpoint = await openCheckpoint(encoderFolder, { signal })
    const built = await build(config, checkpoint, modules, device)
    const matched = built.parts.map(({ checkpoint, scope }) => matchParameters(checkpoint, scope.parameters))
    const sources = await weightSources(matched.flatMap(({ entries }) => entries), { signal })
    const loading = device.loadWeights(sources, { signal })
    const others = meanwhile(built.architecture)
    others.catch(() => {}) // awaited below
    const weights = await loading
    const model = new Model({
      config: config.json,
      device,
      weights,
      architecture: built.architecture,
      folder,
      scale: built.architecture.images && (await readPixelScale(encoderFolder, modelKind(config.json))),
      logitScale: await readLogitScale(built.architecture, device, weights),
      unusedTensors: matched.flatMap(({ unused }) => unused),
      file: encoderFolder,
    })
    options.onProgress?.({ status: 'ready', task: 'feature-extraction', model: source })
    return { model, rest: await others }
  } catch (error) {
    await device.dispose()
    throw error
  }
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
async function readPixelScale(folder: string, modelType: string): Promise<PixelScale | UnsupportedError> {
  try {
    return (await findImageRules(folder)) ?? defaultImageRules(modelType)
  } catch (error) {
    if (error instanceof UnsupportedError) return error
    throw error
  }
}

/** model_type, or the class that stands for it: 'clip…', 'vit…'. */
function modelKind({ model_type: type, architectures }: Config): string {
  return String(type ?? (architectures as string[])[0]).toLowerCase()
}

/** The factor of image-text cosines. */
async function readLogitScale({ logitScale }: Architecture, device: Device, weights: Weights): Promise<number | undefined> {
  if (!logitScale) return undefined
  using program = compile(() => ({ scale: unary(parameter(logitScale), 'exp') }), {}, device, weights)
  return (await program.run({})).scale!.data[0] as number
}
