// Calls of one turn are answered together, each with its own result or error; and the clock counts the time a stage has work.

import t from 'tap'
import { StageClock } from '../../lib/data/timings.js'
import { gathered } from '../../lib/embed/gathered.js'

const sleep = (ms: number) => new Promise<void>(resolve => setTimeout(resolve, ms))

t.test('calls of one turn come together, at most so many, and a failure is its own', async t => {
  const lists: number[][] = []
  const double = gathered(4, async (items: readonly number[]) => {
    lists.push([...items])
    if (items.includes(7)) throw new Error('not 7')
    return items.map(item => 2 * item)
  })
  t.same(await Promise.all([0, 1, 2, 3, 4, 5].map(double)), [0, 2, 4, 6, 8, 10])
  t.same(lists, [[0, 1, 2, 3], [4, 5]])
  const settled = await Promise.allSettled([6, 7, 8].map(double))
  t.same(settled.map(({ status }) => status), ['fulfilled', 'rejected', 'fulfilled'])
  t.same(await double(9), 18)
})

t.test('overlapping work of a stage counts once', async t => {
  const clock = new StageClock()
  await Promise.all([clock.during('decode', () => sleep(60)), clock.during('decode', () => sleep(60)), clock.during('compute', () => sleep(20))])
  await t.rejects(clock.during('read', () => sleep(20).then(() => Promise.reject(new Error('broken')))), { message: 'broken' })
  const { total, decode, compute, read, tokenise } = clock.read()
  t.ok(decode >= 0.055 && decode <= total && compute >= 0.015 && compute <= decode && read >= 0.015, JSON.stringify({ total, decode, compute, read }))
  t.equal(tokenise, 0)
  t.ok(decode + read <= total + 0.001, 'decode was counted once')
})
