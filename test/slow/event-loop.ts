// The event loop stays free: delays of a timer while large batches of ready tensors run, and while a folder of photos is embedded.
// The best of three runs of ten seconds counts, since other processes may hold the machine.

import { copyFile, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import sharp from 'sharp'
import t, { type Test } from 'tap'
import { Embedder, ops, Tensor } from '../../lib/index.js'
import { temporaryFolder } from '../support/tiny-clip.js'
import { writeRandomViT } from '../support/random-vit.js'

const seconds = 10

const { folder, remove } = await temporaryFolder()
const embedder = await Embedder.fromPretrained(await writeRandomViT(join(folder, 'model')))
t.teardown(async () => {
  await embedder.dispose()
  await remove()
})

/** Runs `work` again and again for some seconds and measures by how much a timer comes late, in milliseconds. */
async function delays(work: (signal: AbortSignal) => Promise<void>): Promise<{ p99: number; max: number; count: number }> {
  const late: number[] = []
  let last = performance.now()
  const timer = setInterval(() => {
    const now = performance.now()
    late.push(Math.max(0, now - last - 2))
    last = now
  }, 2)
  const signal = AbortSignal.timeout(seconds * 1000)
  try {
    while (!signal.aborted) await work(signal)
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    clearInterval(timer)
  }
  late.sort((a, b) => a - b)
  return { p99: late[Math.floor(late.length * 0.99)]!, max: late.at(-1)!, count: late.length }
}

async function bestOfThree(t: Test, p99: number, max: number, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
  const runs = []
  for (let run = 0; run < 3; run++) {
    const measured = await delays(work)
    t.comment(`p99 ${measured.p99.toFixed(1)} ms, longest ${measured.max.toFixed(1)} ms of ${measured.count} timers`)
    runs.push(measured)
    if (measured.p99 < p99 && measured.max < max) break
  }
  t.ok(runs.some((run) => run.count > 100 && run.p99 < p99 && run.max < max), `p99 under ${p99} ms, none over ${max} ms`)
}

t.test('large batches of ready tensors', async (t) => {
  const pixels = new Tensor('uint8', new Uint8Array(512 * 224 * 224 * 3).fill(100), [512, 224, 224, 3])
  const floats = new Tensor('float32', new Float32Array(64 * 3 * 224 * 224).fill(0.5), [64, 3, 224, 224])
  await embedder.embedImages(new Tensor('uint8', new Uint8Array(224 * 224 * 3), [1, 224, 224, 3])) // warm
  await bestOfThree(t, 15, 50, async (signal) => {
    await Promise.all([
      embedder.embedImages(pixels, { signal }),
      embedder.model.forward({ pixel_values: floats }, { outputs: ['last_hidden_state'], signal }),
    ])
  })
})

t.test('a folder', async (t) => {
  const photos = join(folder, 'photos')
  await mkdir(photos)
  const noise = await sharp({ create: { width: 500, height: 375, channels: 3, background: 'black', noise: { type: 'gaussian', mean: 128, sigma: 40 } } }).jpeg().toBuffer()
  await sharp(noise).toFile(join(photos, '0.jpg'))
  const paths = [join(photos, '0.jpg')]
  for (let i = 1; i < 200; i++) {
    await copyFile(paths[0]!, join(photos, `${i}.jpg`))
    paths.push(join(photos, `${i}.jpg`))
  }
  await bestOfThree(t, 30, Number.POSITIVE_INFINITY, async (signal) => {
    for await (const { error } of embedder.embedStream(paths, { signal })) if (error) throw error
  })
})

t.test('large ops on host tensors', async (t) => {
  const halves = (...dims: number[]) => new Tensor('float32', new Float32Array(dims.reduce((a, b) => a * b)).fill(0.5), dims)
  const images = new Tensor('uint8', new Uint8Array(512 * 224 * 224 * 3), [512, 224, 224, 3])
  const weight = halves(192, 3, 16, 16)
  const q = halves(16, 12, 512, 64)
  const corpus = halves(100_000, 256)
  const queries = halves(16, 256)
  const work = [
    (signal?: AbortSignal) => ops.patchEmbed(images, weight, { signal }),
    (signal?: AbortSignal) => ops.attention(q, q, q, { signal }),
    (signal?: AbortSignal) => ops.cosineTopK(queries, corpus, 10, { signal }),
    (signal?: AbortSignal) => ops.cosineSimilarity(queries, corpus, { signal }),
  ]
  for (const once of work) await once() // the first call opens the device and is not yet compiled by the engine
  let turn = 0
  await bestOfThree(t, 15, 50, async (signal) => {
    await work[turn++ % work.length]!(signal)
  })
})
