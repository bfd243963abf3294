// Plans of every op, spoilt at random: each is refused with a typed error or runs within its buffers, whatever it computes. Never a crash, a
// write beside a buffer (ERR_INTERNAL) or an error without a code. CHIASMA_FUZZ=SEED,SECONDS tries others, for longer.

import t from 'tap'
import { Device } from '../../lib/core/device.js'
import type { NativeDevice, NativeProgram, NativeWeights, WirePlan } from '../../typings/addon.js'
import type { OpName } from '../../lib/ops/index.js'
import { opCases } from '../op-cases.js'
import { runOp, variantsOf } from '../op-runner.js'

const [seed = 1, seconds = 4] = (process.env.CHIASMA_FUZZ ?? '').split(',').filter(Boolean).map(Number)
const codes = /^ERR_(ARGUMENT|SHAPE|DTYPE|UNSUPPORTED|OUT_OF_MEMORY)$/
const sizes: Record<string, number> = { float32: 4, float16: 2, bfloat16: 2, int8: 1, uint8: 1, int32: 4, int64: 8, bool: 1 }
const arenaLimit = 64 << 20

interface Recorded {
  readonly op: string
  readonly plan: WirePlan
  readonly weights: NativeWeights | undefined
  readonly inputs: ArrayBufferView[]
}

/** What crosses the bridge while the op cases run on `device`. */
async function record(device: Device): Promise<Recorded[]> {
  const recorded: Recorded[] = []
  const { native } = device
  const twins = new Map<NativeWeights, NativeWeights>() // of weights that the cases dispose of
  const spy: Partial<NativeDevice> = {
    async loadWeights(...given) {
      const [weights, twin] = await Promise.all([native.loadWeights(...given), native.loadWeights(...given)])
      twins.set(weights, twin)
      return weights
    },
    createProgram(plan, weights, options) {
      const program: NativeProgram = native.createProgram(plan, weights, options)
      const run = (inputs: ArrayBufferView[], counts: number[], ...rest: []) => {
        recorded.push({ op: plan.steps[0]?.op ?? '', plan: structuredClone(plan), weights: weights && twins.get(weights), inputs })
        return program.run(inputs, counts, ...rest)
      }
      return { arenaBytes: program.arenaBytes, run, dispose: () => program.dispose() } as NativeProgram
    },
  }
  Object.defineProperty(device, 'native', { value: spy, configurable: true })
  for (const [name, cases] of Object.entries(opCases) as [OpName, (typeof opCases)[OpName]][]) {
    for (const opCase of cases) {
      const variants = variantsOf(name, opCase, 'bfloat16')
      await runOp(name, opCase, variants[recorded.length % variants.length]!, device)
    }
  }
  Object.defineProperty(device, 'native', { value: native })
  return recorded
}

let state = seed
function random(below: number): number {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return Math.floor((state / 2 ** 32) * below)
}
const pick = <T>(list: readonly T[]): T => list[random(list.length)]!

const numbers = [-1, 0, 1, 2, 3, 7, 8, 16, 63, 64, 65, 255, 4096, 65_537, 2 ** 20, 2 ** 31 - 1, 2 ** 31, 2 ** 32, 2 ** 40, 2 ** 48, 2 ** 53 - 1, -(2 ** 31), -(2 ** 53), 0.5, -0, NaN, Infinity, 1e300]
const strings = ['', 'x', 'float32', 'bfloat16', 'float16', 'int8', 'uint8', 'int32', 'int64', 'bool', 'input', 'output', 'temporary', 'weight', 'mean', 'max', 'gelu', 'last', 'linear', 'softmax', 'gather', 'attention', 'a'.repeat(300)]

/** Something else for one place: most often of the same kind and near, now and then anything. */
function spoilt(value: unknown): unknown {
  const kind = random(10)
  if (typeof value === 'number' && kind < 8) return kind < 4 ? value + random(5) - 2 : pick(numbers)
  if (typeof value === 'string' && kind < 8) return pick(strings)
  if (typeof value === 'boolean' && kind < 8) return !value
  if (Array.isArray(value) && kind < 8) {
    const copy = [...(value as unknown[])]
    if (kind < 3) copy.splice(random(copy.length + 1), 1)
    else if (kind < 6) copy.splice(random(copy.length + 1), 0, structuredClone(copy[random(copy.length)] ?? 0))
    else copy.reverse()
    return copy
  }
  return pick([undefined, null, true, 'x', [], {}, [[]], 0, pick(numbers)])
}

function spoil(plan: WirePlan): void {
  const places: [Record<string, unknown>, string][] = []
  const walk = (object: Record<string, unknown>): void => {
    for (const [key, value] of Object.entries(object)) {
      places.push([object, key])
      if (value !== null && typeof value === 'object') walk(value as Record<string, unknown>)
    }
  }
  walk(plan as unknown as Record<string, unknown>)
  for (let n = 1 + random(3); n > 0; --n) {
    const [object, key] = pick(places)
    object[key] = spoilt(object[key])
  }
}

/** Inputs of the sizes that the plan asks for, with the recorded numbers repeated or any bytes. */
function inputsFor(plan: WirePlan, recorded: readonly ArrayBufferView[]): Uint8Array[] {
  return plan.inputs.map((index, i) => {
    const { shape, dtype } = plan.values[index]!
    const bytes = new Uint8Array(shape.reduce((a, b) => a * b, 1) * sizes[dtype]!)
    const known = recorded[i] && new Uint8Array(recorded[i].buffer, recorded[i].byteOffset, recorded[i].byteLength)
    if (known && known.length > 0 && random(4) > 0) for (let at = 0; at < bytes.length; at += known.length) bytes.set(known.subarray(0, bytes.length - at), at)
    else for (let at = 0; at < bytes.length; ++at) bytes[at] = random(256)
    return bytes
  })
}

t.test('spoilt plans', { timeout: (seconds + 60) * 1000 }, async (t) => {
  const device = await Device.open({ device: 'cpu', dtype: 'f32' })
  t.teardown(() => device.dispose())
  const recorded = await record(device)
  t.ok(recorded.length > 100, `${recorded.length} plans to start from`)
  const counts = { refused: 0, 'refused when run': 0, ran: 0, 'too large to run': 0 }
  const until = performance.now() + seconds * 1000
  let failures = 0
  while (performance.now() < until && failures < 5) {
    const before = state
    const { op, plan: good, weights, inputs } = pick(recorded)
    const plan = structuredClone(good)
    spoil(plan)
    const failed = (what: string, error: unknown): void => {
      ++failures
      t.fail(`${what} [${op}], generator at ${before}: ${String(error)}`, { plan: JSON.stringify(plan) })
    }
    let program: NativeProgram
    try {
      program = device.native.createProgram(plan, weights, { guard: true })
    } catch (error) {
      ++counts.refused
      if (!codes.test(String((error as { code?: unknown }).code))) failed('refused by', error)
      continue
    }
    if (program.arenaBytes > arenaLimit) {
      ++counts['too large to run']
    } else {
      try {
        await program.run(inputsFor(plan, inputs), plan.extents.map(({ capacity }) => capacity))
        ++counts.ran
      } catch (error) {
        ++counts['refused when run']
        if (!codes.test(String((error as { code?: unknown }).code))) failed('a run ended with', error)
      }
    }
    program.dispose()
  }
  t.comment(JSON.stringify(counts))
  t.ok(counts.refused > 50 && counts.ran > 5, 'some were refused and some ran')
  t.equal(failures, 0)
})
