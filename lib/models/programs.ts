// How towers are run: outputs are picked from a traced graph by name, programs are compiled for a few capacities and kept, and work is
// cut into pieces small enough that copying one in or out does not hold up the event loop.

import { compile, type Program, trace, type TracedFunction } from '../core/compile.js'
import type { Device } from '../core/device.js'
import { ArgumentError, OutOfMemoryError, UnsupportedError } from '../core/errors.js'
import { isView, topologicalOrder } from '../core/graph.js'
import type { Parameter, Value, ValueType } from '../core/value.js'
import type { PixelScale } from '../nn/index.js'
import { EMBEDDING, type Traced } from './encoder.js'
import type { PartWeights } from './part-weights.js'

/** For float32 pixels, which are taken as they are. */
export const UNSCALED: PixelScale = { rescale: 1, mean: [0, 0, 0], std: [1, 1, 1] }
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
  /** 'images', 'texts', 'tokens', 'examples' or a joint tower's stream. */
  readonly per: string
  /** Its rows are the pixels of a map, which is given with channels first. */
  readonly map?: { readonly height: number; readonly width: number } | undefined
}

/**
 * The kinds of a tower's outputs, found by tracing it, which also shows the parameters that it reads.
 * @throws UnsupportedError if it needs an op that the device has no kernel for: nothing is computed elsewhere instead
 */
export function outputKinds(fn: TracedFunction, specs: Readonly<Record<string, ValueType>>, { device, reads }: Programs): Map<string, OutputKind> {
  const traced = trace(fn, specs)
  const nodes = topologicalOrder(Object.values(traced))
  checkKernels(device, nodes.filter(node => !node.leaf && !isView(node)).map(({ op }) => op))
  for (const { leaf } of nodes) if (leaf?.parameter) reads.add(leaf.parameter)
  const kind = ({ shape, extent }: Value): OutputKind => ({ width: shape.at(-1)!, rows: extent!.per, per: extent!.name })
  return new Map(Object.entries(traced).map(([name, value]) => [name, kind(value)]))
}

/** @throws UnsupportedError if the device has no kernel for one of the ops */
export function checkKernels(device: Device, ops: readonly string[]): void {
  const missing = [...new Set(ops)].filter(op => !device.hasOp(op))
  if (missing.length === 0) return
  const names = missing.map(op => `'${op}'`).join(', ')
  throw new UnsupportedError(`[load] the model needs ${names}, for which ${device.id} has no kernel; expected a device that has, such as 'cpu'`, { op: missing[0]! })
}

/** The compiled programs of one part of a model, the least recently used leave first. */
export class Programs {
  /** The parameters that they read, of all that was traced. */
  readonly reads = new Set<Parameter>()
  /** Set before anything is run. */
  weights: PartWeights | undefined
  private readonly kept = new Map<string, Program>()

  constructor(readonly device: Device) {}

  /** Whether programs can be had. */
  get ready(): boolean {
    return !this.weights || this.weights.loaded !== undefined
  }

  /** Reads the weights, if that has not happened. */
  async load(signal?: AbortSignal): Promise<void> {
    await this.weights?.load(signal)
  }

  /** Only when `ready`. */
  get(key: string, fn: TracedFunction, specs: Readonly<Record<string, ValueType>>): Program {
    const program = this.kept.get(key) ?? compile(fn, specs, this.device, this.weights?.loaded)
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
    this.weights?.dispose()
  }
}

/** The smallest power of two that is at least `n`. */
export function bucket(n: number): number {
  let size = 1
  while (size < n) size *= 2
  return size
}

/**
 * Runs items [from, from + count) in one go. Where the device's memory does not suffice, they are run as two halves, one after the other, and so on
 * down to a single item.
 * @returns the most items that ran at once
 * @throws OutOfMemoryError if there is no room for one
 */
export async function inHalves(from: number, count: number, run: (from: number, count: number) => Promise<void>): Promise<number> {
  try {
    await run(from, count)
    return count
  } catch (error) {
    if (!(error instanceof OutOfMemoryError) || count < 2) throw error
  }
  const half = Math.ceil(count / 2)
  const most = await inHalves(from, half, run)
  // The second half takes no more at once than the first could.
  for (let at = half; at < count; at += most) await inHalves(from + at, Math.min(most, count - at), run)
  return most
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

/**
 * Inputs of `each` numbers one after the other, the first of them number `first` of the call.
 * @param input what they are called, say { field: 'pixel_values', noun: 'picture', place: 'element' }
 * @throws ArgumentError naming the one that holds NaN or infinity, and where
 */
export function checkFinite(data: Float32Array, each: number, first: number, { field, noun, place }: { field: string; noun: string; place: string }): void {
  let sum = 0
  for (let i = 0; i < data.length; i++) sum += data[i]! * 0 // NaN as soon as one is not finite
  if (sum === 0) return
  const at = data.findIndex(value => !Number.isFinite(value))
  const index = first + Math.floor(at / each)
  throw new ArgumentError(`[forward] ${field} of ${noun} ${index} hold ${data[at]} at ${place} ${at % each}; expected finite numbers`, { field, index })
}
