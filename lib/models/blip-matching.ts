// BLIP's image-text retrieval (Li et al., arXiv:2201.12086): the text encoder alone gives an embedding beside the picture's, and with the
// picture's tokens to look at, the score of a pair: itm_score, [no match, match]. Names of outputs: itm_score, itm_prob, question_embeds
// (the states behind the score), image_feat and text_feat (normalised), itc_similarity (their cosines).

import type { Tensor } from '../core/tensor.js'
import type { Value } from '../core/value.js'
import { Attention, CrossAttention, Embedding, LayerNorm, Linear, Mlp, type Scope, type Sequences } from '../nn/index.js'
import { add, l2Normalize, pickToken, softmax } from '../ops/index.js'
import { type BertConfig, BertEncoder, bertOptions } from './bert.js'
import { EMBEDDING, imagesLike, type ImageTower, type TextTower, textsLike, type Traced } from './encoder.js'
import type { Examples, JointTower, PackedRows, SequenceRows, Streams } from './joint.js'
import { TextReader } from './joint-bert.js'
import { Given } from './joint-inputs.js'

const STATES = 'vision_last_hidden_state'

/** A post-norm block of BERT's that looks at a picture's tokens between its attention and its MLP. */
class LookingBlock {
  private readonly attention: Attention
  private readonly norm: LayerNorm
  private readonly looking: CrossAttention
  private readonly lookingNorm: LayerNorm
  private readonly mlp: Mlp
  private readonly mlpNorm: LayerNorm

  constructor(scope: Scope, config: BertConfig, contextWidth: number) {
    const { width, heads, hidden, activation, eps, names } = bertOptions(config)
    const cross = { query: 'self.query', key: 'self.key', value: 'self.value', out: 'output.dense' }
    this.attention = new Attention(scope, { width, heads, names: names.attention })
    this.norm = new LayerNorm(scope.at('attention.output.LayerNorm'), width, eps)
    this.looking = new CrossAttention(scope.at('crossattention'), { width, contextWidth, heads, names: cross })
    this.lookingNorm = new LayerNorm(scope.at('crossattention.output.LayerNorm'), width, eps)
    this.mlp = new Mlp(scope, { width, hidden, activation, names: names.mlp })
    this.mlpNorm = new LayerNorm(scope.at('output.LayerNorm'), width, eps)
  }

  /** looking: the same rows as `sequences`, those of all texts that look at one picture as one */
  forward(x: Value, sequences: Sequences, looking: Sequences, picture: Value, ofPicture: Sequences): Value {
    const attended = this.norm.forward(this.attention.forward(x, sequences, { residual: x }))
    const looked = this.lookingNorm.forward(this.looking.forward(attended, looking, picture, ofPicture, attended))
    return this.mlpNorm.forward(this.mlp.forward(looked, looked))
  }
}

/** The score of a text and a picture, from the states of the picture's tower. */
export class BlipMatching implements JointTower {
  readonly prefix = 'question_'
  readonly absent = {}
  readonly inputs = ['input_ids', 'attention_mask', 'pixel_values']
  readonly required = ['input_ids', 'pixel_values']
  readonly uses = [STATES]
  readonly streams: Streams
  readonly shared = { stream: 'picture', by: 'text' }
  readonly maxLength: number
  private readonly words: Embedding
  private readonly positions: Embedding
  private readonly norm: LayerNorm
  private readonly layers: LookingBlock[]
  private readonly head: Linear

  /** @param width of the picture's tokens */
  constructor(
    scope: Scope,
    private readonly config: BertConfig,
    private readonly width: number,
    head: Scope,
  ) {
    const { hidden_size, layer_norm_eps: eps } = config
    this.maxLength = config.max_position_embeddings
    this.words = new Embedding(scope.at('embeddings.word_embeddings'), config.vocab_size, hidden_size)
    this.positions = new Embedding(scope.at('embeddings.position_embeddings'), config.max_position_embeddings, hidden_size)
    this.norm = new LayerNorm(scope.at('embeddings.LayerNorm'), hidden_size, eps)
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, i) => new LookingBlock(scope.at('encoder.layer', i), config, width))
    this.head = new Linear(head, hidden_size, 2)
    this.streams = { text: { ids: { dtype: 'int32' }, positions: { dtype: 'int32' } }, picture: { states: { dtype: 'float32', shape: [width] } } }
  }

  read({ [STATES]: pictures, ...tensors }: Readonly<Record<string, Tensor>>): Examples {
    const given = new Given({ ...tensors, pixel_values: pictures! })
    const text = new TextReader(given, { vocabulary: this.config.vocab_size, tokenTypes: 1, positions: this.config.max_position_embeddings })
    const { count, length } = text
    // States alone, without the pixels they are of, may be of one picture for all texts.
    const one = tensors['pixel_values'] === undefined && pictures!.dims[0] === 1
    if (!one) given.same(pictures!.dims[0]!, 'pixel_values', count, 'input_ids')
    const states = given.floats('pixel_values', [one ? 1 : count, 'tokens', this.width])!
    const tokens = states.dims[1]!
    const rowsOf = (index: number): SequenceRows => ({ count: tokens, values: { states: states.of(index) } })
    const common = one ? rowsOf(0) : undefined
    return {
      count,
      lengths: { text: length, picture: tokens },
      read: index => {
        const mask = text.mask(index)
        if (mask && !mask.includes(1)) return undefined
        return [{ text: text.read(index, [0]), picture: common ?? rowsOf(index) }]
      },
    }
  }

  trace(rows: PackedRows): Traced {
    const sequences = rows.sequences('text')
    const picture = rows.value('picture', 'states')
    let x = this.norm.forward(add(this.words.forward(rows.value('text', 'ids')), this.positions.forward(rows.value('text', 'positions'))), { dtype: 'float32' })
    const states = [x]
    for (const layer of this.layers) states.push((x = layer.forward(x, sequences, rows.sharing(), picture, rows.sequences('picture'))))
    const score = this.head.forward(pickToken(x, { which: 'first', cuSeqlens: sequences.cuSeqlens }), { dtype: 'float32' })
    return { outputs: { question_embeds: x, itm_score: score, itm_prob: softmax(score, { dtype: 'float32' }) }, hiddenStates: states, embedding: score }
  }
}

/** The picture tower with `image_feat`, its projected class token, normalised. */
export function featureImages(tower: ImageTower & { tokens: number }, projection: Linear): ImageTower {
  return imagesLike(tower, {
    prefix: 'vision_',
    trace: (pixels, scale) => {
      const { outputs, hiddenStates } = tower.trace(pixels, scale)
      const last = outputs['last_hidden_state']!
      const embedding = projection.forward(pickToken(last, { which: 'first', length: tower.tokens }), { dtype: 'float32' })
      return {
        outputs: { [STATES]: last, vision_pooler_output: outputs['pooler_output']!, image_feat: l2Normalize(embedding, { dtype: 'float32' }) },
        hiddenStates,
        embedding,
      }
    },
  })
}

/** The text tower with `text_feat`, its projected first token, normalised. */
export function featureTexts(tower: BertEncoder, projection: Linear): TextTower {
  return textsLike(tower, {
    prefix: 'text_',
    absent: {},
    readsFirst: ['text_feat', EMBEDDING],
    trace: tokens => {
      const { outputs, hiddenStates } = tower.trace(tokens)
      const last = outputs['last_hidden_state']!
      const embedding = projection.forward(pickToken(last, { which: 'first', cuSeqlens: tokens.sequences.cuSeqlens }), { dtype: 'float32' })
      return { outputs: { text_last_hidden_state: last, text_feat: l2Normalize(embedding, { dtype: 'float32' }) }, hiddenStates, embedding }
    },
  })
}
