// Sound: WAV files of every format to the samples they hold, other rates, the feature extractor against the reference's, and what is refused.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { AudioError } from '../../lib/core/errors.js'
import type { Tensor } from '../../lib/core/tensor.js'
import { readAudio } from '../../lib/data/audio.js'
import { type AudioProcessor, makeAudioProcessor } from '../../lib/data/audio-processor.js'
import { AutoProcessor } from '../../lib/data/processor.js'
import { resample } from '../../lib/data/resample.js'
import { decodeWav } from '../../lib/data/wav.js'
import { readTensors } from '../../lib/io/safetensors.js'
import { longestWait } from '../support/event-loop.js'
import { temporary } from '../support/models.js'

const folder = fileURLToPath(new URL('../fixtures/audio', import.meta.url))
const expected = await readTensors(join(folder, 'expected.safetensors'))
const names = Object.keys(expected).filter(name => name.endsWith('.samples')).map(name => name.slice(0, -'.samples'.length))
const file = (name: string) => join(folder, `${name}.wav`)
const noLimit = { maxSeconds: 1000 }
const samplesOf = (tensor: Tensor | undefined) => tensor!.data as Float32Array
const off = (got: Float32Array, want: Float32Array) => (got.length === want.length ? got.reduce((most, value, i) => Math.max(most, Math.abs(value - want[i]!)), 0) : Infinity)

t.test('every format gives the samples that it holds, channels averaged', async t => {
  t.equal(names.length, 6)
  for (const name of names) {
    const { samples, sampleRate } = await decodeWav(readFileSync(file(name)), name, noLimit)
    t.equal(sampleRate, Number(name.split('-')[1]), name)
    t.ok(off(samples, samplesOf(expected[`${name}.samples`])) <= 6e-8, name)
  }
})

t.test('other rates, from paths, bytes, URLs and samples', async t => {
  for (const name of names) {
    const want = samplesOf(expected[`${name}.at_16000`])
    const bytes = readFileSync(file(name))
    for (const input of [file(name), bytes, new URL(`file://${file(name)}`), `data:audio/wav;base64,${bytes.toString('base64')}`]) {
      t.ok(off(await readAudio(input, 16000), want) < 2e-6, name)
    }
    const raw = { samples: samplesOf(expected[`${name}.samples`]), sampleRate: Number(name.split('-')[1]) }
    const before = raw.samples.slice()
    t.ok(off(await readAudio(raw, 16000), want) < 2e-6, name)
    t.same(raw.samples, before, 'the caller\'s samples stay')
  }
})

t.test('a tone keeps its pitch and strength; one that the lower rate cannot hold is gone', async t => {
  const tone = (hertz: number, rate: number, length: number) => Float32Array.from({ length }, (_, i) => Math.sin((2 * Math.PI * hertz * i) / rate))
  const inner = (samples: Float32Array) => samples.subarray(100, -100)
  for (const [from, to] of [[44100, 16000], [8000, 16000], [16000, 11025]] as const) {
    const got = await resample(tone(1000, from, from / 5), from, to)
    t.equal(got.length, Math.ceil(to / 5))
    t.ok(off(inner(got), inner(tone(1000, to, got.length))) < 2e-3, `${from} to ${to}`)
  }
  const gone = inner(await resample(tone(11000, 44100, 44100), 44100, 16000))
  t.ok(gone.every(value => Math.abs(value) < 1e-2))
})

t.test('the event loop turns, also where nearly every sample has weights of its own', async t => {
  const samples = new Float32Array(11127 * 20).fill(0.5)
  const wait = await longestWait(() => resample(samples, 11127, 16000))
  t.ok(wait < 1 / 2, `it waited for ${(100 * wait).toFixed(0)}% of the time`)
  const reason = new Error('enough')
  const stop = new AbortController()
  setImmediate(() => stop.abort(reason))
  await t.rejects(resample(samples, 11127, 16000, stop.signal), reason)
})

t.test('the feature extractor makes what the reference makes', async t => {
  const clips = [file('pcm8-8000'), file('pcm16-16000-stereo')]
  for (const masks of [false, true]) {
    for (const normalize of [false, true]) {
      const key = `extractor.${masks ? 'masks' : 'plain'}.${normalize ? 'normalized' : 'raw'}`
      const { input_values, attention_mask } = await makeAudioProcessor({ sampleRate: 16000, normalize, paddingValue: 0, masks })(clips)
      t.same(input_values.dims, expected[key]!.dims)
      t.ok(off(samplesOf(input_values), samplesOf(expected[key])) < 1e-5, key)
      t.same(attention_mask?.data, masks ? expected[`${key}.attention_mask`]!.data : undefined)
    }
  }
})

t.test('AutoProcessor reads preprocessor_config.json', async t => {
  const at = temporary(t)
  const write = (config: object) => writeFileSync(join(at, 'preprocessor_config.json'), JSON.stringify(config))
  write({ do_normalize: false, feature_size: 1, padding_side: 'right', padding_value: 0.0, return_attention_mask: true, sampling_rate: 8000 })
  const processor = await AutoProcessor.fromPretrained<AudioProcessor>(at)
  t.equal(processor.sampleRate, 8000)
  const { input_values, attention_mask } = await processor(file('pcm8-8000'))
  t.same(input_values.data, expected['pcm8-8000.samples']!.data)
  t.same(attention_mask!.dims, [1, 500])
  await t.rejects(processor([]), { code: 'ERR_ARGUMENT', field: 'clips' })
  await t.rejects(processor(file('pcm8-8000'), { maxSecond: 3 } as object), { message: /did you mean 'maxSeconds'/ })
  write({ feature_extractor_type: 'Wav2Vec2FeatureExtractor', sampling_rate: -3 })
  await t.rejects(AutoProcessor.fromPretrained(at), { code: 'ERR_CHECKPOINT', field: 'sampling_rate', message: /sampling_rate is -3; expected an integer from 1/ })
  write({ feature_extractor_type: 'Wav2Vec2FeatureExtractor', feature_size: 80 })
  await t.rejects(AutoProcessor.fromPretrained(at), { code: 'ERR_CHECKPOINT', field: 'feature_size' })
})

t.test('sizes that recorders, pipes and RF64 leave', async t => {
  const whole = readFileSync(file('pcm16-16000-stereo'))
  const want = (await decodeWav(whole, 'whole', noLimit)).samples
  const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer)
  const list = Buffer.concat([Buffer.from('LIST'), u32(200), Buffer.alloc(200, 0x7f)])
  const wav = ({ form = 'RIFF', formSize, before = Buffer.alloc(0), dataSize = 1600, data = whole.subarray(44), after = Buffer.alloc(0) }: { form?: string; formSize?: number; before?: Buffer; dataSize?: number; data?: Buffer; after?: Buffer }) => {
    const body = Buffer.concat([Buffer.from('WAVE'), before, whole.subarray(12, 36), Buffer.from('data'), u32(dataSize), data, after])
    return Buffer.concat([Buffer.from(form), u32(formSize ?? body.length), body])
  }
  const ds64 = (dataSize: bigint) => Buffer.concat([Buffer.from('ds64'), u32(28), Buffer.from(BigUint64Array.of(5000n, dataSize, 400n).buffer), u32(0)])
  const rf64 = { form: 'RF64', formSize: 0xffffffff, dataSize: 0xffffffff }
  for (const [what, bytes] of Object.entries({
    'a chunk behind': wav({ after: list }),
    'a stopped recorder': wav({ formSize: 36, dataSize: 0 }),
    'a stopped recorder, no size at all': wav({ formSize: 0, dataSize: 0 }),
    'ffmpeg to a pipe': wav({ formSize: 0xffffffff, dataSize: 0xffffffff }),
    'SoX to a pipe': wav({ formSize: 0x7ffff024, dataSize: 0x7ffff000 }),
    'espeak to a pipe': wav({ formSize: 0x7ffff024, dataSize: 0x7ffff000 + 36 }),
    'arecord to a pipe': wav({ formSize: 0x80000024, dataSize: 0x80000000 }),
    'arecord to a pipe, signed': wav({ formSize: 0x7fffffff, dataSize: 0x7fffffff }),
    'RF64': wav({ ...rf64, before: ds64(1600n) }),
    'RF64 with a chunk behind': wav({ ...rf64, before: ds64(1600n), after: list }),
    'RF64 with a size of 32 bits': wav({ ...rf64, before: ds64(0n), dataSize: 1600, after: list }),
    'RF64 to a pipe': wav({ ...rf64, before: ds64(0n) }),
  })) {
    t.same((await decodeWav(bytes, what, noLimit)).samples, want, what)
  }
  await t.rejects(decodeWav(wav({ dataSize: 0, data: Buffer.alloc(0), after: list }), 'empty', noLimit), { message: /holds no sound/ })
  await t.rejects(decodeWav(wav({ ...rf64, before: ds64(1700n) }), 'short', noLimit), { message: /ended after 1600 of 1700 bytes/ })
  await t.rejects(decodeWav(wav({ ...rf64, before: ds64(1600n).fill(8, 4, 5).subarray(0, 16) }), 'x', noLimit), { name: 'AudioError', message: /ds64 of 8 bytes; expected at least 28/ })
})

t.test('what is no sound is refused, and the file named', async t => {
  const whole = readFileSync(file('pcm16-16000-stereo'))
  const changed = (change: (bytes: Buffer) => Buffer | void) => {
    const bytes = Buffer.from(whole)
    return change(bytes) ?? bytes
  }
  const cases: [string, Buffer, RegExp][] = [
    ['empty', Buffer.alloc(0), /is empty/],
    ['no WAV', Buffer.from('ID3 an mp3 file'), /is no WAV file/],
    ['truncated', changed(bytes => bytes.subarray(0, 800)), /ended after \d+ of 1600 bytes of data/],
    ['header only', changed(bytes => bytes.subarray(0, 36)), /has no data/],
    ['no header', changed(bytes => bytes.subarray(0, 12)), /has no format/],
    ['no channels', changed(bytes => void bytes.writeUInt16LE(0, 22)), /has 0 channels/],
    ['no rate', changed(bytes => void bytes.writeUInt32LE(0, 24)), /a rate of 0/],
    ['compressed', changed(bytes => void bytes.writeUInt16LE(85, 20)), /format 85 with 16 bits; expected PCM/],
    ['12 bits', changed(bytes => void bytes.writeUInt16LE(12, 34)), /format 1 with 12 bits/],
    ['frames of other sizes', changed(bytes => void bytes.writeUInt16LE(3, 32)), /frames of 3 bytes; expected 4/],
    ['no samples', changed(bytes => (bytes.writeUInt32LE(0, 40), bytes.subarray(0, 44))), /holds no sound/],
  ]
  for (const [what, bytes, message] of cases) {
    const error = await readAudio(bytes, 16000).then(() => undefined, error => error)
    t.ok(error instanceof AudioError, `${what}: ${error}`)
    t.match(error.message, message, what)
    t.equal(error.code, 'ERR_AUDIO')
  }
  await t.rejects(readAudio(join(folder, 'absent.wav'), 16000), { name: 'AudioError', file: join(folder, 'absent.wav'), message: /is not there/ })
  await t.rejects(readAudio(folder, 16000), { name: 'AudioError', message: /is a folder, not a sound/ })
  await t.rejects(readAudio('https://example.org/a.wav', 16000), { name: 'AudioError', field: 'allowRemote' })
  await t.rejects(readAudio(whole, 16000, { maxSeconds: 0.01 }), { name: 'AudioError', field: 'maxSeconds', message: /has 0\.0 seconds; at most 0\.01/ })
  await t.rejects(readAudio({ samples: new Float32Array(9), sampleRate: 0 }, 16000), { name: 'ArgumentError', field: 'sampleRate' })
  await t.rejects(readAudio({ samples: [1, 2] as never, sampleRate: 16000 }, 16000), { name: 'ArgumentError', field: 'samples' })
  await t.rejects(readAudio({ samples: Float32Array.of(0, NaN), sampleRate: 16000 }, 16000), { name: 'AudioError', message: /holds NaN near second 0\.00/ })
  await t.rejects(readAudio({ samples: new Float32Array(0), sampleRate: 16000 }, 16000), { name: 'AudioError', message: /is empty/ })
  await t.rejects(readAudio(7 as never, 16000), { name: 'ArgumentError', message: /a sound is a number; expected a path/ })
  await t.rejects(readAudio({ samples: new Float32Array(2_000_000), sampleRate: 16000 }, 16000), { name: 'AudioError', field: 'maxSeconds' })
})
