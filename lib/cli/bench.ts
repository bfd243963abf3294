// chiasma bench: what this machine does with the kernels: matrix products of each instruction set, the shapes of a ViT, reading memory, exact
// search, and a model's images or texts a second. Each figure is the best of several runs, for other programs disturb; inputs lie on the
// device, so that nothing but the op is timed.

import type { Command } from 'commander'
import { availableParallelism } from 'node:os'
import { compile } from '../core/compile.js'
import { Device, listDevices } from '../core/device.js'
import { UnsupportedError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { type Parameter, parameter, type Value } from '../core/value.js'
import { Embedder } from '../embed/embedder.js'
import { attention, cosineTopK, linear, pool } from '../ops/index.js'
import { packageVersion, print, say } from './console.js'
import { loadOptions, type ModelOptions, positiveInteger, positiveNumber, withLoading } from './options.js'

interface BenchOptions extends Omit<ModelOptions, 'model'> {
  model?: string
  batchSize: number
  seconds: number
  json?: boolean
}

interface Product {
  isa: string
  dtype: string
  gflops: number
}
interface Timed {
  what: string
  dtype: string
  ms: number
  gflops?: number
  gbPerSecond?: number
}

export function define(command: Command): void {
  withLoading(command.option('-m, --model <source>', 'also time this checkpoint: folder or Hugging Face Hub id'))
    .option('--seconds <s>', 'time for each figure', positiveNumber, 0.5)
    .option('--batch-size <n>', 'images given to the model at once', positiveInteger, 32)
    .option('--json', 'print the same as JSON')
    .action(run)
}

async function run(options: BenchOptions): Promise<void> {
  const { device: id = 'auto', threads, json } = options
  secondsPerFigure = options.seconds
  const chosen = await Device.open({ device: id, threads })
  const info = (await listDevices()).find((one) => one.id === chosen.id)!
  const { isa: best } = chosen
  await chosen.dispose()
  const onDevice = { device: info.id, threads }
  say(`measuring ${info.id} (${info.name}); this takes a while`)

  const products: Product[] = []
  for (const isa of info.isa ?? [best]) {
    for (const dtype of ['f32', 'bf16', 'f16', 'int8']) {
      const time = await onOpened({ ...onDevice, dtype, ...(info.isa && { isa }) }, (device) => (isNative(device, info.isa) ? timeLinear(device, 512, 1024, 1024) : undefined))
      if (time) products.push({ isa, dtype, gflops: (2 * 512 * 1024 * 1024) / time / 1e6 })
    }
  }
  const timed: Timed[] = []
  for (const dtype of ['f32', 'bf16', 'f16', 'int8']) {
    await onOpened({ ...onDevice, dtype }, async (device) => {
      if (!isNative(device, info.isa)) return
      for (const [what, rows, inputs, outputs] of vitLinears) {
        const ms = await timeLinear(device, rows, inputs, outputs)
        timed.push({ what: `${what} [${rows}, ${inputs}] x [${outputs}, ${inputs}]`, dtype, ms, gflops: (2 * rows * inputs * outputs) / ms / 1e6 })
      }
      if (dtype === 'int8') return
      const ms = await timeAttention(device)
      timed.push({ what: 'ViT-B attention, 8 images, 197 tokens, 12 heads of 64', dtype, ms, gflops: (4 * 8 * 197 * 197 * 768) / ms / 1e6 })
    })
  }
  for (const [dtype, type, bytes] of [['f32', 'float32', 4], ['bf16', 'bfloat16', 2], ['int8', 'int8', 1]] as const) {
    await onOpened({ ...onDevice, dtype: 'f32' }, async (device) => {
      if (!device.hasOp('cosineTopK')) return
      const ms = await timeSearch(device, type, bytes)
      timed.push({ what: `top 10 of ${searchRows} rows of ${searchColumns}, one query`, dtype, ms, gbPerSecond: (searchRows * searchColumns * bytes) / ms / 1e6 })
    })
  }
  const model = options.model === undefined ? undefined : await timeModel(options.model, options)
  const result = { chiasma: packageVersion(), device: info.id, name: info.name, threads: threads ?? info.threads ?? availableParallelism(), products, timed, model }
  if (json) await print(JSON.stringify(result, undefined, 2))
  else await report(result)
}

async function report({ device, name, threads, products, timed, model }: { device: string; name: string; threads: number; products: Product[]; timed: Timed[]; model?: Model | undefined }): Promise<void> {
  await print(`${device}: ${name}, ${threads} threads; the best of several runs`)
  await print('\nproducts [512, 1024] x [1024, 1024], GFLOP/s:')
  for (const isa of new Set(products.map((product) => product.isa))) {
    const figures = products.filter((product) => product.isa === isa).map(({ dtype, gflops }) => `${dtype} ${gflops.toFixed(0)}`)
    await print(`  ${isa.padEnd(12)} ${figures.join('   ')}`)
  }
  await print('')
  for (const { what, dtype, ms, gflops, gbPerSecond } of timed) {
    await print(`${what.padEnd(56)} ${dtype.padEnd(5)} ${ms.toFixed(2).padStart(8)} ms  ${gflops ? `${gflops.toFixed(0)} GFLOP/s` : `${gbPerSecond!.toFixed(1)} GB/s`}`)
  }
  if (!model) return
  await print(`\n${model.source}, ${model.dtype}:`)
  if (model.imagesPerSecond) await print(`  ${model.imagesPerSecond.toFixed(1)} images per second, decoded beforehand, ${model.batchSize} at once`)
  if (model.textsPerSecond) await print(`  ${model.textsPerSecond.toFixed(1)} texts per second, ${benchTexts.length} of them at once, tokenising included`)
}

/** ViT-B/16 on 8 images. */
const vitLinears = [
  ['ViT-B attention output', 8 * 197, 768, 768],
  ['ViT-B MLP in', 8 * 197, 768, 3072],
  ['ViT-B MLP out', 8 * 197, 3072, 768],
] as const
const searchRows = 100_000
const searchColumns = 512

/** Whether the device computes in its dtype; where it has no such instructions, results are the same but speed is that of f32. */
function isNative(device: Device, isas: readonly string[] | undefined): boolean {
  if (device.dtype === 'bf16') return device.bf16
  if (device.dtype === 'int8' && isas) return device.isa === 'avx2' || (isas.includes('avx512_vnni') && isas.indexOf(device.isa) >= isas.indexOf('avx512_vnni'))
  return true
}

/** `use` of an opened device, or undefined if it lacks the dtype. */
async function onOpened<T>(options: Parameters<typeof Device.open>[0], use: (device: Device) => Promise<T> | T): Promise<T | undefined> {
  try {
    await using device = await Device.open(options)
    return await use(device)
  } catch (error) {
    if (error instanceof UnsupportedError) return undefined
    throw error
  }
}

/** Milliseconds of rows [rows, inputs] times a weight [outputs, inputs]. */
function timeLinear(device: Device, rows: number, inputs: number, outputs: number): Promise<number> {
  const x = plain('x', [rows, inputs], device.computeType)
  const weight: Parameter = { name: 'weight', shape: [outputs, inputs], dtype: device.productType, role: 'linear' }
  return timeProgram(device, [x, weight], () => pool(linear(parameter(x), parameter(weight)), { mode: 'mean', length: rows }))
}

function timeAttention(device: Device): Promise<number> {
  const [rows, columns] = [8 * 197, 768]
  const [q, k, v] = ['q', 'k', 'v'].map((name) => plain(name, [rows, columns], device.computeType)) as [Parameter, Parameter, Parameter]
  const attend = () => attention(parameter(q), parameter(k), parameter(v), { heads: 12, queryLength: 197, keyLength: 197 })
  return timeProgram(device, [q, k, v], () => pool(attend(), { mode: 'mean', length: rows }))
}

function timeSearch(device: Device, type: 'float32' | 'bfloat16' | 'int8', bytes: number): Promise<number> {
  const query = plain('query', [1, searchColumns], 'float32')
  const corpus = plain('corpus', [searchRows, searchColumns], type)
  return timeProgram(device, [query, corpus], () => cosineTopK(parameter(query), parameter(corpus), { k: 10 })[0], bytes === 1 ? int8Numbers : numbers)
}

function plain(name: string, shape: number[], dtype: Parameter['dtype']): Parameter {
  return { name, shape, dtype, role: 'plain' }
}

async function timeProgram(device: Device, parameters: Parameter[], fn: () => Value, fill = numbers): Promise<number> {
  const weights = await device.loadWeights(parameters.map((one) => ({ parameter: one, source: (one.dtype === 'int8' && one.role === 'plain' ? fill : numbers)(one.shape) })))
  try {
    using program = compile(() => ({ y: fn() }), {}, device, weights)
    return await bestOf(() => program.run({}))
  } finally {
    weights.dispose()
  }
}

/** Numbers from −1 to 1 that come again after a while; which ones matters to no figure. */
function numbers(shape: readonly number[]): Tensor {
  return new Tensor('float32', repeated(new Float32Array(shape.reduce((a, b) => a * b)), (x) => x), shape)
}

function int8Numbers(shape: readonly number[]): Tensor {
  return new Tensor('int8', repeated(new Int8Array(shape.reduce((a, b) => a * b)), (x) => Math.round(127 * x)), shape)
}

function repeated<T extends Float32Array | Int8Array>(data: T, from: (x: number) => number): T {
  const period = Math.min(data.length, 99_991)
  for (let i = 0, state = 1; i < period; i++) data[i] = from((state = (Math.imul(state, 1664525) + 1013904223) | 0) / 2 ** 31)
  for (let done = period; done < data.length; done *= 2) data.copyWithin(done, 0, Math.min(done, data.length - done))
  return data
}

let secondsPerFigure = 0.5

/** Milliseconds of the quickest of the runs that the time for a figure has room for, at least three. */
async function bestOf(run: () => Promise<unknown>): Promise<number> {
  await run()
  let best = Number.POSITIVE_INFINITY
  const end = performance.now() + 1000 * secondsPerFigure
  for (let count = 0; count < 3 || performance.now() < end; count++) {
    const started = performance.now()
    await run()
    best = Math.min(best, performance.now() - started)
  }
  return best
}

interface Model {
  source: string
  dtype: string
  batchSize: number
  imagesPerSecond?: number
  textsPerSecond?: number
}

const sentences = ['A plane is taking off.', 'Two dogs run through high grass towards the camera.', 'The stock market closed higher on Friday, its third gain in a row.', 'How do I keep bread fresh for longer?']
const benchTexts = Array.from({ length: 128 }, (_, i) => `${sentences[i % sentences.length]} ${i}`)

async function timeModel(source: string, options: BenchOptions): Promise<Model> {
  const { batchSize } = options
  await using embedder = await Embedder.fromPretrained(source, loadOptions({ ...options, model: source }))
  const { imageEncoder, textEncoder } = embedder.model
  const result: Model = { source, dtype: embedder.dtype, batchSize }
  if (imageEncoder) {
    const { height, width } = imageEncoder.size
    const pixels = Uint8Array.from({ length: batchSize * height * width * 3 }, (_, i) => (i * 7919) & 255)
    const images = new Tensor('uint8', pixels, [batchSize, height, width, 3])
    result.imagesPerSecond = (batchSize / (await bestOf(() => embedder.embedImages(images)))) * 1000
  }
  if (textEncoder) result.textsPerSecond = (benchTexts.length / (await bestOf(() => embedder.embedTexts(benchTexts)))) * 1000
  return result
}
