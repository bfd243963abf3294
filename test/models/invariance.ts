// The same input gives the same bits whatever its batch, neighbours, order, bucket and thread count: 1,000 texts and pictures, embedded
// together, permuted and cut into batches of random sizes, on one thread and on several, with every instruction set in both dtypes.

import t from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { fixture, instructionSets, random, sameBits } from '../support/models.js'

const COUNT = 1000

/** A random order of 0 … n − 1, cut into pieces of random size. */
function batches(n: number, most: number, next: () => number): number[][] {
  const order = Array.from({ length: n }, (_, i) => i)
  for (let i = n - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1))
    ;[order[i], order[j]] = [order[j]!, order[i]!]
  }
  const cut: number[][] = []
  for (let at = 0; at < n; ) {
    const size = 1 + Math.floor(next() ** 3 * most)
    cut.push(order.slice(at, at + size))
    at += size
  }
  return cut
}

/** How many of the batch came out with other bits than among all. */
function changed(all: Float32Array, some: Float32Array, batch: readonly number[], width: number): number {
  return batch.filter((index, i) => {
    const expected = new Tensor('float32', all.slice(index * width, (index + 1) * width), [width])
    return !sameBits(expected, new Tensor('float32', some.slice(i * width, (i + 1) * width), [width]))
  }).length
}

const TEXT_MODELS = ['clip-v5', 'clip-hf-gelu-eosid', 'minilm-st', 'mpnet', 'distilbert', 'modernbert-classifier-holes', 'qwen3-sliding-right', 'open-clip-roberta', 'coca']
const IMAGE_MODELS = ['clip-v5', 'vit-v5', 'dinov3-oblong', 'coca']

const sets = await instructionSets()
for (const isa of sets) {
  for (const dtype of ['f32', 'bf16']) {
    // All models with the best set; with the others, which are slower, one of each kind.
    for (const name of isa === sets.at(-1) ? TEXT_MODELS : ['clip-v5', 'minilm-st']) {
      await t.test(`texts ${name} ${dtype} ${isa}`, async t => {
        const next = random(7)
        await using model = await AutoModel.fromPretrained(fixture(name), { dtype, isa, device: 'cpu' })
        const encoder = model.textEncoder!
        const texts = Array.from({ length: COUNT }, () =>
          Int32Array.from({ length: 1 + Math.floor(next() * Math.min(encoder.maxLength, 24)) }, () => 3 + Math.floor(next() * 60)),
        )
        const all = await encoder.encode(texts)
        await using single = await AutoModel.fromPretrained(fixture(name), { dtype, isa, device: 'cpu', threads: 1 })
        for (const other of [encoder, single.textEncoder!]) {
          let different = 0
          for (const batch of batches(COUNT, 150, next)) {
            different += changed(all, await other.encode(batch.map(i => texts[i]!)), batch, encoder.dimensions)
          }
          t.equal(different, 0)
        }
      })
    }
    for (const name of isa === sets.at(-1) ? IMAGE_MODELS : ['vit-v5']) {
      await t.test(`pictures ${name} ${dtype} ${isa}`, async t => {
        const next = random(8)
        await using model = await AutoModel.fromPretrained(fixture(name), { dtype, isa, device: 'cpu' })
        const encoder = model.imageEncoder!
        const size = encoder.size.height * encoder.size.width * 3
        const count = size < 20_000 ? COUNT : COUNT / 10 // large ones take long
        const pictures = Uint8Array.from({ length: count * size }, () => next() * 256)
        const all = await encoder.encode(pictures, count)
        await using single = await AutoModel.fromPretrained(fixture(name), { dtype, isa, device: 'cpu', threads: 1 })
        for (const other of [encoder, single.imageEncoder!]) {
          let different = 0
          for (const batch of batches(count, 60, next)) {
            const pixels = new Uint8Array(batch.length * size)
            batch.forEach((index, i) => pixels.set(pictures.subarray(index * size, (index + 1) * size), i * size))
            different += changed(all, await other.encode(pixels, batch.length), batch, encoder.dimensions)
          }
          t.equal(different, 0)
        }
      })
    }
  }
}
