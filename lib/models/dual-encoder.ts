// A picture encoder beside a text encoder, each of any architecture there is, their poolers projected into one space:
// transformers' VisionTextDualEncoderModel. Which ones they are say vision_config and text_config.

import * as v from 'valibot'
import { CheckpointError } from '../core/errors.js'
import { Linear, type Scope } from '../nn/index.js'
import { type Config, type ConfigFile, readConfig, width } from './config.js'
import type { Architecture } from './encoder.js'
import { projectedImages, projectedTexts } from './projected.js'

const schema = v.object({ projection_dim: v.nullish(width(), 512) })
const sizes = v.object({ hidden_size: width() })
type Build = (file: ConfigFile, scope: Scope) => Architecture

/** @param build the registry's way from a config.json to an architecture */
export function buildDualEncoder(file: ConfigFile, scope: Scope, build: Build): Architecture {
  const { projection_dim: projection } = readConfig(schema, file)
  const tower = (kind: 'vision' | 'text') => {
    const section = `${kind}_config`
    const { hidden_size: inputs } = readConfig(sizes, file, section)
    const { images, texts } = build({ file: `${file.file}: ${section}`, json: file.json[section] as Config }, scope.at(`${kind}_model`))
    const name = kind === 'vision' ? 'visual_projection' : 'text_projection'
    return { images, texts, head: { projection: new Linear(scope.at(name), inputs, projection, { bias: false }) } }
  }
  const vision = tower('vision')
  const text = tower('text')
  const missing = !vision.images ? 'vision_config' : !text.texts ? 'text_config' : undefined
  if (missing) throw new CheckpointError(`${file.file}: ${missing} is no encoder of ${missing === 'vision_config' ? 'pictures' : 'texts'}`, { file: file.file, field: missing })
  for (const [section, tower] of [['vision_config', vision.images!], ['text_config', text.texts!]] as const) {
    const absent = tower.absent['pooler_output']
    if (absent !== undefined) throw new CheckpointError(`${file.file}: ${section} needs the tensor ${absent}, which is missing`, { file: file.file, field: section, missing: [absent] })
  }
  return {
    images: projectedImages(vision.images!, vision.head),
    texts: projectedTexts(text.texts!, { ...text.head, readsFirst: true }),
    logitScale: scope.parameter('logit_scale', []),
  }
}
