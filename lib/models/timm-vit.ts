// Vision transformers with timm's tensor names (pytorch-image-models, VisionTransformer): plain ones, CLIP's and SigLIP's trunks, DINOv2's with LayerScale
// and registers, DeiT's with a distillation token. timm's config.json names an architecture and no sizes, so these are read from the tensors' shapes; what no shape tells (heads,
// activations) follows the architecture's name, unless `model_args` says it.

import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { constant, type Parameter, parameter, type Value } from '../core/value.js'
import type { Checkpoint } from '../io/checkpoint.js'
import { type Activation, hiddenStates, LayerNorm, Linear, Mlp, PatchEmbed, type PixelScale, type Scope, TransformerBlock } from '../nn/index.js'
import { add, attention, columns, mul, pickToken, pool, prependRows, repeatRows, reshape } from '../ops/index.js'
import { type Config, type ConfigFile, headCount, integer, layerCount, placesBelow, readConfig, width } from './config.js'
import type { Architecture, ImageTower, Traced } from './encoder.js'

const POOLINGS = ['token', 'avg', 'max', 'avgmax', 'map'] as const
type Pool = (typeof POOLINGS)[number]

const side = () => integer(1, 16384)
const schema = v.object({
  width: width(),
  layers: layerCount(),
  heads: headCount(),
  hidden: width(),
  gated: v.boolean(),
  activation: v.string() as unknown as v.GenericSchema<Activation>,
  eps: v.number(),
  patch: integer(1, 1024),
  image: v.object({ height: side(), width: side() }),
  class_token: v.boolean(),
  /** A second class token, behind the first: either has a classifier of its own, and their mean counts. */
  distilled: v.boolean(),
  /** Each head's queries and keys are normalised. */
  head_norm: v.boolean(),
  registers: integer(0, 1000),
  placed_prefix: v.boolean(),
  pool: v.string() as unknown as v.GenericSchema<Pool>,
  classes: integer(0, 1_000_000),
})
/** What `timmConfig` makes. */
type TimmConfig = v.InferOutput<typeof schema>

/** Whether the tensors below `path` are those of a timm vision transformer. */
export function hasTimmNames(checkpoint: Checkpoint, path = ''): boolean {
  return ['patch_embed.proj.weight', 'pos_embed', 'blocks.0.attn.qkv.weight'].every(name => checkpoint.tensors.has(path + name))
}

/** The tensors that are known here; any other is of a variant. */
const KNOWN = [
  /^(cls_token|dist_token|reg_token|pos_embed|(patch_embed\.proj|norm_pre|norm|fc_norm|head|head_dist)\.(weight|bias))$/,
  /^attn_pool\.(latent|(q|kv|proj|norm|mlp\.fc[12])\.(weight|bias))$/,
  /^blocks\.\d+\.(((norm[12]|attn\.(qkv|proj|[qk]_norm)|mlp\.fc[12])\.(weight|bias))|ls[12]\.gamma)$/,
]
/** Architectures that compute something else with the same tensors: norms behind the layers, rotary positions, other pooling or norms. */
const OTHER_WAYS = /_rpn_|rope|_pe_(core|spatial|lang)_|dinov3|^test_vit[34]/

/** `model_args` that the tensors' shapes tell, or that only matter for training; null and false mean nothing. */
const HARMLESS = new Set([
  ...['img_size', 'patch_size', 'in_chans', 'num_classes', 'global_pool', 'embed_dim', 'depth', 'num_heads', 'mlp_ratio', 'qkv_bias', 'qk_norm', 'proj_bias', 'init_values', 'act_layer'],
  ...['class_token', 'pos_embed', 'no_embed_class', 'reg_tokens', 'pre_norm', 'final_norm', 'fc_norm', 'dynamic_img_size', 'dynamic_img_pad', 'strict_img_size', 'weight_init', 'fix_init'],
  ...['drop_rate', 'pos_drop_rate', 'patch_drop_rate', 'proj_drop_rate', 'attn_drop_rate', 'drop_path_rate', 'pretrained', 'features_only', 'scriptable', 'exportable'],
])
/** timm's names of activations. */
const ACTIVATIONS: Readonly<Record<string, Activation>> = { gelu: 'gelu', gelu_tanh: 'gelu_tanh', quick_gelu: 'quick_gelu', quickgelu: 'quick_gelu', relu: 'relu', silu: 'silu', swish: 'silu', tanh: 'tanh' }

/**
 * Sizes and settings of a timm vision transformer.
 * @param json timm's config.json, or what else says `architecture`, `global_pool`, `model_args` and `pretrained_cfg.input_size`
 * @param path of its tensors, ending with a dot; '' at the root
 * @throws CheckpointError for a tensor that is missing or misshapen, UnsupportedError for a variant that is not there
 */
export function timmConfig(checkpoint: Checkpoint, json: Config, file: string, path = ''): TimmConfig {
  const shape = (name: string): readonly number[] => {
    const entry = checkpoint.tensors.get(path + name)
    if (!entry) throw new CheckpointError(`${checkpoint.folder} does not have the tensor ${path}${name}, from which the model's sizes are read`, { file: checkpoint.folder, missing: [path + name] })
    return entry.shape
  }
  const has = (name: string) => checkpoint.tensors.has(path + name)
  const architecture = typeof json['architecture'] === 'string' ? json['architecture'] : ''
  const options = (json['model_args'] ?? {}) as Record<string, unknown>
  for (const name of checkpoint.tensors.keys()) {
    if (name.startsWith(path) && !KNOWN.some(pattern => pattern.test(name.slice(path.length)))) {
      throw new UnsupportedError(`${checkpoint.folder}: ${name} is of a variant of timm's vision transformer that is not supported`, { file: checkpoint.folder })
    }
  }
  if (OTHER_WAYS.test(architecture)) throw new UnsupportedError(`${file}: architecture '${architecture}' is not supported`, { file, field: 'architecture' })
  const unknown = Object.keys(options).find(name => !HARMLESS.has(name) && options[name] != null && options[name] !== false)
  if (unknown !== undefined) throw new UnsupportedError(`${file}: model_args.${unknown} is ${JSON.stringify(options[unknown])}, which is not supported`, { file, field: `model_args.${unknown}` })
  const [features = 0, channels = 0, patch = 0, across = 0] = shape('patch_embed.proj.weight')
  if (channels !== 3) {
    throw new UnsupportedError(`${checkpoint.folder}: ${path}patch_embed.proj.weight reads ${channels} channels; only pictures of 3 are supported`, { file: checkpoint.folder, mismatched: [`${path}patch_embed.proj.weight`] })
  }
  if (patch !== across) throw new UnsupportedError(`${file}: patches are ${patch} x ${across}; only square ones are supported`, { file, field: 'patch_size' })
  const layers = placesBelow(`${path}blocks.`, checkpoint.tensors)
  const classToken = has('cls_token')
  const registers = has('reg_token') ? (shape('reg_token').at(-2) ?? 0) : 0
  const distilled = has('dist_token')
  const prefix = (classToken ? 1 : 0) + (distilled ? 1 : 0) + registers
  const positions = shape('pos_embed').at(-2) ?? 0
  // Older files have all at the top.
  const size = ((json['pretrained_cfg'] ?? json) as { input_size?: unknown }).input_size
  const asked = options['img_size']
  const [top, side] = Array.isArray(asked) ? asked : typeof asked === 'number' ? [asked, asked] : Array.isArray(size) && size.length === 3 ? size.slice(1) : []
  const named = top === undefined ? undefined : { height: Number(top), width: Number(side) }
  const patchesOf = (image: { height: number; width: number }) => Math.floor(image.height / patch) * Math.floor(image.width / patch)
  const square = (patches: number) => ({ height: Math.round(Math.sqrt(patches)) * patch, width: Math.round(Math.sqrt(patches)) * patch })
  const fits = (image: { height: number; width: number } | undefined) => image !== undefined && [positions, positions - prefix].includes(patchesOf(image))
  const image = fits(named) ? named! : fits(square(positions - prefix)) ? square(positions - prefix) : square(positions)
  if (!fits(image)) throw new CheckpointError(`${checkpoint.folder}: ${path}pos_embed has ${positions} rows, which are no square of patches`, { file: checkpoint.folder, mismatched: [`${path}pos_embed`] })
  const [fc1 = 0] = shape('blocks.0.mlp.fc1.weight')
  const [, hidden = 0] = shape('blocks.0.mlp.fc2.weight')
  const gated = fc1 === 2 * hidden
  const [ofHead] = has('blocks.0.attn.q_norm.weight') ? shape('blocks.0.attn.q_norm.weight') : []
  const heads = typeof options['num_heads'] === 'number' ? options['num_heads'] : ofHead ? features / ofHead : headsOf(architecture, features)
  if (features % heads !== 0) {
    throw new CheckpointError(`${file}: ${heads} heads do not divide the width ${features}; expected model_args.num_heads`, { file, field: 'model_args.num_heads' })
  }
  const given = options['global_pool'] ?? json['global_pool']
  const inferred = has('attn_pool.latent') ? 'map' : has('fc_norm.weight') || !classToken ? 'avg' : 'token'
  const pooling = given == null || given === '' ? inferred : given
  const pool = distilled ? 'token' : POOLINGS.find(known => known === pooling)
  if (!pool) throw new UnsupportedError(`${file}: global_pool is ${JSON.stringify(pooling)}; ${POOLINGS.map(known => `'${known}'`).join(', ')} are supported`, { file, field: 'global_pool' })
  return {
    ...{ width: features, layers, heads, hidden, gated, patch, image, registers, class_token: classToken, distilled, head_norm: has('blocks.0.attn.q_norm.weight'), pool },
    activation: activationBy(options['act_layer'], file) ?? (gated ? 'silu' : activationOf(architecture)),
    eps: has('norm_pre.weight') ? 1e-5 : 1e-6,
    placed_prefix: prefix > 0 && patchesOf(image) === positions - prefix,
    classes: has('head.weight') ? (shape('head.weight')[0] ?? 0) : 0,
  }
}

function headsOf(architecture: string, width: number): number {
  if (architecture.startsWith('test_vit')) return 2
  const sixteen = [1152, 1280, 1408, 1664].includes(width) || /giantopt|base_patch16_gap_224/.test(architecture)
  return sixteen ? 16 : Math.max(1, Math.floor(width / 64))
}

function activationBy(name: unknown, file: string): Activation | undefined {
  if (name == null) return undefined
  const known = typeof name === 'string' && Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined
  if (!known) throw new UnsupportedError(`${file}: model_args.act_layer is ${JSON.stringify(name)}; supported are ${Object.keys(ACTIVATIONS).join(', ')}`, { file, field: 'model_args.act_layer' })
  return known
}

function activationOf(architecture: string): Activation {
  if (architecture.includes('quickgelu')) return 'quick_gelu'
  return /(so400m_patch16|base_patch32|giantopt_patch16)_siglip|large_patch16_siglip(_gap)?_512/.test(architecture) ? 'gelu_tanh' : 'gelu'
}

/** Attention of a learned query to all tokens, and a gateless MLP behind it: the pooling of SigLIP's towers. */
class LatentPool {
  private readonly latent: Parameter
  private readonly query: Linear
  private readonly key: Linear
  private readonly value: Linear
  private readonly out: Linear
  private readonly norm: LayerNorm
  private readonly mlp: Mlp

  constructor(
    scope: Scope,
    private readonly config: TimmConfig,
  ) {
    const { width, hidden, activation } = config
    this.latent = scope.parameter('latent', [1, width])
    this.query = new Linear(scope.at('q'), width, width)
    this.key = new Linear(scope.at('kv'), width, width, { part: { begin: 0, rows: 2 * width } })
    this.value = new Linear(scope.at('kv'), width, width, { part: { begin: width, rows: 2 * width } })
    this.out = new Linear(scope.at('proj'), width, width)
    this.norm = new LayerNorm(scope.at('norm'), width, 1e-6)
    this.mlp = new Mlp(scope, { width, hidden, activation, names: { in: 'mlp.fc1', out: 'mlp.fc2' } })
  }

  /** all: [B·(prefix + length), C], of which the first of each are left out -> float32 [B, C] */
  forward(all: Value, prefix: number, length: number): Value {
    const { heads } = this.config
    const x = prefix === 0 ? all : rowsOf(all, prefix + length, prefix, prefix + length)
    const k = this.key.forward(x)
    const q = repeatRows(this.query.forward(parameter(this.latent), { dtype: k.dtype as never }), k, { length })
    const mixed = attention(q, k, this.value.forward(x), { heads, queryLength: 1, keyLength: length, dtype: k.dtype })
    const pooled = this.out.forward(mixed, { dtype: 'float32' })
    return this.mlp.forward(this.norm.forward(pooled), pooled)
  }
}

/** Copies rows `begin` to `end` of each picture: [B·length, C] -> [B·(end − begin), C] */
function rowsOf(all: Value, length: number, begin: number, end: number): Value {
  const [rows, width] = all.shape as [number, number]
  const wide = reshape(all, [rows / length, length * width])
  const one = constant(new Tensor('float32', Float32Array.of(1), []))
  return reshape(mul(columns(wide, begin * width, end * width), one), [(rows / length) * (end - begin), width])
}

export class TimmViT implements ImageTower {
  readonly prefix = ''
  readonly absent: Record<string, string> = {}
  readonly imageSize
  private readonly prefixRows: number
  private readonly patches: number
  private readonly embeddings: PatchEmbed
  /** Tokens before the patches with their positions, where these are not put there together with the patches. */
  private readonly before?: Parameter
  private readonly preNorm?: LayerNorm
  private readonly layers: TransformerBlock[]
  private readonly norm?: LayerNorm
  private readonly pooledNorm?: LayerNorm
  private readonly latentPool?: LatentPool
  private readonly head?: Linear
  private readonly distilledHead?: Linear

  constructor(
    scope: Scope,
    private readonly config: TimmConfig,
  ) {
    const { width, eps, patch, image, registers, class_token, distilled, placed_prefix } = config
    this.imageSize = image
    this.patches = Math.floor(image.height / patch) * Math.floor(image.width / patch)
    this.prefixRows = (class_token ? 1 : 0) + (distilled ? 1 : 0) + registers
    const names = { weight: 'patch_embed.proj.weight', ...(scope.has('patch_embed.proj.bias') && { bias: 'patch_embed.proj.bias' }), positions: 'pos_embed' }
    // A class token alone, placed like the patches, comes with them.
    const together = this.prefixRows === 0 || (registers === 0 && !distilled && placed_prefix)
    const placed = placed_prefix ? this.prefixRows : 0
    this.embeddings = new PatchEmbed(scope, {
      ...{ width, patch, tokens: this.patches + (together ? this.prefixRows : 0) },
      names: together ? { ...names, ...(class_token && { classToken: 'cls_token' }) } : names,
      ...(!together && placed > 0 && { positionRows: { begin: placed, of: placed + this.patches } }),
    })
    if (!together) {
      const table = { name: scope.nameOf('pos_embed'), shape: [placed + this.patches, width] }
      this.before = scope.parameter('tokens before the patches', [this.prefixRows, width], {
        derived: {
          from: [
            ...(class_token ? [{ name: scope.nameOf('cls_token'), shape: [1, width] }] : []),
            ...(distilled ? [{ name: scope.nameOf('dist_token'), shape: [1, width] }] : []),
            ...(registers > 0 ? [{ name: scope.nameOf('reg_token'), shape: [registers, width] }] : []),
            ...(placed > 0 ? [table] : []),
          ],
          compute: tensors => {
            const tokens = placed > 0 ? tensors.slice(0, -1) : tensors
            const positions = placed > 0 ? tensors.at(-1)! : undefined
            return Float32Array.from(tokens.flatMap(token => [...token]), (value, i) => value + (positions?.[i] ?? 0))
          },
        },
      })
    }
    if (scope.has('norm_pre.weight')) this.preNorm = new LayerNorm(scope.at('norm_pre'), width, eps)
    this.layers = Array.from({ length: config.layers }, (_, i) => {
      const at = scope.at('blocks', i)
      return new TransformerBlock(at, {
        ...{ order: 'pre', width, heads: config.heads, hidden: config.hidden, activation: config.activation, eps, headNorm: 'layer' },
        ...{ qkvBias: at.has('attn.qkv.bias'), outBias: at.has('attn.proj.bias'), mlpBias: at.has('mlp.fc1.bias') },
        ...(at.has('ls1.gamma') && { layerScale: ['ls1.gamma', 'ls2.gamma'] as const }),
        names: {
          norm1: 'norm1',
          attention: { fused: 'attn.qkv', out: 'attn.proj', ...(config.head_norm && { queryNorm: 'attn.q_norm', keyNorm: 'attn.k_norm' }) },
          norm2: 'norm2',
          mlp: config.gated ? { fused: 'mlp.fc1', out: 'mlp.fc2' } : { in: 'mlp.fc1', out: 'mlp.fc2' },
        },
      })
    })
    if (scope.has('norm.weight')) this.norm = new LayerNorm(scope.at('norm'), width, eps)
    if (scope.has('fc_norm.weight')) this.pooledNorm = new LayerNorm(scope.at('fc_norm'), width, eps)
    if (config.pool === 'map') this.latentPool = new LatentPool(scope.at('attn_pool'), config)
    if (config.classes === 0) return
    this.head = new Linear(scope.at('head'), width, config.classes)
    if (distilled) this.distilledHead = new Linear(scope.at('head_dist'), width, config.classes)
  }

  trace(pixels: Value, scale: PixelScale): Traced {
    const length = this.prefixRows + this.patches
    const embedded = this.embeddings.forward(pixels, scale)
    const tokens = this.before ? prependRows(parameter(this.before), embedded, { length: this.patches, dtype: 'float32' }) : embedded
    const states = hiddenStates(this.layers, this.preNorm?.forward(tokens) ?? tokens, { length })
    const stream = states.at(-1)!
    const last = this.norm?.forward(stream, { dtype: 'float32' }) ?? stream
    if (this.config.distilled) return this.distilled(last, states)
    const patches = (mode: 'mean' | 'max') => pool(last, { mode, skip: this.prefixRows, length, dtype: 'float32' })
    const ways: Record<Pool, () => Value> = {
      token: () => pickToken(last, { which: 'first', length }),
      avg: () => patches('mean'),
      max: () => patches('max'),
      avgmax: () => mean(patches('mean'), patches('max')),
      map: () => this.latentPool!.forward(last, this.prefixRows, this.patches),
    }
    const one = ways[this.config.pool]()
    const pooled = this.pooledNorm?.forward(one, { dtype: 'float32' }) ?? one
    return {
      outputs: { last_hidden_state: last, pooler_output: pooled, ...(this.head && { logits: this.head.forward(pooled, { dtype: 'float32' }) }) },
      hiddenStates: states,
      embedding: pooled,
    }
  }

  private distilled(last: Value, states: readonly Value[]): Traced {
    const length = this.prefixRows + this.patches
    const one = pickToken(last, { which: 'first', length })
    const other = rowsOf(last, length, 1, 2)
    const pooled = mean(one, other)
    const logits = this.head && mean(this.head.forward(one, { dtype: 'float32' }), this.distilledHead!.forward(other, { dtype: 'float32' }))
    return { outputs: { last_hidden_state: last, pooler_output: pooled, ...(logits && { logits }) }, hiddenStates: states, embedding: pooled }
  }
}

function mean(a: Value, b: Value): Value {
  return mul(add(a, b), constant(new Tensor('float32', Float32Array.of(0.5), [])))
}

/** timm's own checkpoints; `timm` in config.json is what `timmConfig` made of it. */
export function buildTimmViT(file: ConfigFile, scope: Scope): Architecture {
  const config = readConfig(schema, file, 'timm')
  const labels = file.json['label_names']
  const names = Array.isArray(labels) && labels.length === config.classes ? labels.map(String) : Array.from({ length: config.classes }, (_, i) => `LABEL_${i}`)
  return { images: new TimmViT(scope, config), ...(config.classes > 0 && { labels: names }) }
}
