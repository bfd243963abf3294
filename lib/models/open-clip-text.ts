// open_clip's text towers that are Hugging Face's encoders (text_cfg.hf_model_name): BERT, RoBERTa, XLM-RoBERTa, pooled and projected. Which of
// them, and its sizes, say the folder's config.json where it is such an encoder's, else the tensors: type tables have one row in RoBERTa, two in BERT.

import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import type { Value } from '../core/value.js'
import type { Checkpoint } from '../io/checkpoint.js'
import { Linear, type Scope } from '../nn/index.js'
import { pickToken, pool } from '../ops/index.js'
import { buildBert, readBertConfig } from './bert.js'
import { type Config, type ConfigFile, placesBelow, readConfig, tableRows } from './config.js'
import { countedRows, EMBEDDING, type PaddedTexts, type TextTower, textsLike, type TokenInputs, type Traced } from './encoder.js'
import { projectedTexts } from './projected.js'
import { buildRoberta } from './xlm-roberta.js'

const POOLERS = ['mean_pooler', 'max_pooler', 'cls_pooler', 'cls_last_hidden_state_pooler'] as const
const schema = v.object({
  hf_model_name: v.string('a name'),
  hf_pooler_type: v.nullish(v.picklist(POOLERS, `one of ${POOLERS.join(', ')}`), 'mean_pooler'),
  hf_proj_type: v.optional(v.nullable(v.picklist(['linear', 'mlp'], "'linear' or 'mlp'")), 'mlp'), // null: none
  context_length: v.nullish(tableRows(), 77),
})

const BUILDERS = { bert: buildBert, roberta: buildRoberta, 'xlm-roberta': buildRoberta, camembert: buildRoberta }
const PATH = 'text.transformer.'
const WORDS = 'embeddings.word_embeddings.weight'

/** Whether the tensors have a text tower of this kind. */
export function hasHuggingFaceText(checkpoint: Checkpoint): boolean {
  return checkpoint.tensors.has(PATH + WORDS)
}

/**
 * The encoder's config.json.
 * @param given the folder's own, an empty object if it has none
 * @throws UnsupportedError for an encoder that is not there
 */
export function huggingFaceTextConfig(checkpoint: Checkpoint, given: Config, name: string, file: string): Config {
  if (Object.hasOwn(BUILDERS, String(given['model_type']))) return given
  const rows = (tensor: string) => checkpoint.tensors.get(PATH + tensor)?.shape[0]
  const width = rows('embeddings.LayerNorm.weight')
  const types = rows('embeddings.token_type_embeddings.weight')
  if (!hasHuggingFaceText(checkpoint) || width === undefined || types === undefined) {
    const field = 'text_cfg.hf_model_name'
    throw new UnsupportedError(`${file}: ${field} is '${name}', which is no BERT, RoBERTa or XLM-RoBERTa by its tensors; others are not supported`, { file, field })
  }
  return {
    model_type: types === 1 ? 'roberta' : 'bert',
    ...{ hidden_size: width, num_hidden_layers: placesBelow(`${PATH}encoder.layer.`, checkpoint.tensors), vocab_size: rows(WORDS), type_vocab_size: types },
    max_position_embeddings: rows('embeddings.position_embeddings.weight'),
    intermediate_size: rows('encoder.layer.0.intermediate.dense.weight'),
    num_attention_heads: Math.max(1, Math.floor(width / 64)), // of all that are published
    ...(types === 1 ? { pad_token_id: 1, layer_norm_eps: 1e-5 } : { pad_token_id: 0, layer_norm_eps: 1e-12 }),
  }
}

/**
 * The text tower below `scope`, projected to `embed` features.
 * @param config what `huggingFaceTextConfig` made
 * @throws CheckpointError for a pooler or a projection that is missing
 */
export function buildHuggingFaceText(file: ConfigFile, config: Config, scope: Scope, embed: number): TextTower {
  const { hf_pooler_type: pooler, hf_proj_type: way } = readConfig(schema, file, 'text_cfg')
  const ofEncoder = { file: `${file.file}: the text encoder`, json: config }
  const build = BUILDERS[config['model_type'] as keyof typeof BUILDERS]
  const encoder = build(ofEncoder, scope.at('transformer')).texts!
  const { hidden_size: width, pad_token_id } = readBertConfig(ofEncoder)
  const absent = encoder.absent['pooler_output']
  if (pooler === 'cls_pooler' && absent !== undefined) {
    throw new CheckpointError(`${file.file}: text_cfg.hf_pooler_type 'cls_pooler' needs the tensor ${absent}, which is missing`, { file: file.file, field: 'text_cfg.hf_pooler_type', missing: [absent] })
  }
  if (way === null && width !== embed) {
    throw new CheckpointError(`${file.file}: text_cfg.hf_proj_type is null, and the encoder's width ${width} is not embed_dim ${embed}; expected 'linear' or 'mlp'`, { file: file.file, field: 'text_cfg.hf_proj_type' })
  }
  if (way === null) checkUnprojected(file, 'text_cfg.hf_proj_type', scope, ['proj.weight', 'proj.0.weight'])
  const first = pooler === 'cls_pooler' || pooler === 'cls_last_hidden_state_pooler'
  const tower = textsLike(encoder, {
    padded: paddedBy(pad_token_id ?? (build === buildBert ? 0 : 1)),
    readsFirst: [...encoder.readsFirst, ...(first ? [EMBEDDING] : [])],
    trace: tokens => {
      const traced = encoder.trace(tokens)
      return { ...traced, embedding: pooled(traced, tokens, pooler) }
    },
  })
  const hidden = Math.floor((width + embed) / 2)
  const inner = way === 'mlp' ? new Linear(scope.at('proj.0'), width, hidden, { bias: false }) : undefined
  const projection = inner ? new Linear(scope.at('proj.2'), hidden, embed, { bias: false }) : way === 'linear' ? new Linear(scope.at('proj'), width, embed, { bias: false }) : undefined
  return projectedTexts(tower, {
    pooled: ({ embedding }) => (inner ? inner.forward(embedding, { activation: 'gelu', dtype: 'float32' }) : embedding),
    projection,
    readsFirst: first,
  })
}

/** @throws CheckpointError for a projection's tensor where `field` says that there is none */
export function checkUnprojected({ file }: ConfigFile, field: string, scope: Scope, names: readonly string[]): void {
  const name = names.find(name => scope.has(name))
  if (name !== undefined) throw new CheckpointError(`${file}: ${field} says that there is no projection, and there is the tensor ${scope.nameOf(name)}`, { file, field })
}

/** All tokens but this one count. */
function paddedBy(id: number): PaddedTexts {
  return { id, read: ids => ({ ids, mask: ids.map(token => (token === id ? 0 : 1)) }) }
}

function pooled({ outputs }: Traced, tokens: TokenInputs, pooler: (typeof POOLERS)[number]): Value {
  const last = outputs['last_hidden_state']!
  if (pooler === 'cls_pooler') return outputs['pooler_output']!
  if (pooler === 'cls_last_hidden_state_pooler') return pickToken(last, { which: 'first', cuSeqlens: tokens.sequences.cuSeqlens })
  const { rows, cuSeqlens } = countedRows(last, tokens)
  return pool(rows, { mode: pooler === 'max_pooler' ? 'max' : 'mean', cuSeqlens, dtype: 'float32' })
}
