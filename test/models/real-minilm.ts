// A real sentence encoder on the STS benchmark against the reference's own cosines and embeddings, and human scores.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { AutoTokenizer } from '../../lib/data/tokenizer.js'
import { readTensors } from '../../lib/io/safetensors.js'
import { AutoModel } from '../../lib/models/auto-model.js'
import { noShared, shared } from '../shared.js'
import { difference } from '../support/models.js'

t.test('MiniLM on the STS benchmark', { skip: noShared, timeout: 240_000 }, async t => {
  const folder = shared('models', 'all-minilm-l6-v2')
  const lines = readFileSync(shared('data', 'sts', 'dev.jsonl'), 'utf8').trim().split('\n')
  const pairs = lines.map(line => JSON.parse(line) as { a: string; b: string; score: number })
  const reference = await readTensors(shared('data', 'sts', 'dev.reference.safetensors'))
  const tokenizer = await AutoTokenizer.fromPretrained(folder)
  for (const dtype of ['f32', 'bf16', 'int8']) {
    await using model = await AutoModel.fromPretrained(folder, { dtype, device: 'cpu' })
    t.strictSame(model.unusedTensors, ['embeddings.position_ids'])
    const { dimensions, maxLength } = model.textEncoder!
    t.equal(maxLength, 256)
    const embed = async (texts: string[]) => normalized(await model.textEncoder!.encode(await tokenizer.encodeAll(texts, { maxLength })), dimensions)
    const [a, b] = [await embed(pairs.map(pair => pair.a)), await embed(pairs.map(pair => pair.b))]
    const cosines = pairs.map((_, i) => {
      let dot = 0
      for (let c = 0; c < dimensions; c++) dot += a[i * dimensions + c]! * b[i * dimensions + c]!
      return dot
    })
    const off = Math.max(...cosines.map((cosine, i) => Math.abs(cosine - (reference['cosine']!.data[i] as number))))
    const correlation = spearman(cosines, pairs.map(pair => pair.score))
    const first = reference['embeddings_a']!
    const { max, cosine } = difference(new Tensor('float32', a.slice(0, first.size), first.dims), first)
    t.comment(`${dtype}: Spearman ${correlation}, cosines off by ${off}, embeddings off by ${max}`)
    t.ok(Math.abs(correlation - 0.8672) <= (dtype === 'f32' ? 0.0002 : 0.002), `Spearman ${correlation}`)
    if (dtype === 'f32') {
      t.ok(off <= 1e-5, `cosines off by ${off}`)
      t.ok(max <= 1e-5, `embeddings off by ${max}`)
    } else t.ok(cosine >= (dtype === 'bf16' ? 0.998 : 0.99), `embeddings' cosine ${cosine}`)
  }
})

function normalized(data: Float32Array, width: number): Float32Array {
  const out = data.slice()
  for (let at = 0; at < out.length; at += width) {
    const row = out.subarray(at, at + width)
    const norm = Math.hypot(...row)
    for (let c = 0; c < width; c++) row[c]! /= norm
  }
  return out
}

/** Correlation of ranks; equal values share the mean of their ranks. */
function spearman(x: readonly number[], y: readonly number[]): number {
  const [a, b] = [ranks(x), ranks(y)]
  const middle = (x.length - 1) / 2
  let [ab, aa, bb] = [0, 0, 0]
  for (let i = 0; i < a.length; i++) {
    ab += (a[i]! - middle) * (b[i]! - middle)
    aa += (a[i]! - middle) ** 2
    bb += (b[i]! - middle) ** 2
  }
  return ab / Math.sqrt(aa * bb)
}

function ranks(values: readonly number[]): number[] {
  const order = [...values.keys()].sort((i, j) => values[i]! - values[j]!)
  const result = new Array<number>(values.length)
  for (let from = 0; from < order.length; ) {
    let to = from + 1
    while (to < order.length && values[order[to]!] === values[order[from]!]) ++to
    for (let i = from; i < to; i++) result[order[i]!] = (from + to - 1) / 2
    from = to
  }
  return result
}
