// A thread that uses the simulator's device; workerData.scene says for what.
import { parentPort, workerData } from 'node:worker_threads'
import { addon } from '../bridge.mjs'

const columns = 64
const plan = (steps, rows) => {
  const value = (kind) => ({ dtype: 'float32', shape: [rows, columns], extent: 0, per: 1, kind })
  const values = [value('input')]
  const list = []
  for (let i = 0; i < steps; ++i) {
    values.push(value(i === steps - 1 ? 'output' : 'temporary'))
    list.push({ op: 'unary', inputs: [values.length - 2], outputs: [values.length - 1], attributes: { kind: 'neg', dtype: 'float32' } })
  }
  return { extents: [{ name: 'rows', capacity: rows }], values, steps: list, inputs: [0], outputs: [values.length - 1] }
}
const ramp = (rows, first) => Float32Array.from({ length: rows * columns }, (_, i) => first + i)

const device = addon.openDevice({ id: 'cuda-sim' })
if (workerData.scene === 'busy') {
  const program = device.createProgram(plan(20, 1024))
  for (let i = 0; i < 20; ++i) program.run([ramp(1024, i)], [1024])
  await new Promise((resolve) => setTimeout(resolve, 100))
  parentPort.postMessage('busy')
  setInterval(() => {}, 1000)
} else {
  const program = device.createProgram(plan(4, 16))
  let right = true
  for (let i = 0; i < 30; ++i) {
    const rows = 1 + (i % 4)
    const [result] = await program.run([ramp(rows, i)], [rows])
    right &&= Buffer.compare(Buffer.from(result), Buffer.from(ramp(rows, i).buffer)) === 0
  }
  await device.dispose()
  parentPort.postMessage(right ? 'right' : 'wrong')
}
