// How a command speaks: results on stdout, everything else on stderr, so that output can be piped.

import { readFileSync } from 'node:fs'
import { type Writable, finished } from 'node:stream'

/** What is drawn over and over on the terminal's last line, if anything is. */
let status: { clear(): void; stop(): void } | undefined

/** The progress that lines go above; undefined when it is done. */
export function setStatus(shown: typeof status): void {
  status = shown
}

/** Ends the progress of a command that failed; its timer would keep the process. */
export function stopStatus(): void {
  status?.stop()
  status = undefined
}

/** A line for the person at the terminal. */
export function say(line: string): void {
  status?.clear()
  process.stderr.write(`${line}\n`)
}

/** That an item is left out, and why; most errors begin with its name. */
export function sayOfItem(item: string, { message }: Error): void {
  say(`skipped ${item}: ${message.startsWith(`${item} `) ? message.slice(item.length + 1) : message}`)
}

/** A line of the result. Waits while the reader is slow; a reader that went away ends the process quietly. */
export async function print(line: string): Promise<void> {
  status?.clear()
  const out: Writable = process.stdout
  if (!out.write(`${line}\n`)) await new Promise<void>((resolve) => out.once('drain', resolve))
}

/**
 * What becomes of a process whose output cannot be written: `head` and the like close the pipe early, which is no error; a result that
 * is lost, on a full disk say, is one. Without a reader of stderr the work goes on.
 */
export function watchOutput(): void {
  finished(process.stdout, (error) => {
    if (!error) return
    if ((error as NodeJS.ErrnoException).code === 'EPIPE') process.exit(0)
    say(`chiasma: the output cannot be written: ${error.message}`)
    process.exit(1)
  })
  process.stderr.on('error', () => {})
}

/** The version of this package. */
export function packageVersion(): string {
  return (JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }).version
}
