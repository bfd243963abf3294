// AutoProcessor: from a checkpoint's folder or Hub id to its image processor.

import { join } from 'node:path'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import { checkOptions } from '../core/options.js'
import { type SourceOptions, resolveSource, sourceOptionRules } from '../io/hub.js'
import { readJsonObject } from '../io/json.js'
import { modelFolder } from '../io/modules.js'
import { type ImageRules, readImageRules } from './image-config.js'
import { makeProcessor, type Processor } from './image-processor.js'
import { isFile } from './files.js'

export type { Picture, Processor, ProcessorOptions, ProcessorOutput } from './image-processor.js'

export const AutoProcessor = {
  /**
   * The image processor of a checkpoint, with the pixels of the reference's Pillow processor.
   *
   * @param source a folder or a Hub id
   * @throws CheckpointError: no preprocessor_config.json, or a field that is missing or absurd
   * @throws UnsupportedError for a processor that does more than resize, crop, rescale and normalise.
   */
  async fromPretrained(source: string, options: SourceOptions = {}): Promise<Processor> {
    checkOptions('AutoProcessor.fromPretrained', options, sourceOptionRules)
    const { folder } = await resolveSource(source, { files: ['processor'], ...options })
    const ofModel = await modelFolder(folder)
    const rules = await findImageRules(ofModel)
    if (rules) return makeProcessor(rules)
    const file = join(ofModel, 'preprocessor_config.json')
    throw new CheckpointError(`${file} is not there, and no processor_config.json with an image_processor either`, { file })
  },
}

/** The rules for images that a folder holds; undefined if it holds none. */
export async function findImageRules(folder: string): Promise<ImageRules | undefined> {
  const file = join(folder, 'preprocessor_config.json')
  if (await isFile(file)) return readImageRules(await readJsonObject(file), file)
  // Newer checkpoints have all processors in one file.
  const combined = join(folder, 'processor_config.json')
  const section = (await isFile(combined)) ? (await readJsonObject(combined))['image_processor'] : undefined
  if (section === undefined) return undefined
  if (section === null || typeof section !== 'object' || Array.isArray(section)) {
    throw new CheckpointError(`${combined}: image_processor is no object`, { file: combined, field: 'image_processor' })
  }
  return readImageRules(section as Record<string, unknown>, combined)
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
