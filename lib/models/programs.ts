// How towers are run: outputs are picked from a traced graph by name, programs are compiled for a few capacities and kept, and work is
// cut into pieces small enough that copying one in or out does not hold up the event loop.

import { compile, type Program, trace, type TracedFunction } from '../core/compile.js'
import type { Device, Weights } from '../core/device.js'
import type { Value, ValueType } from '../core/value.js'
import { EMBEDDING, type Traced } from './encoder.js'

/** Bytes copied in one piece at most, unless a single picture or text has more. */
export const PIECE_BYTES = 5_000_000
/** Runs handed to the device before the first of them is done: one computes while the next is prepared. */
const IN_FLIGHT = 2
/** Programs kept; with the plan cache of the device behind them. */
const KEPT = 32

/** The values of `traced` by name; outputs, hidden states and the embedding. */
export function namedValues(traced: Traced, prefix: string): Record<string, Value> {
  const states = traced.hiddenStates.map((value, k): [string, Value] => [`${prefix}hidden_state_${k}`, value])
  return { ...traced.outputs, ...Object.fromEntries(states), [EMBEDDING]: traced.embedding }
}

/** What an output looks like. */
export interface OutputKind {
  readonly width: number
  /** Rows for each of `per`'s count: 197 for the tokens of a picture, 1 for one row of each picture, text or token. */
  readonly rows: number
  readonly per: 'images' | 'texts' | 'tokens'
}

/** The kinds of a tower's outputs, found by tracing it. */
export function outputKinds(fn: TracedFunction, specs: Readonly<Record<string, ValueType>>): Map<string, OutputKind> {
  const kind = ({ shape, extent }: Value): OutputKind => ({ width: shape.at(-1)!, rows: extent!.per, per: extent!.name as OutputKind['per'] })
  return new Map(Object.entries(trace(fn, specs)).map(([name, value]) => [name, kind(value)]))
}

/** The compiled programs of one model, the least recently used leave first. */
export class Programs {
  private readonly kept = new Map<string, Program>()

  constructor(
    private readonly device: Device,
    private readonly weights: Weights | undefined,
  ) {}

  get(key: string, fn: TracedFunction, specs: Readonly<Record<string, ValueType>>): Program {
    const program = this.kept.get(key) ?? compile(fn, specs, this.device, this.weights)
    this.kept.delete(key)
    this.kept.set(key, program)
    if (this.kept.size > KEPT) {
      const [oldest, unused] = this.kept.entries().next().value!
      this.kept.delete(oldest)
      unused.dispose()
    }
    return program
  }

  dispose(): void {
    for (const program of this.kept.values()) program.dispose()
    this.kept.clear()
  }
}

/** The smallest power of two that is at least `n`. */
export function bucket(n: number): number {
  let size = 1
  while (size < n) size *= 2
  return size
}

/**
 * Starts pieces of work in order, a few at once. `next` prepares and starts the next one, and gives undefined at the end. The first failure
 * is thrown once all that was started has settled.
 */
export async function pipeline(next: () => Promise<void> | undefined): Promise<void> {
  const running: Promise<void>[] = []
  try {
    for (let piece = next(); piece; piece = next()) {
      piece.catch(() => {}) // awaited below; until then its failure is not unhandled
      running.push(piece)
      if (running.length === IN_FLIGHT) await running.shift()
    }
    while (running.length > 0) await running.shift()
  } finally {
    await Promise.allSettled(running)
  }
}
