// Listening to one AbortSignal from many places. Thousands of images may share a signal, and Node warns of more than ten listeners on one, so
// each signal gets a single listener that calls all.

const listeners = new WeakMap<AbortSignal, Set<() => void>>()

/** Calls `stop` when `signal` aborts. Returns a function that takes it back. */
export function onAbort(signal: AbortSignal, stop: () => void): () => void {
  const known = listeners.get(signal)
  const all = known ?? new Set()
  if (!known) {
    listeners.set(signal, all)
    signal.addEventListener('abort', () => all.forEach(call => call()), { once: true })
  }
  all.add(stop)
  return () => all.delete(stop)
}
