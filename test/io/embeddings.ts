// Files of embeddings as the library writes and reads them; the command line's tests have all formats side by side.

import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import t from 'tap'
import { type EmbeddingSource, embeddingFormats, readEmbeddings, type RowBlock, writeEmbeddings } from '../../lib/io/embeddings.js'
import { temporary } from '../support/models.js'

const dimensions = 3
/** Blocks of two rows; with `breaks`, it throws in place of that one. */
function source(blocks: number, breaks?: number): EmbeddingSource {
  return {
    count: 2 * blocks,
    dimensions,
    metadata: { model: 'none' },
    async *blocks(): AsyncGenerator<RowBlock> {
      for (let block = 0; block < blocks; block++) {
        if (block === breaks) throw new Error('the source broke')
        const items = [`a line\u2028in ${block}`, `"${block}"\n`]
        yield { items, rows: Float32Array.from({ length: 2 * dimensions }, (_, i) => block + i / 7) }
      }
    },
  }
}

// The tests' loader does not find hyparquet-writer's imports.
for (const extension of embeddingFormats().filter((format) => format !== '.parquet')) {
  t.test(extension, async (t) => {
    const file = join(temporary(t), `rows${extension}`)
    await writeEmbeddings(file, source(5))
    const { items, embeddings, metadata } = await readEmbeddings(file)
    t.same(items.slice(0, 3), ['a line\u2028in 0', '"0"\n', 'a line\u2028in 1'], 'whatever stands in a name')
    t.same(embeddings.dims, [10, dimensions])
    t.equal((embeddings.data as Float32Array)[29], Math.fround(4 + 5 / 7))
    t.match(metadata, { model: 'none' })
    const broken = join(temporary(t), `broken${extension}`)
    await t.rejects(writeEmbeddings(broken, source(5, 3)), /the source broke/)
    t.equal(existsSync(broken), false, 'nothing that is not whole')
    await t.rejects(writeEmbeddings(file, source(4, 3)), /the source broke/)
    t.same(await readEmbeddings(file), { items, embeddings, metadata }, 'what was there before is, with all that belongs to it')
    t.same((await readdir(dirname(file))).filter((name) => name.endsWith('.tmp')), [])
  })
}
