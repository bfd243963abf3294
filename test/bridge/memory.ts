// What is made natively is freed: by dispose, by the collector, after failures; and not while work needs it.

import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { AutoModel, memoryUsage, Tensor } from '../../lib/index.js'
import { fixture } from '../support/models.js'

const script = fileURLToPath(new URL('../support/bridge/memory.mjs', import.meta.url))

async function play(scene: string): Promise<Record<string, unknown>> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--expose-gc', script, scene], { env: { ...process.env, NODE_OPTIONS: '' } })
  return JSON.parse(stdout) as Record<string, unknown>
}

const megabyte = 1 << 20

t.test('dispose frees: 60 rounds of devices, weights and runs grow by less than 12 MB', async (t) => {
  const { grown } = await play('disposed') // a round takes some 3 MB
  t.ok((grown as number) < 12 * megabyte, `grew by ${Math.round((grown as number) / megabyte)} MB`)
})

t.test('the collector frees handles that were never disposed of', async (t) => {
  const usage = await play('collected')
  t.equal(usage.weights, 0, 'no weights are left')
})

t.test('work under way outlives its handles', async (t) => {
  t.same(await play('orphans'), { right: true })
})

t.test('failed, cancelled and refused work leaves nothing', async (t) => {
  const { grown } = await play('failed') // a round copies some 2 MB
  t.ok((grown as number) < 12 * megabyte, `grew by ${Math.round((grown as number) / megabyte)} MB`)
})

t.test('memory is accounted for', async (t) => {
  type State = Record<'weights' | 'arena' | 'total', number>
  const { start, loaded, ran, end } = (await play('accounted')) as Record<string, State>
  const near = (bytes: number, expected: number, what: string) =>
    t.ok(Math.abs(bytes - expected) < 2 * megabyte, `${what}: ${(bytes / megabyte).toFixed(1)} MB, expected about ${expected / megabyte}`)
  t.same(start, { weights: 0, arena: 0, total: 0 })
  near(loaded!.weights, 8 * megabyte, 'weights')
  near(ran!.arena, 16 * megabyte, 'arena')
  t.equal(ran!.total, ran!.weights + ran!.arena)
  t.same(end, { weights: 0, arena: 0, total: 0 })
})

t.test('the collector knows of memory outside its heap', async (t) => {
  const { most } = (await play('pressure')) as { most: number }
  t.ok(most < 400 * megabyte, `${Math.round(most / megabyte)} MB at most, of 960`)
})

t.test('memory for inputs is kept for the next ones, and does not grow', async (t) => {
  const { grown } = (await play('staged')) as { grown: number } // 12 rounds copy some 600 MB
  t.ok(grown < 64 * megabyte, `grew by ${Math.round(grown / megabyte)} MB`)
})

t.test('models loaded, run and disposed of again and again', async (t) => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const inputs = { input_ids: new Tensor('int32', new Int32Array(24).fill(98), [2, 12]), pixel_values: new Tensor('uint8', new Uint8Array(2 * 24 * 24 * 3), [2, 24, 24, 3]) }
  const rounds = async (count: number): Promise<{ rss: number; heapUsed: number }> => {
    for (let i = 0; i < count; ++i) {
      const model = await AutoModel.fromPretrained(fixture('clip-v5'), { device: 'cpu', dtype: 'f32' })
      await model.forward(inputs, { outputs: ['text_embeds', 'image_embeds'] })
      await model.dispose()
    }
    for (let i = 0; i < 4; ++i) {
      collect()
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    return process.memoryUsage()
  }
  const grown: { heap: number; rss: number }[] = []
  let before = await rounds(20)
  // A leak grows it each time, what the allocator keeps does not.
  for (let time = 0; time < 3; time++) {
    const after = await rounds(20)
    grown.push({ heap: (after.heapUsed - before.heapUsed) / megabyte, rss: (after.rss - before.rss) / megabyte })
    before = after
  }
  t.same(memoryUsage(), {}, 'no device is left')
  const [heap, rss] = [Math.min(...grown.map(({ heap }) => heap)), Math.min(...grown.map(({ rss }) => rss))]
  t.ok(heap < 1.5, `the heap grew by ${heap.toFixed(1)} MB`)
  t.ok(rss < 16, `the process grew by ${rss.toFixed(1)} MB`)
})
