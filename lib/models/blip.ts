// BLIP's encoders (Li et al., arXiv:2201.12086): a pre-norm vision transformer and a BERT, pooled and projected into one space.
// The last hidden state of the picture tower goes through its last norm once, its pooled token twice, as in the reference.

import * as v from 'valibot'
import { UnsupportedError } from '../core/errors.js'
import type { Value } from '../core/value.js'
import { hiddenStates, LayerNorm, Linear, PatchEmbed, type PixelScale, type Scope, TransformerBlock } from '../nn/index.js'
import { pickToken } from '../ops/index.js'
import { type BertConfig, bertOptions, encoderScope, FirstTokenBert, readBertConfig, readBertSection } from './bert.js'
import { activation, checkHeads, type ConfigFile, epsilon, headCount, layerCount, readConfig, sectionOf, sides, squarePatch, width } from './config.js'
import type { Architecture, ImageTower, Traced } from './encoder.js'
import { BlipMatching, featureImages, featureTexts } from './blip-matching.js'
import { projectedImages, projectedTexts } from './projected.js'

const visionSchema = v.object({
  hidden_size: v.nullish(width(), 768),
  intermediate_size: v.nullish(width(), 3072),
  num_hidden_layers: v.nullish(layerCount(), 12),
  num_attention_heads: v.nullish(headCount(), 12),
  image_size: v.nullish(sides(16384), 384),
  patch_size: v.nullish(sides(1024), 16),
  hidden_act: activation('gelu'),
  layer_norm_eps: epsilon(1e-5),
})
const jointSchema = v.object({ projection_dim: v.nullish(width(), 512), image_text_hidden_size: v.nullish(width(), 256) })

const BLOCK_NAMES = {
  norm1: 'layer_norm1',
  attention: { fused: 'self_attn.qkv', out: 'self_attn.projection' },
  norm2: 'layer_norm2',
  mlp: { in: 'mlp.fc1', out: 'mlp.fc2' },
}

export class BlipVision implements ImageTower {
  readonly prefix = ''
  readonly absent = {}
  readonly imageSize
  readonly width: number
  readonly tokens: number
  private readonly embeddings: PatchEmbed
  private readonly layers: TransformerBlock[]
  private readonly postNorm: LayerNorm

  constructor(file: ConfigFile, scope: Scope, section?: string) {
    const config = readConfig(visionSchema, file, section)
    const { hidden_size: width, num_attention_heads: heads, layer_norm_eps: eps } = config
    checkHeads(file.file, 'num_attention_heads', heads, width)
    const patch = squarePatch(file.file, config.patch_size, config.image_size)
    this.imageSize = config.image_size
    this.width = width
    this.tokens = Math.floor(this.imageSize.height / patch) * Math.floor(this.imageSize.width / patch) + 1
    this.embeddings = new PatchEmbed(scope.at('embeddings'), {
      ...{ width, patch, tokens: this.tokens },
      names: { weight: 'patch_embedding.weight', bias: 'patch_embedding.bias', classToken: 'class_embedding', positions: 'position_embedding' },
    })
    const options = { order: 'pre' as const, width, heads, hidden: config.intermediate_size, activation: config.hidden_act, eps, names: BLOCK_NAMES }
    this.layers = Array.from({ length: config.num_hidden_layers }, (_, i) => new TransformerBlock(scope.at('encoder.layers', i), options))
    this.postNorm = new LayerNorm(scope.at('post_layernorm'), width, eps)
  }

  trace(pixels: Value, scale: PixelScale): Traced {
    const states = hiddenStates(this.layers, this.embeddings.forward(pixels, scale), { length: this.tokens })
    const last = this.postNorm.forward(states.at(-1)!, { dtype: 'float32' })
    const pooled = this.postNorm.forward(pickToken(last, { which: 'first', length: this.tokens }), { dtype: 'float32' })
    return { outputs: { last_hidden_state: last, pooler_output: pooled }, hiddenStates: states, embedding: pooled }
  }
}

/** BLIP's BERT: no token types; saved as a decoder, and used as an encoder here. @param section of config.json that describes it; undefined: all of it */
export function blipText(file: ConfigFile, scope: Scope, section: string | undefined): { tower: FirstTokenBert; config: BertConfig } {
  const encoder = { is_decoder: false }
  const config =
    section === undefined
      ? readBertConfig({ ...file, json: { ...file.json, ...encoder } })
      : readBertSection({ ...file, json: { ...file.json, [section]: { ...(file.json[section] as object), ...encoder } } }, section, scope, {
          vocab_size: 30524,
          num_attention_heads: 8,
        })
  return { tower: new FirstTokenBert(scope, { ...bertOptions(config), tokenTypes: 0 }), config }
}

/** @param architecture the reference's class */
export function buildBlip(file: ConfigFile, scope: Scope, architecture: string): Architecture {
  switch (architecture) {
    case 'BlipForImageTextRetrieval':
      return buildRetrieval(file, scope)
    case 'BlipVisionModel': {
      const at = scope.firstWith('embeddings.class_embedding', ['', 'vision_model'])
      return { images: new BlipVision(file, at, sectionOf(file, 'blip', 'vision_config')) }
    }
    case 'BlipTextModel':
      return { texts: blipText(file, encoderScope(scope, 'text_model', 'text_encoder'), sectionOf(file, 'blip', 'text_config')).tower }
    case 'BlipModel':
      return buildPair(file, scope)
    default:
      throw new UnsupportedError(`${file.file}: ${architecture} is not supported; of BLIP there are BlipModel, its towers alone and BlipForImageTextRetrieval`, {
        file: file.file,
        field: 'architectures',
      })
  }
}

function buildPair(file: ConfigFile, scope: Scope): Architecture {
  const { projection_dim: projection } = readConfig(jointSchema, file)
  const vision = new BlipVision(file, scope.at('vision_model'), 'vision_config')
  const text = blipText(file, scope.at('text_model'), 'text_config')
  return {
    images: projectedImages(vision, { projection: new Linear(scope.at('visual_projection'), vision.width, projection, { bias: false }) }),
    texts: projectedTexts(text.tower, {
      projection: new Linear(scope.at('text_projection'), text.config.hidden_size, projection, { bias: false }),
      readsFirst: true,
    }),
    logitScale: scope.parameter('logit_scale', []),
  }
}

function buildRetrieval(file: ConfigFile, scope: Scope): Architecture {
  const { image_text_hidden_size: shared } = readConfig(jointSchema, file)
  const vision = new BlipVision(file, scope.at('vision_model'), 'vision_config')
  const { tower, config } = blipText(file, scope.at('text_encoder'), 'text_config')
  return {
    images: featureImages(vision, new Linear(scope.at('vision_proj'), vision.width, shared)),
    texts: featureTexts(tower, new Linear(scope.at('text_proj'), config.hidden_size, shared)),
    joint: new BlipMatching(scope.at('text_encoder'), config, vision.width, scope.at('itm_head')),
    matching: { output: 'itm_prob', column: 1, kind: 'probability' },
    cosines: { images: 'image_feat', texts: 'text_feat', output: 'itc_similarity' },
  }
}
