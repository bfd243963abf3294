// From what a user gives as an image to encoded bytes that this package alone holds, or to raw pixels. Nothing is decoded here.
// Bytes of the caller are copied, a few megabytes at a time: decoders read them on other threads, where a buffer that the caller transfers
// meanwhile would be memory freed under them.

import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { ArgumentError, ImageError } from '../core/errors.js'

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

export interface SourceLimits {
  /** Fetch http(s) URLs; default false. */
  allowRemote?: boolean
  /** Bytes that a file, a data: URL or a download may have; default 256 MiB. */
  maxBytes?: number
  /** Milliseconds a download may take in all; default 30,000. */
  timeout?: number
  signal?: AbortSignal
}

export type ImageSource = { readonly name: string } & (
  | { readonly kind: 'encoded'; readonly bytes: Buffer }
  | { readonly kind: 'raw'; readonly pixels: Uint8Array; readonly width: number; readonly height: number; readonly channels: 1 | 3 | 4 }
)

const MAX_BYTES = 256 * 1024 * 1024
const TIMEOUT = 30_000
/** The longest that timers take: 24 days. */
const MAX_TIMEOUT = 2 ** 31 - 1
const COPY_BYTES = 4 * 1024 * 1024

/**
 * Reads an image's bytes.
 * @throws ImageError naming the file or URL: not there, a folder, empty, too large, not reachable, or remote without `allowRemote`
 * @throws ArgumentError if `input` is no image input.
 */
export async function readSource(input: ImageInput, limits: SourceLimits = {}): Promise<ImageSource> {
  if (typeof input === 'string') return readNamed(input, limits)
  if (input instanceof URL) return readNamed(input.href, limits)
  if (input instanceof Uint8Array) {
    const name = `a buffer of ${input.byteLength} bytes`
    checkSize(input.byteLength, name, limits)
    return { kind: 'encoded', name, bytes: await privateCopy(input, limits.signal) }
  }
  if (isRaw(input)) return readRaw(input, limits)
  throw new ArgumentError(`an image is ${describe(input)}; expected a path, a URL, a Buffer, a Uint8Array or { data, width, height, channels }`)
}

/** A file or URL as errors name it. */
function readNamed(name: string, limits: SourceLimits): Promise<ImageSource> {
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(name)?.[1]?.toLowerCase()
  if (scheme === 'data') return readDataUrl(name, limits)
  if (scheme === 'http' || scheme === 'https') return readRemote(name, limits)
  return readFile(name, scheme === 'file', limits)
}

async function readFile(name: string, isUrl: boolean, limits: SourceLimits): Promise<ImageSource> {
  const fail = (what: string, cause?: unknown): never => {
    throw new ImageError(`${name} ${what}`, { file: name, cause })
  }
  if (name === '' || name.includes('\0')) fail('is no path')
  let handle: Awaited<ReturnType<typeof open>> | undefined
  try {
    const path = isUrl ? fileURLToPath(name) : name
    // Opening a pipe that nobody writes to would wait for ever.
    handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
    const stat = await handle.stat()
    if (stat.isDirectory()) fail('is a folder, not an image')
    if (!stat.isFile()) fail('is no regular file')
    checkSize(stat.size, name, limits)
    const bytes = Buffer.allocUnsafeSlow(stat.size)
    let filled = 0
    while (filled < bytes.length) {
      limits.signal?.throwIfAborted()
      const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled, filled)
      if (bytesRead === 0) fail(`ended after ${filled} of ${bytes.length} bytes`)
      filled += bytesRead
    }
    return { kind: 'encoded', name, bytes }
  } catch (error) {
    if (error instanceof ImageError || limits.signal?.aborted) throw error
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return fail('is not there', error)
    if (code === 'EISDIR') return fail('is a folder, not an image', error)
    return fail(`cannot be read: ${(error as Error).message}`, error)
  } finally {
    await handle?.close()
  }
}

async function readDataUrl(url: string, limits: SourceLimits): Promise<ImageSource> {
  const comma = url.indexOf(',')
  const name = shorten(url)
  if (comma < 0) throw new ImageError(`${name} is no data: URL`, { file: name })
  checkSize(Math.ceil(((url.length - comma - 1) * 3) / 4), name, limits)
  const body = url.slice(comma + 1)
  const isBase64 = /;\s*base64\s*$/i.test(url.slice(0, comma))
  try {
    const text = body.includes('%') ? decodeURIComponent(body) : body
    const bytes = Buffer.from(text, isBase64 ? 'base64' : 'utf8')
    checkSize(bytes.length, name, limits)
    return { kind: 'encoded', name, bytes }
  } catch (cause) {
    if (cause instanceof ImageError) throw cause
    throw new ImageError(`${name} is no data: URL: ${(cause as Error).message}`, { file: name, cause })
  }
}

async function readRemote(url: string, limits: SourceLimits): Promise<ImageSource> {
  const { allowRemote = false, maxBytes = MAX_BYTES, timeout = TIMEOUT, signal } = limits
  const name = shorten(url)
  if (!allowRemote) throw new ImageError(`${name} is remote; pass allowRemote: true to fetch it`, { file: name, field: 'allowRemote' })
  const deadline = AbortSignal.timeout(Math.min(timeout, MAX_TIMEOUT))
  try {
    const response = await fetch(url, { signal: signal ? AbortSignal.any([signal, deadline]) : deadline })
    if (!response.ok || !response.body) throw new ImageError(`${name} answered ${response.status} ${response.statusText}`.trimEnd(), { file: name })
    const pieces: Uint8Array[] = []
    let size = 0
    for await (const piece of response.body) {
      size += piece.byteLength
      if (size > maxBytes) throw new ImageError(`${name} has more than ${maxBytes} bytes`, { file: name, field: 'maxBytes' })
      pieces.push(piece)
    }
    checkSize(size, name, limits)
    return { kind: 'encoded', name, bytes: Buffer.concat(pieces, size) }
  } catch (cause) {
    signal?.throwIfAborted()
    if (cause instanceof ImageError) throw cause
    if (deadline.aborted) throw new ImageError(`${name} did not arrive within ${timeout} ms`, { file: name, field: 'timeout', cause })
    const reason = (cause as Error).cause instanceof Error ? ((cause as Error).cause as Error).message : (cause as Error).message
    throw new ImageError(`${name} cannot be fetched: ${reason}`, { file: name, cause })
  }
}

function checkSize(bytes: number, name: string, { maxBytes = MAX_BYTES }: SourceLimits): void {
  if (bytes === 0) throw new ImageError(`${name} is empty`, { file: name })
  if (bytes > maxBytes) throw new ImageError(`${name} has ${bytes} bytes; at most ${maxBytes} are read`, { file: name, field: 'maxBytes' })
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
  return { kind: 'raw', name, pixels: await privateCopy(data, signal), width, height, channels }
}

/** A copy that no one else holds, made without holding up the event loop. */
async function privateCopy(bytes: Uint8Array | Uint8ClampedArray, signal: AbortSignal | undefined): Promise<Buffer> {
  const size = bytes.length
  const copy = Buffer.allocUnsafeSlow(size)
  for (let at = 0; at < size; at += COPY_BYTES) {
    if (at > 0) await setImmediate()
    signal?.throwIfAborted()
    if (bytes.length !== size) throw new ArgumentError('the bytes of an image were transferred or resized while they were read', { field: 'data' })
    copy.set(bytes.subarray(at, at + COPY_BYTES), at)
  }
  return copy
}

function shorten(url: string): string {
  return url.length > 200 ? `${url.slice(0, url.startsWith('data:') ? 40 : 200)}…` : url
}

function describe(value: unknown): string {
  if (value === null || typeof value !== 'object') return value === null ? 'null' : `a ${typeof value}`
  return `an object of class ${value.constructor?.name ?? 'none'}`
}
