// LXMERT (Tan and Bansal, arXiv:1908.07490): words and regions in an encoder each, and then in layers where either stream looks at the other,
// both from the states before the layer and by the same weights. LxmertModel, LxmertForQuestionAnswering, LxmertForPreTraining.

import * as v from 'valibot'
import { ArgumentError, UnsupportedError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { constant, type Value } from '../core/value.js'
import { type BlockOptions, CrossAttention, hiddenStates, LayerNorm, Linear, type Scope, type Sequences, TransformerBlock } from '../nn/index.js'
import { add, mul, pickToken } from '../ops/index.js'
import { activation, checkHeads, type ConfigFile, flag, headCount, integer, readConfig, tableRows, width } from './config.js'
import type { Architecture, Traced } from './encoder.js'
import type { Examples, JointTower, PackedRows, SequenceRows, Streams } from './joint.js'
import { AnswerHead, TextEmbeddings, TextReader, WordHead } from './joint-bert.js'
import { chosen, Given, pickRows, shownColumns } from './joint-inputs.js'

const EPS = 1e-12
const schema = v.object({
  vocab_size: v.nullish(tableRows(), 30522),
  hidden_size: v.nullish(width(), 768),
  num_attention_heads: v.nullish(headCount(), 12),
  intermediate_size: v.nullish(width(), 3072),
  hidden_act: activation('gelu'),
  max_position_embeddings: v.nullish(tableRows(), 512),
  type_vocab_size: v.nullish(integer(1, 1000), 2),
  l_layers: v.nullish(integer(1, 1000), 9),
  r_layers: v.nullish(integer(1, 1000), 5),
  x_layers: v.nullish(integer(0, 1000), 5),
  visual_feat_dim: v.nullish(width(), 2048),
  visual_pos_dim: v.nullish(width(), 4),
  num_qa_labels: v.nullish(integer(1, 1_000_000), 9500),
  task_qa: flag(true),
})
type LxmertConfig = v.InferOutput<typeof schema>

const CLASSES = { LxmertModel: 'none', LxmertForQuestionAnswering: 'question', LxmertForPreTraining: 'pretraining' } as const
type HeadKind = (typeof CLASSES)[keyof typeof CLASSES]

/** Names of a block whose parts begin so. */
function blockNames(attention: string, inner: string, output: string): BlockOptions['names'] {
  return {
    attention: { query: `${attention}.self.query`, key: `${attention}.self.key`, value: `${attention}.self.value`, out: `${attention}.output.dense` },
    norm1: `${attention}.output.LayerNorm`,
    mlp: { in: `${inner}.dense`, out: `${output}.dense` },
    norm2: `${output}.LayerNorm`,
  }
}

/** A layer in which the streams look at each other, and then each at itself. */
class CrossLayer {
  private readonly across: CrossAttention
  private readonly norm: LayerNorm
  private readonly text: TransformerBlock
  private readonly visual: TransformerBlock

  constructor(scope: Scope, options: Omit<BlockOptions, 'names'>) {
    const { width, heads } = options
    const names = { query: 'att.query', key: 'att.key', value: 'att.value', out: 'output.dense' }
    this.across = new CrossAttention(scope.at('visual_attention'), { width, heads, names })
    this.norm = new LayerNorm(scope.at('visual_attention.output.LayerNorm'), width, EPS)
    this.text = new TransformerBlock(scope, { ...options, names: blockNames('lang_self_att', 'lang_inter', 'lang_output') })
    this.visual = new TransformerBlock(scope, { ...options, names: blockNames('visn_self_att', 'visn_inter', 'visn_output') })
  }

  forward(text: Value, textSequences: Sequences, visual: Value, visualSequences: Sequences): [text: Value, visual: Value] {
    const textMixed = this.norm.forward(this.across.forward(text, textSequences, visual, visualSequences, text))
    const visualMixed = this.norm.forward(this.across.forward(visual, visualSequences, text, textSequences, visual))
    return [this.text.forward(textMixed, textSequences), this.visual.forward(visualMixed, visualSequences)]
  }
}

class Lxmert implements JointTower {
  readonly prefix = ''
  readonly absent: Record<string, string> = {}
  readonly inputs = ['input_ids', 'attention_mask', 'token_type_ids', 'visual_feats', 'visual_pos', 'visual_attention_mask']
  readonly required = ['input_ids', 'visual_feats']
  readonly streams: Streams
  private readonly text: TextEmbeddings
  private readonly textNorm: LayerNorm
  private readonly features: Linear
  private readonly featuresNorm: LayerNorm
  private readonly boxes: Linear
  private readonly boxesNorm: LayerNorm
  private readonly textLayers: TransformerBlock[]
  private readonly visualLayers: TransformerBlock[]
  private readonly crossLayers: CrossLayer[]
  private readonly pooler: Linear
  private readonly words?: WordHead
  private readonly relationship?: Linear
  private readonly answers?: AnswerHead

  constructor(
    root: Scope,
    private readonly config: LxmertConfig,
    kind: HeadKind,
  ) {
    const { hidden_size: width, num_attention_heads: heads } = config
    const scope = root.firstWith('embeddings.word_embeddings.weight', ['', 'lxmert'])
    const encoder = scope.at('encoder')
    const limits = { vocabulary: config.vocab_size, tokenTypes: config.type_vocab_size, positions: config.max_position_embeddings }
    const options = { order: 'post' as const, width, heads, hidden: config.intermediate_size, activation: config.hidden_act, eps: EPS }
    const ownLayers = (name: string, count: number) =>
      Array.from({ length: count }, (_, i) => new TransformerBlock(encoder.at(name, i), { ...options, names: blockNames('attention', 'intermediate', 'output') }))
    this.text = new TextEmbeddings(scope.at('embeddings'), limits, width)
    this.textNorm = new LayerNorm(scope.at('embeddings.LayerNorm'), width, EPS)
    this.features = new Linear(encoder.at('visn_fc.visn_fc'), config.visual_feat_dim, width)
    this.featuresNorm = new LayerNorm(encoder.at('visn_fc.visn_layer_norm'), width, EPS)
    this.boxes = new Linear(encoder.at('visn_fc.box_fc'), config.visual_pos_dim, width)
    this.boxesNorm = new LayerNorm(encoder.at('visn_fc.box_layer_norm'), width, EPS)
    this.textLayers = ownLayers('layer', config.l_layers)
    this.visualLayers = ownLayers('r_layers', config.r_layers)
    this.crossLayers = Array.from({ length: config.x_layers }, (_, i) => new CrossLayer(encoder.at('x_layers', i), options))
    this.pooler = new Linear(scope.at('pooler.dense'), width, width)
    if (kind === 'pretraining') {
      this.words = new WordHead(root.at('cls.predictions'), this.text.words.weight, { width, vocabulary: config.vocab_size, activation: config.hidden_act, eps: EPS, root })
      this.relationship = new Linear(root.at('cls.seq_relationship'), width, 2)
    }
    if (kind === 'question' || (kind === 'pretraining' && config.task_qa)) this.answers = new AnswerHead(root.at('answer_head.logit_fc'), width, 2 * width, config.num_qa_labels)
    this.streams = {
      text: { ids: { dtype: 'int32' }, positions: { dtype: 'int32' }, types: { dtype: 'int32' } },
      visual: { features: { dtype: 'float32', shape: [config.visual_feat_dim] }, boxes: { dtype: 'float32', shape: [config.visual_pos_dim] } },
    }
  }

  read(tensors: Readonly<Record<string, Tensor>>): Examples {
    const given = new Given(tensors)
    const text = new TextReader(given, this.text.limits)
    const { visual_feat_dim: size, visual_pos_dim: boxSize } = this.config
    const features = given.floats('visual_feats', [text.count, 'regions', size])!
    const regions = features.dims[1]!
    const boxes = given.floats('visual_pos', [text.count, regions, boxSize])
    if (!boxes) throw new ArgumentError('[forward] visual_feats is given without visual_pos; expected both', { field: 'visual_pos' })
    const masks = given.mask('visual_attention_mask', [text.count, regions])
    return {
      count: text.count,
      lengths: { text: text.length, visual: regions },
      read: index => {
        const mask = masks?.of(index)
        const picked = chosen(mask, regions)
        const words = text.mask(index)
        const blank = picked.columns.length === 0
        const wordless = words !== undefined && !words.includes(1)
        if (blank && wordless) return undefined
        // The reference looks at masked rows then, all alike.
        if (blank || wordless) {
          const field = blank ? 'visual_attention_mask' : 'attention_mask'
          const [there, other] = blank ? ['region', 'words'] : ['word', 'regions']
          throw new ArgumentError(`[forward] ${field} of example ${index} counts no ${there}; expected at least one for the ${other} to look at`, { field, index })
        }
        const visual: SequenceRows = {
          count: picked.columns.length,
          columns: shownColumns(picked),
          values: { features: pickRows(features.of(index), picked.columns, size), boxes: pickRows(boxes.of(index), picked.columns, boxSize) },
        }
        return [{ text: text.read(index, [0]), visual }]
      },
    }
  }

  trace(rows: PackedRows): Traced {
    const textSequences = rows.sequences('text')
    const visualSequences = rows.sequences('visual')
    const embedded = this.textNorm.forward(this.text.forward(rows), { dtype: 'float32' })
    const features = this.featuresNorm.forward(this.features.forward(rows.value('visual', 'features'), { dtype: 'float32' }), { dtype: 'float32' })
    const boxes = this.boxesNorm.forward(this.boxes.forward(rows.value('visual', 'boxes'), { dtype: 'float32' }), { dtype: 'float32' })
    const half = constant(new Tensor('float32', Float32Array.of(0.5), []))
    const language = hiddenStates(this.textLayers, embedded, textSequences)
    const vision = hiddenStates(this.visualLayers, mul(add(features, boxes), half), visualSequences)
    for (const layer of this.crossLayers) {
      const [text, visual] = layer.forward(language.at(-1)!, textSequences, vision.at(-1)!, visualSequences)
      language.push(text)
      vision.push(visual)
    }
    const last = language.at(-1)!
    const pooled = this.pooler.forward(pickToken(last, { which: 'first', cuSeqlens: textSequences.cuSeqlens }), { activation: 'tanh', dtype: 'float32' })
    return {
      outputs: {
        language_output: last,
        vision_output: vision.at(-1)!,
        pooled_output: pooled,
        ...(this.words && { prediction_logits: this.words.forward(last) }),
        ...(this.relationship && { cross_relationship_score: this.relationship.forward(pooled, { dtype: 'float32' }) }),
        ...(this.answers && { question_answering_score: this.answers.forward(pooled) }),
        ...states('language', language),
        ...states('vision', vision),
      },
      hiddenStates: [],
      embedding: pooled,
    }
  }
}

function states(stream: string, values: readonly Value[]): Record<string, Value> {
  return Object.fromEntries(values.map((value, k) => [`${stream}_hidden_state_${k}`, value]))
}

/** @param architecture the reference's class */
export function buildLxmert(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  if (!Object.hasOwn(CLASSES, architecture)) {
    throw new UnsupportedError(`${file.file}: ${architecture} is not supported; of LXMERT there are ${Object.keys(CLASSES).join(', ')}`, { file: file.file, field: 'architectures' })
  }
  const config = readConfig(schema, file)
  checkHeads(file.file, 'num_attention_heads', config.num_attention_heads, config.hidden_size)
  return { joint: new Lxmert(scope, config, CLASSES[architecture as keyof typeof CLASSES]) }
}
