// RoBERTa and XLM-RoBERTa (arXiv:1907.11692, 1911.02116): BERT whose positions are counted from the padding id: the first token that
// is no padding has the position after it, padding itself has that of its id.

import type { Scope } from '../nn/index.js'
import { BertEncoder, bertOptions, encoderScope, readBertConfig } from './bert.js'
import { CheckpointError } from '../core/errors.js'
import type { ConfigFile } from './config.js'
import type { Architecture } from './encoder.js'

/** Positions counted from the padding id, for a row of ids. */
export function positionsFromPadding(ids: Int32Array, padding: number): Int32Array {
  let last = padding
  return ids.map(id => (id === padding ? padding : ++last))
}

export function buildRoberta(file: ConfigFile, scope: Scope): Architecture {
  const config = readBertConfig(file)
  const padding = config.pad_token_id ?? 1
  const maxLength = config.max_position_embeddings - padding - 1
  if (maxLength < 1) {
    throw new CheckpointError(
      `${file.file}: max_position_embeddings is ${config.max_position_embeddings}; expected more than pad_token_id ${padding} and one`,
      { file: file.file, field: 'max_position_embeddings' },
    )
  }
  const texts = new BertEncoder(encoderScope(scope, 'roberta', 'xlm-roberta', 'camembert'), {
    ...bertOptions(config),
    maxLength,
    positionIds: ids => positionsFromPadding(ids, padding),
  })
  return { texts }
}
