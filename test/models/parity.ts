// Every output of every fixture against the original authors' code, with every instruction set this processor has, in f32 and bf16.
// CHIASMA_PARITY names a folder of more of the same kind (test/references/make_model_fixtures.py makes one).

import t from 'tap'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { readTensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { noShared } from '../shared.js'
import { difference, instructionSets, largest, parityFolder } from '../support/models.js'

const names = [
  ...['clip-vit-tiny', 'clip-v5', 'clip-hf-gelu-eosid', 'vit-pooler', 'vit-nopooler', 'vit-v5'],
  ...['bert', 'bert-f16', 'bert-bf16', 'bert-sharded', 'bert-v5', 'distilbert', 'mpnet', 'xlm-roberta', 'minilm-st'],
  // By make_model_fixtures.py: towers saved without a prefix, oblong pictures, no biases, odd widths.
  ...['clip-text', 'clip-vision', 'vit-oblong-odd', 'vit-no-qkv-bias', 'bert-odd-widths'],
]
const folders = new Map(names.map(name => [name, parityFolder(name) ?? '']))
const more = process.env['CHIASMA_PARITY']
if (more) for (const name of readdirSync(more).sort()) folders.set(name, join(more, name))

for (const isa of await instructionSets()) {
  for (const dtype of ['f32', 'bf16']) {
    for (const [name, folder] of folders) {
      await t.test(`${name} ${dtype} ${isa}`, { skip: folder === '' && noShared }, async t => {
        await using model = await AutoModel.fromPretrained(folder, { dtype, isa, device: 'cpu' })
        t.equal(model.dtype, dtype)
        const inputs = await readTensors(join(folder, 'inputs.safetensors'))
        const expected = await readTensors(join(folder, 'expected.safetensors'))
        const outputs = await model.forward(inputs, { outputs: Object.keys(expected) })
        t.strictSame(Object.keys(outputs).sort(), Object.keys(expected).sort(), 'what was asked for and nothing else')
        const mask = inputs['attention_mask']
        for (const [name, reference] of Object.entries(expected)) {
          const got = outputs[name]!
          t.strictSame(got.dims, reference.dims, `dimensions of ${name}`)
          const masked = mask && reference.dims.length === 3 && !name.startsWith('vision_')
          const { max, cosine } = difference(got, reference, row => !masked || mask.data[row] === 1n)
          if (dtype === 'f32') t.ok(max <= 2e-5 * Math.max(1, largest(reference)), `${name}: off by ${max}`)
          // The fewer numbers in a row of logits, the more one of them turns its direction.
          else t.ok(cosine >= (name.startsWith('logits') ? 0.99 : 0.998), `${name}: cosine ${cosine}`)
          if (masked) {
            const width = reference.dims[2]!
            t.ok((got.data as Float32Array).every((value, i) => value === 0 || mask.data[Math.floor(i / width)] === 1n), `${name} is 0 where masked`)
          }
        }
      })
    }
  }
}
