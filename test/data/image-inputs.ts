// What may be given as an image, what is refused and how it is named, and what happens to callers that abort, transfer their buffers or end
// their thread meanwhile.

import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { readFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import sharp from 'sharp'
import t from 'tap'
import { formatOf, openImage } from '../../lib/data/image.js'
import { readImageRules } from '../../lib/data/image-config.js'
import { makeProcessor } from '../../lib/data/image-processor.js'
import { native } from '../../lib/core/native.js'
import { longestWait } from '../support/event-loop.js'
import type { ImagePlan } from '../../typings/addon.js'

const fixtures = fileURLToPath(new URL('../fixtures/images/', import.meta.url))
const fixture = (name: string) => join(fixtures, name)
const processor = makeProcessor(readImageRules({ image_processor_type: 'CLIPImageProcessor', size: 32, crop_size: 32 }, 'x'))
const png = fixture('rgb.png')
const want = await processor.process(png)

const folder = await mkdtemp(join(tmpdir(), 'chiasma-images-'))
t.teardown(() => rm(folder, { recursive: true, force: true }))
async function file(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(folder, name)
  await writeFile(path, content)
  return path
}

t.test('every kind of input gives the same crop', async t => {
  const bytes = readFileSync(png)
  const padded = new Uint8Array(bytes.length + 20)
  padded.set(bytes, 7)
  const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true })
  const rgba = await sharp(png).ensureAlpha(0.3).raw().toBuffer()
  const { width, height } = info
  const inputs = {
    path: png,
    'file: URL as a string': pathToFileURL(png).href,
    URL: pathToFileURL(png),
    'data: URL in base64': `data:image/png;base64,${bytes.toString('base64')}`,
    'data: URL, percent-encoded base64': new URL(`data:image/png;base64,${encodeURIComponent(bytes.toString('base64'))}`),
    'data: URL, percent-encoded bytes': `data:image/png,${bytes.toString('latin1').replace(/[^]/g, byte => `%${byte.charCodeAt(0).toString(16).padStart(2, '0')}`)}`,
    Buffer: bytes,
    'a view into a larger buffer': padded.subarray(7, 7 + bytes.length),
    'raw RGB': { data: new Uint8Array(data), width, height, channels: 3 as const },
    'raw RGBA, clamped': { data: new Uint8ClampedArray(rgba), width, height, channels: 4 as const },
  }
  for (const [name, input] of Object.entries(inputs)) t.same(await processor.process(input), want, name)
  const grey = await sharp(fixture('grey.png')).toColourspace('b-w').raw().toBuffer()
  t.same(await processor.process({ data: grey, width, height, channels: 1 }), await processor.process(fixture('grey.png')), 'raw grey')
})

t.test('what is refused, by name', async t => {
  await mkdir(join(folder, 'a folder'))
  await symlink(join(folder, 'nowhere'), join(folder, 'dangling.jpg'))
  const cases: [string, unknown, object?][] = [
    ['is not there', join(folder, 'absent.jpg')],
    ['is not there', join(folder, 'dangling.jpg')],
    ['is not there', pathToFileURL(join(folder, 'absent.jpg'))],
    ['is a folder', join(folder, 'a folder')],
    ['cannot be read', join(await file('a file', 'x'), 'below')],
    ['is no regular file', '/dev/zero'],
    ['is empty', await file('empty.jpg', '')],
    ['is no JPEG', await file('text.jpg', 'no image at all')],
    ['is no JPEG', await file('short.jpg', '\xff')],
    ['is no JPEG', await file('pdf.jpg', '%PDF-1.7 and so on')],
    ['cannot be decoded', await file('magic-only.jpg', Buffer.from('ffd8ffe0', 'hex'))],
    ['cannot be decoded', await file('magic-only.png', Buffer.from('89504e470d0a1a0a', 'hex'))],
    ['cannot be decoded', await file('magic-only.webp', 'RIFF\0\0\0\0WEBPVP8 ')],
    ['cannot be decoded', await file('magic-only.gif', 'GIF89a')],
    ['cannot be decoded', await file('magic-only.tif', 'II*\0')],
    ['cannot be decoded', await file('magic-only.avif', '\0\0\0\x18ftypavif\0\0\0\0mif1avif')],
    ['is no path', ''],
    ['is no path', 'a\0b'],
    ['is empty', new Uint8Array(0)],
    ['a buffer of 3 bytes is no JPEG', Buffer.from('abc')],
    ['is empty', 'data:image/png;base64,'],
    ['is no data: URL', 'data:image/png;base64'],
    ['is no data: URL', 'data:image/png,%zz'],
    ['is no data: URL', 'data:image/png,abc%4'],
    ['base64 is given as a data: URL', readFileSync(png).toString('base64').repeat(10)],
    ['allowRemote', 'https://example.com/cat.jpg'],
    ['allowRemote', new URL('http://example.com/cat.jpg')],
    ['at most 100 are decoded', png, { maxPixels: 100 }],
    ['at most 100 are decoded', { data: new Uint8Array(300 * 3), width: 300, height: 1, channels: 3 }, { maxPixels: 100 }],
    ['at most 10 are read', png, { maxBytes: 10 }],
    ['at most 10 are read', readFileSync(png), { maxBytes: 10 }],
    ['allowSvg', await file('drawing.svg', '<svg xmlns="http://www.w3.org/2000/svg"/>')],
  ]
  for (const [message, input, options] of cases) {
    const error = await processor.process(input as string, options).catch(error => error)
    t.match(error, { name: 'ImageError', code: 'ERR_IMAGE' }, `${String(input).slice(0, 60)} ${message}`)
    t.match(error.message, message)
    t.ok(error.message.length < 500)
    if (typeof input === 'string') t.ok(error.message.startsWith(input.slice(0, 22)) && error.file?.startsWith(input.slice(0, 22)), `${error.message} names the file`)
  }
  for (const input of [undefined, null, 7, true, {}, [], new Float32Array(4), { data: [1, 2, 3], width: 1, height: 1, channels: 3 }]) {
    await t.rejects(processor.process(input as never), { name: 'ArgumentError', code: 'ERR_ARGUMENT' }, `${JSON.stringify(input)}`)
  }
  const raw = (change: object) => processor.process({ data: new Uint8Array(12), width: 2, height: 2, channels: 3, ...change } as never)
  t.equal((await raw({})).length, 32 * 32 * 3)
  for (const [field, ...values] of [
    ['width', 0, -1, 1.5, Number.NaN, '2', 2 ** 53],
    ['height', 0, Infinity],
    ['channels', 0, 2, 5, undefined],
    ['data', new Uint8Array(11), new Uint8Array(0), 'abc'],
  ] as const) {
    for (const value of values) await t.rejects(raw({ [field]: value }), { name: 'ArgumentError', field: field === 'width' && value === 2 ** 53 ? 'width' : field })
  }
  t.same(await processor.process(png), want, 'and the process goes on working')
})

t.test('SVG on request, drawn on white', async t => {
  const svg = await file('half.svg', '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"><rect width="32" height="64" fill="#f00"/></svg>')
  const crop = await processor.process(svg, { allowSvg: true })
  t.same([...crop.subarray(0, 3)], [255, 0, 0])
  t.same([...crop.subarray(31 * 3, 32 * 3)], [255, 255, 255])
})

t.test('formats by their first bytes', t => {
  const start = (text: string) => formatOf(Buffer.from(text, 'latin1'))
  t.equal(start('\0\0\0\x1cftypheic\0\0\0\0mif1heic'), undefined, 'HEIC is not AVIF')
  t.equal(start('\0\0\0\x1cftypmif1\0\0\0\0mif1avif'), 'avif', 'a compatible brand')
  t.equal(start('\0\0\0\x10ftypmif1\0\0\0\0avif'), undefined, 'a brand beyond the box')
  t.equal(start('\0\0\0\x18ftypavis\0\0\0\0avismsf1'), undefined, 'a sequence without a picture of its own')
  t.equal(start('MM\0+\0\x08'), 'tiff', 'BigTIFF')
  t.equal(start('<?xml version="1.0"?>\n<!-- drawn --><svg>'), 'svg')
  t.equal(start('<html><svg>'), undefined)
  t.equal(start(''), undefined)
  t.end()
})

t.test('downloads', async t => {
  const bytes = readFileSync(png)
  const answer: RequestListener = (request, response) => {
    if (request.url === '/image') response.end(bytes)
    else if (request.url === '/moved') response.writeHead(302, { location: '/image' }).end()
    else if (request.url === '/endless') {
      response.write(bytes)
      const timer = setInterval(() => response.write(Buffer.alloc(65536)), 1)
      response.on('close', () => clearInterval(timer))
    } else if (request.url === '/broken') {
      response.writeHead(200, { 'content-length': bytes.length })
      response.write(bytes.subarray(0, 100))
      setTimeout(() => response.destroy(), 20)
    } else if (request.url === '/never') response.write('x')
    else if (request.url === '/absent-at-length') response.writeHead(404).end(Buffer.alloc(100_000))
    else response.writeHead(404).end()
  }
  const server = createServer(answer).listen(0, '127.0.0.1')
  const open = new Set<unknown>()
  server.on('connection', socket => {
    open.add(socket)
    socket.on('close', () => open.delete(socket))
  })
  await new Promise(resolve => server.once('listening', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  const url = (path: string) => `http://127.0.0.1:${(server.address() as AddressInfo).port}${path}`
  const fetchIt = (path: string, options = {}) => processor.process(url(path), { allowRemote: true, ...options })
  t.same(await fetchIt('/image'), want)
  t.same(await fetchIt('/moved'), want)
  for (const [path, message, options] of [
    ['/absent', '404'],
    ['/endless', 'more than 1000000 bytes', { maxBytes: 1_000_000 }],
    ['/broken', 'cannot be fetched'],
    ['/never', 'within 100 ms', { timeout: 100 }],
  ] as const) {
    await t.rejects(fetchIt(path, options), { name: 'ImageError', file: url(path), message }, path)
  }
  for (let i = 0; i < 20; i++) await t.rejects(fetchIt('/absent-at-length'), { message: '404' })
  for (let i = 0; i < 100 && open.size > 5; i++) await new Promise(resolve => setTimeout(resolve, 20))
  t.ok(open.size <= 5, `${open.size} connections are left open`)
  await t.rejects(processor.process('http://127.0.0.1:1/', { allowRemote: true }), { name: 'ImageError', message: 'cannot be fetched' })
  const reason = new Error('enough')
  await t.rejects(fetchIt('/never', { signal: AbortSignal.timeout(50) }), { name: 'TimeoutError' })
  await t.rejects(fetchIt('/never', { signal: AbortSignal.abort(reason) }), reason)
})

t.test('aborting rejects with the reason, and later calls work', async t => {
  const reason = new Error('enough')
  await t.rejects(processor.process(png, { signal: AbortSignal.abort(reason) }), reason)
  const controller = new AbortController()
  const large = { data: new Uint8Array(3000 * 3000 * 3), width: 3000, height: 3000, channels: 3 as const }
  const calls = Array.from({ length: 20 }, () => processor.process(large, { signal: controller.signal }))
  const batch = processor(Array.from({ length: 20 }, () => png), { signal: controller.signal })
  setTimeout(() => controller.abort(reason), 15)
  const started = performance.now()
  for (const result of await Promise.allSettled([...calls, batch])) {
    t.ok(result.status === 'fulfilled' || result.reason === reason)
  }
  t.ok(performance.now() - started < 5000)
  t.equal((await batch.catch(error => error)) instanceof Error, true)
  t.same(await processor.process(png), want)
})

t.test('buffers may be transferred while they are read', async t => {
  const turn = () => new Promise(resolve => setImmediate(resolve))
  const bytes = new Uint8Array(readFileSync(png))
  const encoded = processor.process(bytes)
  await turn()
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] })
  t.same(await encoded, want)
  const { data, info } = await sharp(png).raw().toBuffer({ resolveWithObject: true })
  const raw = { data: new Uint8Array(data), width: info.width, height: info.height, channels: 3 as const }
  const decoded = processor.process(raw)
  await turn()
  structuredClone(raw.data.buffer, { transfer: [raw.data.buffer as ArrayBuffer] })
  t.same(await decoded, want)
  await t.rejects(processor.process(raw), { name: 'ArgumentError', field: 'data' }, 'a detached one is refused')
  await t.rejects(processor.process(bytes), { name: 'ImageError', message: 'is empty' })
  // One so large that it is copied in several pieces.
  const large = { data: new Uint8Array(2000 * 2000 * 3), width: 2000, height: 2000, channels: 3 as const }
  const pending = processor.process(large)
  await turn()
  structuredClone(large.data.buffer, { transfer: [large.data.buffer as ArrayBuffer] })
  await t.rejects(pending, { name: 'ArgumentError', field: 'data' })
})

t.test('the native call refuses bad plans', async t => {
  const plan: ImagePlan = {
    width: 4, height: 4, channels: 3, orientation: 1, resizeWidth: 2, resizeHeight: 2, filter: 'bicubic', cropLeft: 0, cropTop: 0, cropWidth: 2, cropHeight: 2,
  } // prettier-ignore
  const call = async (pixels: unknown, change: object = {}, result: unknown = new Uint8Array(12)) =>
    native(addon => addon.preprocessImage(pixels as Uint8Array, { ...plan, ...change } as ImagePlan, result as Uint8Array))
  const result = new Uint8Array(12)
  await call(new Uint8Array(48).fill(7), {}, result)
  t.same(result, new Uint8Array(12).fill(7))
  for (const bad of [new Uint8Array(11), new Uint8Array(13), new Float32Array(12), {}, null]) await t.rejects(call(new Uint8Array(48), {}, bad), { code: 'ERR_ARGUMENT', message: 'result' })
  const detached = new Uint8Array(48)
  structuredClone(detached.buffer, { transfer: [detached.buffer] })
  for (const pixels of [detached, new Uint8Array(47), new Float32Array(12), undefined, null, 'abc', [], {}]) await t.rejects(call(pixels), { code: 'ERR_ARGUMENT' })
  for (const change of [
    { width: undefined }, { width: '4' }, { width: 4.5 }, { width: Number.NaN }, { width: -4 }, { height: 2 ** 31 }, { channels: 0 }, { channels: 2 ** 40 }, { orientation: 9 },
    { resizeWidth: 0 }, { resizeHeight: 2 ** 53 }, { filter: 'cubic' }, { filter: undefined }, { cropLeft: 2 ** 40 }, { cropTop: null }, { cropWidth: 0 },
    { cropWidth: 100000, cropHeight: 100000 }, { cmyk: true },
  ]) await t.rejects(call(new Uint8Array(48), change), { code: 'ERR_ARGUMENT' }, JSON.stringify(change)) // prettier-ignore
  t.throws(() => native(addon => addon.preprocessImage(new Uint8Array(48), undefined as never, new Uint8Array(12))), { code: 'ERR_ARGUMENT' })
})

t.test('a thread may end in mid-work', async t => {
  const addon = createAddonPath()
  for (let i = 0; i < 5; i++) {
    const worker = new Worker(
      `const { workerData, parentPort } = require('node:worker_threads')
       const addon = require(workerData)
       const pixels = new Uint8Array(3000 * 2000 * 3)
       const plan = { width: 3000, height: 2000, channels: 3, orientation: 6, resizeWidth: 224, resizeHeight: 336, filter: 'lanczos', cropLeft: 0, cropTop: 0, cropWidth: 224, cropHeight: 224 }
       for (let i = 0; i < 20; i++) addon.preprocessImage(pixels, plan, new Uint8Array(224 * 224 * 3))
       setInterval(() => {}, 1000) // it ends when it is terminated, and not by itself when the work is done
       parentPort.postMessage('begun')`,
      { eval: true, workerData: addon },
    )
    await new Promise(resolve => worker.once('message', resolve))
    t.equal(await worker.terminate(), 1)
  }
  t.same(await processor.process(png), want)
})

function createAddonPath(): string {
  return fileURLToPath(new URL('../../build/Release/chiasma.node', import.meta.url))
}

t.test('batches', async t => {
  const paths = ['rgb.png', 'grey.jpg', 'cmyk.jpg', 'exif6.jpg', '1x300.png', 'rgba.webp', 'animated.gif'].map(fixture)
  const { pixel_values } = await processor(paths, { output: 'uint8' })
  t.match(pixel_values, { type: 'uint8', dims: [7, 32, 32, 3] })
  for (const [i, path] of paths.entries()) t.same((pixel_values.data as Uint8Array).subarray(i * 3072, (i + 1) * 3072), await processor.process(path))
  t.same((await processor(paths.toReversed())).pixel_values.dims, [7, 3, 32, 32])
  t.same((await processor(png)).pixel_values.dims, [1, 3, 32, 32], 'one image without an array')
  t.same((await processor([])).pixel_values.dims, [0, 3, 32, 32])
  t.same((await processor([], { output: 'uint8' })).pixel_values.dims, [0, 32, 32, 3])
  t.match({ ...processor }, { size: { width: 32, height: 32 }, normalization: { rescale: 1 / 255, mean: [0.48145466, 0.4578275, 0.40821073] } })
  await t.rejects(processor([png, png, fixture('truncated.jpg'), join(folder, 'absent.jpg')]), { name: 'ImageError', index: 2, file: fixture('truncated.jpg') })
  await t.rejects(processor([png], { output: 'float16' as never }), { name: 'ArgumentError', field: 'output' })
  const ragged = makeProcessor(readImageRules({ image_processor_type: 'CLIPImageProcessor', size: 32, do_center_crop: false }, 'x'))
  t.equal(ragged.size, undefined)
  await t.rejects(ragged([png, fixture('exif6.jpg')]), { name: 'ShapeError', code: 'ERR_SHAPE', index: 1 })
  t.same((await ragged([])).pixel_values.dims, [0, 3, 0, 0])
})

t.test('the event loop turns while a list is scaled', async t => {
  const pictures = Array.from({ length: 16 }, () => ({ data: new Uint8Array(640 * 480 * 3), width: 640, height: 480, channels: 3 as const }))
  for (const config of [{ image_processor_type: 'ViltImageProcessor', do_resize: false }, { image_processor_type: 'Siglip2ImageProcessor', max_num_patches: 1200, do_resize: false }]) {
    const several = makeProcessor(readImageRules(config, 'x'))
    const wait = await longestWait(() => several(pictures))
    t.ok(wait < 1 / 2, `${config.image_processor_type}: it waited for ${(100 * wait).toFixed(0)}% of the time`)
  }
})

t.test('as many images at once as libuv has threads, whatever the environment says', async t => {
  const url = new URL('../../dist/data/image-processor.js', import.meta.url).href
  const script = `import { makeProcessor } from '${url}'
    const rules = { filter: 'nearest', rescale: 1, mean: [0, 0, 0], std: [1, 1, 1] }
    const image = { data: new Uint8Array(3).fill(7), width: 1, height: 1, channels: 3 }
    console.log((await makeProcessor(rules)([image, image])).pixel_values.data.join())`
  for (const threads of ['-1', '0', '1e9', 'many']) {
    const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', script], { env: { ...process.env, NODE_OPTIONS: '', UV_THREADPOOL_SIZE: threads } })
    t.equal(stdout.trim(), '7,7,7,7,7,7', threads)
  }
})

t.test('a header tells what decoding will take', async t => {
  const image = await openImage(fixture('rgba.png'))
  t.match(image, { width: 72, height: 48, decodedBytes: 72 * 48 * 4, name: fixture('rgba.png') })
  t.match(await image.decode(), { width: 72, height: 48, channels: 4, cmyk: false, orientation: 1 })
  t.match(await (await openImage(fixture('cmyk.jpg'))).decode(), { channels: 4, cmyk: true })
  t.match(await (await openImage(fixture('xmp6.jpg'))).decode(), { channels: 3, orientation: 6 })
})
