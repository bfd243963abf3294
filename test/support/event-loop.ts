// How long the event loop waits while something is under way.

/** The longest time between two turns of a timer, as a share of all that `work` took: the best of three runs, since other processes may hold the machine. */
export async function longestWait(work: () => Promise<unknown>): Promise<number> {
  const shares = []
  for (let run = 0; run < 3; run++) {
    const began = performance.now()
    let [last, longest] = [began, 0]
    const turn = () => {
      const now = performance.now()
      longest = Math.max(longest, now - last)
      last = now
    }
    const timer = setInterval(turn, 1)
    await work()
    clearInterval(timer)
    turn()
    shares.push(longest / (last - began))
  }
  return Math.min(...shares)
}
