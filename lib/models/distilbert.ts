// DistilBERT (Sanh et al., arXiv:1910.01108): BERT without token types and pooler, under other names.

import * as v from 'valibot'
import type { Scope } from '../nn/index.js'
import { BertEncoder, encoderScope } from './bert.js'
import { activation, checkHeads, type ConfigFile, headCount, layerCount, readConfig, tableRows, width } from './config.js'
import type { Architecture } from './encoder.js'

const schema = v.object({
  vocab_size: tableRows(),
  max_position_embeddings: tableRows(),
  dim: width(),
  n_layers: layerCount(),
  n_heads: headCount(),
  hidden_dim: width(),
  activation: activation('gelu'),
})

export function buildDistilBert(file: ConfigFile, scope: Scope): Architecture {
  const config = readConfig(schema, file)
  checkHeads(file.file, 'n_heads', config.n_heads, config.dim)
  const texts = new BertEncoder(encoderScope(scope, 'distilbert'), {
    vocabulary: config.vocab_size,
    tokenTypes: 0,
    positions: config.max_position_embeddings,
    takesPositionIds: false,
    width: config.dim,
    layers: config.n_layers,
    heads: config.n_heads,
    hidden: config.hidden_dim,
    activation: config.activation,
    eps: 1e-12, // fixed in the reference
    layerPath: 'transformer.layer',
    names: {
      attention: { query: 'attention.q_lin', key: 'attention.k_lin', value: 'attention.v_lin', out: 'attention.out_lin' },
      norm1: 'sa_layer_norm',
      mlp: { in: 'ffn.lin1', out: 'ffn.lin2' },
      norm2: 'output_layer_norm',
    },
  })
  return { texts }
}
