// From what a user gives as sound to one channel of samples at the rate that a checkpoint takes: WAV files, or samples and their rate.

import { ArgumentError, AudioError } from '../core/errors.js'
import { option, type OptionRules } from '../core/options.js'
import { checkSize, describe, type Kind, privateCopy, readNamed, type SourceLimits } from './byte-source.js'
import { during, type StageClock } from './timings.js'
import { resample } from './resample.js'
import { decodeWav, type Sound } from './wav.js'

/** One channel of samples, usually within −1 and 1, and how many there are a second. */
export interface RawAudio {
  samples: Float32Array
  sampleRate: number
}

/** A path, a file:, data: or (if allowed) http(s) URL of a WAV file, its bytes, or samples. */
export type AudioInput = string | URL | Buffer | Uint8Array | RawAudio

export interface AudioOptions extends SourceLimits {
  /** Seconds that a sound may have: memory grows with it. Default 120. */
  maxSeconds?: number
}

export const audioOptionRules: OptionRules<AudioOptions> = {
  allowRemote: option.flag,
  maxBytes: option.positive,
  timeout: option.positiveInteger,
  signal: option.signal,
  maxSeconds: option.positive,
}

const MAX_SECONDS = 120
const MAX_RATE = 1_000_000
const AUDIO: Kind = { noun: 'a sound', Failure: AudioError }

/**
 * Reads, decodes and resamples a sound.
 * @returns samples at `sampleRate`, which nobody else holds
 * @throws AudioError naming the file: not there, empty, no WAV file, truncated, too long, not finite, remote without `allowRemote`
 * @throws ArgumentError if `input` is no sound
 */
export async function readAudio(input: AudioInput, sampleRate: number, options: AudioOptions = {}, clock?: StageClock): Promise<Float32Array> {
  const { name, sound } = await open(input, options, clock)
  return during(clock, 'preprocess', async () => {
    const samples = await resample(sound.samples, sound.sampleRate, sampleRate, options.signal)
    const wrong = samples.findIndex(value => !Number.isFinite(value))
    if (wrong >= 0) throw new AudioError(`${name} holds ${samples[wrong]} near second ${(wrong / sampleRate).toFixed(2)}; expected finite samples`, { file: name })
    return samples
  })
}

async function open(input: AudioInput, options: AudioOptions, clock?: StageClock): Promise<{ name: string; sound: Sound }> {
  const { maxSeconds = MAX_SECONDS, signal } = options
  const decoded = async (name: string, bytes: Buffer) => ({ name, sound: await during(clock, 'decode', () => decodeWav(bytes, name, { maxSeconds, signal })) })
  if (typeof input === 'string' || input instanceof URL) {
    const { name, bytes } = await during(clock, 'read', () => readNamed(String(input), AUDIO, options))
    return decoded(name, bytes)
  }
  if (input instanceof Uint8Array) {
    const name = `a buffer of ${input.byteLength} bytes`
    checkSize(input.byteLength, name, AUDIO, options)
    return decoded(name, await privateCopy(input, AUDIO, signal))
  }
  if (input === null || typeof input !== 'object' || !('samples' in input)) {
    throw new ArgumentError(`a sound is ${describe(input)}; expected a path, a URL, a Buffer, a Uint8Array or { samples, sampleRate }`)
  }
  const { samples, sampleRate } = input
  if (!(samples instanceof Float32Array)) throw new ArgumentError(`a sound's samples is ${describe(samples)}; expected a Float32Array`, { field: 'samples' })
  if (!Number.isSafeInteger(sampleRate) || sampleRate < 1 || sampleRate > MAX_RATE) {
    throw new ArgumentError(`a sound's sampleRate is ${String(sampleRate)}; expected an integer from 1 to ${MAX_RATE}`, { field: 'sampleRate' })
  }
  const name = `a sound of ${samples.length} samples`
  if (samples.length === 0) throw new AudioError(`${name} is empty`, { file: name })
  const seconds = samples.length / sampleRate
  if (seconds > maxSeconds) throw new AudioError(`${name} has ${seconds.toFixed(1)} seconds; at most ${maxSeconds} are taken`, { file: name, field: 'maxSeconds' })
  return { name, sound: { samples: samples.slice(), sampleRate } }
}
