// AutoModel: from a folder or Hub repository to a Model. config.json is read first and the architecture built from it; then all its
// parameters are matched with the checkpoint at once, and only then is anything loaded.

import { join } from 'node:path'
import { Device } from '../core/device.js'
import { fromBfloat16, fromFloat16 } from '../core/dtype.js'
import type { Tensor } from '../core/tensor.js'
import { defaultImageRules, findImageRules } from '../data/processor.js'
import { matchParameters, type Checkpoint, openCheckpoint } from '../io/checkpoint.js'
import { readTensor } from '../io/entry.js'
import { type ProgressEvent, resolveSource } from '../io/hub.js'
import { readJsonObject } from '../io/json.js'
import { type ComputeType, Scope } from '../nn/index.js'
import type { Architecture } from './encoder.js'
import { Model } from './model.js'
import { buildArchitecture } from './registry.js'
import { readSentenceModules, type SentenceModules, SentenceTower } from './sentence-transformers.js'

export interface LoadOptions {
  /** 'auto' (default: cuda where one works, else cpu), 'cpu', 'cuda', 'cuda:N'. */
  device?: string | undefined
  /** 'auto' (default: bf16 where the device has bf16 arithmetic, else f32), 'f32', 'bf16'; transformers.js's spellings too. */
  dtype?: string | undefined
  /** Cores to use at most. */
  threads?: number | undefined
  /** Where Hub files are kept; default HF_HUB_CACHE, else `hub` in HF_HOME. */
  cacheDir?: string | undefined
  /** Branch, tag or commit on the Hub; default 'main'. */
  revision?: string | undefined
  /** Only what is in the cache. */
  localFilesOnly?: boolean | undefined
  /** Stops downloads and loading; the promise rejects with its reason. */
  signal?: AbortSignal | undefined
  /** transformers.js's statuses: initiate, download, progress, done, ready. */
  onProgress?: ((event: ProgressEvent) => void) | undefined
  /** Caps the CPU's instruction set, for tests and measurements. @internal */
  isa?: string | undefined
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
    const { signal, cacheDir, revision, localFilesOnly, onProgress } = options
    signal?.throwIfAborted()
    const { folder } = await resolveSource(source, { files: ['config', 'weights', 'processor'], cacheDir, revision, localFilesOnly, signal, onProgress })
    const device = await Device.open(options)
    try {
      const modules = await readSentenceModules(folder)
      const encoderFolder = modules?.encoder ?? folder
      const file = join(encoderFolder, 'config.json')
      const config = { json: Object.freeze(await readJsonObject(file)), file }
      const checkpoint = await openCheckpoint(encoderFolder, { signal })
      const built = await build(config, checkpoint, modules, device.computeType)
      const matched = built.parts.map(({ checkpoint, scope }) => matchParameters(checkpoint, scope.parameters))
      const weights = await device.loadWeights(matched.flatMap(({ entries }) => entries), { signal })
      const { images, logitScale } = built.architecture
      const stored = logitScale && checkpoint.tensors.get(logitScale.name)
      const model = new Model({
        config: config.json,
        folder,
        device,
        weights,
        architecture: built.architecture,
        scale: (images && (await findImageRules(folder))) ?? defaultImageRules(String(config.json['model_type'])),
        logitScale: stored && Math.exp(toNumber(await readTensor(stored))),
        unusedTensors: matched.flatMap(({ unused }) => unused),
        file: encoderFolder,
      })
      onProgress?.({ status: 'ready', task: 'embedding', model: source })
      return model
    } catch (error) {
      await device.dispose()
      throw error
    }
  },
}

/** The one element of a float tensor. */
function toNumber({ type, data }: Tensor): number {
  const [value] = data
  if (type === 'bfloat16') return fromBfloat16(Number(value))
  return type === 'float16' ? fromFloat16(Number(value)) : Number(value)
}

async function build(config: Parameters<typeof buildArchitecture>[0], checkpoint: Checkpoint, modules: SentenceModules | undefined, computeType: ComputeType): Promise<Built> {
  const scope = Scope.root(checkpoint, computeType)
  const architecture = buildArchitecture(config, scope)
  const parts = [{ checkpoint, scope }]
  if (!modules || !architecture.texts || architecture.images) return { architecture, parts }
  const sentence = await SentenceTower.build(architecture.texts, modules, computeType)
  return { architecture: { texts: sentence.tower }, parts: [...parts, ...sentence.parts] }
}
