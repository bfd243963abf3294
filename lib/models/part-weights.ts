// The weights of a model's parts. Parts that have no parameter in common, CLIP's towers say, are read apart, each when it first runs: who embeds
// pictures alone neither waits for the text tower nor holds it in memory.

import type { Weights } from '../core/device.js'
import { DisposedError } from '../core/errors.js'
import type { Parameter } from '../core/value.js'
import { onAbort } from '../data/abort.js'

export class PartWeights {
  private read: Promise<Weights> | undefined
  private there: Weights | undefined
  private readonly stop = new AbortController()

  /** @param reader reads them from the checkpoint until the signal aborts */
  constructor(private readonly reader: (signal: AbortSignal) => Promise<Weights>) {}

  /** Once they were read. */
  get loaded(): Weights | undefined {
    return this.there
  }

  /**
   * Reads them, once for all callers; after a failure the next call tries again.
   * @param signal rejects the promise with its reason; the others go on waiting
   * @throws CheckpointError for a file that is broken or not the one that was opened, OutOfMemoryError, DisposedError
   */
  async load(signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted()
    const read = (this.read ??= this.start())
    if (!signal) return void (await read)
    let forget = () => {}
    const aborted = new Promise<never>((_, reject) => (forget = onAbort(signal, () => reject(signal.reason))))
    await Promise.race([read, aborted]).finally(forget)
  }

  /** Frees the memory when the last run that uses it ends; stops reading. */
  dispose(): void {
    if (this.stop.signal.aborted) return
    this.stop.abort(new DisposedError('the model has been disposed of'))
    this.there?.dispose()
  }

  private async start(): Promise<Weights> {
    try {
      const weights = await this.reader(this.stop.signal)
      if (this.stop.signal.aborted) weights.dispose()
      this.stop.signal.throwIfAborted()
      return (this.there = weights)
    } catch (error) {
      this.read = undefined
      throw error
    }
  }
}

/** Whether parts that read these parameters can be loaded one by one: each parameter of the model is read by one of them and no other. */
export function areApart(reads: readonly ReadonlySet<Parameter>[], all: ReadonlySet<Parameter>): boolean {
  const known = new Set(reads.flatMap(parameters => [...parameters]))
  return reads.length > 1 && known.size === all.size && reads.reduce((sum, { size }) => sum + size, 0) === all.size
}
