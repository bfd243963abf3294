// Chinese-CLIP (Yang et al., arXiv:2211.01335): CLIP's picture tower beside a BERT, whose first token is projected. ChineseCLIPModel, and each
// tower alone.

import * as v from 'valibot'
import { UnsupportedError } from '../core/errors.js'
import { Linear, type Scope } from '../nn/index.js'
import { type BertConfig, bertOptions, encoderScope, FirstTokenBert, readBertConfig, readBertSection, SECTION_WIDTHS } from './bert.js'
import { buildClipVision } from './clip.js'
import { type ConfigFile, readConfig, sectionOf, width, withOlderSpelling } from './config.js'
import type { Architecture } from './encoder.js'
import { projectedTexts } from './projected.js'

const schema = v.object({ projection_dim: v.nullish(width(), 512) })

/** @param architecture the reference's class, say 'ChineseCLIPVisionModel' */
export function buildChineseClip(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  switch (architecture) {
    case 'ChineseCLIPVisionModel':
      return { images: buildClipVision(file, scope, sectionOf(file, 'chinese_clip', 'vision_config'), { joint: false, projection: 0 }) }
    case 'ChineseCLIPTextModel': {
      const section = sectionOf(file, 'chinese_clip', 'text_config')
      const at = encoderScope(scope, 'text_model')
      return { texts: new FirstTokenBert(at, bertOptions(section === undefined ? readBertConfig(file) : readText(file, section, at))) }
    }
    case 'ChineseCLIPModel':
      return buildPair(file, scope)
    default:
      throw new UnsupportedError(`${file.file}: ${architecture} is not supported; of Chinese-CLIP there are ChineseCLIPModel and its towers alone`, {
        file: file.file,
        field: 'architectures',
      })
  }
}

function readText(file: ConfigFile, section: string, scope: Scope): BertConfig {
  return readBertSection(withOlderSpelling(file, section, SECTION_WIDTHS), section, scope)
}

function buildPair(file: ConfigFile, scope: Scope): Architecture {
  const { projection_dim: projection } = readConfig(schema, file)
  const text = readText(file, 'text_config', scope.at('text_model'))
  return {
    images: buildClipVision(file, scope, 'vision_config', { joint: true, projection }),
    texts: projectedTexts(new FirstTokenBert(scope.at('text_model'), bertOptions(text)), {
      pooled: ({ embedding }) => embedding,
      projection: new Linear(scope.at('text_projection'), text.hidden_size, projection, { bias: false }),
      readsFirst: true,
    }),
    logitScale: scope.parameter('logit_scale', []),
  }
}
