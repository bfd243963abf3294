// Region features that others published: what a detector found in a picture. Bottom-up TSV files (Anderson et al., arXiv:1707.07998; six fields, or
// LXMERT's ten) with base64 arrays, and NumPy's .npz files, of one picture each; and from them the inputs of models that take regions.

import { open } from 'node:fs/promises'
import { basename } from 'node:path'
import { ArgumentError, CheckpointError, ShapeError, UnsupportedError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { withFile } from '../io/entry.js'
import { linesOf } from '../io/lines.js'
import { openZip, type ZipArchive } from '../io/zip.js'

/** The regions of a picture. */
export interface Regions {
  readonly id: string
  /** float32 [n, d] */
  readonly features: Tensor
  /** float32 [n, 4]: left, top, right, bottom, in the unit of the picture's size. */
  readonly boxes: Tensor
  readonly imageWidth: number
  readonly imageHeight: number
}

/** Where each field of a line is. */
const LAYOUTS: Readonly<Record<number, { id: number; width: number; height: number; count: number; boxes: number; features: number }>> = {
  6: { id: 0, width: 1, height: 2, count: 3, boxes: 4, features: 5 },
  10: { id: 0, width: 2, height: 1, count: 7, boxes: 8, features: 9 },
}
/** Bytes of an array in an archive. */
const MOST = 1 << 30

/**
 * The pictures of a bottom-up TSV file, one after the other: image_id, image_w, image_h, num_boxes, boxes, features, or LXMERT's ten fields.
 * @throws ArgumentError naming the file, the line and the field that is wrong
 */
export async function* readRegionsTsv(file: string): AsyncGenerator<Regions, void, undefined> {
  const handle = await open(file).catch((cause: Error) => {
    throw new ArgumentError(`${file} cannot be read: ${cause.message}`, { file, cause })
  })
  try {
    let number = 0
    for await (const line of linesOf(handle.createReadStream({ autoClose: false }))) {
      number++
      if (line.trim() !== '') yield parseLine(line, file, number)
    }
  } finally {
    await handle.close()
  }
}

function parseLine(line: string, file: string, number: number): Regions {
  const refuse = (field: string, came: string): never => {
    throw new ArgumentError(`${file}: ${field} of line ${number} ${came}`, { file, field, index: number - 1 })
  }
  const fields = line.split('\t')
  const layout = LAYOUTS[fields.length] ?? refuse('the fields', `are ${fields.length}; expected 6 (bottom-up) or 10 (LXMERT)`)
  const positive = (field: keyof typeof layout, name: string): number => {
    const value = Number(fields[layout[field]])
    return Number.isSafeInteger(value) && value > 0 ? value : refuse(name, `is '${fields[layout[field]]!.slice(0, 20)}'; expected a positive integer`)
  }
  const floats = (field: keyof typeof layout, name: string): Float32Array => {
    const bytes = Buffer.from(fields[layout[field]]!, 'base64')
    if (bytes.length === 0 || bytes.length % 4 !== 0) refuse(name, `is no base64 of float32 numbers (${bytes.length} bytes)`)
    const data = new Float32Array(bytes.length / 4)
    Buffer.from(data.buffer).set(bytes)
    return data
  }
  const count = positive('count', 'num_boxes')
  const boxes = floats('boxes', 'boxes')
  const features = floats('features', 'features')
  if (boxes.length !== 4 * count) refuse('boxes', `has ${boxes.length} numbers; expected ${4 * count}, four for each of ${count} regions`)
  if (features.length % count !== 0) refuse('features', `has ${features.length} numbers; expected as many for each of ${count} regions`)
  return {
    id: fields[layout.id]!,
    features: new Tensor('float32', features, [count, features.length / count]),
    boxes: new Tensor('float32', boxes, [count, 4]),
    imageWidth: positive('width', 'image_w'),
    imageHeight: positive('height', 'image_h'),
  }
}

/**
 * The picture of an .npz file: `features` or `x` [n, d] (or [d, n]), `boxes` or `bbox` [n, 4] with `image_w` and `image_h`, or UNITER's `norm_bb`;
 * `num_boxes` or `num_bbox` where the arrays are padded.
 * @throws CheckpointError for a broken file, an array that is missing or of the wrong size
 */
export async function readRegionsNpz(file: string): Promise<Regions> {
  return withFile(file, async (handle, size) => {
    const archive = await openZip(handle, file, size)
    const read = async (...names: string[]): Promise<Tensor | undefined> => {
      const name = names.find(name => archive.has(`${name}.npy`))
      return name === undefined ? undefined : readArray(archive, `${name}.npy`, file)
    }
    const refuse = (field: string, came: string): never => {
      throw new CheckpointError(`${file}: ${field} ${came}`, { file, field })
    }
    const number = async (...names: string[]): Promise<number | undefined> => (await read(...names))?.data[0] as number | undefined
    const normed = await read('norm_bb')
    const boxes = (await read('boxes', 'bbox')) ?? normed ?? refuse('boxes', 'is missing; expected boxes, bbox or norm_bb')
    const all = (await read('features', 'x')) ?? refuse('features', 'is missing; expected features or x')
    const [rows, width = 0] = boxes.dims as [number, number?]
    if (boxes.dims.length !== 2 || width < 4) refuse('boxes', `is [${boxes.dims.join(', ')}]; expected [regions, 4]`)
    const turned = all.dims[0] !== rows && all.dims[1] === rows
    if (all.dims.length !== 2 || (!turned && all.dims[0] !== rows)) refuse('features', `is [${all.dims.join(', ')}]; expected [${rows}, d], as there are ${rows} boxes`)
    const count = (await number('num_boxes', 'num_bbox')) ?? rows
    if (!Number.isSafeInteger(count) || count < 1 || count > rows) refuse('num_boxes', `is ${count}; expected 1 to ${rows}`)
    const relative = boxes === normed
    const side = async (name: string) => (relative ? 1 : ((await number(name)) ?? refuse(name, 'is missing')))
    const d = turned ? all.dims[0]! : all.dims[1]!
    const features = Float32Array.from({ length: count * d }, (_, i) => all.data[turned ? (i % d) * rows + Math.floor(i / d) : i] as number)
    return {
      id: basename(file, '.npz'),
      features: new Tensor('float32', features, [count, d]),
      boxes: new Tensor('float32', Float32Array.from({ length: 4 * count }, (_, i) => boxes.data[Math.floor(i / 4) * width + (i % 4)] as number), [count, 4]),
      imageWidth: await side('image_w'),
      imageHeight: await side('image_h'),
    }
  })
}

/** An array of an archive, its numbers as float32. */
async function readArray(archive: ZipArchive, name: string, file: string): Promise<Tensor> {
  const bytes = await archive.read(name, MOST)
  const refuse = (why: string): never => {
    throw new CheckpointError(`${file}: ${name} ${why}`, { file, field: name })
  }
  if (bytes.length < 12 || bytes.toString('latin1', 0, 6) !== '\x93NUMPY') refuse('is no .npy array')
  const long = bytes[6]! > 1
  const begin = (long ? 12 : 10) + (long ? bytes.readUInt32LE(8) : bytes.readUInt16LE(8))
  if (begin > bytes.length) refuse('has a header that goes past its end')
  const header = bytes.toString('latin1', long ? 12 : 10, begin)
  const descr = /'descr':\s*'([^']*)'/.exec(header)?.[1] ?? ''
  const shape = /'shape':\s*\(([^)]*)\)/.exec(header)?.[1]
  if (shape === undefined || /'fortran_order':\s*True/.test(header)) refuse(`holds ${header.trim()}; expected row-major numbers`)
  const dims = shape!.split(',').map(part => part.trim()).filter(Boolean).map(Number)
  const reader = READERS[descr] ?? refuse(`holds numbers of type '${descr}'; expected ${Object.keys(READERS).join(', ')}`)
  const length = dims.reduce((a, b) => a * b, 1)
  if (!Number.isSafeInteger(length) || begin + length * reader.size !== bytes.length) refuse(`has ${bytes.length - begin} bytes; [${dims.join(', ')}] needs ${length * reader.size}`)
  return new Tensor('float32', Float32Array.from({ length }, (_, i) => reader.read(bytes, begin + i * reader.size)), dims)
}

const READERS: Readonly<Record<string, { size: number; read: (bytes: Buffer, at: number) => number }>> = {
  '<f4': { size: 4, read: (bytes, at) => bytes.readFloatLE(at) },
  '<f8': { size: 8, read: (bytes, at) => bytes.readDoubleLE(at) },
  '<f2': { size: 2, read: (bytes, at) => fromHalf(bytes.readUInt16LE(at)) },
  '<i4': { size: 4, read: (bytes, at) => bytes.readInt32LE(at) },
  '<i8': { size: 8, read: (bytes, at) => Number(bytes.readBigInt64LE(at)) },
}

function fromHalf(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1
  const exponent = (bits >> 10) & 0x1f
  const fraction = bits & 0x3ff
  if (exponent === 0) return sign * fraction * 2 ** -24
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15)
}

/**
 * The inputs of a model for pictures' regions, padded to the most: `visual_embeds` and its mask of VisualBERT; `visual_feats`, `visual_pos` and the
 * mask of LXMERT; of UNITER `img_feat`, `img_pos_feat`, and with the texts' attention mask `attn_masks` and `gather_index`.
 *
 * @example
 * const inputs = { ...tokenizer(texts, { padding: true }), ...regionInputs('lxmert', regions) }
 * @param modelType the configuration's model_type
 * @param attentionMask int64 or int32 [n, tokens], for UNITER
 * @throws ArgumentError, ShapeError for regions that do not belong together, with `index`; UnsupportedError for another model
 */
export function regionInputs(modelType: string, regions: readonly Regions[], attentionMask?: Tensor): Record<string, Tensor> {
  if (!['visual_bert', 'lxmert', 'uniter'].includes(modelType)) throw new UnsupportedError(`regions of a ${modelType} model are made by the caller; known are visual_bert, lxmert and uniter`, { field: 'modelType' })
  if (regions.length === 0) throw new ArgumentError('[regionInputs] there are no pictures; expected one at least', { field: 'regions' })
  const d = regions[0]!.features.dims[1]!
  regions.forEach(({ features, boxes, imageWidth, imageHeight }, index) => {
    if (features.dims.length !== 2 || features.dims[1] !== d || features.type !== 'float32') {
      throw new ShapeError(`[regionInputs] features of picture ${index} are ${features.type} [${features.dims.join(', ')}]; expected float32 [regions, ${d}]`, { field: 'features', index })
    }
    if (boxes.dims.length !== 2 || boxes.dims[0] !== features.dims[0] || boxes.dims[1] !== 4 || boxes.type !== 'float32') {
      throw new ShapeError(`[regionInputs] boxes of picture ${index} are ${boxes.type} [${boxes.dims.join(', ')}]; expected float32 [${features.dims[0]}, 4], one for each region`, { field: 'boxes', index })
    }
    if (!(imageWidth > 0 && imageHeight > 0)) throw new ArgumentError(`[regionInputs] picture ${index} is ${imageWidth} x ${imageHeight}; expected sizes above 0`, { field: 'imageWidth', index })
  })
  const most = Math.max(...regions.map(({ features }) => features.dims[0]!))
  const n = regions.length
  const features = new Float32Array(n * most * d)
  const mask = new BigInt64Array(n * most)
  const perBox = modelType === 'uniter' ? 7 : 4
  const boxes = new Float32Array(n * most * perBox)
  regions.forEach((picture, i) => {
    const count = picture.features.dims[0]!
    features.set(picture.features.data as Float32Array, i * most * d)
    mask.fill(1n, i * most, i * most + count)
    for (let r = 0; r < count; r++) {
      const [left, top, right, bottom] = Array.from((picture.boxes.data as Float32Array).subarray(4 * r, 4 * r + 4), (value, c) => value / (c % 2 === 0 ? picture.imageWidth : picture.imageHeight)) as [number, number, number, number]
      const [width, height] = [right - left, bottom - top]
      boxes.set([left, top, right, bottom, width, height, width * height].slice(0, perBox), (i * most + r) * perBox)
    }
  })
  const made = { features: new Tensor('float32', features, [n, most, d]), mask: new Tensor('int64', mask, [n, most]), boxes: new Tensor('float32', boxes, [n, most, perBox]) }
  if (modelType === 'visual_bert') return { visual_embeds: made.features, visual_attention_mask: made.mask }
  if (modelType === 'lxmert') return { visual_feats: made.features, visual_pos: made.boxes, visual_attention_mask: made.mask }
  return { img_feat: made.features, img_pos_feat: made.boxes, ...(attentionMask && closedUp(attentionMask, made.mask)) }
}

/** UNITER's order: the words that count, then the regions that count. */
function closedUp(words: Tensor, regions: Tensor): Record<string, Tensor> {
  const [n, most] = regions.dims as [number, number]
  if (words.dims.length !== 2 || words.dims[0] !== n) {
    throw new ShapeError(`[regionInputs] attentionMask is [${words.dims.join(', ')}]; expected [${n}, tokens], a text for each picture`, { field: 'attentionMask', shapes: [words.dims] })
  }
  const tokens = words.dims[1]!
  const counted = Array.from({ length: n }, (_, i) => {
    const ofWords = Array.from({ length: tokens }, (_, c) => c).filter(c => Number(words.data[i * tokens + c]) === 1)
    return [...ofWords, ...Array.from({ length: most }, (_, r) => r).filter(r => regions.data[i * most + r] === 1n).map(r => tokens + r)]
  })
  const length = Math.max(...counted.map(places => places.length))
  const places = new BigInt64Array(n * length)
  const mask = new BigInt64Array(n * length)
  counted.forEach((row, i) => {
    places.set(row.map(BigInt), i * length)
    mask.fill(1n, i * length, i * length + row.length)
  })
  return { attn_masks: new Tensor('int64', mask, [n, length]), gather_index: new Tensor('int64', places, [n, length]) }
}
