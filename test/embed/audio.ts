// Embedder.embedAudio: files and samples to pooled embeddings, the same bits for a clip in any company; what is refused.

import { cpSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { type AudioProcessor } from '../../lib/data/audio-processor.js'
import { AutoProcessor } from '../../lib/data/processor.js'
import { Embedder } from '../../lib/embed/embedder.js'
import { readTensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { difference, fixture, random, temporary } from '../support/models.js'

const sounds = fileURLToPath(new URL('../fixtures/audio', import.meta.url))
const files = ['pcm8-8000', 'pcm16-16000-stereo', 'float32-48000-stereo', 'pcm8-8000'].map(name => join(sounds, `${name}.wav`))

/** A checkpoint with a feature extractor. */
function checkpoint(t: Test, name: string, config: object = {}): string {
  const folder = temporary(t)
  cpSync(fixture(name), folder, { recursive: true })
  writeFileSync(join(folder, 'preprocessor_config.json'), JSON.stringify({ feature_extractor_type: 'Wav2Vec2FeatureExtractor', sampling_rate: 16000, ...config }))
  return folder
}

for (const name of ['wav2vec2-group-mask', 'wav2vec2-layer-holes']) {
  t.test(name, async t => {
    const folder = checkpoint(t, name)
    await using embedder = await Embedder.fromPretrained(folder, { device: 'cpu', dtype: 'f32' })
    await using model = await AutoModel.fromPretrained(folder, { device: 'cpu', dtype: 'f32' })
    const processor = await AutoProcessor.fromPretrained<AudioProcessor>(folder)
    const all = await embedder.embedAudio(files, { normalize: false })
    t.same(all.dims, [4, 32])
    t.equal(embedder.dimensions, 32)
    const row = (tensor: Tensor, i: number) => tensor.data.subarray(i * 32, (i + 1) * 32) as Float32Array
    for (const [i, file] of files.entries()) {
      const { last_hidden_state: states } = await model.forward(await processor(file))
      const [, frames, width] = states!.dims as [number, number, number]
      const mean = Float32Array.from({ length: width }, (_, c) => Array.from({ length: frames }, (_, f) => states!.data[f * width + c] as number).reduce((a, b) => a + b) / frames)
      t.ok(difference(new Tensor('float32', row(all, i), [1, 32]), new Tensor('float32', mean, [1, 32])).max < 1e-5, 'the mean over the frames')
      t.same(row(await embedder.embedAudio([file], { normalize: false }), 0), row(all, i), 'the same bits alone')
    }
    t.same(row(all, 3), row(all, 0))
    const unit = await embedder.embedAudio(files, { batchSize: 1 })
    t.ok(Math.abs(row(unit, 2).reduce((sum, value) => sum + value * value, 0) - 1) < 1e-5)

    const next = random(5)
    const samples = Float32Array.from({ length: 3000 }, () => next() - 0.5)
    const timings: object[] = []
    await embedder.embedAudio([{ samples, sampleRate: 16000 }], { onTimings: timing => timings.push(timing) })
    t.equal(timings.length, 1)
    const seen: number[] = []
    for await (const { index, error } of embedder.embedStream([{ audio: files[0]! }, { audio: 'absent.wav' }, { text: 'words' }, { audio: { samples, sampleRate: 16000 } }])) {
      seen.push(index)
      if (index === 1) t.match(error, { name: 'AudioError', message: /absent\.wav is not there/ })
      else if (index === 2) t.match(error, { name: 'UnsupportedError' })
      else t.equal(error, undefined)
    }
    t.same(seen, [0, 1, 2, 3])
    await t.rejects(embedder.embedAudio([files[0]!, 'absent.wav']), { name: 'AudioError', index: 1 })
    await t.rejects(embedder.embedAudio([{ samples: new Float32Array(20), sampleRate: 16000 }]), { name: 'ArgumentError', message: /a sound has 20 samples at the checkpoint's rate of 16000 a second; expected at least 55/ })
    await t.rejects(embedder.embedImages([]), { message: /has no image encoder/ })
    await t.rejects(embedder.embedAudio('a.wav' as never), { name: 'ArgumentError', field: 'clips' })
  })
}

t.test('samples are brought to the rate that the checkpoint takes', async t => {
  await using embedder = await Embedder.fromPretrained(checkpoint(t, 'wav2vec2-group-mask', { sampling_rate: 8000, do_normalize: false }), { device: 'cpu', dtype: 'f32' })
  const loud = Float32Array.from({ length: 4000 }, (_, i) => Math.sin(i / 7))
  const at8000 = await embedder.embedAudio([{ samples: loud, sampleRate: 8000 }])
  const at16000 = await embedder.embedAudio([{ samples: loud, sampleRate: 16000 }])
  t.ok(difference(at8000, at16000).cosine < 0.99999, 'the rate counts')
})

t.test('masks and clips that do not fit', async t => {
  await using model = await AutoModel.fromPretrained(fixture('wav2vec2-group-mask'), { device: 'cpu', dtype: 'f32' })
  const values = (...dims: number[]) => new Tensor('float32', new Float32Array(dims.reduce((a, b) => a * b)).fill(0.1), dims)
  const mask = (count: number, length: number) => new Tensor('int64', BigInt64Array.from({ length }, (_, i) => (i < count ? 1n : 0n)), [1, length])
  await t.rejects(model.forward({ input_values: values(2, 20) }), { name: 'ShapeError', field: 'input_values', message: /\[2, 20\]; expected \[n, samples\], at least 55 samples/ })
  await t.rejects(model.forward({ input_values: values(500) }), { name: 'ShapeError', field: 'input_values' })
  await t.rejects(model.forward({ input_values: values(1, 500), attention_mask: mask(9, 499) }), { name: 'ShapeError', field: 'attention_mask', message: /is \[1, 499\]; expected \[1, 500\]/ })
  await t.rejects(model.forward({ input_values: values(1, 500), attention_mask: mask(9, 500) }), { name: 'ArgumentError', field: 'attention_mask', index: 0, message: /counts 9 samples; expected none or at least 55/ })
  await t.rejects(model.forward({ input_values: new Tensor('int32', new Int32Array(500), [1, 500]) }), { name: 'DTypeError', field: 'input_values' })
  await t.rejects(model.forward({ input_values: values(1, 500), attention_mask: values(1, 500) }), { name: 'DTypeError', field: 'attention_mask' })
  const broken = values(2, 500)
  broken.data[700] = NaN
  await t.rejects(model.forward({ input_values: broken }), { name: 'ArgumentError', index: 1, message: /clip 1 hold NaN at sample 200/ })
  await t.rejects(model.forward({ input_values: values(1, 500) }, { outputs: ['logits'] }), { name: 'CheckpointError', missing: ['lm_head.weight'] })
  const { last_hidden_state: states } = await model.forward({ input_values: values(1, 500), attention_mask: mask(0, 500) })
  t.ok(states!.data.every(value => value === 0), 'a clip of which nothing counts')
})

t.test('voices: clips of any length that the x-vector has frames for', async t => {
  const folder = checkpoint(t, 'wav2vec2-voices')
  const inputs = await readTensors(join(folder, 'inputs.safetensors'))
  const { embeddings } = await readTensors(join(folder, 'expected.safetensors'))
  const [count, length] = inputs['input_values']!.dims as [number, number]
  await using model = await AutoModel.fromPretrained(folder, { device: 'cpu', dtype: 'f32' })
  const clips = Array.from({ length: count }, (_, i) => inputs['input_values']!.data.subarray(i * length, (i + 1) * length) as Float32Array)
  const encoder = model.audioEncoder!
  const got = new Tensor('float32', await encoder.encode(clips), [count, encoder.dimensions])
  t.ok(difference(got, embeddings!).max < 1e-5, 'what is embedded is the x-vector')
  // 2 frames behind windows of 3 and of 2 with a gap of 2 between, which are 7 of the transformer's.
  t.equal(encoder.minSamples, 9 + 7 * (4 - 1 + 3 * (7 - 1)))
  const short = clips[0]!.subarray(0, encoder.minSamples)
  t.ok((await encoder.encode([short])).every(Number.isFinite))
  const mixed = await encoder.encode([clips[0]!, short, clips[1]!])
  t.same(mixed.subarray(0, 6), await encoder.encode([clips[0]!]), 'the same bits beside another length')
  const tooShort = { input_values: new Tensor('float32', clips[0]!.slice(1, encoder.minSamples), [1, encoder.minSamples - 1]) }
  await t.rejects(model.forward(tooShort), { name: 'ShapeError', field: 'input_values', message: new RegExp(`at least ${encoder.minSamples} samples`) })
})

t.test('masks where frames are read side by side', async t => {
  for (const [name, part] of [['wav2vec2-voices', /the x-vector reads frames side by side/], ['wav2vec2-reduced', /the adapter behind the transformer \(add_adapter\) reads/]] as const) {
    await using model = await AutoModel.fromPretrained(fixture(name), { device: 'cpu', dtype: 'f32' })
    const inputs = await readTensors(join(fixture(name), 'inputs.safetensors'))
    const [count, length] = inputs['input_values']!.dims as [number, number]
    const counted = new BigInt64Array(count * length).fill(1n)
    const mask = new Tensor('int64', counted, [count, length])
    const [all, masked] = [await model.forward(inputs), await model.forward({ ...inputs, attention_mask: mask })]
    for (const output of Object.keys(all)) t.same(masked[output]!.data, all[output]!.data, output)
    counted.fill(0n, length + 300)
    await t.rejects(model.forward({ ...inputs, attention_mask: mask }), { name: 'ArgumentError', field: 'attention_mask', index: 1, message: part })
  }
})
