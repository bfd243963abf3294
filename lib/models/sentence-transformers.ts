// sentence-transformers folders: modules.json lists an encoder, how its tokens are pooled, layers behind that and normalisation, each with a
// folder of its own. The encoder's outputs stay; sentence_embedding and the pooled tokens come to them. CLIP there is pooled already.

import { join } from 'node:path'
import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { constant, type Value } from '../core/value.js'
import { type Checkpoint, openCheckpoint } from '../io/checkpoint.js'
import { ifThere, readJsonObject } from '../io/json.js'
import { modulesFile, readModules, SETTINGS_FILES } from '../io/modules.js'
import { type Activation, LayerNorm, Linear, Scope, sideBySide } from '../nn/index.js'
import { add, cast, div, l2Normalize, matmul, mul, pickToken, pool, reshape, unary } from '../ops/index.js'
import { flag, integer, readConfig, width } from './config.js'
import { type Architecture, countedRows, EMBEDDING, type ImageTower, imagesLike, type SentenceSettings, type TextTower, textsLike, type TokenInputs, type Traced } from './encoder.js'

type Pooling = 'cls' | 'max' | 'mean' | 'mean_sqrt_len' | 'weighted_mean' | 'last'
type Step =
  | { readonly kind: 'dense'; readonly folder: string; readonly config: DenseConfig }
  | { readonly kind: 'norm'; readonly folder: string; readonly width: number }
  | { readonly kind: 'normalize' }

/** What of an encoder the next module gets: tokens, or the embedding, which is the projected one of a pair's towers or else the pooler's. */
type Gives = 'tokens' | 'projected' | 'pooler'

/** What modules.json says. */
export interface SentenceModules extends SentenceSettings {
  /** Folder of the encoder. */
  readonly encoder: string
  readonly gives: Gives
  /** Side by side in the embedding; none: the encoder gives the embedding. */
  readonly pooling: readonly Pooling[]
  readonly steps: readonly Step[]
}

const transformerSchema = v.object({
  max_seq_length: v.nullish(integer(1, 10_000_000)),
  do_lower_case: flag(false),
  transformer_task: v.nullish(v.string('a name')),
  module_output_name: v.nullish(v.picklist(['token_embeddings', 'sentence_embedding'], "'token_embeddings' or 'sentence_embedding'")),
  modality_config: v.nullish(v.record(v.string(), v.object({ method: v.string('a name'), method_output_name: v.unknown() }, 'an object'), 'an object')),
  config_kwargs: v.nullish(v.record(v.string(), v.unknown(), 'an object')),
  config_args: v.nullish(v.record(v.string(), v.unknown(), 'an object')), // its older name
})

// Every pooling by its name and by the flag of older files, whose order is that of the parts of an embedding.
const POOLINGS: readonly { readonly flag: string; readonly names: readonly string[]; readonly pooling: Pooling }[] = [
  { flag: 'pooling_mode_cls_token', names: ['cls'], pooling: 'cls' },
  { flag: 'pooling_mode_max_tokens', names: ['max'], pooling: 'max' },
  { flag: 'pooling_mode_mean_tokens', names: ['mean'], pooling: 'mean' },
  { flag: 'pooling_mode_mean_sqrt_len_tokens', names: ['mean_sqrt_len_tokens', 'mean_sqrt_len'], pooling: 'mean_sqrt_len' },
  { flag: 'pooling_mode_weightedmean_tokens', names: ['weightedmean'], pooling: 'weighted_mean' },
  { flag: 'pooling_mode_lasttoken', names: ['lasttoken'], pooling: 'last' },
]
const poolingSchema = v.object({
  pooling_mode: v.nullish(v.union([v.string(), v.pipe(v.array(v.string()), v.minLength(1))], 'a name or a list of names')),
  include_prompt: flag(true),
  ...Object.fromEntries(POOLINGS.map(({ flag: name }) => [name, flag(false)])),
})

type DenseActivation = Activation | 'sigmoid'
const DENSE_ACTIVATIONS: Readonly<Record<string, DenseActivation>> = { Identity: 'none', Tanh: 'tanh', ReLU: 'relu', GELU: 'gelu', SiLU: 'silu', Sigmoid: 'sigmoid' }
const ofSentence = v.nullish(v.literal('sentence_embedding', "'sentence_embedding'"))
const denseSchema = v.object({
  in_features: width(),
  out_features: width(),
  bias: flag(true),
  activation_function: v.nullish(v.string('a class'), 'torch.nn.modules.activation.Tanh'),
  module_input_name: ofSentence,
  module_output_name: ofSentence,
  use_residual: flag(false),
})
type DenseConfig = { inputs: number; outputs: number; bias: boolean; activation: DenseActivation; residual: boolean }
const normSchema = v.object({ dimension: width() })
const normalizeSchema = v.object({ module_input_name: ofSentence, module_output_name: ofSentence })
const LAYER_NORM_EPS = 1e-5 // PyTorch's

/**
 * Reads modules.json of a folder and what it points to; undefined if the folder has none.
 * @throws CheckpointError for a broken file or a path outside the folder, UnsupportedError for a module that is not there
 */
export async function readSentenceModules(folder: string): Promise<SentenceModules | undefined> {
  const modules = await readModules(folder)
  if (!modules) return undefined
  const file = modulesFile(folder)
  const [first, ...rest] = modules.map(module => ({ ...module, kind: module.type.split('.').at(-1)! }))
  if (first?.kind !== 'Transformer' && first?.kind !== 'CLIPModel') throw unsupported(file, first?.type ?? 'an empty list', 'first module')
  const encoder = join(folder, first.path)
  const settings = await readSettings(encoder)
  const gives = first.kind === 'CLIPModel' ? 'projected' : settings.gives
  let pooling: Pooling[] | undefined = gives === 'tokens' ? undefined : []
  let poolsPrompt = true
  const steps: Step[] = []
  for (const { kind, type, path } of rest) {
    const configFile = join(folder, path, 'config.json')
    if (kind === 'Dropout') continue
    else if (kind === 'Pooling' && !pooling) ({ pooling, poolsPrompt } = await readPooling(configFile))
    else if (kind === 'Normalize' && pooling) {
      const json = await ifThere(configFile)
      if (json && path !== '') readConfig(normalizeSchema, { json, file: configFile })
      steps.push({ kind: 'normalize' })
    } else if (kind === 'Dense' && pooling) steps.push({ kind: 'dense', folder: join(folder, path), config: await readDense(configFile) })
    else if (kind === 'LayerNorm' && pooling) {
      const { dimension } = readConfig(normSchema, { json: await readJsonObject(configFile), file: configFile })
      steps.push({ kind: 'norm', folder: join(folder, path), width: dimension })
    } else throw unsupported(file, type, pooling ? 'module after the pooling' : 'module before a pooling')
  }
  if (!pooling) throw unsupported(file, 'no Pooling', 'list of modules')
  return { encoder, gives, maxLength: settings.maxLength, lowercase: settings.lowercase, pooling, poolsPrompt, steps }
}

async function readSettings(encoder: string): Promise<{ maxLength: number | undefined; lowercase: boolean; gives: Gives }> {
  for (const file of SETTINGS_FILES.map(name => join(encoder, name))) {
    const json = await ifThere(file)
    if (!json) continue
    const config = readConfig(transformerSchema, { json, file })
    return { maxLength: config.max_seq_length ?? undefined, lowercase: config.do_lower_case, gives: givenBy(file, config) }
  }
  return { maxLength: undefined, lowercase: false, gives: 'tokens' }
}

/** @throws UnsupportedError for settings that make something else of the encoder */
function givenBy(file: string, config: v.InferOutput<typeof transformerSchema>): Gives {
  const { transformer_task: task, modality_config: modalities, module_output_name: output } = config
  const refused = (field: string, came: unknown) => new UnsupportedError(`${file}: ${field} is ${JSON.stringify(came)}, which is not supported`, { file, field })
  if (task != null && task !== 'feature-extraction') throw refused('transformer_task', task)
  for (const field of ['config_kwargs', 'config_args'] as const) {
    if (Object.keys(config[field] ?? {}).some(name => name !== 'trust_remote_code')) throw refused(field, config[field])
  }
  let gives: Gives = 'tokens' // without modality_config always, as the reference has it
  for (const [modality, { method, method_output_name }] of Object.entries(modalities ?? {})) {
    if (modality.includes('+')) continue // of inputs with several modalities, which are not embedded here
    const name = Array.isArray(method_output_name) && method_output_name.length === 1 ? (method_output_name[0] as unknown) : method_output_name
    const projected = output === 'sentence_embedding' && method === `get_${modality}_features` && (name == null || name === 'pooler_output')
    const pooled = output === 'sentence_embedding' && modality === 'text' && method === 'forward' && name === 'pooler_output'
    const tokens = output !== 'sentence_embedding' && method === 'forward' && name === 'last_hidden_state'
    if (modality === 'message') throw refused('modality_config.message', modalities![modality]) // texts would go through a chat template
    if (!projected && !pooled && !tokens) throw refused(`modality_config.${modality}`, modalities![modality])
    if (modality === 'text' || gives === 'tokens') gives = projected ? 'projected' : pooled ? 'pooler' : 'tokens'
  }
  return gives
}

async function readPooling(file: string): Promise<{ pooling: Pooling[]; poolsPrompt: boolean }> {
  const config = readConfig(poolingSchema, { json: await readJsonObject(file), file }) as Record<string, unknown>
  const mode = config['pooling_mode'] as string | string[] | null | undefined
  const poolsPrompt = config['include_prompt'] as boolean
  if (mode == null) {
    const flagged = POOLINGS.filter(({ flag }) => config[flag]).map(({ pooling }) => pooling)
    return { pooling: flagged.length > 0 ? flagged : ['mean'], poolsPrompt }
  }
  const pooling = [mode].flat().map(name => {
    const known = POOLINGS.find(({ names }) => names.includes(name))
    if (!known) throw new CheckpointError(`${file}: pooling_mode is ${name}; expected of ${POOLINGS.flatMap(({ names }) => names).join(', ')}`, { file, field: 'pooling_mode' })
    return known.pooling
  })
  return { pooling, poolsPrompt }
}

async function readDense(file: string): Promise<DenseConfig> {
  const config = readConfig(denseSchema, { json: await readJsonObject(file), file })
  const activation = DENSE_ACTIVATIONS[config.activation_function.split('.').at(-1)!]
  if (!activation) throw unsupported(file, config.activation_function, 'activation_function')
  return { inputs: config.in_features, outputs: config.out_features, bias: config.bias, activation, residual: config.use_residual }
}

function unsupported(file: string, came: string, what: string): UnsupportedError {
  return new UnsupportedError(`${file}: ${came} is not supported as ${what}`, { file })
}

/** A layer's parameters and the checkpoint they are in. */
export interface StepPart {
  readonly checkpoint: Checkpoint
  readonly scope: Scope
}

type StepFunction = (x: Value) => Value

/** The layers behind the pooling. */
interface Layers {
  readonly functions: readonly StepFunction[]
  /** The last one normalises. */
  readonly normalized: boolean
}

/** An encoder with the modules that follow it. Opens the checkpoints of those that have one. */
export async function buildSentence(
  architecture: Architecture,
  modules: SentenceModules,
  computeType: Scope['computeType'],
): Promise<{ architecture: Architecture; parts: StepPart[] }> {
  const parts: StepPart[] = []
  const functions: StepFunction[] = []
  for (const step of modules.steps) {
    if (step.kind === 'normalize') {
      functions.push(x => l2Normalize(x, { dtype: 'float32' }))
      continue
    }
    const checkpoint = await openCheckpoint(step.folder)
    const scope = Scope.root(checkpoint, computeType)
    functions.push(step.kind === 'dense' ? denseStep(scope, step.config) : normStep(scope, step.width))
    parts.push({ checkpoint, scope })
  }
  const layers: Layers = { functions, normalized: modules.steps.at(-1)?.kind === 'normalize' }
  const { images, texts } = architecture
  if (modules.gives === 'pooler') {
    if (!texts || images) throw new UnsupportedError('modality_config takes the pooler_output of a model that is no text encoder', { field: 'modality_config.text' })
    return { architecture: { texts: layeredTexts(pooledTexts(texts), layers), sentence: modules }, parts }
  }
  if (modules.pooling.length === 0) {
    const both = { images: images && layeredImages(images, layers), texts: texts && layeredTexts(texts, layers) }
    return { architecture: { ...architecture, ...(functions.length > 0 && both), sentence: modules }, parts }
  }
  if (!texts || images) throw new UnsupportedError('modules.json puts a pooling behind a model that is no text encoder', { field: 'Pooling' })
  return { architecture: { texts: sentenceTower(texts, modules.pooling, layers), sentence: modules }, parts }
}

function denseStep(scope: Scope, { inputs, outputs, bias, activation, residual }: DenseConfig): StepFunction {
  const dense = new Linear(scope.at('linear'), inputs, outputs, { bias })
  const shortcut = residual && inputs !== outputs ? new Linear(scope.at('residual'), inputs, outputs, { bias: false }) : undefined
  return x => {
    const out = activation === 'sigmoid' ? unary(dense.forward(x, { dtype: 'float32' }), 'sigmoid') : dense.forward(x, { activation, dtype: 'float32' })
    if (!residual) return out
    return add(out, shortcut ? shortcut.forward(x, { dtype: 'float32' }) : x)
  }
}

function normStep(scope: Scope, width: number): StepFunction {
  const norm = new LayerNorm(scope.at('norm'), width, LAYER_NORM_EPS)
  return x => norm.forward(x, { dtype: 'float32' })
}

/** The embedding through all layers, and before the normalisation if that is the last of them. */
function throughLayers(embedding: Value, { functions, normalized }: Layers): { sentence: Value; unnormalized: Value } {
  const unnormalized = functions.slice(0, normalized ? -1 : undefined).reduce((x, step) => step(x), embedding)
  return { sentence: normalized ? functions.at(-1)!(unnormalized) : unnormalized, unnormalized }
}

function layered(traced: Traced, layers: Layers): Traced {
  const { sentence, unnormalized } = throughLayers(traced.embedding, layers)
  return { ...traced, outputs: { ...traced.outputs, sentence_embedding: sentence }, embedding: unnormalized }
}

/** An encoder whose texts are embedded by its pooler. */
function pooledTexts(encoder: TextTower): TextTower {
  return textsLike(encoder, {
    readsFirst: [...encoder.readsFirst, ...(encoder.readsFirst.includes('pooler_output') ? [EMBEDDING, 'sentence_embedding'] : [])],
    trace: tokens => {
      const traced = encoder.trace(tokens)
      const embedding = traced.outputs['pooler_output']
      if (embedding) return { ...traced, embedding }
      const absent = encoder.absent['pooler_output']
      throw new CheckpointError(`sentence_embedding needs the output pooler_output, which ${absent === undefined ? 'the encoder does not have' : `lacks the tensor ${absent}`}`, {
        field: 'modality_config.text',
        ...(absent !== undefined && { missing: [absent] }),
      })
    },
  })
}

/** Texts with layers behind their embedding. */
function layeredTexts(encoder: TextTower, layers: Layers): TextTower {
  return textsLike(encoder, { trace: tokens => layered(encoder.trace(tokens), layers) })
}

/** CLIP's pictures with layers behind their embedding. */
function layeredImages(encoder: ImageTower, layers: Layers): ImageTower {
  return imagesLike(encoder, {
    trace: (pixels, scale) => {
      const { outputs, ...traced } = layered(encoder.trace(pixels, scale), layers)
      const { sentence_embedding: _ofTexts, ...own } = outputs
      return { ...traced, outputs: own }
    },
  })
}

/** An encoder of tokens whose texts are pooled. */
function sentenceTower(encoder: TextTower, pooling: readonly Pooling[], layers: Layers): TextTower {
  const trace = (tokens: TokenInputs): Traced => {
    const traced = encoder.trace(tokens)
    const last = traced.outputs['last_hidden_state']!
    const width = last.shape[1]!
    const { rows, cuSeqlens } = countedRows(last, tokens)
    const pooled: Readonly<Record<Pooling, () => Value>> = {
      cls: () => pickToken(rows, { which: 'first', cuSeqlens, dtype: 'float32' }),
      max: () => pool(rows, { mode: 'max', cuSeqlens, dtype: 'float32' }),
      mean: () => pool(rows, { mode: 'mean', cuSeqlens, dtype: 'float32' }),
      mean_sqrt_len: () => pool(rows, { mode: 'mean_sqrt_len', cuSeqlens, dtype: 'float32' }),
      weighted_mean: () => {
        const places = reshape(cast(tokens.places!, 'float32'), [tokens.places!.shape[0]!, 1])
        const weights = spread(countedRows(places, tokens).rows, width)
        return div(pool(mul(rows, weights), { mode: 'mean', cuSeqlens, dtype: 'float32' }), pool(weights, { mode: 'mean', cuSeqlens, dtype: 'float32' }))
      },
      last: () => pickToken(rows, { which: 'last', cuSeqlens, dtype: 'float32' }),
    }
    const { sentence, unnormalized } = throughLayers(sideBySide(pooling.map(name => pooled[name]())), layers)
    return {
      outputs: {
        ...traced.outputs,
        cls_pooled: pooled.cls(),
        mean_pooled: pooled.mean(),
        max_pooled: pooled.max(),
        sentence_embedding_unnormalized: unnormalized,
        sentence_embedding: sentence,
      },
      hiddenStates: traced.hiddenStates,
      embedding: unnormalized,
    }
  }
  return textsLike(encoder, { readsPlaces: pooling.includes('weighted_mean'), trace })
}

/** x: [T, 1] -> [T, width], the same number in a whole row. */
function spread(x: Value, width: number): Value {
  return matmul(x, constant(new Tensor('float32', new Float32Array(width).fill(1), [width, 1])), { dtype: 'float32' })
}
