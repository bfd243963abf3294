// Bounds how much runs at once: a number of jobs, or a sum of bytes. Waiters are served in their order; one that is larger than the whole
// allowance runs alone.

import { onAbort } from './abort.js'

interface Waiter {
  readonly amount: number
  enter(): void
}

export class Gate {
  private used = 0
  private readonly waiting = new Set<Waiter>()

  constructor(private readonly allowance: number) {}

  /** Runs `job` when `amount` of the allowance is free, and holds it until the job ends. Rejects with `signal.reason` if aborted before. */
  async run<T>(amount: number, signal: AbortSignal | undefined, job: () => Promise<T>): Promise<T> {
    await this.enter(amount, signal)
    try {
      return await job()
    } finally {
      this.used -= amount
      this.admit()
    }
  }

  private async enter(amount: number, signal: AbortSignal | undefined): Promise<void> {
    signal?.throwIfAborted()
    await new Promise<void>((resolve, reject) => {
      const leave = () => {
        this.waiting.delete(waiter)
        reject(signal!.reason)
        this.admit()
      }
      const forget = signal ? onAbort(signal, leave) : () => {}
      const waiter: Waiter = {
        amount,
        enter() {
          forget()
          resolve()
        },
      }
      this.waiting.add(waiter)
      this.admit()
    })
  }

  private admit(): void {
    for (const next of this.waiting) {
      if (this.used > 0 && this.used + next.amount > this.allowance) return
      this.waiting.delete(next)
      this.used += next.amount
      next.enter()
    }
  }
}
