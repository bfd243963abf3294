// ViLT (Kim et al., arXiv:2102.03334): words and patches in one pre-norm encoder. Pictures have sizes of their own within a padded canvas;
// only the patches that their masks mark are computed. ViltModel and its heads: masked words, questions, retrieval, several pictures, tokens.

import * as v from 'valibot'
import { ArgumentError, CheckpointError, ShapeError, UnsupportedError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { Embedding, hiddenStates, LayerNorm, Linear, MixedPositions, PatchEmbed, type PixelScale, type Scope, TransformerBlock } from '../nn/index.js'
import { add, gather, pickToken, reshape, unary } from '../ops/index.js'
import { activation, checkHeads, type ConfigFile, epsilon, flag, headCount, integer, labelNames, labels, layerCount, readConfig, sides, squarePatch, tableRows, threeChannels, width } from './config.js'
import type { Architecture, Traced } from './encoder.js'
import type { Example, Examples, JointTower, PackedRows, SequenceRows, Streams } from './joint.js'
import { TEXT_ROWS, TextEmbeddings, TextReader, WordHead } from './joint-bert.js'
import { counting, Given, joined } from './joint-inputs.js'
import { checkPixels, type Grid, markedPatches, patchRows, type PatchPixels } from './patch-inputs.js'
import { BLOCK_NAMES } from './vit.js'

const schema = v.object({
  vocab_size: v.nullish(tableRows(), 30522),
  type_vocab_size: v.nullish(integer(1, 1000), 2),
  modality_type_vocab_size: v.nullish(integer(2, 1000), 2),
  max_position_embeddings: v.nullish(tableRows(), 40),
  hidden_size: v.nullish(width(), 768),
  num_hidden_layers: v.nullish(layerCount(), 12),
  num_attention_heads: v.nullish(headCount(), 12),
  intermediate_size: v.nullish(width(), 3072),
  hidden_act: activation('gelu'),
  layer_norm_eps: epsilon(1e-12),
  image_size: v.nullish(sides(16384), 384),
  patch_size: v.nullish(sides(1024), 32),
  num_channels: threeChannels(),
  qkv_bias: flag(true),
  max_image_length: v.nullish(integer(-1, 1_000_000), -1),
  num_images: v.nullish(integer(-1, 100), -1),
  ...labels,
})
type ViltConfig = v.InferOutput<typeof schema>

const CLASSES = {
  ViltModel: 'none',
  ViltForMaskedLM: 'words',
  ViltForQuestionAnswering: 'question',
  ViltForImageAndTextRetrieval: 'retrieval',
  ViltForImagesAndTextClassification: 'pictures',
  ViltForTokenClassification: 'tokens',
} as const
type HeadKind = (typeof CLASSES)[keyof typeof CLASSES]

/** Linear, norm, gelu, linear: the reference's nn.Sequential. */
class Head {
  private readonly in: Linear
  private readonly norm: LayerNorm
  private readonly out: Linear

  constructor(scope: Scope, inputs: number, hidden: number, outputs: number) {
    this.in = new Linear(scope.at(0), inputs, hidden)
    this.norm = new LayerNorm(scope.at(1), hidden, 1e-5)
    this.out = new Linear(scope.at(3), hidden, outputs)
  }

  forward(x: Value): Value {
    const normed = this.norm.forward(this.in.forward(x, { dtype: 'float32' }), { dtype: 'float32' })
    return this.out.forward(unary(normed, 'gelu', { dtype: 'float32' }), { dtype: 'float32' })
  }
}

class Vilt implements JointTower {
  readonly prefix = ''
  readonly absent: Record<string, string> = {}
  readonly inputs = ['input_ids', 'attention_mask', 'token_type_ids', 'pixel_values', 'pixel_mask']
  readonly required = ['input_ids', 'pixel_values']
  readonly told: readonly string[]
  readonly takesPixels = true
  readonly maxLength: number
  readonly sequencesPerExample: number
  readonly streams: Streams
  private readonly text: TextEmbeddings
  private readonly textNorm: LayerNorm
  private readonly patches: PatchEmbed
  private readonly classToken: Parameter
  private readonly classPosition: Parameter
  private readonly positions: MixedPositions
  private readonly modalities: Embedding
  private readonly layers: TransformerBlock[]
  private readonly norm: LayerNorm
  private readonly pooler?: Linear
  private readonly head?: Head | Linear | WordHead

  constructor(
    root: Scope,
    private readonly config: ViltConfig,
    private readonly patch: number,
    private readonly kind: HeadKind,
    labelCount: number,
  ) {
    const { hidden_size: width, layer_norm_eps: eps, image_size: size } = config
    const scope = root.firstWith('embeddings.cls_token', ['', 'vilt'])
    const embeddings = scope.at('embeddings')
    const grid = { height: Math.floor(size.height / patch), width: Math.floor(size.width / patch) }
    const tokens = grid.height * grid.width + 1
    const limits = { vocabulary: config.vocab_size, tokenTypes: config.type_vocab_size, positions: config.max_position_embeddings }
    this.maxLength = limits.positions
    this.sequencesPerExample = kind === 'pictures' ? config.num_images : 1
    this.told = kind === 'pictures' ? [] : ['last_hidden_state_mask']
    this.text = new TextEmbeddings(embeddings.at('text_embeddings'), limits, width)
    this.textNorm = new LayerNorm(embeddings.at('text_embeddings.LayerNorm'), width, eps)
    this.patches = new PatchEmbed(embeddings.at('patch_embeddings'), { width, patch, tokens: 1, names: { weight: 'projection.weight', bias: 'projection.bias' } })
    this.classToken = embeddings.parameter('cls_token', [1, width])
    this.classPosition = embeddings.parameter('position_embeddings', [1, width], { view: { shape: [tokens, width], begin: 0 } })
    this.positions = new MixedPositions(embeddings, 'position_embeddings', { width, grid, skip: 1, alignCorners: true })
    this.modalities = new Embedding(embeddings.at('token_type_embeddings'), config.modality_type_vocab_size, width)
    const options = { order: 'pre' as const, width, heads: config.num_attention_heads, hidden: config.intermediate_size, activation: config.hidden_act, eps, qkvBias: config.qkv_bias, names: BLOCK_NAMES }
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, i) => new TransformerBlock(scope.at('encoder.layer', i), options))
    this.norm = new LayerNorm(scope.at('layernorm'), width, eps)
    const needsPooler = kind === 'question' || kind === 'retrieval' || kind === 'pictures'
    if (needsPooler || scope.has('pooler.dense.weight')) this.pooler = new Linear(scope.at('pooler.dense'), width, width)
    else this.absent['pooler_output'] = scope.nameOf('pooler.dense.weight')
    if (kind === 'question') this.head = new Head(root.at('classifier'), width, 2 * width, labelCount)
    if (kind === 'pictures') this.head = new Head(root.at('classifier'), width * this.sequencesPerExample, width * this.sequencesPerExample, labelCount)
    if (kind === 'retrieval') this.head = new Linear(root.at('rank_output'), width, 1)
    if (kind === 'tokens') this.head = new Linear(root.at('classifier'), width, labelCount)
    if (kind === 'words') {
      this.head = new WordHead(root.at('mlm_score'), this.text.words.weight, { width, vocabulary: config.vocab_size, activation: config.hidden_act, eps, root })
    }
    this.streams = this.streamsOf('float32')
  }

  private streamsOf(pixels: PatchPixels): Streams {
    const place = { dtype: 'int32', rowsOf: 'joint' } as const
    const modality = { dtype: 'int32' } as const
    return {
      text: { ...TEXT_ROWS, modality },
      classes: { zero: { dtype: 'int32' }, modality, place },
      patches: {
        pixels: { dtype: pixels, shape: pixels === 'uint8' ? [this.patch, this.patch, 3] : [3, this.patch, this.patch] },
        weights: { dtype: 'float32', shape: [this.positions.size] },
        modality,
        place,
      },
      joint: {},
    }
  }

  read(tensors: Readonly<Record<string, Tensor>>): Examples {
    const given = new Given(tensors)
    const text = new TextReader(given, this.text.limits)
    const { count, length } = text
    const several = this.kind === 'pictures'
    const pictures = checkPixels(this.eachPicture(tensors['pixel_values']!, count, several), this.patch)
    const { dims } = pictures.pixels
    if (dims[0] !== count * this.sequencesPerExample) {
      throw new ShapeError(`[forward] pixel_values has ${dims[0]} pictures; expected ${count} as input_ids`, { field: 'pixel_values', shapes: [dims] })
    }
    const masks = tensors['pixel_mask']
    const marked = markedPatches(masks && (several && masks.dims.length === 4 ? withoutSecond(masks) : masks), pictures)
    const { max_image_length: most } = this.config
    const tooMany = most < 0 ? -1 : marked.findIndex(({ places }) => places.length > most)
    if (tooMany >= 0) {
      throw new ArgumentError(`[forward] picture ${tooMany} has ${marked[tooMany]!.places.length} patches; this model takes at most ${most} (max_image_length)`, { field: 'pixel_values', index: tooMany })
    }
    const patches = Math.max(...marked.map(({ places, grid }) => Math.max(places.length, grid.height * grid.width)), 0)
    const columns = length + 1 + patches
    const streams = this.streamsOf(pictures.type)
    return {
      count,
      streams,
      lengths: { text: length, classes: 1, patches, joint: columns },
      told: several ? {} : { last_hidden_state_mask: this.maskOf(text, marked.map(({ places }) => places.length), columns) },
      read: index => {
        const words = text.read(index, [0])
        return Array.from({ length: this.sequencesPerExample }, (_, i) => {
          const picture = index * this.sequencesPerExample + i
          return this.sequence(words, length, patchRows(pictures, picture, marked[picture]!, this.patch), this.weightsOf(marked[picture]!, pictures.canvas), i + 1)
        }) satisfies Example
      },
    }
  }

  private sequence(words: SequenceRows, length: number, pixels: Float32Array | Uint8Array, weights: Float32Array, modality: number) {
    const count = weights.length / this.positions.size
    const text = { ...words, values: { ...words.values, modality: new Int32Array(words.count) } }
    const classes: SequenceRows = { count: 1, values: { zero: Int32Array.of(0), modality: Int32Array.of(modality), place: Int32Array.of(words.count) } }
    const patches: SequenceRows = {
      count,
      values: { pixels, weights, modality: new Int32Array(count).fill(modality), place: counting(count, words.count + 1) },
    }
    return { text, classes, patches, joint: joined([{ rows: words, length }, { rows: { count: 1, values: {} }, length: 1 }, { rows: { count, values: {} }, length: count }]) }
  }

  /** Pictures [B, …] of a model for one, [B·n, …] of one for several. */
  private eachPicture(tensor: Tensor, count: number, several: boolean): Tensor {
    if (!several || tensor.dims.length === 4) return tensor
    const [batch, pictures] = tensor.dims
    if (tensor.dims.length === 5 && batch === count && pictures === this.sequencesPerExample) return withoutSecond(tensor)
    throw new ShapeError(`[forward] pixel_values is [${tensor.dims.join(', ')}]; expected [${count}, ${this.sequencesPerExample}, …], so many pictures as num_images says`, {
      field: 'pixel_values',
      shapes: [tensor.dims],
    })
  }

  /** The positions of the marked patches; those outside the grid that the first row and column span have none. */
  private weightsOf({ places, grid }: { places: Int32Array; grid: Grid }, canvas: Grid): Float32Array {
    const all = this.positions.weights(grid)
    const { size } = this.positions
    if (places.length === grid.height * grid.width && grid.width === canvas.width) return all
    const weights = new Float32Array(places.length * size)
    places.forEach((place, i) => {
      const [row, column] = [Math.floor(place / canvas.width), place % canvas.width]
      if (row >= grid.height || column >= grid.width) return
      const at = (row * grid.width + column) * size
      weights.set(all.subarray(at, at + size), i * size)
    })
    return weights
  }

  private maskOf(text: TextReader, patches: readonly number[], columns: number): Tensor {
    const data = new BigInt64Array(text.count * columns)
    patches.forEach((count, b) => {
      const mask = text.mask(b)
      for (let c = 0; c < text.length; c++) if (!mask || mask[c] === 1) data[b * columns + c] = 1n
      data.fill(1n, b * columns + text.length, b * columns + text.length + 1 + count)
    })
    return new Tensor('int64', data, [text.count, columns])
  }

  trace(rows: PackedRows, scale: PixelScale): Traced {
    const modality = (stream: string) => this.modalities.forward(rows.value(stream, 'modality'))
    const words = add(this.textNorm.forward(this.text.forward(rows), { dtype: 'float32' }), modality('text'))
    const token = add(parameter(this.classToken), parameter(this.classPosition))
    const classes = add(gather(token, rows.value('classes', 'zero'), { dtype: 'float32' }), modality('classes'))
    const placed = add(this.patches.forward(rows.value('patches', 'pixels'), scale), this.positions.forward(rows.value('patches', 'weights')))
    const patches = add(placed, modality('patches'))
    const all = add(add(rows.placed(words, 'text', 'joint'), rows.placed(classes, 'classes', 'joint')), rows.placed(patches, 'patches', 'joint'))
    const sequences = rows.sequences('joint')
    const states = hiddenStates(this.layers, all, sequences)
    const last = this.norm.forward(states.at(-1)!, { dtype: 'float32' })
    const first = pickToken(last, { which: 'first', cuSeqlens: sequences.cuSeqlens })
    const pooled = this.pooler?.forward(first, { activation: 'tanh', dtype: 'float32' })
    if (this.kind === 'pictures') {
      const together = reshape(pooled!, [pooled!.shape[0]! / this.sequencesPerExample, pooled!.shape[1]! * this.sequencesPerExample])
      return { outputs: { logits: (this.head as Head).forward(together) }, hiddenStates: [], embedding: together }
    }
    const logits = this.logits(rows, last, pooled)
    return { outputs: { last_hidden_state: last, ...(pooled && { pooler_output: pooled }), ...(logits && { logits }) }, hiddenStates: states, embedding: pooled ?? first }
  }

  private logits(rows: PackedRows, last: Value, pooled: Value | undefined): Value | undefined {
    const { head } = this
    if (!head) return undefined
    const x = this.kind === 'words' || this.kind === 'tokens' ? gather(last, rows.value('text', 'place'), { dtype: 'float32' }) : pooled!
    return head instanceof Linear ? head.forward(x, { dtype: 'float32' }) : head.forward(x)
  }
}

/** [a, b, …] as [a·b, …]. */
function withoutSecond({ type, data, dims }: Tensor): Tensor {
  return new Tensor(type, data, [dims[0]! * (dims[1] ?? 1), ...dims.slice(2)])
}

/** @param architecture the reference's class */
export function buildVilt(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  if (!Object.hasOwn(CLASSES, architecture)) {
    throw new UnsupportedError(`${file.file}: ${architecture} is not supported; of ViLT there are ${Object.keys(CLASSES).join(', ')}`, { file: file.file, field: 'architectures' })
  }
  const kind = CLASSES[architecture as keyof typeof CLASSES]
  const config = readConfig(schema, file)
  checkHeads(file.file, 'num_attention_heads', config.num_attention_heads, config.hidden_size)
  if (kind === 'pictures' && (config.num_images < 1 || config.num_images >= config.modality_type_vocab_size)) {
    throw new CheckpointError(`${file.file}: num_images is ${config.num_images}; expected 1 to ${config.modality_type_vocab_size - 1}, one less than modality_type_vocab_size`, {
      file: file.file,
      field: 'num_images',
    })
  }
  const names = labelNames(config)
  const joint = new Vilt(scope, config, squarePatch(file.file, config.patch_size, config.image_size), kind, names.length)
  if (kind === 'retrieval') return { joint, matching: { output: 'logits', column: 0, kind: 'logit' } }
  return { joint, ...(kind === 'question' || kind === 'pictures' || kind === 'tokens' ? { labels: names } : {}) }
}
