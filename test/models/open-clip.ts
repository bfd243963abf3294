// What open_clip's and timm's folders are refused for; their outputs are in parity.ts.

import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { AutoModel } from '../../lib/models/auto-model.js'
import { fixture, temporary } from '../support/models.js'

type Json = Record<string, any>

async function refused(t: Test, name: string, file: string, change: (config: Json) => void, expected: { name: string; field: string; message: RegExp }): Promise<void> {
  const folder = temporary(t)
  cpSync(fixture(name), folder, { recursive: true })
  const config = JSON.parse(readFileSync(join(folder, file), 'utf8')) as Json
  change(config)
  writeFileSync(join(folder, file), JSON.stringify(config))
  await t.rejects(AutoModel.fromPretrained(folder, { device: 'cpu', dtype: 'f32' }), expected)
}

t.test('open_clip_config.json', async t => {
  const cases: [string, (config: Json) => void, string, string, RegExp][] = [
    ['open-clip-vit-scaled', c => delete c['model_cfg'], 'CheckpointError', 'model_cfg', /model_cfg is missing/],
    ['open-clip-vit-scaled', c => delete c['model_cfg']['embed_dim'], 'CheckpointError', 'embed_dim', /embed_dim is missing/],
    ['open-clip-vit-scaled', c => (c['model_cfg']['text_cfg']['heads'] = 3), 'CheckpointError', 'text_cfg.heads', /text_cfg\.heads is 3, which does not divide the width 32/],
    ['open-clip-vit-scaled', c => (c['model_cfg']['vision_cfg']['pool_type'] = 'none'), 'CheckpointError', 'vision_cfg.pool_type', /pool_type is "none"; expected 'tok' or 'avg'/],
    ['open-clip-vit-scaled', c => (c['model_cfg']['vision_cfg']['attentional_pool'] = true), 'UnsupportedError', 'vision_cfg.attentional_pool', /attentional_pool is true/],
    ['open-clip-vit-scaled', c => (c['model_cfg']['text_cfg']['hf_model_name'] = 'roberta-base'), 'UnsupportedError', 'text_cfg.hf_model_name', /hf_model_name is "roberta-base"/],
    ['open-clip-vit-scaled', c => (c['model_cfg']['text_cfg']['no_causal_mask'] = true), 'UnsupportedError', 'text_cfg.pool_type', /'argmax' without a causal mask/],
    ['open-clip-vit-scaled', c => (c['model_cfg']['vision_cfg']['timm_model_name'] = 'convnext_base'), 'UnsupportedError', 'vision_cfg.timm_model_name', /'convnext_base', which is no vision transformer/],
  ]
  for (const [name, change, kind, field, message] of cases) await refused(t, name, 'open_clip_config.json', change, { name: kind, field, message })
})

t.test("timm's config.json", async t => {
  const cases: [(config: Json) => void, string, string, RegExp][] = [
    [c => (c['global_pool'] = 'catavgmax'), 'UnsupportedError', 'global_pool', /global_pool is "catavgmax"/],
    [c => (c['model_args'] = { num_heads: 5 }), 'CheckpointError', 'model_args.num_heads', /5 heads do not divide the width 32/],
    [c => (c['architecture'] = 'vit_base_patch16_rpn_224'), 'UnsupportedError', 'architecture', /'vit_base_patch16_rpn_224' is not supported/],
  ]
  for (const [change, kind, field, message] of cases) await refused(t, 'timm-vit-oblong', 'config.json', change, { name: kind, field, message })
})
