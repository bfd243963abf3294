// How speed depends on size: images/s over the batch, texts/s over the length, queries/s over corpus and dimensions. A Markdown table each.
//   npm run bench:scaling -- [--clip DIR] [--minilm DIR] [--dtype bf16] [--rounds 7]
// DIR: checkpoints; without one its table is left out. Figures are medians of the rounds, in which the sizes take turns.

import { parseArgs } from 'node:util'
import { AutoModel, Tensor, VectorIndex } from '../dist/index.js'

const { values: options } = parseArgs({
  options: {
    clip: { type: 'string' },
    minilm: { type: 'string' },
    dtype: { type: 'string', default: 'auto' },
    rounds: { type: 'string', default: '7' },
  },
})
const rounds = Number(options.rounds)
/** Each turn takes about so many seconds. */
const TURN = 0.15

const median = values => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]
const shown = rate => (rate >= 100 ? Math.round(rate).toLocaleString('en-US') : rate.toFixed(1))

/** @param works for each size what does `items` of them */
async function rates(works) {
  const seconds = async ({ work }, times) => {
    const began = performance.now()
    for (let i = 0; i < times; i++) await work()
    return (performance.now() - began) / 1000
  }
  const times = []
  for (const one of works) {
    await seconds(one, 1)
    times.push(Math.max(1, Math.round(TURN / (await seconds(one, 1)))))
  }
  const found = works.map(() => [])
  for (let round = 0; round < rounds; round++) {
    for (const [i, one] of works.entries()) found[i].push((one.items * times[i]) / (await seconds(one, times[i])))
  }
  return found.map(median)
}

function print(title, heads, rows) {
  console.log(`**${title}**\n\n| ${heads.join(' | ')} |\n|${' ---: |'.repeat(heads.length)}`)
  for (const row of rows) console.log(`| ${row.join(' | ')} |`)
  console.log('')
}

async function images() {
  const model = await AutoModel.fromPretrained(options.clip, { device: 'cpu', dtype: options.dtype })
  const { height, width } = model.imageEncoder.size
  const batches = [1, 2, 4, 8, 16, 32, 64]
  const pixels = new Uint8Array(64 * height * width * 3).map((_, i) => (i * 31) % 251)
  const works = batches.map(items => ({ items, work: () => model.imageEncoder.encode(pixels.subarray(0, items * height * width * 3), items) }))
  const found = await rates(works)
  print(`Image tower, ${model.dtype}`, ['batch', 'images/s'], batches.map((batch, i) => [batch, shown(found[i])]))
  await model.dispose()
}

async function texts() {
  const model = await AutoModel.fromPretrained(options.minilm, { device: 'cpu', dtype: options.dtype })
  const lengths = [4, 8, 16, 32, 64, 128, 256]
  const works = lengths.map(length => {
    const sequences = Array.from({ length: Math.max(4, 2048 / length) }, (_, text) => Int32Array.from({ length }, (_, i) => 1000 + ((text * 31 + i * 7) % 20000)))
    return { items: sequences.length, work: () => model.textEncoder.encode(sequences) }
  })
  const found = await rates(works)
  print(`Text encoder, ${model.dtype}`, ['tokens a text', 'texts/s', 'tokens/s'], lengths.map((length, i) => [length, shown(found[i]), shown(found[i] * length)]))
  await model.dispose()
}

async function search() {
  const rows = []
  for (const [size, dimensions] of [[1000, 512], [10_000, 512], [100_000, 512], [1_000_000, 512], [100_000, 128], [100_000, 384], [100_000, 1024]]) {
    const found = []
    for (const dtype of ['f32', 'bf16', 'int8']) {
      const index = await VectorIndex.create({ dimensions, dtype, device: 'cpu' })
      // The same thousand rows again and again, each time turned a little: values do not matter to speed.
      const some = Float32Array.from({ length: 1000 * dimensions }, (_, i) => Math.sin(i * 1.7) + Math.cos(i * 0.3))
      for (let i = 0; i < size; i += 1000) {
        some[i % some.length] += 0.01
        await index.add(new Tensor('float32', some, [1000, dimensions]))
      }
      const works = [1, 64].map(count => {
        const queries = new Tensor('float32', some.slice(0, count * dimensions), [count, dimensions])
        return { items: count, work: () => index.search(queries, 10) }
      })
      found.push(...(await rates(works)))
      await index.dispose()
    }
    rows.push([size.toLocaleString('en-US'), dimensions, ...found.map(shown)])
  }
  print('Exact search, queries/s one at a time and 64 at once', ['rows', 'dimensions', ...['f32', 'bf16', 'int8'].flatMap(dtype => [`${dtype}, 1`, `${dtype}, 64`])], rows)
}

if (options.clip) await images()
if (options.minilm) await texts()
await search()
