// BERT (Devlin et al., arXiv:1810.04805): the sum of token, type and position embeddings, normalised, through post-norm blocks.
// BertEncoder serves every encoder of this form; its relatives (DistilBERT, MPNet, RoBERTa) differ in names and positions only.

import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import { constant, type Parameter, parameter, type Value } from '../core/value.js'
import { Tensor } from '../core/tensor.js'
import { type Activation, type BlockOptions, Embedding, hiddenStates, LayerNorm, Linear, type Scope, type ScoreBias, TransformerBlock } from '../nn/index.js'
import { add, gather, matmul, pickToken, reshape } from '../ops/index.js'
import { activation, checkHeads, type ConfigFile, epsilon, flag, headCount, integer, layerCount, readConfig, savesDifferencesOnly, tableRows, width } from './config.js'
import { type Architecture, EMBEDDING, meanOfTokens, type TextTower, type TokenInputs, type Traced } from './encoder.js'

export interface BertOptions {
  vocabulary: number
  /** Rows of the token type table; 0: there is none. */
  tokenTypes: number
  /** Rows of the position table. */
  positions: number
  /** Tokens a text may have; default: as many as there are positions. */
  maxLength?: number
  /** Position of each column of a row of ids; default: its number. */
  positionIds?: (ids: Int32Array) => Int32Array
  takesPositionIds?: boolean
  width: number
  layers: number
  heads: number
  hidden: number
  activation: Activation
  eps: number
  /** Checkpoint path of the list of layers, and names below each. */
  layerPath: string
  names: BlockOptions['names']
  /** Bias of the scores by distance: the table's name and size, and the row of a distance key − query. */
  relative?: { name: string; buckets: number; row: (distance: number) => number }
}

export class BertEncoder implements TextTower {
  readonly prefix = ''
  readonly absent: Record<string, string> = {}
  readonly vocabulary: number
  readonly tokenTypes: number
  readonly positions: number
  readonly maxLength: number
  readonly takesPositionIds: boolean
  readonly distanceRow?: (distance: number) => number
  readonly readsFirst: readonly string[] = ['pooler_output']
  private readonly words: Embedding
  private readonly places: Embedding
  private readonly types?: Embedding
  private readonly norm: LayerNorm
  private readonly layers: TransformerBlock[]
  private readonly pooler?: Linear
  private readonly relativeTable?: Parameter
  private relativeRows?: Int32Array

  constructor(
    scope: Scope,
    private readonly options: BertOptions,
  ) {
    const { width, eps, relative } = options
    this.vocabulary = options.vocabulary
    this.tokenTypes = options.tokenTypes
    this.positions = options.positions
    this.maxLength = options.maxLength ?? options.positions
    this.takesPositionIds = options.takesPositionIds ?? true
    if (relative) this.distanceRow = relative.row
    const embeddings = scope.at('embeddings')
    this.words = new Embedding(embeddings.at('word_embeddings'), options.vocabulary, width)
    this.places = new Embedding(embeddings.at('position_embeddings'), options.positions, width)
    if (options.tokenTypes > 0) this.types = new Embedding(embeddings.at('token_type_embeddings'), options.tokenTypes, width)
    this.norm = new LayerNorm(embeddings.at('LayerNorm'), width, eps)
    this.layers = Array.from({ length: options.layers }, (_, i) => new TransformerBlock(scope.at(options.layerPath, i), { ...options, order: 'post' }))
    if (relative) this.relativeTable = scope.parameter(relative.name, [relative.buckets, options.heads])
    if (scope.has('pooler.dense.weight')) this.pooler = new Linear(scope.at('pooler.dense'), width, width)
    else this.absent['pooler_output'] = scope.nameOf('pooler.dense.weight')
  }

  positionIds(ids: Int32Array): Int32Array {
    return this.options.positionIds?.(ids) ?? ids.map((_, i) => i)
  }

  trace(tokens: TokenInputs): Traced {
    const { ids, positions, types, sequences } = tokens
    const words = this.words.forward(ids)
    const typed = this.types && types ? add(words, this.types.forward(types)) : words
    const embedded = this.norm.forward(add(typed, this.places.forward(positions)), { dtype: 'float32' })
    const states = hiddenStates(this.layers, embedded, sequences, this.scoreBias(tokens))
    const last = states.at(-1)!
    const first = pickToken(last, { which: 'first', cuSeqlens: sequences.cuSeqlens })
    return {
      outputs: {
        last_hidden_state: last,
        ...(this.pooler && { pooler_output: this.pooler.forward(first, { activation: 'tanh', dtype: 'float32' }) }),
      },
      hiddenStates: states,
      embedding: meanOfTokens(last, tokens),
    }
  }

  private scoreBias({ ids, sequences, distanceRows }: TokenInputs): ScoreBias {
    if (!this.relativeTable) return {}
    const table = parameter(this.relativeTable)
    if (!distanceRows) {
      const longest = this.maxLength
      const rows = (this.relativeRows ??= Int32Array.from({ length: 2 * longest - 1 }, (_, i) => this.distanceRow!(i - longest + 1)))
      return { relativeBias: gather(table, constant(new Tensor('int32', rows, [rows.length])), { dtype: 'float32' }) }
    }
    const { heads } = this.options
    const queries = ids.shape[0]!
    const keys = sequences.keys?.rows.shape[0] ?? queries
    const ofHeads = gather(table, distanceRows, { dtype: 'float32' }) // [Tq·Tk, heads]
    const scoreBias = Array.from({ length: heads }, (_, head) => {
      const choice = new Float32Array(heads).fill(1, head, head + 1)
      return reshape(matmul(constant(new Tensor('float32', choice, [1, heads])), ofHeads, { dtype: 'float32' }), [queries, keys])
    })
    return { scoreBias }
  }
}

/** Of which the first token, as it comes out of the last block, stands for a text. */
export class FirstTokenBert extends BertEncoder {
  override readonly readsFirst: readonly string[] = ['pooler_output', EMBEDDING]

  override trace(tokens: TokenInputs): Traced {
    const traced = super.trace(tokens)
    return { ...traced, embedding: pickToken(traced.outputs['last_hidden_state']!, { which: 'first', cuSeqlens: tokens.sequences.cuSeqlens }) }
  }
}

const schema = v.object({
  vocab_size: tableRows(),
  hidden_size: width(),
  num_hidden_layers: layerCount(),
  num_attention_heads: headCount(),
  intermediate_size: width(),
  max_position_embeddings: tableRows(),
  type_vocab_size: v.nullish(integer(1, 1000), 2),
  pad_token_id: v.nullish(integer(0, 10_000_000)),
  hidden_act: activation('gelu'),
  layer_norm_eps: epsilon(1e-12),
  position_embedding_type: v.nullish(v.string('a name'), 'absolute'),
  is_decoder: flag(false),
})
export type BertConfig = v.InferOutput<typeof schema>

/** Reads the fields that BERT and RoBERTa share. */
export function readBertConfig(file: ConfigFile, section?: string): BertConfig {
  const config = readConfig(schema, file, section)
  checkHeads(file.file, 'num_attention_heads', config.num_attention_heads, config.hidden_size)
  if (config.position_embedding_type !== 'absolute') {
    throw new UnsupportedError(`${file.file}: position_embedding_type '${config.position_embedding_type}' is not supported; only 'absolute' is`, {
      file: file.file,
      field: 'position_embedding_type',
    })
  }
  if (config.is_decoder) throw new UnsupportedError(`${file.file}: is_decoder is true; only encoders are supported`, { file: file.file, field: 'is_decoder' })
  return config
}

const DEFAULT_LAYERS = 12
export const SECTION_WIDTHS = { hidden_size: 768, num_attention_heads: 12, intermediate_size: 3072 }

/**
 * Reads a section for the text tower of a pair. Some releases of the reference library save of it only what differs from its class's defaults;
 * see savesDifferencesOnly.
 * @param own defaults of this class that others do not have
 * @throws CheckpointError also for a number of layers that is not told, if the weights have more than the usual one
 */
export function readBertSection(file: ConfigFile, section: string, scope: Scope, own: Readonly<Record<string, number>> = {}): BertConfig {
  const given = file.json[section]
  if (given === null || typeof given !== 'object') return readBertConfig(file, section)
  const fields = Object.fromEntries(Object.entries(given).filter(([, value]) => value != null))
  if (fields['num_hidden_layers'] === undefined && scope.has(`encoder.layer.${DEFAULT_LAYERS}.output.dense.weight`)) {
    const field = `${section}.num_hidden_layers`
    throw new CheckpointError(`${file.file}: ${field} is missing, and the weights have more than the usual ${DEFAULT_LAYERS} layers`, { file: file.file, field })
  }
  const tables = { vocab_size: 30522, max_position_embeddings: 512, num_hidden_layers: DEFAULT_LAYERS }
  const told = Object.keys(SECTION_WIDTHS).some(field => fields[field] !== undefined)
  const widths = told && !savesDifferencesOnly(file) ? {} : SECTION_WIDTHS
  const defaults = Object.fromEntries(Object.entries({ ...tables, ...widths }).map(([field, value]) => [field, own[field] ?? value]))
  return readBertConfig({ ...file, json: { ...file.json, [section]: { ...defaults, ...fields } } }, section)
}

/** What BERT's and RoBERTa's checkpoints share. */
export function bertOptions(config: BertConfig): BertOptions {
  return {
    vocabulary: config.vocab_size,
    tokenTypes: config.type_vocab_size,
    positions: config.max_position_embeddings,
    width: config.hidden_size,
    layers: config.num_hidden_layers,
    heads: config.num_attention_heads,
    hidden: config.intermediate_size,
    activation: config.hidden_act,
    eps: config.layer_norm_eps,
    layerPath: 'encoder.layer',
    names: {
      attention: { query: 'attention.self.query', key: 'attention.self.key', value: 'attention.self.value', out: 'attention.output.dense' },
      norm1: 'attention.output.LayerNorm',
      mlp: { in: 'intermediate.dense', out: 'output.dense' },
      norm2: 'output.LayerNorm',
    },
  }
}

/** The place of the encoder in a checkpoint, below one of the prefixes that models with heads have, or at the root. */
export function encoderScope(scope: Scope, ...prefixes: string[]): Scope {
  return scope.firstWith('embeddings.word_embeddings.weight', ['', ...prefixes])
}

export function buildBert(file: ConfigFile, scope: Scope): Architecture {
  return { texts: new BertEncoder(encoderScope(scope, 'bert'), bertOptions(readBertConfig(file))) }
}
