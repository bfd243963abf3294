// sentence-transformers folders of every form against that library: poolings side by side, layers behind them, prompts that are left out, CLIP
// inside, older layouts. CHIASMA_SENTENCES names a folder of more (test/references/make_sentence_fixtures.py makes one).

import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Embedder } from '../../lib/embed/embedder.js'

interface Call {
  texts: string[]
  rows: number[][]
  prompt?: string
  promptName?: string
}

const own = join(dirname(dirname(fileURLToPath(import.meta.url))), 'fixtures', 'sentence-transformers')
const folders = [own, process.env['CHIASMA_SENTENCES']].flatMap(root => (root ? readdirSync(root).map(name => join(root, name)) : []))

for (const folder of folders) {
  await t.test(folder.slice(folder.lastIndexOf('/') + 1), async t => {
    await using embedder = await Embedder.fromPretrained(folder, { dtype: 'f32', device: 'cpu' })
    for (const { texts, rows, ...options } of JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as Call[]) {
      const normalize = rows.every(row => Math.abs(Math.hypot(...row) - 1) < 1e-5)
      const { data, dims } = await embedder.embedTexts(texts, { ...options, normalize })
      const width = rows[0]!.length
      t.strictSame(dims, [texts.length, width])
      rows.forEach((row, r) => {
        const off = Math.max(...row.map((value, c) => Math.abs(value - (data[r * width + c] as number))))
        t.ok(off < 2e-5, `${JSON.stringify(options)} text ${r} is off by ${off}`)
      })
    }
  })
}

t.test('pictures of CLIP in a folder of its own', async t => {
  await using embedder = await Embedder.fromPretrained(join(own, 'clip-older'), { dtype: 'f32', device: 'cpu' })
  const pixels = Uint8Array.from({ length: 40 * 30 * 3 }, (_, i) => (i * 37) % 256)
  const [image, text] = [await embedder.embedImages([{ data: pixels, width: 40, height: 30, channels: 3 }]), await embedder.embedTexts(['a cat'])]
  t.strictSame([image.dims, text.dims], [[1, 20], [1, 20]])
})

t.test('a prompt that fills the text leaves the last token to pool', async t => {
  await using embedder = await Embedder.fromPretrained(join(own, 'prompts-left-out-several'), { dtype: 'f32', device: 'cpu' })
  for (const options of [{ prompt: 'word '.repeat(100) }, { promptName: 'doc', maxLength: 4 }]) {
    const { data, dims } = await embedder.embedTexts(['a', 'b'], { ...options, normalize: false })
    const width = dims[1]! / 3
    const part = (row: number, pooling: number) => Array.from(data as Float32Array).slice((row * 3 + pooling) * width, (row * 3 + pooling + 1) * width)
    t.ok(part(0, 0).every(value => Number.isFinite(value) && value !== 0))
    // Of one row every mean is that row.
    for (const [row, pooling] of [[0, 1], [0, 2], [1, 0]] as const) t.ok(part(row, pooling).every((value, i) => Math.abs(value - part(0, 0)[i]!) < 1e-6), `${row} ${pooling}`)
  }
})
