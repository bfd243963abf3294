import t from 'tap'
import { type BatchedWork, inBatches } from '../../lib/embed/batches.js'

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))
const work = (changes: Partial<BatchedWork<number, number, number>> = {}): BatchedWork<number, number, number> => ({
  prepare: async (item) => item,
  share: () => 1 / 7,
  run: async (batch) => batch,
  atOnce: 14,
  stop: new AbortController(),
  ...changes,
})
const numbers = (count: number) => Array.from({ length: count }, (_, i) => i)

async function collect<R>(batches: AsyncIterable<readonly R[]>): Promise<R[][]> {
  const all: R[][] = []
  for await (const batch of batches) all.push([...batch])
  return all
}

t.test('a quick source fills batches, in order', async (t) => {
  const uneven = work({ prepare: (item) => sleep(item % 3).then(() => item) })
  for (const one of [work(), uneven]) {
    const batches = await collect(inBatches(numbers(50), one))
    t.same(batches.flat(), numbers(50))
    t.same(batches.map(({ length }) => length), [7, 7, 7, 7, 7, 7, 7, 1])
  }
  t.same(await collect(inBatches([], work())), [])
})

t.test('ragged items share a batch by their size, and one larger than a batch runs alone', async (t) => {
  const shares = [0.5, 0.25, 0.25, 0.75, 0.5, 3, 0.5, 0.5]
  const batches = await collect(inBatches(numbers(8), work({ share: (item) => shares[item]! })))
  t.same(batches, [[0, 1, 2], [3], [4], [5], [6, 7]])
})

t.test('a slow source does not leave an item waiting', async (t) => {
  let taken = 0
  const slow = async function* () {
    for (const n of numbers(3)) {
      t.equal(taken, n, `item ${n - 1} was answered before item ${n} came`)
      yield n
      await sleep(60)
    }
  }
  for await (const batch of inBatches(slow(), work())) taken += batch.length
  t.equal(taken, 3)
})

t.test('what is held is bounded while the consumer waits', async (t) => {
  let pulled = 0
  const endless = function* () {
    for (;;) yield pulled++
  }
  for await (const [first] of inBatches(endless(), work())) {
    await sleep(5)
    if (first! >= 140) break
  }
  t.ok(pulled < 140 + 7 * 8, `${pulled} items were pulled`)
})

t.test('failures end the stream, after what came before them', async (t) => {
  const reason = new Error('enough')
  const breaking = function* () {
    yield 1
    yield 2
    throw reason
  }
  const got: number[] = []
  await t.rejects(async () => {
    for await (const batch of inBatches(breaking(), work())) got.push(...batch)
  }, reason)
  t.same(got, [1, 2], 'the source broke after two items')
  await t.rejects(collect(inBatches(numbers(9), work({ run: () => Promise.reject(reason) }))), reason)
  await t.rejects(collect(inBatches(numbers(9), work({ prepare: () => Promise.reject(reason) }))), reason)
})

t.test('an abort is seen while the source makes us wait', async (t) => {
  const controller = new AbortController()
  const stuck = async function* () {
    yield 1
    await new Promise(() => {})
  }
  const reason = new Error('enough')
  setTimeout(() => controller.abort(reason), 20)
  const stop = new AbortController()
  await t.rejects(collect(inBatches(stuck(), work({ signal: controller.signal, stop }))), reason)
  t.equal(stop.signal.reason, reason, 'what is under way is told')
})

t.test('what is under way is stopped when the stream is left, and when it fails', async (t) => {
  const stop = new AbortController()
  let begun = 0
  const slow = (item: number): Promise<number> => {
    begun++
    return item < 7 ? Promise.resolve(item) : new Promise((_, reject) => stop.signal.addEventListener('abort', () => reject(stop.signal.reason as Error)))
  }
  for await (const batch of inBatches(numbers(100), work({ prepare: slow, stop }))) {
    t.same(batch, numbers(7))
    t.equal(stop.signal.aborted, false)
    break
  }
  t.ok(stop.signal.aborted && begun > 7, `${begun} were begun`)
  const failed = new AbortController()
  await t.rejects(collect(inBatches(numbers(9), work({ run: () => Promise.reject(new Error('no')), stop: failed }))), /no/)
  t.ok(failed.signal.aborted)
})
