// A ViT checkpoint of real size with random weights: speeds are real, outputs mean nothing.

import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { writeSafetensors } from '../../lib/io/safetensors.js'

/** Writes ViT-Tiny/16 for 224 x 224 pictures (5.5 M parameters), with its preprocessor, into `folder`. */
export async function writeRandomViT(folder: string, { width = 192, layers = 12, heads = 3 } = {}): Promise<string> {
  await mkdir(folder, { recursive: true })
  const hidden = 4 * width
  const shapes: Record<string, number[]> = {
    'embeddings.cls_token': [1, 1, width],
    'embeddings.position_embeddings': [1, 197, width],
    'embeddings.patch_embeddings.projection.weight': [width, 3, 16, 16],
    'embeddings.patch_embeddings.projection.bias': [width],
    'layernorm.weight': [width],
    'layernorm.bias': [width],
  }
  for (let layer = 0; layer < layers; layer++) {
    const add = (name: string, ...shape: number[]) => (shapes[`encoder.layer.${layer}.${name}`] = shape)
    for (const name of ['layernorm_before', 'layernorm_after']) for (const part of ['weight', 'bias']) add(`${name}.${part}`, width)
    for (const name of ['attention.attention.query', 'attention.attention.key', 'attention.attention.value', 'attention.output.dense']) {
      add(`${name}.weight`, width, width)
      add(`${name}.bias`, width)
    }
    add('intermediate.dense.weight', hidden, width)
    add('intermediate.dense.bias', hidden)
    add('output.dense.weight', width, hidden)
    add('output.dense.bias', width)
  }
  let state = 1
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return (state / 2 ** 31 - 1) * 0.05
  }
  const tensors = Object.entries(shapes).map(([name, shape]) => {
    const data = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, random)
    return { name, dtype: 'float32' as const, shape, bytes: () => [new Uint8Array(data.buffer)] }
  })
  await writeSafetensors(join(folder, 'model.safetensors'), tensors)
  const config = {
    architectures: ['ViTModel'],
    model_type: 'vit',
    hidden_size: width,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    intermediate_size: hidden,
    hidden_act: 'gelu',
    layer_norm_eps: 1e-12,
    image_size: 224,
    patch_size: 16,
    num_channels: 3,
    qkv_bias: true,
  }
  await writeFile(join(folder, 'config.json'), JSON.stringify(config))
  await writeFile(
    join(folder, 'preprocessor_config.json'),
    JSON.stringify({ image_processor_type: 'ViTImageProcessor', size: { height: 224, width: 224 }, resample: 2 }),
  )
  return folder
}
