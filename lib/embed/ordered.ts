// Streams with back-pressure: work runs ahead of the consumer, in order, by at most a given number of items.

/** Maps `source` through `work`, at most `ahead` items in flight, results in the order of the source. Stops the source when left early. */
export async function* mapOrdered<T, R>(
  source: Iterable<T> | AsyncIterable<T>,
  work: (item: T, index: number) => Promise<R>,
  ahead: number,
): AsyncGenerator<R, void, undefined> {
  const iterator: AsyncIterator<T> | Iterator<T> =
    Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
  const queue: Promise<R>[] = []
  let ended = false
  let failure: { error: unknown } | undefined
  let filling = false
  let index = 0
  let wake: () => void = () => {}

  const fill = async (): Promise<void> => {
    if (filling) return
    filling = true
    try {
      while (!ended && queue.length < ahead) {
        const next = await iterator.next()
        if (ended) break
        if (next.done) {
          ended = true
        } else {
          const result = work(next.value, index++)
          result.catch(() => {}) // seen when its turn comes
          queue.push(result)
        }
        wake()
      }
    } catch (error) {
      failure = { error }
      ended = true
      wake()
    } finally {
      filling = false
    }
  }

  try {
    for (;;) {
      void fill()
      if (queue.length === 0) {
        if (ended) break
        await new Promise<void>((resolve) => (wake = resolve))
        continue
      }
      const result = await queue[0]!
      queue.shift()
      yield result
    }
    if (failure) throw failure.error
  } finally {
    ended = true
    await iterator.return?.()
  }
}

/** Groups items by at most `size`. */
export async function* inBatches<T>(source: AsyncIterable<T>, size: number): AsyncGenerator<T[], void, undefined> {
  let batch: T[] = []
  for await (const item of source) {
    batch.push(item)
    if (batch.length === size) {
      yield batch
      batch = []
    }
  }
  if (batch.length) yield batch
}
