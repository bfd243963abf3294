// Calls that come one by one, as items of a stream do, are answered together: those of one turn of the event loop, at most `most` of them.

interface Call<T, R> {
  readonly item: T
  resolve(result: R): void
  reject(error: unknown): void
}

/**
 * @param together answers a list; if it rejects, its items are asked for one by one, so that each gets its own result or error
 * @returns answers one item
 */
export function gathered<T, R>(most: number, together: (items: readonly T[]) => Promise<readonly R[]>): (item: T) => Promise<R> {
  let calls: Call<T, R>[] = []
  let turn: NodeJS.Immediate | undefined

  const answer = async (list: readonly Call<T, R>[]): Promise<void> => {
    try {
      const results = await together(list.map(({ item }) => item))
      list.forEach(({ resolve }, i) => resolve(results[i]!))
    } catch (error) {
      if (list.length === 1) list[0]!.reject(error)
      else for (const call of list) await answer([call])
    }
  }
  const flush = (): void => {
    clearImmediate(turn)
    turn = undefined
    const list = calls
    calls = []
    void answer(list)
  }
  return item =>
    new Promise((resolve, reject) => {
      calls.push({ item, resolve, reject })
      if (calls.length === most) flush()
      else turn ??= setImmediate(flush)
    })
}
