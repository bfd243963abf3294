import { join } from 'node:path'
import { cp, readFile, rename, writeFile } from 'node:fs/promises'
import t from 'tap'
import { ArgumentError, DisposedError, Embedder, type StreamItem, Tensor } from '../../lib/index.js'
import { temporaryFolder, writePictures, writeTinyClip } from '../support/tiny-clip.js'

const { folder, remove } = await temporaryFolder()
const model = await writeTinyClip(folder)
const pictures = await writePictures(folder, 30)
const embedder = await Embedder.fromPretrained(model, { dtype: 'f32' })
t.teardown(async () => {
  await embedder.dispose()
  await remove()
})

const rowOf = (tensor: Tensor, i: number) => (tensor.data as Float32Array).subarray(i * embedder.dimensions, (i + 1) * embedder.dimensions)
const norm = (row: Float32Array) => Math.hypot(...row)

t.test('images and texts', async (t) => {
  t.match(embedder, { dimensions: 20, maxLength: 12, device: 'cpu', dtype: 'f32', prompts: {} })
  const images = await embedder.embedImages(pictures)
  t.same(images.dims, [30, 20])
  for (let i = 0; i < 30; i++) t.ok(Math.abs(norm(rowOf(images, i)) - 1) < 1e-6)
  const raw = await embedder.embedImages(pictures.slice(0, 2), { normalize: false })
  t.ok(Math.abs(norm(rowOf(raw, 0)) - 1) > 1e-3, 'normalize: false keeps the length')
  const texts = await embedder.embedTexts(['a cat', '', 'a longer text than the model can take in at once'])
  t.same(texts.dims, [3, 20])
  await t.rejects(embedder.embedTexts(['a cat', 'a longer text than the model can take'], { truncation: false }), { name: 'ArgumentError', index: 1 })
  t.same((await embedder.embedImages([])).dims, [0, 20])
  t.same((await embedder.embedTexts([])).dims, [0, 20])
})

t.test('the same bits in any batch and order, from any kind of input', async (t) => {
  const whole = await embedder.embedImages(pictures)
  const backwards = await embedder.embedImages([...pictures].reverse(), { batchSize: 7 })
  for (let i = 0; i < 30; i++) t.same(rowOf(backwards, 29 - i), rowOf(whole, i))
  const bytes = await readFile(pictures[3]!)
  const inputs = [new URL(`file://${pictures[3]}`), bytes, new Uint8Array(bytes), `data:image/jpeg;base64,${bytes.toString('base64')}`]
  const same = await embedder.embedImages(inputs)
  for (let i = 0; i < inputs.length; i++) t.same(rowOf(same, i), rowOf(whole, 3))
  const decoded = await Promise.all(pictures.slice(0, 5).map((path) => embedder.preprocess(path)))
  const pixels = new Uint8Array(5 * 24 * 24 * 3)
  decoded.forEach((one, i) => pixels.set(one, i * one.length))
  const ready = await embedder.embedImages(new Tensor('uint8', pixels, [5, 24, 24, 3]))
  t.same(ready.data, (whole.data as Float32Array).slice(0, 5 * 20), 'pixels already decoded')
  const words = ['a cat', 'the dog', 'birds', '', 'one two three four']
  const together = await embedder.embedTexts(words)
  for (const [i, word] of words.entries()) t.same((await embedder.embedTexts([word])).data, rowOf(together, i))
})

t.test('streams', async (t) => {
  const items: StreamItem[] = [pictures[0]!, { text: 'a cat' }, join(folder, 'absent.jpg'), { image: pictures[1]! }, Buffer.from('no picture'), { text: 'x', image: pictures[2]! }]
  const results = []
  for await (const result of embedder.embedStream(items, { batchSize: 2 })) results.push(result)
  t.same(results.map(({ index }) => index), [0, 1, 2, 3, 4, 5], 'in order')
  t.match(results[2]!.error, { name: 'ImageError', message: /absent\.jpg/ })
  t.match(results[4]!.error, { name: 'ImageError' })
  t.match(results[5]!.error, { name: 'UnsupportedError' })
  t.same(results[3]!.embedding, rowOf(await embedder.embedImages([pictures[1]!]), 0))
  t.same(results[1]!.embedding, rowOf(await embedder.embedTexts(['a cat']), 0))
  const [picture, text] = [{ image: pictures[1]!, text: undefined, audio: undefined }, { text: 'a cat', image: undefined, audio: undefined }] as unknown as StreamItem[]
  const optional = []
  for await (const { embedding } of embedder.embedStream([picture!, text!])) optional.push(embedding)
  t.same(optional, [results[3]!.embedding, results[1]!.embedding], 'fields that are undefined are not there')

  let taken = 0
  let closed = false
  const endless = async function* () {
    try {
      for (;;) yield pictures[taken++ % 30]!
    } finally {
      closed = true
    }
  }
  for await (const { index } of embedder.embedStream(endless(), { batchSize: 4 })) if (index === 20) break
  t.ok(taken < 80, `back-pressure: ${taken} items were taken for 21 results`)
  t.ok(closed, 'leaving the loop closes the source')
})

t.test('a failed input is named by its index', async (t) => {
  await t.rejects(embedder.embedImages([pictures[0]!, join(folder, 'absent.jpg'), pictures[1]!]), { name: 'ImageError', index: 1, message: /absent\.jpg/ })
  await t.rejects(embedder.embedTexts(['a', 5 as unknown as string]), { name: 'ArgumentError', index: 1 })
  await t.rejects(embedder.embedImages(new Tensor('uint8', new Uint8Array(12), [1, 2, 2, 3])), { name: 'ShapeError', message: /\[n, 24, 24, 3\]/ })
  await t.rejects(embedder.embedTexts(['a'], { promptName: 'summary' }), { name: 'ArgumentError', message: /summary/ })
  await t.rejects(embedder.embedTexts(['a'], { promptName: 'constructor' }), { name: 'ArgumentError', message: /constructor/ })
  await t.resolves(embedder.embedTexts(['a'], { promptName: 'query' }))
  const fields = { title: undefined as unknown as string }
  await t.rejects(embedder.embedTexts(['a', fields.title]), { name: 'ArgumentError', index: 1, message: /text 1 is undefined; expected a string/ })
})

t.test('a text that the model cannot take is its own fault alone', async (t) => {
  const { folder, remove } = await temporaryFolder()
  t.teardown(remove)
  const model = await writeTinyClip(folder)
  const file = join(model, 'vocab.json')
  const vocab = JSON.parse(await readFile(file, 'utf8')) as Record<string, number>
  await writeFile(file, JSON.stringify({ ...vocab, 'q</w>': 500 })) // beyond the model's table
  await using other = await Embedder.fromPretrained(model, { dtype: 'f32' })
  const results = []
  for await (const result of other.embedStream(['a cat', 'a q', 'a dog'].map((text) => ({ text })))) results.push(result)
  t.match(results[1]!.error, { name: 'ArgumentError', index: 1, message: /text 1 has the token id 500/ })
  t.ok(results[0]!.embedding && results[2]!.embedding, 'the others have theirs')
  await t.rejects(other.embedTexts(['a cat', 'a dog', 'a q']), { name: 'ArgumentError', index: 2 })
})

t.test('maxPixels may be without end', async (t) => {
  const [limited, endless] = [await embedder.embedImages(pictures.slice(0, 2)), await embedder.embedImages(pictures.slice(0, 2), { maxPixels: Infinity })]
  t.same(endless.data, limited.data)
  await t.rejects(embedder.embedImages(pictures.slice(0, 2), { maxPixels: 3.5 }), { name: 'ImageError', index: 0, field: 'maxPixels' })
})

t.test('precision and truncateDim', async (t) => {
  const { data } = await embedder.embedTexts(['a cat', 'a dog'])
  const full = data as Float32Array
  const int8 = await embedder.embedTexts(['a cat', 'a dog'], { precision: 'int8' })
  t.match(int8, { type: 'int8', dims: [2, 20] })
  full.forEach((x, i) => t.ok(Math.abs(Number(int8.data[i]) / 127 - x) <= 0.5 / 127 + 1e-6))
  const bits = await embedder.embedTexts(['a cat', 'a dog'], { precision: 'ubinary' })
  t.match(bits, { type: 'uint8', dims: [2, 3] })
  for (let row = 0; row < 2; row++) for (let i = 0; i < 20; i++) t.equal((Number(bits.data[row * 3 + (i >> 3)]) >> (7 - (i & 7))) & 1, full[row * 20 + i]! > 0 ? 1 : 0)
  const short = await embedder.embedTexts(['a cat', 'a dog'], { truncateDim: 8 })
  t.same(short.dims, [2, 8])
  const scale = norm(full.subarray(0, 8))
  for (let i = 0; i < 8; i++) t.ok(Math.abs((short.data[i] as number) - full[i]! / scale) < 1e-6, 'cut, then normalised')
  await t.rejects(embedder.embedTexts(['a'], { truncateDim: 21 }), ArgumentError)
  await t.rejects(embedder.embedTexts(['a'], { precision: 'int4' as 'int8' }), ArgumentError)
})

t.test('a folder says how many dimensions are kept, unless a call does', async (t) => {
  const copy = join(folder, 'truncated')
  await cp(model, copy, { recursive: true })
  const open = async (truncate_dim: unknown) => {
    await writeFile(join(copy, 'config_sentence_transformers.json'), JSON.stringify({ truncate_dim }))
    return Embedder.fromPretrained(copy, { dtype: 'f32' })
  }
  await using truncated = await open(8)
  t.equal(truncated.dimensions, 8)
  const { height, width } = truncated.model.imageEncoder!.size
  const pixels = new Tensor('uint8', new Uint8Array(height * width * 3).fill(7), [1, height, width, 3])
  t.same(await truncated.embedTexts(['a cat']), await embedder.embedTexts(['a cat'], { truncateDim: 8 }))
  t.same(await truncated.embedImages(pictures.slice(0, 2)), await embedder.embedImages(pictures.slice(0, 2), { truncateDim: 8 }))
  t.same(await truncated.embedImages(pixels), await embedder.embedImages(pixels, { truncateDim: 8 }))
  t.same(await truncated.embedTexts(['a cat'], { truncateDim: 20 }), await embedder.embedTexts(['a cat']))
  await using whole = await open(100)
  t.equal(whole.dimensions, 20)
  await t.rejects(open(0), { name: 'CheckpointError', field: 'truncate_dim', message: /truncate_dim is 0; expected a positive integer/ })
})

t.test('signals and disposal', async (t) => {
  const reason = new Error('enough')
  await t.rejects(embedder.embedImages(pictures, { signal: AbortSignal.abort(reason) }), reason)
  const controller = new AbortController()
  const running = embedder.embedImages(Array.from({ length: 2000 }, (_, i) => pictures[i % 30]!), { signal: controller.signal })
  let aborted = 0
  setTimeout(() => {
    aborted = performance.now()
    controller.abort(reason)
  }, 50)
  await t.rejects(running, reason)
  t.ok(performance.now() - aborted < 250, 'rejected soon after the abort')
  const other = await Embedder.fromPretrained(model, { dtype: 'f32' })
  const pending = other.embedImages(pictures)
  pending.catch(() => {})
  await other.dispose()
  await pending.then(() => t.pass('ended with its result'), (error) => t.ok(error instanceof DisposedError, `ended with ${error}`))
  await t.rejects(other.embedTexts(['a']), DisposedError)
})

t.test('a processor that makes pictures of another size than the model takes', async (t) => {
  const { folder, remove } = await temporaryFolder()
  t.teardown(remove)
  const model = await writeTinyClip(folder)
  await writeFile(join(model, 'preprocessor_config.json'), JSON.stringify({ image_processor_type: 'CLIPImageProcessor', size: { shortest_edge: 20 }, crop_size: { height: 20, width: 20 } }))
  await using other = await Embedder.fromPretrained(model, { dtype: 'f32' })
  await t.rejects(other.embedImages([pictures[0]!]), { name: 'ShapeError', message: /makes pictures of 400 pixels, its model takes 24 x 24/, index: 0 })
})

t.test('a tokenizer is read for the first text: pictures alone need none', async (t) => {
  const { folder, remove } = await temporaryFolder()
  t.teardown(remove)
  const model = await writeTinyClip(folder)
  const file = join(model, 'vocab.json')
  const good = await readFile(file)
  await writeFile(file, '{ "a": ')
  {
    await using late = await Embedder.fromPretrained(model, { dtype: 'f32' })
    t.equal(late.maxLength, 12)
    t.same((await late.embedImages([pictures[0]!])).data, (await embedder.embedImages([pictures[0]!])).data)
    await t.rejects(late.embedTexts(['a cat', 'a dog']), { name: 'CheckpointError', message: /vocab\.json/, index: undefined })
    const stream = async () => {
      for await (const { error } of late.embedStream([{ text: 'a cat' }, { image: pictures[0]! }])) t.equal(error, undefined)
    }
    await t.rejects(stream(), { name: 'CheckpointError' }, 'which is no fault of an item')
  }
  await writeFile(file, good)
  await using changed = await Embedder.fromPretrained(model, { dtype: 'f32' })
  await writeFile(file, `${good} `)
  await t.rejects(changed.embedTexts(['a cat']), { name: 'CheckpointError', message: /vocab\.json was changed since the model was loaded/ })

  await using away = await Embedder.fromPretrained(model, { dtype: 'f32' })
  await rename(file, `${file}.away`)
  await t.rejects(away.embedTexts(['a cat']), { name: 'CheckpointError' })
  await rename(`${file}.away`, file)
  t.equal((await away.embedTexts(['a cat'])).dims[0], 1, 'once what was in the way is gone')
})
