import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { ArgumentError, CheckpointError, DisposedError, ShapeError, memoryUsage, Tensor, VectorIndex } from '../../lib/index.js'
import { temporaryFolder } from '../support/tiny-clip.js'

const { folder, remove } = await temporaryFolder()
t.teardown(remove)

/** Rows of numbers that any machine makes alike. */
function rows(n: number, d: number, seed = 1): Tensor {
  let state = seed
  const data = Float32Array.from({ length: n * d }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 31 - 1
  })
  return new Tensor('float32', data, [n, d])
}

/** Cosines in float64, best first, ties to the lower index. */
function nearest(query: Float32Array, corpus: Float32Array, d: number, k: number): { index: number; score: number }[] {
  const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, i) => sum + x * b[i]!, 0)
  const scores = Array.from({ length: corpus.length / d }, (_, index) => {
    const row = corpus.subarray(index * d, (index + 1) * d)
    return { index, score: dot(query, row) / Math.sqrt(dot(query, query) * dot(row, row)) }
  })
  return scores.sort((a, b) => b.score - a.score || a.index - b.index).slice(0, k)
}

for (const [dtype, tolerance] of [['f32', 1e-5], ['bf16', 0.01], ['int8', 0.02]] as const) {
  t.test(`${dtype}: added in pieces, searched, saved and loaded`, async (t) => {
    const d = 48
    const corpus = rows(1000, d)
    await using index = await VectorIndex.create({ dimensions: d, dtype })
    const piece = (from: number, to: number) => new Tensor('float32', (corpus.data as Float32Array).slice(from * d, to * d), [to - from, d])
    const ids = Array.from({ length: 1000 }, (_, i) => `item ${i}`)
    for (const [from, to] of [[0, 1], [1, 1], [1, 700], [700, 1000]] as const) {
      await index.add(piece(from, to), ids.slice(from, to))
      // Searching between, so that the last segment is uploaded more than once.
      t.equal((await index.search(piece(0, 1), 1))[0]![0]!.index, 0)
    }
    t.equal(index.size, 1000)
    const queries = rows(5, d, 7)
    const found = await index.search(queries, 10)
    for (const [q, hits] of found.entries()) {
      const expected = nearest((queries.data as Float32Array).subarray(q * d, (q + 1) * d), corpus.data as Float32Array, d, 10)
      t.equal(hits.length, 10)
      for (const [i, hit] of hits.entries()) {
        t.ok(Math.abs(hit.score - expected[i]!.score) < tolerance, `score ${hit.score} is near ${expected[i]!.score}`)
        t.equal(hit.id, `item ${hit.index}`)
        if (dtype === 'f32') t.equal(hit.index, expected[i]!.index)
      }
    }
    const path = join(folder, `${dtype}.index`)
    await index.save(path)
    await using loaded = await VectorIndex.load(path)
    t.match(loaded, { size: 1000, dimensions: d, dtype })
    t.same(await loaded.search(queries, 10), found, 'a loaded index gives the same bits')
    const [alone] = await loaded.search(new Tensor('float32', (queries.data as Float32Array).slice(2 * d, 3 * d), [1, d]), 10)
    t.same(alone, found[2], 'so does a query on its own')
  })
}

t.test('rows are in one place: on the device once they have been searched', async (t) => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const hostBytes = async () => {
    for (let i = 0; i < 3; i++) {
      collect()
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    return process.memoryUsage().arrayBuffers
  }
  const [n, d] = [36_000, 512] // more than is read back
  const bytes = n * d * 4
  const before = await hostBytes()
  const index = await VectorIndex.create({ dimensions: d })
  const corpus = new Tensor('float32', new Float32Array(n * d), [n, d])
  for (let row = 0; row < n; row++) corpus.data[row * d + (row % d)] = 1 + row
  await index.add(corpus)
  structuredClone(corpus.data.buffer, { transfer: [corpus.data.buffer as ArrayBuffer] })
  const query = new Tensor('float32', new Float32Array(d), [1, d])
  query.data[7] = 1
  const first = [{ index: 7, score: 1 }, { index: 7 + d, score: 1 }]
  t.same((await index.search(query, 2))[0], first)
  t.ok((await hostBytes()) - before < bytes / 8, 'none on the host')
  const used = memoryUsage()['cpu']!.weights
  t.ok(used >= bytes && used < 1.1 * bytes, `${used} bytes on the device for ${bytes} of rows`)
  await index.add(rows(3, d))
  t.same((await index.search(query, 2))[0], first, 'rows added to those on the device')
  t.equal(index.size, n + 3)
  const path = join(folder, 'large.index')
  await index.save(path)
  await index.dispose()
  const held = await hostBytes()
  const loaded = await VectorIndex.load(path)
  t.ok((await hostBytes()) - held < bytes / 8, 'loaded straight onto the device')
  t.same((await loaded.search(query, 2))[0], first)
  t.same((await loaded.search(rows(1, d), 1))[0]!.map(({ index }) => index), [n])
  const broken = rows(34_000, d, 3)
  broken.data[33_999 * d] = Number.NaN
  await t.rejects(loaded.add(broken), { name: 'ArgumentError', index: 33_999 })
  t.equal(loaded.size, n + 3, 'all rows of a call or none')
  t.same((await loaded.search(query, 2))[0], first)
  await loaded.dispose()
})

t.test('many queries for many hits each, which are several runs', async (t) => {
  const [n, d, m, k] = [5000, 8, 300, 4500]
  await using index = await VectorIndex.create({ dimensions: d })
  await index.add(rows(n, d))
  const queries = rows(m, d, 7)
  const found = await index.search(queries, k)
  t.equal(found.length, m)
  for (const q of [0, 231, 232, 233, 299]) {
    const [alone] = await index.search(new Tensor('float32', (queries.data as Float32Array).slice(q * d, (q + 1) * d), [1, d]), k)
    t.same(found[q], alone, `query ${q}`)
  }
})

t.test('several segments: best first, ties to the lower index', async (t) => {
  const d = 1 << 18
  const [n, kinds] = [40, 7] // rows of a MiB
  const unit = (kind: number, row: Float32Array) => (row[kind * 1000] = 1)
  await using index = await VectorIndex.create({ dimensions: d })
  const data = new Float32Array(n * d)
  for (let i = 0; i < n; i++) unit(i % kinds, data.subarray(i * d, (i + 1) * d))
  const queries = new Float32Array(2 * d)
  for (const [from, to] of [[0, 17], [17, 35], [35, n]] as const) {
    await index.add(new Tensor('float32', data.subarray(from * d, to * d), [to - from, d]))
    await index.search(new Tensor('float32', queries, [2, d]), 1) // more rows would go into a segment of their own
  }
  unit(3, queries)
  unit(5, queries.subarray(d))
  for (const k of [1, 4, 12, n, n + 5]) {
    const found = await index.search(new Tensor('float32', queries, [2, d]), k)
    for (const [q, kind] of [3, 5].entries()) {
      const all = Array.from({ length: n }, (_, i) => ({ index: i, score: i % kinds === kind ? 1 : 0 }))
      t.same(found[q], all.sort((a, b) => b.score - a.score).slice(0, k), `k ${k}`)
    }
  }
  const many = 130 // more than a segment holds
  const more = new Float32Array(many * d)
  more[(many - 1) * d] = Number.NaN
  await t.rejects(index.add(new Tensor('float32', more, [many, d])), { name: 'ArgumentError', index: many - 1 })
  t.equal(index.size, n, 'all rows of a call or none')
  unit(99, more.subarray(0, d))
  more[(many - 1) * d] = 0
  unit(99, more.subarray((many - 1) * d))
  await index.add(new Tensor('float32', more, [many, d]))
  queries.fill(0)
  unit(99, queries)
  const [found] = await index.search(new Tensor('float32', queries, [2, d]), 3)
  t.same(found, [{ index: n, score: 1 }, { index: n + many - 1, score: 1 }, { index: 0, score: 0 }], 'rows of one call in several segments')
})

t.test('an index says what made its rows', async (t) => {
  const file = join(folder, 'made.safetensors')
  await using index = await VectorIndex.create({ dimensions: 4, model: 'one' })
  await index.add(rows(3, 4))
  await index.save(file)
  await t.rejects(VectorIndex.load(file, { model: 'two' }), { constructor: ArgumentError, message: `[VectorIndex.load] ${file} holds vectors of one; model is two` })
  for (const options of [{}, { model: 'one' }]) {
    await using loaded = await VectorIndex.load(file, options)
    t.equal(loaded.model, 'one')
    t.equal(loaded.size, 3)
  }
  const unnamed = join(folder, 'unnamed.safetensors')
  await using plain = await VectorIndex.create({ dimensions: 4 })
  await plain.add(rows(3, 4))
  await plain.save(unnamed)
  await using taken = await VectorIndex.load(unnamed, { model: 'two' })
  t.equal(taken.model, undefined, 'what made it is not known, and not made up')
})

t.test('edges', async (t) => {
  await using index = await VectorIndex.create({ dimensions: 3 })
  t.same(await index.search(rows(2, 3), 5), [[], []], 'an empty index has no hits')
  await index.add(new Tensor('float32', new Float32Array([1, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0]), [4, 3]))
  const [hits] = await index.search(new Tensor('float32', new Float32Array([3, 0, 0]), [1, 3]), 10)
  t.same(hits, [{ index: 0, score: 1 }, { index: 2, score: 1 }, { index: 3, score: 1 }, { index: 1, score: 0 }], 'ties go to the lower index, a zero row scores 0')
  t.same(await index.search(new Tensor('float32', new Float32Array(0), [0, 3]), 1), [])
  await t.rejects(index.search(new Tensor('float32', new Float32Array([1, 0, 0, 0, Infinity, 0]), [2, 3]), 1), { name: 'ArgumentError', index: 1, message: /query 1 holds Infinity at 1/ })
  await using larger = await VectorIndex.create({ dimensions: 3 })
  await larger.add(rows(60, 3))
  const [every] = await larger.search(rows(1, 3), 60)
  for (const k of [1, 2, 3, 5, 9, 10, 11, 20, 33, 50, 59, 61]) t.same((await larger.search(rows(1, 3), k))[0], every!.slice(0, k), `the first ${k}`)
  const both = await Promise.all([index.add(rows(10, 3)), index.search(rows(1, 3), 20), index.add(rows(10, 3))])
  t.equal(both[1][0]!.length, 14, 'a search sees the additions before it, whole')
})

t.test('wrong input', async (t) => {
  await t.rejects(VectorIndex.create({ dimensions: 0 }), ArgumentError)
  await t.rejects(VectorIndex.create({ dimensions: 3, dtype: 'f64' as 'f32' }), ArgumentError)
  const index = await VectorIndex.create({ dimensions: 3 })
  await t.rejects(index.add(rows(2, 4)), ShapeError)
  await t.rejects(index.add(rows(2, 3), ['one']), ArgumentError)
  await t.rejects(index.add(new Tensor('float32', new Float32Array([0, Number.NaN, 0]), [1, 3])), { name: 'ArgumentError', index: 0 })
  for (const k of [0, -1, 1.5, NaN, '3', undefined]) await t.rejects(index.search(rows(1, 3), k as number), { name: 'ArgumentError', field: 'k' })
  t.same(await index.search(rows(1, 3), Number.MAX_SAFE_INTEGER), [[]])
  await t.rejects(index.add(rows(1, 3), 'a' as unknown as string[]), { name: 'ArgumentError', field: 'ids' })
  await t.rejects(index.add(rows(1, 3), [5] as unknown as string[]), { name: 'ArgumentError', field: 'ids' })
  await t.rejects(index.save(undefined as unknown as string), { name: 'ArgumentError', field: 'path' })
  t.equal(index.size, 0, 'nothing was added')
  await writeFile(join(folder, 'broken.index'), 'no index')
  await t.rejects(VectorIndex.load(join(folder, 'broken.index')), CheckpointError)
  await t.rejects(VectorIndex.load(join(folder, 'absent.index')), CheckpointError)
  await index.dispose()
  await t.rejects(index.search(rows(1, 3), 1), DisposedError)
  await index.dispose()
})
