// Every output of every fixture against the original authors' code, with every instruction set this processor has, in f32 and bf16.
// CHIASMA_PARITY names a folder of more of the same kind (test/references/make_model_fixtures.py makes one).

import t from 'tap'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { AutoModel } from '../../lib/models/auto-model.js'
import { noShared } from '../shared.js'
import { compareWithReference, instructionSets, parityFolder } from '../support/models.js'

const names = [
  ...['clip-vit-tiny', 'clip-v5', 'clip-hf-gelu-eosid', 'vit-pooler', 'vit-nopooler', 'vit-v5'],
  ...['bert', 'bert-f16', 'bert-bf16', 'bert-sharded', 'bert-v5', 'distilbert', 'mpnet', 'xlm-roberta', 'minilm-st'],
  ...['siglip', 'siglip-v5', 'chinese-clip', 'dual-encoder', 'blip-base', 'dinov2', 'dinov2-larger-oblong', 'dinov2-registers-smaller', 'clip-vit-tiny-openai-names'],
  ...['modernbert', 'qwen3', 'dinov3'],
  // By make_rotary_fixtures.py: holes in a mask before a window, a window of causal attention, oblong pictures.
  ...['modernbert-classifier-holes', 'qwen3-sliding-right', 'dinov3-oblong', 'qwen3-linear', 'qwen3-llama3', 'qwen3-yarn-scales'],
  // By make_open_clip_fixtures.py, and DINOv2's classifier.
  ...['open-clip-vit-scaled', 'open-clip-trunk-siglip', 'open-clip-roberta', 'coca', 'timm-vit-registers', 'timm-vit-oblong', 'timm-vit-map-registers', 'dinov2-classifier'],
  // Convolutional towers.
  ...['resnet', 'clip-rn-tiny', 'align', 'wav2vec2-group', 'wav2vec2-ctc'],
  // By make_conv_fixtures.py: odd pictures, strides in other places, masks of samples.
  ...['clip-rn-narrow', 'resnet-tiny-picture', 'resnet-bottleneck-first', 'align-odd', 'wav2vec2-group-mask', 'wav2vec2-layer-holes', 'wav2vec2-weighted'],
  // By make_model_fixtures.py: a tower saved without a prefix, oblong pictures, no biases, odd widths, holes in masks.
  ...['clip-text', 'vit-oblong-odd', 'vit-no-qkv-bias', 'bert-odd-widths', 'mpnet-holes'],
  // Text and picture together; those after by make_joint_fixtures.py.
  ...['visual-bert', 'uniter', 'vilt', 'vl-bert', 'lxmert', 'blip-itm'],
  ...['visual-bert-random', 'visual-bert-vqa-holes', 'visual-bert-choice', 'visual-bert-pretraining', 'visual-bert-phrases'],
  ...['vilt-odd', 'vilt-sizes', 'vilt-vqa', 'vilt-retrieval', 'vilt-pictures', 'vilt-words'],
  ...['uniter-first-masked', 'uniter-vqa', 'uniter-pretraining', 'uniter-other-heads', 'vl-bert-scaled', 'vl-bert-frozen', 'vl-bert-vqa', 'vl-bert-vcr', 'vl-bert-refcoco', 'lxmert-odd', 'lxmert-question', 'lxmert-pretraining', 'blip-itm-odd', 'siglip2', 'siglip2-shapes', 'siglip2-odd', 'siglip2-classifier'],
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
        await compareWithReference(t, model, folder)
      })
    }
  }
}
