// A real ViT on 297 real photos against the reference's own features and the labels.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { AutoProcessor } from '../../lib/data/processor.js'
import { readTensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { noShared, shared } from '../shared.js'
import { difference, largest } from '../support/models.js'

t.test('ViT-Tiny on photos', { skip: noShared, timeout: 240_000 }, async t => {
  const folder = shared('models', 'vit-tiny-imagenet')
  const labels = JSON.parse(readFileSync(shared('data', 'photos', 'labels.json'), 'utf8')) as Record<string, { class_index: number }>
  const reference = await readTensors(shared('data', 'photos', 'reference.safetensors'))
  const names = Object.keys(labels)
  const processor = await AutoProcessor.fromPretrained(folder)
  const { pixel_values } = await processor(names.map(name => shared('data', 'photos', name)), { output: 'uint8' })
  const pixels = pixel_values.data as Uint8Array
  for (const dtype of ['f32', 'bf16', 'int8']) {
    await using model = await AutoModel.fromPretrained(folder, { dtype, device: 'cpu' })
    const features = await model.imageEncoder!.encode(pixels, names.length)
    const logits = await model.classifier!.logits(pixels, names.length)
    const classes = model.classifier!.labels.length
    const right = names.filter((name, i) => {
      const scores = logits.subarray(i * classes, (i + 1) * classes)
      return scores.indexOf(scores.reduce((a, b) => Math.max(a, b))) === labels[name]!.class_index
    }).length
    const expected = reference['last_hidden_state_cls']!
    const { cosine, max, count } = difference(new Tensor('float32', features, expected.dims), expected)
    t.comment(`${dtype}: ${right} of ${count} right, least cosine ${cosine}, largest difference ${max} of ${largest(expected)}`)
    t.equal(count, 297)
    if (dtype === 'f32') {
      t.ok(Math.abs(right - 244) <= 1, `${right} right`)
      t.ok(cosine > 0.9999, `cosine ${cosine}`)
    } else {
      t.ok(right >= 242, `${right} right`)
      t.ok(cosine > (dtype === 'bf16' ? 0.998 : 0.99), `cosine ${cosine}`)
    }
  }
})
