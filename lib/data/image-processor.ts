// The image processor: an image to the pixels of the reference's Pillow processors. sharp decodes, C++ applies the orientation, resizes and
// crops in one go, and the values are scaled by a table, since there are only 256 of them for each channel.
// Images are worked on a few at a time for the whole process, and decoded pixels are bounded in bytes: a folder of any size fits.

import { setImmediate } from 'node:timers/promises'
import type { ImagePlan } from '../../typings/addon.js'
import { ArgumentError, ChiasmaError, ImageError, ShapeError } from '../core/errors.js'
import { native } from '../core/native.js'
import { checkOptions, option, type OptionRules } from '../core/options.js'
import { Tensor } from '../core/tensor.js'
import { onAbort } from './abort.js'
import { Gate } from './gate.js'
import { type ImageInput, type ImageOptions, imageOptionRules, openImage, type Pixels } from './image.js'
import type { ImageRules, ResizeRule } from './image-config.js'
import { during, type StageClock } from './timings.js'

export interface ProcessorOptions extends ImageOptions {
  /** 'float32' (default): scaled, [n, 3, H, W], as the reference's `pixel_values`. 'uint8': as cropped, [n, H, W, 3]. */
  output?: 'float32' | 'uint8'
}

const processorRules: OptionRules<ProcessorOptions> = { ...imageOptionRules, output: option.oneOf(['float32', 'uint8']) }

/** What a model takes; masks and shapes are int64. */
export interface ProcessorOutput {
  readonly pixel_values: Tensor
  /** [n, H, W], 1 where there is picture: of processors that pad pictures. */
  readonly pixel_mask?: Tensor
  /** [n, patches], 1 where there is one: of processors that cut pictures into patches. */
  readonly pixel_attention_mask?: Tensor
  /** [n, 2], rows and columns of patches. */
  readonly spatial_shapes?: Tensor
}

export interface Picture {
  /** RGB, [height, width, 3]. */
  readonly data: Uint8Array
  readonly width: number
  readonly height: number
}

// libuv has four threads unless told otherwise, and at most 1024; one more image reads its file meanwhile.
const AT_ONCE = 1 + Math.min(Math.max(1, Math.floor(Number(process.env['UV_THREADPOOL_SIZE']) || 4)), 1024)
const gate = new Gate(AT_ONCE)
const decodedGate = new Gate(512 * 1024 * 1024)

/**
 * Made by `AutoProcessor.fromPretrained`; it is called: `await processor(images)`.
 *
 * @example
 * const processor = await AutoProcessor.fromPretrained('openai/clip-vit-base-patch32')
 * const { pixel_values } = await processor(['cat.jpg', 'dog.jpg']) // float32 [2, 3, 224, 224]
 */
export interface Processor {
  /**
   * @returns `pixel_values`: float32 [n, 3, H, W], or uint8 [n, H, W, 3] with `output: 'uint8'`; with what else the class makes
   * @throws ImageError, ArgumentError with `index` set to the first image that failed; ShapeError if images come out in different sizes.
   */
  (images: ImageInput | readonly ImageInput[], options?: ProcessorOptions): Promise<ProcessorOutput>
  /** The size of every result, unless it depends on the image. */
  readonly size: { readonly height: number; readonly width: number } | undefined
  /** What happens to a pixel after the crop: (pixel * rescale - mean) / std. */
  readonly normalization: Pick<ImageRules, 'rescale' | 'mean' | 'std'>
  /** One image as cropped: uint8 RGB [height, width, 3]. @internal */
  process(image: ImageInput, options?: ImageOptions, clock?: StageClock): Promise<Uint8Array>
  /** One image cut into patches, if the class does that: outputs of a list of it alone. @internal */
  readonly cut: ((image: ImageInput, options?: ImageOptions, clock?: StageClock) => Promise<ProcessorOutput>) | undefined
}

export function makeProcessor(rules: ImageRules): Processor {
  const table = scaleTable(rules)
  const preprocess = async (images: ImageInput | readonly ImageInput[], options: ProcessorOptions = {}): Promise<ProcessorOutput> => {
    checkOptions('processor', options, processorRules)
    const { output = 'float32' } = options
    const list = Array.isArray(images) ? (images as readonly ImageInput[]) : [images as ImageInput]
    const scaled = output === 'float32' ? table : undefined
    if (rules.patches) return inPatches(await pictures(list, rules, options), rules.patches, scaled, options.signal)
    if (rules.pads) return padded(await pictures(list, rules, options), scaled, options.signal)
    return { pixel_values: await batch(list, rules, scaled, options) }
  }
  const { rescale, mean, std, patches } = rules
  return Object.assign(preprocess, {
    size: fixedSize(rules),
    normalization: { rescale, mean, std },
    process: async (image: ImageInput, options: ImageOptions = {}, clock?: StageClock) => (await picture(image, rules, options, clock)).data,
    cut: patches && (async (image: ImageInput, options: ImageOptions = {}, clock?: StageClock) => {
      const whole = await picture(image, rules, options, clock)
      return during(clock, 'preprocess', () => inPatches([whole], patches, table, options.signal))
    }),
  })
}

/** All images as one tensor; scaled if there is a table. */
async function batch(images: readonly ImageInput[], rules: ImageRules, table: Float32Array | undefined, options: ImageOptions): Promise<Tensor> {
  let result: Float32Array | Uint8Array = table ? new Float32Array(0) : new Uint8Array(0)
  let { width, height } = fixedSize(rules) ?? { width: 0, height: 0 }
  const place = ({ data, ...size }: Picture, index: number): void => {
    if (result.length === 0) {
      ;({ width, height } = size)
      const length = images.length * data.length
      result = table ? new Float32Array(length) : new Uint8Array(length)
    } else if (size.width !== width || size.height !== height) {
      const sizes = `${width} x ${height} and ${size.width} x ${size.height}`
      throw new ShapeError(`[processor] images of one call come out as ${sizes} pixels; this processor has no fixed size, so pass them one by one`, { index })
    }
    if (table) scale(data, table, result as Float32Array, index * data.length, width * height)
    else result.set(data, index * data.length)
  }

  // Where the size is not known beforehand, it is that of the first image.
  await eachPicture(images, rules, options, place, !fixedSize(rules))
  return table
    ? new Tensor('float32', result, [images.length, 3, height, width])
    : new Tensor('uint8', result, [images.length, height, width, 3])
}

/** @param firstAlone whether the others wait for the first one */
async function eachPicture(images: readonly ImageInput[], rules: ImageRules, options: ImageOptions, place: (picture: Picture, index: number) => void, firstAlone = false): Promise<void> {
  // Indices are taken in order, so that of several failures the first in the list is known.
  let next = 0
  const failures: { index: number; error: unknown }[] = []
  const work = async (end: number): Promise<void> => {
    while (next < end && failures.length === 0) {
      const index = next++
      try {
        place(await picture(images[index]!, rules, options), index)
      } catch (error) {
        failures.push({ index, error })
      }
    }
  }
  if (firstAlone && images.length > 0) await work(1)
  await Promise.all(Array.from({ length: AT_ONCE }, () => work(images.length)))
  options.signal?.throwIfAborted()
  if (failures.length) throw withIndex(failures.reduce((a, b) => (b.index < a.index ? b : a)))
}

async function pictures(images: readonly ImageInput[], rules: ImageRules, options: ImageOptions): Promise<Picture[]> {
  const all: Picture[] = []
  await eachPicture(images, rules, options, (picture, index) => (all[index] = picture))
  return all
}

/** Pictures at the top left of a canvas that has room for each of them. */
async function padded(pictures: readonly Picture[], table: Float32Array | undefined, signal: AbortSignal | undefined): Promise<ProcessorOutput> {
  const height = Math.max(0, ...pictures.map(picture => picture.height))
  const width = Math.max(0, ...pictures.map(picture => picture.width))
  const pixels = height * width
  const result = table ? new Float32Array(pictures.length * 3 * pixels) : new Uint8Array(pictures.length * 3 * pixels)
  const mask = new BigInt64Array(pictures.length * pixels)
  for (const [index, { data, ...size }] of pictures.entries()) {
    if (index > 0) await setImmediate()
    signal?.throwIfAborted()
    for (let y = 0; y < size.height; y++) {
      const row = data.subarray(y * size.width * 3, (y + 1) * size.width * 3)
      const at = index * pixels + y * width
      mask.fill(1n, at, at + size.width)
      if (!table) result.set(row, 3 * at)
      else scale(row, table, result as Float32Array, 3 * index * pixels + y * width, pixels)
    }
  }
  const dims = table ? [pictures.length, 3, height, width] : [pictures.length, height, width, 3]
  return { pixel_values: new Tensor(table ? 'float32' : 'uint8', result, dims), pixel_mask: new Tensor('int64', mask, [pictures.length, height, width]) }
}

/** Patches of pictures, row by row, each its pixels row by row: [n, most, patch·patch·3]. */
async function inPatches(
  pictures: readonly Picture[],
  { patch, most }: NonNullable<ImageRules['patches']>,
  table: Float32Array | undefined,
  signal: AbortSignal | undefined,
): Promise<ProcessorOutput> {
  const size = patch * patch * 3
  const result = table ? new Float32Array(pictures.length * most * size) : new Uint8Array(pictures.length * most * size)
  const mask = new BigInt64Array(pictures.length * most)
  const shapes = new BigInt64Array(pictures.length * 2)
  for (const [index, picture] of pictures.entries()) {
    if (index > 0) await setImmediate()
    signal?.throwIfAborted()
    const [rows, columns] = [Math.floor(picture.height / patch), Math.floor(picture.width / patch)]
    cutPatches(picture, patch, table, result.subarray(index * most * size))
    mask.fill(1n, index * most, index * most + rows * columns)
    shapes.set([BigInt(rows), BigInt(columns)], index * 2)
  }
  return {
    pixel_values: new Tensor(table ? 'float32' : 'uint8', result, [pictures.length, most, size]),
    pixel_attention_mask: new Tensor('int64', mask, [pictures.length, most]),
    spatial_shapes: new Tensor('int64', shapes, [pictures.length, 2]),
  }
}

function cutPatches({ data, width, height }: Picture, patch: number, table: Float32Array | undefined, result: Float32Array | Uint8Array): void {
  const columns = Math.floor(width / patch)
  let to = 0
  for (let p = 0; p < Math.floor(height / patch) * columns; p++) {
    for (let line = 0; line < patch; line++, to += patch * 3) {
      const from = ((Math.floor(p / columns) * patch + line) * width + (p % columns) * patch) * 3
      if (!table) result.set(data.subarray(from, from + patch * 3), to)
      else {
        for (let i = 0; i < patch * 3; i += 3) {
          result[to + i] = table[data[from + i]!]!
          result[to + i + 1] = table[256 + data[from + i + 1]!]!
          result[to + i + 2] = table[512 + data[from + i + 2]!]!
        }
      }
    }
  }
}

function withIndex({ index, error }: { index: number; error: unknown }): unknown {
  if (error instanceof ChiasmaError) Object.defineProperty(error, 'index', { value: index, enumerable: true, configurable: true })
  return error
}

/** One image through all steps. Rejects as soon as `signal` aborts; what is running then ends by itself and is dropped. */
function picture(image: ImageInput, rules: ImageRules, options: ImageOptions, clock?: StageClock): Promise<Picture> {
  const { signal } = options
  const done = gate.run(1, signal, async () => {
    const opened = await during(clock, 'read', () => openImage(image, options))
    return decodedGate.run(opened.decodedBytes, signal, async () => {
      const pixels = await during(clock, 'decode', () => opened.decode())
      signal?.throwIfAborted()
      const plan = planOf(pixels, rules)
      if (rules.patches) checkPatches(plan, rules.patches)
      const data = await during(clock, 'preprocess', () => preprocess(pixels.data, plan)).catch(tooLong(opened, plan))
      return { data, width: plan.cropWidth, height: plan.cropHeight }
    })
  })
  if (!signal) return done
  return new Promise((resolve, reject) => {
    const forget = onAbort(signal, () => reject(signal.reason))
    done.then(resolve, reject).finally(forget)
  })
}

async function preprocess(pixels: Uint8Array, plan: ImagePlan): Promise<Uint8Array> {
  const result = new Uint8Array(plan.cropHeight * plan.cropWidth * 3)
  await native(addon => addon.preprocessImage(pixels, plan, result))
  return result
}

/** A picture that is not resized may have any number of patches. */
function checkPatches({ cropWidth, cropHeight }: ImagePlan, { patch, most }: NonNullable<ImageRules['patches']>): void {
  const patches = Math.floor(cropHeight / patch) * Math.floor(cropWidth / patch)
  if (patches >= 1 && patches <= most) return
  throw new ShapeError(`[processor] an image has ${cropWidth} x ${cropHeight} pixels; expected 1 to ${most} patches of ${patch} x ${patch}`)
}

/** A plan is refused, and its result not to be had (RangeError), only for the sizes that an extreme image leads to. */
function tooLong({ name }: { name: string }, { width, height, resizeWidth, resizeHeight }: ImagePlan): (cause: unknown) => never {
  return cause => {
    if (!(cause instanceof ArgumentError || cause instanceof RangeError)) throw cause
    const sizes = `${width} x ${height} pixels, resized to ${resizeWidth} x ${resizeHeight}`
    throw new ImageError(`${name} has ${sizes}, which is beyond what can be computed`, { file: name, cause })
  }
}

/** What C++ is to do with an image: sizes after orientation, and the crop's place. */
export function planOf({ width, height, channels, cmyk, orientation }: Pixels, { resize, filter, crop }: ImageRules): ImagePlan {
  const turned = orientation >= 5
  const upright = turned ? { width: height, height: width } : { width, height }
  const resized = resize ? resizedSize(upright, resize) : upright
  const { width: cropWidth, height: cropHeight } = crop ?? resized
  // Rounded down, also where the crop is larger than the picture and the rest is zero.
  const half = (margin: number) => Math.floor(margin / 2) + (crop?.middle === 'even' && Math.abs(margin) % 4 === 3 ? 1 : 0)
  return {
    width,
    height,
    channels,
    cmyk,
    orientation,
    resizeWidth: resized.width,
    resizeHeight: resized.height,
    filter,
    cropLeft: half(resized.width - cropWidth),
    cropTop: half(resized.height - cropHeight),
    cropWidth,
    cropHeight,
  }
}

/** The reference's rounding: the longer side is rounded down, also from a shorter one that `longest` has made fractional. */
function resizedSize({ width, height }: { width: number; height: number }, rule: ResizeRule): { width: number; height: number } {
  if (rule.kind === 'fixed') return { width: rule.width, height: rule.height }
  if (rule.kind === 'divisible') return divisibleSize({ width, height }, rule)
  if (rule.kind === 'patches') return patchesSize({ width, height }, rule)
  const short = Math.min(width, height)
  const long = Math.max(width, height)
  let exact: number = rule.shortest
  let newShort: number = rule.shortest
  if (rule.longest !== undefined && (long / short) * newShort > rule.longest) {
    exact = (rule.longest * short) / long
    newShort = roundHalfEven(exact)
  }
  const newLong = newShort === short ? long : Math.floor((exact * long) / short)
  return width <= height ? { width: newShort, height: newLong } : { width: newLong, height: newShort }
}

function divisibleSize({ width, height }: { width: number; height: number }, { shortest, longest, divisor }: ResizeRule & { kind: 'divisible' }): { width: number; height: number } {
  const scale = shortest / Math.min(width, height)
  let [w, h] = height < width ? [scale * width, shortest] : [shortest, scale * height]
  if (Math.max(w, h) > longest) {
    const less = longest / Math.max(w, h)
    ;[w, h] = [less * w, less * h]
  }
  const whole = (side: number) => Math.floor(Math.floor(side + 0.5) / divisor) * divisor
  return { width: whole(w), height: whole(h) }
}

/** The reference's search for the scale, by halving. */
function patchesSize({ width, height }: { width: number; height: number }, { patch, most }: ResizeRule & { kind: 'patches' }): { width: number; height: number } {
  const precision = 1e-5
  const sides = (scale: number) => [width, height].map(side => Math.max(patch, Math.ceil((side * scale) / patch) * patch)) as [number, number]
  let [low, high] = [precision / 10, 100]
  while (high - low >= precision) {
    const middle = (low + high) / 2
    const [w, h] = sides(middle)
    if ((w / patch) * (h / patch) <= most) low = middle
    else high = middle
  }
  const [w, h] = sides(low)
  return { width: w, height: h }
}

/** Python's round(). */
function roundHalfEven(x: number): number {
  const down = Math.floor(x)
  if (x - down !== 0.5) return Math.round(x)
  return down % 2 === 0 ? down : down + 1
}

/** The scaled values of a channel's 256 levels, [3, 256], in the reference's precisions: the product in double, the rest in single. */
function scaleTable({ rescale, mean, std }: ImageRules): Float32Array {
  const table = new Float32Array(3 * 256)
  for (let channel = 0; channel < 3; channel++) {
    const [m, s] = [Math.fround(mean[channel]!), Math.fround(std[channel]!)]
    for (let level = 0; level < 256; level++) {
      table[channel * 256 + level] = Math.fround(Math.fround(level * rescale) - m) / s
    }
  }
  return table
}

/** RGB pixels to scaled values, those of each channel together: the first channel's at `offset`, the next ones' a `plane` further each. */
function scale(rgb: Uint8Array, table: Float32Array, result: Float32Array, offset: number, plane: number): void {
  const pixels = rgb.length / 3
  for (let channel = 0; channel < 3; channel++) {
    const base = channel * 256
    const start = offset + channel * plane
    for (let i = 0, from = channel; i < pixels; i++, from += 3) result[start + i] = table[base + rgb[from]!]!
  }
}

function fixedSize({ resize, crop }: ImageRules): { readonly height: number; readonly width: number } | undefined {
  const size = crop ?? (resize?.kind === 'fixed' ? resize : undefined)
  return size && { height: size.height, width: size.width }
}
