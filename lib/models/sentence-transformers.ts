// sentence-transformers folders: modules.json lists an encoder, how its tokens are pooled, dense layers and normalisation, each with a
// folder of its own. The encoder's outputs stay; sentence_embedding and the pooled tokens come to them.

import { join } from 'node:path'
import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import type { Value } from '../core/value.js'
import { type Checkpoint, openCheckpoint } from '../io/checkpoint.js'
import { readJsonObject, readSmallFile } from '../io/json.js'
import { checkInside } from '../io/paths.js'
import { type Activation, Linear, Scope } from '../nn/index.js'
import { l2Normalize, pickToken } from '../ops/index.js'
import { flag, integer, readConfig, width } from './config.js'
import { countedTokens, EMBEDDING, poolTokens, type TextTower, type TokenInputs, type Traced } from './encoder.js'

type Pooling = 'cls' | 'mean' | 'max' | 'mean_sqrt_len' | 'last'
type Step = { readonly kind: 'dense'; readonly folder: string; readonly config: DenseConfig } | { readonly kind: 'normalize' }

/** What modules.json says. */
export interface SentenceModules {
  /** Folder of the encoder. */
  readonly encoder: string
  readonly maxLength?: number | undefined
  readonly pooling: Pooling
  readonly steps: readonly Step[]
}

const MAX_MODULES_FILE = 1_000_000

const modulesSchema = v.array(v.object({ path: v.string('a folder'), type: v.string('a class') }), 'a list of modules')
const transformerSchema = v.object({ max_seq_length: v.nullish(integer(1, 10_000_000)) })

// Every way to spell a pooling, by the flag of older files and the name in newer ones.
const POOLINGS: readonly { readonly flag: string; readonly names: readonly string[]; readonly pooling?: Pooling }[] = [
  { flag: 'pooling_mode_cls_token', names: ['cls'], pooling: 'cls' },
  { flag: 'pooling_mode_mean_tokens', names: ['mean'], pooling: 'mean' },
  { flag: 'pooling_mode_max_tokens', names: ['max'], pooling: 'max' },
  { flag: 'pooling_mode_mean_sqrt_len_tokens', names: ['mean_sqrt_len_tokens', 'mean_sqrt_len'], pooling: 'mean_sqrt_len' },
  { flag: 'pooling_mode_weightedmean_tokens', names: ['weightedmean'] },
  { flag: 'pooling_mode_lasttoken', names: ['lasttoken'], pooling: 'last' },
]
const poolingSchema = v.object({
  pooling_mode: v.nullish(v.union([v.string(), v.array(v.string())], 'a name')),
  ...Object.fromEntries(POOLINGS.map(({ flag: name }) => [name, flag(false)])),
})

const DENSE_ACTIVATIONS: Readonly<Record<string, Activation>> = { Identity: 'none', Tanh: 'tanh', ReLU: 'relu', GELU: 'gelu', SiLU: 'silu' }
const denseSchema = v.object({
  in_features: width(),
  out_features: width(),
  bias: flag(true),
  activation_function: v.nullish(v.string('a class'), 'torch.nn.modules.activation.Tanh'),
})
type DenseConfig = { inputs: number; outputs: number; bias: boolean; activation: Activation }

/**
 * Reads modules.json of a folder and what it points to; undefined if the folder has none.
 * @throws CheckpointError for a broken file or a path outside the folder, UnsupportedError for a module that is not there
 */
export async function readSentenceModules(folder: string): Promise<SentenceModules | undefined> {
  const file = join(folder, 'modules.json')
  const modules = await readModules(file)
  if (!modules) return undefined
  const [first, ...rest] = modules.map(module => ({ ...module, kind: module.type.split('.').at(-1)! }))
  if (first?.kind !== 'Transformer') throw unsupported(file, first?.type ?? 'an empty list', 'first module')
  const encoder = join(folder, first.path)
  const transformerFile = join(encoder, 'sentence_bert_config.json')
  const transformer = await optional(transformerFile, readJsonObject)
  const maxLength = transformer && readConfig(transformerSchema, { json: transformer, file: transformerFile }).max_seq_length
  let pooling: Pooling | undefined
  const steps: Step[] = []
  for (const { kind, type, path } of rest) {
    const configFile = join(folder, path, 'config.json')
    if (kind === 'Pooling' && !pooling) pooling = await readPooling(configFile)
    else if (kind === 'Normalize' && pooling) steps.push({ kind: 'normalize' })
    else if (kind === 'Dense' && pooling) steps.push({ kind: 'dense', folder: join(folder, path), config: await readDense(configFile) })
    else throw unsupported(file, type, pooling ? 'module after the pooling' : 'module before a pooling')
  }
  if (!pooling) throw unsupported(file, 'no Pooling', 'list of modules')
  return { encoder, maxLength: maxLength ?? undefined, pooling, steps }
}

async function readModules(file: string): Promise<v.InferOutput<typeof modulesSchema> | undefined> {
  const bytes = await optional(file, () => readSmallFile(file, MAX_MODULES_FILE))
  if (!bytes) return undefined
  let json: unknown
  try {
    json = JSON.parse(bytes.toString())
  } catch (cause) {
    throw new CheckpointError(`${file} is no JSON: ${(cause as Error).message}`, { file, cause })
  }
  const modules = readConfig(modulesSchema, { json: json as never, file })
  for (const { path } of modules) if (path !== '') checkInside(path, file, file)
  return modules
}

/** What `read` gives; undefined if the file is not there. */
async function optional<T>(file: string, read: (file: string) => Promise<T>): Promise<T | undefined> {
  try {
    return await read(file)
  } catch (error) {
    const cause = (error as Error).cause as NodeJS.ErrnoException | undefined
    if (error instanceof CheckpointError && cause?.code === 'ENOENT') return undefined
    throw error
  }
}

async function readPooling(file: string): Promise<Pooling> {
  const config = readConfig(poolingSchema, { json: await readJsonObject(file), file }) as Record<string, unknown>
  const mode = config['pooling_mode'] as string | string[] | null | undefined
  const names = mode == null ? undefined : [mode].flat()
  const chosen = POOLINGS.filter(({ flag, names: spellings }) => (names ? spellings.some(name => names.includes(name)) : config[flag] === true))
  const pooling = chosen.length === 1 && (names?.length ?? 1) === 1 ? chosen[0]!.pooling : undefined
  if (!pooling) throw unsupported(file, names?.join(', ') ?? (chosen.map(({ flag }) => flag).join(', ') || 'nothing'), 'pooling')
  return pooling
}

async function readDense(file: string): Promise<DenseConfig> {
  const { in_features: inputs, out_features: outputs, bias, activation_function: name } = readConfig(denseSchema, { json: await readJsonObject(file), file })
  const activation = DENSE_ACTIVATIONS[name.split('.').at(-1)!]
  if (!activation) throw unsupported(file, name, 'activation_function')
  return { inputs, outputs, bias, activation }
}

function unsupported(file: string, came: string, what: string): UnsupportedError {
  return new UnsupportedError(`${file}: ${came} is not supported as ${what}`, { file })
}

/** A dense layer's parameters and the checkpoint they are in. */
export interface DensePart {
  readonly checkpoint: Checkpoint
  readonly scope: Scope
}

/** An encoder with the modules that follow it. */
export class SentenceTower implements TextTower {
  readonly prefix: string
  readonly absent: Readonly<Record<string, string>>
  readonly vocabulary: number
  readonly tokenTypes: number
  readonly positions: number
  readonly maxLength: number
  readonly takesPositionIds: boolean
  readonly relativePositions: boolean
  readonly readsFirst: readonly string[]

  private constructor(
    private readonly encoder: TextTower,
    private readonly pooling: Pooling,
    private readonly steps: readonly ((x: Value) => Value)[],
    private readonly normalized: boolean,
  ) {
    this.prefix = encoder.prefix
    this.absent = encoder.absent
    this.vocabulary = encoder.vocabulary
    this.tokenTypes = encoder.tokenTypes
    this.positions = encoder.positions
    this.maxLength = encoder.maxLength
    this.takesPositionIds = encoder.takesPositionIds
    this.relativePositions = encoder.relativePositions
    const sentence = pooling === 'cls' ? ['sentence_embedding', 'sentence_embedding_unnormalized', EMBEDDING] : []
    this.readsFirst = [...encoder.readsFirst, 'cls_pooled', ...sentence]
  }

  /** Opens the dense layers' checkpoints and puts the modules behind the encoder. */
  static async build(encoder: TextTower, { pooling, steps }: SentenceModules, computeType: Scope['computeType']): Promise<{ tower: SentenceTower; parts: DensePart[] }> {
    const parts: DensePart[] = []
    const functions: ((x: Value) => Value)[] = []
    for (const step of steps) {
      if (step.kind === 'normalize') {
        functions.push(x => l2Normalize(x, { dtype: 'float32' }))
        continue
      }
      const checkpoint = await openCheckpoint(step.folder)
      const scope = Scope.root(checkpoint, computeType)
      const { inputs, outputs, bias, activation } = step.config
      const dense = new Linear(scope.at('linear'), inputs, outputs, { bias })
      functions.push(x => dense.forward(x, { activation, dtype: 'float32' }))
      parts.push({ checkpoint, scope })
    }
    return { tower: new SentenceTower(encoder, pooling, functions, steps.at(-1)?.kind === 'normalize'), parts }
  }

  positionIds(ids: Int32Array): Int32Array {
    return this.encoder.positionIds(ids)
  }

  trace(tokens: TokenInputs): Traced {
    const traced = this.encoder.trace(tokens)
    const last = traced.outputs['last_hidden_state']!
    const counted = countedTokens(last, tokens.sequences)
    const pooled = {
      cls: pickToken(last, { which: 'first', cuSeqlens: tokens.sequences.cuSeqlens, dtype: 'float32' }),
      mean: poolTokens(last, tokens.sequences, 'mean'),
      max: poolTokens(last, tokens.sequences, 'max'),
      mean_sqrt_len: poolTokens(last, tokens.sequences, 'mean_sqrt_len'),
      last: pickToken(counted.tokens, { which: 'last', cuSeqlens: counted.cuSeqlens, dtype: 'float32' }),
    }
    const unnormalized = this.steps.slice(0, this.normalized ? -1 : undefined).reduce((x, step) => step(x), pooled[this.pooling])
    const sentence = this.normalized ? this.steps.at(-1)!(unnormalized) : unnormalized
    return {
      outputs: {
        ...traced.outputs,
        cls_pooled: pooled.cls,
        mean_pooled: pooled.mean,
        max_pooled: pooled.max,
        sentence_embedding_unnormalized: unnormalized,
        sentence_embedding: sentence,
      },
      hiddenStates: traced.hiddenStates,
      embedding: unnormalized,
    }
  }
}
