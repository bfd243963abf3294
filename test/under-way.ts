// What a caller may do while a call is under way: abort it in the middle of one long op, and take away or change the memory of its inputs.

import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { compile } from '../lib/core/compile.js'
import { Device } from '../lib/core/device.js'
import type { DataType, TensorData } from '../lib/core/dtype.js'
import { AutoModel, Embedder, ops, Tensor, VectorIndex } from '../lib/index.js'
import { attention } from '../lib/ops/index.js'
import { fixture } from './support/models.js'
import { temporaryFolder, writeTinyClip } from './support/tiny-clip.js'

function filled(type: DataType, dims: number[], value = 1): Tensor {
  const size = dims.reduce((a, b) => a * b, 1)
  const data = type === 'uint8' ? new Uint8Array(size) : type === 'int32' ? new Int32Array(size) : new Float32Array(size)
  return new Tensor(type, data.fill(value) as TensorData, dims)
}

/** Leaves the caller with an array of length 0, as postMessage with a transfer list does. */
const transfer = ({ data }: { data: TensorData | Uint8Array }) => structuredClone(data.buffer, { transfer: [data.buffer as ArrayBuffer] })

t.test('a signal rejects at once in the middle of one long op', async (t) => {
  const device = await Device.open({ device: 'cpu', dtype: 'f32' })
  t.teardown(() => device.dispose())
  const rows = 24_576
  const long = compile(
    ({ q }) => ({ y: attention(q!, q!, q!, { heads: 1, queryLength: rows, keyLength: rows }) }),
    { q: { shape: [rows, 64], dtype: 'float32' } },
    device,
  )
  const q = filled('float32', [rows, 64])
  const alone = performance.now()
  await long.run({ q })
  const whole = performance.now() - alone
  t.comment(`the op takes ${Math.round(whole)} ms`)
  const controller = new AbortController()
  const reason = new Error('enough')
  const run = long.run({ q: filled('float32', [rows, 64]) }, { signal: controller.signal })
  let aborted = 0
  setTimeout(() => {
    aborted = performance.now()
    controller.abort(reason)
  }, 50)
  await t.rejects(run, reason)
  const after = performance.now() - aborted
  t.ok(after < 250, `${Math.round(after)} ms after the abort, of an op of ${Math.round(whole)} ms`)
  const y = (await long.run({ q }))['y']!
  t.ok(Math.abs((y.data[rows * 64 - 1] as number) - 1) < 1e-4, 'the device goes on, with right results')
  long.dispose()
})

/** Starts `call`, takes the input away at once, and wants its result or a typed error that says so. */
async function takenAway(t: Test, name: string, input: { data: TensorData | Uint8Array }, call: () => Promise<unknown>): Promise<void> {
  const [end] = await Promise.allSettled([(() => {
    const running = call()
    transfer(input)
    return running
  })()])
  if (end!.status === 'rejected') t.match(end!.reason, { name: 'ArgumentError', message: /transferred|bytes; expected/ }, `${name}: ${(end!.reason as Error).message}`)
  else t.pass(`${name}: had been read`)
}

t.test('inputs transferred right after the call', async (t) => {
  const { folder, remove } = await temporaryFolder()
  const embedder = await Embedder.fromPretrained(await writeTinyClip(folder))
  const model = await AutoModel.fromPretrained(fixture('clip-v5'))
  const index = await VectorIndex.create({ dimensions: 8, dtype: 'int8' })
  t.teardown(async () => {
    await Promise.all([embedder.dispose(), model.dispose(), index.dispose()])
    await remove()
  })
  const weight = filled('float32', [4, 3, 8, 8])
  const images = () => filled('uint8', [300, 96, 96, 3])
  const many = () => filled('float32', [2, 3, 2000, 64])

  const attended = many()
  await takenAway(t, 'ops.attention', attended, () => ops.attention(many(), attended, many()))
  const pictures = images()
  await takenAway(t, 'ops.patchEmbed, images', pictures, () => ops.patchEmbed(pictures, weight))
  const projection = filled('float32', [4, 3, 8, 8])
  await takenAway(t, 'ops.patchEmbed, weight', projection, () => ops.patchEmbed(images(), projection))
  const corpus = filled('float32', [30_000, 64])
  await takenAway(t, 'ops.cosineTopK', corpus, () => ops.cosineTopK(filled('float32', [3, 64]), corpus, 5))
  const b = filled('float32', [30_000, 64])
  await takenAway(t, 'ops.cosineSimilarity', b, () => ops.cosineSimilarity(filled('float32', [3, 64]), b))

  const [height, width] = [24, 24]
  const pixels = filled('float32', [2000, 3, height, width])
  await takenAway(t, 'forward, pixel_values', pixels, () => model.forward({ pixel_values: pixels }, { outputs: ['image_embeds'] }))
  const ids = filled('int32', [3000, 12], 98)
  await takenAway(t, 'forward, input_ids', ids, () => model.forward({ input_ids: ids }, { outputs: ['text_embeds'] }))
  const ready = filled('uint8', [4000, height, width, 3])
  await takenAway(t, 'embedImages, a tensor', ready, () => embedder.embedImages(ready))
  const raw = { data: new Uint8Array(3000 * 2000 * 3).fill(7), width: 3000, height: 2000, channels: 3 as const }
  await takenAway(t, 'embedImages, raw pixels', raw, () => embedder.embedImages([raw]))

  const vectors = filled('float32', [300_000, 8])
  await takenAway(t, 'VectorIndex.add', vectors, () => index.add(vectors))
  await index.add(filled('float32', [10, 8]))
  const queries = filled('float32', [500, 8])
  await takenAway(t, 'VectorIndex.search', queries, () => index.search(queries, 3))
})

t.test('inputs transferred or changed while pieces of them are computed', async (t) => {
  const pictures = filled('uint8', [400, 96, 96, 3])
  const weight = filled('float32', [4, 3, 8, 8])
  const first = ops.patchEmbed(pictures, weight)
  await sleep(5)
  transfer(pictures)
  const [end] = await Promise.allSettled([first])
  t.ok(end!.status === 'fulfilled' || /transferred/.test(String(end!.reason)), 'ends with the result or a typed error')

  const corpus = filled('float32', [60_000, 64])
  const search = ops.cosineTopK(filled('float32', [2, 64]), corpus, 5)
  const timer = setInterval(() => (corpus.data as Float32Array).fill(Math.random()), 1)
  const { scores } = await search
  clearInterval(timer)
  t.ok((scores.data as Float32Array).every((score) => score > 0.999 && score < 1.001), 'each row is read once, as it is then')
})
