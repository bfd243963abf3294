// Convolutional towers: pictures of any size with the same bits in any company, pictures that are too small, heads and tensors that are absent,
// and CLIP's ResNet from its tensors' shapes alone.

import { cpSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { Embedder } from '../../lib/embed/embedder.js'
import { readTensors, writeSafetensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { compareWithReference, fixture, random, temporary, variant } from '../support/models.js'

const cpu = { device: 'cpu', dtype: 'f32' } as const

function pictures(count: number, height: number, width: number, seed = 1): Tensor {
  const next = random(seed)
  return new Tensor('float32', Float32Array.from({ length: count * 3 * height * width }, () => next() - 0.5), [count, 3, height, width])
}

for (const name of ['resnet-bottleneck-first', 'align-odd']) {
  t.test(`${name}: pictures of any size, each by itself`, async t => {
    await using model = await AutoModel.fromPretrained(fixture(name), cpu)
    const output = name === 'align-odd' ? 'vision_last_hidden_state' : 'last_hidden_state'
    for (const [height, width] of [[33, 21], [16, 70], [41, 41]] as const) {
      const all = pictures(5, height, width)
      const together = (await model.forward({ pixel_values: all }, { outputs: [output] }))[output]!
      const each = together.size / 5
      for (let i = 0; i < 5; i++) {
        const size = 3 * height * width
        const one = new Tensor('float32', (all.data as Float32Array).slice(i * size, (i + 1) * size), [1, 3, height, width])
        const alone = (await model.forward({ pixel_values: one }, { outputs: [output] }))[output]!
        t.same(alone.data, together.data.subarray(i * each, (i + 1) * each), `${height} x ${width}, picture ${i}`)
      }
    }
  })
}

t.test('pictures that are too small', async t => {
  await using align = await AutoModel.fromPretrained(fixture('align-odd'), cpu)
  await t.rejects(align.forward({ pixel_values: pictures(1, 1, 30) }), { name: 'ShapeError', field: 'pixel_values', message: /pixel_values is float32 \[1, 3, 1, 30\]; expected larger pictures/ })
  await using resnet = await AutoModel.fromPretrained(fixture('clip-rn-narrow'), cpu)
  await t.rejects(resnet.forward({ pixel_values: pictures(1, 64, 64) }), { name: 'ShapeError', field: 'pixel_values', message: /expected \[n, 3, 70, 70\]/ })
})

t.test('a head that is absent', async t => {
  await using model = await AutoModel.fromPretrained(fixture('resnet-bottleneck-first'), cpu)
  t.equal(model.classifier, undefined)
  await t.rejects(model.forward({ pixel_values: pictures(1, 32, 32) }, { outputs: ['logits'] }), { name: 'CheckpointError', missing: ['classifier.1.weight'] })
})

/** The tensors alone. */
function withoutConfig(t: Test): string {
  const folder = temporary(t)
  cpSync(fixture('clip-rn-narrow'), folder, { recursive: true })
  rmSync(join(folder, 'config.json'))
  return folder
}

t.test("CLIP's ResNet from the shapes of its tensors", async t => {
  const folder = withoutConfig(t)
  // 64 features are one head by OpenAI's rule; the fixture was made with four, and a text tower narrower than one.
  await using model = await AutoModel.fromPretrained(folder, cpu)
  t.match(model.config, {
    vision_config: { model_type: 'modified_resnet', layers: [1, 2, 1, 1], width: 2, heads: 1, image_size: 64, projection_dim: 24 },
    text_config: { num_attention_heads: 1, hidden_size: 32 },
  })
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ vision_heads: 4, image_resolution: 70 }))
  await using told = await AutoModel.fromPretrained(folder, cpu)
  await compareWithReference(t, told, folder)
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ vision_heads: 5 }))
  await t.rejects(AutoModel.fromPretrained(folder, cpu), { name: 'CheckpointError', field: 'vision_heads', message: /vision_heads is 5, which does not divide the width 64/ })
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ image_resolution: 20 }))
  await t.rejects(AutoModel.fromPretrained(folder, cpu), { name: 'CheckpointError', field: 'image_resolution' })
})

t.test('a tensor of the last layer is missing, where the tensors alone tell how many there are', async t => {
  const folder = withoutConfig(t)
  const file = join(folder, 'model.safetensors')
  const tensors = await readTensors(file)
  for (const name of ['transformer.resblocks.1.attn.in_proj_weight', 'visual.layer2.1.conv1.weight']) {
    const { [name]: _, ...others } = tensors
    await writeSafetensors(file, others)
    await t.rejects(AutoModel.fromPretrained(folder, cpu), { name: 'CheckpointError', message: name.startsWith('visual') ? /layer2\.1\.conv1\.weight/ : /text_model\.encoder\.layers\.1\.self_attn\.q_proj\.weight/ })
  }
})

t.test('a checkpoint of another family', async t => {
  const folder = variant(t, 'resnet-bottleneck-first', config => (config['model_type'] = 'align_vision_model'))
  const error = await AutoModel.fromPretrained(folder, cpu).then(() => undefined, error => error)
  t.match(error, { name: /CheckpointError|UnsupportedError/ })
})

t.test('Embedder gives the pooled features', async t => {
  const folder = variant(t, 'resnet-bottleneck-first', () => {})
  writeFileSync(join(folder, 'preprocessor_config.json'), JSON.stringify({ image_processor_type: 'ConvNextImageProcessor', size: { shortest_edge: 36 }, crop_pct: 0.875 }))
  await using embedder = await Embedder.fromPretrained(folder, cpu)
  const next = random(2)
  const pixels = new Tensor('uint8', Uint8Array.from({ length: 2 * 36 * 36 * 3 }, () => next() * 256), [2, 36, 36, 3])
  const got = await embedder.embedImages(pixels, { normalize: false })
  const { pooler_output } = await embedder.model.forward({ pixel_values: pixels }, { outputs: ['pooler_output'] })
  t.same(got.dims, [2, 44])
  t.same(pooler_output!.dims, [2, 44, 1, 1])
  t.same(got.data, pooler_output!.data)
})
