// Runs on the CUDA device, by the simulator: first, captured and replayed ones are alike; many at once, from several threads, stopped and disposed of.

import { setTimeout as sleep } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { compile, type Program } from '../../lib/core/compile.js'
import { Device, memoryUsage } from '../../lib/core/device.js'
import { Tensor } from '../../lib/core/tensor.js'
import { parameter, type Parameter, type Value } from '../../lib/core/value.js'
import { add, attention, gather, layerNorm, mul, pool, scatter, softmax, unary } from '../../lib/ops/index.js'
import { noSimulator } from '../support/simulator.js'

const width = 40
const open = () => Device.open({ device: 'cuda-sim', dtype: 'f32' })

/** A little of everything over sequences of rows: x [T, 40] and lengths [S + 1] to [S, 40]. */
function sequencesProgram(device: Device, capacity = 32): Program {
  const fn = ({ x, cuSeqlens }: Record<string, Value>) => {
    const normed = layerNorm(x!, { eps: 1e-5 })
    const y = add(mul(softmax(normed), normed), unary(x!, 'gelu'))
    return { rows: y, pooled: pool(y, { mode: 'mean', cuSeqlens }) }
  }
  return compile(
    fn,
    {
      x: { shape: [capacity, width], dtype: 'float32', extent: { name: 'tokens', per: 1 } },
      cuSeqlens: { shape: [9], dtype: 'int32', extent: { name: 'texts', per: 1, extra: 1 } },
    },
    device,
  )
}

const ramp = (rows: number, seed = 0) => new Tensor('float32', Float32Array.from({ length: rows * width }, (_, i) => Math.sin(i * 0.37 + seed)), [rows, width])
const lengths = (...cumulative: number[]) => new Tensor('int32', Int32Array.from(cumulative), [cumulative.length])
const bits = (outputs: Record<string, Tensor>) => Object.values(outputs).map(({ data, dims }) => `${dims}:${Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64')}`)

t.test('on the simulator', { skip: noSimulator }, async t => {
  await t.test('a shape runs plainly, then is captured, then replayed: the same bits each time, whatever ran between', async t => {
    await using device = await open()
    const shapes = [[0, 3, 10], [0, 10], [0, 1, 1, 7], [0], [0, 32], [0, 3, 9], [0, 2], [0, 4], [0, 5], [0, 6]] // more than are kept
    const expected: string[][] = []
    for (const [i, shape] of shapes.entries()) {
      using fresh = sequencesProgram(device) // the plan is the device's, and known from its second time on
      expected.push(bits(await fresh.run({ x: ramp(shape.at(-1)!, i), cuSeqlens: lengths(...shape) })))
    }
    await using other = await open()
    const program = sequencesProgram(other)
    for (let round = 0; round < 4; round++) {
      const runs = shapes.map((shape, i) => program.run({ x: ramp(shape.at(-1)!, i), cuSeqlens: lengths(...shape) }))
      for (const [i, run] of runs.entries()) t.same(bits(await run), expected[i], `round ${round}, shape ${i}`)
    }
    // The same shape with other data is not the recording's data.
    const again = () => program.run({ x: ramp(10, 99), cuSeqlens: lengths(0, 3, 10) })
    const [first, second] = [bits(await again()), bits(await again())]
    t.same(second, first)
    t.notSame(first, expected[0])
    // A larger program moves the arena that recordings have the addresses of.
    const large = sequencesProgram(other, 512)
    await large.run({ x: ramp(500), cuSeqlens: lengths(0, 500) })
    t.same(bits(await program.run({ x: ramp(10, 0), cuSeqlens: lengths(0, 3, 10) })), expected[0])
    large.dispose()
    other.plans.clear() // and the arena shrinks
    t.same(bits(await program.run({ x: ramp(10, 0), cuSeqlens: lengths(0, 3, 10) })), expected[0])
  })

  await t.test('data that is wrong is an error in every kind of run, and leaves nothing behind', async t => {
    await using device = await open()
    const table: Parameter = { name: 'table', shape: [5, width], dtype: 'float32', role: 'plain' }
    const weights = await device.loadWeights([{ parameter: table, source: ramp(5) }])
    const program = compile(
      ({ indices }) => ({ y: gather(parameter(table), indices!) }),
      { indices: { shape: [4], dtype: 'int32', extent: { name: 'rows', per: 1 } } },
      device,
      weights,
    )
    for (let i = 0; i < 4; i++) {
      await t.rejects(program.run({ indices: lengths(1, 9, 7) }), { name: 'ArgumentError', message: /\[gather\].*9.*5/s })
      const { y } = await program.run({ indices: lengths(4, 0, 1) })
      t.same(y!.data.subarray(width, 2 * width), ramp(1).data)
    }
  })

  await t.test('a run that is stopped leaves no error to the next one', async t => {
    await using device = await open()
    const table: Parameter = { name: 'table', shape: [5, width], dtype: 'float32', role: 'plain' }
    const weights = await device.loadWeights([{ parameter: table, source: ramp(5) }])
    const valid = compile(({ x }) => ({ y: unary(x!, 'neg') }), { x: { shape: [5, width], dtype: 'float32' } }, device)
    for (const ops of [20, 30, 40]) {
      const long = compile(
        ({ indices, x }) => ({ y: gather(parameter(table), indices!), z: Array.from({ length: ops }).reduce<Value>(value => softmax(value), x!) }),
        { indices: { shape: [2], dtype: 'int32' }, x: { shape: [1024, width], dtype: 'float32' } },
        device,
        weights,
      )
      const stop = new AbortController()
      const run = long.run({ indices: lengths(1, 99), x: ramp(1024) }, { signal: stop.signal })
      await sleep(30)
      stop.abort()
      await run.catch(() => {})
      t.same((await valid.run({ x: ramp(5) })).y!.data, (ramp(5).data as Float32Array).map(value => -value))
    }
  })

  await t.test('attention says where lengths fall, whichever kernel takes it', async t => {
    await using device = await open()
    for (const dtype of ['float32', 'bfloat16'] as const) {
      for (const out of ['float32', dtype] as const) {
        const rows = { shape: [200, width], dtype }
        const program = compile(
          ({ q, cuSeqlens }) => ({ y: attention(q!, q!, q!, { heads: 1, cuSeqlensQ: cuSeqlens, cuSeqlensK: cuSeqlens, dtype: out }) }),
          { q: rows, cuSeqlens: { shape: [4], dtype: 'int32' } },
          device,
        )
        const q = new Tensor(dtype, dtype === 'float32' ? new Float32Array(200 * width) : new Uint16Array(200 * width), [200, width])
        for (let i = 0; i < 3; i++) {
          await t.rejects(program.run({ q, cuSeqlens: lengths(0, 100, 5, 200) }), { name: 'ArgumentError', message: /cuSeqlens.\[2\] is 5; expected/ }, `${dtype} to ${out}`)
          t.same((await program.run({ q, cuSeqlens: lengths(0, 100, 105, 200) })).y!.dims, [200, width])
        }
      }
    }
  })

  await t.test('rows are scattered to places that are there, and to each once', async t => {
    await using device = await open()
    const x = ramp(3)
    const program = compile(
      ({ x, indices }) => ({ y: scatter(x!, indices!, { rows: 5 }) }),
      { x: { shape: [3, width], dtype: 'float32' }, indices: { shape: [3], dtype: 'int32' } },
      device,
    )
    for (let i = 0; i < 3; i++) {
      for (const [indices, message] of [
        [lengths(0, 5, 1), /\[scatter\] indices\[1\] is 5; expected at least 0 and less than 5/],
        [lengths(0, 1, -1), /\[scatter\] indices\[2\] is -1;/],
        [lengths(2 ** 31 - 1, -(2 ** 31), 7), /\[scatter\] indices\[0\] is 2147483647;/],
        [lengths(4, 2, 4), /\[scatter\] indices\[2\] is 4; expected distinct indices/],
      ] as const) {
        await t.rejects(program.run({ x, indices }), { name: 'ArgumentError', message })
      }
      const { y } = await program.run({ x, indices: lengths(4, 0, 2) })
      const expected = new Float32Array(5 * width)
      for (const [row, to] of [4, 0, 2].entries()) expected.set(x.data.subarray(row * width, (row + 1) * width) as Float32Array, to * width)
      t.same(y!.data, expected)
    }
  })

  await t.test('weights and programs that are disposed of stay until the runs that use them have ended', async t => {
    const device = await open()
    const rows = 600
    const table: Parameter = { name: 'table', shape: [rows, width], dtype: 'float32', role: 'plain' }
    const indices = new Tensor('int32', Int32Array.from({ length: rows }, (_, i) => (i * 7) % rows), [rows])
    for (let i = 0; i < 3; i++) {
      const weights = await device.loadWeights([{ parameter: table, source: ramp(rows, i) }])
      const program = compile(({ indices }) => ({ y: softmax(gather(parameter(table), indices!)) }), { indices: { shape: [rows], dtype: 'int32' } }, device, weights)
      const [expected, ...runs] = Array.from({ length: 4 }, () => program.run({ indices })) // plain, captured, replayed
      const first = (await expected!).y!
      program.dispose()
      weights.dispose()
      device.plans.clear()
      const fresh = await device.loadWeights([{ parameter: table, source: ramp(rows, 50) }]) // may have the same memory, later
      for (const run of runs) t.same((await run).y!.data, first.data)
      fresh.dispose()
    }
    t.equal(device.memoryUsage().weights, 0)
    await device.dispose()
    t.same(device.memoryUsage(), { weights: 0, arena: 0, total: 0 })
  })

  await t.test('inputs of many sizes at once, which the caller changes when the run has begun', async t => {
    await using device = await open()
    const program = compile(({ x }) => ({ y: unary(x!, 'neg') }), { x: { shape: [2000, width], dtype: 'float32', extent: { name: 'rows', per: 1 } } }, device)
    for (let round = 0; round < 3; round++) {
      const runs = [3, 2000, 1, 500, 1999, 3].map((rows, i) => {
        const x = ramp(rows, i)
        const expected = (x.data as Float32Array).map(value => -value)
        const run = program.run({ x })
        ;(x.data as Float32Array).fill(NaN)
        return { run, expected }
      })
      for (const { run, expected } of runs) t.same((await run).y!.data, expected)
    }
  })

  await t.test('memory in use is told for each device, and given back', async t => {
    const device = await open()
    t.same(device.memoryUsage(), { weights: 0, arena: 0, total: 0 })
    const table: Parameter = { name: 'table', shape: [1000, width], dtype: 'bfloat16', role: 'plain' }
    const weights = await device.loadWeights([{ parameter: table, source: ramp(1000) }])
    t.equal(weights.bytes, 1000 * width * 2)
    const program = sequencesProgram(device)
    await program.run({ x: ramp(4), cuSeqlens: lengths(0, 4) })
    const { weights: held, arena, total } = device.memoryUsage()
    t.equal(held, weights.bytes)
    t.ok(arena >= 32 * width * 4 && total === held + arena)
    t.match(memoryUsage(), { 'cuda-sim': { weights: held, arena, total } })
    weights.dispose()
    t.equal(device.memoryUsage().weights, 0)
    await device.dispose()
    t.same(device.memoryUsage(), { weights: 0, arena: 0, total: 0 })
    t.notOk('cuda-sim' in memoryUsage())
  })

  await t.test('the loop turns, and a signal rejects at once, while a run is under way', async t => {
    await using device = await open()
    const rows = 4096
    const fn = ({ x }: Record<string, Value>) => ({ y: Array.from({ length: 12 }).reduce<Value>(value => softmax(value), x!) })
    const program = compile(fn, { x: { shape: [rows, width], dtype: 'float32', extent: { name: 'rows', per: 1 } } }, device)
    const began = performance.now()
    let turns = 0
    const timer = setInterval(() => ++turns, 5)
    await program.run({ x: ramp(rows) })
    clearInterval(timer)
    const whole = performance.now() - began
    t.ok(whole > 100 && turns > whole / 50, `${turns} turns of a 5 ms timer in ${Math.round(whole)} ms`)
    const reason = new Error('enough')
    const controller = new AbortController()
    const stopped = program.run({ x: ramp(rows) }, { signal: controller.signal })
    const queued = program.run({ x: ramp(3) }, { signal: controller.signal })
    await sleep(20)
    const since = performance.now()
    controller.abort(reason)
    await Promise.all([t.rejects(stopped, reason), t.rejects(queued, reason)])
    t.ok(performance.now() - since < 100)
    t.equal((await program.run({ x: ramp(2) })).y!.dims[0], 2, 'the device goes on')
    const last = program.run({ x: ramp(rows) })
    program.dispose()
    const disposal = device.dispose()
    t.equal((await last).y!.dims[0], rows, 'accepted work ends')
    await disposal
  })

  await t.test('threads share the device, and one that is terminated in the middle of a run harms no other', async t => {
    const script = new URL('../support/bridge/cuda-worker.mjs', import.meta.url)
    const worker = (scene: string) => new Worker(script, { workerData: { scene }, execArgv: [] })
    const message = (of: Worker) => new Promise((resolve, reject) => of.once('message', resolve).once('error', reject))
    const busy = worker('busy')
    t.equal(await message(busy), 'busy')
    const others = [worker('right'), worker('right')]
    const said = others.map(message)
    await using device = await open()
    const program = sequencesProgram(device)
    const expected = bits(await program.run({ x: ramp(10), cuSeqlens: lengths(0, 3, 10) }))
    await busy.terminate()
    t.same(await Promise.all(said), ['right', 'right'])
    t.same(bits(await program.run({ x: ramp(10), cuSeqlens: lengths(0, 3, 10) })), expected)
  })
})
