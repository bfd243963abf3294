// What comes over the wire is checked: plans that do not hold together, inputs that do not fit, arguments that are something else.
// Each is a typed error that says what, and the device works on.

import t from 'tap'
import type { WirePlan, WireStep, WireValue } from '../../typings/addon.js'
import { addon, identity, ramp, same, slowPlan, slowProgram } from '../support/bridge.mjs'

const device = addon.openDevice({ id: 'cpu' })
t.teardown(() => device.dispose())

const code = (run: () => unknown): unknown => {
  try {
    run()
    return 'none'
  } catch (error) {
    return (error as { code?: unknown }).code
  }
}

/** [n, 4] -> softmax -> [n, 4] */
function plan(): WirePlan {
  const value = (kind: WireValue['kind']): WireValue => ({ dtype: 'float32', shape: [8, 4], extent: 0, kind })
  return {
    extents: [{ name: 'n', capacity: 8 }],
    values: [value('input'), value('output')],
    steps: [{ op: 'softmax', inputs: [0], outputs: [1], attributes: { dtype: 'float32' } }],
    inputs: [0],
    outputs: [1],
  }
}

function changed(change: (plan: WirePlan) => unknown): () => unknown {
  return () => {
    const copy = plan()
    change(copy)
    return device.createProgram(copy)
  }
}

t.test('the plan that the others are changed from is right', async (t) => {
  const program = device.createProgram(plan())
  const [result] = await program.run([new Float32Array(12)], [3])
  t.same([...new Float32Array(result!)], Array(12).fill(0.25))
  t.ok(program.arenaBytes >= 128)
})

t.test('malformed plans', async (t) => {
  const cases: Record<string, [string, (plan: WirePlan) => unknown]> = {
    'unknown op': ['ERR_UNSUPPORTED', (p) => (p.steps[0]!.op = 'noSuchOp')],
    'empty op': ['ERR_UNSUPPORTED', (p) => (p.steps[0]!.op = '')],
    'input index too large': ['ERR_ARGUMENT', (p) => (p.steps[0]!.inputs = [2])],
    'input index negative': ['ERR_ARGUMENT', (p) => (p.steps[0]!.inputs = [-2])],
    'input index huge': ['ERR_ARGUMENT', (p) => (p.steps[0]!.inputs = [2 ** 40])],
    'input index fractional': ['ERR_ARGUMENT', (p) => (p.steps[0]!.inputs = [0.5])],
    'input index NaN': ['ERR_ARGUMENT', (p) => (p.steps[0]!.inputs = [NaN])],
    'output index too large': ['ERR_ARGUMENT', (p) => (p.steps[0]!.outputs = [2])],
    'output absent': ['ERR_ARGUMENT', (p) => (p.steps[0]!.outputs = [-1])],
    'no outputs of a step': ['ERR_ARGUMENT', (p) => (p.steps[0]!.outputs = [])],
    'no inputs of a step': ['ERR_ARGUMENT', (p) => (p.steps[0]!.inputs = [])],
    'too many inputs of a step': ['ERR_ARGUMENT', (p) => (p.steps[0]!.inputs = [0, 0, 0])],
    'required input absent': ['ERR_ARGUMENT', (p) => (p.steps[0]!.inputs = [-1])],
    'in place': ['ERR_ARGUMENT', (p) => (p.steps[0]!.outputs = [0])],
    'reads what is never written': ['ERR_ARGUMENT', (p) => (p.steps = [])],
    'plan input index': ['ERR_ARGUMENT', (p) => (p.inputs = [7])],
    'plan input that is none': ['ERR_ARGUMENT', (p) => (p.inputs = [1])],
    'plan output index': ['ERR_ARGUMENT', (p) => (p.outputs = [-1])],
    'extent index': ['ERR_ARGUMENT', (p) => (p.values[0]!.extent = 3)],
    'extent negative': ['ERR_ARGUMENT', (p) => (p.values[0]!.extent = -1)],
    'capacity negative': ['ERR_ARGUMENT', (p) => (p.extents[0]!.capacity = -8)],
    'capacity other than the shapes': ['ERR_SHAPE', (p) => (p.extents[0]!.capacity = 9)],
    'per other than the shapes': ['ERR_SHAPE', (p) => (p.values[0]!.per = 2)],
    'extra other than the shapes': ['ERR_SHAPE', (p) => (p.values[0]!.extra = 1)],
    'negative dimension': ['ERR_SHAPE', (p) => (p.values[1]!.shape = [8, -4])],
    'fractional dimension': ['ERR_ARGUMENT', (p) => (p.values[1]!.shape = [8, 4.5])],
    'infinite dimension': ['ERR_ARGUMENT', (p) => (p.values[1]!.shape = [8, Infinity])],
    'a shape of 2^106 elements': ['ERR_SHAPE', (p) => (p.values[1]!.shape = [8, 2 ** 53 - 1, 2 ** 53 - 1])],
    'seven dimensions': ['ERR_SHAPE', (p) => (p.values[1]!.shape = [8, 1, 1, 1, 1, 1, 4])],
    'more memory than there is': [
      'ERR_OUT_OF_MEMORY',
      (p) => {
        p.extents[0]!.capacity = 2 ** 40
        for (const value of p.values) value.shape = [2 ** 40, 4]
      },
    ],
    'unknown dtype': ['ERR_DTYPE', (p) => (p.values[0]!.dtype = 'float64' as never)],
    'unknown kind': ['ERR_ARGUMENT', (p) => (p.values[0]!.kind = 'constant' as never)],
    'a weight without weights': ['ERR_ARGUMENT', (p) => p.values.push({ dtype: 'float32', shape: [1], kind: 'weight', weight: 0 })],
    'a weight without index': ['ERR_ARGUMENT', (p) => p.values.push({ dtype: 'float32', shape: [1], kind: 'weight' })],
    'an alias of nothing': ['ERR_ARGUMENT', (p) => p.values.push({ ...p.values[0]!, kind: 'temporary', alias: { of: 9, offset: 0, rowStride: 4 } })],
    'an alias of itself': ['ERR_ARGUMENT', (p) => p.values.push({ ...p.values[0]!, kind: 'temporary', alias: { of: 2, offset: 0, rowStride: 4 } })],
    'an alias past the end': ['ERR_SHAPE', (p) => p.values.push({ ...p.values[0]!, kind: 'temporary', alias: { of: 0, offset: 1, rowStride: 4 } })],
    'an alias before the start': ['ERR_SHAPE', (p) => p.values.push({ ...p.values[0]!, kind: 'temporary', alias: { of: 0, offset: -1, rowStride: 4 } })],
    'an alias with huge strides': ['ERR_SHAPE', (p) => p.values.push({ ...p.values[0]!, kind: 'temporary', alias: { of: 0, offset: 0, rowStride: 2 ** 53 - 1 } })],
    'an alias with overlapping rows': ['ERR_ARGUMENT', (p) => p.values.push({ ...p.values[0]!, kind: 'temporary', alias: { of: 0, offset: 0, rowStride: 1 } })],
    'steps that are no array': ['ERR_ARGUMENT', (p) => (p.steps = {} as never)],
    'a step that is nothing': ['ERR_ARGUMENT', (p) => (p.steps = [null as never])],
    'a value that is a string': ['ERR_ARGUMENT', (p) => (p.values[0] = 'x' as never)],
    'a hole among values': ['ERR_ARGUMENT', (p) => delete p.values[0]],
    'an attribute that is an object': ['ERR_ARGUMENT', (p) => (p.steps[0]!.attributes = { dtype: {} as never })],
    'an attribute that is a list of strings': ['ERR_ARGUMENT', (p) => (p.steps[0]!.attributes = { dtype: ['x'] as never })],
    'an attribute of another kind': ['ERR_ARGUMENT', (p) => (p.steps[0]!.attributes = { dtype: 5 })],
    'an attribute no op has': ['ERR_ARGUMENT', (p) => (p.steps[0]!.attributes = { dtype: 'float32', colour: 'red' })],
    'an attribute missing': ['ERR_ARGUMENT', (p) => (p.steps[0]!.attributes = {})],
  }
  for (const [name, [expected, change]] of Object.entries(cases)) t.equal(code(changed(change)), expected, name)
  for (const nothing of [undefined, null, 5, 'plan', {}, []]) t.equal(code(() => device.createProgram(nothing as never)), 'ERR_ARGUMENT', String(nothing))
  t.throws(changed((p) => (p.steps[0]!.inputs = [2])), { message: 'plan: an input of step 0 (softmax) is value 2 of 2' })
})

t.test('shapes and dtypes that a kernel does not take', async (t) => {
  const refused = (change: (values: WireValue[], step: WireStep) => unknown) =>
    t.match(code(changed((p) => change(p.values, p.steps[0]!))), /^ERR_(SHAPE|DTYPE|ARGUMENT|UNSUPPORTED)$/)
  refused((values) => (values[1]!.shape = [8, 5]))
  refused((values) => (values[0]!.dtype = 'int32'))
  refused((values) => (values[1]!.dtype = 'int8'))
  refused((_, step) => (step.attributes = { dtype: 'int8' }))
  refused((_, step) => Object.assign(step, { op: 'linear', inputs: [0, 0, -1, -1] }))
})

t.test('an exception of a getter comes through', async (t) => {
  const bomb = new Proxy(plan(), {
    get() {
      throw new RangeError('from the getter')
    },
  })
  t.throws(() => device.createProgram(bomb), { name: 'RangeError', message: 'from the getter' })
})

t.test('inputs and counts that do not fit', async (t) => {
  const program = device.createProgram(plan())
  const rejects = async (inputs: unknown, counts: unknown, task?: unknown) => {
    const error: { code?: unknown } = await program.run(inputs as never, counts as never, task as never).then(
      () => ({}),
      (reason: object) => reason,
    )
    t.equal(error.code, 'ERR_ARGUMENT')
  }
  const four = new Float32Array(4)
  await rejects([], [1])
  await rejects([four, four], [1])
  await rejects([new Float32Array(3)], [1])
  await rejects([new Float32Array(5)], [1])
  await rejects([new Float32Array(36)], [9])
  await rejects([four], [-1])
  await rejects([four], [0.5])
  await rejects([four], [NaN])
  await rejects([four], ['1'])
  await rejects([four], [])
  await rejects([four], [1, 1])
  await rejects([[1, 2, 3, 4]], [1])
  await rejects([null], [1])
  await rejects(four, [1])
  await rejects(undefined, undefined)
  await rejects([four], [1], {})
  await rejects([four], [1], device)
  await rejects([four], [1], 5)
  const detached = new Float32Array(4)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  await rejects([detached], [1])

  for (const input of [four, new Uint8Array(16), new DataView(new ArrayBuffer(20), 4), new Float32Array(new SharedArrayBuffer(16)), Buffer.alloc(16)]) {
    const [result] = await program.run([input], [1])
    t.same([...new Float32Array(result!)], [0.25, 0.25, 0.25, 0.25], 'works on')
  }
  t.same(await program.run([new Float32Array(0)], [0]), [new ArrayBuffer(0)])
})

t.test("results in the caller's arrays", async (t) => {
  const program = device.createProgram(plan())
  const memory = new Float32Array(20).fill(7)
  const four = new Float32Array(4)
  const run = (outputs: unknown, inputs: unknown = [four]) => program.run(inputs as never, [1], undefined, outputs as never)
  t.same(await run([memory.subarray(8, 12)]), [memory.subarray(8, 12)])
  t.same([...memory], [...Array(8).fill(7), 0.25, 0.25, 0.25, 0.25, ...Array(8).fill(7)], 'there and nowhere else')
  await run([new DataView(memory.buffer, 4, 16)])
  t.same([...memory.subarray(0, 6)], [7, 0.25, 0.25, 0.25, 0.25, 7])

  const detached = new Float32Array(4)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  for (const outputs of [[], [four, four], [new Float32Array(3)], [new Float32Array(5)], [detached], [new ArrayBuffer(16)], [null], four, null, 5]) {
    await t.rejects(run(outputs), { code: 'ERR_ARGUMENT' })
  }
  const taken = new Float32Array(4)
  const list = Object.defineProperty([taken], 0, {
    get() {
      if (taken.length > 0) structuredClone(taken.buffer, { transfer: [taken.buffer] })
      return taken
    },
  })
  await t.rejects(run(list), { code: 'ERR_ARGUMENT' }, 'taken away by a getter')

  const two = device.createProgram({ ...plan(), outputs: [1, 1] })
  const [a, b] = [new Float32Array(8), new Float32Array(8)]
  await two.run([new Float32Array(8)], [2], undefined, [a, b])
  t.same([a, b], [Array(8).fill(0.25), Array(8).fill(0.25)])
})

t.test('guards round every buffer leave results as they are', async (t) => {
  const { device, weights, program } = await slowProgram(5)
  const guarded = device.createProgram(slowPlan(5), weights, { guard: true })
  const [result] = await guarded.run([ramp(100)], [100])
  t.ok(same(result!, ramp(100)))
  t.ok(guarded.arenaBytes > program.arenaBytes)
  t.equal(device.createProgram(slowPlan(5), weights, { guard: false }).arenaBytes, program.arenaBytes)
  t.equal(code(() => device.createProgram(slowPlan(5), weights, 5 as never)), 'ERR_ARGUMENT')
  await device.dispose()
})

t.test('devices', async (t) => {
  const [cpu] = await addon.listDevices()
  t.match(cpu, { id: 'cpu', kind: 'cpu', name: String, memory: { total: Number, free: Number }, threads: Number, available: true })
  t.ok(cpu!.memory.free! <= cpu!.memory.total && cpu!.memory.total > 0)
  t.equal(cpu!.isa![0], 'portable')
  for (const isa of cpu!.isa!) {
    const opened = addon.openDevice({ id: 'cpu', isa, threads: 1 })
    t.match(opened, { id: 'cpu', isa, threads: 1, bf16: isa === 'avx512_bf16' || isa === 'amx' })
    await opened.dispose()
  }
  t.equal(addon.openDevice({ id: 'cpu', threads: 1000 }).threads, cpu!.threads)
  t.equal(code(() => addon.openDevice({ id: 'cuda:0' })), 'ERR_DEVICE')
  t.equal(code(() => addon.openDevice({ id: 'cpu', isa: 'sse9' })), 'ERR_DEVICE')
  t.equal(code(() => addon.openDevice({ id: 'cpu', threads: 0 })), 'ERR_ARGUMENT')
  t.equal(code(() => addon.openDevice({ id: 'cpu', threads: 1.5 })), 'ERR_ARGUMENT')
  t.equal(code(() => addon.openDevice({} as never)), 'ERR_ARGUMENT')
  t.equal(code(() => addon.openDevice(undefined as never)), 'ERR_ARGUMENT')
  t.ok(device.hasOp('softmax'))
  t.notOk(device.hasOp('noSuchOp'))
  t.equal(code(() => device.hasOp(5 as never)), 'ERR_ARGUMENT')
  t.type(addon.version, 'string')
})

t.test('classes are made by the addon only, methods are called on their own objects only', async (t) => {
  const { program, weights, device: other } = await slowProgram(1)
  for (const object of [device, program, weights, addon.createTask()]) {
    const Class = object.constructor as new (...values: unknown[]) => unknown
    t.equal(code(() => new Class()), 'ERR_ARGUMENT')
    t.equal(code(() => new Class(object, {})), 'ERR_ARGUMENT')
  }
  t.throws(() => program.dispose.call({} as never))
  t.throws(() => program.dispose.call(device as never))
  t.equal(code(() => device.createProgram(plan(), program as never)), 'ERR_ARGUMENT')
  t.equal(code(() => device.createProgram(slowPlan(1), weights)), 'ERR_ARGUMENT', 'weights of another device')
  await other.dispose()
})

t.test('weights', async (t) => {
  const rejects = async (expected: string, change: (spec: Record<string, unknown>) => unknown) => {
    const spec = { ...identity() } as unknown as Record<string, unknown>
    change(spec)
    const error: { code?: unknown } = await device.loadWeights([spec as never]).then(
      () => ({ code: 'none' }),
      (reason: object) => reason,
    )
    t.equal(error.code, expected)
  }
  await rejects('ERR_ARGUMENT', (spec) => (spec.shape = [2, 2]))
  await rejects('ERR_SHAPE', (spec) => (spec.shape = [-2, 2]))
  await rejects('ERR_SHAPE', (spec) => (spec.shape = [2 ** 40, 2 ** 40]))
  await rejects('ERR_ARGUMENT', (spec) => (spec.shape = 'x'))
  await rejects('ERR_ARGUMENT', (spec) => (spec.role = 'square'))
  await rejects('ERR_DTYPE', (spec) => (spec.dtype = 'float128'))
  await rejects('ERR_DTYPE', (spec) => (spec.dtype = 'int32'))
  await rejects('ERR_ARGUMENT', (spec) => (spec.source = null))
  await rejects('ERR_ARGUMENT', (spec) => (spec.source = {}))
  await rejects('ERR_ARGUMENT', (spec) => (spec.source = { data: [1], dtype: 'float32' }))
  await rejects('ERR_ARGUMENT', (spec) => (spec.source = { file: 5, offset: 0, dtype: 'float32', shape: [256, 256] }))
  await rejects('ERR_ARGUMENT', (spec) => (spec.source = { file: '/x', offset: 0, dtype: 'float32', shape: [256, 256], strides: [1] }))
  await rejects('ERR_CHECKPOINT', (spec) => (spec.source = { file: '/no/such/file', offset: 0, dtype: 'float32', shape: [256, 256] }))
  const error: { code?: unknown; file?: unknown; message?: string } = await device
    .loadWeights([{ ...identity(), source: { file: '/no/such/file', offset: 0, dtype: 'float32', shape: [256, 256] } }])
    .then(
      () => ({}),
      (reason: object) => reason,
    )
  t.equal(error.file, '/no/such/file')
  t.match(error.message, /^\/no\/such\/file: cannot be opened/)
  t.equal((await device.loadWeights([])).bytes, 0)
  await t.rejects(device.loadWeights(undefined as never), { code: 'ERR_ARGUMENT' })
  await t.rejects(device.loadWeights([], undefined, 5 as never), { code: 'ERR_ARGUMENT' })
})
