// Whole models on the CUDA device, by the simulator: small ones against the original authors' outputs, a real sentence encoder and a real ViT on one
// input each. `npm run test:cuda-models` runs all of them, in every dtype.

import { readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { Device } from '../../lib/core/device.js'
import { Tensor } from '../../lib/core/tensor.js'
import { AutoProcessor } from '../../lib/data/processor.js'
import { AutoTokenizer } from '../../lib/data/tokenizer.js'
import { readTensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import type { Model } from '../../lib/models/model.js'
import { noShared, shared } from '../shared.js'
import { compareWithReference, difference, parityFolder } from '../support/models.js'
import { noSimulator } from '../support/simulator.js'

/** CHIASMA_TEST_DEVICE: another device than the simulator. */
const deviceName = process.env['CHIASMA_TEST_DEVICE'] ?? 'cuda-sim'
const all = process.env['CHIASMA_CUDA_MODELS'] === 'all'
const dtypes = ['f32', 'bf16', 'f16']
const texts = ['bert-v5', 'clip-text', 'minilm-st', 'modernbert-classifier-holes', 'qwen3-sliding-right', ...(all ? ['modernbert', 'qwen3', 'qwen3-llama3', 'qwen3-yarn-scales', 'bert', 'bert-f16', 'bert-bf16', 'bert-sharded', 'bert-odd-widths', 'distilbert', 'mpnet', 'mpnet-holes', 'xlm-roberta'] : [])]
const images = [
  ...['clip-v5', 'vit-v5', 'dinov3-oblong', 'resnet-tiny-picture', 'wav2vec2-group-mask'],
  ...(all ? ['dinov3', 'clip-vit-tiny', 'clip-hf-gelu-eosid', 'vit-pooler', 'vit-nopooler', 'vit-oblong-odd', 'vit-no-qkv-bias', 'siglip', 'dinov2', 'chinese-clip', 'blip-base', 'dual-encoder'] : []),
  ...(all ? ['open-clip-trunk-siglip', 'open-clip-roberta', 'coca', 'open-clip-vit-scaled', 'timm-vit-oblong', 'timm-vit-registers', 'timm-vit-map-registers', 'dinov2-classifier', 'dinov2-registers-smaller'] : []),
  ...(all ? ['resnet', 'resnet-bottleneck-first', 'clip-rn-tiny', 'clip-rn-narrow', 'align', 'align-odd', 'wav2vec2-group', 'wav2vec2-ctc', 'wav2vec2-layer-holes', 'wav2vec2-weighted'] : []),
]
/** Text and picture together, and pictures of sizes of their own. */
const together = ['visual-bert-vqa-holes', ...(all ? ['uniter-first-masked', 'vilt-sizes', 'uniter-other-heads', 'vl-bert-scaled', 'vl-bert-vqa', 'vl-bert-vcr', 'vl-bert-refcoco', 'lxmert-odd', 'blip-itm-odd', 'siglip2-odd', 'visual-bert', 'uniter', 'vilt', 'vl-bert', 'lxmert', 'blip-itm', 'siglip2'] : [])]

const load = (folder: string, dtype: string) => AutoModel.fromPretrained(folder, { device: deviceName, dtype })

t.test(`on ${deviceName}`, { skip: deviceName === 'cuda-sim' && noSimulator, timeout: 3_000_000 }, async t => {
  const device = await Device.open({ device: deviceName })
  const seesPictures = device.hasOp('patchEmbed')
  await device.dispose()

  for (const name of [...texts, ...images, ...together]) {
    const folder = parityFolder(name)
    if (images.includes(name) && !seesPictures) {
      await t.test(`${name} needs an op without a kernel`, { skip: !folder && noShared }, async t => {
        await t.rejects(load(folder!, 'bf16'), { name: 'UnsupportedError', message: /\[load\] the model needs 'patchEmbed', for which .* has no kernel/ })
      })
      continue
    }
    for (const dtype of dtypes) {
      await t.test(`${name} ${dtype}`, { skip: !folder && noShared }, async t => {
        await using model = await load(folder!, dtype)
        t.match(model, { device: deviceName, dtype })
        await compareWithReference(t, model, folder!, 1e-4)
      })
    }
  }

  await t.test('a text has the same bits whatever it is beside', { skip: !parityFolder('minilm-st') }, async t => {
    for (const dtype of dtypes) {
      await using model = await load(parityFolder('minilm-st')!, dtype)
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

    await t.test(`vit-tiny-imagenet ${dtype}`, { skip: noShared || (!seesPictures && 'patchEmbed has no CUDA kernel yet') }, async t => {
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
