// Every op, in every mixture of dtypes, on every device and instruction set of this machine, against the float64 references.
// Buffers have guard bytes around them, and memory that was not written reads as NaN.
// The simulator has a process of its own, test/cuda/ops.ts, and gets one mixture for each type, unless CHIASMA_ALL_CASES is 1.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { Device, listDevices } from '../lib/core/device.js'
import { type OpName, opTable } from '../lib/ops/index.js'
import { geluTolerance, type OpCase, opCases, tolerances } from './op-cases.js'
import { batches } from './op-batches.js'
import { bitsOf, mismatch, normals, numbersOf, runOp, titleOf, type Variant, variantsOf } from './op-runner.js'
import { type RefArray, references, rowsOf } from './reference/index.js'
import { cosines } from './reference/search.js'

const names = Object.keys(opTable) as OpName[]
// CHIASMA_TEST_DEVICE: the devices whose ids begin so, else all but the simulator; CHIASMA_TEST_PART '1/12': each twelfth of the cases.
const only = process.env['CHIASMA_TEST_DEVICE']
const devices = (await listDevices()).filter(({ available, id, kind }) => available && (only ? id.startsWith(only) : kind !== 'cuda-sim'))
if (only && devices.length === 0) t.fail(`no device ${only} can be used here`)
const [part, parts] = (process.env['CHIASMA_TEST_PART'] || '1/1').split('/').map(Number) as [number, number]
let variantsSeen = 0
const inPart = () => variantsSeen++ % parts === part - 1

t.test('every op has cases for odd sizes, nothing, and NaN', (t) => {
  for (const name of names) {
    const cases = opCases[name]
    t.ok(cases.length >= 5, `${name} has ${cases.length} cases`)
    t.ok(cases.some(({ title }) => /NaN/.test(title)), `${name} is tried with NaN`)
    t.equal(new Set(cases.map((each) => each.title + JSON.stringify(each.attributes))).size, cases.length, `${name}'s titles differ`)
  }
  t.end()
})

const allCases = process.env['CHIASMA_ALL_CASES'] === '1'
const isReduced = (kind: string) => kind === 'cuda-sim' && !allCases

/** Whether all that varies is of one type; int8 weights go with float32. */
function isOfOneType(name: OpName, { inputs }: OpCase, { input, weight, output }: Variant): boolean {
  const all = Object.values(inputs)
  const types: string[] = []
  if (all.some(({ dtype, role }) => !dtype && role !== 'linear')) types.push(input)
  if (all.some(({ role }) => role === 'linear')) types.push(weight === 'int8' ? 'float32' : weight)
  if ('dtype' in opTable[name].attributes) types.push(output)
  return new Set(types).size <= 1
}

t.test('every op has a kernel on each device, or says that it has none', (t) => {
  const views = ['reshape', 'columns'] // the same memory seen otherwise
  for (const [kind, table] of Object.entries({ cpu: 'cpp/cpu', cuda: 'cuda' })) {
    const source = readFileSync(new URL(`../native/${table}/kernels.cpp`, import.meta.url), 'utf8')
    const kernels = [...source.matchAll(/^ +\{"(\w+)", make_\w+\},/gm)].map(([, op]) => op!)
    t.same(kernels.sort(), opsOf(kind).filter((name) => !views.includes(name)).sort(), kind)
  }
  t.end()
})

/** The ops that the table says a device has. */
function opsOf(kind: string): OpName[] {
  return names.filter((name) => kind === 'cpu' || opTable[name].cuda !== false)
}
/** Its float types beside float32. */
const lowTypes = (kind: string) => (kind === 'cpu' ? (['bfloat16'] as const) : (['bfloat16', 'float16'] as const))

for (const info of devices) {
  for (const isa of info.isa ?? [undefined]) {
    t.test([info.id, isa].filter(Boolean).join(' '), async (t) => {
      const device = await Device.open({ device: info.id, dtype: 'f32', isa })
      t.teardown(() => device.dispose())
      if (isa) t.equal(device.isa, isa)
      const views = ['reshape', 'columns'] // which need no kernel
      t.same(names.filter((name) => device.hasOp(name)), opsOf(info.kind).filter((name) => !views.includes(name)), 'its kernels are those of the op table')
      for (const name of opsOf(info.kind)) {
        await t.test(name, async (t) => {
          for (const opCase of opCases[name]) {
            const variants = lowTypes(info.kind)
              .flatMap((low) => variantsOf(name, opCase, low))
              .filter((variant) => !isReduced(info.kind) || isOfOneType(name, opCase, variant))
            const titles = new Set<string>()
            for (const variant of variants) {
              if (titles.has(titleOf(name, opCase, variant))) continue // float32 alone
              titles.add(titleOf(name, opCase, variant))
              if (!inPart()) continue
              const title = titleOf(name, opCase, variant)
              try {
                const run = await runOp(name, opCase, variant, device)
                const expected = references[name](run.inputs, run.attributes)
                const allowed = opCase.allowed ?? allowance(name, opCase, variant, info.kind, isa)
                const wrong =
                  name === 'cosineTopK'
                    ? wrongTopK(run.inputs, run.outputs, expected, allowed)
                    : run.outputs.map((output, i) => mismatch(output, expected[i]!, allowed)).find((text) => text)
                if (wrong) t.fail(title, { wrong })
                else t.pass(title)
              } catch (error) {
                t.fail(title, { error: String(error) })
              }
            }
          }
        })
      }
    })
  }
}

for (const info of devices) {
  for (const isa of info.isa ?? [undefined]) {
    t.test(['same bits on', info.id, isa].filter(Boolean).join(' '), async (t) => {
      const all = await Device.open({ device: info.id, dtype: 'f32', isa })
      const one = await Device.open({ device: info.id, dtype: 'f32', isa, threads: 1 })
      t.teardown(() => Promise.all([all.dispose(), one.dispose()]))
      for (const name of opsOf(info.kind)) {
        for (const batch of batches[name]) {
          for (const variant of batchVariants(name, info.kind)) {
            if (!inPart()) continue
            const bits = async (order: readonly number[], device = all) => {
              const { outputs } = await runOp(name, batch.build(order), variant, device, false)
              return bitsOf(outputs, order.map(batch.rows))
            }
            const everyone = Array.from({ length: batch.items }, (_, item) => item)
            const expected = await bits(everyone)
            const wrong: string[] = []
            const compare = (what: string, order: readonly number[], got: readonly string[]) =>
              order.forEach((item, place) => got[place] !== expected[item] && wrong.push(`item ${item} ${what}`))
            if (info.kind === 'cpu') compare('on one thread', everyone, await bits(everyone, one))
            for (const seed of isReduced(info.kind) ? [1] : [1, 2]) {
              const order = shuffled(everyone, seed)
              compare(`in permutation ${seed}`, order, await bits(order))
            }
            for (const order of [everyone.slice(0, 2), everyone.slice(3), [...everyone.slice(5), ...everyone]]) compare(`in a batch of ${order.length}`, order, await bits(order))
            for (const item of everyone.slice(0, isReduced(info.kind) ? 3 : 12)) compare('alone', [item], await bits([item]))
            t.same(wrong, [], titleOf(name, { title: batch.title, inputs: {} }, variant))
          }
        }
      }
    })
  }
}

function shuffled(items: readonly number[], seed: number): number[] {
  const next = normals(seed)
  return items.map((item) => ({ item, key: next() })).sort((a, b) => a.key - b.key).map(({ item }) => item)
}

/** One type for all, and int8 weights where an op has them. */
function batchVariants(name: OpName, kind: string): Variant[] {
  const low = isReduced(kind) ? (['bfloat16'] as const) : lowTypes(kind)
  const plain = (['float32', ...low] as const).map((type) => ({ input: type, weight: type, output: type }))
  return name === 'linear' ? [...plain, { input: 'float32', weight: 'int8', output: 'float32' }] : plain
}

function allowance(name: OpName, { attributes = {}, inputs }: OpCase, { input, weight, output }: Variant, kind: string, isa: string | undefined): number {
  const { float32, bfloat16, tileBfloat16 = bfloat16 } = tolerances[name]
  const products = kind !== 'cpu' || isa === 'avx512_bf16' || isa === 'amx'
  const least = input === 'float32' && weight === 'float32' ? float32 : products && input === 'bfloat16' ? tileBfloat16 : bfloat16
  const gelu = !inputs['residual'] && /gelu/.test(String(attributes['activation'] ?? attributes['kind']))
  return gelu && output === 'bfloat16' && /^(avx512|amx)/.test(isa ?? '') ? Math.max(least, geluTolerance) : least
}

/** Scores as the reference's; where indices differ from it, what they point at scores as well; ties are in order. */
function wrongTopK(inputs: readonly (RefArray | undefined)[], outputs: readonly any[], expected: readonly RefArray[], allowed: number): string | undefined {
  const wrong = mismatch(outputs[0], expected[0]!, allowed)
  if (wrong) return `scores: ${wrong}`
  const [queries, corpus, inverseNorms] = inputs
  const all = cosines(rowsOf(queries!), rowsOf(corpus!), inverseNorms?.data)
  const k = expected[1]!.shape[1]!
  const indices = numbersOf(outputs[1])
  const scores = numbersOf(outputs[0])
  for (let m = 0; m < all.length; ++m) {
    const row = indices.subarray(m * k, (m + 1) * k)
    const filled = row.filter((index) => index >= 0)
    if (new Set(filled).size !== filled.length) return `query ${m} has an index twice: ${row}`
    for (let i = 0; i < k; ++i) {
      const at = m * k + i
      if (row[i]! < 0 !== expected[1]!.data[at]! < 0) return `query ${m}, place ${i} is ${row[i]}, expected ${expected[1]!.data[at]}`
      if (row[i]! < 0) continue
      const [score, reference] = [scores[at]!, all[m]![row[i]!]!]
      if (!Object.is(score, reference) && !(Math.abs(score - reference) <= allowed * (1 + Math.abs(reference)))) return `query ${m}, row ${row[i]} scores ${reference}, not ${score}`
      if (i > 0 && row[i - 1]! > row[i]! && Object.is(scores[at - 1], scores[at])) return `query ${m} has a tie out of order: ${row}`
    }
  }
  return undefined
}
