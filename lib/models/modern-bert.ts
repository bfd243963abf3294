// ModernBERT (Warner et al., arXiv:2412.13663): a pre-norm encoder with rotary positions and gated MLPs, whose layers attend to all tokens or
// to those near by. ModernBertModel, the encoder of ModernBertForMaskedLM and its like, and ModernBertForSequenceClassification.

import * as v from 'valibot'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { type AttentionExtra, Embedding, hiddenStates, LayerNorm, Linear, type RotaryScaling, rotaryTable, type Scope, TransformerBlock } from '../nn/index.js'
import { pickToken } from '../ops/index.js'
import { activation, checkHeads, type ConfigFile, epsilon, flag, headCount, integer, labelNames, labels, layerCount, readConfig, tableRows, width } from './config.js'
import { type Architecture, maskByDistance, meanOfTokens, type TextTower, type TokenInputs, type Traced } from './encoder.js'
import { checkLayerTypes, checkPairs, checkUnscaled, FULL, layerTypes, MOST_POSITIONS, ropeByLayerType, ropeParameters, ropeScaling, SLIDING, theta } from './rope-config.js'

const schema = v.object({
  vocab_size: v.nullish(tableRows(), 50368),
  hidden_size: v.nullish(width(), 768),
  intermediate_size: v.nullish(width(), 1152),
  num_hidden_layers: v.nullish(layerCount(), 22),
  num_attention_heads: v.nullish(headCount(), 12),
  max_position_embeddings: v.nullish(tableRows(), 8192),
  hidden_activation: activation('gelu'),
  norm_eps: epsilon(1e-5),
  norm_bias: flag(false),
  attention_bias: flag(false),
  mlp_bias: flag(false),
  layer_types: layerTypes(),
  global_attn_every_n_layers: v.nullish(integer(1, 1000), 3),
  local_attention: v.nullish(integer(0, 10_000_000), 128),
  rope_parameters: v.nullish(ropeByLayerType()),
  rope_scaling: v.nullish(ropeParameters()),
  global_rope_theta: v.nullish(theta(), 160_000),
  local_rope_theta: v.optional(v.nullable(theta()), 10_000),
  classifier_pooling: v.nullish(v.picklist(['cls', 'mean'], "'cls' or 'mean'"), 'cls'),
  classifier_bias: flag(false),
  classifier_activation: activation('gelu'),
  ...labels,
})
type ModernBertConfig = v.InferOutput<typeof schema>

class ModernBert implements TextTower {
  readonly prefix = ''
  readonly absent = {}
  readonly tokenTypes = 0
  readonly takesPositionIds = true
  readonly vocabulary: number
  readonly positions: number
  readonly maxLength: number
  readonly readsFirst: readonly string[]
  readonly sees?: (distance: number) => boolean
  readonly distanceRow?: (distance: number) => number
  private readonly words: Embedding
  private readonly norm: LayerNorm
  private readonly layers: TransformerBlock[]
  private readonly finalNorm: LayerNorm
  /** Of layers that attend to all, and of the others. */
  private readonly tables: Readonly<Record<string, Parameter>>

  constructor(
    scope: Scope,
    private readonly config: ModernBertConfig,
    private readonly kinds: readonly string[],
    private readonly head: Head | undefined,
    scalings: Readonly<Record<string, RotaryScaling | undefined>>,
  ) {
    const { hidden_size: width, num_attention_heads: heads, norm_eps: eps, max_position_embeddings, attention_bias, rope_parameters: rope } = config
    const rows = Math.min(max_position_embeddings, MOST_POSITIONS)
    this.vocabulary = config.vocab_size
    this.positions = this.maxLength = rows
    this.readsFirst = head && config.classifier_pooling === 'cls' ? ['logits'] : []
    const window = Math.floor(config.local_attention / 2)
    if (kinds.includes(SLIDING)) {
      this.sees = distance => Math.abs(distance) <= window
      this.distanceRow = distance => (this.sees!(distance) ? 0 : 1)
    }
    const norm = { bias: config.norm_bias }
    this.words = new Embedding(scope.at('embeddings.tok_embeddings'), config.vocab_size, width)
    this.norm = new LayerNorm(scope.at('embeddings.norm'), width, eps, norm)
    const thetas: Record<string, number> = {
      [FULL]: rope?.[FULL]?.rope_theta ?? config.global_rope_theta,
      [SLIDING]: rope?.[SLIDING]?.rope_theta ?? config.local_rope_theta ?? config.global_rope_theta,
    }
    this.tables = Object.fromEntries(kinds.map(kind => [kind, rotaryTable(scope, { rows, size: width / heads, theta: thetas[kind]!, scaling: scalings[kind] })]))
    this.layers = kinds.map(
      (kind, i) =>
        new TransformerBlock(scope.at('layers', i), {
          ...{ order: 'pre', width, heads, hidden: config.intermediate_size, eps, activation: config.hidden_activation },
          ...{ qkvBias: attention_bias, outBias: attention_bias, mlpBias: config.mlp_bias, norm: config.norm_bias ? 'layer' : 'layer without bias' },
          ...(kind === SLIDING && { window }),
          names: { ...(i > 0 && { norm1: 'attn_norm' }), attention: { fused: 'attn.Wqkv', out: 'attn.Wo' }, norm2: 'mlp_norm', mlp: { fused: 'mlp.Wi', out: 'mlp.Wo' } },
        }),
    )
    this.finalNorm = new LayerNorm(scope.at('final_norm'), width, eps, norm)
  }

  positionIds(ids: Int32Array): Int32Array {
    return ids.map((_, i) => i)
  }

  trace(tokens: TokenInputs): Traced {
    const { ids, positions, sequences } = tokens
    const embedded = this.norm.forward(this.words.forward(ids), { dtype: 'float32' })
    const masked = maskByDistance(tokens, this.config.num_attention_heads)
    const extra = (layer: number): AttentionExtra => {
      const kind = this.kinds[layer]!
      return { rotation: { table: parameter(this.tables[kind]!), positions }, ...(kind === SLIDING && masked) }
    }
    const states = hiddenStates(this.layers, embedded, sequences, extra)
    const last = this.finalNorm.forward(states.at(-1)!, { dtype: 'float32' })
    return {
      outputs: { last_hidden_state: last, ...(this.head && { logits: this.head.forward(this.pooled(last, tokens)) }) },
      hiddenStates: states,
      embedding: meanOfTokens(last, tokens),
    }
  }

  private pooled(last: Value, tokens: TokenInputs): Value {
    if (this.config.classifier_pooling === 'mean') return meanOfTokens(last, tokens)
    return pickToken(last, { which: 'first', cuSeqlens: tokens.sequences.cuSeqlens })
  }
}

/** The classifier: a layer with an activation, a norm, the labels. */
class Head {
  private readonly dense: Linear
  private readonly norm: LayerNorm
  private readonly classifier: Linear

  constructor(
    scope: Scope,
    private readonly config: ModernBertConfig,
    classes: number,
  ) {
    const { hidden_size: width } = config
    this.dense = new Linear(scope.at('head.dense'), width, width, { bias: config.classifier_bias })
    this.norm = new LayerNorm(scope.at('head.norm'), width, config.norm_eps, { bias: config.norm_bias })
    this.classifier = new Linear(scope.at('classifier'), width, classes)
  }

  /** x: [S, C] -> float32 [S, classes] */
  forward(x: Value): Value {
    const middle = this.norm.forward(this.dense.forward(x, { activation: this.config.classifier_activation, dtype: 'float32' }))
    return this.classifier.forward(middle, { dtype: 'float32' })
  }
}

/** @param architecture the reference's class */
export function buildModernBert(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  const config = readConfig(schema, file)
  const { num_hidden_layers: layers, num_attention_heads: heads, global_attn_every_n_layers: every } = config
  checkHeads(file.file, 'num_attention_heads', heads, config.hidden_size)
  checkPairs(file, 'num_attention_heads', config.hidden_size / heads)
  const scalings = Object.fromEntries(
    ([FULL, SLIDING] as const).map(kind => [kind, ropeScaling(file, `rope_parameters.${kind}`, config.rope_parameters?.[kind], config.max_position_embeddings)]),
  )
  checkUnscaled(file, 'rope_scaling', config.rope_scaling)
  const kinds = config.layer_types ?? Array.from({ length: layers }, (_, i) => (i % every === 0 ? FULL : SLIDING))
  checkLayerTypes(file, kinds, layers)
  const head = architecture === 'ModernBertForSequenceClassification' ? new Head(scope, config, labelNames(config).length) : undefined
  return { texts: new ModernBert(scope.firstWith('embeddings.tok_embeddings.weight', ['', 'model']), config, kinds, head, scalings) }
}
