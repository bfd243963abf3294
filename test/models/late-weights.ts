// Towers that have no parameter in common are read when they first run, each for itself.

import { utimesSync } from 'node:fs'
import { cp } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { CheckpointError, DisposedError } from '../../lib/core/errors.js'
import { memoryUsage } from '../../lib/core/device.js'
import type { Tensor } from '../../lib/core/tensor.js'
import { readTensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { fixture, sameBits, temporary } from '../support/models.js'

const weights = () => memoryUsage()['cpu']?.weights ?? 0
const options = { dtype: 'f32', device: 'cpu' } as const

t.test('a tower is in memory once it ran', async t => {
  await using model = await AutoModel.fromPretrained(fixture('clip-vit-tiny'), options)
  const { pixel_values, input_ids } = (await readTensors(join(fixture('clip-vit-tiny'), 'inputs.safetensors'))) as { pixel_values: Tensor; input_ids: Tensor }
  t.equal(weights(), 0)
  const [first, second] = await Promise.all([model.forward({ pixel_values }), model.forward({ pixel_values })])
  const images = weights()
  t.ok(images > 0)
  t.ok(sameBits(first['image_embeds']!, second['image_embeds']!))
  await model.textEncoder!.load()
  const both = weights()
  t.ok(both > images)
  await model.forward({ pixel_values, input_ids }, { outputs: ['logits_per_image'] })
  t.equal(weights(), both, 'nothing is read twice')
})

t.test('one tower alone, or towers that share a parameter, are read at once', async t => {
  await using vit = await AutoModel.fromPretrained(fixture('vit-pooler'), options)
  t.ok(weights() > 0)
  t.ok(vit.imageEncoder)
})

t.test('what goes wrong while a tower is read', async t => {
  const folder = join(temporary(t), 'clip')
  await cp(fixture('clip-vit-tiny'), folder, { recursive: true })
  const { pixel_values } = (await readTensors(join(folder, 'inputs.safetensors'))) as { pixel_values: Tensor }
  const model = await AutoModel.fromPretrained(folder, options)
  const stopped = new AbortController()
  const aborted = model.forward({ pixel_values }, { signal: stopped.signal })
  stopped.abort(new Error('enough'))
  await t.rejects(aborted, { message: 'enough' })
  await model.forward({ pixel_values }) // others are not stopped by it
  utimesSync(join(folder, 'model.safetensors'), 1, 1)
  await t.rejects(model.textEncoder!.encode([Int32Array.of(0, 1)]), { constructor: CheckpointError, message: /model\.safetensors was changed since the model was loaded/ })
  await t.rejects(model.textEncoder!.load(), CheckpointError, 'and again')
  await model.forward({ pixel_values }) // what is there is used
  await model.dispose()
  await t.rejects(model.textEncoder!.load(), DisposedError)
  const other = await AutoModel.fromPretrained(folder, options)
  const late = t.rejects(other.forward({ pixel_values }), DisposedError)
  await other.dispose()
  await late
  t.equal(weights(), 0)
})
