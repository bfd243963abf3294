// VL-BERT (Su et al., arXiv:1908.08530): words, each with a visual part, objects and an end mark in one BERT, with the original authors' names of
// tensors, inputs and outputs. What masks leave out is closed up: the packed sequence of an example has its words, its objects, and END.
// Heads: those of pre-training, and `final_mlp` of the authors' ResNetVLBERT for questions, multiple choice and referring expressions.

import * as v from 'valibot'
import { ArgumentError, CheckpointError, UnsupportedError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { type Activation, Embedding, hiddenStates, LayerNorm, Linear, type Scope, type TransformerBlock } from '../nn/index.js'
import { add, columns, gather, mul, pickToken } from '../ops/index.js'
import { type BertConfig, readBertConfig } from './bert.js'
import { type ConfigFile, flag, integer, readConfig, width } from './config.js'
import type { Architecture, Traced } from './encoder.js'
import type { Examples, JointTower, PackedRows, SequenceRows, Streams } from './joint.js'
import { bertBlocks, flattened, WordHead } from './joint-bert.js'
import { chosen, counting, Given, joined, pickRows } from './joint-inputs.js'

const maybe = () => v.nullish(v.boolean('true or false'))
const schema = v.object({
  visual_size: v.nullish(width(), 768),
  visual_ln: flag(true),
  word_embedding_frozen: flag(false),
  obj_pos_id_relative: flag(true),
  position_padding_idx: v.nullish(integer(-1, 1000), -1),
  type_vocab_size: v.nullish(integer(3, 1000), 3),
  visual_region_classes: v.nullish(integer(1, 1_000_000), 1601),
  with_pooler: maybe(),
  with_rel_head: maybe(),
  with_mlm_head: maybe(),
  with_mvrc_head: maybe(),
})
type VlConfig = BertConfig & v.InferOutput<typeof schema>

/** Token type of objects and of END. */
const OBJECT_TYPE = 2
/** Ids below have a table of their own where the others are frozen. */
const SPECIAL_WORDS = 1000
const CLASSES = { VisualLinguisticBert: 'none', VisualLinguisticBertForPretraining: 'pretraining', ResNetVLBERT: 'task' } as const
type Heads = (typeof CLASSES)[keyof typeof CLASSES]
/** Where a checkpoint has the encoder. */
const PLACES = ['', 'vlbert', 'module.vlbert', 'module', 'vlbert._module', 'module.vlbert._module']
/** The score of an object that does not count, as the authors give it to those they pad with. */
const NO_OBJECT = -10_000

/** The visual part of a word or object: projected where sizes differ, then normalised or scaled. */
class VisualPart {
  private readonly projection: Linear | undefined
  private readonly norm: LayerNorm | undefined
  private readonly scale: Parameter | undefined

  constructor(scope: Scope, of: 'text' | 'object', { visual_size: size, hidden_size: width, visual_ln, layer_norm_eps }: VlConfig) {
    if (size !== width) this.projection = new Linear(scope.at(`visual_1x1_${of}`), size, width)
    if (visual_ln) this.norm = new LayerNorm(scope.at(`visual_ln_${of}`), width, layer_norm_eps)
    else this.scale = scope.parameter(`visual_scale_${of}`, [])
  }

  /** x: float32 [T, visual size] -> float32 [T, C] */
  forward(x: Value): Value {
    const projected = this.projection?.forward(x, { dtype: 'float32' }) ?? x
    return this.norm?.forward(projected, { dtype: 'float32' }) ?? mul(projected, parameter(this.scale!), { dtype: 'float32' })
  }
}

/**
 * `final_mlp` of the authors' three classes named ResNetVLBERT. The tensors tell them apart: for multiple choice (VCR) the encoder is wrapped to run on
 * each choice, and only the head for referring expressions has a transform without a norm.
 */
class TaskHead {
  readonly task: 'question' | 'choice' | 'reference'
  /** Scores of one row. */
  readonly width: number
  private readonly hidden?: { linear: Linear; activation: Activation }
  private readonly norm?: LayerNorm
  private readonly out: Linear

  /** @param encoder where the encoder is */
  constructor(root: Scope, encoder: Scope, { hidden_size: width, hidden_act, layer_norm_eps: eps }: VlConfig) {
    const scope = root.at(encoder.path.startsWith('module') ? 'module' : '', 'final_mlp')
    const transform = scope.has('0.dense.weight')
    const normed = scope.has('0.LayerNorm.weight')
    const two = scope.has('4.weight')
    this.task = encoder.path.endsWith('_module') ? 'choice' : transform && !normed ? 'reference' : 'question'
    const last = transform ? 2 : two ? 4 : 1
    this.width = this.task === 'question' ? (scope.rowsOf(`${last}.weight`) ?? 1) : 1
    const inner = (two && scope.rowsOf('1.weight')) || width
    if (transform) this.hidden = { linear: new Linear(scope.at('0.dense'), width, width), activation: hidden_act }
    else if (two) this.hidden = { linear: new Linear(scope.at(1), width, inner), activation: 'relu' }
    if (normed) this.norm = new LayerNorm(scope.at('0.LayerNorm'), width, eps)
    this.out = new Linear(scope.at(last), inner, this.width)
  }

  /** x: float32 [T, C] -> float32 [T, width] */
  forward(x: Value): Value {
    const hidden = this.hidden?.linear.forward(x, { activation: this.hidden.activation, dtype: 'float32' }) ?? x
    return this.out.forward(this.norm?.forward(hidden, { dtype: 'float32' }) ?? hidden, { dtype: 'float32' })
  }
}

class VlBert implements JointTower {
  readonly prefix = ''
  readonly absent: Record<string, string> = {}
  readonly inputs = ['text_input_ids', 'text_token_type_ids', 'text_visual_embeddings', 'text_mask', 'object_vl_embeddings', 'object_mask']
  readonly required = ['text_input_ids', 'text_visual_embeddings', 'object_vl_embeddings']
  readonly told = ['packed_mask']
  readonly streams: Streams
  private readonly words: Embedding
  private readonly specialWords?: Embedding
  private readonly positions: Embedding
  private readonly types: Embedding
  private readonly end: Parameter
  private readonly textVisual: VisualPart
  private readonly objectVisual: VisualPart
  private readonly norm: LayerNorm
  private readonly layers: TransformerBlock[]
  private readonly pooler?: Linear
  private readonly relationship?: Linear
  private readonly wordHead?: WordHead
  private readonly objectHead?: { dense: Linear; classes: Linear }
  private readonly head?: TaskHead

  constructor(
    root: Scope,
    private readonly config: VlConfig,
    heads: Heads,
  ) {
    const scope = root.firstWith('word_embeddings.weight', PLACES)
    const { hidden_size: width, layer_norm_eps: eps, hidden_act: activation, vocab_size: vocabulary } = config
    this.words = new Embedding(scope.at('word_embeddings'), vocabulary, width)
    if (config.word_embedding_frozen) this.specialWords = new Embedding(scope.at('special_word_embeddings'), SPECIAL_WORDS, width)
    this.positions = new Embedding(scope.at('position_embeddings'), config.max_position_embeddings, width)
    this.types = new Embedding(scope.at('token_type_embeddings'), config.type_vocab_size, width)
    this.end = scope.parameter('end_embedding.weight', [1, width])
    this.textVisual = new VisualPart(scope, 'text', config)
    this.objectVisual = new VisualPart(scope, 'object', config)
    this.norm = new LayerNorm(scope.at('embedding_LayerNorm'), width, eps)
    this.layers = bertBlocks(scope, config)
    /** Whether a part is there: as the configuration says, or by its tensors. */
    const there = (wanted: boolean | null | undefined, output: string, tensor: string) => {
      const has = wanted ?? scope.has(tensor)
      if (!has) this.absent[output] = scope.nameOf(tensor)
      return has
    }
    const pretraining = heads === 'pretraining'
    if (heads === 'task') this.head = new TaskHead(root, scope, config)
    if (this.head?.task === 'choice' || there(config.with_pooler, 'pooled_output', 'pooler.dense.weight')) this.pooler = new Linear(scope.at('pooler.dense'), width, width)
    if (pretraining && there(config.with_rel_head, 'relationship_logits', 'relationsip_head.caption_image_relationship.weight')) {
      this.relationship = new Linear(scope.at('relationsip_head.caption_image_relationship'), width, 2)
    }
    if (pretraining && there(config.with_mlm_head, 'mlm_logits', 'mlm_head.predictions.transform.dense.weight')) {
      this.wordHead = new WordHead(scope.at('mlm_head.predictions'), this.words.weight, { width, vocabulary, activation, eps, root })
    }
    if (pretraining && there(config.with_mvrc_head, 'mvrc_logits', 'mvrc_head.transform.dense.weight')) {
      this.objectHead = {
        dense: new Linear(scope.at('mvrc_head.transform.dense'), width, width),
        classes: new Linear(scope.at('mvrc_head.region_cls_pred'), width, config.visual_region_classes),
      }
    }
    const index = { dtype: 'int32' } as const
    const placed = { positions: index, place: { ...index, rowsOf: 'joint' } }
    const someWords = { ids: index, row: { ...index, rowsOf: 'text' } }
    this.streams = {
      text: { ids: index, types: index, visual: { dtype: 'float32', shape: [config.visual_size] }, ...placed },
      objects: { embeddings: { dtype: 'float32', shape: [config.visual_size + width] }, types: index, ...placed },
      end: { zero: index, types: index, ...placed },
      ...(this.specialWords && { special: someWords, usual: someWords }),
      ...(this.head?.task === 'question' && { answer: { row: { ...index, rowsOf: 'joint' } } }),
      joint: {},
    }
  }

  read(tensors: Readonly<Record<string, Tensor>>): Examples {
    const { config, head } = this
    const choices = head?.task === 'choice' ? tensors['text_input_ids']!.dims : undefined
    const given = new Given(choices ? flattened(tensors, 'text_input_ids') : tensors)
    const ids = given.integers('text_input_ids', ['examples', 'tokens'], 0, config.vocab_size)!
    const [count, tokens] = ids.dims as [number, number]
    const types = given.integers('text_token_type_ids', [count, tokens], 0, config.type_vocab_size)
    const visual = given.floats('text_visual_embeddings', [count, tokens, config.visual_size])!
    const objectSize = config.visual_size + config.hidden_size
    const objects = given.floats('object_vl_embeddings', [count, 'objects', objectSize])!
    const boxes = objects.dims[1]!
    const textMask = given.mask('text_mask', [count, tokens])
    const objectMask = given.mask('object_mask', [count, boxes])
    const lengths = Array.from({ length: count }, (_, i) => chosen(textMask?.of(i), tokens).columns.length + chosen(objectMask?.of(i), boxes).columns.length + 1)
    const packed = Math.max(...lengths, 0)
    const mask = new BigInt64Array(count * packed)
    lengths.forEach((length, i) => mask.fill(1n, i * packed, i * packed + length))
    const scores = { question: [count, head?.width ?? 0], choice: choices?.slice(0, 2) ?? [], reference: [count, boxes] }
    return {
      count,
      lengths: { text: Math.min(tokens, packed), objects: boxes, end: 1, joint: packed, answer: 1 },
      ...(head && { dims: { label_logits: scores[head.task] } }),
      fill: { label_logits: NO_OBJECT },
      told: { packed_mask: new Tensor('int64', mask, [count, packed]) },
      read: index => {
        const { columns: words } = chosen(textMask?.of(index), tokens)
        const { columns: seen } = chosen(objectMask?.of(index), boxes)
        this.checkLength(words.length, index)
        const first = config.position_padding_idx + 1
        const wordIds = pickRows(ids.of(index), words)
        const text: SequenceRows = {
          count: words.length,
          values: {
            ids: wordIds,
            types: types ? pickRows(types.of(index), words) : new Int32Array(words.length),
            visual: pickRows(visual.of(index), words, config.visual_size),
            positions: counting(words.length, first),
            place: counting(words.length),
          },
        }
        const objectRows: SequenceRows = {
          count: seen.length,
          columns: seen,
          values: {
            embeddings: pickRows(objects.of(index), seen, objectSize),
            types: new Int32Array(seen.length).fill(OBJECT_TYPE),
            positions: new Int32Array(seen.length).fill(first + words.length),
            place: counting(seen.length, words.length),
          },
        }
        const end: SequenceRows = {
          count: 1,
          values: { zero: Int32Array.of(0), types: Int32Array.of(OBJECT_TYPE), positions: Int32Array.of(first + words.length + 1), place: Int32Array.of(words.length + seen.length) },
        }
        const joint = joined([text, { ...objectRows, columns: undefined }, end].map(rows => ({ rows, length: rows.count })))
        const frozen = this.specialWords && { special: wordsWhere(wordIds, id => id < SPECIAL_WORDS), usual: wordsWhere(wordIds, id => id >= SPECIAL_WORDS) }
        const answer = head?.task === 'question' && { answer: { count: 1, values: { row: Int32Array.of(answerRow(words.length, index)) } } }
        return [{ text, objects: objectRows, end, joint, ...frozen, ...answer }]
      },
    }
  }

  private checkLength(words: number, index: number): void {
    const { max_position_embeddings: rows, position_padding_idx: padding } = this.config
    const most = rows - padding - 3
    if (words <= most) return
    throw new ArgumentError(`[forward] text_input_ids of example ${index} has ${words} tokens; this model takes at most ${most}`, { field: 'text_input_ids', index })
  }

  trace(rows: PackedRows): Traced {
    const size = this.config.visual_size
    const own = (stream: string) => add(this.positions.forward(rows.value(stream, 'positions')), this.types.forward(rows.value(stream, 'types')))
    const text = add(this.wordsOf(rows), this.textVisual.forward(rows.value('text', 'visual')))
    const embeddings = rows.value('objects', 'embeddings')
    const objects = add(this.objectVisual.forward(columns(embeddings, 0, size)), columns(embeddings, size, embeddings.shape[1]!))
    const end = gather(parameter(this.end), rows.value('end', 'zero'), { dtype: 'float32' })
    const parts = { text, objects, end }
    const all = Object.entries(parts).map(([stream, value]) => rows.placed(add(value, own(stream)), stream, 'joint'))
    const sequences = rows.sequences('joint')
    const states = hiddenStates(this.layers, this.norm.forward(all.reduce((a, b) => add(a, b)), { dtype: 'float32' }), sequences)
    const last = states.at(-1)!
    const first = pickToken(last, { which: 'first', cuSeqlens: sequences.cuSeqlens })
    const pooled = this.pooler?.forward(first, { activation: 'tanh', dtype: 'float32' })
    const textStates = gather(last, rows.value('text', 'place'), { dtype: 'float32' })
    const objectStates = gather(last, rows.value('objects', 'place'), { dtype: 'float32' })
    const activated = this.objectHead?.dense.forward(objectStates, { activation: this.config.hidden_act, dtype: 'float32' })
    return {
      outputs: {
        last_hidden_state: last,
        text_hidden_state: textStates,
        object_hidden_state: objectStates,
        ...(pooled && { pooled_output: pooled }),
        ...(this.relationship && { relationship_logits: this.relationship.forward(pooled!, { dtype: 'float32' }) }),
        ...(this.wordHead && { mlm_logits: this.wordHead.forward(textStates) }),
        ...(activated && { mvrc_logits: this.objectHead!.classes.forward(activated, { dtype: 'float32' }) }),
        ...(this.head && { label_logits: this.head.forward(this.readBy(this.head, rows, { last, pooled, objects: objectStates })) }),
      },
      hiddenStates: states,
      embedding: pooled ?? first,
    }
  }

  /** The states that a head looks at: the answer's word, the pooled first one, or each object. */
  private readBy({ task }: TaskHead, rows: PackedRows, { last, pooled, objects }: { last: Value; pooled: Value | undefined; objects: Value }): Value {
    if (task === 'question') return gather(last, rows.value('answer', 'row'), { dtype: 'float32' })
    return task === 'choice' ? pooled! : objects
  }

  private wordsOf(rows: PackedRows): Value {
    if (!this.specialWords) return this.words.forward(rows.value('text', 'ids'))
    const special = rows.placed(this.specialWords.forward(rows.value('special', 'ids')), 'special', 'text', 'row')
    return add(special, rows.placed(this.words.forward(rows.value('usual', 'ids')), 'usual', 'text', 'row'))
  }
}

/** The words that fit, and their rows among all. */
function wordsWhere(ids: Int32Array, fits: (id: number) => boolean): SequenceRows {
  const rows = counting(ids.length).filter(row => fits(ids[row]!))
  return { count: rows.length, values: { ids: pickRows(ids, rows), row: rows } }
}

/** Where the authors' module puts the answer, a [MASK]: before the text's last word, a [SEP]. */
function answerRow(words: number, index: number): number {
  if (words >= 2) return words - 2
  throw new ArgumentError(`[forward] text_mask of example ${index} counts ${words} tokens; expected at least 2, of which the last but one is the answer's [MASK]`, { field: 'text_mask', index })
}

/** @param architecture the authors' class */
export function buildVlBert(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  if (!Object.hasOwn(CLASSES, architecture)) {
    throw new UnsupportedError(`${file.file}: ${architecture} is not supported; of VL-BERT there are ${Object.keys(CLASSES).join(', ')}`, { file: file.file, field: 'architectures' })
  }
  const config = { ...readBertConfig(file), ...readConfig(schema, file) }
  if (!config.obj_pos_id_relative) throw new UnsupportedError(`${file.file}: obj_pos_id_relative is false; only true is supported`, { file: file.file, field: 'obj_pos_id_relative' })
  if (config.with_rel_head && config.with_pooler === false) {
    throw new CheckpointError(`${file.file}: with_pooler is false; expected true, since with_rel_head is`, { file: file.file, field: 'with_pooler' })
  }
  return { joint: new VlBert(scope, config, CLASSES[architecture as keyof typeof CLASSES]) }
}
