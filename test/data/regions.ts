// Region features from files that others write, and the inputs made of them.

import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { readRegionsNpz, readRegionsTsv, regionInputs, type Regions } from '../../lib/data/regions.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { difference, fixture, temporary } from '../support/models.js'

const npz = (name: string) => fileURLToPath(new URL(`../fixtures/regions/${name}.npz`, import.meta.url))
const BOXES = [0, 10, 50, 60, 20, 0, 100, 80, 5, 5, 15, 25]
const FEATURES = Array.from({ length: 15 }, (_, i) => i / 4)
const base64 = (numbers: readonly number[]) => Buffer.from(Float32Array.from(numbers).buffer).toString('base64')
const line = (...fields: (string | number)[]) => fields.join('\t')
const bottomUp = (count: number, boxes = BOXES, features = FEATURES) => line('img7', 100, 80, count, base64(boxes), base64(features))

async function all(file: string): Promise<Regions[]> {
  const found: Regions[] = []
  for await (const regions of readRegionsTsv(file)) found.push(regions)
  return found
}

t.test('TSV files, bottom-up and of LXMERT', async t => {
  const file = join(temporary(t), 'regions.tsv')
  writeFileSync(file, `${bottomUp(3)}\r\n\n${line('img8', 80, 100, 'x', 'x', 'x', 'x', 3, base64(BOXES), base64(FEATURES))}\n`)
  const [first, second, ...rest] = await all(file)
  t.strictSame(rest, [])
  t.match(first, { id: 'img7', imageWidth: 100, imageHeight: 80 })
  t.match(second, { id: 'img8', imageWidth: 100, imageHeight: 80 })
  for (const { features, boxes } of [first!, second!]) {
    t.strictSame({ dims: features.dims, data: [...features.data] }, { dims: [3, 5], data: FEATURES })
    t.strictSame({ dims: boxes.dims, data: [...boxes.data] }, { dims: [3, 4], data: BOXES })
  }
  const wrong: [string, string, RegExp][] = [
    [bottomUp(2), 'boxes', /boxes of line 2 has 12 numbers; expected 8, four for each of 2 regions/],
    [bottomUp(3, BOXES, FEATURES.slice(1)), 'features', /features of line 2 has 14 numbers/],
    [bottomUp(0), 'num_boxes', /num_boxes of line 2 is '0'/],
    [line('a', 'b'), 'the fields', /are 2; expected 6/],
    [line('img', 100, 80, 3, '', base64(FEATURES)), 'boxes', /no base64/],
  ]
  for (const [content, field, message] of wrong) {
    writeFileSync(file, `${bottomUp(3)}\n${content}\n`)
    await t.rejects(all(file), { code: 'ERR_ARGUMENT', file, field, index: 1, message }, field)
  }
  await t.rejects(all(join(temporary(t), 'absent.tsv')), { code: 'ERR_ARGUMENT', message: /cannot be read/ })
})

t.test('NPZ files', async t => {
  const plain = await readRegionsNpz(npz('plain'))
  t.match(plain, { id: 'plain', imageWidth: 100, imageHeight: 80 })
  t.strictSame([...plain.features.data], FEATURES)
  t.strictSame([...plain.boxes.data], BOXES)
  const turned = await readRegionsNpz(npz('turned'))
  t.strictSame({ dims: turned.features.dims, data: [...turned.features.data] }, { dims: [2, 5], data: FEATURES.slice(0, 10) }, 'transposed, half precision, padded, compressed')
  t.strictSame([...turned.boxes.data], BOXES.slice(0, 8))
  const uniter = await readRegionsNpz(npz('uniter'))
  t.match(uniter, { imageWidth: 1, imageHeight: 1 })
  t.ok(Math.abs((uniter.boxes.data[2] as number) - 0.5) < 1e-3)
  await t.rejects(readRegionsNpz(npz('differs')), { code: 'ERR_CHECKPOINT', field: 'features', message: /features is \[3, 5\]; expected \[2, d\], as there are 2 boxes/ })
  const file = join(temporary(t), 'no.npz')
  writeFileSync(file, 'nothing of the kind, and a little longer than an end record')
  await t.rejects(readRegionsNpz(file), { code: 'ERR_CHECKPOINT', file })
})

t.test('inputs of models', async t => {
  const regions = [await readRegionsNpz(npz('plain')), await readRegionsNpz(npz('turned'))]
  const { visual_pos, visual_attention_mask, visual_feats } = regionInputs('lxmert', regions)
  t.strictSame(visual_feats!.dims, [2, 3, 5])
  t.strictSame([...visual_attention_mask!.data], [1n, 1n, 1n, 1n, 1n, 0n])
  t.strictSame([...visual_pos!.data.subarray(0, 4)], [0, 0.125, 0.5, 0.75])
  const words = new Tensor('int64', BigInt64Array.from([1n, 1n, 1n, 1n, 0n, 0n]), [2, 3])
  const uniter = regionInputs('uniter', regions, words)
  t.strictSame([...uniter['img_pos_feat']!.data.subarray(0, 7)], [0, 0.125, 0.5, 0.75, 0.5, 0.625, 0.3125])
  t.strictSame([...uniter['gather_index']!.data], [0n, 1n, 2n, 3n, 4n, 5n, 0n, 3n, 4n, 0n, 0n, 0n])
  t.strictSame([...uniter['attn_masks']!.data], [1n, 1n, 1n, 1n, 1n, 1n, 1n, 1n, 1n, 0n, 0n, 0n])
  const [first] = regions as [Regions]
  t.throws(() => regionInputs('lxmert', [{ ...first, boxes: new Tensor('float32', new Float32Array(8), [2, 4]) }]), { code: 'ERR_SHAPE', field: 'boxes', index: 0, message: /expected float32 \[3, 4\], one for each region/ })
  t.throws(() => regionInputs('vl-bert', regions), { code: 'ERR_UNSUPPORTED' })
  t.throws(() => regionInputs('lxmert', []), { code: 'ERR_ARGUMENT' })
})

t.test('a padded picture has the outputs that it has alone', async t => {
  await using model = await AutoModel.fromPretrained(fixture('uniter-first-masked'), { device: 'cpu', dtype: 'f32' })
  const picture = (count: number, seed: number): Regions => ({
    id: '',
    features: new Tensor('float32', Float32Array.from({ length: 12 * count }, (_, i) => Math.sin(i + seed)), [count, 12]),
    boxes: new Tensor('float32', Float32Array.from({ length: 4 * count }, (_, i) => 10 * (i % 4) + i), [count, 4]),
    imageWidth: 100,
    imageHeight: 90,
  })
  const run = (regions: Regions[], ids: bigint[][], mask: bigint[][]) => {
    const tensor = (rows: bigint[][]) => new Tensor('int64', BigInt64Array.from(rows.flat()), [rows.length, rows[0]!.length])
    return model.forward({ input_ids: tensor(ids), ...regionInputs('uniter', regions, tensor(mask)) }, { outputs: ['itm_logits'] })
  }
  const both = await run([picture(4, 1), picture(2, 9)], [[3n, 4n, 5n], [6n, 7n, 0n]], [[1n, 1n, 1n], [1n, 1n, 0n]])
  const alone = await run([picture(2, 9)], [[6n, 7n]], [[1n, 1n]])
  const second = new Tensor('float32', both['itm_logits']!.data.subarray(2) as Float32Array, [1, 2])
  t.equal(difference(second, alone['itm_logits']!).max, 0)
})
