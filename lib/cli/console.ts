// How a command speaks: results on stdout, everything else on stderr, so that output can be piped.

import { type Writable, finished } from 'node:stream'

/** A line for the person at the terminal. */
export function say(line: string): void {
  process.stderr.write(`${line}\n`)
}

/** A line of the result. Waits while the reader is slow; a reader that went away ends the process quietly. */
export async function print(line: string): Promise<void> {
  const out: Writable = process.stdout
  if (!out.write(`${line}\n`)) await new Promise<void>((resolve) => out.once('drain', resolve))
}

/** `head` and the like close the pipe early; that is no error. */
export function endQuietlyWhenStdoutCloses(): void {
  finished(process.stdout, (error) => {
    if ((error as NodeJS.ErrnoException | undefined)?.code === 'EPIPE') process.exit(0)
  })
}
