// `npm run bench:families`: a row for each family of encoders at the size of a usual checkpoint, with random weights: items a second, and what
// their products and attention need of it beside a bare product of this process, so that a family that falls off the fused paths shows.
//   npm run bench:families -- [--only NAME] [--device cpu] [--dtype auto] [--seconds 2]

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { AutoModel, compile, Device, Tensor } from '../dist/index.js'
import { parameter } from '../dist/core/value.js'
import { writeSafetensors } from '../dist/io/safetensors.js'
import { buildArchitecture } from '../dist/models/registry.js'
import { Scope } from '../dist/nn/index.js'
import { linear, pool } from '../dist/ops/index.js'
import { families } from './families/rows.mjs'

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    device: { type: 'string', default: 'auto' },
    dtype: { type: 'string', default: 'auto' },
    seconds: { type: 'string', default: '2' },
  },
})
const loading = { device: options.device, dtype: options.dtype }

/** A MiB of numbers that look random, put one after the other. */
const noise = new Float32Array(1 << 18)
let state = 1
for (let i = 0; i < noise.length; i++) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  noise[i] = (state / 2 ** 31 - 1) * 0.05
}

function* bytes(name, size) {
  const isOne = /(norm|bn)[^.]*\.weight$|running_var$|lambda1$|layer_scale/i.test(name)
  const block = isOne ? new Float32Array(Math.min(size, noise.length)).fill(1) : noise
  for (let at = 0; at < size; at += block.length) yield new Uint8Array(block.buffer, 0, 4 * Math.min(block.length, size - at))
}

/** Writes a checkpoint of everything that an architecture asks for. */
async function writeRandom(folder, { config, absent = /^$/ }) {
  await mkdir(folder, { recursive: true })
  const scope = Scope.root({ has: name => !absent.test(name) }, 'float32')
  buildArchitecture({ json: config, file: 'config.json' }, scope)
  const shapes = new Map()
  for (const { name, shape, view, derived, rowScale } of scope.parameters) {
    if (!derived) shapes.set(name, view?.shape ?? shape)
    for (const from of [...(derived?.from ?? []), ...(rowScale?.from ?? [])]) shapes.set(from.name, from.shape)
  }
  const tensors = [...shapes].map(([name, shape]) => ({ name, dtype: 'float32', shape, bytes: () => bytes(name, shape.reduce((a, b) => a * b, 1)) }))
  await writeSafetensors(join(folder, 'model.safetensors'), tensors)
  await writeFile(join(folder, 'config.json'), JSON.stringify(config))
}

/** Seconds of one call of each: the least of several, in which they take turns. */
async function times(...works) {
  const best = works.map(() => Infinity)
  const end = performance.now() + Number(options.seconds) * 1000
  for (let round = -1; round < 3 || performance.now() < end; round++) {
    for (const [i, work] of works.entries()) {
      const began = performance.now()
      await work()
      if (round >= 0) best[i] = Math.min(best[i], (performance.now() - began) / 1000)
    }
  }
  return best
}

/** A product as large as those of a base-size model. */
async function openProduct() {
  const [rows, inputs, outputs] = [1024, 768, 3072]
  const device = await Device.open(loading)
  const stored = { name: 'weight', shape: [outputs, inputs], dtype: device.productType, role: 'linear' }
  const x = { name: 'x', shape: [rows, inputs], dtype: device.computeType, role: 'plain' }
  const filled = (shape, value) => new Tensor('float32', new Float32Array(shape[0] * shape[1]).fill(value), shape)
  const weights = await device.loadWeights([
    { parameter: stored, source: filled(stored.shape, 0.5) },
    { parameter: x, source: filled(x.shape, 0.1) },
  ])
  // The mean of the rows, so that nothing large is copied out.
  const program = compile(() => ({ y: pool(linear(parameter(x), parameter(stored), { dtype: device.computeType }), { mode: 'mean', length: rows }) }), {}, device, weights)
  return { device, gflop: 2e-9 * rows * inputs * outputs, run: () => program.run({}) }
}

const folder = await mkdtemp(join(tmpdir(), 'chiasma-bench-'))
const product = await openProduct()
try {
  console.log(`On ${product.device.id}, ${product.device.dtype}. The last column: the arithmetic of the items beside that of a product [1024, 768] x [3072, 768] in the same time.\n`)
  console.log('| family | size of | what | items/s | GFLOP each | share |\n| --- | --- | --- | ---: | ---: | ---: |')
  for (const family of families) {
    if (!family.name.toLowerCase().includes(options.only.toLowerCase())) continue
    const place = join(folder, 'model')
    await writeRandom(place, family)
    const model = await AutoModel.fromPretrained(place, loading)
    try {
      const { inputs, items } = family.batch()
      const [seconds, productSeconds] = await times(() => model.forward(inputs, { outputs: family.outputs }), product.run)
      const rate = items / seconds
      const share = family.gflop ? `${((100 * rate * family.gflop * productSeconds) / product.gflop).toFixed(0)}%` : ''
      console.log(`| ${family.name} | ${family.size} | ${family.what} | ${rate.toFixed(1)} | ${family.gflop?.toFixed(2) ?? ''} | ${share} |`)
    } finally {
      await model.dispose()
      await rm(place, { recursive: true, force: true })
    }
  }
} finally {
  await product.device.dispose()
  await rm(folder, { recursive: true, force: true })
}
