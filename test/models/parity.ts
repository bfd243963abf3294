// Every output of every model in test/fixtures/parity, and in the shared data, against the original authors' code, with every instruction set this
// processor has, in f32 and bf16.
// CHIASMA_PARITY names a folder of more of the same kind (test/references/make_model_fixtures.py makes one).

import t from 'tap'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { AutoModel } from '../../lib/models/auto-model.js'
import { noShared } from '../shared.js'
import { compareWithReference, instructionSets, parityFolders } from '../support/models.js'

const folders = parityFolders()
const more = process.env['CHIASMA_PARITY']
if (more) for (const name of readdirSync(more).sort()) folders.set(name, join(more, name))

for (const isa of await instructionSets()) {
  for (const dtype of ['f32', 'bf16']) {
    for (const [name, folder] of folders) {
      await t.test(`${name} ${dtype} ${isa}`, async t => {
        await using model = await AutoModel.fromPretrained(folder, { dtype, isa, device: 'cpu' })
        t.equal(model.dtype, dtype)
        await compareWithReference(t, model, folder)
      })
    }
  }
}

if (noShared) t.test('the shared data', { skip: noShared }, async () => {})
