import t from 'tap'
import { linesOf, rawLinesOf } from '../../lib/io/lines.js'

/** The bytes of a text, so many at a time. */
async function* chunks(text: string, size: number): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text)
  for (let begin = 0; begin < bytes.length; begin += size) yield bytes.subarray(begin, begin + size)
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const found: T[] = []
  for await (const item of items) found.push(item)
  return found
}

t.test('lines, however the bytes come', async (t) => {
  const text = '\ufefffirst\r\n\nd\u00e9j\u00e0 \u2028 vu \u{1f600}\n  \r\nlast'
  for (const size of [1, 2, 3, 7, 1000]) {
    t.same(await all(linesOf(chunks(text, size))), ['first', '', 'd\u00e9j\u00e0 \u2028 vu \u{1f600}', '  ', 'last'], `${size} bytes at a time`)
    t.same(Buffer.concat(await all(rawLinesOf(chunks(text, size)))).toString(), text, 'raw lines are all there is')
  }
  t.same(await all(linesOf(chunks('one\n', 2))), ['one'], 'nothing after the last end')
  t.same(await all(linesOf(chunks('', 2))), [])
  t.equal((await all(linesOf(chunks('a\n'.repeat(5000), 64)))).length, 5000)
})
