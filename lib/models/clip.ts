// CLIP (Radford et al., arXiv:2103.00020): a picture tower and a causal text tower, both pre-norm, projected into one space.
// A text is read at its end token: the largest id where config.json is old (eos_token_id 2, which is no token of CLIP's), else the
// first eos_token_id. CLIPModel, each tower alone with or without its projection, and CLIPForImageClassification, which reads the mean of the patches.

import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import type { Value } from '../core/value.js'
import { Embedding, hiddenStates, LayerNorm, Linear, PatchEmbed, type PixelScale, type Scope, TransformerBlock } from '../nn/index.js'
import { l2Normalize, pickToken, pool } from '../ops/index.js'
import { buildModifiedResNet, MODIFIED_RESNET } from './clip-resnet.js'
import { activation, checkHeads, type ConfigFile, epsilon, headCount, integer, labelNames, labels, layerCount, readConfig, savesDifferencesOnly, sectionOf, sides, squarePatch, tableRows, threeChannels, width, withOlderSpelling } from './config.js'
import type { Architecture, ImageTower, TextTower, TokenInputs, Traced } from './encoder.js'
import { EndTokenText } from './end-token-text.js'
import { projectedImages } from './projected.js'

// Some releases of the reference library save of a tower's configuration only what differs from the class's defaults.
const towerFields = {
  hidden_size: v.nullish(width()),
  intermediate_size: v.nullish(width()),
  num_attention_heads: v.nullish(headCount()),
  num_hidden_layers: v.nullish(layerCount()),
  projection_dim: v.nullish(width(), 512),
  hidden_act: activation('quick_gelu'),
  layer_norm_eps: epsilon(1e-5),
}
const visionSchema = v.object({
  ...towerFields,
  image_size: v.nullish(sides(16384), 224),
  patch_size: v.nullish(sides(1024), 32),
  num_channels: threeChannels(),
})
const textSchema = v.object({
  ...towerFields,
  vocab_size: v.nullish(tableRows(), 49408),
  max_position_embeddings: v.nullish(tableRows(), 77),
  eos_token_id: v.nullish(integer(0, 10_000_000)),
})
const jointSchema = v.object({ projection_dim: v.nullish(width(), 512) })

interface TowerSizes {
  hidden_size: number
  intermediate_size: number
  num_attention_heads: number
}
type TowerConfig<S extends v.GenericSchema> = Omit<v.InferOutput<S>, keyof TowerSizes> & TowerSizes

/** Sizes that only the configuration knows; see savesDifferencesOnly. */
function readTower<S extends typeof visionSchema | typeof textSchema>(schema: S, file: ConfigFile, section: string | undefined, defaults: TowerSizes): TowerConfig<S> {
  const config = readConfig(schema, withOlderSpelling(file, section, defaults), section)
  const fields = Object.keys(defaults) as (keyof TowerSizes)[]
  const given = fields.filter(field => config[field] != null)
  const path = (field: string) => (section === undefined ? field : `${section}.${field}`)
  const complete = given.length === 0 || given.length === fields.length
  if (!complete && (section === undefined || !savesDifferencesOnly(file))) {
    const field = path(fields.find(name => !given.includes(name))!)
    throw new CheckpointError(`${file.file}: ${field} is missing; expected it beside ${path(given[0]!)}`, { file: file.file, field })
  }
  const sizes = { ...defaults, ...Object.fromEntries(given.map(field => [field, config[field]])) }
  checkHeads(file.file, path('num_attention_heads'), sizes.num_attention_heads, sizes.hidden_size)
  return { ...config, ...sizes } as TowerConfig<S>
}

const BLOCK_NAMES = {
  norm1: 'layer_norm1',
  attention: { query: 'self_attn.q_proj', key: 'self_attn.k_proj', value: 'self_attn.v_proj', out: 'self_attn.out_proj' },
  norm2: 'layer_norm2',
  mlp: { in: 'mlp.fc1', out: 'mlp.fc2' },
}

const DEFAULT_LAYERS = 12

function makeLayers(scope: Scope, config: TowerConfig<typeof visionSchema | typeof textSchema>, causal: boolean): TransformerBlock[] {
  const length = config.num_hidden_layers ?? DEFAULT_LAYERS
  if (config.num_hidden_layers == null && scope.has(`encoder.layers.${DEFAULT_LAYERS}.layer_norm1.weight`)) {
    throw new CheckpointError(`num_hidden_layers of ${scope.path} is missing, and the weights have more than the usual ${DEFAULT_LAYERS} layers`, { field: 'num_hidden_layers' })
  }
  const options = {
    order: 'pre' as const,
    width: config.hidden_size,
    heads: config.num_attention_heads,
    hidden: config.intermediate_size,
    activation: config.hidden_act,
    eps: config.layer_norm_eps,
    causal,
    names: BLOCK_NAMES,
  }
  return Array.from({ length }, (_, i) => new TransformerBlock(scope.at('encoder.layers', i), options))
}

/** Where a tower stands: in a CLIPModel its outputs are prefixed and its embedding is normalised; alone, neither. */
export interface Place {
  joint: boolean
  /** Width of the projection; 0: there is none. */
  projection: number
}

/** A tower without projection is saved with its name before it by transformers 4, without by 5. */
function towerScope(root: Scope, name: string, probe: string, place: Place): Scope {
  return place.joint || place.projection > 0 ? root.at(name) : root.firstWith(probe, [name, ''])
}

class ClipVision implements ImageTower {
  readonly prefix: string
  readonly absent = {}
  readonly imageSize
  private readonly tokens: number
  private readonly embeddings: PatchEmbed
  private readonly preNorm: LayerNorm
  private readonly layers: TransformerBlock[]
  private readonly postNorm: LayerNorm
  private readonly projection?: Linear

  constructor(
    root: Scope,
    config: TowerConfig<typeof visionSchema>,
    patch: number,
    private readonly place: Place,
    private readonly classifier?: Linear,
  ) {
    this.prefix = place.joint ? 'vision_' : ''
    this.imageSize = config.image_size
    const scope = towerScope(root, 'vision_model', 'embeddings.class_embedding', place)
    const { hidden_size: width, layer_norm_eps: eps } = config
    this.tokens = Math.floor(this.imageSize.height / patch) * Math.floor(this.imageSize.width / patch) + 1
    this.embeddings = new PatchEmbed(scope.at('embeddings'), {
      width,
      patch,
      tokens: this.tokens,
      names: { weight: 'patch_embedding.weight', classToken: 'class_embedding', positions: 'position_embedding.weight' },
    })
    this.preNorm = new LayerNorm(scope.at('pre_layrnorm'), width, eps) // the reference's spelling
    this.layers = makeLayers(scope, config, false)
    this.postNorm = new LayerNorm(scope.at('post_layernorm'), width, eps)
    if (place.projection > 0) this.projection = new Linear(root.at('visual_projection'), width, place.projection, { bias: false })
  }

  trace(pixels: Value, scale: PixelScale): Traced {
    const embedded = this.preNorm.forward(this.embeddings.forward(pixels, scale), { dtype: 'float32' })
    const states = hiddenStates(this.layers, embedded, { length: this.tokens })
    const last = states.at(-1)!
    const pooled = this.postNorm.forward(pickToken(last, { which: 'first', length: this.tokens }), { dtype: 'float32' })
    const logits = () => this.classifier!.forward(pool(last, { mode: 'mean', skip: 1, length: this.tokens, dtype: 'float32' }), { dtype: 'float32' })
    const outputs = { [`${this.prefix}last_hidden_state`]: last, [`${this.prefix}pooler_output`]: pooled, ...(this.classifier && { logits: logits() }) }
    return { ...projected('image_embeds', outputs, pooled, this.projection, this.place), hiddenStates: states }
  }
}

/** The default of eos_token_id, which transformers leaves out when it saves. */
const END_TOKEN = 49407
/** An eos_token_id of old configurations, where the end is the largest id of a text. */
const LARGEST = 2

class ClipText extends EndTokenText {
  override readonly prefix: string
  private readonly endToken: number
  private readonly projection?: Linear

  constructor(
    root: Scope,
    config: TowerConfig<typeof textSchema>,
    private readonly place: Place,
  ) {
    const scope = towerScope(root, 'text_model', 'embeddings.token_embedding.weight', place)
    const { hidden_size: width, vocab_size: vocabulary, max_position_embeddings: positions } = config
    super({
      ...{ vocabulary, positions },
      words: new Embedding(scope.at('embeddings.token_embedding'), vocabulary, width),
      places: new Embedding(scope.at('embeddings.position_embedding'), positions, width),
      layers: makeLayers(scope, config, true),
      norm: new LayerNorm(scope.at('final_layer_norm'), width, config.layer_norm_eps),
    })
    this.prefix = place.joint ? 'text_' : ''
    this.endToken = config.eos_token_id ?? (vocabulary > END_TOKEN ? END_TOKEN : LARGEST)
    if (place.projection > 0) this.projection = new Linear(root.at('text_projection'), width, place.projection, { bias: false })
  }

  override endOf(ids: Int32Array): number {
    if (this.endToken !== LARGEST) return Math.max(0, ids.indexOf(this.endToken))
    let end = 0
    for (let i = 1; i < ids.length; i++) if (ids[i]! > ids[end]!) end = i
    return end
  }

  override trace(tokens: TokenInputs): Traced {
    const { outputs, hiddenStates, embedding } = super.trace(tokens)
    const prefixed = { [`${this.prefix}last_hidden_state`]: outputs['last_hidden_state']!, [`${this.prefix}pooler_output`]: embedding }
    return { ...projected('text_embeds', prefixed, embedding, this.projection, this.place), hiddenStates }
  }
}

/** Adds the projected embedding. Normalised in a CLIPModel; a tower alone gives it as it is, as the reference does. */
function projected(name: string, tokens: Record<string, Value>, pooled: Value, projection: Linear | undefined, place: Place): Omit<Traced, 'hiddenStates'> {
  if (!projection) return { outputs: tokens, embedding: pooled }
  const embedding = projection.forward(pooled, { dtype: 'float32' })
  const embeds = place.joint ? l2Normalize(embedding, { dtype: 'float32' }) : embedding
  return { outputs: { ...tokens, [name]: embeds, [`${name}_unnormalized`]: embedding }, embedding }
}

const VISION_DEFAULTS: TowerSizes = { hidden_size: 768, intermediate_size: 3072, num_attention_heads: 12 }
const TEXT_DEFAULTS: TowerSizes = { hidden_size: 512, intermediate_size: 2048, num_attention_heads: 8 }

/**
 * CLIP's picture tower, also of its relatives.
 * @param section of config.json that describes it; undefined: all of it
 * @param classes how many the checkpoint's `classifier` tells apart, if it has one
 */
export function buildClipVision(file: ConfigFile, scope: Scope, section: string | undefined, place: Place, classes?: number): ImageTower {
  const config = readTower(visionSchema, file, section, VISION_DEFAULTS)
  const classifier = classes === undefined ? undefined : new Linear(scope.at('classifier'), config.hidden_size, classes)
  return new ClipVision(scope, config, squarePatch(file.file, config.patch_size, config.image_size), place, classifier)
}

function buildText(file: ConfigFile, scope: Scope, section: string | undefined, place: Place): TextTower {
  return new ClipText(scope, readTower(textSchema, file, section, TEXT_DEFAULTS), place)
}

/** @param architecture the reference's class, say 'CLIPVisionModelWithProjection' */
export function buildClip(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  const { projection_dim } = readConfig(jointSchema, file)
  const alone = /^CLIP(Vision|Text)Model(WithProjection)?$/.exec(architecture)
  if (alone) {
    const section = (name: string) => sectionOf(file, 'clip', name)
    const place = { joint: false, projection: alone[2] ? projection_dim : 0 }
    if (alone[1] === 'Vision') return { images: buildClipVision(file, scope, section('vision_config'), place) }
    return { texts: buildText(file, scope, section('text_config'), place) }
  }
  if (architecture === 'CLIPForImageClassification') {
    const names = labelNames(readConfig(v.object(labels), file))
    return { images: buildClipVision(file, scope, 'vision_config', { joint: false, projection: 0 }, names.length), labels: names }
  }
  if (architecture !== 'CLIPModel') {
    throw new UnsupportedError(`${file.file}: ${architecture} is not supported; of CLIP there are CLIPModel, its towers alone and CLIPForImageClassification`, {
      file: file.file,
      field: 'architectures',
    })
  }
  const place = { joint: true, projection: projection_dim }
  const vision = file.json['vision_config'] as { model_type?: unknown } | null | undefined
  return {
    images:
      vision?.model_type === MODIFIED_RESNET ? projectedImages(buildModifiedResNet(file, scope.at('visual'), 'vision_config')) : buildClipVision(file, scope, 'vision_config', place),
    texts: buildText(file, scope, 'text_config', place),
    logitScale: scope.parameter('logit_scale', []),
  }
}
