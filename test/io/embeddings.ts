// Files of embeddings as the library writes and reads them; the command line's tests have all formats side by side.

import { existsSync } from 'node:fs'
import { readdir, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import t from 'tap'
import { CheckpointError } from '../../lib/core/errors.js'
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

t.test('.arrow: damaged, cut, and of other columns', async (t) => {
  const file = join(temporary(t), 'rows.arrow')
  await writeEmbeddings(file, source(3))
  const whole = await readFile(file)
  const refused = async (bytes: Uint8Array, message: RegExp, what: string) => {
    await writeFile(file, bytes)
    await t.rejects(readEmbeddings(file), { name: 'CheckpointError', file, message }, what)
  }
  for (const length of [0, 1]) await refused(whole.subarray(0, length), /rows\.arrow has . bytes, and is no Arrow file/, `${length} bytes`)
  for (const length of [11, 12, 100, whole.length - 1]) await refused(whole.subarray(0, length), /rows\.arrow is cut off/, `${length} bytes`)
  for (const bytes of [Buffer.alloc(100), Buffer.from('these are no rows\n'.repeat(50)), Buffer.alloc(100, 0xff)]) await refused(bytes, /rows\.arrow (cannot be read as Arrow|has the columns)/, 'no Arrow')
  const { Float32, Schema, Field, Table, vectorFromArray, tableFromIPC, tableToIPC } = await import('apache-arrow')
  const other = new Table(new Schema([new Field('a', new Float32())]), { a: vectorFromArray([1, 2], new Float32()) })
  await writeFile(file, tableToIPC(tableFromIPC(whole), 'stream'))
  t.equal((await readEmbeddings(file)).items.length, 6, 'a stream, as other programs write it')
  await refused(tableToIPC(other, 'file'), /rows\.arrow has the columns a; expected item and embedding/, 'other columns')
  // Its footer alone: with some lengths of messages Arrow's own library goes round for ever.
  for (let at = whole.length - 250; at < whole.length - 6; at += 5) {
    const altered = Buffer.from(whole)
    altered.fill(0xff, at, Math.min(at + 4, whole.length - 6))
    await writeFile(file, altered)
    await readEmbeddings(file).catch((error: unknown) => {
      if (!(error instanceof CheckpointError) || error.file !== file) t.fail(`altered at ${at}: ${String((error as Error).stack)}`)
    })
  }
})

t.test('the file itself is missed before what stands beside it', async (t) => {
  for (const extension of embeddingFormats()) {
    const file = join(temporary(t), `absent${extension}`)
    await t.rejects(readEmbeddings(file), { name: 'CheckpointError', file }, extension)
  }
})

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
