// Progress, on stderr: a bar where that is a terminal, else a line now and then.

import cliProgress from 'cli-progress'
import type { ProgressEvent } from '../io/hub.js'
import { say, setStatus, stopStatus } from './console.js'

/** Milliseconds between lines in a log. */
const LOG_EVERY = 10_000

const isTerminal = () => process.stderr.isTTY === true && process.env['TERM'] !== 'dumb'

/** How far a command is, with items a second and the time left. */
export class Progress {
  readonly #bar: cliProgress.SingleBar | undefined
  readonly #started = performance.now()
  #logged = this.#started

  constructor(
    private readonly what: string,
    private readonly total: number,
    private readonly first = 0,
  ) {
    if (isTerminal()) this.#bar = startBar(`{bar} {value}/{total} ${what} | {rate} ${what}/s | {left} left`, total, first, { rate: '-', left: '-' })
  }

  update(done: number): void {
    const now = performance.now()
    const perSecond = ((done - this.first) / (now - this.#started)) * 1000
    const rate = perSecond.toFixed(1)
    const left = perSecond > 0 ? duration((this.total - done) / perSecond) : '-'
    this.#bar?.update(done, { rate, left })
    if (this.#bar || now - this.#logged < LOG_EVERY) return
    this.#logged = now
    say(`${done} of ${this.total} ${this.what}, ${rate} ${this.what}/s, ${left} left`)
  }

  stop(): void {
    if (this.#bar) stopStatus()
  }
}

function startBar(format: string, total: number, first: number, payload: object): cliProgress.SingleBar {
  const bar = new cliProgress.SingleBar(
    { stream: process.stderr, format, stopOnComplete: false, gracefulExit: false, linewrap: true },
    cliProgress.Presets.rect,
  )
  bar.start(total, first, payload)
  // Other lines take the bar's place; it is drawn anew below them.
  setStatus({ clear: () => process.stderr.write('\r\x1b[K'), stop: () => bar.stop() })
  return bar
}

function duration(seconds: number): string {
  const s = Math.round(seconds)
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`
}

/** An onProgress that shows downloads; nothing for files that are there already. */
export function showDownloads(): (event: ProgressEvent) => void {
  const files = new Map<string, { loaded: number; total: number }>()
  let bar: cliProgress.SingleBar | undefined
  return (event) => {
    if (event.status === 'progress') {
      if (!files.has(event.file) && !isTerminal()) say(`fetching ${event.file}, ${(event.total / 1e6).toFixed(1)} MB`)
      files.set(event.file, event)
      if (!isTerminal()) return
      const [loaded, total] = [sum(files, 'loaded'), sum(files, 'total')]
      const left = { left: ((total - loaded) / 1e6).toFixed(0) }
      bar ??= startBar('fetching {bar} {percentage}% | {left} MB left', total, 0, left)
      bar.setTotal(total)
      bar.update(loaded, left)
    } else if (event.status === 'ready' || (event.status === 'done' && sum(files, 'loaded') >= sum(files, 'total'))) {
      if (bar) stopStatus()
      bar = undefined
      files.clear()
    }
  }
}

function sum(files: ReadonlyMap<string, { loaded: number; total: number }>, field: 'loaded' | 'total'): number {
  return [...files.values()].reduce((all, file) => all + file[field], 0)
}
