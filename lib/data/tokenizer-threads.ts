// Large lists of texts are tokenised on worker threads, so that the event loop stays free. The first starts once there was so much text that it
// pays, another when all have work, up to one for each core; each has a tokenizer of its own, and they end when nothing came for a while.

import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { ArgumentError, type ErrorFields } from '../core/errors.js'
import { onAbort } from './abort.js'
import type { EncodeAllOptions } from './tokenizer.js'
import type { TokenizerFiles } from './tokenizer-files.js'

/** Characters tokenised before threads are started: about a quarter of a second's work. */
const START_AFTER = 500_000
/** A list of fewer characters is done sooner than a thread is asked. */
const WORTH_ASKING = 1000
/** Milliseconds without work after which the threads end. */
const IDLE = 5000

/** What a thread is asked. */
export interface Request {
  readonly id: number
  readonly texts: readonly string[]
  readonly options: Omit<EncodeAllOptions, 'signal'>
}

/** What it answers: the ids of all texts one after the other, and how many each has; or the error that tokenising threw. */
export type Reply =
  | { readonly id: number; readonly ids: Int32Array; readonly lengths: Int32Array; readonly error?: undefined }
  | { readonly id: number; readonly error: { readonly message: string; readonly fields: ErrorFields } }

/** What it says first, when its tokenizer is made. */
export const READY = 'ready'

interface Waiting {
  resolve(ids: Int32Array[]): void
  reject(error: unknown): void
}

interface Thread {
  readonly worker: Worker
  readonly waiting: Map<number, Waiting>
  ready: boolean
}

export class TokenizerThreads {
  private seen = 0
  private asked = 0
  private threads: Thread[] = []
  private idle: NodeJS.Timeout | undefined
  /** Told once a thread is ready, or none will be. */
  private readonly toTell: ((ready: boolean) => void)[] = []
  /** All threads were lost: they are not tried again. */
  private failed = false

  constructor(
    private readonly files: TokenizerFiles,
    private readonly count = availableParallelism(),
  ) {}

  /** Whether these texts are for the threads; those before did not pay for starting them, or none is ready yet. */
  take(texts: readonly string[]): boolean {
    const characters = texts.reduce((sum, text) => sum + text.length, 0)
    this.seen += characters
    if (characters < WORTH_ASKING || this.seen < START_AFTER || this.failed) return false
    if (this.threads.length === 0) this.start()
    this.idle?.refresh()
    return this.threads.some(({ ready }) => ready)
  }

  /** Starts the threads if need be: whether there is one, once the first is ready. For work that would hold up the event loop here. */
  async whenReady(): Promise<boolean> {
    if (this.failed) return false
    if (this.threads.length === 0) this.start()
    if (this.threads.some(({ ready }) => ready)) return true
    for (const { worker } of this.threads) worker.ref()
    return new Promise(resolve => this.toTell.push(resolve))
  }

  /** Ids of the texts, by the thread with the least to do. Errors are those of `encodeAll`. */
  encode(texts: readonly string[], { signal, ...options }: EncodeAllOptions): Promise<Int32Array[]> {
    const id = this.asked++
    if (this.threads.length < this.count && this.threads.every(({ ready, waiting }) => ready && waiting.size > 0)) this.start()
    const { worker, waiting } = this.threads.filter(({ ready }) => ready).reduce((a, b) => (b.waiting.size < a.waiting.size ? b : a))
    this.idle?.refresh()
    return new Promise((resolve, reject) => {
      const forget = signal ? onAbort(signal, () => reject(signal.reason)) : () => {}
      waiting.set(id, {
        resolve: ids => (forget(), resolve(ids)),
        reject: error => (forget(), reject(error)),
      })
      worker.ref()
      worker.postMessage({ id, texts, options } satisfies Request)
    })
  }

  /** One more thread. */
  private start(): void {
    // Beside this file: .js when built, .ts where tests run the sources.
    const entry = new URL(`./tokenizer-worker${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)
    const worker = new Worker(entry, { workerData: this.files })
    const thread: Thread = { worker, waiting: new Map(), ready: false }
    worker.on('message', (reply: Reply | typeof READY) => {
      if (reply === READY) this.greet(thread)
      else this.settle(thread, reply)
    })
    worker.on('error', error => this.lose(thread, error))
    worker.unref()
    this.threads.push(thread)
    this.idle ??= setTimeout(() => this.stop(), IDLE).unref()
  }

  private greet(thread: Thread): void {
    thread.ready = true
    this.tell(true)
  }

  private tell(ready: boolean): void {
    for (const tell of this.toTell.splice(0)) tell(ready)
    for (const { worker, waiting } of this.threads) if (waiting.size === 0) worker.unref()
  }

  private settle({ worker, waiting }: Thread, reply: Reply): void {
    const { resolve, reject } = waiting.get(reply.id)!
    waiting.delete(reply.id)
    if (waiting.size === 0) worker.unref()
    this.idle?.refresh()
    if (reply.error) return reject(new ArgumentError(reply.error.message, reply.error.fields))
    let at = 0
    resolve(Array.from(reply.lengths, length => reply.ids.subarray(at, (at += length))))
  }

  /** A thread that failed, for lack of memory say, takes its texts with it; if none is left, later texts stay on the caller's. */
  private lose(thread: Thread, error: Error): void {
    process.emitWarning(`a thread that tokenises ended: ${error.message}`)
    this.threads = this.threads.filter(other => other !== thread)
    for (const { reject } of thread.waiting.values()) reject(error)
    thread.waiting.clear()
    this.failed = this.threads.length === 0
    if (this.failed) this.tell(false)
  }

  private stop(): void {
    if (this.toTell.length > 0 || this.threads.some(({ waiting }) => waiting.size > 0)) {
      this.idle!.refresh()
      return
    }
    for (const { worker } of this.threads) void worker.terminate()
    this.threads = []
    this.idle = undefined
  }
}
