// forward: names of inputs and outputs, masks of every form, what is computed alone or together, and its errors.

import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ArgumentError, CheckpointError, DisposedError, DTypeError, ShapeError } from '../../lib/core/errors.js'
import { Tensor } from '../../lib/core/tensor.js'
import { readTensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import type { Model } from '../../lib/models/model.js'
import { difference, fixture, int64, parityFolders, random, sameBits } from '../support/models.js'

async function open(t: Test, name: string): Promise<{ model: Model; inputs: Record<string, Tensor> }> {
  const model = await AutoModel.fromPretrained(fixture(name), { dtype: 'f32', device: 'cpu' })
  t.teardown(() => model.dispose())
  return { model, inputs: await readTensors(join(fixture(name), 'inputs.safetensors')) }
}

/** One row of a tensor [B, …]. */
function row(tensor: Tensor, index: number): Tensor {
  const size = tensor.size / tensor.dims[0]!
  return new Tensor(tensor.type, tensor.data.slice(index * size, (index + 1) * size), [1, ...tensor.dims.slice(1)])
}

t.test('outputs that the inputs allow', async t => {
  const { model, inputs } = await open(t, 'clip-vit-tiny')
  const { pixel_values, input_ids } = inputs as { pixel_values: Tensor; input_ids: Tensor }
  const ofImages = ['image_embeds', 'image_embeds_unnormalized', 'vision_last_hidden_state', 'vision_pooler_output']
  const ofTexts = ['text_embeds', 'text_embeds_unnormalized', 'text_last_hidden_state', 'text_pooler_output']
  t.strictSame(Object.keys(await model.forward({ pixel_values })).sort(), ofImages)
  t.strictSame(Object.keys(await model.forward({ input_ids })).sort(), ofTexts)
  t.strictSame(Object.keys(await model.forward(inputs)).sort(), [...ofImages, 'logits_per_image', 'logits_per_text', ...ofTexts].sort())
  t.strictSame(Object.keys(await model.forward(inputs, { outputs: ['logits_per_text'] })), ['logits_per_text'])
  t.strictSame(await model.forward(inputs, { outputs: [] }), {})
  const states = await model.forward(inputs, { outputs: ['text_embeds'], outputHiddenStates: true })
  t.strictSame(Object.keys(states).filter(name => name.startsWith('vision')), [0, 1, 2].map(k => `vision_hidden_state_${k}`))
  t.strictSame(Object.keys(states).filter(name => name.startsWith('text_h')), [0, 1, 2, 3].map(k => `text_hidden_state_${k}`))
  t.strictSame(model.unusedTensors, ['text_model.embeddings.position_ids', 'vision_model.embeddings.position_ids'])
  t.equal(model.device, 'cpu')
  t.equal(model.config['model_type'], 'clip')
})

t.test('every output of every model comes unasked, but states', async t => {
  for (const [name, folder] of parityFolders()) {
    await using model = await AutoModel.fromPretrained(folder, { dtype: 'f32', device: 'cpu' })
    const inputs = await readTensors(join(folder, 'inputs.safetensors'))
    const all = await model.forward(inputs)
    const expected = Object.keys(await readTensors(join(folder, 'expected.safetensors'))).filter(output => !/hidden_state_\d+$|^mask_of_/.test(output))
    t.strictSame(expected.filter(output => !all[output]), [], name)
    t.ok(Object.values(all).every(output => output instanceof Tensor), name)
  }
})

t.test('an output is the same whatever else is asked for', async t => {
  for (const name of ['clip-vit-tiny', 'clip-hf-gelu-eosid', 'clip-v5', 'siglip-v5', 'blip-itm-odd', 'vit-pooler', 'bert-v5', 'mpnet', 'minilm-st']) {
    const { model, inputs } = await open(t, name)
    const all = await model.forward(inputs)
    for (const output of Object.keys(all)) {
      const alone = await model.forward(inputs, { outputs: [output] })
      t.ok(sameBits(alone[output]!, all[output]!), `${name}: ${output}`)
    }
  }
})

t.test('int32 ids and masks, other libraries\' tensors', async t => {
  const { model, inputs } = await open(t, 'bert-v5')
  const expected = await model.forward(inputs)
  const narrow = Object.entries(inputs).map(([name, { data, dims }]) => [name, { type: 'int32', data: Int32Array.from(data, Number), dims }])
  const got = await model.forward(Object.fromEntries(narrow))
  for (const name of Object.keys(expected)) t.ok(sameBits(got[name]!, expected[name]!), name)
})

t.test('uint8 pixels are scaled and normalised', async t => {
  const { model } = await open(t, 'clip-v5')
  const next = random(1)
  const bytes = Uint8Array.from({ length: 2 * 24 * 24 * 3 }, () => next() * 256)
  const floats = new Float32Array(bytes.length)
  const [mean, std] = [[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]]
  for (let i = 0; i < bytes.length; i++) {
    const [image, pixel, channel] = [Math.floor(i / 1728), Math.floor((i % 1728) / 3), i % 3]
    floats[image * 1728 + channel * 576 + pixel] = (bytes[i]! / 255 - mean[channel]!) / std[channel]!
  }
  const { image_embeds: a } = await model.forward({ pixel_values: new Tensor('uint8', bytes, [2, 24, 24, 3]) })
  const { image_embeds: b } = await model.forward({ pixel_values: new Tensor('float32', floats, [2, 3, 24, 24]) })
  t.ok(difference(a!, b!).max < 1e-5)
})

t.test('no pictures, no texts', async t => {
  const { model } = await open(t, 'clip-v5')
  const none = await model.forward({ pixel_values: new Tensor('uint8', new Uint8Array(0), [0, 24, 24, 3]), input_ids: new Tensor('int32', new Int32Array(0), [0, 5]) })
  t.strictSame(none['image_embeds']!.dims, [0, 20])
  t.strictSame(none['text_last_hidden_state']!.dims, [0, 5, 24])
  t.strictSame(none['logits_per_image']!.dims, [0, 0])
})

// --- masks ---

t.test('a text gives the same with padding on either side', async t => {
  // BERT's positions are columns: padding on the left needs position_ids to mean the same text; RoBERTa's come from the ids.
  const cases = [
    { name: 'bert-v5', pad: 0, positions: true },
    { name: 'xlm-roberta', pad: 1, positions: false },
    { name: 'mpnet', pad: 1, positions: false },
  ]
  for (const { name, pad, positions } of cases) {
    const { model } = await open(t, name)
    const ids = [10, 11, 12, 13, 14]
    const fill = (n: number, value: number) => new Array<number>(n).fill(value)
    const outputs = ['last_hidden_state']
    const { last_hidden_state: plain } = await model.forward({ input_ids: int64([ids]) }, { outputs })
    for (const left of [0, 2, 4]) {
      const right = 4 - left
      const columns = [...fill(left, 0), ...ids.keys(), ...fill(right, 0)]
      const inputs = {
        input_ids: int64([[...fill(left, pad), ...ids, ...fill(right, pad)]]),
        attention_mask: int64([[...fill(left, 0), ...fill(5, 1), ...fill(right, 0)]]),
        ...(positions && { position_ids: int64([columns]) }),
      }
      const { last_hidden_state: padded } = await model.forward(inputs, { outputs })
      const width = plain!.dims[2]!
      const middle = new Tensor('float32', padded!.data.slice(left * width, (left + 5) * width), plain!.dims)
      t.ok(sameBits(middle, plain!), `${name} with ${left} on the left`)
      t.ok((padded!.data.subarray(0, left * width) as Float32Array).every(value => value === 0), 'zeros before')
      t.ok((padded!.data.subarray((left + 5) * width) as Float32Array).every(value => value === 0), 'zeros after')
    }
  }
})

t.test('holes in the mask and a masked first token', async t => {
  // A masked token is no key of the others; the pooler reads the first column whatever its mask. Checked by swapping what is masked:
  // unmasked positions must not change, and a masked first token is still read by the pooler.
  const { model } = await open(t, 'bert-v5')
  const attention_mask = int64([[0, 1, 1, 0, 1, 1, 0]])
  const run = (ids: number[]) => model.forward({ input_ids: int64([ids]), attention_mask })
  const a = await run([5, 6, 7, 8, 9, 10, 11])
  const b = await run([5, 6, 7, 50, 9, 10, 60])
  const c = await run([40, 6, 7, 8, 9, 10, 11])
  t.ok(sameBits(a['last_hidden_state']!, b['last_hidden_state']!), 'masked ids have no influence')
  t.ok(sameBits(a['pooler_output']!, b['pooler_output']!), 'nor on the pooler')
  t.ok(sameBits(a['last_hidden_state']!, c['last_hidden_state']!), 'nor has the masked first one on the others')
  t.notOk(sameBits(a['pooler_output']!, c['pooler_output']!), 'but the pooler reads it')

  // The same by another way: without the masked columns, at the same positions.
  const packed = await model.forward({ input_ids: int64([[6, 7, 9, 10]]), position_ids: int64([[1, 2, 4, 5]]) }, { outputs: ['last_hidden_state'] })
  const width = 32
  const kept = [1, 2, 4, 5].flatMap(column => [...(a['last_hidden_state']!.data.subarray(column * width, (column + 1) * width) as Float32Array)])
  t.ok(sameBits(packed['last_hidden_state']!, new Tensor('float32', Float32Array.from(kept), [1, 4, width])))
})

t.test('pooling takes unmasked tokens only', async t => {
  const { model } = await open(t, 'minilm-st')
  const input_ids = int64([[20, 21, 22, 23, 24, 25]])
  const outputs = await model.forward({ input_ids, attention_mask: int64([[0, 1, 0, 1, 1, 0]]) })
  const states = outputs['last_hidden_state']!.data as Float32Array
  const width = 48
  const at = (token: number, c: number) => states[token * width + c]!
  for (let c = 0; c < width; c++) {
    const values = [at(1, c), at(3, c), at(4, c)]
    t.ok(Math.abs((outputs['mean_pooled']!.data[c] as number) - values.reduce((a, b) => a + b) / 3) < 1e-6)
    t.equal(outputs['max_pooled']!.data[c], Math.max(...values))
  }
})

t.test('a text that is masked throughout gives zeros', async t => {
  for (const name of ['bert-v5', 'clip-v5', 'minilm-st']) {
    const { model } = await open(t, name)
    const outputs = await model.forward({ input_ids: int64([[5, 6, 7], [5, 6, 7]]), attention_mask: int64([[0, 0, 0], [1, 1, 1]]) })
    const alone = await model.forward({ input_ids: int64([[5, 6, 7]]) })
    for (const [output, tensor] of Object.entries(outputs)) {
      t.ok((row(tensor, 0).data as Float32Array).every(value => value === 0), `${name}: ${output}`)
      t.ok(sameBits(row(tensor, 1), alone[output]!), `${name}: ${output} of its neighbour`)
    }
  }
})

t.test('texts with holes among others where distances count', async t => {
  const { model } = await open(t, 'mpnet')
  const ids = [[5, 6, 7, 8, 9], [10, 11, 12, 13, 14], [5, 6, 7, 8, 9], [20, 21, 22, 23, 24]]
  const masks = [[1, 1, 1, 1, 1], [1, 0, 1, 0, 1], [0, 1, 1, 1, 0], [0, 0, 1, 1, 0]]
  const all = await model.forward({ input_ids: int64(ids), attention_mask: int64(masks) })
  for (let r = 0; r < ids.length; r++) {
    const alone = await model.forward({ input_ids: int64([ids[r]!]), attention_mask: int64([masks[r]!]) })
    for (const [name, tensor] of Object.entries(alone)) t.ok(sameBits(row(all[name]!, r), tensor), `text ${r}: ${name}`)
  }
})

t.test('masks that a model cannot honour', async t => {
  const clip = await open(t, 'clip-v5')
  const masked = { input_ids: int64([[97, 5, 98]]), attention_mask: int64([[1, 1, 0]]) }
  await t.rejects(clip.model.forward(masked, { outputs: ['text_embeds'] }), { code: 'ERR_ARGUMENT', message: /text 0 masks position 2/ })
  t.ok(await clip.model.forward(masked, { outputs: ['text_last_hidden_state'] }))
})

// --- errors ---

t.test('inputs that do not fit', async t => {
  const clip = await open(t, 'clip-v5')
  const { pixel_values, input_ids } = clip.inputs as { pixel_values: Tensor; input_ids: Tensor }
  const cases: [Record<string, Tensor>, new (...args: any[]) => Error, RegExp][] = [
    [{}, ArgumentError, /pixel_values and input_ids are missing/],
    [{ pixels: pixel_values }, ArgumentError, /no input 'pixels'; expected pixel_values, input_ids/],
    [{ attention_mask: input_ids }, ArgumentError, /are missing/],
    [{ pixel_values: new Tensor('float32', new Float32Array(3 * 16), [1, 3, 4, 4]) }, ShapeError, /float32 \[1, 3, 4, 4\]; expected \[n, 3, 24, 24\]/],
    [{ pixel_values: new Tensor('uint8', new Uint8Array(1728), [1, 3, 24, 24]) }, ShapeError, /expected \[n, 24, 24, 3\]/],
    [{ pixel_values: new Tensor('float32', new Float32Array(1728), [3, 24, 24]) }, ShapeError, /expected \[n, /],
    [{ pixel_values: new Tensor('int32', new Int32Array(1728), [1, 3, 24, 24]) }, DTypeError, /pixel_values is int32/],
    [{ input_ids: new Tensor('float32', new Float32Array(3), [1, 3]) }, DTypeError, /input_ids is float32/],
    [{ input_ids: new Tensor('int32', new Int32Array(3), [3]) }, ShapeError, /input_ids is \[3\]/],
    [{ input_ids, attention_mask: int64([[1, 1]]) }, ShapeError, /attention_mask is \[1, 2\]; expected \[3, 10\]/],
    [{ input_ids: int64([[97, 5, 99, 98]]) }, ArgumentError, /input_ids of text 0 is 99 at position 2; expected 0 to 98/],
    [{ input_ids: int64([[97, 98], [97, -1]]) }, ArgumentError, /input_ids of text 1 is -1 at position 1/],
    [{ input_ids: int64([[97, 2 ** 32 + 5]]) }, ArgumentError, /is 4294967301 at position 1/],
    [{ input_ids: int64([[97, 98]]), attention_mask: int64([[1, 2]]) }, ArgumentError, /attention_mask of text 0 is 2 at position 1; expected 0 to 1/],
    [{ input_ids: int64([new Array<number>(13).fill(5)]) }, ArgumentError, /text 0 has 13 tokens.*at most 12/],
  ]
  for (const [inputs, Class, message] of cases) {
    const error = await clip.model.forward(inputs, { outputs: 'input_ids' in inputs ? ['text_last_hidden_state'] : undefined }).catch(error => error)
    t.ok(error instanceof Class, `${message}: ${error}`)
    t.match(error.message, message)
  }
  t.ok(await clip.model.forward(clip.inputs), 'and the model works on')

  const bert = await open(t, 'bert-v5')
  await t.rejects(bert.model.forward({ pixel_values }), { code: 'ERR_ARGUMENT', message: /no input 'pixel_values'/ })
  await t.rejects(bert.model.forward({ input_ids: int64([[1, 2]]), token_type_ids: int64([[0, 2]]) }), { message: /token_type_ids of text 0 is 2 at position 1/ })
  await t.rejects(bert.model.forward({ input_ids: int64([[1, 2]]), position_ids: int64([[0, 16]]) }), { message: /position_ids of text 0 is 16/ })
  const distilbert = await open(t, 'distilbert')
  await t.rejects(distilbert.model.forward({ input_ids: int64([[1, 2]]), position_ids: int64([[0, 1]]) }), { message: /takes no position_ids/ })
  const roberta = await open(t, 'xlm-roberta')
  await t.rejects(roberta.model.forward({ input_ids: int64([new Array<number>(33).fill(5)]) }), { message: /text 0 has 33 tokens.*at most 32/ })
  t.ok(await roberta.model.forward({ input_ids: int64([new Array<number>(32).fill(5)]) }))
})

t.test('pixels that are no numbers', async t => {
  const { model } = await open(t, 'clip-v5')
  for (const value of [NaN, Infinity, -Infinity]) {
    const data = new Float32Array(40 * 1728)
    data[37 * 1728 + 5] = value
    await t.rejects(model.forward({ pixel_values: new Tensor('float32', data, [40, 3, 24, 24]) }), { code: 'ERR_ARGUMENT', index: 37, message: /picture 37/ })
  }
})

t.test('outputs that are not there', async t => {
  const clip = await open(t, 'clip-v5')
  const { pixel_values, input_ids } = clip.inputs as { pixel_values: Tensor; input_ids: Tensor }
  await t.rejects(clip.model.forward({ pixel_values }, { outputs: ['text_embeds'] }), { code: 'ERR_ARGUMENT', message: /'text_embeds' needs input_ids/ })
  await t.rejects(clip.model.forward({ input_ids }, { outputs: ['logits_per_text'] }), { message: /needs pixel_values/ })
  await t.rejects(clip.model.forward({ input_ids }, { outputs: ['embeds'] }), { message: /no output 'embeds'; expected .*image_embeds.*text_embeds.*logits_per_text/ })
  await t.rejects(clip.model.forward({ input_ids }, { outputs: ['text_hidden_state_3'] }), ArgumentError)
  await t.rejects(clip.model.forward({ input_ids }, { outputs: ['(embedding)'] }), ArgumentError)
  const vit = await open(t, 'vit-v5')
  const error = await vit.model.forward(vit.inputs, { outputs: ['logits'] }).catch(error => error)
  t.ok(error instanceof CheckpointError)
  t.match(error.message, /'logits' needs the tensor classifier\.weight/)
  t.strictSame(error.missing, ['classifier.weight'])
})

t.test('signal and disposal', async t => {
  const { model, inputs } = await open(t, 'clip-v5')
  const reason = new Error('enough')
  await t.rejects(model.forward(inputs, { signal: AbortSignal.abort(reason) }), reason)
  const controller = new AbortController()
  const running = model.forward(inputs, { signal: controller.signal })
  controller.abort(reason)
  await t.rejects(running, reason)
  t.ok(await model.forward(inputs))
  await Promise.all([model.dispose(), model.dispose()])
  await t.rejects(model.forward(inputs), DisposedError)
  await t.rejects(model.textEncoder!.encode([Int32Array.of(97, 98)]), DisposedError)
  await t.rejects(model.imageEncoder!.encode(new Uint8Array(1728), 1), DisposedError)
})

t.test('SigLIP reads a text at its last column, padding or not', async t => {
  const { model, inputs } = await open(t, 'siglip-v5')
  const input_ids = inputs['input_ids']!
  const [count, length] = input_ids.dims as [number, number]
  const ones = new Tensor('int64', new BigInt64Array(count * length).fill(1n), [count, length])
  const { text_embeds } = await model.forward({ input_ids }, { outputs: ['text_embeds'] })
  const masked = await model.forward({ input_ids, attention_mask: ones }, { outputs: ['text_embeds'] })
  t.ok(sameBits(masked['text_embeds']!, text_embeds!), 'a mask of ones changes nothing')
  const hole = new Tensor('int64', BigInt64Array.from(ones.data as BigInt64Array, (one, i) => (i % length === length - 1 ? 0n : one)), [count, length])
  // The reference's numbers (transformers 5.23, SiglipModel): the last column is read though no other one sees it.
  const expected = [[0.081875, 0.120978, -0.270396, 0.108487], [0.017146, -0.087822, -0.167509, 0.148144], [0.120541, -0.076485, 0.013575, 0.126518]]
  const read = (await model.forward({ input_ids, attention_mask: hole }, { outputs: ['text_embeds'] }))['text_embeds']!
  expected.flat().forEach((value, i) => t.ok(Math.abs((read.data[Math.floor(i / 4) * read.dims[1]! + (i % 4)] as number) - value) < 2e-6, 'a masked last column'))
  const { textEncoder } = model
  const short = Int32Array.of(5, 9, 7)
  const padded = (id: number) => Int32Array.from({ length }, (_, i) => short[i] ?? id)
  t.same(await textEncoder!.encode([short], { padId: 3 }), await textEncoder!.encode([padded(3)]), 'short texts are filled with the padding token')
  t.same(await textEncoder!.encode([short]), await textEncoder!.encode([padded((model.config['text_config'] as { pad_token_id?: number }).pad_token_id ?? 1)]))
})

t.test('DINOv2 takes pictures of any size', async t => {
  const { model, inputs } = await open(t, 'dinov2-larger-oblong')
  const pixels = inputs['pixel_values']!
  t.same(pixels.dims.slice(2), [70, 57])
  t.same((await model.forward({ pixel_values: pixels })).last_hidden_state!.dims, [2, 1 + 5 * 4, 32])
  const picture = (height: number, width: number) => new Tensor('float32', Float32Array.from({ length: 3 * height * width }, (_, i) => Math.sin(i)), [1, 3, height, width])
  t.same((await model.forward({ pixel_values: picture(14, 14) })).last_hidden_state!.dims, [1, 2, 32])
  await t.rejects(model.forward({ pixel_values: picture(13, 30) }), { name: 'ShapeError' }, 'smaller than a patch')
})

t.test('a masked first token that is read within a window where nothing counts is refused', async t => {
  const { model } = await open(t, 'modernbert-classifier-holes')
  const window = Math.floor((model.config['local_attention'] as number) / 2)
  const input_ids = int64([Array.from({ length: window + 3 }, (_, i) => 3 + i)])
  const masked = (count: number) => ({ input_ids, attention_mask: int64([Array.from({ length: window + 3 }, (_, i) => (i < count ? 0 : 1))]) })
  await model.forward(masked(window), { outputs: ['logits'] })
  await model.forward(masked(window + 1), { outputs: ['last_hidden_state'] })
  await t.rejects(model.forward(masked(window + 1), { outputs: ['logits'] }), { name: 'ArgumentError', field: 'attention_mask', index: 0, message: /of text 0 masks the first token, which is read, and all within its window/ })
})
