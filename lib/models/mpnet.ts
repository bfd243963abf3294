// MPNet (Song et al., arXiv:2004.09297): BERT without token types, positions counted from the padding id 1, and a bias of the
// attention scores by distance: one learned number per head and bucket, shared by all layers.

import * as v from 'valibot'
import type { Scope } from '../nn/index.js'
import { BertEncoder, bertOptions, encoderScope, readBertConfig } from './bert.js'
import { CheckpointError } from '../core/errors.js'
import { type ConfigFile, integer, readConfig } from './config.js'
import type { Architecture } from './encoder.js'
import { positionsFromPadding } from './xlm-roberta.js'

const PADDING = 1 // whatever pad_token_id says, as in the reference
const BUCKETS = 32 // of the table's rows, however many there are, as in the reference
const MAX_DISTANCE = 128

const schema = v.object({ relative_attention_num_buckets: v.nullish(integer(BUCKETS, 4096), BUCKETS) })

/**
 * The bucket of a distance key − query: half of the buckets for keys behind, half for keys ahead; of each half, the first half one
 * bucket per distance, the rest in logarithmic steps up to MAX_DISTANCE.
 */
export function distanceBucket(distance: number, buckets: number): number {
  const half = buckets >> 1
  const exact = half >> 1
  const ahead = distance > 0 ? half : 0
  const far = Math.abs(distance)
  if (far < exact) return ahead + far
  // In float32 step by step: a distance on a border must fall where the reference puts it.
  const steps = Math.fround(Math.fround(Math.fround(Math.log(far / exact)) / Math.fround(Math.log(MAX_DISTANCE / exact))) * (half - exact))
  return ahead + Math.min(half - 1, exact + Math.trunc(steps))
}

export function buildMpnet(file: ConfigFile, scope: Scope): Architecture {
  const config = readBertConfig(file)
  const { relative_attention_num_buckets: buckets } = readConfig(schema, file)
  const maxLength = config.max_position_embeddings - PADDING - 1
  if (maxLength < 1) {
    throw new CheckpointError(`${file.file}: max_position_embeddings is ${config.max_position_embeddings}; expected at least ${PADDING + 2}`, {
      file: file.file,
      field: 'max_position_embeddings',
    })
  }
  const texts = new BertEncoder(encoderScope(scope, 'mpnet'), {
    ...bertOptions(config),
    tokenTypes: 0,
    maxLength,
    positionIds: ids => positionsFromPadding(ids, PADDING),
    names: {
      attention: { query: 'attention.attn.q', key: 'attention.attn.k', value: 'attention.attn.v', out: 'attention.attn.o' },
      norm1: 'attention.LayerNorm',
      mlp: { in: 'intermediate.dense', out: 'output.dense' },
      norm2: 'output.LayerNorm',
    },
    relative: {
      name: 'encoder.relative_attention_bias.weight',
      buckets,
      row: distance => distanceBucket(distance, BUCKETS),
    },
  })
  return { texts }
}
