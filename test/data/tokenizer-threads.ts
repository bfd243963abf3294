// Much text is tokenised on worker threads, with the ids and the errors of the caller's own thread.

import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { makeTokenizer } from '../../lib/data/tokenizer.js'
import { readTokenizerFiles, type TokenizerFiles } from '../../lib/data/tokenizer-files.js'
import { TokenizerThreads } from '../../lib/data/tokenizer-threads.js'

const fixtures = fileURLToPath(new URL('../fixtures/tokenizers/', import.meta.url))
const words = ['A man', 'plays,', 'the GUITAR', 'naïve café', '中文字', '<pad>', '12.5%', '🙂', 'unbelievable-ness', '\t', "it's"]
const text = (seed: number) => Array.from({ length: 60 }, (_, i) => words[(seed * 7 + i * (1 + (seed % 5))) % words.length]).join(' ')

async function start(t: Test, files: TokenizerFiles, count: number) {
  const threads = new TokenizerThreads(files, count)
  const much = ['x'.repeat(600_000)]
  t.notOk(threads.take(['a short text']), 'not for little text')
  t.notOk(threads.take(much), 'nor before a thread is ready, which this starts')
  t.ok(await threads.whenReady())
  t.ok(threads.take(much))
  t.notOk(threads.take(['a short text']), 'nor for a little between')
  return threads
}

for (const [name, count] of [['byte-level', 2], ['unigram', 1]] as const) {
  t.test(`${name}, ${count} threads`, async t => {
    const files = await readTokenizerFiles(join(fixtures, name))
    const here = makeTokenizer(files, { threads: 0 })
    const threads = await start(t, files, count)
    const lists = Array.from({ length: 12 }, (_, list) => Array.from({ length: 1 + list * 3 }, (_, i) => text(list * 40 + i)))
    for (const options of [{}, { maxLength: 16 }]) {
      const found = await Promise.all(lists.map(list => threads.encode(list, options)))
      t.same(found, await Promise.all(lists.map(list => here.encodeAll(list, options))), `ids in order, ${JSON.stringify(options)}`)
    }
    const refused = { maxLength: 16, truncation: false, firstIndex: 40 }
    const error = await here.encodeAll(['a', text(1)], refused).catch((error: Error) => error)
    await t.rejects(threads.encode(['a', text(1)], refused), { message: (error as Error).message, code: 'ERR_ARGUMENT', index: 41 })
    const stop = new AbortController()
    const stopped = threads.encode(lists[11]!, { signal: stop.signal })
    stop.abort(new Error('enough'))
    await t.rejects(stopped, { message: 'enough' })
    t.same(await threads.encode(lists[3]!, {}), await here.encodeAll(lists[3]!, {}), 'and go on after that')
  })
}

t.test('one text without a place to cut is for a thread, too', async t => {
  const files = await readTokenizerFiles(join(fixtures, 'byte-level'))
  const here = makeTokenizer(files, { threads: 0 })
  const tokenizer = makeTokenizer(files)
  const long = '🙂'.repeat(100_000)
  const wanted = (await here.encodeAll([long], { maxLength: 32 }))[0]!
  let latest = performance.now()
  let longest = 0
  const watch = setInterval(() => {
    longest = Math.max(longest, performance.now() - latest - 5)
    latest = performance.now()
  }, 5)
  const [ids] = await tokenizer.encodeAll([long], { maxLength: 32 })
  clearInterval(watch)
  t.same(ids, wanted)
  t.comment(`the event loop waited ${Math.round(longest)} ms at most`)
})
