// Whole models on the CUDA device, by the simulator: small ones against the original authors' outputs, a real sentence encoder and a real ViT on one
// input each. `npm run test:cuda-models` runs every folder of test/fixtures/parity and of the shared data.

import { readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { AutoProcessor } from '../../lib/data/processor.js'
import { AutoTokenizer } from '../../lib/data/tokenizer.js'
import { readTensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import type { Model } from '../../lib/models/model.js'
import { noShared, shared } from '../shared.js'
import { compareWithReference, difference, fixture, parityFolders } from '../support/models.js'
import { noSimulator } from '../support/simulator.js'

/** CHIASMA_TEST_DEVICE: another device than the simulator. */
const deviceName = process.env['CHIASMA_TEST_DEVICE'] ?? 'cuda-sim'
const all = process.env['CHIASMA_CUDA_MODELS'] === 'all'
const dtypes = ['f32', 'bf16', 'f16']
/** Of each kind of tower one, which `npm test` takes. */
const usual = new Set([
  ...['bert-v5', 'clip-text', 'minilm-st', 'modernbert-classifier-holes', 'qwen3-sliding-right'],
  ...['clip-v5', 'vit-v5', 'dinov3-oblong', 'resnet-tiny-picture', 'wav2vec2-group-mask', 'visual-bert-vqa-holes'],
])
const folders = [...parityFolders()].filter(([name]) => all || usual.has(name))

const load = (folder: string, dtype: string) => AutoModel.fromPretrained(folder, { device: deviceName, dtype })

t.test(`on ${deviceName}`, { skip: deviceName === 'cuda-sim' && noSimulator, timeout: 3_000_000 }, async t => {
  for (const [name, folder] of folders) {
    for (const dtype of dtypes) {
      await t.test(`${name} ${dtype}`, async t => {
        await using model = await load(folder, dtype)
        t.match(model, { device: deviceName, dtype })
        await compareWithReference(t, model, folder, 1e-4)
      })
    }
  }

  await t.test('a text has the same bits whatever it is beside', async t => {
    for (const dtype of dtypes) {
      await using model = await load(fixture('minilm-st'), dtype)
      const encoder = model.textEncoder!
      const sequences = [5, 1, 9, 30, 2, 17].map((length, s) => Int32Array.from({ length }, (_, i) => 3 + ((i * 7 + s * 11) % 40)))
      const rows = (data: Float32Array) => sequences.map((_, s) => [...data.subarray(s * encoder.dimensions, (s + 1) * encoder.dimensions)])
      const together = rows(await encoder.encode(sequences))
      for (const [s, sequence] of sequences.entries()) t.same([...(await encoder.encode([sequence]))], together[s], `${dtype}, text ${s} alone`)
      const backwards = rows(await encoder.encode([...sequences].reverse())).reverse()
      t.same(backwards, together, `${dtype}, in another order`)
    }
  })

  for (const dtype of all ? dtypes : ['bf16']) {
    await t.test(`all-minilm-l6-v2 ${dtype}`, { skip: noShared }, async t => {
      const folder = shared('models', 'all-minilm-l6-v2')
      const [line] = readFileSync(shared('data', 'sts', 'dev.jsonl'), 'utf8').split('\n', 1)
      const tokens = await (await AutoTokenizer.fromPretrained(folder)).encodeAll([(JSON.parse(line!) as { a: string }).a])
      const reference = (await readTensors(shared('data', 'sts', 'dev.reference.safetensors')))['embeddings_a']!
      await using model = await load(folder, dtype)
      near(t, model, await model.textEncoder!.encode(tokens), reference)
    })

    await t.test(`vit-tiny-imagenet ${dtype}`, { skip: noShared }, async t => {
      const folder = shared('models', 'vit-tiny-imagenet')
      const [name] = Object.keys(JSON.parse(readFileSync(shared('data', 'photos', 'labels.json'), 'utf8')) as object)
      const { pixel_values } = await (await AutoProcessor.fromPretrained(folder))([shared('data', 'photos', name!)], { output: 'uint8' })
      const reference = (await readTensors(shared('data', 'photos', 'reference.safetensors')))['last_hidden_state_cls']!
      await using model = await load(folder, dtype)
      near(t, model, await model.imageEncoder!.encode(pixel_values.data as Uint8Array, 1), reference)
    })
  }
})

/** The embedding of the reference's first input: its direction, within what the dtype allows. */
function near(t: Test, model: Model, embedding: Float32Array, reference: Tensor): void {
  const width = reference.dims[1]!
  const expected = new Tensor('float32', reference.data.subarray(0, width) as Float32Array, [1, width])
  const { cosine } = difference(new Tensor('float32', embedding, [1, width]), expected)
  t.ok(cosine >= (model.dtype === 'bf16' ? 0.999 : 0.99999), `cosine ${cosine}`)
}
