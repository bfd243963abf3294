// What open_clip's and timm's folders are refused for, open_clip's texts, and its settings around a convolutional tower; other outputs are in parity.ts.

import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { cleanText } from '../../lib/data/text-cleaning.js'
import { Embedder } from '../../lib/embed/embedder.js'
import { readTensors, writeSafetensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { difference, fixture, int64, sameBits, temporary, variant } from '../support/models.js'

type Json = Record<string, any>

/** A copy of a fixture with another `file`. */
function changed(t: Test, name: string, file: string, change: (config: Json) => void): string {
  const folder = temporary(t)
  cpSync(fixture(name), folder, { recursive: true })
  const config = JSON.parse(readFileSync(join(folder, file), 'utf8')) as Json
  change(config)
  writeFileSync(join(folder, file), JSON.stringify(config))
  return folder
}

async function refused(t: Test, name: string, file: string, change: (config: Json) => void, expected: { name: string; field: string; message: RegExp }): Promise<void> {
  await t.rejects(AutoModel.fromPretrained(changed(t, name, file, change), { device: 'cpu', dtype: 'f32' }), expected)
}

t.test('open_clip_config.json', async t => {
  const cases: [string, (config: Json) => void, string, string, RegExp][] = [
    ['open-clip-vit-scaled', c => delete c['model_cfg'], 'CheckpointError', 'model_cfg', /model_cfg is missing/],
    ['open-clip-vit-scaled', c => delete c['model_cfg']['embed_dim'], 'CheckpointError', 'embed_dim', /embed_dim is missing/],
    ['open-clip-vit-scaled', c => (c['model_cfg']['text_cfg']['heads'] = 3), 'CheckpointError', 'text_cfg.heads', /text_cfg\.heads is 3, which does not divide the width 32/],
    ['open-clip-vit-scaled', c => (c['model_cfg']['vision_cfg']['pool_type'] = 'none'), 'CheckpointError', 'vision_cfg.pool_type', /pool_type is "none"; expected 'tok' or 'avg'/],
    ['coca', c => (c['model_cfg']['vision_cfg']['attentional_pool'] = 'cascade'), 'CheckpointError', 'vision_cfg.attentional_pool', /attentional_pool is "cascade"; expected true or false/],
    ['open-clip-vit-scaled', c => (c['model_cfg']['text_cfg']['hf_model_name'] = 'google/mt5-base'), 'UnsupportedError', 'text_cfg.hf_model_name', /'google\/mt5-base', which is no BERT, RoBERTa or XLM-RoBERTa/],
    ['open-clip-roberta', c => (c['model_cfg']['text_cfg']['hf_pooler_type'] = 'attention_pooler'), 'CheckpointError', 'text_cfg.hf_pooler_type', /"attention_pooler"; expected one of mean_pooler/],
    ['open-clip-roberta', c => (c['model_cfg']['text_cfg']['hf_pooler_type'] = 'cls_pooler'), 'CheckpointError', 'text_cfg.hf_pooler_type', /needs the tensor text\.transformer\.pooler\.dense\.weight/],
    ['open-clip-roberta', c => (c['model_cfg']['text_cfg']['hf_proj_type'] = null), 'CheckpointError', 'text_cfg.hf_proj_type', /the encoder's width 32 is not embed_dim 24/],
    ['open-clip-roberta', c => Object.assign(c['model_cfg'], { embed_dim: 32, text_cfg: { ...c['model_cfg']['text_cfg'], hf_proj_type: null } }), 'CheckpointError', 'text_cfg.hf_proj_type', /no projection, and there is the tensor text\.proj\.0\.weight/],
    ['open-clip-roberta', c => (c['model_cfg']['text_cfg']['tokenizer_kwargs'] = { clean: 'all' }), 'CheckpointError', 'text_cfg.tokenizer_kwargs.clean', /clean is "all"; expected one of whitespace/],
    ['open-clip-vit-scaled', c => (c['model_cfg']['text_cfg']['no_causal_mask'] = true), 'UnsupportedError', 'text_cfg.pool_type', /'argmax' without a causal mask/],
    ['open-clip-vit-scaled', c => (c['model_cfg']['vision_cfg']['timm_model_name'] = 'convnext_base'), 'UnsupportedError', 'vision_cfg.timm_model_name', /'convnext_base', which is no vision transformer/],
  ]
  for (const [name, change, kind, field, message] of cases) await refused(t, name, 'open_clip_config.json', change, { name: kind, field, message })
})

t.test('projections that are not told are of the usual kind, and none where null says so', async t => {
  const inputs = async (name: string) => (await readTensors(join(fixture(name), 'inputs.safetensors'))) as Record<'pixel_values' | 'input_ids', Tensor>
  const texts = changed(t, 'open-clip-roberta', 'open_clip_config.json', c => delete c['model_cfg']['text_cfg']['hf_proj_type'])
  await using model = await AutoModel.fromPretrained(texts, { device: 'cpu', dtype: 'f32' })
  const { text_embeds } = await model.forward(await inputs('open-clip-roberta'))
  t.ok(difference(text_embeds!, (await readTensors(join(texts, 'expected.safetensors')))['text_embeds']!).max < 1e-5, 'mlp')

  const images = changed(t, 'open-clip-trunk-siglip', 'open_clip_config.json', c => delete c['model_cfg']['vision_cfg']['timm_proj'])
  await t.rejects(AutoModel.fromPretrained(images, { device: 'cpu', dtype: 'f32' }), { name: 'CheckpointError', missing: ['visual.head.proj.weight'] })
  const file = join(images, 'open_clip_model.safetensors')
  const reversal = Float32Array.from({ length: 64 * 64 }, (_, i) => (Math.floor(i / 64) + (i % 64) === 63 ? 1 : 0))
  await writeSafetensors(file, { ...(await readTensors(file)), 'visual.head.proj.weight': new Tensor('float32', reversal, [64, 64]) })
  await using linear = await AutoModel.fromPretrained(images, { device: 'cpu', dtype: 'f32' })
  const { pixel_values } = await inputs('open-clip-trunk-siglip')
  const { image_embeds } = await linear.forward({ pixel_values })
  const { data, dims } = (await readTensors(join(images, 'expected.safetensors')))['image_embeds']!
  const expected = new Tensor('float32', Float32Array.from(data as Float32Array, (_, i) => data[i - (i % 64) + 63 - (i % 64)] as number), dims)
  t.ok(difference(image_embeds!, expected).max < 1e-5, 'linear')

  const config = join(images, 'open_clip_config.json')
  const json = JSON.parse(readFileSync(config, 'utf8')) as Json
  json['model_cfg']['vision_cfg']['timm_proj'] = null
  writeFileSync(config, JSON.stringify(json))
  const message = /no projection, and there is the tensor visual\.head\.proj\.weight/
  await t.rejects(AutoModel.fromPretrained(images, { device: 'cpu', dtype: 'f32' }), { name: 'CheckpointError', field: 'vision_cfg.timm_proj', message })
})

/** clip-rn-narrow's tensors in a folder of open_clip's. */
async function convolutional(t: Test, text: object, change: (tensors: Record<string, Tensor>) => Record<string, Tensor> = tensors => tensors): Promise<string> {
  const folder = temporary(t)
  const vision_cfg = { layers: [1, 2, 1, 1], width: 2, head_width: 16, image_size: 70, patch_size: null }
  const text_cfg = { context_length: 10, vocab_size: 50, width: 32, heads: 1, layers: 2, ...text }
  writeFileSync(join(folder, 'open_clip_config.json'), JSON.stringify({ model_cfg: { embed_dim: 24, quick_gelu: true, vision_cfg, text_cfg } }))
  await writeSafetensors(join(folder, 'open_clip_model.safetensors'), change(await readTensors(join(fixture('clip-rn-narrow'), 'model.safetensors'))))
  return folder
}

t.test('a convolutional tower beside a text tower with settings of its own', async t => {
  const { pixel_values, input_ids } = (await readTensors(join(fixture('clip-rn-narrow'), 'inputs.safetensors'))) as { pixel_values: Tensor; input_ids: Tensor }
  const run = async (folder: string) => {
    await using model = await AutoModel.fromPretrained(folder, { device: 'cpu', dtype: 'f32' })
    return await model.forward({ pixel_values, input_ids })
  }
  const plain = await run(await convolutional(t, {}))
  const expected = await readTensors(join(fixture('clip-rn-narrow'), 'expected.safetensors'))
  for (const [name, reference] of Object.entries(expected)) t.ok(difference(plain[name]!, reference).max < 1e-4, name)

  const custom = await run(
    await convolutional(t, {}, tensors => ({
      ...Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [/^(visual\.|logit_scale)/.test(name) ? name : `text.${name}`, tensor])),
      logit_bias: new Tensor('float32', Float32Array.of(-3), []),
    })),
  )
  t.ok(sameBits(custom['text_embeds']!, plain['text_embeds']!), 'with the names of CustomTextCLIP')
  t.ok(difference(custom['logits_per_image']!, new Tensor('float32', (plain['logits_per_image']!.data as Float32Array).map(x => x - 3), [2, 3])).max < 1e-5, 'logit_bias')

  const last = (await run(await convolutional(t, { pool_type: 'last' })))['text_pooler_output']!
  const states = plain['text_last_hidden_state']!.data
  t.same(last.data, Float32Array.from({ length: 3 * 32 }, (_, i) => states[(Math.floor(i / 32) * 10 + 9) * 32 + (i % 32)] as number), 'the last column')
  for (const text of [{ norm_kwargs: { eps: 0.1 } }, { no_causal_mask: true }]) {
    t.notOk(sameBits((await run(await convolutional(t, { pool_type: 'last', ...text })))['text_pooler_output']!, last), JSON.stringify(text))
  }
  await t.rejects(run(await convolutional(t, { qk_norm: true })), { name: 'UnsupportedError', field: 'text_cfg.qk_norm' })
})

t.test('texts are cleaned and cut as open_clip does, and embedded as forward does it', async t => {
  const folder = temporary(t)
  cpSync(fixture('open-clip-roberta'), folder, { recursive: true })
  const file = join(folder, 'open_clip_config.json')
  const config = JSON.parse(readFileSync(file, 'utf8')) as Json
  config['model_cfg']['text_cfg']['tokenizer_kwargs'] = { clean: 'canonicalize' }
  writeFileSync(file, JSON.stringify(config))
  writeFileSync(join(folder, 'vocab.txt'), ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'a', 'red', 'cat', '!'].join('\n'))
  await using embedder = await Embedder.fromPretrained(folder, { device: 'cpu', dtype: 'f32' })
  t.equal(embedder.maxLength, 12, 'the context length, not what the positions allow')
  const [clean, given] = [await embedder.embedTexts(['a red cat'], { normalize: false }), await embedder.embedTexts(['  A red_\u3000cat! '], { normalize: false })]
  t.strictSame(given.data, clean.data)
  const { text_embeds_unnormalized: reference } = await embedder.model.forward({ input_ids: int64([[2, 4, 5, 6, 3, 1, 1]]) }, { outputs: ['text_embeds_unnormalized'] })
  t.strictSame(clean.data, reference!.data)
})

t.test("CLIPA's texts have a 0 in their separator's place", async t => {
  const folder = await convolutional(t, { pool_type: 'last', hf_tokenizer_name: 'bert-base-uncased', tokenizer_kwargs: { strip_sep_token: true } })
  writeFileSync(join(folder, 'vocab.txt'), ['[PAD]', '[UNK]', '[CLS]', '[SEP]', 'a', 'red', 'cat'].join('\n'))
  await using embedder = await Embedder.fromPretrained(folder, { device: 'cpu', dtype: 'f32' })
  const embedded = await embedder.embedTexts(['a red cat', 'a [SEP] cat'], { normalize: false })
  const ids = [[2, 4, 5, 6, 0, 0, 0, 0, 0, 0], [2, 4, 0, 6, 0, 0, 0, 0, 0, 0]]
  const { text_embeds_unnormalized: reference } = await embedder.model.forward({ input_ids: int64(ids) }, { outputs: ['text_embeds_unnormalized'] })
  t.strictSame(embedded.data, reference!.data)
})

t.test('cleaned texts', async t => {
  t.equal(cleanText(' a\t\u00a0B\x1f, c_\ufeff', 'whitespace'), 'a B , c_\ufeff', "Python's white space")
  t.equal(cleanText('Ein  HAUS', 'lower'), 'ein haus')
  t.equal(cleanText("A_dog's, #1 —  ¿no?\n", 'canonicalize'), 'a dogs 1 — ¿no')
})

t.test("CoCa's token at the end, in a full row and in a short one, has the same bits from forward and from the encoder", async t => {
  await using model = await AutoModel.fromPretrained(fixture('coca'), { device: 'cpu', dtype: 'f32' })
  const rows = [Int32Array.from({ length: 12 }, (_, i) => 3 + i), Int32Array.of(7), Int32Array.of(7, 0, 9)]
  const encoded = await model.textEncoder!.encode(rows)
  const padded = rows.map(row => [...row, ...Array<number>(12 - row.length).fill(0)])
  const { text_embeds_unnormalized: all } = await model.forward({ input_ids: int64(padded) }, { outputs: ['text_embeds_unnormalized'] })
  t.strictSame(encoded, all!.data)
  // What a mask leaves out is padding, whatever stands there.
  const mask = int64(padded.map((_, i) => padded[i]!.map((_, j) => (j < rows[i]!.length ? 1 : 0))))
  const { text_embeds_unnormalized: masked } = await model.forward({ input_ids: int64(padded.map(row => row.map(id => (id === 0 ? 5 : id)))), attention_mask: mask }, { outputs: ['text_embeds_unnormalized'] })
  t.notSame(masked!.data, all!.data, 'the third text has a 0 that its mask does not leave out')
  t.strictSame(masked!.data.slice(0, 48), all!.data.slice(0, 48))
})

t.test("timm's config.json", async t => {
  const cases: [(config: Json) => void, string, string, RegExp][] = [
    [c => (c['global_pool'] = 'catavgmax'), 'UnsupportedError', 'global_pool', /global_pool is "catavgmax"/],
    [c => (c['model_args'] = { num_heads: 5 }), 'CheckpointError', 'model_args.num_heads', /5 heads do not divide the width 32/],
    [c => (c['architecture'] = 'vit_base_patch16_rpn_224'), 'UnsupportedError', 'architecture', /'vit_base_patch16_rpn_224' is not supported/],
    // Rotary positions have no tensor that would tell of them.
    [c => (c['architecture'] = 'vit_pe_core_base_patch16_224'), 'UnsupportedError', 'architecture', /'vit_pe_core_base_patch16_224' is not supported/],
    [c => (c['model_args'] = { num_heads: 4, pool_include_prefix: true }), 'UnsupportedError', 'model_args.pool_include_prefix', /model_args\.pool_include_prefix is true/],
    [c => (c['model_args'] = { num_heads: 4, act_layer: 'mish' }), 'UnsupportedError', 'model_args.act_layer', /model_args\.act_layer is "mish"; supported are gelu,/],
  ]
  for (const [change, kind, field, message] of cases) await refused(t, 'timm-vit-oblong', 'config.json', change, { name: kind, field, message })
})

t.test("timm's activations, and tensors of other variants", async t => {
  const { pixel_values } = (await readTensors(join(fixture('timm-vit-oblong'), 'inputs.safetensors'))) as { pixel_values: Tensor }
  const run = async (model_args: object, change: (tensors: Record<string, Tensor>) => Record<string, Tensor> = tensors => tensors) => {
    const folder = variant(t, 'timm-vit-oblong', c => (c['model_args'] = { num_heads: 4, ...model_args }))
    await writeSafetensors(join(folder, 'model.safetensors'), change(await readTensors(join(folder, 'model.safetensors'))))
    await using model = await AutoModel.fromPretrained(folder, { device: 'cpu', dtype: 'f32' })
    return (await model.forward({ pixel_values }))['logits']!
  }
  const plain = await run({})
  t.ok(sameBits(await run({ act_layer: 'gelu', dynamic_img_size: true, img_size: [24, 48] }), plain))
  // An older release has no section of its own for the preprocessing.
  const older = variant(t, 'timm-vit-oblong', c => {
    Object.assign(c, c['pretrained_cfg'])
    delete c['pretrained_cfg']
  })
  await using model = await AutoModel.fromPretrained(older, { device: 'cpu', dtype: 'f32' })
  t.ok(sameBits((await model.forward({ pixel_values }))['logits']!, plain))
  t.notOk(sameBits(await run({ act_layer: 'relu' }), plain))
  t.ok(difference(await run({ act_layer: 'gelu_tanh' }), plain).max < 0.01)
  const tensor = new Tensor('float32', new Float32Array(32), [1, 1, 32])
  await t.rejects(run({}, tensors => ({ ...tensors, 'blocks.0.attn.scale': tensor })), { name: 'UnsupportedError', message: /attn\.scale is of a variant/ })
  const gray = (tensors: Record<string, Tensor>) => ({ ...tensors, 'patch_embed.proj.weight': new Tensor('float32', new Float32Array(32 * 64), [32, 1, 8, 8]) })
  await t.rejects(run({}, gray), { name: 'UnsupportedError', message: /patch_embed\.proj\.weight reads 1 channels/ })
  const other = ({ pos_embed: _, ...rest }: Record<string, Tensor>) => rest
  await t.rejects(run({}, other), { name: 'UnsupportedError', field: 'architecture', message: /of timm's models only vision transformers/ })
})
