// The public `ops` on host tensors: against the float64 references, also where a call is cut into several runs.

import t from 'tap'
import { type DataType, ops, Tensor } from '../lib/index.js'
import { mismatch, normals, numbersOf, tensorOf } from './op-runner.js'
import { type RefArray, references, roundTo, sizeOf } from './reference/index.js'

const next = normals(11)
const random = (shape: number[], dtype: DataType = 'float32'): RefArray => ({
  shape,
  data: Float64Array.from({ length: sizeOf(shape) }, () => roundTo(next(), dtype)),
  dtype,
})
const bytes = (shape: number[]): RefArray => ({ shape, data: Float64Array.from({ length: sizeOf(shape) }, (_, i) => (i * 73 + (i >> 9)) % 256), dtype: 'uint8' })
const rows = (x: RefArray): RefArray => ({ ...x, shape: [sizeOf(x.shape.slice(0, -1)), x.shape.at(-1)!] })
const shaped = (x: RefArray, shape: readonly number[]): RefArray => ({ ...x, shape })
const f32 = 2e-5
const bf16 = 1e-2

t.test('attention', async (t) => {
  const cases: [string, number[], number[], object][] = [
    ['self', [2, 3, 7, 16], [2, 3, 7, 16], {}],
    ['causal', [1, 2, 9, 8], [1, 2, 9, 8], { causal: true }],
    ['cross, scaled', [2, 1, 3, 8], [2, 1, 11, 8], { scale: 0.2 }],
    ['more than one run', [3, 3, 16, 32], [3, 3, 4000, 32], {}],
    ['nothing', [0, 3, 7, 16], [0, 3, 7, 16], {}],
  ]
  for (const [title, queries, keys, options] of cases) {
    const [q, k, v] = [random(queries), random(keys), random(keys)]
    const attributes = { heads: 1, scale: 1 / Math.sqrt(queries[3]!), causal: false, queryLength: queries[2], keyLength: keys[2], ...options }
    const [expected] = references.attention([rows(q), rows(k), rows(v)], attributes)
    for (const dtype of ['f32', 'bf16'] as const) {
      const y = await ops.attention(tensorOf(q), tensorOf(k), tensorOf(v), { ...options, dtype, device: 'cpu' })
      t.equal(y.type, 'float32')
      t.equal(mismatch(y, shaped(expected!, queries), dtype === 'f32' ? f32 : 3 * bf16), undefined, `${title} ${dtype}`)
    }
  }
  const none = await ops.attention(tensorOf(random([1, 2, 3, 8])), tensorOf(random([1, 2, 0, 8])), tensorOf(random([1, 2, 0, 8])))
  t.same(none.dims, [1, 2, 3, 8])
  t.ok((none.data as Float32Array).every((x) => x === 0), 'zeros where there are no keys')
  const [q, k, v] = [random([2, 2, 9, 8]), random([2, 2, 9, 8]), random([2, 2, 9, 8])]
  const cu = { shape: [13], data: Float64Array.of(0, 4, 5, 9, 13, 14, 18, 22, 23, 27, 31, 32, 36), dtype: 'int32' } as const
  const [expected] = references.attention([rows(q), rows(k), rows(v), cu, cu], { heads: 1, scale: 1 / Math.sqrt(8), causal: true })
  const cuSeqlens = new Tensor('int32', Int32Array.of(0, 4, 5, 9), [4])
  const y = await ops.attention(tensorOf(q), tensorOf(k), tensorOf(v), { cuSeqlens, causal: true })
  t.equal(mismatch(y, shaped(expected!, q.shape), f32), undefined, 'sequences in every batch and head')
  const half = [random([1, 1, 5, 8], 'bfloat16'), random([1, 1, 5, 8], 'bfloat16'), random([1, 1, 5, 8])] as const
  const [mixed] = references.attention(half.map(rows), { heads: 1, scale: 1 / Math.sqrt(8), queryLength: 5, keyLength: 5 })
  t.equal(mismatch(await ops.attention(...(half.map(tensorOf) as [Tensor, Tensor, Tensor])), shaped(mixed!, [1, 1, 5, 8]), f32), undefined, 'bfloat16 tensors')
})

t.test('patchEmbed', async (t) => {
  const imagenet = { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }
  const plain = { mean: [0, 0, 0], std: [1, 1, 1] }
  const tokens = (n: number, C: number) => ({ bias: random([C]), classToken: random([C]), positionEmbedding: random([n, C]) })
  const cases: [string, RefArray, RefArray, Record<string, RefArray>, object][] = [
    ['uint8', bytes([3, 12, 16, 3]), random([7, 3, 4, 4]), tokens(13, 7), imagenet],
    ['float32', random([2, 3, 8, 8]), random([9, 48]), tokens(5, 9), {}],
    ['no extras', bytes([1, 8, 8, 3]), random([5, 3, 8, 8]), {}, plain],
    ['more than one run', bytes([60, 224, 224, 3]), random([3, 3, 32, 32]), tokens(50, 3), imagenet],
    ['no pictures', bytes([0, 8, 8, 3]), random([5, 3, 8, 8]), {}, imagenet],
  ]
  for (const [title, images, weight, extras, options] of cases) {
    const [B, C] = [images.shape[0]!, weight.shape[0]!]
    const patch = weight.shape.length === 4 ? weight.shape[2]! : 4
    const flat = shaped(weight, [C, 3 * patch * patch])
    const [expected] = references.patchEmbed([images, flat, extras['bias'], extras['classToken'], extras['positionEmbedding']], { patch, rescale: 1 / 255, ...plain, ...options })
    const tensors = Object.fromEntries(Object.entries(extras).map(([name, value]) => [name, tensorOf(value)]))
    const y = await ops.patchEmbed(tensorOf(images), tensorOf(weight), { ...tensors, ...options })
    const count = images.shape[0] === 0 ? 1 : expected!.shape[0]! / B
    t.equal(mismatch(y, shaped(expected!, [B, count, C]), 5 * f32), undefined, title)
    const low = await ops.patchEmbed(tensorOf(images), tensorOf(weight), { ...tensors, ...options, dtype: 'bf16' })
    t.equal(mismatch(low, shaped(expected!, [B, count, C]), Math.sqrt(patch * patch * 3) * 2 ** -7), undefined, `${title} bf16`)
  }
  const checkpoint = { classToken: tensorOf(random([1, 1, 6])), positionEmbedding: tensorOf(random([1, 5, 6])) }
  t.same((await ops.patchEmbed(tensorOf(bytes([2, 8, 8, 3])), tensorOf(random([6, 3, 4, 4])), checkpoint)).dims, [2, 5, 6], 'shapes as checkpoints have them')
})

t.test('cosineSimilarity', async (t) => {
  for (const [m, n, d] of [[1, 1, 1], [5, 7, 13], [0, 4, 3], [2500, 1200, 8]] as const) {
    const [a, b] = [random([m, d]), random([n, d])]
    if (m > 1) a.data.fill(0, 0, d)
    const [normalA, normalB] = [a, b].map((x) => references.l2Normalize([x], { eps: 1e-12 })[0]!)
    const [expected] = references.matmul([normalA, normalB], { scale: 1 })
    t.equal(mismatch(await ops.cosineSimilarity(tensorOf(a), tensorOf(b)), expected!, 1e-6), undefined, `[${m}, ${d}] with [${n}, ${d}]`)
    t.equal(mismatch(await ops.cosineSimilarity(tensorOf(a), tensorOf(b), { dtype: 'bf16' }), expected!, bf16), undefined, 'bf16')
  }
})

t.test('cosineTopK', async (t) => {
  const queries = random([3, 64])
  const corpus = random([40_000, 64]) // more than one run
  corpus.data.copyWithin(39_000 * 64, 100 * 64, 101 * 64)
  corpus.data.copyWithin(200 * 64, 38_000 * 64, 38_001 * 64)
  queries.data.set(corpus.data.subarray(100 * 64, 101 * 64), 0)
  queries.data.set(corpus.data.subarray(38_000 * 64, 38_001 * 64), 64)
  corpus.data[17] = NaN
  const [scores, indices] = references.cosineTopK([queries, corpus], { k: 20 })
  const found = await ops.cosineTopK(tensorOf(queries), tensorOf(corpus), 20)
  t.equal(mismatch(found.scores, scores!, 2e-6), undefined, 'scores')
  t.same([...found.indices.data], [...indices!.data], 'indices')
  t.same([...found.indices.data.subarray(0, 2)], [100, 39_000], 'a tie across runs goes to the lower index')
  t.same([...found.indices.data.subarray(20, 22)], [200, 38_000])
  t.equal(found.indices.type, 'int32')

  const small = random([4, 64])
  small.data.fill(NaN, 64, 65)
  const all = await ops.cosineTopK(tensorOf(queries), tensorOf(small), 6)
  t.same([...all.indices.data.subarray(3, 6)], [1, -1, -1], 'NaN after all scores, then nothing')
  t.same([...numbersOf(all.scores).subarray(3, 6)], [NaN, -Infinity, -Infinity])
  const none = await ops.cosineTopK(tensorOf(queries), tensorOf(random([0, 64])), 2)
  t.same([none.scores.dims, [...none.indices.data]], [[3, 2], [-1, -1, -1, -1, -1, -1]])
  const int8: RefArray = { ...corpus, shape: [300, 64], data: corpus.data.subarray(64, 301 * 64).map((value) => Math.round(value * 30)), dtype: 'int8' }
  const coarse = await ops.cosineTopK(tensorOf(queries), tensorOf(int8), 3)
  t.equal(mismatch(coarse.scores, references.cosineTopK([queries, int8], { k: 3 })[0]!, 2e-6), undefined, 'int8')
  const low = await ops.cosineTopK(tensorOf(queries), tensorOf(random([30, 64])), 3, { dtype: 'bf16' })
  t.same(low.scores.dims, [3, 3])
})
