// The encoders that stand behind Embedder: what they embed is what forward names, end-of-text cutting included.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { readTensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { difference, fixture, int64, random, sameBits, variant } from '../support/models.js'

/** The unmasked ids of each row. */
function sequences({ input_ids, attention_mask }: Record<string, Tensor>): Int32Array[] {
  const [rows, length] = input_ids!.dims as [number, number]
  return Array.from({ length: rows }, (_, r) => {
    const columns = Array.from({ length }, (_, c) => r * length + c).filter(i => !attention_mask || attention_mask.data[i] === 1n)
    return Int32Array.from(columns, i => Number(input_ids!.data[i]))
  })
}

const TEXTS = [
  { name: 'clip-vit-tiny', output: 'text_embeds_unnormalized' },
  { name: 'clip-v5', output: 'text_embeds_unnormalized' },
  { name: 'clip-hf-gelu-eosid', output: 'text_embeds_unnormalized' },
  { name: 'minilm-st', output: 'mean_pooled' },
]

for (const { name, output } of TEXTS) {
  t.test(`texts of ${name}`, async t => {
    await using model = await AutoModel.fromPretrained(fixture(name), { dtype: 'f32', device: 'cpu' })
    const inputs = await readTensors(join(fixture(name), 'inputs.safetensors'))
    const encoder = model.textEncoder!
    const got = await encoder.encode(sequences(inputs))
    const expected = (await model.forward(inputs, { outputs: [output] }))[output]!
    t.equal(encoder.dimensions, expected.dims[1])
    t.ok(sameBits(new Tensor('float32', got, expected.dims), expected))
  })
}

t.test('a text encoder without a folder of modules gives the mean over tokens', async t => {
  await using model = await AutoModel.fromPretrained(fixture('bert-v5'), { dtype: 'f32', device: 'cpu' })
  const ids = Int32Array.of(5, 6, 7)
  const { last_hidden_state: states } = await model.forward({ input_ids: new Tensor('int32', ids, [1, 3]) })
  const mean = Float32Array.from({ length: 32 }, (_, c) => ([0, 1, 2].reduce((sum, r) => sum + (states!.data[r * 32 + c] as number), 0)) / 3)
  const got = await model.textEncoder!.encode([ids])
  t.ok(difference(new Tensor('float32', got, [1, 32]), new Tensor('float32', mean, [1, 32])).max < 1e-6)
  t.equal(model.imageEncoder, undefined)
})

t.test('a text tower of a pair, alone, gives its first token', async t => {
  await using model = await AutoModel.fromPretrained(fixture('blip-text'), { dtype: 'f32', device: 'cpu' })
  const ids = Int32Array.of(5, 6, 7, 8)
  const { last_hidden_state: states } = await model.forward({ input_ids: new Tensor('int32', ids, [1, 4]) })
  t.same(await model.textEncoder!.encode([ids]), states!.data.subarray(0, states!.dims[2]))
})

t.test('pictures', async t => {
  const next = random(3)
  for (const { name, side, output } of [
    { name: 'clip-v5', side: 24, output: 'image_embeds_unnormalized' },
    { name: 'vit-v5', side: 24, output: 'last_hidden_state' },
  ]) {
    await using model = await AutoModel.fromPretrained(fixture(name), { dtype: 'f32', device: 'cpu' })
    const pixels = Uint8Array.from({ length: 5 * side * side * 3 }, () => next() * 256)
    const got = await model.imageEncoder!.encode(pixels, 5)
    const { dimensions } = model.imageEncoder!
    const expected = (await model.forward({ pixel_values: new Tensor('uint8', pixels, [5, side, side, 3]) }, { outputs: [output] }))[output]!
    const rowsPerImage = expected.size / dimensions / 5 // the class token is the first of them
    const first = Float32Array.from({ length: 5 * dimensions }, (_, i) => expected.data[Math.floor(i / dimensions) * rowsPerImage * dimensions + (i % dimensions)] as number)
    t.ok(sameBits(new Tensor('float32', got, [5, dimensions]), new Tensor('float32', first, [5, dimensions])), name)
    t.strictSame(model.imageEncoder!.size, { height: side, width: side })
    await t.rejects(model.imageEncoder!.encode(pixels, 4), { code: 'ERR_ARGUMENT' })
  }
})

t.test('max_seq_length bounds what is embedded, not what forward takes', async t => {
  const folder = variant(t, 'minilm-st', () => {})
  writeFileSync(join(folder, 'sentence_bert_config.json'), '{"max_seq_length": 7}')
  await using model = await AutoModel.fromPretrained(folder, { dtype: 'f32', device: 'cpu' })
  t.equal(model.textEncoder!.maxLength, 7)
  t.ok(await model.forward({ input_ids: int64([new Array<number>(32).fill(5)]) }))
})

t.test('token ids and lengths are checked', async t => {
  await using model = await AutoModel.fromPretrained(fixture('clip-v5'), { dtype: 'f32', device: 'cpu' })
  const { textEncoder } = model
  await t.rejects(textEncoder!.encode([Int32Array.of(97, 98), Int32Array.of(97, 99, 98)]), { code: 'ERR_ARGUMENT', index: 1, message: /text 1 has the token id 99 at position 1/ })
  await t.rejects(textEncoder!.encode([Int32Array.of()]), { code: 'ERR_ARGUMENT', index: 0 })
  await t.rejects(textEncoder!.encode([new Int32Array(13).fill(5).fill(98, 12)]), { message: /text 0 has 13 tokens; this model takes at most 12/ })
  t.equal((await textEncoder!.encode([])).length, 0)
  t.equal((await textEncoder!.encode([Int32Array.of(97, 5, 98)])).length, 20, 'and the encoder works on')
})
