// Several programs, devices and threads at once, each with its own results.

import { Worker } from 'node:worker_threads'
import t from 'tap'
import { addon, ramp, same, slowPlan, slowProgram } from '../support/bridge.mjs'

t.test('two programs of different sizes on one device', async (t) => {
  const { device, weights, program } = await slowProgram(20)
  const other = device.createProgram(slowPlan(7, 700), weights)
  const runs: Promise<void>[] = []
  for (let i = 0; i < 30; ++i) {
    const rows = (i * 37) % 256
    runs.push(program.run([ramp(rows, i)], [rows]).then(([result]) => void t.ok(same(result!, ramp(rows, i)), `small ${i}`)))
    runs.push(other.run([ramp(rows * 2, i)], [rows * 2]).then(([result]) => void t.ok(same(result!, ramp(rows * 2, i)), `large ${i}`)))
  }
  await Promise.all(runs)
  await device.dispose()
})

t.test('inputs may be changed once run() has returned', async (t) => {
  const { device, program } = await slowProgram(50)
  const input = ramp(256)
  const run = program.run([input], [256])
  input.fill(-1)
  t.ok(same((await run)[0]!, ramp(256)))
  await device.dispose()
})

t.test('two devices at once, of different instruction sets', async (t) => {
  const isas = (await addon.listDevices())[0]!.isa!
  const parts = await Promise.all([slowProgram(50), slowProgram(50, 256, { isa: isas[0]!, threads: 1 })])
  t.equal(parts[1]!.device.isa, 'portable')
  t.equal(parts[1]!.device.threads, 1)
  const runs = parts.flatMap(({ program }, p) => [1, 2, 3].map((first) => ({ p, first, run: program.run([ramp(256, first)], [256]) })))
  for (const { p, first, run } of runs) t.ok(same((await run)[0]!, ramp(256, first)), `device ${p}, run ${first}`)
  await Promise.all(parts.map(({ device }) => device.dispose()))
})

t.test('four worker threads and the main thread at once', async (t) => {
  const script = new URL('../support/bridge/exits.mjs', import.meta.url)
  const workers = [1, 2, 3, 4].map(() => new Worker(script, { workerData: { scene: 'right' }, execArgv: [] }))
  const said = workers.map((worker) => new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject)))
  const codes = workers.map((worker) => new Promise((resolve) => worker.once('exit', resolve)))
  const { device, program } = await slowProgram(100)
  t.ok(same((await program.run([ramp(256)], [256]))[0]!, ramp(256)))
  t.same(await Promise.all(said), ['right', 'right', 'right', 'right'])
  t.same(await Promise.all(codes), [0, 0, 0, 0])
  await device.dispose()
})
