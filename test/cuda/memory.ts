// Two simulated GPUs of 4 MiB each: memory that ends is a typed error after which the device works on, and batches shrink to what there is room for.

import t from 'tap'
import { compile } from '../../lib/core/compile.js'
import { Device, listDevices, memoryUsage } from '../../lib/core/device.js'
import { OutOfMemoryError } from '../../lib/core/errors.js'
import { Tensor } from '../../lib/core/tensor.js'
import type { Parameter } from '../../lib/core/value.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { inHalves } from '../../lib/models/programs.js'
import { softmax, unary } from '../../lib/ops/index.js'
import { fixture } from '../support/models.js'
import { noSimulator, simulate } from '../support/simulator.js'

const memory = 4 << 20
simulate({ memory, devices: 2 })

const width = 1024
const open = (device = 'cuda-sim') => Device.open({ device, dtype: 'f32' })
const rowsOf = (rows: number, first = 0) => new Tensor('float32', Float32Array.from({ length: rows * width }, (_, i) => Math.sin(first * width + i)), [rows, width])
const compiled = (device: Device, rows: number) =>
  compile(({ x }) => ({ y: softmax(unary(x!, 'gelu')) }), { x: { shape: [rows, width], dtype: 'float32', extent: { name: 'rows', per: 1 } } }, device)
/** Takes `bytes` of the device. */
const occupy = (device: Device, bytes: number) => {
  const held: Parameter = { name: 'held', shape: [bytes], dtype: 'uint8', role: 'plain' }
  return device.loadWeights([{ parameter: held, source: new Tensor('uint8', new Uint8Array(bytes), [bytes]) }])
}

t.test('halving', async t => {
  const attempt = async (count: number, room: number) => {
    const ran: [number, number][] = []
    const tried: number[] = []
    const most = await inHalves(0, count, async (from, items) => {
      tried.push(items)
      if (items > room) throw new OutOfMemoryError('no room')
      ran.push([from, items])
    })
    t.same(ran.flatMap(([from, items]) => Array.from({ length: items }, (_, i) => from + i)), Array.from({ length: count }, (_, i) => i), 'each once and in order')
    return { most, tried }
  }
  t.same(await attempt(7, 7), { most: 7, tried: [7] })
  t.same(await attempt(8, 3), { most: 2, tried: [8, 4, 2, 2, 2, 2] }, 'what had no room is not tried again')
  t.same(await attempt(5, 1), { most: 1, tried: [5, 3, 2, 1, 1, 1, 1, 1] })
  await t.rejects(attempt(5, 0), OutOfMemoryError)
  let tries = 0
  await t.rejects(inHalves(0, 4, () => Promise.reject(new Error(`try ${++tries}`))), { message: 'try 1' }, 'other errors are not tried again')
})

t.test('on the simulator', { skip: noSimulator }, async t => {
  await t.test('several devices are numbered', async t => {
    const devices = (await listDevices()).filter(({ kind }) => kind === 'cuda-sim')
    t.match(devices, [0, 1].map(i => ({ id: `cuda-sim:${i}`, available: true, memory: { total: memory }, computeCapability: '8.6' })))
    await using first = await open()
    await using second = await open('cuda-sim:1')
    t.equal(first.id, 'cuda-sim:0')
    t.equal(second.id, 'cuda-sim:1')
    const [a, b] = await Promise.all([first, second].map(device => compiled(device, 4).run({ x: rowsOf(4) })))
    t.same(a, b)
    const weights = await Promise.all([occupy(first, 1000), occupy(second, 2000)])
    t.match(memoryUsage(), { 'cuda-sim:0': { weights: 1000 }, 'cuda-sim:1': { weights: 2000 } })
    for (const each of weights) each.dispose()
    await t.rejects(open('cuda-sim:2'), { name: 'DeviceError', message: /'cuda-sim:2' is not/ })
  })

  await t.test('a plan, weights or a run for which there is no room are refused, and the device works on', async t => {
    await using device = await open()
    t.throws(() => compiled(device, 1000), { name: 'OutOfMemoryError', message: /the plan needs \d+ bytes; the device has 4194304/ })
    await t.rejects(occupy(device, memory + 1), { name: 'OutOfMemoryError', message: /the weights need 4194305 bytes/ })
    const held = await occupy(device, 3 << 20)
    await t.rejects(occupy(device, 2 << 20), { name: 'OutOfMemoryError', message: /no memory for 2097152 bytes on cuda-sim:0/ })
    t.equal(device.memoryUsage().weights, 3 << 20, 'what was loaded before it failed is given back')
    const [large, small] = [compiled(device, 300), compiled(device, 8)]
    const right = await small.run({ x: rowsOf(8) })
    for (let i = 0; i < 3; i++) {
      await t.rejects(large.run({ x: rowsOf(300) }), { name: 'OutOfMemoryError', code: 'ERR_OUT_OF_MEMORY' })
      t.same(await small.run({ x: rowsOf(8) }), right)
    }
    held.dispose()
    t.equal((await large.run({ x: rowsOf(300) })).y!.dims[0], 300, 'and there is room again')
  })

  await t.test('batches shrink to what fits, with the same bits', async t => {
    await using device = await open()
    await using other = await open('cuda-sim:1')
    const batch = async (on: Device) => {
      const result = new Float32Array(100 * width)
      const most = await inHalves(0, 100, async (from, count) => {
        const program = compiled(on, count)
        const { y } = await program.run({ x: rowsOf(count, from) })
        result.set(y!.data as Float32Array, from * width)
        program.dispose()
      })
      return { most, result }
    }
    const held = await occupy(device, memory - (400 << 10))
    const [tight, roomy] = [await batch(device), await batch(other)]
    t.ok(tight.most < 64 && tight.most >= 25, `${tight.most} rows at once`)
    t.equal(roomy.most, 100)
    t.same(Buffer.from(tight.result.buffer).equals(Buffer.from(roomy.result.buffer)), true)
    held.dispose()
  })

  await t.test('a model embeds many texts in what memory there is', async t => {
    await using occupied = await open()
    await using model = await AutoModel.fromPretrained(fixture('minilm-st'), { device: 'cuda-sim', dtype: 'bf16' })
    const encoder = model.textEncoder!
    const texts = Array.from({ length: 40 }, (_, s) => Int32Array.from({ length: 1 + (s % 7) }, (_, i) => 3 + ((i * 5 + s * 3) % 40)))
    const roomy = await encoder.encode(texts)
    const { arena } = memoryUsage()['cuda-sim:0']!
    await using tight = await AutoModel.fromPretrained(fixture('minilm-st'), { device: 'cuda-sim', dtype: 'bf16' })
    const taken = memoryUsage()['cuda-sim:0']!.total
    const held = await occupy(occupied, memory - taken - Math.floor(arena / 2))
    t.same(await tight.textEncoder!.encode(texts), roomy)
    t.ok(memoryUsage()['cuda-sim:0']!.arena <= 1.5 * arena, 'in smaller batches')
    held.dispose()
  })
})
