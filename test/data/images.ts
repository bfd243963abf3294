// Pixels against Hugging Face's Pillow processors (test/references/make_image_fixtures.py): every kind of file, every rule of a configuration,
// the parity images and, where they are, the photos.

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import t from 'tap'
import { readImageRules } from '../../lib/data/image-config.js'
import { makeProcessor, type Processor } from '../../lib/data/image-processor.js'
import { noShared, shared } from '../shared.js'

const fixtures = fileURLToPath(new URL('../fixtures/images/', import.meta.url))
const readJson = (file: string) => JSON.parse(readFileSync(file, 'utf8'))
const processorOf = (config: Record<string, unknown>): Processor => makeProcessor(readImageRules(config, 'preprocessor_config.json'))
const sha256 = ({ buffer, byteOffset, byteLength }: ArrayBufferView) => createHash('sha256').update(new Uint8Array(buffer, byteOffset, byteLength)).digest('hex')

interface Expected {
  files: Record<string, { mode: string; crop: string; refused?: undefined } | { refused: string }>
  processors: { config: Record<string, unknown>; file: string; dims: number[]; sha256: string }[]
}
const expected: Expected = readJson(join(fixtures, 'expected.json'))

const clip = processorOf({ image_processor_type: 'CLIPImageProcessor' })
const clip32 = processorOf({ image_processor_type: 'CLIPImageProcessor', size: 32, crop_size: 32 })

/** Files that libvips decodes otherwise than Pillow: by how many levels the crop may be off at most and on average. Chroma upsampling of
 * 4:2:0 AVIF differs, without it rounding does; libvips gives transparent pixels of a GIF as black. */
const DECODED_OTHERWISE: Record<string, { most: number; mean: number }> = {
  'rgb.avif': { most: 12, mean: 1.5 },
  'rgb-444.avif': { most: 2, mean: 0.5 },
  'turned.avif': { most: 2, mean: 0.5 },
  'transparent.gif': { most: 200, mean: 3 },
}

t.test('every kind of file', async t => {
  for (const [name, { refused, ...rest }] of Object.entries(expected.files)) {
    const path = join(fixtures, name)
    if (refused !== undefined) {
      await t.rejects(clip32.process(path), { name: 'ImageError', code: 'ERR_IMAGE', file: path, message: path }, `${name} is refused`)
      continue
    }
    const crop = await clip32.process(path)
    const bounds = DECODED_OTHERWISE[name]
    if (!bounds) {
      const { mode, crop: want } = rest as { mode: string; crop: string }
      t.equal(sha256(crop), want, `${name} (${mode})`)
      continue
    }
    const want = await sharp(`${path}.crop.png`).raw().toBuffer()
    const differences = Array.from(want, (value, i) => Math.abs(value - crop[i]!))
    const mean = differences.reduce((a, b) => a + b) / differences.length
    t.ok(differences.every(d => d <= bounds.most) && mean <= bounds.mean, `${name} is off by ${Math.max(...differences)} at most, ${mean.toFixed(2)} on average`)
  }
})

t.test('the profiles of the fixtures matter: without ignoreIcc the pixels would be others', async t => {
  for (const name of ['p3.jpg', 'p3.png', 'p3.webp']) {
    const [with_, without] = await Promise.all([true, false].map(ignoreIcc => sharp(join(fixtures, name), { ignoreIcc }).raw().toBuffer()))
    t.ok(with_!.some((value, i) => Math.abs(value - without![i]!) > 20), name)
  }
})

t.test('every rule of a configuration, and the scaled values bit for bit', async t => {
  for (const { config, file, dims, sha256: want } of expected.processors) {
    const { pixel_values } = await processorOf(config)(join(fixtures, file))
    t.same({ type: pixel_values.type, dims: pixel_values.dims, sha256: sha256(pixel_values.data) }, { type: 'float32', dims, sha256: want }, `${JSON.stringify(config)} ${file}`)
  }
})

t.test('processors that pad pictures, and that cut them into patches', async t => {
  const cases = readJson(join(fixtures, '../processors/patched.json')) as { config: Record<string, unknown>; files: string[]; outputs: Record<string, { dims: number[]; sha256: string }> }[]
  for (const { config, files, outputs } of cases) {
    const paths = files.map(file => join(fixtures, file))
    const made = await processorOf(config)(paths)
    for (const [name, want] of Object.entries(outputs)) {
      const { dims, data } = made[name as keyof typeof made]!
      t.same({ dims, sha256: sha256(data) }, want, `${JSON.stringify(config)} ${name}`)
    }
    t.strictSame(Object.keys(made).sort(), Object.keys(outputs).sort())
    const bytes = await processorOf(config)(paths, { output: 'uint8' })
    t.equal(bytes.pixel_values.type, 'uint8')
    t.equal(bytes.pixel_values.size, made.pixel_values.size)
  }
  await t.rejects(processorOf({ image_processor_type: 'ViltImageProcessor' })([join(fixtures, '20000x1.png')]), { code: 'ERR_IMAGE', index: 0 }, 'no side is left')
})

t.test('the parity images, CMYK and 16-bit grey among them', async t => {
  const processors: Record<string, Processor> = {
    hf_clip: clip,
    hf_vit: processorOf({ image_processor_type: 'ViTImageProcessor' }),
    hf_siglip: processorOf({ image_processor_type: 'SiglipImageProcessor' }),
    hf_blip: processorOf({ image_processor_type: 'BlipImageProcessor', size: { height: 224, width: 224 } }),
  }
  const crops: Record<string, Record<string, string>> = readJson(join(fixtures, 'parity.json'))
  t.equal(Object.keys(crops).length, 13)
  for (const [name, wants] of Object.entries(crops)) {
    for (const [processor, want] of Object.entries(wants)) t.equal(sha256(await processors[processor]!.process(join(fixtures, 'parity', name))), want, `${name} ${processor}`)
  }
})

t.test('297 photos', { skip: noShared }, async t => {
  const hashes: Record<string, string> = readJson(join(fixtures, 'photos.json'))
  const names = readdirSync(shared('data/photos')).filter(name => name.endsWith('.JPEG'))
  t.same(names.sort(), Object.keys(hashes))
  const processor = processorOf(readJson(shared('models/vit-tiny-imagenet/preprocessor_config.json')))
  const { pixel_values } = await processor(names.map(name => shared('data/photos', name)), { output: 'uint8' })
  t.same(pixel_values.dims, [297, 224, 224, 3])
  const size = 224 * 224 * 3
  const wrong = names.filter((name, i) => sha256((pixel_values.data as Uint8Array).subarray(i * size, (i + 1) * size)).slice(0, 16) !== hashes[name])
  t.same(wrong, [])
})
