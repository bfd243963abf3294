// WAV files to samples: RIFF with PCM of 8, 16, 24 or 32 bits or floats of 32 or 64, any number of channels, which are averaged to one.
// A whole number n of b bits is n / 2^(b − 1); 8 bits are unsigned, 128 being zero.

import { setImmediate } from 'node:timers/promises'
import { AudioError } from '../core/errors.js'

/** One channel of sound. */
export interface Sound {
  readonly samples: Float32Array
  /** Samples a second. */
  readonly sampleRate: number
}

const PCM = 1
const FLOAT = 3
/** The format is then in the first two bytes of a GUID. */
const EXTENSIBLE = 0xfffe
/** Programs that write to a pipe leave a size from here on. */
const UNKNOWN_SIZE = 0x7ffff000
/** Frames decoded before others get a turn. */
const FRAMES_AT_ONCE = 1 << 18

interface Format {
  readonly float: boolean
  readonly channels: number
  readonly sampleRate: number
  /** Bytes of one sample of one channel. */
  readonly size: number
}

/** Whether the first bytes are a WAV file's. */
export function isWav(bytes: Buffer): boolean {
  return bytes.length >= 12 && /^(RIFF|RF64)$/.test(bytes.toString('latin1', 0, 4)) && bytes.toString('latin1', 8, 12) === 'WAVE'
}

/**
 * Decodes a WAV file.
 * @param options.maxSeconds a longer one is refused before it is decoded
 * @throws AudioError naming the file and what of it is wrong, missing or not supported
 */
export async function decodeWav(bytes: Buffer, name: string, options: { maxSeconds: number; signal?: AbortSignal | undefined }): Promise<Sound> {
  const fail = (what: string): never => {
    throw new AudioError(`${name} ${what}`, { file: name })
  }
  if (!isWav(bytes)) fail('is no WAV file')
  let format: Format | undefined
  let longSize: number | undefined
  for (let at = 12; at + 8 <= bytes.length; ) {
    const id = bytes.toString('latin1', at, at + 4)
    let size = bytes.readUInt32LE(at + 4)
    const begin = at + 8
    if (id === 'fmt ') {
      if (size < 16 || begin + size > bytes.length) fail(`has a format of ${size} bytes; expected at least 16`)
      format = readFormat(bytes.subarray(begin, begin + size), fail)
    }
    if (id === 'ds64') {
      if (size < 28 || begin + 28 > bytes.length) fail(`has a ds64 of ${size} bytes; expected at least 28`)
      longSize = Number(bytes.readBigUInt64LE(begin + 8))
    }
    if (id === 'data') {
      if (!format) return fail('has its data before its format')
      if (size === 0xffffffff) size = longSize ?? size // RF64
      // A recorder that was stopped, or writes to a pipe, leaves no size, or one of the largest. In a file whose own size is right, none is none.
      const open = size === 0 ? bytes.readUInt32LE(4) + 8 !== bytes.length : size >= UNKNOWN_SIZE && begin + size > bytes.length
      if (!open && begin + size > bytes.length) fail(`ended after ${bytes.length - begin} of ${size} bytes of data`)
      const data = bytes.subarray(begin, open ? bytes.length : begin + size)
      const frame = format.size * format.channels
      if (!open && data.length % frame !== 0) fail(`has ${data.length} bytes of data, which is no multiple of a frame's ${frame}`)
      const frames = Math.floor(data.length / frame)
      if (frames === 0) fail('holds no sound')
      const seconds = frames / format.sampleRate
      if (seconds > options.maxSeconds) {
        throw new AudioError(`${name} has ${seconds.toFixed(1)} seconds; at most ${options.maxSeconds} are taken`, { file: name, field: 'maxSeconds' })
      }
      return { samples: await mixed(data, frames, format, options.signal), sampleRate: format.sampleRate }
    }
    at = begin + size + (size % 2)
  }
  return fail(format ? 'has no data' : 'has no format')
}

function readFormat(bytes: Buffer, fail: (what: string) => never): Format {
  let tag = bytes.readUInt16LE(0)
  const channels = bytes.readUInt16LE(2)
  const sampleRate = bytes.readUInt32LE(4)
  const align = bytes.readUInt16LE(12)
  const bits = bytes.readUInt16LE(14)
  if (tag === EXTENSIBLE) {
    if (bytes.length < 26) fail(`has an extensible format of ${bytes.length} bytes; expected 40`)
    tag = bytes.readUInt16LE(24)
  }
  if (channels === 0) fail('has 0 channels')
  if (sampleRate === 0) fail('has a rate of 0 samples a second')
  const float = tag === FLOAT
  const supported = float ? bits === 32 || bits === 64 : tag === PCM && [8, 16, 24, 32].includes(bits)
  if (!supported) fail(`is coded as format ${tag} with ${bits} bits; expected PCM (1) of 8, 16, 24 or 32 bits, or floats (3) of 32 or 64`)
  if (align !== channels * (bits / 8)) fail(`has frames of ${align} bytes; expected ${channels * (bits / 8)} for ${channels} channels of ${bits} bits`)
  return { float, channels, sampleRate, size: bits / 8 }
}

/** The mean of the channels. */
async function mixed(data: Buffer, frames: number, format: Format, signal: AbortSignal | undefined): Promise<Float32Array> {
  const { channels, size } = format
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength)
  const read = reader(view, format)
  const samples = new Float32Array(frames)
  for (let begin = 0; begin < frames; begin += FRAMES_AT_ONCE) {
    if (begin > 0) await setImmediate()
    signal?.throwIfAborted()
    const end = Math.min(frames, begin + FRAMES_AT_ONCE)
    for (let i = begin; i < end; i++) {
      let sum = 0
      for (let c = 0; c < channels; c++) sum += read((i * channels + c) * size)
      samples[i] = sum / channels
    }
  }
  return samples
}

/** A sample by the place of its first byte. */
function reader(view: DataView, { float, size }: Format): (at: number) => number {
  if (float) return size === 4 ? at => view.getFloat32(at, true) : at => view.getFloat64(at, true)
  switch (size) {
    case 1:
      return at => (view.getUint8(at) - 128) / 128
    case 2:
      return at => view.getInt16(at, true) / 32768
    case 3:
      return at => ((view.getInt8(at + 2) << 16) | view.getUint16(at, true)) / 8388608
    default:
      return at => view.getInt32(at, true) / 2147483648
  }
}
