// preprocessor_config.json (or the image_processor section of processor_config.json) to rules. The fields decide; for absent ones the class has
// defaults, those of the reference's Pillow processors (transformers 5: the class whose name ends in Pil). A field that is null takes none: a
// flag is off then.

import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import type { ImagePlan } from '../../typings/addon.js'

export type Filter = ImagePlan['filter']

/** Sizes in pixels. */
export type ResizeRule =
  | { readonly kind: 'fixed'; readonly height: number; readonly width: number }
  /** The shorter edge becomes `shortest`; with `longest`, less if the longer one would exceed that. */
  | { readonly kind: 'shortest'; readonly shortest: number; readonly longest?: number }
  /** The same, and then both sides rounded down to multiples of `divisor`: ViLT's. */
  | { readonly kind: 'divisible'; readonly shortest: number; readonly longest: number; readonly divisor: number }
  /** As large as gives at most so many patches of a side of `patch`, both sides rounded up to whole ones: SigLIP 2's. */
  | { readonly kind: 'patches'; readonly patch: number; readonly most: number }

export interface ImageRules {
  readonly resize?: ResizeRule
  readonly filter: Filter
  /** `middle`: where half a pixel is left over, it goes down, or to the even number, as torchvision has it. Default 'down'. */
  readonly crop?: { readonly height: number; readonly width: number; readonly middle?: 'down' | 'even' }
  /** Pictures of a call are padded to the largest of them, and a mask tells what is picture. */
  readonly pads?: boolean
  /** Pictures are cut into patches, padded to `most`. */
  readonly patches?: { readonly patch: number; readonly most: number }
  /** pixel * rescale, then (x - mean) / std, one of each for a channel. */
  readonly rescale: number
  readonly mean: readonly [number, number, number]
  readonly std: readonly [number, number, number]
}

const FILTERS: readonly Filter[] = ['nearest', 'lanczos', 'bilinear', 'bicubic', 'box', 'hamming'] // by Pillow's numbers

const OPENAI = { image_mean: [0.48145466, 0.4578275, 0.40821073], image_std: [0.26862954, 0.26130258, 0.27577711] }
const HALF = { image_mean: [0.5, 0.5, 0.5], image_std: [0.5, 0.5, 0.5] }
const IMAGENET = { image_mean: [0.485, 0.456, 0.406], image_std: [0.229, 0.224, 0.225] }
const CROP_224 = { do_center_crop: true, crop_size: { height: 224, width: 224 } }
const SHORTEST_224 = { size: { shortest_edge: 224 }, squareSizes: false }

interface Defaults {
  readonly size?: unknown
  readonly crop_size?: unknown
  readonly do_center_crop?: boolean
  readonly do_resize?: boolean
  readonly do_rescale?: boolean
  readonly rescale_factor?: number
  readonly do_normalize?: boolean
  readonly resample?: number
  readonly image_mean?: readonly number[]
  readonly image_std?: readonly number[]
  readonly crop_pct?: number
  readonly include_top?: boolean
  readonly do_pad?: boolean
  readonly size_divisor?: number
  readonly patch_size?: number
  readonly max_num_patches?: number
  /** Whether an integer `size` is both sides, or the shorter one. */
  readonly squareSizes?: boolean
}

const EVERY_CLASS: Defaults = { do_resize: true, do_rescale: true, rescale_factor: 1 / 255, do_normalize: true }
const CLIP: Defaults = { ...SHORTEST_224, ...CROP_224, ...OPENAI, resample: 3 }

const CLASSES: Readonly<Record<string, Defaults>> = {
  BeitImageProcessor: { size: { height: 224, width: 224 }, crop_size: CROP_224.crop_size, ...HALF, resample: 3 },
  BitImageProcessor: CLIP,
  BlipImageProcessor: { size: { height: 384, width: 384 }, ...OPENAI, resample: 3 },
  ChineseCLIPImageProcessor: CLIP,
  CLIPImageProcessor: CLIP,
  ConvNextImageProcessor: { size: { shortest_edge: 384 }, squareSizes: false, crop_pct: 224 / 256, ...HALF, resample: 3 },
  DeiTImageProcessor: { size: { height: 256, width: 256 }, ...CROP_224, ...HALF, resample: 3 },
  /** The reference's resizes unrounded numbers; here pixels are rounded to bytes behind it, as everywhere. */
  DINOv3ViTImageProcessor: { size: { height: 224, width: 224 }, ...IMAGENET, resample: 2 },
  EfficientNetImageProcessor: { size: { height: 346, width: 346 }, crop_size: { height: 289, width: 289 }, include_top: true, ...HALF, resample: 3 },
  MobileNetV2ImageProcessor: { size: { shortest_edge: 256 }, squareSizes: false, ...CROP_224, ...HALF, resample: 2 },
  PvtImageProcessor: { size: { height: 224, width: 224 }, ...IMAGENET, resample: 3 },
  SiglipImageProcessor: { size: { height: 224, width: 224 }, squareSizes: false, ...HALF, resample: 3 },
  Siglip2ImageProcessor: { ...HALF, resample: 2, patch_size: 16, max_num_patches: 256 },
  ViltImageProcessor: { size: { shortest_edge: 384 }, squareSizes: false, ...HALF, resample: 3, do_pad: true, size_divisor: 32 },
  ViTImageProcessor: { size: { height: 224, width: 224 }, ...HALF, resample: 2 },
}

/** Fields that make a processor do more than is done here; each with the values that leave it harmless. */
const FURTHER_STEPS: Readonly<Record<string, readonly unknown[]>> = {
  do_align_long_axis: [false],
  do_convert_grayscale: [false],
  do_flip_channel_order: [false],
  do_grayscale: [false],
  do_image_splitting: [false],
  do_pad: [false],
  do_pan_and_scan: [false],
  do_thumbnail: [false],
  ensure_multiple_of: [1],
  keep_aspect_ratio: [false],
  max_num_patches: [],
  max_patches: [],
  merge_size: [],
  size_divisor: [],
  use_square_size: [false],
}

/** Classes whose resize or crop follows other rules although their fields look the same. */
const OTHER_RULES = ['LevitImageProcessor', 'PerceiverImageProcessor', 'PoolFormerImageProcessor']

/** Fields of `FURTHER_STEPS` that are known of a class. */
const OWN_STEPS: Readonly<Record<string, readonly string[]>> = { Siglip2ImageProcessor: ['max_num_patches'], ViltImageProcessor: ['do_pad', 'size_divisor'] }
/** ViLT's longer side may have so many times the shorter's pixels. */
const VILT_LONGEST = 1333 / 800

const side = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(16384))
const sizeSchema = v.union([
  side,
  v.strictTuple([side, side]),
  v.strictObject({ height: side, width: side }),
  v.strictObject({ shortest_edge: side }),
  v.strictObject({ shortest_edge: side, longest_edge: side }),
])
const anyNumber = v.pipe(v.number(), v.finite())
const positive = v.pipe(anyNumber, v.gtValue(0))
const triple = (number: v.GenericSchema<number, number>) => v.union([number, v.strictTuple([number, number, number])])
const flag = described(v.boolean(), 'true or false')
const SIZES = 'a positive integer, { height, width }, { shortest_edge } or { shortest_edge, longest_edge }'

const schema = v.object({
  do_resize: flag,
  size: v.optional(described(sizeSchema, SIZES)),
  resample: v.optional(described(v.picklist([0, 1, 2, 3, 4, 5]), "Pillow's number of a filter, 0 to 5")),
  do_center_crop: v.optional(flag, false),
  crop_size: v.optional(described(v.union([side, v.strictTuple([side, side]), v.strictObject({ height: side, width: side })]), 'a positive integer or { height, width }')),
  crop_pct: v.optional(described(v.pipe(positive, v.maxValue(1)), 'a number above 0, at most 1')),
  do_pad: v.optional(flag, false),
  size_divisor: v.optional(described(side, 'a positive integer')),
  patch_size: v.optional(v.unknown()),
  max_num_patches: v.optional(described(v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(1_000_000)), 'a positive integer')),
  do_rescale: flag,
  rescale_factor: v.optional(described(positive, 'a positive number')),
  do_normalize: flag,
  rescale_offset: v.optional(flag, false),
  include_top: v.optional(flag, false),
  image_mean: v.optional(described(triple(anyNumber), 'a number or three')),
  image_std: v.optional(described(triple(positive), 'a positive number or three')),
})

/** `schema` with one sentence for all that may be wrong. */
function described<S extends v.GenericSchema>(schema: S, expected: string) {
  return v.pipe(
    v.custom<v.InferInput<S>>(input => v.is(schema, input), expected),
    v.transform(input => v.parse(schema, input)),
  )
}

/**
 * The rules of an image processor's configuration.
 * @throws CheckpointError naming `file` and the field that is missing or absurd
 * @throws UnsupportedError for processors that do more than resize, crop, rescale and normalise.
 */
export function readImageRules(config: Readonly<Record<string, unknown>>, file: string): ImageRules {
  const name = classOf(config, file)
  if (OTHER_RULES.includes(name)) throw new UnsupportedError(`${file}: ${name} is not supported`, { file, field: 'image_processor_type' })
  // For a class that is not listed, the file must say all.
  const defaults: Defaults = name in CLASSES ? { ...EVERY_CLASS, ...CLASSES[name] } : { rescale_factor: 1 / 255 }
  const given = Object.fromEntries(Object.entries(config).map(([field, value]) => [field, value ?? (field.startsWith('do_') ? false : undefined)]))
  for (const [field, harmless] of Object.entries(FURTHER_STEPS)) {
    if (given[field] !== undefined && !OWN_STEPS[name]?.includes(field) && !harmless.includes(given[field])) {
      throw new UnsupportedError(`${file}: ${field} is ${show(given[field])}, which ${name || 'this package'} does not support here`, { file, field })
    }
  }
  // ConvNeXt's class takes its default for a null, too.
  if (name === 'ConvNextImageProcessor') given['crop_pct'] ??= defaults.crop_pct
  const result = v.safeParse(schema, { ...defaults, ...given })
  if (!result.success) {
    const { issues } = result
    const problems = issues.map(issue => `${v.getDotPath(issue)} ${issue.input === undefined ? 'is missing' : `is ${show(issue.input)}`}; expected ${expectation(issue)}`)
    throw new CheckpointError(`${file}: ${problems.join(', and ')}`, { file, field: v.getDotPath(issues[0]!) ?? undefined })
  }
  const fields = result.output
  const needed = <T>(field: string, value: T | undefined): T => {
    if (value === undefined) throw new CheckpointError(`${file}: ${field} is missing`, { file, field })
    return value
  }
  const efficient = name === 'EfficientNetImageProcessor'
  for (const field of ['rescale_offset', 'include_top'] as const) {
    if (fields[field] && !efficient) throw new UnsupportedError(`${file}: ${field} is true, which ${name || 'this package'} does not support here`, { file, field })
  }
  const scaling = readScaling(fields, needed)
  const crop = fields.do_center_crop ? bothSides(needed('crop_size', fields.crop_size)) : undefined
  if (name === 'Siglip2ImageProcessor') {
    const patch = needed('patch_size', fields.patch_size)
    if (!v.is(side, patch)) throw new CheckpointError(`${file}: patch_size is ${show(patch)}; expected a positive integer`, { file, field: 'patch_size' })
    const patches = { patch, most: needed('max_num_patches', fields.max_num_patches) }
    if (!fields.do_resize) return { filter: 'nearest', patches, ...scaling }
    return { resize: { kind: 'patches', ...patches }, filter: FILTERS[needed('resample', fields.resample)]!, patches, ...scaling }
  }
  const pads = name === 'ViltImageProcessor' && fields.do_pad ? { pads: true } : {}
  if (!fields.do_resize) return { filter: 'nearest', crop, ...pads, ...scaling }
  const filter = FILTERS[needed('resample', fields.resample)]!
  const resize = resizeRule(needed('size', fields.size), defaults.squareSizes ?? true)
  if (name === 'ViltImageProcessor') {
    if (resize.kind !== 'shortest') throw new CheckpointError(`${file}: size is ${show(given['size'])}; ${name} expects { shortest_edge }`, { file, field: 'size' })
    const { shortest } = resize
    const divisor = needed('size_divisor', fields.size_divisor)
    return { resize: { kind: 'divisible', shortest, longest: Math.floor(VILT_LONGEST * shortest), divisor }, filter, ...pads, ...scaling }
  }
  if (fields.crop_pct === undefined || name !== 'ConvNextImageProcessor') return { resize, filter, crop, ...scaling }

  // ConvNeXt: below 384 a larger resize and a crop to the size, from there on a plain resize to a square.
  if (resize.kind !== 'shortest') throw new CheckpointError(`${file}: size is ${show(given['size'])}; ${name} expects { shortest_edge }`, { file, field: 'size' })
  const { shortest } = resize
  const square = { height: shortest, width: shortest }
  if (shortest >= 384) return { resize: { kind: 'fixed', ...square }, filter, crop, ...scaling }
  if (crop && (crop.height !== shortest || crop.width !== shortest)) {
    throw new UnsupportedError(`${file}: crop_size is ${show(given['crop_size'])}, a second crop after that of crop_pct`, { file, field: 'crop_size' })
  }
  return { resize: { kind: 'shortest', shortest: Math.floor(shortest / fields.crop_pct) }, filter, crop: square, ...scaling }
}

/** EfficientNet's values may be moved by 1 after rescaling, and divided by std once more at the end. */
function readScaling(fields: v.InferOutput<typeof schema>, needed: <T>(field: string, value: T | undefined) => T): Pick<ImageRules, 'rescale' | 'mean' | 'std'> {
  const none = [0, 0, 0] as const
  const mean = fields.do_normalize ? three(needed('image_mean', fields.image_mean)) : none
  const std = fields.do_normalize || fields.include_top ? three(needed('image_std', fields.image_std)) : ([1, 1, 1] as const)
  const offset = fields.do_rescale && fields.rescale_offset ? 1 : 0
  const twice = fields.do_normalize && fields.include_top
  const each = <T extends readonly number[]>(values: T, of: (value: number) => number) => values.map(of) as unknown as readonly [number, number, number]
  return {
    rescale: fields.do_rescale ? needed('rescale_factor', fields.rescale_factor) : 1,
    mean: each(mean, value => value + offset),
    std: each(std, value => (twice ? value * value : value)),
  }
}

/** A missing key is valibot's own issue, with a sentence of its own. */
function expectation({ input, message, path }: v.BaseIssue<unknown>): string {
  return input === undefined && path?.length === 1 ? 'it, since the class gives no default' : message
}

const INTERPOLATIONS: readonly Filter[] = ['bilinear', 'bicubic', 'nearest', 'lanczos', 'box', 'hamming']
const ofOthers = {
  mean: v.optional(described(triple(anyNumber), 'a number or three')),
  std: v.optional(described(triple(positive), 'a positive number or three')),
  interpolation: v.optional(described(v.picklist([...INTERPOLATIONS, 'random']), `one of ${INTERPOLATIONS.join(', ')}`)),
}
const sizes = described(v.union([side, v.strictTuple([side, side])]), 'a positive integer or two')
const timmSchema = v.object({
  ...ofOthers,
  input_size: described(v.strictTuple([v.literal(3), side, side]), '[3, height, width]'),
  crop_pct: v.optional(described(positive, 'a positive number'), 0.875),
  crop_mode: v.optional(described(v.picklist(['center', 'squash']), "'center' or 'squash'"), 'center'),
})
const openClipSchema = v.object({ ...ofOthers, size: v.optional(sizes), resize_mode: v.optional(described(v.picklist(['shortest', 'squash']), "'shortest' or 'squash'"), 'shortest') })

function readOther<S extends v.GenericSchema>(schema: S, value: unknown, file: string, section: string): v.InferOutput<S> {
  const given = value !== null && typeof value === 'object' ? Object.fromEntries(Object.entries(value).filter(([, field]) => field !== null)) : value
  const result = v.safeParse(schema, given)
  if (result.success) return result.output
  const [issue] = result.issues
  const field = [section, v.getDotPath(issue)].filter(Boolean).join('.')
  throw new CheckpointError(`${file}: ${field} ${issue.input === undefined ? 'is missing' : `is ${show(issue.input)}`}; expected ${issue.message}`, { file, field })
}

/** A random filter is for training; the libraries then evaluate with 'bicubic'. */
function filterOf(interpolation: Filter | 'random' | undefined): Filter {
  return interpolation === undefined || interpolation === 'random' ? 'bicubic' : interpolation
}

/** The rules of timm's config.json, whose `pretrained_cfg` has them, or which has them itself as older ones do: a resize by the shorter edge, of which crop_pct is kept. @throws CheckpointError */
export function readTimmRules(config: Readonly<Record<string, unknown>>, file: string): ImageRules {
  const section = config['pretrained_cfg'] == null ? '' : 'pretrained_cfg'
  const { input_size, crop_pct, crop_mode, interpolation, mean, std } = readOther(timmSchema, section ? config[section] : config, file, section)
  const [, height, width] = input_size
  const scaling = { rescale: 1 / 255, mean: three(mean ?? (IMAGENET.image_mean as [number, number, number])), std: three(std ?? (IMAGENET.image_std as [number, number, number])) }
  const filter = filterOf(interpolation)
  const scaled = (length: number) => Math.floor(length / crop_pct)
  const crop = { height, width, middle: 'even' } as const
  if (crop_mode === 'squash') return { resize: { kind: 'fixed', height: scaled(height), width: scaled(width) }, filter, crop, ...scaling }
  const field = section ? `${section}.input_size` : 'input_size'
  if (height !== width) throw new UnsupportedError(`${file}: ${field} is ${show(input_size)}; only squares are cropped`, { file, field })
  return { resize: { kind: 'shortest', shortest: scaled(height) }, filter, crop, ...scaling }
}

/** The rules of an open_clip_config.json: its preprocess_cfg, and the size of its picture tower. @throws CheckpointError */
export function readOpenClipRules(config: Readonly<Record<string, unknown>>, file: string): ImageRules {
  const { size, resize_mode, interpolation, mean, std } = readOther(openClipSchema, config['preprocess_cfg'] ?? {}, file, 'preprocess_cfg')
  const vision = (config['model_cfg'] as { vision_cfg?: { image_size?: unknown } } | null | undefined)?.vision_cfg
  const whole = size ?? readOther(v.object({ image_size: v.optional(sizes, 224) }), vision ?? {}, file, 'model_cfg.vision_cfg').image_size
  const crop = { ...bothSides(whole), middle: 'even' } as const
  const scaling = { rescale: 1 / 255, mean: three(mean ?? (OPENAI.image_mean as [number, number, number])), std: three(std ?? (OPENAI.image_std as [number, number, number])) }
  const filter = filterOf(interpolation)
  if (resize_mode === 'squash') return { resize: { kind: 'fixed', height: crop.height, width: crop.width }, filter, ...scaling }
  if (crop.height !== crop.width) throw new UnsupportedError(`${file}: pictures of ${crop.height} x ${crop.width} are only squashed, not cropped`, { file, field: 'preprocess_cfg.resize_mode' })
  return { resize: { kind: 'shortest', shortest: crop.height }, filter, crop, ...scaling }
}

/** The reference's class: 'CLIPFeatureExtractor', 'CLIPImageProcessorFast' and 'CLIPImageProcessorPil' are all 'CLIPImageProcessor'. */
function classOf(config: Readonly<Record<string, unknown>>, file: string): string {
  const field = config['image_processor_type'] != null ? 'image_processor_type' : 'feature_extractor_type'
  const name = config[field] ?? ''
  if (typeof name !== 'string') throw new CheckpointError(`${file}: ${field} is ${show(name)}; expected a string`, { file, field })
  return name.replace(/(Fast|Pil)$/, '').replace(/FeatureExtractor$/, 'ImageProcessor')
}

function resizeRule(size: v.InferOutput<typeof sizeSchema>, squareSizes: boolean): ResizeRule {
  if (typeof size === 'number') return squareSizes ? { kind: 'fixed', height: size, width: size } : { kind: 'shortest', shortest: size }
  if (Array.isArray(size)) return { kind: 'fixed', height: size[0], width: size[1] }
  if ('height' in size) return { kind: 'fixed', ...size }
  return { kind: 'shortest', shortest: size.shortest_edge, longest: 'longest_edge' in size ? size.longest_edge : undefined }
}

function bothSides(size: number | [number, number] | { height: number; width: number }): { height: number; width: number } {
  if (typeof size === 'number') return { height: size, width: size }
  return Array.isArray(size) ? { height: size[0], width: size[1] } : size
}

function three(value: number | [number, number, number]): [number, number, number] {
  return typeof value === 'number' ? [value, value, value] : value
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}
