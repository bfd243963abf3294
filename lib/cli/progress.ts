// Progress bars, on stderr.

import cliProgress from 'cli-progress'
import type { ProgressEvent } from '../io/hub.js'

/** A progress bar on stderr with items a second and the time left; plain lines now and then where stderr is no terminal. */
export class Progress {
  readonly #bar: cliProgress.SingleBar
  readonly #started = performance.now()
  readonly #first: number

  constructor(what: string, total: number, done = 0) {
    this.#first = done
    this.#bar = new cliProgress.SingleBar(
      {
        stream: process.stderr,
        format: `{bar} {value}/{total} ${what} | {rate} ${what}/s | {left} left`,
        noTTYOutput: true,
        notTTYSchedule: 10_000,
        stopOnComplete: false,
        gracefulExit: false,
      },
      cliProgress.Presets.rect,
    )
    this.#bar.start(total, done, { rate: '-', left: '-' })
  }

  update(done: number): void {
    const seconds = (performance.now() - this.#started) / 1000
    const rate = (done - this.#first) / seconds
    this.#bar.update(done, { rate: rate.toFixed(1), left: rate > 0 ? duration((this.#bar.getTotal() - done) / rate) : '-' })
  }

  stop(): void {
    this.#bar.stop()
  }
}

function duration(seconds: number): string {
  const s = Math.round(seconds)
  if (s < 60) return `${s} s`
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`
}

/** An onProgress that shows downloads; nothing for files that are there already. */
export function showDownloads(): (event: ProgressEvent) => void {
  const bars = new Map<string, cliProgress.SingleBar>()
  return (event) => {
    if (event.status === 'progress' && event.file) {
      let bar = bars.get(event.file)
      if (!bar) {
        bar = new cliProgress.SingleBar(
          { stream: process.stderr, format: `${event.file} {bar} {percentage}% | {left} MB left`, noTTYOutput: false, gracefulExit: false },
          cliProgress.Presets.rect,
        )
        bar.start(event.total ?? 0, 0)
        bars.set(event.file, bar)
      }
      bar.update(event.loaded ?? 0, { left: (((event.total ?? 0) - (event.loaded ?? 0)) / 1e6).toFixed(0) })
    } else if (event.status === 'done' && event.file) {
      bars.get(event.file)?.stop()
      bars.delete(event.file)
    }
  }
}
