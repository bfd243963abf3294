// What single-stream models of BERT's form share: how their text is read and embedded, the head that predicts words, and the encoder
// over tokens and regions in one sequence.

import { ArgumentError, ShapeError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { type Activation, Embedding, LayerNorm, Linear, type Scope, TransformerBlock } from '../nn/index.js'
import { add, linear } from '../ops/index.js'
import { type BertConfig, bertOptions } from './bert.js'
import type { PackedRows, RowInput, SequenceRows } from './joint.js'
import { chosen, counting, Given, pickRows, type Rows, shownColumns } from './joint-inputs.js'

/** What a row of text has; `place`: where it goes in the joint sequence. */
export const TEXT_ROWS: Readonly<Record<string, RowInput>> = {
  ids: { dtype: 'int32' },
  positions: { dtype: 'int32' },
  types: { dtype: 'int32' },
  place: { dtype: 'int32', rowsOf: 'joint' },
}

/** Sizes of the tables that a text is looked up in. */
export interface TextLimits {
  readonly vocabulary: number
  readonly tokenTypes: number
  readonly positions: number
}

export const TEXT_NAMES = { ids: 'input_ids', mask: 'attention_mask', types: 'token_type_ids', positions: 'position_ids' }

/** The text of one call. */
export class TextReader {
  readonly count: number
  readonly length: number
  private readonly ids: Rows<Int32Array>
  private readonly masks: Rows<Int32Array> | undefined
  private readonly types: Rows<Int32Array> | undefined
  private readonly positions: Rows<Int32Array> | undefined

  /** @throws ShapeError, DTypeError unless the tensors belong together. */
  constructor(
    given: Given,
    private readonly limits: TextLimits,
    private readonly names: typeof TEXT_NAMES = TEXT_NAMES,
  ) {
    this.ids = given.integers(names.ids, ['examples', 'tokens'], 0, limits.vocabulary)!
    this.count = this.ids.dims[0]!
    this.length = this.ids.dims[1]!
    const dims = [this.count, this.length]
    this.masks = given.mask(names.mask, dims)
    this.types = given.integers(names.types, dims, 0, limits.tokenTypes)
    this.positions = given.integers(names.positions, dims, 0, limits.positions, { shared: true })
  }

  mask(index: number): Int32Array | undefined {
    return this.masks?.of(index)
  }

  /** @param read columns that are computed, masked or not */
  read(index: number, read: readonly number[]): SequenceRows {
    const picked = chosen(this.mask(index), this.length, read)
    return { ...this.rows(index, picked.columns), columns: shownColumns(picked), unseen: picked.unseen }
  }

  /** The tokens of these columns. @throws ArgumentError if there are more than positions */
  rows(index: number, columns: Int32Array): SequenceRows {
    const positions = this.positions ? pickRows(this.positions.of(index), columns) : columns
    const { positions: most } = this.limits
    if (positions.some(position => position >= most)) {
      throw new ArgumentError(`[forward] ${this.names.ids} of example ${index} has ${columns.at(-1)! + 1} tokens; this model takes at most ${most}`, { field: this.names.ids, index })
    }
    const types = this.types ? pickRows(this.types.of(index), columns) : new Int32Array(columns.length)
    return { count: columns.length, values: { ids: pickRows(this.ids.of(index), columns), positions, types, place: counting(columns.length) } }
  }
}

/** The sum of a token's word, position and type embeddings. */
export class TextEmbeddings {
  readonly words: Embedding
  readonly positions: Embedding
  readonly types: Embedding

  constructor(
    scope: Scope,
    readonly limits: TextLimits,
    width: number,
  ) {
    this.words = new Embedding(scope.at('word_embeddings'), limits.vocabulary, width)
    this.positions = new Embedding(scope.at('position_embeddings'), limits.positions, width)
    this.types = new Embedding(scope.at('token_type_embeddings'), limits.tokenTypes, width)
  }

  /** float32 [T, C] */
  forward(rows: PackedRows, stream = 'text'): Value {
    const sum = add(this.words.forward(rows.value(stream, 'ids')), this.types.forward(rows.value(stream, 'types')))
    return add(sum, this.positions.forward(rows.value(stream, 'positions')))
  }
}

export function textLimits(config: BertConfig): TextLimits {
  return { vocabulary: config.vocab_size, tokenTypes: config.type_vocab_size, positions: config.max_position_embeddings }
}

/** Post-norm blocks with BERT's names. */
export function bertBlocks(scope: Scope, config: BertConfig): TransformerBlock[] {
  const options = bertOptions(config)
  return Array.from({ length: options.layers }, (_, i) => new TransformerBlock(scope.at(options.layerPath, i), { ...options, order: 'post' }))
}

/** Scores of the words for each token: decoder(norm(act(dense(x)))) + bias, the decoder being the table of words where none is stored. */
export class WordHead {
  private readonly dense: Linear
  private readonly norm: LayerNorm
  private readonly decoder: Parameter
  private readonly bias: Parameter

  /** @param words full name of the table of words */
  constructor(
    scope: Scope,
    words: Parameter,
    private readonly options: { width: number; vocabulary: number; activation: Activation; eps: number; root: Scope },
  ) {
    const { width, vocabulary, eps, root } = options
    this.dense = new Linear(scope.at('transform.dense'), width, width)
    this.norm = new LayerNorm(scope.at('transform.LayerNorm'), width, eps)
    const own = scope.has('decoder.weight')
    this.decoder = (own ? scope : root).parameter(own ? 'decoder.weight' : words.name, [vocabulary, width], { role: 'linear' })
    this.bias = scope.parameter(scope.has('bias') ? 'bias' : 'decoder.bias', [vocabulary])
  }

  forward(x: Value): Value {
    const { activation } = this.options
    const transformed = this.norm.forward(this.dense.forward(x, { activation, dtype: 'float32' }), { dtype: 'float32' })
    return linear(transformed, parameter(this.decoder), { bias: parameter(this.bias), dtype: 'float32' })
  }
}

/** Linear, gelu or another activation, norm and, by its size, a second linear: an nn.Sequential of some models' heads. */
export class AnswerHead {
  private readonly in: Linear
  private readonly norm: LayerNorm
  private readonly out: Linear | undefined

  /** @param options.part of more outputs that are stored */
  constructor(
    scope: Scope,
    inputs: number,
    hidden: number,
    outputs: number | undefined,
    private readonly options: { activation?: Activation; part?: { begin: number; rows: number } } = {},
  ) {
    this.in = new Linear(scope.at(0), inputs, hidden)
    this.norm = new LayerNorm(scope.at(2), hidden, 1e-12)
    this.out = outputs === undefined ? undefined : new Linear(scope.at(3), hidden, outputs, { part: options.part })
  }

  forward(x: Value): Value {
    const normed = this.norm.forward(this.in.forward(x, { activation: this.options.activation ?? 'gelu', dtype: 'float32' }), { dtype: 'float32' })
    return this.out?.forward(normed, { dtype: 'float32' }) ?? normed
  }
}

/** Tensors [A, B, …], as the leading one is, as [A·B, …]. @throws ShapeError for one that is not */
export function flattened(given: Readonly<Record<string, Tensor>>, leading: string): Record<string, Tensor> {
  const first = given[leading]!
  const outer = first.dims
  return Object.fromEntries(
    Object.entries({ [leading]: first, ...given }).map(([name, tensor]) => {
      const [a, b, ...rest] = tensor.dims
      if (b === undefined || rest.length === 0 || a !== outer[0] || b !== outer[1]) {
        throw new ShapeError(`[forward] ${name} is [${tensor.dims.join(', ')}]; expected [${outer[0]}, ${outer[1]}, …]`, { field: name, shapes: [tensor.dims] })
      }
      return [name, new Tensor(tensor.type, tensor.data, [a! * b, ...rest])]
    }),
  )
}
