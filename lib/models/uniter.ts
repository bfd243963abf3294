// UNITER (Chen et al., arXiv:1909.11740): a BERT over words and regions, with the original authors' names of tensors, inputs and outputs.
// `gather_index` says which of the padded words and regions stands at each place of the sequence. Heads: matching, ranking, questions,
// multiple choice (VCR), NLVR2's triplets, regions by what is said of them, and those of pre-training, each there if its tensors are.

import * as v from 'valibot'
import { ArgumentError, ShapeError, UnsupportedError } from '../core/errors.js'
import type { Tensor } from '../core/tensor.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { hiddenStates, LayerNorm, Linear, type Scope, type TransformerBlock } from '../nn/index.js'
import { add, gather, linear, pickToken } from '../ops/index.js'
import { type BertConfig, readBertConfig } from './bert.js'
import { type ConfigFile, readConfig, width } from './config.js'
import type { Architecture, Traced } from './encoder.js'
import type { Examples, JointTower, PackedRows, SequenceRows, Streams } from './joint.js'
import { AnswerHead, bertBlocks, TEXT_ROWS, TextEmbeddings, textLimits, TextReader, WordHead } from './joint-bert.js'
import { chosen, counting, Given, pickRows, shownColumns } from './joint-inputs.js'

const schema = v.object({ img_dim: v.nullish(width(), 2048) })
const NAMES = { ids: 'input_ids', mask: '(none)', types: 'txt_type_ids', positions: 'position_ids' }
/** Numbers that tell where a region is: left, top, right, bottom, width, height, area, as parts of the picture's. */
const BOX = 7
const CLASSES = [
  ...['UniterModel', 'UniterForPretraining', 'UniterForImageTextRetrieval', 'UniterForVisualQuestionAnswering', 'UniterForVisualEntailment'],
  ...['UniterForVisualCommonsenseReasoning', 'UniterForNlvr2Triplet', 'UniterForReferringExpressionComprehension'],
]

/** Sizes of heads, which the authors give to the constructor and not to the configuration. */
interface HeadSizes {
  answers: number | undefined
  regionLabels: number | undefined
}

function scores(head: Linear | AnswerHead, x: Value): Value {
  return head instanceof AnswerHead ? head.forward(x) : head.forward(x, { dtype: 'float32' })
}

class Uniter implements JointTower {
  readonly prefix = ''
  readonly absent: Record<string, string> = {}
  readonly inputs = ['input_ids', 'position_ids', 'txt_type_ids', 'img_feat', 'img_pos_feat', 'img_masks', 'img_type_ids', 'attn_masks', 'gather_index']
  readonly required = ['input_ids']
  readonly streams: Streams
  private readonly text: TextEmbeddings
  private readonly textNorm: LayerNorm
  private readonly imageLinear: Linear
  private readonly imageNorm: LayerNorm
  private readonly boxLinear: Linear
  private readonly boxNorm: LayerNorm
  private readonly maskTable?: Parameter
  private readonly regionNorm: LayerNorm
  private readonly layers: TransformerBlock[]
  private readonly pooler: Linear
  private readonly matching?: Linear
  private readonly ranking?: Linear | AnswerHead
  private readonly answers?: Linear | AnswerHead
  private readonly referred?: Linear | AnswerHead
  private readonly words?: WordHead
  private readonly regression?: { head: AnswerHead; weight: Parameter; bias: Parameter }
  private readonly classification?: AnswerHead

  constructor(
    root: Scope,
    config: BertConfig,
    private readonly features: number,
    sizes: HeadSizes,
  ) {
    const { hidden_size: width, layer_norm_eps: eps } = config
    const scope = root.firstWith('embeddings.word_embeddings.weight', ['uniter', '', 'bert'])
    const regions = scope.at('img_embeddings')
    this.text = new TextEmbeddings(scope.at('embeddings'), textLimits(config), width)
    this.textNorm = new LayerNorm(scope.at('embeddings.LayerNorm'), width, eps)
    this.imageLinear = new Linear(regions.at('img_linear'), features, width)
    this.imageNorm = new LayerNorm(regions.at('img_layer_norm'), width, eps)
    this.boxLinear = new Linear(regions.at('pos_linear'), BOX, width)
    this.boxNorm = new LayerNorm(regions.at('pos_layer_norm'), width, eps)
    if (regions.has('mask_embedding.weight')) {
      const name = regions.nameOf('mask_embedding.weight')
      // The authors overwrite the row of unmasked regions with zeros in each run.
      this.maskTable = regions.parameter('mask_embedding.weight', [2, features], {
        derived: { from: [{ name, shape: [2, features] }], compute: ([table]) => Float32Array.from(table!).fill(0, 0, features) },
      })
    }
    this.regionNorm = new LayerNorm(regions.at('LayerNorm'), width, eps)
    this.layers = bertBlocks(scope, config)
    this.pooler = new Linear(scope.at('pooler.dense'), width, width)
    const there = (output: string, tensor: string) => {
      if (!root.has(tensor)) this.absent[output] = tensor
      return root.has(tensor)
    }
    if (there('itm_logits', 'itm_output.weight')) this.matching = new Linear(root.at('itm_output'), width, 2)
    // Of VCR's two scores, of a wrong and of a right answer, the second ranks.
    if (root.has('vcr_output.0.weight')) this.ranking = new AnswerHead(root.at('vcr_output'), width, 2 * width, 1, { activation: 'relu', part: { begin: 1, rows: 2 } })
    else if (there('rank_scores', 'rank_output.weight')) this.ranking = new Linear(root.at('rank_output'), width, 1)
    if (root.has('nlvr2_output.weight')) this.answers = new Linear(root.at('nlvr2_output'), width, 2)
    else if (there('answer_scores', 'vqa_output.0.weight')) this.answers = new AnswerHead(root.at('vqa_output'), width, 2 * width, sizes.answers!)
    if (root.has('re_output.0.weight')) this.referred = new AnswerHead(root.at('re_output'), width, width, 1)
    else if (there('region_scores', 're_output.weight')) this.referred = new Linear(root.at('re_output'), width, 1)
    if (there('prediction_scores', 'cls.predictions.transform.dense.weight')) {
      this.words = new WordHead(root.at('cls.predictions'), this.text.words.weight, { width, vocabulary: config.vocab_size, activation: config.hidden_act, eps, root })
    }
    if (there('prediction_feat', 'feat_regress.net.0.weight')) {
      this.regression = {
        head: new AnswerHead(root.at('feat_regress.net'), width, width, undefined),
        weight: regions.parameter('img_linear.weight', [features, width], { role: 'linear', view: { shape: [width, features], order: [1, 0] } }),
        bias: root.parameter('feat_regress.bias', [features]),
      }
    }
    if (there('prediction_soft_label', 'region_classifier.net.0.weight')) this.classification = new AnswerHead(root.at('region_classifier.net'), width, width, sizes.regionLabels!)
    this.streams = this.streamsOf(false)
  }

  private streamsOf(masked: boolean): Streams {
    return {
      text: TEXT_ROWS,
      regions: {
        features: { dtype: 'float32', shape: [this.features] },
        boxes: { dtype: 'float32', shape: [BOX] },
        types: { dtype: 'int32' },
        place: { dtype: 'int32', rowsOf: 'joint' },
        ...(masked && { masks: { dtype: 'int32' } }),
      },
      joint: {},
    }
  }

  read(tensors: Readonly<Record<string, Tensor>>): Examples {
    const given = new Given(tensors)
    const text = new TextReader(given, this.text.limits, NAMES)
    const { count } = text
    const features = given.floats('img_feat', [count, 'regions', this.features])
    const regions = features?.dims[1] ?? 0
    if (features && !given.has('img_pos_feat')) throw new ArgumentError('[forward] img_feat is given without img_pos_feat; expected both', { field: 'img_pos_feat' })
    const orphan = features ? undefined : ['img_pos_feat', 'img_masks', 'img_type_ids'].find(name => given.has(name))
    if (orphan) throw new ArgumentError(`[forward] ${orphan} is given without img_feat; expected both`, { field: orphan })
    const boxes = given.floats('img_pos_feat', [count, regions, BOX])
    const masked = given.mask('img_masks', [count, regions])
    if (masked && !this.maskTable) throw new ArgumentError('[forward] this checkpoint has no mask_embedding; expected no img_masks', { field: 'img_masks' })
    const types = given.integers('img_type_ids', [count, regions], 0, this.text.limits.tokenTypes)
    const places = given.integers('gather_index', [count, 'places'], 0, text.length + regions)
    const length = places?.dims[1] ?? text.length + regions
    const masks = given.mask('attn_masks', [count, 'places'])
    if (masks && masks.dims[1] !== length) {
      throw new ShapeError(`[forward] attn_masks is [${masks.dims.join(', ')}]; expected [${count}, ${length}] as ${places ? 'gather_index' : 'words and regions'}`, {
        field: 'attn_masks',
        shapes: [masks.dims],
      })
    }
    return {
      count,
      streams: masked && this.streamsOf(true),
      lengths: { text: length, regions, joint: length },
      read: index => {
        const mask = masks?.of(index)
        if (mask && !mask.includes(1)) return undefined
        const picked = chosen(mask, length, [0])
        const sources = places ? pickRows(places.of(index), picked.columns) : picked.columns
        const isWord = (source: number) => source < text.length
        const rowsWhere = (fits: (source: number) => boolean) => counting(sources.length).filter(row => fits(sources[row]!))
        const words = rowsWhere(isWord)
        const seen = rowsWhere(source => !isWord(source))
        const from = seen.map(row => sources[row]! - text.length)
        const wordRows = text.rows(index, pickRows(sources, words))
        return [
          {
            text: { ...wordRows, values: { ...wordRows.values, place: words } },
            regions: {
              count: seen.length,
              values: {
                features: features ? pickRows(features.of(index), from, this.features) : new Float32Array(),
                boxes: boxes ? pickRows(boxes.of(index), from, BOX) : new Float32Array(),
                types: types ? pickRows(types.of(index), from) : new Int32Array(from.length).fill(1),
                place: seen,
                ...(masked && { masks: pickRows(masked.of(index), from) }),
              },
            } satisfies SequenceRows,
            joint: { count: sources.length, values: {}, columns: shownColumns(picked), unseen: picked.unseen },
          },
        ]
      },
    }
  }

  trace(rows: PackedRows): Traced {
    const words = this.textNorm.forward(this.text.forward(rows), { dtype: 'float32' })
    const both = add(rows.placed(words, 'text', 'joint'), rows.placed(this.regionsOf(rows), 'regions', 'joint'))
    const sequences = rows.sequences('joint')
    const states = hiddenStates(this.layers, both, sequences)
    const last = states.at(-1)!
    const pooled = this.pooler.forward(pickToken(last, { which: 'first', cuSeqlens: sequences.cuSeqlens }), { activation: 'tanh', dtype: 'float32' })
    const { regression } = this
    return {
      outputs: {
        last_hidden_state: last,
        pooled,
        ...(this.matching && { itm_logits: this.matching.forward(pooled, { dtype: 'float32' }) }),
        ...(this.ranking && { rank_scores: scores(this.ranking, pooled) }),
        ...(this.answers && { answer_scores: scores(this.answers, pooled) }),
        ...(this.referred && { region_scores: scores(this.referred, last) }),
        ...(this.words && { prediction_scores: this.words.forward(last) }),
        ...(regression && { prediction_feat: linear(regression.head.forward(last), parameter(regression.weight), { bias: parameter(regression.bias), dtype: 'float32' }) }),
        ...(this.classification && { prediction_soft_label: this.classification.forward(last) }),
      },
      hiddenStates: states,
      embedding: pooled,
    }
  }

  private regionsOf(rows: PackedRows): Value {
    const value = (name: string) => rows.value('regions', name)
    const features = rows.has('regions', 'masks') ? add(value('features'), gather(parameter(this.maskTable!), value('masks'), { dtype: 'float32' })) : value('features')
    const image = this.imageNorm.forward(this.imageLinear.forward(features, { dtype: 'float32' }), { dtype: 'float32' })
    const boxes = this.boxNorm.forward(this.boxLinear.forward(value('boxes'), { dtype: 'float32' }), { dtype: 'float32' })
    return this.regionNorm.forward(add(add(image, boxes), this.text.types.forward(value('types'))), { dtype: 'float32' })
  }
}

/** The authors' configuration names neither model nor class; these tensors are UNITER's alone. */
export function hasUniterNames(tensors: ReadonlyMap<string, unknown>): boolean {
  return ['uniter.', '', 'bert.'].some(path => tensors.has(`${path}img_embeddings.img_linear.weight`) && tensors.has(`${path}img_embeddings.pos_linear.weight`))
}

/** @param architecture the authors' class */
export function buildUniter(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  if (!CLASSES.includes(architecture)) {
    throw new UnsupportedError(`${file.file}: ${architecture} is not supported; of UNITER there are ${CLASSES.join(', ')}`, { file: file.file, field: 'architectures' })
  }
  const { img_dim: features } = readConfig(schema, file)
  const sizes = { answers: scope.rowsOf('vqa_output.3.weight'), regionLabels: scope.rowsOf('region_classifier.net.3.weight') }
  return { joint: new Uniter(scope, readBertConfig(file), features, sizes) }
}
