// The bytes of what a user names: a file, a data: URL or, where that is allowed, a remote one. Of what kind of input they are, only errors say.
// Bytes of the caller are copied, a few megabytes at a time: decoders read them on other threads, where a buffer that the caller transfers
// meanwhile would be memory freed under them.

import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { setImmediate } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { ArgumentError, type ChiasmaError, type ErrorFields } from '../core/errors.js'
import { onAbort } from './abort.js'

export interface SourceLimits {
  /** Fetch http(s) URLs; default false. */
  allowRemote?: boolean
  /** Bytes that a file, a data: URL or a download may have; default 256 MiB. */
  maxBytes?: number
  /** Milliseconds a download may take in all; default 30,000. */
  timeout?: number
  signal?: AbortSignal
}

/** What the bytes are to be, for errors. */
export interface Kind {
  /** 'an image' */
  readonly noun: string
  readonly Failure: new (message: string, fields?: ErrorFields) => ChiasmaError
}

export interface NamedBytes {
  /** As errors name it. */
  readonly name: string
  readonly bytes: Buffer
}

const MAX_BYTES = 256 * 1024 * 1024
const TIMEOUT = 30_000
/** The longest that timers take: 24 days. */
const MAX_TIMEOUT = 2 ** 31 - 1
const COPY_BYTES = 4 * 1024 * 1024
/** Linux takes no longer ones. */
const LONGEST_PATH = 4096

/** A file or URL as errors name it. */
export function readNamed(name: string, kind: Kind, limits: SourceLimits): Promise<NamedBytes> {
  const scheme = /^([a-z][a-z0-9+.-]+):/i.exec(name)?.[1]?.toLowerCase()
  if (scheme === 'data') return readDataUrl(name, kind, limits)
  if (scheme === 'http' || scheme === 'https') return readRemote(name, kind, limits)
  return readFile(name, scheme === 'file', kind, limits)
}

async function readFile(name: string, isUrl: boolean, kind: Kind, limits: SourceLimits): Promise<NamedBytes> {
  const { Failure, noun } = kind
  const fail = (what: string, cause?: unknown): never => {
    throw new Failure(`${name} ${what}`, { file: name, cause })
  }
  if (!isUrl && name.length > LONGEST_PATH) {
    const start = shorten(name)
    throw new Failure(`${start} is too long for a path; base64 is given as a data: URL`, { file: start })
  }
  if (name === '' || name.includes('\0')) fail('is no path')
  let handle: Awaited<ReturnType<typeof open>> | undefined
  try {
    const path = isUrl ? fileURLToPath(name) : name
    // Opening a pipe that nobody writes to would wait for ever.
    handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
    const stat = await handle.stat()
    if (stat.isDirectory()) fail(`is a folder, not ${noun}`)
    if (!stat.isFile()) fail('is no regular file')
    checkSize(stat.size, name, kind, limits)
    const bytes = Buffer.allocUnsafeSlow(stat.size)
    let filled = 0
    while (filled < bytes.length) {
      limits.signal?.throwIfAborted()
      const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled, filled)
      if (bytesRead === 0) fail(`ended after ${filled} of ${bytes.length} bytes`)
      filled += bytesRead
    }
    return { name, bytes }
  } catch (error) {
    if (error instanceof Failure || limits.signal?.aborted) throw error
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return fail('is not there', error)
    if (code === 'EISDIR') return fail(`is a folder, not ${noun}`, error)
    return fail(`cannot be read: ${(error as Error).message}`, error)
  } finally {
    await handle?.close()
  }
}

async function readDataUrl(url: string, kind: Kind, limits: SourceLimits): Promise<NamedBytes> {
  const { Failure } = kind
  const comma = url.indexOf(',')
  const name = shorten(url)
  if (comma < 0) throw new Failure(`${name} is no data: URL`, { file: name })
  checkSize(Math.ceil(((url.length - comma - 1) * 3) / 4), name, kind, limits)
  const body = url.slice(comma + 1)
  const isBase64 = /;\s*base64\s*$/i.test(url.slice(0, comma))
  try {
    const bytes = isBase64 ? Buffer.from(body.includes('%') ? percentDecoded(body).toString('latin1') : body, 'base64') : percentDecoded(body)
    checkSize(bytes.length, name, kind, limits)
    return { name, bytes }
  } catch (cause) {
    if (cause instanceof Failure) throw cause
    throw new Failure(`${name} is no data: URL: ${(cause as Error).message}`, { file: name, cause })
  }
}

/** Any byte may be written as % and two hexadecimal digits; what is not is UTF-8. */
function percentDecoded(text: string): Buffer {
  const bytes = Buffer.from(text)
  const PERCENT = 0x25
  let from = bytes.indexOf(PERCENT)
  if (from < 0) return bytes
  const digit = (at: number): number => {
    const value = Number.parseInt(String.fromCharCode(bytes[at] ?? 0), 16)
    if (Number.isNaN(value)) throw new Error('a % without two hexadecimal digits')
    return value
  }
  let to = from
  for (; from < bytes.length; to++) {
    if (bytes[from] === PERCENT) {
      bytes[to] = digit(from + 1) * 16 + digit(from + 2)
      from += 3
    } else bytes[to] = bytes[from++]!
  }
  return bytes.subarray(0, to)
}

async function readRemote(url: string, kind: Kind, limits: SourceLimits): Promise<NamedBytes> {
  const { Failure } = kind
  const { allowRemote = false, maxBytes = MAX_BYTES, timeout = TIMEOUT, signal } = limits
  const name = shorten(url)
  if (!allowRemote) throw new Failure(`${name} is remote; pass allowRemote: true to fetch it`, { file: name, field: 'allowRemote' })
  signal?.throwIfAborted()
  const deadline = AbortSignal.timeout(Math.min(timeout, MAX_TIMEOUT))
  // A signal may live as long as a stream of millions: `any` would leave something on it for each of them.
  const stop = new AbortController()
  const forget = signal ? onAbort(signal, () => stop.abort(signal.reason)) : () => {}
  try {
    const response = await fetch(url, { signal: AbortSignal.any([stop.signal, deadline]) })
    if (!response.ok || !response.body) {
      stop.abort() // a body that nobody reads would keep its connection
      throw new Failure(`${name} answered ${response.status} ${response.statusText}`.trimEnd(), { file: name })
    }
    const pieces: Uint8Array[] = []
    let size = 0
    for await (const piece of response.body) {
      size += piece.byteLength
      if (size > maxBytes) throw new Failure(`${name} has more than ${maxBytes} bytes`, { file: name, field: 'maxBytes' })
      pieces.push(piece)
    }
    checkSize(size, name, kind, limits)
    return { name, bytes: Buffer.concat(pieces, size) }
  } catch (cause) {
    signal?.throwIfAborted()
    if (cause instanceof Failure) throw cause
    if (deadline.aborted) throw new Failure(`${name} did not arrive within ${timeout} ms`, { file: name, field: 'timeout', cause })
    const reason = (cause as Error).cause instanceof Error ? ((cause as Error).cause as Error).message : (cause as Error).message
    throw new Failure(`${name} cannot be fetched: ${reason}`, { file: name, cause })
  } finally {
    forget()
  }
}

export function checkSize(bytes: number, name: string, { Failure }: Kind, { maxBytes = MAX_BYTES }: SourceLimits): void {
  if (bytes === 0) throw new Failure(`${name} is empty`, { file: name })
  if (bytes > maxBytes) throw new Failure(`${name} has ${bytes} bytes; at most ${maxBytes} are read`, { file: name, field: 'maxBytes' })
}

/** A copy that no one else holds, made without holding up the event loop. */
export async function privateCopy(bytes: Uint8Array | Uint8ClampedArray, { noun }: Kind, signal: AbortSignal | undefined): Promise<Buffer> {
  const size = bytes.length
  const copy = Buffer.allocUnsafeSlow(size)
  for (let at = 0; at < size; at += COPY_BYTES) {
    if (at > 0) await setImmediate()
    signal?.throwIfAborted()
    if (bytes.length !== size) throw new ArgumentError(`the bytes of ${noun} were transferred or resized while they were read`, { field: 'data' })
    copy.set(bytes.subarray(at, at + COPY_BYTES), at)
  }
  return copy
}

function shorten(url: string): string {
  return url.length > 200 ? `${url.slice(0, url.startsWith('data:') ? 40 : 200)}…` : url
}

export function describe(value: unknown): string {
  if (value === null || typeof value !== 'object') return value === null ? 'null' : `a ${typeof value}`
  return `an object of class ${value.constructor?.name ?? 'none'}`
}
