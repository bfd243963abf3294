// Compiling: what each rewrite rule makes of a graph, and that results keep their bits; the plan cache; counts and capacities; stopping.

import t, { type Test } from 'tap'
import { compile, type TracedFunction, trace } from '../lib/core/compile.js'
import { Device, memoryUsage, type Weights } from '../lib/core/device.js'
import { TraceError } from '../lib/core/errors.js'
import { formatGraph, lower } from '../lib/core/graph.js'
import { rewrite, type Rule, rules } from '../lib/core/rewrite.js'
import { Tensor } from '../lib/core/tensor.js'
import { constant, input, type Parameter, parameter, type Value, type ValueType } from '../lib/core/value.js'
import * as ops from '../lib/ops/index.js'
import { normals } from './op-runner.js'

const f32 = (...shape: number[]): ValueType => ({ shape, dtype: 'float32' })
const next = normals(7)
const random = (...dims: number[]) => new Tensor('float32', Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, () => next()), dims)

/** A module's parameters for the graphs below, and their values. */
const parameters: { parameter: Parameter; source: Tensor }[] = []
function weight(name: string, role: 'linear' | 'plain', ...shape: number[]): Value {
  const p: Parameter = { name, shape, dtype: 'float32', role }
  parameters.push({ parameter: p, source: random(...shape) })
  return parameter(p)
}
const w = weight('w', 'linear', 12, 8)
const wide = weight('qkv', 'linear', 24, 8)
const back = weight('back', 'linear', 8, 12)
const bias = weight('bias', 'plain', 12)
const gain = weight('gain', 'plain', 8)

const device = await Device.open({ device: 'cpu', dtype: 'f32' })
const weights: Weights = await device.loadWeights(parameters)
t.teardown(() => device.dispose())

function graph(fn: TracedFunction, specs: Record<string, ValueType>, using: readonly Rule[] = []): string[] {
  return formatGraph(rewrite(trace(fn, specs), using)).split('\n')
}

/** Runs a graph as it was written and as rules make it, and compares the bits. */
async function sameBits(t: Test, fn: TracedFunction, specs: Record<string, ValueType>, inputs: Record<string, Tensor>, using: readonly Rule[]): Promise<void> {
  const results = []
  for (const some of [[], using]) {
    const outputs = rewrite(trace(fn, specs), some)
    // Lowered here, since `compile` applies all rules.
    const lowered = lower(outputs, (p) => weights.index.get(p)!)
    const program = device.native.createProgram(lowered.plan, weights.native, { guard: true })
    const data = [...lowered.inputs.map((name) => inputs[name]!.data), ...lowered.constants.map((value) => value.node.leaf!.tensor!.data)]
    results.push((await program.run(data as ArrayBufferView[], [])).map((buffer) => Buffer.from(buffer).toString('hex')))
    program.dispose()
  }
  t.same(results[1], results[0], 'the same bits')
}

t.test('rules', async (t) => {
  const x = random(6, 8)
  const cases: { rule: keyof typeof rules; title: string; fn: TracedFunction; before: string[]; after: string[] }[] = [
    {
      rule: 'dropCast',
      title: 'a cast to the same dtype',
      fn: ({ x }) => ({ y: ops.softmax(ops.cast(x!, 'float32')) }),
      before: ['%0 = cast(x) dtype=float32: float32 [6, 8]', '%1 = softmax(%0) dtype=float32: float32 [6, 8]', 'y = %1'],
      after: ['%0 = softmax(x) dtype=float32: float32 [6, 8]', 'y = %0'],
    },
    {
      rule: 'dropReshape',
      title: 'reshapes there and back',
      fn: ({ x }) => ({ y: ops.softmax(ops.reshape(ops.reshape(x!, [2, 24]), [6, 8])) }),
      before: ['%0 = reshape(x) shape=2,24: float32 [2, 24]', '%1 = reshape(%0) shape=6,8: float32 [6, 8]', '%2 = softmax(%1) dtype=float32: float32 [6, 8]', 'y = %2'],
      after: ['%0 = softmax(x) dtype=float32: float32 [6, 8]', 'y = %0'],
    },
    {
      rule: 'dropColumns',
      title: 'all columns',
      fn: ({ x }) => ({ y: ops.softmax(ops.columns(x!, 0, 8)) }),
      before: ['%0 = columns(x) begin=0 end=8: float32 [6, 8]', '%1 = softmax(%0) dtype=float32: float32 [6, 8]', 'y = %1'],
      after: ['%0 = softmax(x) dtype=float32: float32 [6, 8]', 'y = %0'],
    },
    {
      rule: 'dropPick',
      title: 'a pick from sequences of one token',
      fn: ({ x }) => ({ y: ops.pickToken(ops.softmax(x!), { which: 'last', length: 1, dtype: 'bfloat16' }) }),
      before: ['%0 = softmax(x) dtype=float32: float32 [6, 8]', '%1 = pickToken(%0, -) which=last length=1 dtype=bfloat16: bfloat16 [6, 8]', 'y = %1'],
      after: ['%0 = softmax(x) dtype=float32: float32 [6, 8]', '%1 = cast(%0) dtype=bfloat16: bfloat16 [6, 8]', 'y = %1'],
    },
    {
      rule: 'fuseBias',
      title: 'a row added to a product',
      fn: ({ x }) => ({ y: ops.add(ops.linear(x!, w), bias, { dtype: 'bfloat16' }) }),
      before: [
        '%0 = linear(x, w, -, -) activation=none dtype=float32: float32 [6, 12]',
        '%1 = add(%0, bias) dtype=bfloat16: bfloat16 [6, 12]',
        'y = %1',
      ],
      after: ['%0 = linear(x, w, bias, -) activation=none dtype=bfloat16: bfloat16 [6, 12]', 'y = %0'],
    },
    {
      rule: 'fuseActivation',
      title: 'a function of a product',
      fn: ({ x }) => ({ y: ops.unary(ops.linear(x!, w, { bias }), 'gelu', { dtype: 'bfloat16' }) }),
      before: [
        '%0 = linear(x, w, bias, -) activation=none dtype=float32: float32 [6, 12]',
        '%1 = unary(%0) kind=gelu dtype=bfloat16: bfloat16 [6, 12]',
        'y = %1',
      ],
      after: ['%0 = linear(x, w, bias, -) activation=gelu dtype=bfloat16: bfloat16 [6, 12]', 'y = %0'],
    },
    {
      rule: 'fuseResidual',
      title: 'a residual on the left',
      fn: ({ x }) => ({ y: ops.add(x!, ops.linear(ops.linear(x!, w), back)) }),
      before: [
        '%0 = linear(x, w, -, -) activation=none dtype=float32: float32 [6, 12]',
        '%1 = linear(%0, back, -, -) activation=none dtype=float32: float32 [6, 8]',
        '%2 = add(x, %1) dtype=float32: float32 [6, 8]',
        'y = %2',
      ],
      after: [
        '%0 = linear(x, w, -, -) activation=none dtype=float32: float32 [6, 12]',
        '%1 = linear(%0, back, -, x) activation=none dtype=float32: float32 [6, 8]',
        'y = %1',
      ],
    },
    {
      rule: 'pushPickUp',
      title: 'a pick after row-wise ops',
      fn: ({ x }) => ({ y: ops.pickToken(ops.layerNorm(ops.linear(ops.softmax(x!), w), { eps: 1e-5 }), { which: 'first', length: 3 }) }),
      before: [
        '%0 = softmax(x) dtype=float32: float32 [6, 8]',
        '%1 = linear(%0, w, -, -) activation=none dtype=float32: float32 [6, 12]',
        '%2 = layerNorm(%1, -, -) eps=0.00001 dtype=float32: float32 [6, 12]',
        '%3 = pickToken(%2, -) which=first length=3 dtype=float32: float32 [2, 12]',
        'y = %3',
      ],
      after: [
        '%0 = pickToken(x, -) which=first length=3 dtype=float32: float32 [2, 8]',
        '%1 = softmax(%0) dtype=float32: float32 [2, 8]',
        '%2 = linear(%1, w, -, -) activation=none dtype=float32: float32 [2, 12]',
        '%3 = layerNorm(%2, -, -) eps=0.00001 dtype=float32: float32 [2, 12]',
        'y = %3',
      ],
    },
  ]
  for (const { rule, title, fn, before, after } of cases) {
    await t.test(`${rule}: ${title}`, async (t) => {
      const specs = { x: f32(6, 8) }
      t.same(graph(fn, specs), before)
      t.same(graph(fn, specs, [rules[rule]!]), after)
      await sameBits(t, fn, specs, { x }, [rules[rule]!])
    })
  }
  t.same([...new Set(cases.map(({ rule }) => rule))].sort(), Object.keys(rules).sort(), 'every rule was tried')
})

t.test('bias, activation and residual become one linear', async (t) => {
  const fn: TracedFunction = ({ x }) => {
    const middle = ops.unary(ops.add(ops.linear(x!, w), bias), 'quick_gelu')
    return { y: ops.add(ops.linear(middle, back), x!) }
  }
  t.same(graph(fn, { x: f32(6, 8) }, Object.values(rules)), [
    '%0 = linear(x, w, bias, -) activation=quick_gelu dtype=float32: float32 [6, 12]',
    '%1 = linear(%0, back, -, x) activation=none dtype=float32: float32 [6, 8]',
    'y = %1',
  ])
  await sameBits(t, fn, { x: f32(6, 8) }, { x: random(6, 8) }, Object.values(rules))
})

t.test('what must not be fused is not', (t) => {
  const all = Object.values(rules)
  const count = (fn: TracedFunction) => graph(fn, { x: f32(6, 8) }, all).filter((line) => line.startsWith('%')).length
  t.equal(count(({ x }) => ({ y: ops.unary(ops.linear(x!, w, { dtype: 'bfloat16' }), 'gelu') })), 2, 'a rounding to bfloat16 between')
  t.equal(count(({ x }) => { const p = ops.linear(x!, w); return { p, y: ops.unary(p, 'gelu') } }), 2, 'the product is an output')
  t.equal(count(({ x }) => { const p = ops.linear(x!, w); return { y: ops.mul(p, ops.unary(p, 'gelu')) } }), 3, 'the product is read twice')
  t.equal(count(({ x }) => ({ y: ops.unary(ops.linear(x!, w, { activation: 'relu' }), 'gelu') })), 2, 'there is an activation')
  t.equal(count(({ x }) => ({ y: ops.unary(ops.linear(x!, w), 'exp') })), 2, 'linear has no such activation')
  t.equal(count(({ x }) => ({ y: ops.unary(ops.linear(ops.linear(x!, w), back, { residual: x! }), 'relu') })), 3, 'the residual comes after the activation')
  t.end()
})

/** A pre-norm transformer block with one projection for q, k and v. */
function block(x: Value, sequences: { cuSeqlens?: Value | undefined; length?: number }, causal: boolean): Value {
  const { cuSeqlens, length } = sequences
  const qkv = ops.linear(ops.layerNorm(x, { weight: gain, eps: 1e-5 }), wide)
  const [q, k, v] = [0, 8, 16].map((begin) => ops.columns(qkv, begin, begin + 8)) as [Value, Value, Value]
  const mixed = ops.attention(q, k, v, { heads: 2, causal, cuSeqlensQ: cuSeqlens, cuSeqlensK: cuSeqlens, queryLength: length, keyLength: length })
  const h = ops.add(ops.linear(ops.linear(mixed, w), back), x)
  return ops.linear(ops.linear(ops.layerNorm(h, { weight: gain, eps: 1e-5 }), w, { bias, activation: 'gelu' }), back, { residual: h })
}

t.test('only picked tokens go through the last block', async (t) => {
  for (const [which, causal, ragged] of [['first', false, false], ['last', false, true], ['last', true, true], ['last', true, false]] as const) {
    await t.test(`${which}${causal ? ' causal' : ''}${ragged ? ' ragged' : ''}`, async (t) => {
      const fn: TracedFunction = ({ x, cu }) => {
        const sequences = ragged ? { cuSeqlens: cu } : { length: 4 }
        const y = block(block(x!, sequences, causal), sequences, causal)
        return { y: ops.layerNorm(ops.pickToken(y, { which, ...sequences }), { eps: 1e-6 }) }
      }
      const specs: Record<string, ValueType> = { x: f32(12, 8), ...(ragged && { cu: { shape: [4], dtype: 'int32' } }) }
      const lines = graph(fn, specs, [rules['pushPickUp']!])
      const attentions = lines.filter((line) => line.includes('= attention'))
      t.match(attentions[0], ragged ? /queryLength=0 .*\[12, 8\]$/ : /queryLength=4 .*\[12, 8\]$/, 'the first block has all queries')
      t.match(attentions[1], /queryLength=1 .*\[3, 8\]$/, 'the last one those that are picked')
      const after = lines.slice(lines.indexOf(attentions[1]!) + 1).filter((line) => line.startsWith('%'))
      t.ok(after.length >= 6 && after.every((line) => /\[3, \d+\]$/.test(line)), 'and so has all that follows')
      t.equal(lines.filter((line) => line.includes('= pickToken')).length, 2, 'q and the residual are picked, once each')
      const cu = new Tensor('int32', Int32Array.of(0, 5, 6, 12), [4])
      await sameBits(t, fn, specs, { x: random(12, 8), ...(ragged && { cu }) }, [rules['pushPickUp']!])
    })
  }
  const picks = (fn: TracedFunction, specs = { x: f32(12, 8) }) => graph(fn, specs, Object.values(rules)).filter((line) => /= attention.*queryLength=1 /.test(line)).length
  t.equal(picks(({ x }) => ({ y: ops.pickToken(block(x!, { length: 4 }, true), { which: 'first', length: 4 }) })), 0, 'the first of a causal block sees one key only')
  t.equal(picks(({ x }) => { const h = block(x!, { length: 4 }, false); return { h, y: ops.pickToken(h, { which: 'first', length: 4 }) } }), 0, 'all tokens are asked for')
  t.equal(picks(({ x }) => ({ y: ops.pickToken(block(x!, { length: 4 }, false), { which: 'first', length: 2 }) })), 0, 'other sequences')
  const relativeBias = weight('relative', 'plain', 7, 2)
  const biased = (which: 'first' | 'last'): TracedFunction => ({ x }) => ({
    y: ops.pickToken(ops.attention(x!, x!, x!, { heads: 2, queryLength: 4, keyLength: 4, relativeBias }), { which, length: 4 }),
  })
  t.equal(picks(biased('last')), 0, 'the last query would lose its row of the relative bias')
  t.equal(picks(biased('first')), 1)
  const turned = (which: 'first' | 'last', rows: number): TracedFunction => ({ x, table }) => {
    const q = ops.rotary(x!, table!, { heads: 2, length: 4 })
    return { y: ops.pickToken(ops.attention(q, x!, x!, { heads: 2, queryLength: 4, keyLength: 4 }), { which, length: 4 }) }
  }
  const turns = (which: 'first' | 'last', rows: number) =>
    graph(turned(which, rows), { x: f32(12, 8), table: f32(rows, 4) }, Object.values(rules)).filter((line) => line.includes('= rotary')).length
  t.equal(turns('first', 3), 0, 'the first row of each sequence is not turned')
  t.equal(turns('first', 4), 1)
  t.equal(turns('last', 3), 1)
  const windowed = (which: 'first' | 'last'): TracedFunction => ({ x }) => ({
    y: ops.pickToken(ops.attention(x!, x!, x!, { heads: 2, queryLength: 4, keyLength: 4, window: 1 }), { which, length: 4 }),
  })
  t.equal(picks(windowed('first')), 0, 'the first query would see the last keys')
  t.equal(picks(windowed('last')), 1)
})

t.test('dead code is not lowered, equal nodes are merged', (t) => {
  const fn: TracedFunction = ({ x }) => {
    ops.softmax(ops.unary(x!, 'exp'))
    return { y: ops.add(ops.unary(x!, 'tanh'), ops.unary(x!, 'tanh')) }
  }
  const { plan } = lower(rewrite(trace(fn, { x: f32(2, 2) })), () => 0)
  t.same(plan.steps.map(({ op, inputs }) => [op, ...inputs]), [['unary', 0], ['add', 1, 1]])
  t.end()
})

t.test('the wire form', (t) => {
  const specs: Record<string, ValueType> = {
    pixels: { shape: [4, 8, 8, 3], dtype: 'uint8', extent: { name: 'images', per: 1 } },
    cu: { shape: [6], dtype: 'int32', extent: { name: 'texts', per: 1, extra: 1 } },
    x: { shape: [20, 12], dtype: 'float32', extent: { name: 'tokens', per: 1 } },
    unused: f32(3),
  }
  const patch = parameter({ name: 'patch', shape: [12, 48], dtype: 'bfloat16', role: 'linear' })
  const fn: TracedFunction = ({ pixels, cu, x }) => {
    const tokens = ops.patchEmbed(pixels!, patch, { patch: 4, dtype: 'float32' })
    const pooled = ops.pool(ops.columns(ops.columns(x!, 2, 12), 1, 5), { mode: 'mean', cuSeqlens: cu! })
    const part = ops.reshape(tokens, [4, 4, 12])
    return { tokens, again: tokens, pooled, part, scaled: ops.mul(tokens, constant(new Tensor('float32', Float32Array.of(2), []))) }
  }
  const { plan, inputs, constants, outputIndex } = lower(trace(fn, specs), () => 5)
  t.same(plan.extents, [{ name: 'images', capacity: 4 }, { name: 'tokens', capacity: 20 }, { name: 'texts', capacity: 5 }])
  t.same(inputs, ['pixels', 'x', 'cu'], 'what nothing reads is not sent')
  t.equal(constants.length, 1)
  t.equal(plan.inputs.length, 4, 'constants come after the inputs')
  t.equal(outputIndex['again'], outputIndex['tokens'], 'names may share a value')
  t.same(plan.values.find(({ kind }) => kind === 'weight'), { dtype: 'bfloat16', shape: [12, 48], kind: 'weight', weight: 5, name: 'patch' })
  t.match(plan.values.find(({ name }) => name === 'cu'), { shape: [6], extent: 2, per: 1, extra: 1, kind: 'input' })
  t.match(plan.values[plan.outputs[outputIndex['tokens']!]!], { shape: [16, 12], extent: 0, per: 4, kind: 'output' })
  const x = plan.values.findIndex(({ name }) => name === 'x')
  t.match(plan.values[plan.steps.find(({ op }) => op === 'pool')!.inputs[0]!], { shape: [20, 4], extent: 1, per: 1, alias: { of: x, offset: 3, rowStride: 12 } }, 'views of views')
  t.match(plan.values[plan.outputs[outputIndex['part']!]!], { shape: [4, 4, 12], extent: 0, per: 1, alias: { of: plan.outputs[outputIndex['tokens']!]!, offset: 0, rowStride: 12 } })
  t.match(plan.steps.map(({ op }) => op), ['patchEmbed', 'pool', 'mul'])
  t.equal(plan.steps[0]!.inputs[2], -1, 'an absent input')
  t.end()
})

t.test('outputs may be inputs, parameters, views and constants', async (t) => {
  const fn: TracedFunction = ({ x, i }) => ({ x: x!, i: i!, gain, middle: ops.columns(x!, 1, 3), c: constant(new Tensor('float32', Float32Array.of(7, 8), [2])) })
  const program = compile(fn, { x: f32(2, 4), i: { shape: [3], dtype: 'int32' } }, device, weights)
  const x = new Tensor('float32', Float32Array.from({ length: 8 }, (_, i) => i), [2, 4])
  const result = await program.run({ x, i: new Tensor('int32', Int32Array.of(4, -5, 6), [3]) })
  t.same([...result['x']!.data], [0, 1, 2, 3, 4, 5, 6, 7])
  t.not(result['x']!.data.buffer, x.data.buffer)
  t.same([...result['i']!.data], [4, -5, 6])
  t.same(result['gain']!.data, parameters.find(({ parameter }) => parameter.name === 'gain')!.source.data)
  t.same([result['middle']!.dims, ...result['middle']!.data], [[2, 2], 1, 2, 5, 6])
  t.same([...result['c']!.data], [7, 8])
  program.dispose()
})

t.test('capacities and counts', async (t) => {
  const causal = true
  const specs = (tokens: number, texts: number): Record<string, ValueType> => ({
    x: { shape: [tokens, 8], dtype: 'float32', extent: { name: 'tokens', per: 1 } },
    cu: { shape: [texts + 1], dtype: 'int32', extent: { name: 'texts', per: 1, extra: 1 } },
  })
  const fn: TracedFunction = ({ x, cu }) => {
    const y = block(x!, { cuSeqlens: cu }, causal)
    return { y, last: ops.pickToken(y, { which: 'last', cuSeqlens: cu! }) }
  }
  const x = random(9, 8)
  const cu = new Tensor('int32', Int32Array.of(0, 4, 9), [3])
  const exact = compile(fn, specs(9, 2), device, weights)
  const expected = await exact.run({ x, cu })
  t.same([expected['y']!.dims, expected['last']!.dims], [[9, 8], [2, 8]])
  for (const [tokens, texts] of [[10, 2], [64, 7], [1000, 100]] as const) {
    const program = compile(fn, specs(tokens, texts), device, weights, { guard: true })
    const result = await program.run({ x, cu })
    t.same(result, expected, `the same bits with room for ${tokens} tokens`)
    const none = await program.run({ x: new Tensor('float32', new Float32Array(0), [0, 8]), cu: new Tensor('int32', Int32Array.of(0), [1]) })
    t.same([none['y']!.dims, none['last']!.dims], [[0, 8], [0, 8]], 'nothing at all')
    program.dispose()
  }
  exact.dispose()

  const placed = compile(
    ({ x, i }) => ({ y: ops.scatter(x!, i!, { rows: 12, extent: { name: 'places', per: 3 } }) }),
    { x: { shape: [5, 1], dtype: 'float32', extent: { name: 'tokens', per: 1 } }, i: { shape: [5], dtype: 'int32', extent: { name: 'tokens', per: 1 } } },
    device,
  )
  const two = { x: new Tensor('float32', Float32Array.of(1, 2), [2, 1]), i: new Tensor('int32', Int32Array.of(5, 0), [2]) }
  t.same([...(await placed.run(two, { counts: { places: 2 } }))['y']!.data], [2, 0, 0, 0, 0, 1])
  await t.rejects(placed.run(two), { message: "[run] the count of 'places' is neither given nor told by an input" })
  placed.dispose()
})

t.test('the plan cache', async (t) => {
  const device = await Device.open({ device: 'cpu', dtype: 'f32' })
  t.teardown(() => device.dispose())
  const { plans } = device
  const fn = (kind: 'exp' | 'tanh'): TracedFunction => ({ x }) => ({ y: ops.unary(x!, kind) })
  const first = compile(fn('exp'), { x: f32(2) }, device)
  const again = compile(({ x }) => ({ y: ops.unary(ops.reshape(x!, [2]), 'exp') }), { x: f32(2) }, device)
  t.same([plans.misses, plans.hits, plans.size], [1, 1, 1], 'an equal graph shares the plan')
  compile(fn('tanh'), { x: f32(2) }, device)
  compile(fn('exp'), { x: f32(3) }, device)
  t.same([plans.misses, plans.hits, plans.size], [3, 1, 3], 'another attribute or shape does not')
  first.dispose()
  first.dispose()
  const x = new Tensor('float32', Float32Array.of(0, 0), [2])
  t.same([...(await again.run({ x }))['y']!.data], [1, 1], 'disposing of one program leaves the other alone')
  for (let n = 10; n < 10 + plans.capacity; ++n) compile(fn('exp'), { x: f32(n) }, device).dispose()
  t.equal(plans.size, plans.capacity)
  t.same([...(await again.run({ x }))['y']!.data], [1, 1], 'a plan in use outlives the cache')
  compile(fn('exp'), { x: f32(2) }, device).dispose()
  t.equal(plans.misses, 4 + plans.capacity, 'but is made anew for others')
  again.dispose()

  const own = await device.loadWeights(parameters)
  const before = plans.size
  compile(({ x }) => ({ y: ops.linear(x!, w) }), { x: f32(2, 8) }, device, own).dispose()
  own.dispose()
  t.ok(plans.size <= before, 'plans go with their weights')
})

t.test('tracing', async (t) => {
  let calls = 0
  const program = compile(({ x }) => { ++calls; return { y: ops.softmax(x!) } }, { x: f32(1, 2) }, device)
  await program.run({ x: random(1, 2) })
  await program.run({ x: random(1, 2) })
  t.equal(calls, 1, 'the function is called once, on values without data')
  program.dispose()
  t.throws(() => compile(({ x }) => ({ y: (x as unknown as number) > 0 ? x! : ops.softmax(x!) }), { x: f32(1, 2) }, device), TraceError)
  t.throws(() => compile(({ x }) => ({ y: ops.cast(x!.data, 'float32') }), { x: f32(1, 2) }, device), TraceError)

  let deep = input('x', f32(2))
  for (let i = 0; i < 20000; ++i) deep = ops.unary(deep, i % 2 ? 'neg' : 'abs')
  t.equal(lower(rewrite({ deep }), () => 0).plan.steps.length, 20000, 'graphs may be deeper than the stack')
})

t.test('stopping', async (t) => {
  const heavy: TracedFunction = ({ x }) => {
    let y = x!
    for (let i = 0; i < 60; ++i) y = ops.matmul(y, y, { scale: 1e-4 })
    return { y }
  }
  const program = compile(heavy, { x: f32(1024, 1024) }, device)
  const x = random(1024, 1024)
  const aborted = AbortSignal.abort(new Error('never begun'))
  await t.rejects(program.run({ x }, { signal: aborted }), { message: 'never begun' })
  const controller = new AbortController()
  const reason = { why: 'changed my mind' }
  const running = program.run({ x }, { signal: controller.signal })
  const queued = program.run({ x }, { signal: controller.signal })
  let begin = 0
  setTimeout(() => {
    begin = performance.now()
    controller.abort(reason)
  }, 30)
  const results = await Promise.allSettled([running, queued])
  t.same(results, [{ status: 'rejected', reason }, { status: 'rejected', reason }], 'both reject with the very reason')
  t.equal((results[0] as PromiseRejectedResult).reason, reason)
  t.ok(performance.now() - begin < 250, `after ${Math.round(performance.now() - begin)} ms`)
  const small = compile(({ x }) => ({ y: ops.unary(x!, 'neg') }), { x: f32(2) }, device)
  const since = performance.now()
  t.same([...(await small.run({ x: new Tensor('float32', Float32Array.of(1, 2), [2]) }))['y']!.data], [-1, -2], 'the device goes on')
  t.ok(performance.now() - since < 1000, 'and did not finish what was stopped')
  await t.rejects(program.run({ x }, { signal: AbortSignal.timeout(20) }), { name: 'TimeoutError' })
  program.dispose()
  small.dispose()
})

t.test('loading weights', async (t) => {
  const p: Parameter = { name: 'p', shape: [3, 2], dtype: 'float32', role: 'plain' }
  const entries = [{ parameter: p, source: random(3, 2) }]
  const before = device.memoryUsage().weights
  const seen: number[][] = []
  const loaded = await device.loadWeights(entries, { onProgress: (done, total) => void seen.push([done, total]) })
  t.ok(seen.length > 0 && seen.at(-1)![0] === seen.at(-1)![1], 'progress ends at the total')
  t.ok(loaded.bytes >= 24)
  t.equal(device.memoryUsage().weights, before + loaded.bytes)
  loaded.dispose()
  t.equal(device.memoryUsage().weights, before)
  await t.rejects(device.loadWeights(entries, { signal: AbortSignal.abort(new Error('not now')) }), { message: 'not now' })
  const thrown = new Error('from the callback')
  for (let turn = 0; turn < 20; turn++) {
    await t.rejects(device.loadWeights(entries, { onProgress: () => { throw thrown } }), thrown)
    t.equal(device.memoryUsage().weights, before, 'nothing is left of a load that failed')
  }
})

t.test('a load that is stopped rejects at once, or when it no longer reads the memory that it was lent', async (t) => {
  await using own = await Device.open({ device: 'cpu', dtype: 'f32' })
  const before = own.memoryUsage().weights
  const p: Parameter = { name: 'p', shape: [3, 2], dtype: 'float32', role: 'plain' }
  for (const held of [false, true]) {
    for (const fails of [false, true]) {
      // The native side ends when the test says so.
      let end = () => {}
      const ended = new Promise<void>((resolve) => (end = resolve))
      const loadWeights: typeof own.native.loadWeights = async (specs) => {
        await ended
        if (fails) throw Object.assign(new Error('cancelled'), { code: 'ERR_ABORTED' })
        return own.native.loadWeights(specs)
      }
      const device = Object.create(own, { native: { value: { loadWeights } } }) as Device
      const stop = new AbortController()
      const loading = device.loadWeights([{ parameter: p, source: random(3, 2), held }], { signal: stop.signal })
      let settled = false
      const rejected = t.rejects(loading, { message: 'enough' }).then(() => (settled = true))
      stop.abort(new Error('enough'))
      for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
      t.equal(settled, !held, held ? 'not while it reads' : 'at once')
      end()
      await rejected
      if (held && !fails) t.equal(own.memoryUsage().weights, before, 'what it had loaded is freed')
    }
  }
})

t.test('memory is accounted for', async (t) => {
  const before = memoryUsage()['cpu']!.total
  const own = await Device.open({ device: 'cpu', dtype: 'f32' })
  const loaded = await own.loadWeights(parameters)
  const program = compile(({ x }) => ({ y: ops.linear(x!, w) }), { x: f32(2, 8) }, own, loaded)
  await program.run({ x: random(2, 8) })
  t.equal(own.memoryUsage().weights, loaded.bytes)
  t.ok(own.memoryUsage().arena >= program.arenaBytes)
  t.equal(memoryUsage()['cpu']!.total, before + own.memoryUsage().total)
  const running = program.run({ x: random(2, 8) })
  await own.dispose()
  t.same((await running)['y']!.dims, [2, 12], 'a run that was begun ends')
  t.equal(memoryUsage()['cpu']!.total, before)
  await t.rejects(program.run({ x: random(2, 8) }), { code: 'ERR_DISPOSED' })
})

t.test('results written into given memory, also of names that share an output', async (t) => {
  const fn: TracedFunction = ({ x }) => {
    const y = ops.softmax(x!)
    return { y, again: y }
  }
  using program = compile(fn, { x: { shape: [1, 4], dtype: 'float32' } }, device)
  const into = { y: new Float32Array(4), again: new Float32Array(4) }
  await program.run({ x: new Tensor('float32', new Float32Array(4), [1, 4]) }, { into })
  t.same(into, { y: Array(4).fill(0.25), again: Array(4).fill(0.25) })
  await t.rejects(program.run({ x: new Tensor('float32', new Float32Array(4), [1, 4]) }, { into: { y: new Float32Array(3) } }), { code: 'ERR_ARGUMENT' })
})
