// VisualBERT (Li et al., arXiv:1908.03557): a BERT over the tokens of a text and the regions of a picture, each region a projected feature
// with a type of its own. VisualBertModel and its heads: pre-training, questions, multiple choice, reasoning, regions to phrases.

import * as v from 'valibot'
import { ArgumentError, ShapeError, UnsupportedError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { constant, type Parameter, parameter, type Value } from '../core/value.js'
import { Embedding, hiddenStates, LayerNorm, Linear, type Scope, type TransformerBlock } from '../nn/index.js'
import { add, gather, matmul, mul, pickToken } from '../ops/index.js'
import { type BertConfig, readBertConfig } from './bert.js'
import { type ConfigFile, flag, labelNames, labels, readConfig, width } from './config.js'
import type { Architecture, Traced } from './encoder.js'
import type { Example, Examples, JointTower, PackedRows, SequenceRows, Streams } from './joint.js'
import { bertBlocks, flattened, TEXT_ROWS, TextEmbeddings, textLimits, TextReader, WordHead } from './joint-bert.js'
import { chosen, Given, joined, pickRows, shownColumns } from './joint-inputs.js'

const schema = v.object({ visual_embedding_dim: v.nullish(width(), 512), bypass_transformer: flag(false), ...labels })

const CLASSES = {
  VisualBertModel: 'none',
  VisualBertForPreTraining: 'pretraining',
  VisualBertForQuestionAnswering: 'question',
  VisualBertForMultipleChoice: 'choice',
  VisualBertForVisualReasoning: 'reasoning',
  VisualBertForRegionToPhraseAlignment: 'phrases',
} as const
type Head = (typeof CLASSES)[keyof typeof CLASSES]

const VISUAL_INPUTS = ['visual_embeds', 'visual_attention_mask', 'visual_token_type_ids', 'image_text_alignment']
const PHRASES = 'region_to_phrase_position'
/** What the reference adds to the scores of masked regions. */
const LEAST = Math.fround(-3.4028234663852886e38)

class VisualBert implements JointTower {
  readonly prefix = ''
  readonly absent: Record<string, string> = {}
  readonly inputs: readonly string[]
  readonly required: readonly string[]
  readonly streams: Streams
  private readonly text: TextEmbeddings
  private readonly visualTypes: Embedding
  private readonly visualPositions: Embedding
  private readonly textPositionsTransposed: Parameter
  private readonly projection: Linear
  private readonly norm: LayerNorm
  private readonly layers: TransformerBlock[]
  private readonly pooler?: Linear
  private readonly classifier?: Linear
  private readonly words?: WordHead
  private readonly relationship?: Linear
  private readonly phraseQuery?: Linear
  private readonly phraseKey?: Linear

  constructor(
    root: Scope,
    private readonly config: BertConfig,
    private readonly features: number,
    private readonly head: Head,
    labelCount: number,
  ) {
    const { hidden_size: width, layer_norm_eps: eps } = config
    const scope = root.firstWith('embeddings.word_embeddings.weight', ['', 'visual_bert'])
    const embeddings = scope.at('embeddings')
    const limits = textLimits(config)
    this.text = new TextEmbeddings(embeddings, limits, width)
    this.visualTypes = new Embedding(embeddings.at('visual_token_type_embeddings'), limits.tokenTypes, width)
    this.visualPositions = new Embedding(embeddings.at('visual_position_embeddings'), limits.positions, width)
    this.textPositionsTransposed = embeddings.parameter('position_embeddings.weight', [width, limits.positions], { view: { shape: [limits.positions, width], order: [1, 0] } })
    this.projection = new Linear(embeddings.at('visual_projection'), features, width)
    this.norm = new LayerNorm(embeddings.at('LayerNorm'), width, eps)
    this.layers = bertBlocks(scope, config)
    if (scope.has('pooler.dense.weight') || head === 'choice' || head === 'reasoning') this.pooler = new Linear(scope.at('pooler.dense'), width, width)
    else this.absent['pooler_output'] = scope.nameOf('pooler.dense.weight')
    if (head === 'question' || head === 'choice' || head === 'reasoning') this.classifier = new Linear(root.at('cls'), width, head === 'choice' ? 1 : labelCount)
    if (head === 'pretraining') {
      this.pooler ??= new Linear(scope.at('pooler.dense'), width, width)
      this.words = new WordHead(root.at('cls.predictions'), this.text.words.weight, { width, vocabulary: limits.vocabulary, activation: config.hidden_act, eps, root })
      this.relationship = new Linear(root.at('cls.seq_relationship'), width, 2)
    }
    const pairs = head === 'phrases'
    if (pairs) {
      const size = width / config.num_attention_heads
      this.phraseQuery = new Linear(root.at('attention.query'), width, size)
      this.phraseKey = new Linear(root.at('attention.key'), width, size)
    }
    this.inputs = ['input_ids', 'attention_mask', 'token_type_ids', 'position_ids', ...VISUAL_INPUTS, ...(pairs ? [PHRASES] : [])]
    this.required = pairs ? ['input_ids', 'visual_embeds', PHRASES] : ['input_ids']
    this.streams = this.streamsOf(false)
  }

  private streamsOf(aligned: boolean): Streams {
    const index = { dtype: 'int32', rowsOf: 'joint' } as const
    return {
      text: TEXT_ROWS,
      visual: {
        features: { dtype: 'float32', shape: [this.features] },
        types: { dtype: 'int32' },
        positions: { dtype: 'int32' },
        place: index,
        ...(aligned && { alignment: { dtype: 'float32', shape: [this.config.max_position_embeddings] } }),
      },
      joint: {},
      ...(this.head === 'question' && { question: { row: index } }),
      ...(this.head === 'phrases' && { pairs: { query: index, key: index } }),
    }
  }

  read(tensors: Readonly<Record<string, Tensor>>): Examples {
    const { head } = this
    const choices = head === 'choice' ? tensors['input_ids']!.dims : undefined
    const given = new Given(choices ? flattened(tensors, 'input_ids') : tensors)
    const text = new TextReader(given, this.text.limits)
    const { count } = text
    const features = given.floats('visual_embeds', [count, 'regions', this.features])
    if (!features) {
      const orphan = VISUAL_INPUTS.find(name => given.has(name))
      if (orphan) throw new ArgumentError(`[forward] ${orphan} is given without visual_embeds; expected both`, { field: orphan })
    }
    const regions = features?.dims[1] ?? 0
    const masks = given.mask('visual_attention_mask', [count, regions])
    const types = given.integers('visual_token_type_ids', [count, regions], 0, this.text.limits.tokenTypes)
    const alignment = given.integers('image_text_alignment', [count, 'regions', 'words'], -1, this.text.limits.positions)
    if (alignment && alignment.dims[1]! < regions) {
      throw new ShapeError(`[forward] image_text_alignment is [${alignment.dims.join(', ')}]; expected [${count}, ${regions}, words] as visual_embeds`, {
        field: 'image_text_alignment',
        shapes: [alignment.dims],
      })
    }
    const phrases = given.integers(PHRASES, [count, 'phrases'], -1, text.length + regions)
    const visual = (index: number): SequenceRows => {
      const picked = chosen(masks?.of(index), regions)
      const { columns } = picked
      return {
        count: columns.length,
        columns: shownColumns(picked),
        values: {
          features: pickRows(features!.of(index), columns, this.features),
          types: types ? pickRows(types.of(index), columns) : new Int32Array(columns.length).fill(1),
          positions: new Int32Array(columns.length),
          ...(alignment && { alignment: this.alignmentRows(alignment.of(index), alignment.dims[2]!, columns) }),
        },
      }
    }
    const nothing: SequenceRows = { count: 0, values: { features: new Float32Array(), types: new Int32Array(), positions: new Int32Array() } }
    return {
      count,
      streams: alignment && this.streamsOf(true),
      lengths: { text: text.length, visual: regions, joint: text.length + regions, pairs: (phrases?.dims[1] ?? 0) * regions, question: 1 },
      dims: { ...(choices && { logits: choices.slice(0, 2) }), ...(phrases && { logits: [count, phrases.dims[1]!, regions] }), ...(head === 'question' && { logits: [count, this.classifier!.weight.shape[0]!] }) },
      fill: phrases && { logits: LEAST },
      read: index => {
        const mask = text.mask(index)
        const last = head === 'question' ? lastToken(mask, text.length, index) : undefined
        const positions = phrases?.of(index).map(position => Math.max(0, position))
        const read = [0, ...(last === undefined ? [] : [last]), ...(positions ?? [])]
        const words = text.read(index, read)
        const seen = features ? visual(index) : nothing
        if (seen.count === 0 && !(mask?.includes(1) ?? true)) return undefined
        const joint = joined([{ rows: words, length: text.length }, { rows: seen, length: regions }])
        const places = seen.columns?.map((_, i) => words.count + i) ?? new Int32Array()
        const example: Record<string, SequenceRows> = { text: words, visual: { ...seen, values: { ...seen.values, place: places } }, joint }
        if (last !== undefined) example['question'] = { count: 1, values: { row: Int32Array.of(textRow(text, index, read, last)) } }
        if (positions) example['pairs'] = pairsOf(positions, { words, seen, text, index, read, regions })
        return [example] as Example
      },
    }
  }

  /** For each region the weights with which the positions of its words are averaged. */
  private alignmentRows(words: Int32Array, perRegion: number, columns: Int32Array): Float32Array {
    const { max_position_embeddings: positions } = this.config
    const weights = new Float32Array(columns.length * positions)
    columns.forEach((column, i) => {
      const own = words.subarray(column * perRegion, (column + 1) * perRegion).filter(word => word >= 0)
      for (const word of own) weights[i * positions + word]! += 1 / own.length
    })
    return weights
  }

  trace(rows: PackedRows): Traced {
    const visual = (name: string) => rows.value('visual', name)
    const typed = add(this.projection.forward(visual('features'), { dtype: 'float32' }), this.visualTypes.forward(visual('types')))
    const placed = add(typed, this.visualPositions.forward(visual('positions')))
    const regions = rows.has('visual', 'alignment') ? add(placed, matmul(visual('alignment'), parameter(this.textPositionsTransposed), { dtype: 'float32' })) : placed
    const both = add(rows.placed(this.text.forward(rows), 'text', 'joint'), rows.placed(regions, 'visual', 'joint'))
    const sequences = rows.sequences('joint')
    const states = hiddenStates(this.layers, this.norm.forward(both, { dtype: 'float32' }), sequences)
    const last = states.at(-1)!
    const first = pickToken(last, { which: 'first', cuSeqlens: sequences.cuSeqlens })
    const pooled = this.pooler?.forward(first, { activation: 'tanh', dtype: 'float32' })
    return { outputs: { last_hidden_state: last, ...(pooled && { pooler_output: pooled }), ...this.heads(rows, last, pooled) }, hiddenStates: states, embedding: pooled ?? first }
  }

  private heads(rows: PackedRows, last: Value, pooled: Value | undefined): Record<string, Value> {
    switch (this.head) {
      case 'none':
        return {}
      case 'pretraining':
        return { prediction_logits: this.words!.forward(last), seq_relationship_logits: this.relationship!.forward(pooled!, { dtype: 'float32' }) }
      case 'question':
        return { logits: this.classifier!.forward(gather(last, rows.value('question', 'row'), { dtype: 'float32' }), { dtype: 'float32' }) }
      case 'phrases': {
        // Each phrase's position against each region: products of rows, summed.
        const query = gather(this.phraseQuery!.forward(last, { dtype: 'float32' }), rows.value('pairs', 'query'))
        const key = gather(this.phraseKey!.forward(last, { dtype: 'float32' }), rows.value('pairs', 'key'))
        const size = query.shape[1]!
        const ones = constant(new Tensor('float32', new Float32Array(size).fill(1), [1, size]))
        return { logits: matmul(mul(query, key), ones, { scale: size ** -0.5, dtype: 'float32' }) }
      }
      default:
        return { logits: this.classifier!.forward(pooled!, { dtype: 'float32' }) }
    }
  }
}

/** Where the reference reads the answer: two before the number of tokens that count. */
function lastToken(mask: Int32Array | undefined, length: number, index: number): number {
  const counted = mask ? mask.reduce((sum, value) => sum + value, 0) : length
  if (counted >= 2) return counted - 2
  throw new ArgumentError(`[forward] attention_mask of example ${index} counts ${counted} tokens; expected at least 2, of which the last but one is read`, { field: 'attention_mask', index })
}

/** The row, among those computed, of a column of the text. */
function textRow(text: TextReader, index: number, read: readonly number[], column: number): number {
  return chosen(text.mask(index), text.length, read).columns.indexOf(column)
}

interface Pairing {
  words: SequenceRows
  seen: SequenceRows
  text: TextReader
  index: number
  read: readonly number[]
  regions: number
}

/** Every phrase's position with every region that counts, as rows of the joint sequence. */
function pairsOf(positions: Int32Array, { words, seen, text, index, read, regions }: Pairing): SequenceRows {
  const rows = chosen(text.mask(index), text.length, read).columns
  const query: number[] = []
  const key: number[] = []
  const columns: number[] = []
  positions.forEach((position, p) => {
    const row = position < text.length ? rows.indexOf(position) : words.count + seen.columns!.indexOf(position - text.length)
    if (row < (position < text.length ? 0 : words.count)) {
      throw new ArgumentError(`[forward] ${PHRASES} of example ${index} is ${position} at element ${p}, a masked region; expected a token or a region that counts`, { field: PHRASES, index })
    }
    for (let r = 0; r < seen.count; r++) {
      query.push(row)
      key.push(words.count + r)
      columns.push(p * regions + seen.columns![r]!)
    }
  })
  return { count: query.length, values: { query: Int32Array.from(query), key: Int32Array.from(key) }, columns: Int32Array.from(columns) }
}

/** @param architecture the reference's class */
export function buildVisualBert(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  if (!Object.hasOwn(CLASSES, architecture)) {
    throw new UnsupportedError(`${file.file}: ${architecture} is not supported; of VisualBERT there are ${Object.keys(CLASSES).join(', ')}`, { file: file.file, field: 'architectures' })
  }
  const head = CLASSES[architecture as keyof typeof CLASSES]
  const config = readConfig(schema, file)
  if (config.bypass_transformer) throw new UnsupportedError(`${file.file}: bypass_transformer is true; only false is supported`, { file: file.file, field: 'bypass_transformer' })
  const names = labelNames(config)
  const joint = new VisualBert(scope, readBertConfig(file), config.visual_embedding_dim, head, names.length)
  return { joint, ...(head === 'question' || head === 'reasoning' ? { labels: names } : {}) }
}
