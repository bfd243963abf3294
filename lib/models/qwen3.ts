// Qwen3 (arXiv:2505.09388) read as an encoder of texts, as Qwen3-Embedding (arXiv:2506.05176) is used: causal attention with fewer heads of keys
// and values, each head normalised and turned by its position, gated MLPs; a text's last token stands for it. Where `is_causal` is false, tokens see
// those behind them, too. Qwen3Model, and what Qwen3ForCausalLM has below its head.

import * as v from 'valibot'
import { CheckpointError } from '../core/errors.js'
import { type Parameter, parameter } from '../core/value.js'
import { type AttentionExtra, Embedding, hiddenStates, RmsNorm, type RotaryScaling, rotaryTable, type Scope, TransformerBlock } from '../nn/index.js'
import { pickToken } from '../ops/index.js'
import { activation, type ConfigFile, epsilon, flag, headCount, integer, layerCount, readConfig, tableRows, width } from './config.js'
import { type Architecture, countedRows, maskByDistance, type TextTower, type TokenInputs, type Traced } from './encoder.js'
import { checkLayerTypes, checkPairs, FULL, layerTypes, MOST_POSITIONS, type RopeParameters, ropeParameters, ropeScaling, SLIDING, theta } from './rope-config.js'

const schema = v.object({
  vocab_size: tableRows(),
  hidden_size: width(),
  intermediate_size: width(),
  num_hidden_layers: layerCount(),
  num_attention_heads: headCount(),
  num_key_value_heads: v.nullish(headCount()),
  head_dim: v.nullish(width(), 128),
  hidden_act: activation('silu'),
  max_position_embeddings: v.nullish(tableRows(), 32768),
  rms_norm_eps: epsilon(1e-6),
  attention_bias: flag(false),
  is_causal: flag(true),
  rope_parameters: v.nullish(ropeParameters()),
  rope_scaling: v.nullish(ropeParameters()),
  rope_theta: v.nullish(theta(), 10_000),
  use_sliding_window: flag(false),
  sliding_window: v.nullish(integer(1, 10_000_000), 4096),
  max_window_layers: v.nullish(integer(0, 1000), 28),
  layer_types: layerTypes(),
})
type Qwen3Config = v.InferOutput<typeof schema>

class Qwen3 implements TextTower {
  readonly prefix = ''
  readonly absent = {}
  readonly tokenTypes = 0
  readonly takesPositionIds = true
  readonly readsFirst = []
  readonly vocabulary: number
  readonly positions: number
  readonly maxLength: number
  readonly distanceRow?: (distance: number) => number
  private readonly words: Embedding
  private readonly table: Parameter
  private readonly layers: TransformerBlock[]
  private readonly norm: RmsNorm

  constructor(
    scope: Scope,
    private readonly config: Qwen3Config,
    private readonly kinds: readonly string[],
    scaling: RotaryScaling | undefined,
  ) {
    const { hidden_size: width, num_attention_heads: heads, head_dim: headSize, rms_norm_eps: eps, max_position_embeddings, attention_bias } = config
    const rows = Math.min(max_position_embeddings, MOST_POSITIONS)
    this.vocabulary = config.vocab_size
    this.positions = this.maxLength = rows
    // The reference counts a token itself among those of its window only where it is causal.
    const { is_causal: causal } = config
    const window = causal ? config.sliding_window - 1 : config.sliding_window
    if (kinds.includes(SLIDING)) this.distanceRow = distance => (distance <= (causal ? 0 : window) && distance >= -window ? 0 : 1)
    this.words = new Embedding(scope.at('embed_tokens'), config.vocab_size, width)
    this.table = rotaryTable(scope, { rows, size: headSize, theta: ropeOf(config).rope?.rope_theta ?? config.rope_theta, scaling })
    this.layers = kinds.map(
      (kind, i) =>
        new TransformerBlock(scope.at('layers', i), {
          ...{ order: 'pre', norm: 'rms', width, heads, headSize, kvHeads: config.num_key_value_heads ?? heads, hidden: config.intermediate_size, eps },
          ...{ activation: config.hidden_act, causal, qkvBias: attention_bias, outBias: attention_bias, mlpBias: false },
          ...(kind === SLIDING && { window }),
          names: {
            norm1: 'input_layernorm',
            attention: {
              ...{ query: 'self_attn.q_proj', key: 'self_attn.k_proj', value: 'self_attn.v_proj', out: 'self_attn.o_proj' },
              ...{ queryNorm: 'self_attn.q_norm', keyNorm: 'self_attn.k_norm' },
            },
            norm2: 'post_attention_layernorm',
            mlp: { gate: 'mlp.gate_proj', up: 'mlp.up_proj', out: 'mlp.down_proj' },
          },
        }),
    )
    this.norm = new RmsNorm(scope.at('norm'), width, eps)
  }

  positionIds(ids: Int32Array): Int32Array {
    return ids.map((_, i) => i)
  }

  trace(tokens: TokenInputs): Traced {
    const { ids, positions, sequences } = tokens
    const rotation = { table: parameter(this.table), positions }
    const masked = maskByDistance(tokens, this.config.num_attention_heads)
    const extra = (layer: number): AttentionExtra => ({ rotation, ...(this.kinds[layer] === SLIDING && masked) })
    const states = hiddenStates(this.layers, this.words.forward(ids), sequences, extra)
    const last = this.norm.forward(states.at(-1)!, { dtype: 'float32' })
    const { rows, cuSeqlens } = countedRows(last, tokens)
    return { outputs: { last_hidden_state: last }, hiddenStates: states, embedding: pickToken(rows, { which: 'last', cuSeqlens, dtype: 'float32' }) }
  }
}

export function buildQwen3(file: ConfigFile, scope: Scope): Architecture {
  const config = readConfig(schema, file)
  const { num_hidden_layers: layers, num_attention_heads: heads, num_key_value_heads: kvHeads } = config
  if (kvHeads != null && heads % kvHeads !== 0) {
    throw new CheckpointError(`${file.file}: num_key_value_heads is ${kvHeads}, which does not divide num_attention_heads ${heads}`, { file: file.file, field: 'num_key_value_heads' })
  }
  checkPairs(file, 'head_dim', config.head_dim)
  const { field, rope } = ropeOf(config)
  const scaling = ropeScaling(file, field, rope, config.max_position_embeddings)
  const slides = (i: number) => config.use_sliding_window && (config.layer_types ? config.layer_types[i] === SLIDING : i >= config.max_window_layers)
  checkLayerTypes(file, config.layer_types ?? Array<string>(layers), layers)
  const kinds = Array.from({ length: layers }, (_, i) => (slides(i) ? SLIDING : FULL))
  return { texts: new Qwen3(scope.firstWith('embed_tokens.weight', ['', 'model']), config, kinds, scaling) }
}

/** The older spelling counts where both are given, as in the reference. */
function ropeOf({ rope_scaling, rope_parameters }: Qwen3Config): { field: string; rope: RopeParameters | null | undefined } {
  return rope_scaling ? { field: 'rope_scaling', rope: rope_scaling } : { field: 'rope_parameters', rope: rope_parameters }
}
