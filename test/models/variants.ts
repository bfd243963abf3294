// The same weights in other forms that checkpoints come in: a tower alone, prefixed and older names, other poolings, dense modules.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { readTensors, writeSafetensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { difference, fixture, random, sameBits, variant } from '../support/models.js'

async function run(folder: string, inputs: Record<string, Tensor>, outputs?: string[]) {
  await using model = await AutoModel.fromPretrained(folder, { dtype: 'f32', device: 'cpu' })
  return { outputs: await model.forward(inputs, { outputs }), unused: model.unusedTensors, model }
}

const inputsOf = (name: string) => readTensors(join(fixture(name), 'inputs.safetensors'))

t.test('a CLIP tower alone', async t => {
  const { pixel_values, ...texts } = (await inputsOf('clip-v5')) as Record<string, Tensor> & { pixel_values: Tensor }
  const expected = await readTensors(join(fixture('clip-v5'), 'expected.safetensors'))
  for (const [tower, inputs, embeds, prefix] of [
    ['Vision', { pixel_values }, 'image_embeds', 'vision_'],
    ['Text', texts, 'text_embeds', 'text_'],
  ] as const) {
    const projected = await run(variant(t, 'clip-v5', c => (c['architectures'] = [`CLIP${tower}ModelWithProjection`])), inputs)
    t.ok(difference(projected.outputs[embeds]!, expected[`${embeds}_unnormalized`]!).max < 2e-5, 'not normalised, as in the reference')
    t.ok(difference(projected.outputs['pooler_output']!, expected[`${prefix}pooler_output`]!).max < 2e-5)
    t.ok(projected.unused.some(name => name.startsWith(tower === 'Vision' ? 'text_model.' : 'vision_model.')))
    const plain = await run(variant(t, 'clip-v5', c => (c['architectures'] = [`CLIP${tower}Model`])), inputs)
    t.strictSame(Object.keys(plain.outputs), ['last_hidden_state', 'pooler_output'])
    // Alone, a tower's configuration is the file.
    const flat = variant(t, 'clip-v5', c => {
      const own = { ...c[`${tower.toLowerCase()}_config`], projection_dim: 20, architectures: [`CLIP${tower}ModelWithProjection`] }
      for (const key of Object.keys(c)) delete c[key]
      Object.assign(c, own)
    })
    t.ok(sameBits((await run(flat, inputs)).outputs[embeds]!, projected.outputs[embeds]!))
  }
})

t.test("BLIP's towers alone, in the pair's file and described by themselves", async t => {
  const { pixel_values, input_ids, attention_mask } = (await inputsOf('blip-itm-odd')) as Record<'pixel_values' | 'input_ids' | 'attention_mask', Tensor>
  const expected = await readTensors(join(fixture('blip-itm-odd'), 'expected.safetensors'))
  for (const [tower, inputs] of [['Vision', { pixel_values }], ['Text', { input_ids, attention_mask }]] as const) {
    const inPair = await run(variant(t, 'blip-itm-odd', c => (c['architectures'] = [`Blip${tower}Model`])), inputs)
    const alone = await run(
      variant(t, 'blip-itm-odd', c => {
        const own = { ...c[`${tower.toLowerCase()}_config`], architectures: [`Blip${tower}Model`] }
        for (const key of Object.keys(c)) delete c[key]
        Object.assign(c, own)
      }),
      inputs,
    )
    t.ok(sameBits(inPair.outputs['last_hidden_state']!, alone.outputs['last_hidden_state']!))
    if (tower === 'Text') continue
    t.ok(difference(alone.outputs['last_hidden_state']!, expected['vision_last_hidden_state']!).max < 2e-5)
    t.ok(difference(alone.outputs['pooler_output']!, expected['vision_pooler_output']!).max < 2e-5)
  }
})

t.test('pictures of a single patch have one token each', async t => {
  const folder = variant(t, 'siglip-v5', c => (c['vision_config']['image_size'] = 8))
  const file = join(folder, 'model.safetensors')
  const tensors = await readTensors(file)
  const name = 'vision_model.embeddings.position_embedding.weight'
  await writeSafetensors(file, { ...tensors, [name]: new Tensor('float32', tensors[name]!.data.slice(0, 32) as Float32Array, [1, 32]) })
  const next = random(3)
  const { outputs } = await run(folder, { pixel_values: new Tensor('float32', Float32Array.from({ length: 2 * 3 * 64 }, next), [2, 3, 8, 8]) })
  t.strictSame(outputs['vision_last_hidden_state']!.dims, [2, 1, 32])
  t.strictSame(outputs['vision_pooler_output']!.dims, [2, 32])
})

t.test('prefixed, with a head, and with older names', async t => {
  const inputs = await inputsOf('bert-v5')
  const plain = await run(fixture('bert-v5'), inputs)
  const folder = variant(t, 'bert-v5', c => (c['architectures'] = ['BertForMaskedLM']))
  const tensors = await readTensors(join(folder, 'model.safetensors'))
  const renamed = Object.entries(tensors)
    .filter(([name]) => !name.startsWith('pooler'))
    .map(([name, tensor]) => [`bert.${name.replace('LayerNorm.weight', 'LayerNorm.gamma').replace('LayerNorm.bias', 'LayerNorm.beta')}`, tensor] as const)
  const head = new Tensor('float32', new Float32Array(120), [120])
  await writeSafetensors(join(folder, 'model.safetensors'), { ...Object.fromEntries(renamed), 'cls.predictions.bias': head })
  const other = await run(folder, inputs)
  t.strictSame(Object.keys(other.outputs), ['last_hidden_state'], 'no pooler, no pooler_output')
  t.ok(sameBits(other.outputs['last_hidden_state']!, plain.outputs['last_hidden_state']!))
  t.strictSame(other.unused, ['cls.predictions.bias'])
  await t.rejects(run(folder, inputs, ['pooler_output']), { code: 'ERR_CHECKPOINT', missing: ['bert.pooler.dense.weight'] })
})

t.test('tensors with the names that transformers 5 has in memory', async t => {
  const attention = (name: string) => name.replace('attention.output.dense', 'attention.o_proj').replace(/attention\.attention\.([qkv])\w+/, 'attention.$1_proj')
  const ofViT = (name: string) => attention(name).replace('encoder.layer.', 'layers.').replace('intermediate.dense', 'mlp.fc1').replace(/(layers\.\d+)\.output\.dense/, '$1.mlp.fc2')
  for (const [name, rename] of [['vit-v5', ofViT], ['vit-pooler', ofViT], ['dinov2-classifier', attention], ['dinov2-registers-smaller', attention]] as const) {
    const folder = variant(t, name, () => {})
    const file = join(folder, 'model.safetensors')
    const tensors = Object.entries(await readTensors(file)).map(([tensor, value]) => [rename(tensor), value] as const)
    t.notOk(tensors.some(([tensor]) => tensor.includes('attention.attention')))
    await writeSafetensors(file, Object.fromEntries(tensors))
    const [given, own] = [await run(folder, await inputsOf(name)), await run(fixture(name), await inputsOf(name))]
    t.strictSame(given.unused, own.unused, name)
    for (const [output, tensor] of Object.entries(own.outputs)) t.ok(sameBits(given.outputs[output]!, tensor), `${name}: ${output}`)
  }
})

/** minilm-st with other modules. */
function sentence(t: Test, pooling: object, more: { name: string; type: string; config?: object }[] = []): string {
  const folder = variant(t, 'minilm-st', () => {})
  writeFileSync(join(folder, '1_Pooling', 'config.json'), JSON.stringify(pooling))
  const modules = (JSON.parse(readFileSync(join(folder, 'modules.json'), 'utf8')) as object[]).slice(0, 2)
  for (const { name, type, config } of more) {
    mkdirSync(join(folder, name), { recursive: true })
    if (config) writeFileSync(join(folder, name, 'config.json'), JSON.stringify(config))
    modules.push({ idx: modules.length, name: String(modules.length), path: name, type })
  }
  writeFileSync(join(folder, 'modules.json'), JSON.stringify(modules))
  return folder
}

t.test('poolings, in both spellings', async t => {
  const inputs = await inputsOf('minilm-st')
  const expected = await readTensors(join(fixture('minilm-st'), 'expected.safetensors'))
  const cases: [object, string][] = [
    [{ pooling_mode_cls_token: true, pooling_mode_mean_tokens: false }, 'cls_pooled'],
    [{ pooling_mode_max_tokens: true }, 'max_pooled'],
    [{ pooling_mode: 'mean' }, 'mean_pooled'],
    [{ pooling_mode: ['max'] }, 'max_pooled'],
  ]
  for (const [pooling, name] of cases) {
    const { outputs } = await run(sentence(t, pooling), inputs, ['sentence_embedding'])
    t.ok(difference(outputs['sentence_embedding']!, expected[name]!).max < 2e-5, `${name}, not normalised without the module`)
  }
  const last = await run(sentence(t, { pooling_mode_lasttoken: true }), inputs, ['sentence_embedding', 'last_hidden_state'])
  const states = last.outputs['last_hidden_state']!.data
  const lengths = [17, 9, 3]
  const ends = Float32Array.from({ length: 3 * 48 }, (_, i) => states[(Math.floor(i / 48) * 17 + lengths[Math.floor(i / 48)]! - 1) * 48 + (i % 48)] as number)
  t.ok(sameBits(last.outputs['sentence_embedding']!, new Tensor('float32', ends, [3, 48])))
  await t.rejects(run(sentence(t, { pooling_mode: 'median' }), inputs), { code: 'ERR_CHECKPOINT', field: 'pooling_mode', message: /1_Pooling\/config\.json: pooling_mode is median/ })
  await t.rejects(run(sentence(t, { pooling_mode: [] }), inputs), { code: 'ERR_CHECKPOINT', field: 'pooling_mode' })
})

t.test('what of the encoder an embedding is made of', async t => {
  const inputs = await inputsOf('minilm-st')
  const set = (settings: object, modules?: string[]) => {
    const folder = sentence(t, { pooling_mode: 'mean' })
    writeFileSync(join(folder, 'sentence_bert_config.json'), JSON.stringify(settings))
    if (modules) writeFileSync(join(folder, 'modules.json'), JSON.stringify(modules.map((type, idx) => ({ idx, name: String(idx), path: '', type: `sentence_transformers.models.${type}` }))))
    return folder
  }
  const text = (method: string, method_output_name: unknown) => ({ modality_config: { text: { method, method_output_name } } })
  const usual = { ...text('forward', ['last_hidden_state']), module_output_name: 'token_embeddings', config_kwargs: {} }
  const { outputs: plain } = await run(set(usual), inputs)
  t.ok(difference(plain['sentence_embedding']!, (await readTensors(join(fixture('minilm-st'), 'expected.safetensors')))['mean_pooled']!).max < 2e-5)

  const pooler = { ...text('forward', 'pooler_output'), module_output_name: 'sentence_embedding' }
  const { outputs: pooled, model } = await run(set(pooler, ['Transformer']), inputs)
  t.ok(sameBits(pooled['sentence_embedding']!, pooled['pooler_output']!))
  t.equal(model.textEncoder!.dimensions, 48)
  const { outputs: unit } = await run(set(pooler, ['Transformer', 'Normalize']), inputs)
  const { max, cosine } = difference(unit['sentence_embedding']!, pooled['pooler_output']!)
  t.ok(cosine > 0.999999 && max > 0)
  const without = set(pooler, ['Transformer'])
  const file = join(without, 'model.safetensors')
  await writeSafetensors(file, Object.fromEntries(Object.entries(await readTensors(file)).filter(([name]) => !name.startsWith('pooler.'))))
  await t.rejects(run(without, inputs), { name: 'CheckpointError', field: 'modality_config.text', missing: ['pooler.dense.weight'] })

  const refused: [object, string][] = [
    [text('forward', ['hidden_states', -2]), 'modality_config.text'],
    [text('forward', 'pooler_output'), 'modality_config.text'],
    [{ ...text('forward', 'last_hidden_state'), module_output_name: 'sentence_embedding' }, 'modality_config.text'],
    [{ modality_config: { message: { method: 'forward', method_output_name: 'last_hidden_state', format: 'flat' } } }, 'modality_config.message'],
    [{ config_kwargs: { hidden_act: 'relu' } }, 'config_kwargs'],
    [{ config_args: { hidden_act: 'relu' } }, 'config_args'],
    [{ transformer_task: 'fill-mask' }, 'transformer_task'],
  ]
  for (const [settings, field] of refused) {
    await t.rejects(run(set(settings), inputs), { name: 'UnsupportedError', field, message: /sentence_bert_config\.json: .* is .*, which is not supported/ }, JSON.stringify(settings))
  }
})

t.test('a dense module', async t => {
  const inputs = await inputsOf('minilm-st')
  const expected = await readTensors(join(fixture('minilm-st'), 'expected.safetensors'))
  const config = { in_features: 48, out_features: 10, bias: true, activation_function: 'torch.nn.modules.activation.Tanh' }
  const dense = { name: '2_Dense', type: 'sentence_transformers.models.Dense', config }
  const folder = sentence(t, { pooling_mode: 'mean' }, [dense, { name: '3_Normalize', type: 'sentence_transformers.models.Normalize' }])
  const next = random(5)
  const weight = Float32Array.from({ length: 480 }, () => next() - 0.5)
  const bias = Float32Array.from({ length: 10 }, () => next() - 0.5)
  await writeSafetensors(join(folder, '2_Dense', 'model.safetensors'), { 'linear.weight': new Tensor('float32', weight, [10, 48]), 'linear.bias': new Tensor('float32', bias, [10]) })
  const { outputs, model } = await run(folder, inputs)
  const mean = expected['mean_pooled']!.data
  const rows = Float32Array.from({ length: 30 }, (_, i) => {
    let sum = bias[i % 10]!
    for (let c = 0; c < 48; c++) sum += weight[(i % 10) * 48 + c]! * (mean[Math.floor(i / 10) * 48 + c] as number)
    return Math.tanh(sum)
  })
  const reference = new Tensor('float32', rows, [3, 10])
  t.ok(difference(outputs['sentence_embedding_unnormalized']!, reference).max < 2e-5)
  const { cosine } = difference(outputs['sentence_embedding']!, reference)
  t.ok(cosine > 0.999999)
  for (let r = 0; r < 3; r++) t.ok(Math.abs(Math.hypot(...(outputs['sentence_embedding']!.data.subarray(r * 10, r * 10 + 10) as Float32Array)) - 1) < 1e-5)
  t.equal(model.textEncoder!.dimensions, 10)

  const odd = sentence(t, { pooling_mode: 'mean' }, [{ ...dense, config: { ...config, activation_function: 'my.Own' } }])
  await t.rejects(run(odd, inputs), { code: 'ERR_UNSUPPORTED', message: /my\.Own/ })
  const outside = sentence(t, { pooling_mode: 'mean' }, [])
  const modules = JSON.parse(readFileSync(join(outside, 'modules.json'), 'utf8')) as { path: string }[]
  modules[1]!.path = '../elsewhere'
  writeFileSync(join(outside, 'modules.json'), JSON.stringify(modules))
  await t.rejects(run(outside, inputs), { code: 'ERR_CHECKPOINT', message: /modules\.json.*elsewhere/ })
})

t.test("an adapter's model with a classifier: logits are of clips, as where frames are labelled they are of frames", async t => {
  const inputs = await inputsOf('wav2vec2-reduced')
  const whole = await run(fixture('wav2vec2-reduced'), inputs)
  const [clips, frames, width] = whole.outputs['last_hidden_state']!.dims as [number, number, number]
  t.strictSame(whole.outputs['logits']!.dims, [clips, frames, 11])
  const folder = variant(t, 'wav2vec2-reduced', c => Object.assign(c, { architectures: ['Wav2Vec2Model'], classifier_proj_size: 6, num_labels: 3 }))
  const file = join(folder, 'model.safetensors')
  const next = random(3)
  const some = (...dims: number[]) => new Tensor('float32', Float32Array.from({ length: dims.reduce((a, b) => a * b) }, () => next() - 0.5), dims)
  const [projector, classifier, offsets, bias] = [some(6, width), some(3, 6), some(6), some(3)]
  const others = Object.entries(await readTensors(file)).filter(([name]) => !name.startsWith('lm_head.'))
  const heads = { 'projector.weight': projector, 'projector.bias': offsets, 'classifier.weight': classifier, 'classifier.bias': bias }
  await writeSafetensors(file, { ...Object.fromEntries(others), ...heads })
  const { outputs } = await run(folder, inputs)
  t.ok(sameBits(outputs['last_hidden_state']!, whole.outputs['last_hidden_state']!))
  const layer = (x: number[], { data, dims }: Tensor, b: Tensor) => Array.from({ length: dims[0]! }, (_, o) => x.reduce((sum, value, i) => sum + value * (data[o * dims[1]! + i] as number), b.data[o] as number))
  const states = outputs['last_hidden_state']!.data as Float32Array
  const expected = Array.from({ length: clips }, (_, clip) => {
    const mean = Array.from({ length: width }, (_, c) => Array.from({ length: frames }, (_, f) => states[(clip * frames + f) * width + c]!).reduce((a, b) => a + b) / frames)
    return layer(layer(mean, projector, offsets), classifier, bias)
  })
  t.strictSame(outputs['logits']!.dims, [clips, 3])
  t.ok(difference(outputs['logits']!, new Tensor('float32', Float32Array.from(expected.flat()), [clips, 3])).max < 1e-5)
})

t.test("tensors of wav2vec 2.0's heads that are missing are named", async t => {
  const inputs = await inputsOf('wav2vec2-weighted')
  const without = async (prefix: string) => {
    const folder = variant(t, 'wav2vec2-weighted', () => {})
    const file = join(folder, 'model.safetensors')
    await writeSafetensors(file, Object.fromEntries(Object.entries(await readTensors(file)).filter(([name]) => !name.startsWith(prefix))))
    return folder
  }
  await t.rejects(run(await without('layer_weights'), inputs), { name: 'CheckpointError', missing: ['layer_weights'] })
  await t.rejects(run(await without('projector.'), inputs, ['logits']), { name: 'CheckpointError', missing: ['projector.weight'] })
})
