// Chinese-CLIP (Yang et al., arXiv:2211.01335): CLIP's picture tower beside a BERT, whose first token is projected.

import * as v from 'valibot'
import { UnsupportedError } from '../core/errors.js'
import { Linear, type Scope } from '../nn/index.js'
import { pickToken } from '../ops/index.js'
import { BertEncoder, bertOptions, readBertSection } from './bert.js'
import { buildClipVision } from './clip.js'
import { type ConfigFile, readConfig, width } from './config.js'
import type { Architecture, TokenInputs, Traced } from './encoder.js'
import { projectedTexts } from './projected.js'

const schema = v.object({ projection_dim: v.nullish(width(), 512) })

/** The first token, as it comes out of the last block. */
class FirstToken extends BertEncoder {
  override readonly readsFirst = []

  override trace(tokens: TokenInputs): Traced {
    const traced = super.trace(tokens)
    const { last_hidden_state: last } = traced.outputs
    return { ...traced, outputs: { last_hidden_state: last! }, embedding: pickToken(last!, { which: 'first', cuSeqlens: tokens.sequences.cuSeqlens }) }
  }
}

/** @param architecture the reference's class; there is ChineseCLIPModel */
export function buildChineseClip(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  if (architecture !== 'ChineseCLIPModel') {
    throw new UnsupportedError(`${file.file}: ${architecture} is not supported; of Chinese-CLIP there is ChineseCLIPModel`, { file: file.file, field: 'architectures' })
  }
  const { projection_dim: projection } = readConfig(schema, file)
  const text = readBertSection(file, 'text_config', scope.at('text_model'))
  return {
    images: buildClipVision(file, scope, 'vision_config', { joint: true, projection }),
    texts: projectedTexts(new FirstToken(scope.at('text_model'), bertOptions(text)), {
      pooled: ({ embedding }) => embedding,
      projection: new Linear(scope.at('text_projection'), text.hidden_size, projection, { bias: false }),
      readsFirst: true,
    }),
    logitScale: scope.parameter('logit_scale', []),
  }
}
