// Models that look at text and picture together: the same bits whatever an example is beside, what masks leave out, and inputs that do
// not belong together. Their numbers are compared in parity.ts.

import { join } from 'node:path'
import t from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { readTensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { difference, fixture, random, sameBits, variant } from '../support/models.js'

type Inputs = Record<string, Tensor>

const load = (folder: string, dtype = 'f32') => AutoModel.fromPretrained(folder, { dtype, device: 'cpu' })
const inputsOf = (name: string): Promise<Inputs> => readTensors(join(fixture(name), 'inputs.safetensors'))

/** Examples `rows` of every input that has one for each. */
function pickExamples(inputs: Inputs, rows: readonly number[]): Inputs {
  return Object.fromEntries(
    Object.entries(inputs).map(([name, { type, data, dims }]) => {
      if (dims[0] === 1) return [name, new Tensor(type, data, dims)]
      const size = data.length / dims[0]!
      const picked = new (data.constructor as new (length: number) => Float32Array)(rows.length * size)
      rows.forEach((row, i) => picked.set(data.subarray(row * size, (row + 1) * size) as Float32Array, i * size))
      return [name, new Tensor(type, picked, [rows.length, ...dims.slice(1)])]
    }),
  )
}

const PACKED = ['visual-bert-random', 'vilt-sizes', 'uniter-first-masked', 'vl-bert-scaled', 'vl-bert-vqa', 'vl-bert-vcr', 'vl-bert-refcoco', 'lxmert-odd', 'blip-itm-odd', 'siglip2-odd']

for (const name of PACKED) {
  for (const dtype of ['f32', 'bf16', 'int8']) {
    await t.test(`${name} ${dtype}: the same bits whatever an example is beside`, async t => {
      await using model = await load(fixture(name), dtype)
      const inputs = await inputsOf(name)
      // One first token that is masked, and read all the same, beside others that count.
      const mask = inputs['attention_mask']
      if (mask) for (let i = 0; i < mask.dims[0]!; i++) (mask.data as BigInt64Array)[i * mask.dims[1]!] = i === 0 ? 0n : 1n
      const examples = Math.max(...Object.values(inputs).map(({ dims }) => dims[0]!))
      const next = random(3)
      const many = Array.from({ length: 700 }, () => Math.floor(next() * examples))
      const alone = await Promise.all(Array.from({ length: examples }, (_, i) => model.forward(pickExamples(inputs, [i]))))
      const all = await model.forward(pickExamples(inputs, many))
      const together = await model.forward(inputs)
      for (const [output, tensor] of Object.entries(all)) {
        if (tensor.dims[0] !== many.length) continue // a row for each choice
        if (tensor.type !== 'float32' || /^itc_similarity$|^logits_per_|^probs_sigmoid$/.test(output)) continue // of all pairs
        // Alone an example may have fewer columns: none for the patches of others.
        const same = (of: Tensor, i: number, { data }: Tensor) => {
          const begin = (i * of.size) / of.dims[0]!
          return sameBits(new Tensor('float32', (of.data as Float32Array).slice(begin, begin + data.length), [data.length]), new Tensor('float32', data, [data.length]))
        }
        t.equal(many.filter((example, i) => !same(tensor, i, alone[example]![output]!)).length, 0, `${output} among many`)
        t.equal(alone.filter((one, i) => !same(together[output]!, i, one[output]!)).length, 0, `${output} among a few`)
      }
    })
  }
}

t.test('what is masked has no influence, and comes back as zeros', async t => {
  await using model = await load(fixture('visual-bert-random'))
  const inputs = await inputsOf('visual-bert-random')
  const { visual_embeds: features, visual_attention_mask: mask } = inputs as { visual_embeds: Tensor; visual_attention_mask: Tensor }
  const width = features.dims[2]!
  const other = Float32Array.from(features.data as Float32Array, (value, i) => (mask.data[Math.floor(i / width)] === 0n ? 1e30 : value))
  const before = await model.forward(inputs)
  const after = await model.forward({ ...inputs, visual_embeds: new Tensor('float32', other, features.dims) })
  for (const [name, tensor] of Object.entries(before)) t.ok(sameBits(tensor, after[name]!), name)
  const nothing = (name: string) => new Tensor('int64', new BigInt64Array(inputs[name]!.size), inputs[name]!.dims)
  const empty = await model.forward({ ...inputs, attention_mask: nothing('attention_mask'), visual_attention_mask: nothing('visual_attention_mask') })
  for (const [name, { data }] of Object.entries(empty)) t.ok((data as Float32Array).every(value => value === 0), `${name} of nothing`)
})

t.test('texts without pictures', async t => {
  await using model = await load(fixture('visual-bert-random'))
  const { input_ids, attention_mask, token_type_ids } = (await inputsOf('visual-bert-random')) as Record<string, Tensor>
  const { last_hidden_state, pooler_output } = await model.forward({ input_ids: input_ids!, attention_mask, token_type_ids } as Inputs)
  t.strictSame(last_hidden_state!.dims, [...input_ids!.dims, 32])
  t.strictSame(pooler_output!.dims, [input_ids!.dims[0], 32])
})

t.test('inputs of VisualBERT that do not belong together', async t => {
  await using model = await load(fixture('visual-bert-random'))
  const inputs = await inputsOf('visual-bert-random')
  const ones = (type: 'int64' | 'float32', dims: number[]) => {
    const size = dims.reduce((a, b) => a * b)
    return new Tensor(type, type === 'int64' ? new BigInt64Array(size).fill(1n) : new Float32Array(size).fill(1), dims)
  }
  const refused: [Inputs, { code: string; field: string; index?: number; message?: RegExp }][] = [
    [{ visual_attention_mask: ones('int64', [6, 4]) }, { code: 'ERR_SHAPE', field: 'visual_attention_mask', message: /visual_attention_mask is \[6, 4\]; expected \[6, 5\]/ }],
    [{ visual_embeds: ones('float32', [6, 5, 11]) }, { code: 'ERR_SHAPE', field: 'visual_embeds', message: /expected \[6, regions, 12\]/ }],
    [{ visual_embeds: ones('float32', [5, 5, 12]) }, { code: 'ERR_SHAPE', field: 'visual_embeds' }],
    [{ visual_embeds: ones('int64', [6, 5, 12]) }, { code: 'ERR_DTYPE', field: 'visual_embeds' }],
    [{ visual_token_type_ids: ones('int64', [6, 6]) }, { code: 'ERR_SHAPE', field: 'visual_token_type_ids' }],
    [{ attention_mask: ones('int64', [6, 8]) }, { code: 'ERR_SHAPE', field: 'attention_mask' }],
    [{ image_text_alignment: ones('int64', [6, 4, 3]) }, { code: 'ERR_SHAPE', field: 'image_text_alignment' }],
    [{ visual_attention_mask: new Tensor('float32', new Float32Array(30).fill(0.5), [6, 5]) }, { code: 'ERR_ARGUMENT', field: 'visual_attention_mask', index: 0, message: /is 0.5 at element 0; expected 0 to 1/ }],
    [{ visual_embeds: new Tensor('float32', new Float32Array(360).fill(NaN, 70, 71), [6, 5, 12]) }, { code: 'ERR_ARGUMENT', field: 'visual_embeds', index: 1, message: /of example 1 holds NaN at element 10/ }],
    [{ input_ids: new Tensor('int64', new BigInt64Array(54).fill(60n), [6, 9]) }, { code: 'ERR_ARGUMENT', field: 'input_ids', index: 0 }],
    [{ pixel_values: ones('float32', [6, 3, 8, 8]) }, { code: 'ERR_ARGUMENT', field: 'pixel_values' }],
  ]
  for (const [changed, error] of refused) await t.rejects(model.forward({ ...inputs, ...changed }), error, JSON.stringify(error))
  const { visual_embeds: _, ...orphans } = inputs
  await t.rejects(model.forward(orphans as Inputs), { code: 'ERR_ARGUMENT', field: 'visual_attention_mask', message: /without visual_embeds/ })
  const long = { input_ids: ones('int64', [1, 17]) }
  await t.rejects(model.forward(long), { code: 'ERR_ARGUMENT', field: 'input_ids', index: 0, message: /has 17 tokens; this model takes at most 16/ })
  await t.rejects(model.forward({}), { code: 'ERR_ARGUMENT', field: 'input_ids' })
  await t.rejects(model.forward(inputs, { outputs: ['logits'] }), { code: 'ERR_ARGUMENT', field: 'logits' })
})

t.test('inputs of ViLT that do not belong together', async t => {
  await using model = await load(fixture('vilt-sizes'))
  const inputs = await inputsOf('vilt-sizes')
  const { pixel_values: pixels, pixel_mask: mask } = inputs as { pixel_values: Tensor; pixel_mask: Tensor }
  const twos = new Tensor('int64', BigInt64Array.from(mask.data as BigInt64Array, () => 2n), mask.dims)
  const nan = new Tensor('float32', Float32Array.from(pixels.data as Float32Array).fill(NaN, 0, 1), pixels.dims)
  const refused: [Inputs, { code: string; field: string; index?: number; message?: RegExp }][] = [
    [{ pixel_values: zeros('float32', [3, 3, 7, 48]) }, { code: 'ERR_SHAPE', field: 'pixel_values', message: /at least one patch of 8 x 8/ }],
    [{ pixel_values: zeros('float32', [2, 3, 32, 48]) }, { code: 'ERR_SHAPE', field: 'pixel_values', message: /has 2 pictures; expected 3 as input_ids/ }],
    [{ pixel_values: zeros('float32', [3, 4, 32, 48]) }, { code: 'ERR_SHAPE', field: 'pixel_values' }],
    [{ pixel_values: zeros('int64', [3, 3, 32, 48]) }, { code: 'ERR_DTYPE', field: 'pixel_values' }],
    [{ pixel_values: nan }, { code: 'ERR_ARGUMENT', field: 'pixel_values', index: 0, message: /picture 0 hold NaN/ }],
    [{ pixel_mask: zeros('int64', [3, 32, 40]) }, { code: 'ERR_SHAPE', field: 'pixel_mask', message: /expected \[3, 32, 48\] as pixel_values/ }],
    [{ pixel_mask: zeros('int64', [3, 32, 48]) }, { code: 'ERR_ARGUMENT', field: 'pixel_mask', index: 0, message: /marks no patch/ }],
    [{ pixel_mask: twos }, { code: 'ERR_ARGUMENT', field: 'pixel_mask', index: 0, message: /is 2 at element 0; expected 0 or 1/ }],
  ]
  for (const [changed, error] of refused) await t.rejects(model.forward({ ...inputs, ...changed }), error, JSON.stringify(error))
  await t.rejects(model.forward({ input_ids: inputs['input_ids']! }), { code: 'ERR_ARGUMENT', field: 'pixel_values' })
  await t.rejects(load(variant(t, 'vilt-pictures', c => (c['num_images'] = 3))), { code: 'ERR_CHECKPOINT', field: 'num_images' })
})

type Refusal = [changed: Record<string, Tensor | undefined>, error: { code: string; field: string; index?: number; message?: RegExp }, outputs?: string[]]

const zeros = (type: 'int64' | 'float32', dims: number[]) => {
  const size = dims.reduce((a, b) => a * b)
  return new Tensor(type, type === 'int64' ? new BigInt64Array(size) : new Float32Array(size), dims)
}

const families: Record<string, Refusal[]> = {
  'uniter-first-masked': [
    [{ img_pos_feat: zeros('float32', [3, 4, 7]) }, { code: 'ERR_SHAPE', field: 'img_pos_feat', message: /img_pos_feat is \[3, 4, 7\]; expected \[3, 5, 7\]/ }],
    [{ img_pos_feat: undefined }, { code: 'ERR_ARGUMENT', field: 'img_pos_feat', message: /without img_pos_feat/ }],
    [{ img_pos_feat: zeros('float32', [3, 5, 4]) }, { code: 'ERR_SHAPE', field: 'img_pos_feat' }],
    [{ img_feat: undefined }, { code: 'ERR_ARGUMENT', field: 'img_pos_feat', message: /without img_feat/ }],
    [{ attn_masks: zeros('int64', [3, 12]) }, { code: 'ERR_SHAPE', field: 'attn_masks', message: /expected \[3, 13\] as gather_index/ }],
    [{ gather_index: undefined, attn_masks: zeros('int64', [3, 12]) }, { code: 'ERR_SHAPE', field: 'attn_masks', message: /as words and regions/ }],
    [{ gather_index: new Tensor('int64', new BigInt64Array(39).fill(13n), [3, 13]) }, { code: 'ERR_ARGUMENT', field: 'gather_index', index: 0, message: /is 13 at element 0; expected 0 to 12/ }],
    [{ img_masks: zeros('int64', [3, 6]) }, { code: 'ERR_SHAPE', field: 'img_masks' }],
  ],
  'vl-bert-scaled': [
    [{ object_mask: zeros('int64', [4, 4]) }, { code: 'ERR_SHAPE', field: 'object_mask' }],
    [{ text_mask: zeros('int64', [4, 6]) }, { code: 'ERR_SHAPE', field: 'text_mask' }],
    [{ text_visual_embeddings: zeros('float32', [4, 6, 12]) }, { code: 'ERR_SHAPE', field: 'text_visual_embeddings', message: /expected \[4, 7, 12\]/ }],
    [{ object_vl_embeddings: zeros('float32', [4, 5, 43]) }, { code: 'ERR_SHAPE', field: 'object_vl_embeddings', message: /expected \[4, objects, 44\]/ }],
    [{ object_vl_embeddings: undefined }, { code: 'ERR_ARGUMENT', field: 'object_vl_embeddings' }],
  ],
  'vl-bert-vqa': [
    [{ text_mask: new Tensor('int64', BigInt64Array.from({ length: 28 }, (_, i) => (i < 7 || i % 7 === 3 ? 1n : 0n)), [4, 7]) }, { code: 'ERR_ARGUMENT', field: 'text_mask', index: 1, message: /counts 1 tokens; expected at least 2/ }],
    [{ object_mask: zeros('int64', [4, 4]) }, { code: 'ERR_SHAPE', field: 'object_mask' }],
  ],
  'vl-bert-vcr': [
    [{ text_input_ids: zeros('int64', [3, 7]) }, { code: 'ERR_SHAPE', field: 'text_input_ids' }],
    [{ object_vl_embeddings: zeros('float32', [3, 3, 5, 26]) }, { code: 'ERR_SHAPE', field: 'object_vl_embeddings', message: /expected \[3, 2, …\]/ }],
  ],
  'visual-bert-choice': [
    [{ attention_mask: zeros('int64', [3, 3, 9]) }, { code: 'ERR_SHAPE', field: 'attention_mask', message: /is \[3, 3, 9\]; expected \[3, 2, …\]/ }],
    [{ input_ids: zeros('int64', [6, 9]) }, { code: 'ERR_SHAPE', field: 'input_ids' }],
  ],
  'siglip2-shapes': [[{ spatial_shapes: undefined }, { code: 'ERR_ARGUMENT', field: 'spatial_shapes' }, ['image_embeds']]],
  'vl-bert-refcoco': [[{ object_vl_embeddings: zeros('float32', [4, 5, 25]) }, { code: 'ERR_SHAPE', field: 'object_vl_embeddings', message: /expected \[4, objects, 26\]/ }]],
  'lxmert-odd': [
    [{ visual_pos: zeros('float32', [3, 4, 6]) }, { code: 'ERR_SHAPE', field: 'visual_pos', message: /expected \[3, 5, 6\]/ }],
    [{ visual_pos: undefined }, { code: 'ERR_ARGUMENT', field: 'visual_pos' }],
    [{ visual_feats: zeros('float32', [3, 5, 8]) }, { code: 'ERR_SHAPE', field: 'visual_feats' }],
    [{ visual_attention_mask: zeros('int64', [3, 6]) }, { code: 'ERR_SHAPE', field: 'visual_attention_mask' }],
    [{ visual_feats: undefined }, { code: 'ERR_ARGUMENT', field: 'visual_feats' }],
    [{ visual_attention_mask: zeros('int64', [3, 5]) }, { code: 'ERR_ARGUMENT', field: 'visual_attention_mask', index: 0, message: /counts no region/ }],
    [{ attention_mask: zeros('int64', [3, 9]), visual_attention_mask: undefined }, { code: 'ERR_ARGUMENT', field: 'attention_mask', index: 0, message: /counts no word/ }],
  ],
  'blip-itm-odd': [
    [{ pixel_values: zeros('float32', [2, 3, 29, 29]) }, { code: 'ERR_SHAPE', field: 'pixel_values', message: /has 2 examples; expected 3 as input_ids/ }],
    [{ attention_mask: zeros('int64', [3, 8]) }, { code: 'ERR_SHAPE', field: 'attention_mask' }],
    [{ pixel_values: zeros('float32', [3, 3, 28, 29]) }, { code: 'ERR_SHAPE', field: 'pixel_values' }],
  ],
}

for (const [name, refused] of Object.entries(families)) {
  t.test(`inputs of ${name} that do not belong together`, async t => {
    await using model = await load(fixture(name))
    const inputs = await inputsOf(name)
    for (const [changed, error, outputs] of refused) await t.rejects(model.forward({ ...inputs, ...changed } as Inputs, { outputs }), error, JSON.stringify(error))
    await t.rejects(load(variant(t, name, c => (c['architectures'] = ['SomethingElse']))), { code: 'ERR_UNSUPPORTED', field: 'architectures' })
  })
}

t.test('missing heads', async t => {
  await using uniter = await load(fixture('uniter-first-masked'))
  await t.rejects(uniter.forward(await inputsOf('uniter-first-masked'), { outputs: ['rank_scores'] }), { code: 'ERR_CHECKPOINT', field: 'rank_scores', missing: ['rank_output.weight'] })
  await t.rejects(load(variant(t, 'lxmert-odd', c => (c['architectures'] = ['LxmertForQuestionAnswering']))), { code: 'ERR_CHECKPOINT', message: /answer_head\.logit_fc\.0\.weight/ })
  await t.rejects(load(variant(t, 'vl-bert-scaled', c => (c['architectures'] = ['ResNetVLBERT']))), { code: 'ERR_CHECKPOINT', message: /final_mlp\.1\.weight/ })
  await using vqa = await load(variant(t, 'vl-bert-vqa', c => (c['with_pooler'] = false)))
  await t.rejects(vqa.forward(await inputsOf('vl-bert-vqa'), { outputs: ['pooled_output'] }), { code: 'ERR_CHECKPOINT', field: 'pooled_output', missing: ['vlbert.pooler.dense.weight'] })
  await t.rejects(load(variant(t, 'vl-bert-scaled', c => Object.assign(c, { architectures: ['VisualLinguisticBertForPretraining'], with_mlm_head: true }))), { code: 'ERR_CHECKPOINT', message: /mlm_head/ })
})

t.test("VL-BERT's objects that do not count have no influence, and a score below all others", async t => {
  await using model = await load(fixture('vl-bert-refcoco'))
  const inputs = await inputsOf('vl-bert-refcoco')
  const { object_mask: mask, object_vl_embeddings: objects } = inputs as { object_mask: Tensor; object_vl_embeddings: Tensor }
  const holes = new Tensor('int64', BigInt64Array.from(mask.data as BigInt64Array, (_, i) => (i % 3 === 1 ? 0n : 1n)), mask.dims)
  const width = objects.dims[2]!
  const other = Float32Array.from(objects.data as Float32Array, (value, i) => (holes.data[Math.floor(i / width)] === 0n ? 1e30 : value))
  const { label_logits: scores } = await model.forward({ ...inputs, object_mask: holes, object_vl_embeddings: new Tensor('float32', other, objects.dims) })
  const { label_logits: same } = await model.forward({ ...inputs, object_mask: holes })
  t.ok(sameBits(scores!, same!))
  t.strictSame(scores!.dims, mask.dims)
  t.ok([...(scores!.data as Float32Array)].every((score, i) => (score === -10000) === (holes.data[i] === 0n)))
})

t.test("BLIP's towers alone, and cosines of any number of each", async t => {
  await using model = await load(fixture('blip-itm-odd'))
  const { pixel_values, input_ids, attention_mask } = (await inputsOf('blip-itm-odd')) as Record<string, Tensor>
  const both = await model.forward({ pixel_values, input_ids, attention_mask } as Inputs)
  const { text_feat } = await model.forward({ input_ids, attention_mask } as Inputs, { outputs: ['text_feat'] })
  t.ok(sameBits(text_feat!, both['text_feat']!))
  const two = pickExamples({ pixel_values: pixel_values! }, [2, 0])
  const { itc_similarity } = await model.forward({ ...two, input_ids, attention_mask } as Inputs, { outputs: ['itc_similarity'] })
  t.strictSame(itc_similarity!.dims, [2, 3])
  t.strictSame([...itc_similarity!.data.subarray(0, 3)], [...both['itc_similarity']!.data.subarray(6, 9)])
  await t.rejects(model.forward({ input_ids, attention_mask } as Inputs, { outputs: ['itm_score'] }), { code: 'ERR_ARGUMENT', field: 'pixel_values' })
})

t.test('uint8 pixels of ViLT are scaled as the processor does it', async t => {
  const name = 'vilt-sizes'
  await using model = await load(fixture(name))
  const inputs = await inputsOf(name)
  const { dims } = inputs['pixel_values']!
  const [n, , height, width] = dims as [number, number, number, number]
  const next = random(11)
  const bytes = Uint8Array.from({ length: inputs['pixel_values']!.size }, () => next() * 256)
  const floats = new Float32Array(bytes.length)
  for (let b = 0; b < n; b++) for (let p = 0; p < height * width; p++) for (let c = 0; c < 3; c++) floats[(b * 3 + c) * height * width + p] = (bytes[(b * height * width + p) * 3 + c]! / 255 - 0.5) / 0.5
  const some = { outputs: ['last_hidden_state'] }
  const scaled = await model.forward({ ...inputs, pixel_values: new Tensor('float32', floats, dims) }, some)
  const raw = await model.forward({ ...inputs, pixel_values: new Tensor('uint8', bytes, [n, height, width, 3]) }, some)
  t.ok(difference(raw['last_hidden_state']!, scaled['last_hidden_state']!).max < 1e-5)
})

t.test('configurations that are refused', async t => {
  const name = 'visual-bert-random'
  await t.rejects(load(variant(t, name, c => (c['bypass_transformer'] = true))), { code: 'ERR_UNSUPPORTED', field: 'bypass_transformer' })
  await t.rejects(load(variant(t, name, c => (c['architectures'] = ['VisualBertForEverything']))), { code: 'ERR_UNSUPPORTED', field: 'architectures', message: /VisualBertForPreTraining/ })
  await t.rejects(load(variant(t, name, c => (c['architectures'] = ['VisualBertForQuestionAnswering']))), { code: 'ERR_CHECKPOINT', message: /cls\.weight/ }, 'a missing head')
  await t.rejects(load(variant(t, name, c => (c['visual_embedding_dim'] = 13))), { code: 'ERR_CHECKPOINT', message: /visual_projection\.weight/ })
})
