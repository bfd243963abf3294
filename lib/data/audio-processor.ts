// wav2vec 2.0's feature extractor: sound at the checkpoint's rate, normalised if the checkpoint says so, shorter clips padded behind.

import * as v from 'valibot'
import { ArgumentError, CheckpointError, UnsupportedError } from '../core/errors.js'
import { checkOptions, option, type OptionRules, shown } from '../core/options.js'
import { Tensor } from '../core/tensor.js'
import { type AudioInput, type AudioOptions, audioOptionRules, readAudio } from './audio.js'
import type { StageClock } from './timings.js'

export interface AudioRules {
  /** Samples a second that the model takes. */
  readonly sampleRate: number
  /** Whether samples are brought to a mean of 0 and a variance of 1. */
  readonly normalize: boolean
  readonly paddingValue: number
  /** Whether the model was trained with masks; one that was not is given none. */
  readonly masks: boolean
}

const CLASS = 'Wav2Vec2FeatureExtractor'
/** Added to the variance, as the reference does. */
const EPS = 1e-7

const flag = (otherwise: boolean) => v.nullish(v.boolean('true or false'), otherwise)
const RATE = 'an integer from 1 to 1000000'
const schema = v.object({
  feature_size: v.nullish(v.literal(1, '1'), 1),
  sampling_rate: v.nullish(v.pipe(v.number(RATE), v.integer(RATE), v.minValue(1, RATE), v.maxValue(1_000_000, RATE)), 16000),
  padding_value: v.nullish(v.pipe(v.number('a number'), v.finite('a number')), 0),
  padding_side: v.nullish(v.literal('right', "'right'"), 'right'),
  do_normalize: flag(true),
  return_attention_mask: flag(false),
})

/** Whether a preprocessor's configuration is one for sound. */
export function isAudioConfig(config: Readonly<Record<string, unknown>>): boolean {
  return config['feature_extractor_type'] === CLASS || (config['image_processor_type'] == null && config['feature_extractor_type'] == null && config['sampling_rate'] != null)
}

/** @throws CheckpointError naming `file` and the field that is absurd, UnsupportedError for another class */
export function readAudioRules(config: Readonly<Record<string, unknown>>, file: string): AudioRules {
  const type = config['feature_extractor_type'] ?? CLASS
  if (type !== CLASS) throw new UnsupportedError(`${file}: ${shown(type)} is not supported; of feature extractors there is ${CLASS}`, { file, field: 'feature_extractor_type' })
  const result = v.safeParse(schema, config)
  if (!result.success) {
    const issue = result.issues[0]!
    const field = v.getDotPath(issue) ?? undefined
    throw new CheckpointError(`${file}: ${field} is ${shown(issue.input)}; expected ${issue.message}`, { file, field })
  }
  const { sampling_rate, do_normalize, padding_value, return_attention_mask } = result.output
  return { sampleRate: sampling_rate, normalize: do_normalize, paddingValue: padding_value, masks: return_attention_mask }
}

export interface AudioFeatures extends Record<string, Tensor> {
  /** float32 [n, samples] */
  input_values: Tensor
}

/** Sounds to what a model takes; `attention_mask`, int64, is there if the checkpoint asks for it. */
export interface AudioProcessor {
  (clips: AudioInput | readonly AudioInput[], options?: AudioOptions): Promise<AudioFeatures>
  readonly sampleRate: number
  /** One clip by itself, unpadded. @internal */
  process(clip: AudioInput, options?: AudioOptions, clock?: StageClock): Promise<Float32Array>
}

const rules: OptionRules<AudioOptions> = { ...audioOptionRules, signal: option.signal }

export function makeAudioProcessor({ sampleRate, normalize, paddingValue, masks }: AudioRules): AudioProcessor {
  const process = async (clip: AudioInput, options: AudioOptions = {}, clock?: StageClock): Promise<Float32Array> => {
    const samples = await readAudio(clip, sampleRate, options, clock)
    if (normalize) normalizeSamples(samples, samples.length)
    return samples
  }
  const all = async (clips: AudioInput | readonly AudioInput[], options: AudioOptions = {}): Promise<AudioFeatures> => {
    checkOptions('processor', options, rules)
    const list = (Array.isArray(clips) ? clips : [clips]) as readonly AudioInput[]
    if (list.length === 0) throw new ArgumentError('[processor] there are no clips; expected at least one', { field: 'clips' })
    const sounds: Float32Array[] = []
    for (const clip of list) sounds.push(await readAudio(clip, sampleRate, options))
    const length = Math.max(...sounds.map(sound => sound.length))
    const values = new Float32Array(list.length * length).fill(paddingValue)
    const mask = new BigInt64Array(masks ? list.length * length : 0)
    sounds.forEach((sound, i) => {
      const row = values.subarray(i * length, (i + 1) * length)
      row.set(sound)
      // Without masks the reference takes the padding for sound.
      if (normalize) normalizeSamples(row, masks ? sound.length : length)
      if (masks) mask.fill(1n, i * length, i * length + sound.length)
    })
    const dims = [list.length, length]
    return { input_values: new Tensor('float32', values, dims), ...(masks && { attention_mask: new Tensor('int64', mask, dims) }) }
  }
  return Object.assign(all, { sampleRate, process })
}

/** Brings the first `count` samples to a mean of 0 and a variance of 1, in place. */
function normalizeSamples(samples: Float32Array, count: number): void {
  let sum = 0
  for (let i = 0; i < count; i++) sum += samples[i]!
  const mean = sum / count
  let squares = 0
  for (let i = 0; i < count; i++) squares += (samples[i]! - mean) ** 2
  const factor = 1 / Math.sqrt(squares / count + EPS)
  for (let i = 0; i < count; i++) samples[i] = (samples[i]! - mean) * factor
}
