// Weights from files: ranges, strides, progress, files that are short or shrink.

import { truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import type { FileSource, WeightSpec } from '../../typings/addon.js'
import { addon } from '../support/bridge.mjs'

const device = addon.openDevice({ id: 'cpu' })
t.teardown(() => device.dispose())
const numbers = Float32Array.from({ length: 5000 }, (_, i) => i)
const file = join(t.testdir(), 'numbers.bin')
t.before(() => writeFile(file, new Uint8Array(numbers.buffer)))

const spec = (shape: number[], source: Partial<FileSource> = {}): WeightSpec => ({
  name: 'w',
  role: 'plain',
  dtype: 'float32',
  shape,
  source: { file, offset: 0, dtype: 'float32', shape, ...source },
})

/** The weight's values, read back by a program that gives it out. */
async function values(spec: WeightSpec): Promise<number[]> {
  const weights = await device.loadWeights([spec])
  const plan = { extents: [], values: [{ dtype: spec.dtype, shape: spec.shape, kind: 'weight' as const, weight: 0 }], steps: [], inputs: [], outputs: [0] }
  const program = device.createProgram(plan, weights)
  const [result] = await program.run([], [])
  program.dispose()
  weights.dispose()
  return [...new Float32Array(result!)]
}

t.test('ranges and strides', async (t) => {
  t.same(await values(spec([2, 3])), [0, 1, 2, 3, 4, 5])
  t.same(await values(spec([2, 3], { offset: 400 })), [100, 101, 102, 103, 104, 105])
  t.same(await values(spec([2, 3], { strides: [1, 2] })), [0, 2, 4, 1, 3, 5])
  t.same(await values(spec([6], { shape: [2, 3], strides: [10, 1] })), [0, 1, 2, 10, 11, 12])
  t.same(await values(spec([1], { offset: 4999 * 4 })), [4999])
})

const Float16Array = (globalThis as { Float16Array?: new (values: number[]) => ArrayBufferView }).Float16Array
t.test('a Float16Array', { skip: !Float16Array && 'this Node has none' }, async (t) => {
  t.same(await values({ ...spec([3]), source: { data: new Float16Array!([1, -0.5, 2048]), dtype: 'float16' } }), [1, -0.5, 2048])
})

t.test('progress', async (t) => {
  const seen: [number, number][] = []
  const weights = await device.loadWeights([spec([1000]), spec([2000]), spec([500])], undefined, (...pair) => seen.push(pair))
  t.ok(seen.length >= 1)
  t.same(seen.at(-1), [14000, 14000], 'the last one before the promise settles')
  t.ok(seen.every(([loaded], i) => i === 0 || loaded >= seen[i - 1]![0]))
  t.equal(weights.bytes, 14000)
  t.equal(device.memoryUsage().weights, 14000)
  weights.dispose()
  t.equal(device.memoryUsage().weights, 0)
})

t.test('files that are too short name themselves', async (t) => {
  const short = { code: 'ERR_CHECKPOINT', file, message: /numbers\.bin: weight 'w' lies at bytes .*; the file has 20000/ }
  await t.rejects(device.loadWeights([spec([5001])]), short)
  await t.rejects(device.loadWeights([spec([1], { offset: 20000 })]), short)
  await t.rejects(device.loadWeights([spec([1], { offset: Number.MAX_SAFE_INTEGER })]), short)
  await t.rejects(device.loadWeights([spec([2], { strides: [5000] })]), short)
  await t.rejects(device.loadWeights([spec([2, 3], { shape: [7] })]), { code: 'ERR_SHAPE' })
  await t.rejects(device.loadWeights([spec([2 ** 36])]), { code: 'ERR_CHECKPOINT' }, 'refused before memory is taken')
  await t.rejects(device.loadWeights([{ ...spec([2]), source: { ...(spec([2]).source as FileSource), file: t.testdirName } }]), { code: 'ERR_CHECKPOINT' })
  t.equal(device.memoryUsage().weights, 0)
})

t.test('a file that shrinks while it is read is an error and no signal', async (t) => {
  const large = join(t.testdir(), 'large.bin')
  const size = 64 << 20
  await writeFile(large, '')
  await truncate(large, size)
  // Ever smaller while a hundred tensors are read: checked whole at the start, missing later.
  const specs = Array.from({ length: 100 }, () => ({ ...spec([size / 4]), source: { file: large, offset: 0, dtype: 'float32', shape: [size / 4] } as FileSource }))
  const task = addon.createTask()
  const timer = setTimeout(() => task.cancel(), 60_000)
  const loading = device.loadWeights(specs.slice(0, 20), task)
  loading.catch(() => {})
  await truncate(large, 1000)
  await t.rejects(loading, { code: 'ERR_CHECKPOINT', file: large })
  clearTimeout(timer)
  t.equal(device.memoryUsage().weights, 0)
})
