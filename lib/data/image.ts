// Decoding by sharp, to the pixels that Pillow's Image.open(...).convert('RGB') has: colour profiles are ignored, alpha is dropped and not
// blended, CMYK is converted without a profile, 16-bit grey is clipped to 8 bits, animations give their first picture. The format is told by
// the first bytes, and only formats on the list reach a decoder. EXIF orientation is read here and applied by the resize.

import type { Metadata, Sharp, SharpOptions } from 'sharp'
import { ImageError, UnsupportedError } from '../core/errors.js'
import { option, type OptionRules } from '../core/options.js'
import { type ImageInput, type ImageSource, readSource, type SourceLimits } from './image-source.js'

export type { ImageInput, RawImage, SourceLimits } from './image-source.js'

export interface ImageOptions extends SourceLimits {
  /** Pixels (width times height) an image may have; default 100 million. */
  maxPixels?: number
  /** Accept SVG, drawn on white in its own size; default false. */
  allowSvg?: boolean
}

export const imageOptionRules: OptionRules<ImageOptions> = {
  allowRemote: option.flag,
  maxBytes: option.positive,
  timeout: option.positiveInteger,
  signal: option.signal,
  maxPixels: option.positive,
  allowSvg: option.flag,
}

export type ImageFormat = 'jpeg' | 'png' | 'webp' | 'gif' | 'avif' | 'tiff' | 'svg'

/** Decoded pixels, before orientation. */
export interface Pixels {
  readonly data: Uint8Array
  readonly width: number
  readonly height: number
  /** 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA, or CMYK inks if `cmyk`. */
  readonly channels: 1 | 2 | 3 | 4
  readonly cmyk: boolean
  /** EXIF orientation, 1 to 8. */
  readonly orientation: number
}

/** An image whose header has been read. */
export interface OpenImage {
  /** What errors call it: the path, the URL, 'a buffer of 1234 bytes'. */
  readonly name: string
  readonly width: number
  readonly height: number
  /** Memory that its pixels take once decoded. */
  readonly decodedBytes: number
  decode(): Promise<Pixels>
}

const MAX_PIXELS = 100_000_000

/**
 * Reads an image and its header.
 * @throws ImageError naming the file: see `readSource`; no image of a known format; more pixels than allowed. `decode` throws it for a damaged
 * or truncated file; what Pillow reads with no more than a warning is read.
 */
export async function openImage(input: ImageInput, options: ImageOptions = {}): Promise<OpenImage> {
  const { maxPixels = MAX_PIXELS } = options
  const source = await readSource(input, options)
  const { name } = source
  if (source.kind === 'raw') {
    checkPixels(source, name, maxPixels)
    const { pixels: data, width, height, channels } = source
    const pixels: Pixels = { data, width, height, channels, cmyk: false, orientation: 1 }
    return { name, width, height, decodedBytes: 0, decode: async () => pixels }
  }
  const format = formatOf(source.bytes)
  if (format === undefined) throw new ImageError(`${name} is no JPEG, PNG, WebP, GIF, AVIF or TIFF image`, { file: name })
  if (format === 'svg' && !options.allowSvg) throw new ImageError(`${name} is an SVG; pass allowSvg: true to draw it`, { file: name, field: 'allowSvg' })
  return openEncoded(source, format, maxPixels)
}

async function openEncoded(source: ImageSource & { kind: 'encoded' }, format: ImageFormat, maxPixels: number): Promise<OpenImage> {
  const { name, bytes } = source
  const sharp = await loadSharp()
  const settings: SharpOptions = {
    // A truncated file is refused and a damaged one read as far as it goes, as by Pillow; libvips notices truncated TIFFs as errors only.
    failOn: format === 'tiff' ? 'error' : 'truncated',
    ignoreIcc: true,
    limitInputPixels: false, // checkPixels sees to it
    sequentialRead: true,
  }
  const metadata = await sharp(bytes, settings).metadata().catch(refuse(name))
  const { width, height } = metadata
  checkPixels(metadata, name, maxPixels)
  const orientation = format === 'avif' || format === 'svg' ? 1 : orientationOf(metadata)
  const pipeline = convert(sharp(bytes, settings), metadata, format)
  const decode = async (): Promise<Pixels> => {
    const { data, info } = await pipeline.toBuffer({ resolveWithObject: true }).catch(refuse(name))
    const { channels } = info
    const cmyk = metadata.space === 'cmyk'
    if (data.length !== info.width * info.height * channels || channels > 4 || (cmyk && channels !== 4)) {
      throw new ImageError(`${name} decodes to ${data.length} bytes in ${channels} channels, which is not supported`, { file: name })
    }
    return { data, width: info.width, height: info.height, channels, cmyk, orientation }
  }
  return { name, width, height, decodedBytes: width * height * Math.min(metadata.channels, 4), decode }
}

/** The pipeline to 8-bit pixels: grey, grey and alpha, RGB, RGBA or CMYK. */
function convert(image: Sharp, { space, depth, channels }: Metadata, format: ImageFormat): Sharp {
  if (format === 'svg') return image.flatten({ background: '#ffffff' }).raw()
  if (space === 'cmyk') return image.pipelineColourspace('cmyk').toColourspace('cmyk').raw({ depth: 'uchar' })
  // Pillow clips 16-bit grey to 255, and keeps the upper byte of 16-bit colours and of grey with alpha, which is libvips's way too.
  if (space === 'grey16' && channels === 1) return image.toColourspace('grey16').raw({ depth: 'uchar' })
  if (space === 'b-w' && depth === 'uchar') return image.toColourspace('b-w').raw()
  return image.raw({ depth: 'uchar' })
}

/** As Pillow's exif_transpose: the EXIF tag, else the one in XMP; anything but 1 to 8 is no orientation. */
function orientationOf({ orientation, xmp }: Metadata): number {
  if (orientation === undefined && xmp) {
    const found = /tiff:Orientation(?:="|>)([0-9])/.exec(xmp.toString('latin1'))
    orientation = found ? Number(found[1]) : undefined
  }
  return orientation !== undefined && orientation >= 1 && orientation <= 8 ? orientation : 1
}

function checkPixels({ width, height }: { width: number; height: number }, name: string, maxPixels: number): void {
  if (width * height <= maxPixels) return
  throw new ImageError(`${name} has ${width} x ${height} pixels; at most ${maxPixels} are decoded`, { file: name, field: 'maxPixels' })
}

function refuse(name: string): (cause: unknown) => never {
  return cause => {
    const words = (cause as Error).message.split('\n')[0]!.replace(/^Input buffer (has corrupt header: *)?/, '')
    const reason = words === '' || words === 'Unknown error' ? 'it is damaged or ends early' : words // libvips has no words for some PNGs
    throw new ImageError(`${name} cannot be decoded: ${reason}`, { file: name, cause })
  }
}

/** The format by its first bytes. */
export function formatOf(bytes: Uint8Array): ImageFormat | undefined {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, 1024)).toString('latin1')
  if (text.startsWith('\xff\xd8\xff')) return 'jpeg'
  if (text.startsWith('\x89PNG\r\n\x1a\n')) return 'png'
  if (text.startsWith('RIFF') && text.startsWith('WEBP', 8)) return 'webp'
  if (text.startsWith('GIF87a') || text.startsWith('GIF89a')) return 'gif'
  if (/^(II[*+]\0|MM\0[*+])/.test(text)) return 'tiff'
  if (text.startsWith('ftyp', 4)) {
    // The box's brands: the major one, a version, then the compatible ones.
    const brands = text.slice(8, Math.min(Buffer.from(bytes.buffer, bytes.byteOffset, 4).readUInt32BE(), 256))
    return /^(.{4})*?avif/s.test(brands) ? 'avif' : undefined
  }
  return /^(\xef\xbb\xbf)?\s*(<\?xml|<!--|<!DOCTYPE\s+svg|<svg[\s>])/i.test(text) && text.includes('<svg') ? 'svg' : undefined
}

let loading: Promise<typeof import('sharp').default> | undefined

/** Loads sharp when an image model is loaded or with the first image: programs for text alone do without it. */
export function loadSharp(): Promise<typeof import('sharp').default> {
  loading ??= import('sharp').then(
    module => module.default,
    (cause: unknown) => {
      throw new UnsupportedError(`sharp, which decodes images, cannot be loaded: ${(cause as Error).message.split('\n')[0]}`, { cause })
    },
  )
  return loading
}
