// How a command that is interrupted ends.

import { constants } from 'node:os'

/** SIGINT and SIGTERM: the first asks for an orderly end, the next one ends the process at once. */
export class StopSignals {
  readonly #controller = new AbortController()
  readonly signal = this.#controller.signal
  #caught: NodeJS.Signals | undefined
  readonly #listener = (name: NodeJS.Signals) => {
    this.#caught = name
    this.forget()
    this.#controller.abort()
  }

  constructor() {
    for (const name of stopSignals) process.on(name, this.#listener)
  }

  forget(): void {
    for (const name of stopSignals) process.off(name, this.#listener)
  }

  /** Ends the process as the signal would have done, so that whoever started it knows. */
  end(): void {
    process.exitCode = 128 + constants.signals[this.#caught!] // should something else in the process listen for it
    process.kill(process.pid, this.#caught)
  }
}

const stopSignals: readonly NodeJS.Signals[] = ['SIGINT', 'SIGTERM']
