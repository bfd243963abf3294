// open_clip's models (Ilharco et al., 2021) by their own names and open_clip_config.json: a picture tower of its own form or a trunk of timm's, a causal
// or a bidirectional text tower or one of Hugging Face's, both projected into one space; CoCa's (arXiv:2205.01917), which pool pictures by attention
// and texts by a token at their end. Outputs have the names of CLIPModel's.

import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import { parameter, type Value } from '../core/value.js'
import { TEXT_CLEANINGS } from '../data/text-cleaning.js'
import type { Checkpoint } from '../io/checkpoint.js'
import { type Activation, AttentionPool, type BlockOptions, Embedding, hiddenStates, LayerNorm, Linear, PatchEmbed, type PixelScale, type Scope, TransformerBlock } from '../nn/index.js'
import { gather, pickToken, pool } from '../ops/index.js'
import { buildModifiedResNet, REDUCTION } from './clip-resnet.js'
import { checkHeads, type Config, type ConfigFile, epsilon, flag, headCount, integer, layerCount, readConfig, sides, squarePatch, tableRows, width } from './config.js'
import type { Architecture, ImageTower, PaddedTexts, TextTower, TokenInputs, Traced } from './encoder.js'
import { type EndTokenParts, EndTokenText } from './end-token-text.js'
import { buildHuggingFaceText, checkUnprojected, hasHuggingFaceText, huggingFaceTextConfig } from './open-clip-text.js'
import { projectedImages, projectedTexts } from './projected.js'
import { buildTimmViT, hasTimmNames, timmConfig } from './timm-vit.js'

const ratio = () => v.nullish(v.pipe(v.number('a number above 0'), v.gtValue(0, 'a number above 0'), v.maxValue(64, 'a number up to 64')), 4)
const towerFields = {
  width: v.nullish(width()),
  mlp_ratio: ratio(),
  norm_kwargs: v.nullish(v.object({ eps: epsilon(1e-5) }, 'an object')),
  act_kwargs: v.nullish(v.object({ approximate: v.nullish(v.string('a name')) }, 'an object')),
}
const visionSchema = v.object({
  ...towerFields,
  layers: v.nullish(layerCount(), 12),
  head_width: v.nullish(width(), 64),
  patch_size: v.nullish(sides(1024), 16),
  image_size: v.nullish(sides(16384), 224),
  pool_type: v.nullish(v.picklist(['tok', 'avg'], "'tok' or 'avg'"), 'tok'),
  final_ln_after_pool: flag(false),
  attentional_pool: flag(false),
  attn_pooler_queries: v.nullish(tableRows(), 256),
  attn_pooler_heads: v.nullish(headCount(), 8),
})
const convolutionalSchema = v.looseObject({ width: v.nullish(width(), 768), head_width: v.nullish(width(), 64), image_size: v.nullish(v.unknown(), 224) })
const trunkSchema = v.object({
  timm_model_name: v.string('a name'),
  timm_pool: v.nullish(v.string('a name'), 'avg'),
  timm_proj: v.optional(v.nullable(v.picklist(['linear', 'mlp', 'none', ''], "'linear', 'mlp' or 'none'")), 'linear'), // null: none
  timm_proj_bias: flag(false),
  image_size: v.nullish(sides(16384), 224),
})
const textSchema = v.object({
  ...towerFields,
  context_length: v.nullish(tableRows(), 77),
  vocab_size: v.nullish(tableRows(), 49408),
  heads: v.nullish(headCount(), 8),
  layers: v.nullish(layerCount(), 12),
  pad_id: v.nullish(integer(0, 10_000_000), 0),
  eos_id: v.nullish(integer(0, 10_000_000), 2),
  no_causal_mask: flag(false),
  pool_type: v.nullish(v.picklist(['argmax', 'eos', 'last'], "'argmax', 'eos' or 'last'"), 'argmax'),
  embed_cls: flag(false),
})
const tokenizerSchema = v.object({
  hf_tokenizer_name: v.nullish(v.string('a name')),
  context_length: v.nullish(tableRows(), 77),
  tokenizer_kwargs: v.nullish(v.object({ clean: v.nullish(v.picklist(TEXT_CLEANINGS, `one of ${TEXT_CLEANINGS.join(', ')}`)), strip_sep_token: flag(false) }, 'an object')),
})
const jointSchema = v.object({ embed_dim: width(), quick_gelu: flag(false), custom_text: flag(false) })

/** Settings that change what is computed and are not there; each with the values that leave it harmless. */
const NOT_THERE: Readonly<Record<string, readonly unknown[]>> = {
  ...Object.fromEntries(['qk_norm', 'scaled_cosine_attn', 'scale_heads', 'scale_attn_inner', 'scale_attn', 'scale_fc'].map(name => [name, [false]])),
  block_type: ['default'],
}

const BLOCK_NAMES: BlockOptions['names'] = {
  norm1: 'ln_1',
  attention: { fused: 'attn', fusedNames: { weight: 'in_proj_weight', bias: 'in_proj_bias' }, out: 'attn.out_proj' },
  norm2: 'ln_2',
  mlp: { in: 'mlp.c_fc', out: 'mlp.c_proj' },
}

type Tower = { width: number; heads: number; layers: number; mlp_ratio: number; activation: Activation; eps: number; causal: boolean }

function makeLayers(scope: Scope, { width, heads, layers, mlp_ratio, activation, eps, causal }: Tower): TransformerBlock[] {
  return Array.from({ length: layers }, (_, i) => {
    const at = scope.at('resblocks', i)
    return new TransformerBlock(at, {
      ...{ order: 'pre', width, heads, hidden: Math.trunc(width * mlp_ratio), activation, eps, causal, names: BLOCK_NAMES },
      ...(at.has('ls_1.gamma') && { layerScale: ['ls_1.gamma', 'ls_2.gamma'] as const }),
    })
  })
}

function activationOf(quickGelu: boolean, kwargs: { approximate?: string | null | undefined } | null | undefined): Activation {
  return quickGelu ? 'quick_gelu' : kwargs?.approximate === 'tanh' ? 'gelu_tanh' : 'gelu'
}

/** A projection by its name: a matrix [in, out], or a layer. Undefined if there is none. */
function projection(scope: Scope, name: string, inputs: number, outputs: number): Linear | undefined {
  if (scope.has(`${name}.weight`)) return new Linear(scope.at(name), inputs, outputs, { bias: scope.has(`${name}.bias`) })
  return scope.has(name) ? new Linear(scope, inputs, outputs, { bias: false, transposed: true, names: { weight: name, bias: '' } }) : undefined
}

class OpenClipVision implements ImageTower {
  readonly prefix = ''
  readonly absent = {}
  readonly imageSize
  private readonly tokens: number
  private readonly embeddings: PatchEmbed
  private readonly preNorm?: LayerNorm
  private readonly layers: TransformerBlock[]
  private readonly postNorm: LayerNorm
  private readonly attentionPool?: AttentionPool

  /** @param embed features that attention pools to, where it does */
  constructor(
    scope: Scope,
    private readonly config: v.InferOutput<typeof visionSchema>,
    tower: Tower,
    patch: number,
    embed: number,
  ) {
    const { width, eps } = tower
    this.imageSize = config.image_size
    this.tokens = Math.floor(this.imageSize.height / patch) * Math.floor(this.imageSize.width / patch) + 1
    const names = { weight: 'conv1.weight', classToken: 'class_embedding', positions: 'positional_embedding' }
    this.embeddings = new PatchEmbed(scope, { width, patch, tokens: this.tokens, names })
    if (scope.has('ln_pre.weight')) this.preNorm = new LayerNorm(scope.at('ln_pre'), width, eps)
    this.layers = makeLayers(scope.at('transformer'), tower)
    this.postNorm = new LayerNorm(scope.at('ln_post'), config.attentional_pool ? embed : width, eps)
    if (!config.attentional_pool) return
    // The first query stands for the picture, and the others for a decoder; or their mean does.
    const { attn_pooler_queries: stored, attn_pooler_heads: heads, pool_type } = config
    this.attentionPool = new AttentionPool(scope.at('attn_pool'), {
      ...{ width: embed, contextWidth: width, heads, queries: pool_type === 'tok' ? 1 : stored, storedQueries: stored },
      names: { queries: 'query', attention: 'attn', queryNorm: 'ln_q', keyNorm: 'ln_k' },
    })
  }

  trace(pixels: Value, scale: PixelScale): Traced {
    const length = this.tokens
    const { pool_type: way, final_ln_after_pool: after } = this.config
    const embedded = this.embeddings.forward(pixels, scale)
    const states = hiddenStates(this.layers, this.preNorm?.forward(embedded, { dtype: 'float32' }) ?? embedded, { length })
    const stream = states.at(-1)!
    if (this.attentionPool) {
      const seen = this.postNorm.forward(this.attentionPool.forward(stream, { length }), { dtype: 'float32' })
      const pooled = way === 'tok' ? seen : pool(seen, { mode: 'mean', skip: 1, length: this.config.attn_pooler_queries, dtype: 'float32' })
      return { outputs: { pooler_output: pooled }, hiddenStates: states, embedding: pooled }
    }
    const last = after ? stream : this.postNorm.forward(stream, { dtype: 'float32' })
    const one = way === 'tok' ? pickToken(last, { which: 'first', length }) : pool(last, { mode: 'mean', skip: 1, length, dtype: 'float32' })
    const pooled = after ? this.postNorm.forward(one, { dtype: 'float32' }) : one
    return { outputs: { last_hidden_state: last, pooler_output: pooled }, hiddenStates: states, embedding: pooled }
  }
}

class OpenClipText extends EndTokenText {
  readonly pad?: { id: number; length: number }

  constructor(
    scope: Scope,
    private readonly config: v.InferOutput<typeof textSchema>,
    tower: Tower,
  ) {
    const { vocab_size: vocabulary, context_length: positions, pool_type, pad_id: id } = config
    const words = new Embedding(scope.at('token_embedding'), vocabulary, tower.width)
    super({ ...{ vocabulary, positions, words }, ...textParts(scope, positions, tower) })
    // Trained on full rows: the last column, and where all see all, is of a text with its padding.
    if (pool_type === 'last') this.pad = { id, length: positions }
  }

  override endOf(ids: Int32Array): number {
    const { pool_type: way, eos_id } = this.config
    if (way === 'last') return ids.length - 1
    return Math.max(0, ids.indexOf(way === 'eos' ? eos_id : ids.reduce((most, id) => Math.max(most, id))))
  }
}

function textParts(scope: Scope, positions: number, tower: Tower): Pick<EndTokenParts, 'places' | 'layers' | 'norm'> {
  const { width, eps } = tower
  return {
    places: new Embedding(scope, positions, width, 'positional_embedding'),
    layers: makeLayers(scope.at('transformer'), tower),
    norm: new LayerNorm(scope.at('ln_final'), width, eps),
  }
}

/**
 * CoCa's texts: a token of its own at the end of a row stands for the text. What the published weights were trained with: a column is seen if the one
 * before it is no padding, so that the first padding is, and the token itself only where the text fills its row.
 */
class CocaText extends EndTokenText {
  override readonly takesPositionIds = false
  readonly readsMaskedEnd = true
  readonly lastApart: boolean
  readonly pad: { id: number; length: number }
  readonly padded: PaddedTexts

  constructor(scope: Scope, { vocab_size, context_length, pad_id: id }: v.InferOutput<typeof textSchema>, tower: Tower) {
    const { width } = tower
    const table = scope.parameter('token_embedding.weight and cls_emb', [vocab_size + 1, width], {
      dtype: scope.computeType,
      derived: {
        from: [
          { name: scope.nameOf('token_embedding.weight'), shape: [vocab_size, width] },
          { name: scope.nameOf('cls_emb'), shape: [width] },
        ],
        compute: ([words, own]) => {
          const all = new Float32Array((vocab_size + 1) * width)
          all.set(words!)
          all.set(own!, vocab_size * width)
          return all
        },
      },
    })
    const positions = context_length + 1
    super({
      ...{ vocabulary: vocab_size, positions, maxLength: context_length },
      words: { forward: ids => gather(parameter(table), ids, { dtype: 'float32' }) },
      ...textParts(scope, positions, tower),
    })
    this.lastApart = tower.causal
    this.pad = { id, length: context_length }
    this.padded = {
      id,
      read: ids => ({ ids: Int32Array.of(...ids, vocab_size), mask: Int32Array.from({ length: ids.length + 1 }, (_, i) => (i === 0 || ids[i - 1] !== id ? 1 : 0)) }),
    }
  }

  override endOf(ids: Int32Array): number {
    return ids.length - 1
  }

  /** The text's states are a decoder's, of captions. */
  override trace(tokens: TokenInputs): Traced {
    const { embedding } = super.trace(tokens)
    return { outputs: { pooler_output: embedding }, hiddenStates: [], embedding }
  }
}

/** Whether a folder's tensors are open_clip's. */
export function hasOpenClipNames(checkpoint: Checkpoint): boolean {
  return hasHuggingFaceText(checkpoint) || ['', 'text.'].some(path => checkpoint.tensors.has(`${path}positional_embedding`)) || [...checkpoint.tensors.keys()].some(name => name.startsWith('visual.trunk.'))
}

/**
 * What the registry builds of an open_clip_config.json.
 * @param beside the folder's config.json, which may be that of a text encoder
 * @throws CheckpointError for a file without model_cfg; UnsupportedError for a trunk that is no vision transformer
 */
export function openClipConfig(checkpoint: Checkpoint, json: Config, file: string, beside: Config): Config {
  const given = json['model_cfg']
  if (given === null || typeof given !== 'object' || Array.isArray(given)) throw new CheckpointError(`${file}: model_cfg is missing; expected an object`, { file, field: 'model_cfg' })
  const { vision_cfg: vision, text_cfg: text } = given as Record<'vision_cfg' | 'text_cfg', Record<string, unknown> | null | undefined>
  const encoder = text?.['hf_model_name']
  const model = { ...given, ...(encoder != null && { text_encoder: huggingFaceTextConfig(checkpoint, beside, String(encoder), file) }) }
  if (typeof vision?.['timm_model_name'] !== 'string') return { ...model, model_type: 'open_clip' }
  const trunk = readConfig(trunkSchema, { json: model as Config, file }, 'vision_cfg')
  if (!hasTimmNames(checkpoint, 'visual.trunk.')) {
    throw new UnsupportedError(`${file}: vision_cfg.timm_model_name is '${trunk.timm_model_name}', which is no vision transformer of timm's; others are not supported`, { file, field: 'vision_cfg.timm_model_name' })
  }
  const { height, width } = trunk.image_size
  const timm = timmConfig(checkpoint, { architecture: trunk.timm_model_name, global_pool: trunk.timm_pool, pretrained_cfg: { input_size: [3, height, width] } }, file, 'visual.trunk.')
  return { ...model, model_type: 'open_clip', timm }
}

function refuse({ file, json }: ConfigFile, section: string): void {
  const given = (json[section] ?? {}) as Record<string, unknown>
  for (const [field, harmless] of Object.entries(NOT_THERE)) {
    if (given[field] == null || harmless.includes(given[field])) continue
    throw new UnsupportedError(`${file}: ${section}.${field} is ${JSON.stringify(given[field])}, which is not supported`, { file, field: `${section}.${field}` })
  }
}

/** Layers of four stages are a ResNet's. */
function isConvolutional(json: Config): boolean {
  return Array.isArray((json['vision_cfg'] as Config | null | undefined)?.['layers'])
}

/** OpenAI's convolutional tower, whose last layer projects. */
function buildConvolutional(file: ConfigFile, scope: Scope, embed: number): ImageTower {
  const config = readConfig(convolutionalSchema, file, 'vision_cfg')
  const heads = Math.floor((config.width * REDUCTION) / config.head_width)
  return projectedImages(buildModifiedResNet({ ...file, json: { vision_cfg: { ...config, heads, projection_dim: embed } } }, scope, 'vision_cfg'))
}

function buildImages(file: ConfigFile, scope: Scope, embed: number, quickGelu: boolean): ImageTower {
  if (file.json['timm'] !== undefined) {
    const { timm_proj: way, timm_proj_bias: bias } = readConfig(trunkSchema, file, 'vision_cfg')
    const images = buildTimmViT(file, scope.at('trunk')).images!
    const head = scope.at('head')
    const width = (file.json['timm'] as { width: number }).width
    const pooled = (traced: Traced) => traced.outputs['logits'] ?? traced.outputs['pooler_output']!
    if (way === 'linear') return projectedImages(images, { pooled, projection: new Linear(head.at('proj'), width, embed, { bias }) })
    if (way !== 'mlp') {
      checkUnprojected(file, 'vision_cfg.timm_proj', head, ['proj.weight', 'mlp.fc1.weight'])
      return projectedImages(images, { pooled })
    }
    const first = new Linear(head.at('mlp.fc1'), width, 2 * embed)
    const projection = new Linear(head.at('mlp.fc2'), 2 * embed, embed, { bias })
    return projectedImages(images, { pooled: traced => first.forward(pooled(traced), { activation: 'gelu', dtype: 'float32' }), projection })
  }
  if (isConvolutional(file.json)) return buildConvolutional(file, scope, embed)
  refuse(file, 'vision_cfg')
  const config = readConfig(visionSchema, file, 'vision_cfg')
  const { head_width } = config
  const features = config.width ?? 768
  checkHeads(file.file, 'vision_cfg.head_width', Math.max(1, Math.floor(features / head_width)), features)
  const { layers, mlp_ratio } = config
  const tower = { width: features, heads: Math.max(1, Math.floor(features / head_width)), layers, mlp_ratio, causal: false }
  const whole = { ...tower, activation: activationOf(quickGelu, config.act_kwargs), eps: config.norm_kwargs?.eps ?? 1e-5 }
  const images = new OpenClipVision(scope, config, whole, squarePatch(file.file, config.patch_size, config.image_size), embed)
  return projectedImages(images, { projection: projection(scope, 'proj', config.attentional_pool ? embed : features, embed) })
}

function buildTexts(file: ConfigFile, scope: Scope, embed: number, quickGelu: boolean): TextTower {
  const encoder = file.json['text_encoder']
  if (encoder !== undefined) return buildHuggingFaceText(file, encoder as Config, scope, embed)
  refuse(file, 'text_cfg')
  const config = readConfig(textSchema, file, 'text_cfg')
  const features = config.width ?? 512
  checkHeads(file.file, 'text_cfg.heads', config.heads, features)
  if (config.no_causal_mask && config.pool_type !== 'last' && !config.embed_cls) {
    throw new UnsupportedError(`${file.file}: text_cfg.pool_type is '${config.pool_type}' without a causal mask, which is not supported`, { file: file.file, field: 'text_cfg.pool_type' })
  }
  const { heads, layers, mlp_ratio } = config
  const tower = { width: features, heads, layers, mlp_ratio, causal: !config.no_causal_mask }
  const whole = { ...tower, activation: activationOf(quickGelu, config.act_kwargs), eps: config.norm_kwargs?.eps ?? 1e-5 }
  const texts = config.embed_cls ? new CocaText(scope, config, whole) : new OpenClipText(scope, config, whole)
  return projectedTexts(texts, { projection: projection(scope, 'text_projection', features, embed), readsFirst: false })
}

export function buildOpenClip(file: ConfigFile, scope: Scope): Architecture {
  const { embed_dim, quick_gelu } = readConfig(jointSchema, file)
  const text = file.json['text_encoder'] !== undefined ? scope.at('text') : scope.firstWith('token_embedding.weight', ['text', ''])
  const { hf_tokenizer_name, context_length, tokenizer_kwargs } = readConfig(tokenizerSchema, file, 'text_cfg')
  return {
    // Its wrapper of Hugging Face's tokenizers cleans what they are given.
    ...(hf_tokenizer_name != null && { sentence: { maxLength: context_length, lowercase: false, poolsPrompt: true, cleaning: tokenizer_kwargs?.clean ?? 'whitespace', withoutSeparator: tokenizer_kwargs?.strip_sep_token ?? false } }),
    images: buildImages(file, scope.at('visual'), embed_dim, quick_gelu),
    texts: buildTexts(file, text, embed_dim, quick_gelu),
    logitScale: scope.parameter('logit_scale', []),
    ...(scope.has('logit_bias') && { logitBias: scope.parameter('logit_bias', []) }),
  }
}
