// What every public call says of an option that it does not know or that is of the wrong kind: before any work, with a typed error that names both.

import { join } from 'node:path'
import t from 'tap'
import { ArgumentError, AutoModel, AutoProcessor, AutoTokenizer, classifyImages, Device, Embedder, ops, Tensor, VectorIndex } from '../lib/index.js'
import { temporaryFolder, writePictures, writeTinyClip } from './support/tiny-clip.js'

const { folder, remove } = await temporaryFolder()
const source = await writeTinyClip(folder)
const pictures = await writePictures(folder, 3)
const embedder = await Embedder.fromPretrained(source, { dtype: 'f32' })
const index = await VectorIndex.create({ dimensions: 2 })
const saved = join(folder, 'saved.index')
await index.save(saved)
const tokenizer = await AutoTokenizer.fromPretrained(source)
const processor = await AutoProcessor.fromPretrained(source)
t.teardown(async () => {
  await Promise.all([embedder.dispose(), index.dispose()])
  await remove()
})

const zeros = (...dims: number[]) => new Tensor('float32', new Float32Array(dims.reduce((a, b) => a * b, 1)), dims)
const all = async (stream: AsyncIterable<unknown>) => {
  for await (const _ of stream);
}
const square = zeros(1, 1, 2, 2)
const pixels = zeros(1, 3, 4, 4)

/** Each call with options of anyone's making. */
const calls: Record<string, (options: any) => unknown> = {
  'Embedder.fromPretrained': (o) => Embedder.fromPretrained(source, o),
  'AutoModel.fromPretrained': (o) => AutoModel.fromPretrained(source, o),
  'AutoTokenizer.fromPretrained': (o) => AutoTokenizer.fromPretrained(source, o),
  'AutoProcessor.fromPretrained': (o) => AutoProcessor.fromPretrained(source, o),
  embedImages: (o) => embedder.embedImages(pictures, o),
  embedTexts: (o) => embedder.embedTexts(['a'], o),
  embedStream: (o) => all(embedder.embedStream(pictures, o)),
  classifyImages: (o) => all(classifyImages(embedder, pictures, { labels: ['a', 'b'], ...o })),
  forward: (o) => embedder.model.forward({ pixel_values: zeros(1, 3, 24, 24) }, o),
  tokenizer: async (o) => tokenizer('a', o),
  processor: (o) => processor(pictures, o),
  'ops.attention': (o) => ops.attention(square, square, square, o),
  'ops.patchEmbed': (o) => ops.patchEmbed(pixels, zeros(2, 3, 2, 2), o),
  'ops.cosineSimilarity': (o) => ops.cosineSimilarity(zeros(1, 2), zeros(1, 2), o),
  'ops.cosineTopK': (o) => ops.cosineTopK(zeros(1, 2), zeros(1, 2), 1, o),
  'Device.open': (o) => Device.open(o).then((opened) => opened.dispose()),
  'VectorIndex.create': (o) => VectorIndex.create({ dimensions: 2, ...o }),
  'VectorIndex.load': (o) => VectorIndex.load(saved, o).then((loaded) => loaded.dispose()),
}

const wrong: Record<string, unknown[]> = {
  device: [0, null, 'tpu'],
  dtype: [0, null, 'f64'],
  threads: [0, -1, 1.5, NaN, '2', 2 ** 60],
  cacheDir: [5],
  revision: [5],
  localFilesOnly: ['yes', 1],
  batchSize: [0, -1, 2.5, NaN, Infinity, '8', null],
  normalize: ['false', 0],
  truncateDim: [0, -3, 1.5, NaN, 21, '8'],
  maxLength: [0, -1, 1.5, NaN, '8'],
  maxPixels: [0, -1, NaN, '8'],
  timeout: [0, NaN],
  truncation: ['true'],
  precision: ['int4', 8],
  prompt: [5],
  promptName: [5, 'summary'],
  signal: [{}, 5],
  onProgress: [5, {}],
  allowRemote: ['true', 1],
  labels: [[], 'a,b', [5], [undefined]],
  template: ['a photo', 5],
  topK: [0, -1, 2.5, NaN, '3'],
  outputs: ['image_embeds', [5]],
  outputHiddenStates: ['true'],
  padding: ['shortest', 1],
  output: ['float16'],
  causal: ['true', 1],
  scale: [NaN, Infinity, '1'],
  mean: [[1, 2], 'x', [NaN, 0, 0]],
  std: [[1, 0, 1]],
  rescale: [NaN, '1'],
  dimensions: [0, -1, 1.5, NaN, '2'],
}

/** The options that each call takes of these. */
const takes: Record<string, string[]> = {
  'Embedder.fromPretrained': ['device', 'dtype', 'threads', 'cacheDir', 'revision', 'localFilesOnly', 'signal', 'onProgress'],
  'AutoModel.fromPretrained': ['device', 'dtype', 'threads', 'cacheDir', 'revision', 'localFilesOnly', 'signal', 'onProgress'],
  'AutoTokenizer.fromPretrained': ['cacheDir', 'revision', 'localFilesOnly'],
  'AutoProcessor.fromPretrained': ['cacheDir', 'revision', 'localFilesOnly'],
  embedImages: ['normalize', 'batchSize', 'truncateDim', 'maxPixels', 'timeout', 'allowRemote', 'signal', 'onProgress'],
  embedTexts: ['normalize', 'batchSize', 'truncateDim', 'prompt', 'promptName', 'precision', 'maxLength', 'truncation', 'signal', 'onProgress'],
  embedStream: ['normalize', 'batchSize', 'truncateDim', 'prompt', 'promptName', 'maxLength', 'truncation', 'maxPixels', 'allowRemote', 'signal', 'onProgress'],
  classifyImages: ['labels', 'template', 'topK', 'batchSize', 'allowRemote', 'signal'],
  forward: ['outputs', 'outputHiddenStates', 'signal'],
  tokenizer: ['padding', 'truncation', 'maxLength'],
  processor: ['output', 'maxPixels', 'allowRemote', 'signal'],
  'ops.attention': ['device', 'dtype', 'threads', 'causal', 'scale', 'signal'],
  'ops.patchEmbed': ['device', 'dtype', 'threads', 'mean', 'std', 'rescale', 'signal'],
  'ops.cosineSimilarity': ['device', 'dtype', 'threads', 'signal'],
  'ops.cosineTopK': ['device', 'dtype', 'threads', 'signal'],
  'Device.open': ['device', 'dtype', 'threads'],
  'VectorIndex.create': ['dimensions', 'device', 'threads'],
  'VectorIndex.load': ['device', 'threads'],
}

for (const [name, call] of Object.entries(calls)) {
  t.test(name, async (t) => {
    await t.rejects(async () => call({ nonsense: 1 }), { name: 'ArgumentError', field: 'nonsense', message: /there is no option 'nonsense'; expected / })
    for (const option of takes[name]!) {
      const misspelled = option.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)
      const other = misspelled === option ? option.toUpperCase() : misspelled
      await t.rejects(async () => call({ [other]: 1 }), { name: 'ArgumentError', field: other, message: `there is no option '${other}'; did you mean '${option}'?` })
      for (const value of wrong[option]!) {
        const reported = await Promise.resolve().then(() => call({ [option]: value })).then(() => undefined, (error: unknown) => error as ArgumentError)
        t.ok(reported instanceof ArgumentError && reported.message.includes(option), `${option} ${typeof value === 'string' ? `'${value}'` : String(value)}: ${reported?.message}`)
      }
      // Two have no default here.
      if (option !== 'labels' && option !== 'dimensions') await t.resolves(async () => call({ [option]: undefined }), `${option}: undefined is the default`)
    }
  })
}

t.test('tensors', async (t) => {
  const data = new Float32Array(2)
  for (const type of ['float64', 'f32', undefined, 5]) t.throws(() => new Tensor(type as 'float32', data, [2]), { name: 'ArgumentError', field: 'type' })
  for (const dims of [2, '2', undefined, [-1, -2], [1.5, 4 / 3], [NaN], ['2'], [2n]]) t.throws(() => new Tensor('float32', data, dims as number[]), { name: 'ArgumentError', field: 'dims' })
  for (const dims of [[], [1], [3], [2, 2]]) t.throws(() => new Tensor('float32', data, dims), { name: 'ArgumentError' })
  for (const wrong of [[1, 2], new Float64Array(2), undefined, new Int8Array(8)]) t.throws(() => new Tensor('float32', wrong as unknown as Float32Array, [2]), { name: 'ArgumentError' })
  t.equal(new Tensor('float32', new Float32Array(1), []).size, 1, 'a scalar')
})

t.test('what is embedded, classified and compared', async (t) => {
  for (const images of ['cat.jpg', undefined, null, 5, {}] as unknown as string[][]) {
    await t.rejects(embedder.embedImages(images), { name: 'ArgumentError', field: 'images' })
    await t.rejects(all(embedder.embedStream(images)), { name: 'ArgumentError', field: 'items' })
    await t.rejects(all(classifyImages(embedder, images, { labels: ['a'] })), { name: 'ArgumentError', field: 'images' })
    await t.rejects(embedder.embedTexts(images), { name: 'ArgumentError', field: 'texts' })
  }
  for (const image of ['', undefined, null, 5, {}, [], { data: new Uint8Array(3), width: 1, height: NaN, channels: 3 }] as unknown as string[]) {
    await t.rejects(embedder.embedImages([pictures[0]!, image]), { index: 1, code: /ERR_(ARGUMENT|IMAGE)/ })
  }
  await t.rejects(embedder.embedTexts(['a', ...new Array<string>(1)]), { name: 'ArgumentError', index: 1 }, 'a hole in the list')
  for (const options of [null, 'f32', 5, []] as object[]) {
    await t.rejects(embedder.embedImages(pictures, options), { name: 'ArgumentError', field: 'options' })
  }
  for (const k of [0, -1, 1.5, NaN, '3', undefined, Infinity] as number[]) await t.rejects(ops.cosineTopK(zeros(1, 2), zeros(1, 2), k), { name: 'ArgumentError', field: 'k' })
  await t.rejects(ops.cosineTopK(zeros(3, 2), zeros(1, 2), 2 ** 40), { name: 'OutOfMemoryError' })
  for (const tensor of [undefined, null, 5, [1, 2], { type: 'float32' }, { type: 'float32', data: new Float32Array(2), dims: [3] }, { type: 'float32', data: [1, 2], dims: [1, 2] }] as unknown as Tensor[]) {
    await t.rejects(ops.cosineSimilarity(tensor, zeros(1, 2)), { name: 'ArgumentError' })
    await t.rejects(index.add(tensor), { name: 'ArgumentError' })
    await t.rejects(embedder.model.forward({ pixel_values: tensor }), { name: 'ArgumentError' })
  }
  await t.rejects(embedder.model.forward(undefined as unknown as {}), { name: 'ArgumentError' })
  const large = await embedder.embedImages(pictures, { batchSize: Number.MAX_SAFE_INTEGER })
  t.same(large.data, (await embedder.embedImages(pictures)).data)
})
