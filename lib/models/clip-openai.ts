// CLIP checkpoints with OpenAI's own tensor names (the files that OpenAI, and open_clip after it, ship): presented with Hugging Face's names,
// as views of the stored tensors, and with a config.json made from OpenAI's fields or from the shapes alone.

import { CheckpointError, UnsupportedError } from '../core/errors.js'
import { rowMajor } from '../core/shape.js'
import { BYTES_PER_ELEMENT } from '../core/dtype.js'
import { Checkpoint } from '../io/checkpoint.js'
import type { TensorEntry } from '../io/entry.js'
import { MODIFIED_RESNET, REDUCTION } from './clip-resnet.js'
import { type Config, placesBelow } from './config.js'

/** A tensor that only CLIPs with OpenAI's names have. */
const SIGN = 'transformer.resblocks.0.attn.in_proj_weight'
/** OpenAI's towers have heads of this width. */
const HEAD_WIDTH = 64

const TOWERS: readonly (readonly [RegExp, string])[] = [
  [/^visual\.class_embedding$/, 'vision_model.embeddings.class_embedding'],
  [/^visual\.conv1\.weight$/, 'vision_model.embeddings.patch_embedding.weight'],
  [/^visual\.positional_embedding$/, 'vision_model.embeddings.position_embedding.weight'],
  [/^visual\.ln_pre\./, 'vision_model.pre_layrnorm.'], // the reference's spelling
  [/^visual\.ln_post\./, 'vision_model.post_layernorm.'],
  [/^visual\.transformer\.resblocks\./, 'vision_model.encoder.layers.'],
  [/^token_embedding\.weight$/, 'text_model.embeddings.token_embedding.weight'],
  [/^positional_embedding$/, 'text_model.embeddings.position_embedding.weight'],
  [/^ln_final\./, 'text_model.final_layer_norm.'],
  [/^transformer\.resblocks\./, 'text_model.encoder.layers.'],
]
const BLOCKS: readonly (readonly [RegExp, string])[] = [
  [/\.ln_1\./, '.layer_norm1.'],
  [/\.ln_2\./, '.layer_norm2.'],
  [/\.attn\.out_proj\./, '.self_attn.out_proj.'],
  [/\.mlp\.c_fc\./, '.mlp.fc1.'],
  [/\.mlp\.c_proj\./, '.mlp.fc2.'],
]

/** Whether the tensors are a CLIP's with OpenAI's names. */
export function hasOpenAINames(checkpoint: Checkpoint): boolean {
  return checkpoint.tensors.has(SIGN)
}

function isConvolutional(checkpoint: Checkpoint): boolean {
  return checkpoint.tensors.has('visual.attnpool.positional_embedding')
}

/** The checkpoint as Hugging Face's CLIPModel has it. Tensors that have no place there keep their names. */
export function withHuggingFaceNames(checkpoint: Checkpoint): Checkpoint {
  const tensors = new Map<string, TensorEntry>()
  const put = (name: string, entry: TensorEntry) => tensors.set(name, { ...entry, name })
  const convolutional = isConvolutional(checkpoint)
  for (const [name, entry] of checkpoint.tensors) {
    // Hugging Face has no such tower, and no names for it.
    if (convolutional && name.startsWith('visual.')) {
      put(name, entry)
      continue
    }
    const fused = /^(.*)\.attn\.in_proj_(weight|bias)$/.exec(name)
    if (fused) ['q', 'k', 'v'].forEach((part, i) => put(`${rename(`${fused[1]}.`).slice(0, -1)}.self_attn.${part}_proj.${fused[2]}`, third(entry, i)))
    else if (name === 'visual.proj') put('visual_projection.weight', transposed(entry))
    else if (name === 'text_projection') put('text_projection.weight', transposed(entry))
    else put(rename(name), entry)
  }
  return new Checkpoint(checkpoint.folder, checkpoint.files, tensors)
}

function rename(name: string): string {
  const tower = TOWERS.find(([pattern]) => pattern.test(name))
  return tower ? BLOCKS.reduce((renamed, [pattern, by]) => renamed.replace(pattern, by), name.replace(tower[0], tower[1])) : name
}

/** One of queries, keys and values. */
function third(entry: TensorEntry, index: number): TensorEntry {
  const [rows = 0, ...rest] = entry.shape
  const strides = entry.strides ?? rowMajor(entry.shape)
  const width = entry.dtype ? BYTES_PER_ELEMENT[entry.dtype] : 0
  return { ...entry, offset: entry.offset + ((index * rows) / 3) * strides[0]! * width, shape: [rows / 3, ...rest] }
}

function transposed(entry: TensorEntry): TensorEntry {
  const strides = entry.strides ?? rowMajor(entry.shape)
  return { ...entry, shape: [...entry.shape].reverse(), strides: [...strides].reverse() }
}

/**
 * A config.json of Hugging Face's kind.
 * @param json in OpenAI's fields (embed_dim, image_resolution, vision_heads, transformer_heads, …), as far as there are any
 * @throws CheckpointError for a tensor that is missing or misshapen, UnsupportedError for a picture tower of another kind
 */
export function configFromOpenAI(checkpoint: Checkpoint, json: Config): Config {
  const shape = (name: string, rank: number): readonly number[] => {
    const entry = checkpoint.tensors.get(name)
    if (!entry) throw new CheckpointError(`${checkpoint.folder} does not have the tensor ${name}, from which the model's sizes are read`, { file: checkpoint.folder, missing: [name] })
    if (entry.shape.length !== rank) {
      throw new CheckpointError(`${checkpoint.folder}: ${name} is [${entry.shape}]; expected ${rank} dimensions`, { file: checkpoint.folder, mismatched: [name] })
    }
    return entry.shape
  }
  const number = (field: string): number | undefined => (typeof json[field] === 'number' ? json[field] : undefined)
  if (!isConvolutional(checkpoint) && !checkpoint.tensors.has('visual.class_embedding')) {
    throw new UnsupportedError(`${checkpoint.folder}: the picture tower is neither a vision transformer (visual.class_embedding) nor a ResNet (visual.attnpool)`, { file: checkpoint.folder, field: 'visual' })
  }
  const sideOf = (name: string) => Math.round(Math.sqrt(shape(name, 2)[0]! - 1))
  const [vocabulary, textWidth] = shape('token_embedding.weight', 2) as [number, number]
  const [context] = shape('positional_embedding', 2) as [number]
  const [, projection] = shape('text_projection', 2) as [number, number]
  const hidden = (name: string) => shape(name, 2)[0]!
  const hidden_act = json['quick_gelu'] === false ? 'gelu' : 'quick_gelu'
  const resnet = () => {
    const [width] = shape('visual.layer1.0.conv1.weight', 4) as [number]
    return {
      model_type: MODIFIED_RESNET,
      layers: [1, 2, 3, 4].map(stage => placesBelow(`visual.layer${stage}.`, checkpoint.tensors)),
      width,
      heads: number('vision_heads') ?? Math.max(1, Math.floor((width * REDUCTION) / HEAD_WIDTH)),
      image_size: number('image_resolution') ?? sideOf('visual.attnpool.positional_embedding') * REDUCTION,
      projection_dim: shape('visual.attnpool.c_proj.weight', 2)[0]!,
    }
  }
  const transformer = () => {
    const [width, , patch] = shape('visual.conv1.weight', 4) as [number, number, number]
    return {
      hidden_size: width,
      intermediate_size: hidden('visual.transformer.resblocks.0.mlp.c_fc.weight'),
      num_hidden_layers: placesBelow('visual.transformer.resblocks.', checkpoint.tensors),
      num_attention_heads: number('vision_heads') ?? Math.max(1, Math.floor(width / HEAD_WIDTH)),
      image_size: number('image_resolution') ?? sideOf('visual.positional_embedding') * patch,
      patch_size: patch,
      hidden_act,
    }
  }
  return {
    model_type: 'clip',
    architectures: ['CLIPModel'],
    projection_dim: projection,
    vision_config: isConvolutional(checkpoint) ? resnet() : transformer(),
    text_config: {
      vocab_size: vocabulary,
      max_position_embeddings: context,
      hidden_size: textWidth,
      intermediate_size: hidden('transformer.resblocks.0.mlp.c_fc.weight'),
      num_hidden_layers: placesBelow('transformer.resblocks.', checkpoint.tensors),
      num_attention_heads: number('transformer_heads') ?? Math.max(1, Math.floor(textWidth / HEAD_WIDTH)),
      eos_token_id: 2, // the end token is the largest id
      hidden_act,
    },
  }
}
