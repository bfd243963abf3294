// Bounds how much runs at once: a number of jobs, and a sum of bytes. Waiters are served in their order; one that is larger than the whole
// allowance runs alone.

export class Gate {
  private used = 0
  private readonly waiting: { amount: number; enter: () => void }[] = []

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
      const waiter = {
        amount,
        enter: () => {
          signal?.removeEventListener('abort', leave)
          resolve()
        },
      }
      const leave = () => {
        this.waiting.splice(this.waiting.indexOf(waiter), 1)
        reject(signal!.reason)
        this.admit()
      }
      signal?.addEventListener('abort', leave, { once: true })
      this.waiting.push(waiter)
      this.admit()
    })
  }

  private admit(): void {
    for (;;) {
      const next = this.waiting[0]
      if (!next || (this.used > 0 && this.used + next.amount > this.allowance)) return
      this.waiting.shift()
      this.used += next.amount
      next.enter()
    }
  }
}
