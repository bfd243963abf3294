// Streams in batches with back-pressure: items are prepared side by side and run a batch at a time, results come in the order of the items,
// and all that is held at any time is bounded. Batches form as items arrive: full ones while the source keeps up, and what there is as soon
// as the model would be idle while the source makes us wait.

import { onAbort } from '../data/abort.js'

export interface BatchedWork<T, P, R> {
  /** Makes an item ready; many at once. What it rejects with ends the stream. */
  prepare(item: T, index: number): Promise<P>
  /** How much of a batch a prepared item takes, above 0; one of more than 1 runs alone. */
  share(prepared: P): number
  /** Runs a batch: a result for each item. What it rejects with ends the stream. */
  run(batch: readonly P[]): Promise<readonly R[]>
  /** Items in preparation at once; twice as many may be held before they run. */
  atOnce: number
  signal?: AbortSignal | undefined
  /** Aborted with the signal and when the stream ends or is left, for then nobody waits for what is still under way. */
  stop: AbortController
}

/** Batches handed out before the first of them is taken: one runs while the next is made ready. */
const RUNS = 2
/** Shares add up to this, rounding errors included. */
const WHOLE = 1 + 1e-9

/** Maps `source` batch by batch; closes it when left early. */
export async function* inBatches<T, P, R>(
  source: Iterable<T> | AsyncIterable<T>,
  { prepare, share, run, atOnce, signal, stop }: BatchedWork<T, P, R>,
): AsyncGenerator<readonly R[], void, undefined> {
  const iterator: AsyncIterator<T> | Iterator<T> =
    Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
  /** In order; without `ready` while in preparation. */
  const waiting: { ready?: { prepared: P; share: number } }[] = []
  const runs: Promise<readonly R[]>[] = []
  let preparing = 0
  let running = 0
  let ready = 0 // shares prepared and not yet run
  let ended = false
  let stopped = false
  let asking = false
  let failure: { error: unknown } | undefined
  let sourceFailure: { error: unknown } | undefined
  let wake = () => {}
  let makeRoom = () => {}
  let turn: NodeJS.Immediate | undefined

  const fail = (error: unknown): void => {
    failure ??= { error }
    stopped = true
    wake()
  }

  /** The items of the next batch, if it is full or nothing could be added to it before the model is idle. */
  const nextBatch = (idle: boolean): P[] | undefined => {
    let sum = 0
    let count = 0
    for (const slot of waiting) {
      if (!slot.ready || (count && sum + slot.ready.share > WHOLE)) break
      sum += slot.ready.share
      count++
    }
    if (!count) return undefined
    const next = waiting[count]?.ready
    const full = sum > 2 - WHOLE || (next && sum + next.share > WHOLE)
    const last = preparing === 0 && (ended || (idle && running === 0))
    if (!full && !last) return undefined
    ready -= sum
    return waiting.splice(0, count).map((slot) => slot.ready!.prepared)
  }

  const advance = (idle = false): void => {
    while (!stopped && runs.length < RUNS) {
      const batch = nextBatch(idle)
      if (!batch) break
      running++
      const done = run(batch).finally(() => {
        running--
        advance()
      })
      done.catch(() => {}) // seen when its turn comes
      runs.push(done)
      makeRoom()
    }
    // A source that is quick gets a turn of the event loop to fill the batch.
    if (!stopped && !idle && !turn && running === 0 && preparing === 0 && waiting.length && runs.length < RUNS) {
      turn = setImmediate(() => {
        turn = undefined
        advance(true)
      })
    }
    wake()
  }

  const pull = async (): Promise<void> => {
    try {
      for (let index = 0; !stopped; ) {
        if (ready + preparing / atOnce >= 2 || preparing >= atOnce) {
          await new Promise<void>((resolve) => (makeRoom = resolve))
          continue
        }
        asking = true
        const next = await iterator.next()
        asking = false
        if (next.done || stopped) break
        const slot: (typeof waiting)[number] = {}
        waiting.push(slot)
        preparing++
        prepare(next.value, index++).then((prepared) => {
          slot.ready = { prepared, share: share(prepared) }
          preparing--
          ready += slot.ready.share
          advance()
          makeRoom()
        }, fail)
      }
    } catch (error) {
      asking = false
      sourceFailure = { error }
    }
    ended = true
    advance()
  }

  const forget = signal ? onAbort(signal, () => {
    fail(signal.reason)
    stop.abort(signal.reason)
  }) : () => {}
  try {
    signal?.throwIfAborted()
    void pull()
    for (;;) {
      if (failure) throw failure.error
      if (runs.length) {
        const results = await runs[0]!
        runs.shift()
        advance()
        yield results
      } else if (ended && !waiting.length) {
        break
      } else {
        await new Promise<void>((resolve) => (wake = resolve))
      }
    }
    if (sourceFailure) throw sourceFailure.error
  } finally {
    stopped = true
    stop.abort()
    forget()
    clearImmediate(turn)
    makeRoom()
    // A source that is still making us wait answers `return` only after its item; that is not waited for.
    const closed = Promise.resolve(iterator.return?.())
    if (asking) closed.catch(() => {})
    else await closed
  }
}
