// AutoProcessor: from a checkpoint's folder or Hub id to its image processor, or to the feature extractor of one that takes sound.

import { join } from 'node:path'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import { checkOptions } from '../core/options.js'
import { type SourceOptions, resolveSource, sourceOptionRules } from '../io/hub.js'
import { readJsonObject } from '../io/json.js'
import { modelFolder } from '../io/modules.js'
import { type AudioProcessor, type AudioRules, isAudioConfig, makeAudioProcessor, readAudioRules } from './audio-processor.js'
import { type ImageRules, readImageRules, readOpenClipRules, readTimmRules } from './image-config.js'
import { makeProcessor, type Processor } from './image-processor.js'
import { isFile } from './files.js'

export type { Picture, Processor, ProcessorOptions, ProcessorOutput } from './image-processor.js'

export const AutoProcessor = {
  /**
   * The image processor of a checkpoint, with the pixels of the reference's Pillow processor; of one that takes sound, its feature extractor.
   *
   * @example
   * const extractor = await AutoProcessor.fromPretrained<AudioProcessor>('facebook/wav2vec2-base-960h')
   * @param source a folder or a Hub id
   * @throws CheckpointError: no preprocessor_config.json, or a field that is missing or absurd
   * @throws UnsupportedError for a processor that does more than resize, crop, rescale and normalise.
   */
  async fromPretrained<P extends Processor | AudioProcessor = Processor>(source: string, options: SourceOptions = {}): Promise<P> {
    checkOptions('AutoProcessor.fromPretrained', options, sourceOptionRules)
    const { folder } = await resolveSource(source, { files: ['processor'], ...options })
    const ofModel = await modelFolder(folder)
    const sound = await findAudioRules(ofModel)
    if (sound) return makeAudioProcessor(sound) as P
    const rules = await findImageRules(ofModel)
    if (rules) return makeProcessor(rules) as P
    const file = join(ofModel, 'preprocessor_config.json')
    throw new CheckpointError(`${file} is not there, and no processor_config.json with an image_processor either`, { file })
  },
}

/** The rules for sound that a folder holds; undefined if it holds none. */
export async function findAudioRules(folder: string): Promise<AudioRules | undefined> {
  const file = join(folder, 'preprocessor_config.json')
  if (await isFile(file)) {
    const config = await readJsonObject(file)
    return isAudioConfig(config) ? readAudioRules(config, file) : undefined
  }
  const combined = join(folder, 'processor_config.json')
  const section = (await isFile(combined)) ? (await readJsonObject(combined))['feature_extractor'] : undefined
  if (section === null || typeof section !== 'object' || Array.isArray(section) || !isAudioConfig(section as Record<string, unknown>)) return undefined
  return readAudioRules(section as Record<string, unknown>, combined)
}

/** The feature extractor of a model that takes sound, by its folder or else the reference's defaults. */
export async function audioProcessorOf(folder: string): Promise<AudioProcessor> {
  return makeAudioProcessor((await findAudioRules(folder)) ?? readAudioRules({}, `the defaults of ${folder}`))
}

/** The rules for images that a folder holds; undefined if it holds none. */
export async function findImageRules(folder: string): Promise<ImageRules | undefined> {
  const file = join(folder, 'preprocessor_config.json')
  if (await isFile(file)) return readImageRules(await readJsonObject(file), file)
  // Newer checkpoints have all processors in one file.
  const combined = join(folder, 'processor_config.json')
  const section = (await isFile(combined)) ? (await readJsonObject(combined))['image_processor'] : undefined
  if (section === undefined) return findOtherRules(folder)
  if (section === null || typeof section !== 'object' || Array.isArray(section)) {
    throw new CheckpointError(`${combined}: image_processor is no object`, { file: combined, field: 'image_processor' })
  }
  return readImageRules(section as Record<string, unknown>, combined)
}

/** Those of open_clip's and timm's folders. */
async function findOtherRules(folder: string): Promise<ImageRules | undefined> {
  const openClip = join(folder, 'open_clip_config.json')
  if (await isFile(openClip)) return readOpenClipRules(await readJsonObject(openClip), openClip)
  const file = join(folder, 'config.json')
  const config = (await isFile(file)) ? await readJsonObject(file) : {}
  return typeof config['architecture'] === 'string' && (config['pretrained_cfg'] ?? config['input_size']) != null ? readTimmRules(config, file) : undefined
}

/** The processor's class that the reference library takes for a model. */
const PROCESSORS: readonly (readonly [RegExp, string])[] = [
  [/^clip/, 'CLIPImageProcessor'],
  [/^chinese_?clip/, 'ChineseCLIPImageProcessor'],
  [/^siglip2/, 'Siglip2ImageProcessor'],
  [/^siglip/, 'SiglipImageProcessor'],
  [/^dinov3/, 'DINOv3ViTImageProcessor'],
  [/^align/, 'EfficientNetImageProcessor'],
  [/^vilt/, 'ViltImageProcessor'],
  [/^blip/, 'BlipImageProcessor'],
  [/^dinov2/, 'BitImageProcessor'],
  [/^resnet/, 'ConvNextImageProcessor'],
  [/^vit/, 'ViTImageProcessor'],
]

/**
 * The rules for images of a model whose folder says nothing.
 * @throws UnsupportedError for a model that has no usual processor
 */
export function defaultImageRules(modelType: string): ImageRules {
  const name = PROCESSORS.find(([pattern]) => pattern.test(modelType))?.[1]
  if (!name) throw new UnsupportedError(`there is no preprocessor_config.json, which says how the pictures of a ${modelType} model are made`, { field: 'preprocessor_config.json' })
  return readImageRules({ image_processor_type: name }, `the defaults of ${name}`)
}
