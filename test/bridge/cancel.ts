// Stopping: queued work at once, running work between ops, loads between tensors; and disposing while work is under way.

import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { addon, identity, ramp, same, slowPlan, slowProgram } from '../support/bridge.mjs'

/** Milliseconds until the promise rejects, and with what code. */
async function rejection(promise: Promise<unknown>): Promise<{ after: number; code: unknown }> {
  const since = performance.now()
  try {
    await promise
    return { after: performance.now() - since, code: 'none: it resolved' }
  } catch (error) {
    return { after: performance.now() - since, code: (error as { code?: unknown }).code }
  }
}

t.test('a running run stops between ops', async (t) => {
  const { device, program } = await slowProgram(3000)
  const task = addon.createTask()
  const run = program.run([ramp(256)], [256], task)
  await sleep(100)
  const end = rejection(run)
  task.cancel()
  const { after, code } = await end
  t.equal(code, 'ERR_ABORTED')
  t.ok(after < 250, `after ${Math.round(after)} ms`)
  await device.dispose()
})

t.test('a queued run is rejected while another one runs on', async (t) => {
  const { device, program } = await slowProgram(3000)
  const [first, second] = [addon.createTask(), addon.createTask()]
  const running = program.run([ramp(256)], [256], first)
  const queued = [program.run([ramp(256)], [256], second), program.run([ramp(1)], [1], second)]
  const other = program.run([ramp(0)], [0])
  let settled = false
  running.catch(() => {}).finally(() => (settled = true))
  await sleep(50)
  const ends = queued.map(rejection)
  second.cancel()
  for (const { after, code } of await Promise.all(ends)) {
    t.equal(code, 'ERR_ABORTED')
    t.ok(after < 250, `after ${Math.round(after)} ms`)
  }
  t.notOk(settled, 'the first is still running')
  first.cancel()
  await rejection(running)
  t.same(await other, [new ArrayBuffer(0)], 'work of no task is done')
  await device.dispose()
})

t.test('a cancelled task refuses further work; cancelling twice or after the end changes nothing', async (t) => {
  const { device, program } = await slowProgram(2)
  const task = addon.createTask()
  t.ok(same((await program.run([ramp(3)], [3], task))[0]!, ramp(3)))
  task.cancel()
  task.cancel()
  t.equal((await rejection(program.run([ramp(3)], [3], task))).code, 'ERR_ABORTED')
  t.equal((await rejection(device.loadWeights([identity()], task))).code, 'ERR_ABORTED')
  t.ok(same((await program.run([ramp(3)], [3]))[0]!, ramp(3)), 'the program works on')
  await device.dispose()
})

t.test('loading stops between tensors', async (t) => {
  const device = addon.openDevice({ id: 'cpu' })
  const task = addon.createTask()
  const loading = device.loadWeights(Array.from({ length: 300 }, identity), task)
  const end = rejection(loading)
  await new Promise((resolve) => setImmediate(resolve)) // a timer may come when all is loaded
  task.cancel()
  const { after, code } = await end
  t.equal(code, 'ERR_ABORTED')
  t.ok(after < 250, `after ${Math.round(after)} ms`)
  t.equal(device.memoryUsage().weights, 0)
  await device.dispose()
})

t.test('program and weights may be disposed of while running', async (t) => {
  const { device, program, weights } = await slowProgram(200)
  const runs = [program.run([ramp(256, 1)], [256]), program.run([ramp(256, 2)], [256])]
  program.dispose()
  weights.dispose()
  const results = await Promise.all(runs)
  results.forEach(([result], i) => t.ok(same(result!, ramp(256, i + 1)), `run ${i} is right`))
  t.equal((await rejection(program.run([ramp(1)], [1]))).code, 'ERR_DISPOSED')
  t.throws(() => device.createProgram(slowPlan(1), weights), { code: 'ERR_DISPOSED' })
  program.dispose()
  weights.dispose()
  await device.dispose()
  t.same(device.memoryUsage(), { weights: 0, arena: 0, total: 0 })
})

t.test('a device may be disposed of while running: accepted work ends, further work is refused', async (t) => {
  const { device, program, weights } = await slowProgram(200)
  const runs = [program.run([ramp(256, 1)], [256]), program.run([ramp(256, 2)], [256])]
  let ended = 0
  for (const run of runs) run.then(() => ++ended)
  const disposal = device.dispose()
  t.equal(device.dispose(), disposal, 'one promise')
  t.equal((await rejection(program.run([ramp(1)], [1]))).code, 'ERR_DISPOSED')
  t.equal((await rejection(device.loadWeights([identity()]))).code, 'ERR_DISPOSED')
  t.throws(() => device.createProgram(slowPlan(1), weights), { code: 'ERR_DISPOSED' })
  await disposal
  t.equal(ended, 2)
  for (const [i, run] of runs.entries()) t.ok(same((await run)[0]!, ramp(256, i + 1)))
  t.equal(device.memoryUsage().arena, 0)
})

t.test('the event loop turns while a run is under way', async (t) => {
  const { device, program } = await slowProgram(400)
  let turns = 0
  const timer = setInterval(() => ++turns, 5)
  const since = performance.now()
  await program.run([ramp(256)], [256])
  const milliseconds = performance.now() - since
  clearInterval(timer)
  t.ok(turns >= milliseconds / 50, `${turns} turns of a 5 ms timer in ${Math.round(milliseconds)} ms`)
  await device.dispose()
})
