// From what a user gives as an image to encoded bytes that this package alone holds, or to raw pixels. Nothing is decoded here.

import { ArgumentError, ImageError } from '../core/errors.js'
import { checkSize, describe, type Kind, privateCopy, readNamed, type SourceLimits } from './byte-source.js'

export type { SourceLimits } from './byte-source.js'

const IMAGE: Kind = { noun: 'an image', Failure: ImageError }

/** Pixels already decoded: uint8, interleaved, rows from the top without padding. */
export interface RawImage {
  data: Uint8Array | Uint8ClampedArray
  width: number
  height: number
  /** 1 grey, 3 RGB, 4 RGBA; alpha is dropped. */
  channels: 1 | 3 | 4
}

/** A path, a file:, data: or (if allowed) http(s) URL, the bytes of an image file, or raw pixels. */
export type ImageInput = string | URL | Buffer | Uint8Array | RawImage

export type ImageSource = { readonly name: string } & (
  | { readonly kind: 'encoded'; readonly bytes: Buffer }
  | { readonly kind: 'raw'; readonly pixels: Uint8Array; readonly width: number; readonly height: number; readonly channels: 1 | 3 | 4 }
)

/**
 * Reads an image's bytes.
 * @throws ImageError naming the file or URL: not there, a folder, empty, too large, not reachable, or remote without `allowRemote`
 * @throws ArgumentError if `input` is no image input.
 */
export async function readSource(input: ImageInput, limits: SourceLimits = {}): Promise<ImageSource> {
  if (typeof input === 'string') return { kind: 'encoded', ...(await readNamed(input, IMAGE, limits)) }
  if (input instanceof URL) return { kind: 'encoded', ...(await readNamed(input.href, IMAGE, limits)) }
  if (input instanceof Uint8Array) {
    const name = `a buffer of ${input.byteLength} bytes`
    checkSize(input.byteLength, name, IMAGE, limits)
    return { kind: 'encoded', name, bytes: await privateCopy(input, IMAGE, limits.signal) }
  }
  if (isRaw(input)) return readRaw(input, limits)
  throw new ArgumentError(`an image is ${describe(input)}; expected a path, a URL, a Buffer, a Uint8Array or { data, width, height, channels }`)
}

function isRaw(input: unknown): input is RawImage {
  return input !== null && typeof input === 'object' && 'data' in input && 'width' in input && 'height' in input
}

async function readRaw({ data, width, height, channels }: RawImage, { signal }: SourceLimits): Promise<ImageSource> {
  if (!(data instanceof Uint8Array || data instanceof Uint8ClampedArray)) {
    throw new ArgumentError(`an image's data is ${describe(data)}; expected a Uint8Array`, { field: 'data' })
  }
  for (const [field, value] of Object.entries({ width, height })) {
    if (!Number.isSafeInteger(value) || value < 1) throw new ArgumentError(`an image's ${field} is ${value}; expected a positive integer`, { field })
  }
  if (channels !== 1 && channels !== 3 && channels !== 4) {
    throw new ArgumentError(`an image's channels is ${channels}; expected 1, 3 or 4`, { field: 'channels' })
  }
  const name = `an image of ${width} x ${height} pixels`
  if (data.length !== width * height * channels) {
    throw new ArgumentError(`${name} and ${channels} channels has ${data.length} bytes; expected ${width * height * channels}`, { field: 'data' })
  }
  return { kind: 'raw', name, pixels: await privateCopy(data, IMAGE, signal), width, height, channels }
}
