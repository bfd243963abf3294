// From a function over Values to a program that runs on a device: trace it once on symbolic inputs, rewrite the graph, lower it, and
// hand the plan to the device. Tracing is abstract: JavaScript values read while tracing become part of the plan, and a traced value
// has no data to branch on (TraceError).

import { createHash } from 'node:crypto'
import type { Device, Weights } from './device.js'
import type { TensorData } from './dtype.js'
import { ArgumentError, DisposedError, DTypeError, ShapeError } from './errors.js'
import { actualShape, capacityOf, type Lowered, lower } from './graph.js'
import { abortable, native } from './native.js'
import type { PlanEntry } from './plan-cache.js'
import { rewrite } from './rewrite.js'
import { sameShape } from './shape.js'
import { Tensor, type TensorLike, unwritten } from './tensor.js'
import { input, type Parameter, Value, type ValueType } from './value.js'

export interface CompileOptions {
  /** Each run checks that no op writes beyond its buffers, and shows what is read before it is written as NaN. Slow; for tests. */
  guard?: boolean
}

export type TracedFunction = (inputs: Record<string, Value>) => Record<string, Value>

/**
 * Compiles `fn` for inputs of the given types; where a type has an extent, its first dimension is a capacity.
 *
 * @example
 * const program = compile(({ x }) => ({ y: softmax(x) }), { x: { shape: [2, 3], dtype: 'float32' } }, device)
 * const { y } = await program.run({ x: new Tensor('float32', new Float32Array(6), [2, 3]) })
 * @throws ShapeError, DTypeError, ArgumentError from the ops that `fn` calls; TraceError if it asks a value for data
 */
export function compile(
  fn: TracedFunction,
  specs: Readonly<Record<string, ValueType>>,
  device: Device,
  weights?: Weights,
  options: CompileOptions = {},
): Program {
  const { guard = false } = options
  const lowered = lower(rewrite(trace(fn, specs)), (parameter) => weightIndex(parameter, weights))
  const text = JSON.stringify([guard, lowered.plan])
  const key = `${weights?.id ?? 0}:${createHash('sha256').update(text).digest('base64')}`
  const entry = device.plans.take(key, () => native(() => device.native.createProgram(lowered.plan, weights?.native, { guard }), compile))
  return new Program(device, specs, lowered, entry)
}

/** Calls `fn` on symbolic inputs and gives the outputs of its graph, as written. */
export function trace(fn: TracedFunction, specs: Readonly<Record<string, ValueType>>): Record<string, Value> {
  const inputs: Record<string, Value> = {}
  for (const [name, type] of Object.entries(specs)) {
    if (type.extent) capacityOf(type, `input '${name}'`)
    inputs[name] = input(name, type)
  }
  const outputs: unknown = fn(inputs)
  if (outputs instanceof Promise) {
    outputs.catch(() => {}) // what it rejects with is of no more interest
    throw new ArgumentError('[compile] the function returned a promise; expected it to return its outputs without waiting')
  }
  if (outputs === null || typeof outputs !== 'object' || Object.keys(outputs).length === 0) {
    throw new ArgumentError('[compile] the function returned no outputs; expected an object of Values by name')
  }
  for (const [name, value] of Object.entries(outputs)) {
    if (!(value instanceof Value)) throw new ArgumentError(`[compile] output '${name}' is no Value; expected the result of an op`, { field: name })
  }
  return outputs as Record<string, Value>
}

function weightIndex(parameter: Parameter, weights: Weights | undefined): number {
  const index = weights?.index.get(parameter)
  if (index === undefined) {
    throw new ArgumentError(`[compile] parameter '${parameter.name}' is not among the weights${weights ? '' : ': none are given'}`, {
      field: parameter.name,
    })
  }
  return index
}

export interface RunOptions {
  /** How many there are of each extent; what the inputs' shapes tell need not be said. */
  counts?: Readonly<Record<string, number>> | undefined
  /** The promise rejects with its reason; queued work does not start, running work stops between ops. */
  signal?: AbortSignal | undefined
  /**
   * Where results are written, by name; of others the program makes its own. They are written on another thread until the promise settles:
   * nobody else may have them, and they hold nothing if it rejects.
   * @internal
   */
  into?: Readonly<Record<string, TensorData>> | undefined
}

/** A compiled function. Runs may overlap: the device takes them one after the other. */
export class Program {
  readonly outputs: readonly string[]
  private readonly capacities: Readonly<Record<string, number>>
  private entry: PlanEntry | undefined

  /** @internal */
  constructor(
    private readonly device: Device,
    readonly inputs: Readonly<Record<string, ValueType>>,
    private readonly lowered: Lowered,
    entry: PlanEntry,
  ) {
    this.entry = entry
    this.outputs = Object.keys(lowered.outputIndex)
    const capacities: Record<string, number> = {}
    for (const [name, type] of Object.entries(inputs)) if (type.extent) capacities[type.extent.name] = capacityOf(type, name)
    for (const { name, capacity } of lowered.plan.extents) capacities[name] = capacity
    this.capacities = capacities
  }

  /** The outputs' types at capacity. */
  get outputTypes(): Readonly<Record<string, ValueType>> {
    const { outputIndex, outputTypes } = this.lowered
    return Object.fromEntries(Object.entries(outputIndex).map(([name, i]) => [name, outputTypes[i]!]))
  }

  /** What its rows are counted by. */
  get extents(): readonly string[] {
    return Object.keys(this.capacities)
  }

  /** Bytes of the arena this plan needs; plans of a device share one. */
  get arenaBytes(): number {
    return native(() => this.alive().program.arenaBytes)
  }

  /**
   * Runs the program: one native call. Inputs are copied before the promise is returned.
   *
   * @param inputs by name, of the compiled dtypes, and shapes with the actual counts in place of capacities
   * @throws ArgumentError, DTypeError, ShapeError for inputs that do not fit; DisposedError; what the ops say of their data
   */
  async run(inputs: Readonly<Record<string, TensorLike>>, options: RunOptions = {}): Promise<Record<string, Tensor>> {
    const { signal, into = {} } = options
    signal?.throwIfAborted()
    const { program } = this.alive()
    const tensors = this.checkInputs(inputs)
    const counts = this.checkCounts(tensors, options.counts ?? {})
    const { plan, inputs: order, constants, outputTypes, outputIndex } = this.lowered
    const data = [...order.map((name) => tensors[name]!.data), ...constants.map((value) => value.node.leaf!.tensor!.data)]
    const extents = plan.extents.map(({ name }) => counts[name]!)
    const given: (TensorData | undefined)[] = []
    for (const [name, memory] of Object.entries(into)) given[outputIndex[name]!] = memory
    const results = outputTypes.map((type, i) => {
      const shape = actualShape(type, counts)
      return new Tensor(type.dtype, given[i] ?? unwritten(type.dtype, shape, 'run'), shape)
    })
    const memory = results.map(({ data }) => data)
    await abortable(signal, (task) => native(() => program.run(data, extents, task, memory), this.run))
    // Of names that share an output one has it; the others get a copy.
    for (const [name, other] of Object.entries(into)) {
      const { data } = results[outputIndex[name]!]!
      if (data !== other) (other as Uint8Array).set(data as Uint8Array)
    }
    return Object.fromEntries(Object.entries(outputIndex).map(([name, i]) => [name, results[i]!]))
  }

  /** Gives the plan back; runs that are queued or running still end. */
  dispose(): void {
    const { entry } = this
    this.entry = undefined
    if (entry) native(() => this.device.plans.release(entry))
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  private alive(): PlanEntry {
    if (!this.entry) throw new DisposedError('[run] the program has been disposed of')
    return this.entry
  }

  private checkInputs(given: Readonly<Record<string, TensorLike>>): Record<string, Tensor> {
    const names = Object.keys(this.inputs)
    for (const name of Object.keys(given)) {
      if (!Object.hasOwn(this.inputs, name)) {
        throw new ArgumentError(`[run] there is no input '${name}'; expected ${names.join(', ') || 'none'}`, { field: name })
      }
    }
    const tensors: Record<string, Tensor> = {}
    for (const [name, { dtype, shape }] of Object.entries(this.inputs)) {
      if (given[name] === undefined) {
        throw new ArgumentError(`[run] input '${name}' is missing; expected ${dtype} [${shape.join(', ')}]`, { field: name })
      }
      const tensor = Tensor.from(given[name], `[run] input '${name}'`)
      if (tensor.type !== dtype) throw new DTypeError(`[run] input '${name}' is ${tensor.type}; expected ${dtype}`, { field: name })
      tensors[name] = tensor
    }
    return tensors
  }

  /** The count of each extent, told by the caller or by the first input that has it; then every input's shape must agree. */
  private checkCounts(tensors: Readonly<Record<string, Tensor>>, told: Readonly<Record<string, number>>): Record<string, number> {
    const counts: Record<string, number> = {}
    for (const [name, count] of Object.entries(told)) {
      if (!Object.hasOwn(this.capacities, name)) {
        throw new ArgumentError(`[run] nothing is counted by '${name}'; expected ${Object.keys(this.capacities).join(', ') || 'no counts'}`, { field: name })
      }
      counts[name] = count
    }
    for (const [name, { extent }] of Object.entries(this.inputs)) {
      if (extent && !(extent.name in counts)) counts[extent.name] = ((tensors[name]!.dims[0] ?? 0) - (extent.extra ?? 0)) / extent.per
    }
    for (const [name, capacity] of Object.entries(this.capacities)) {
      const count = counts[name]
      if (count === undefined) throw new ArgumentError(`[run] the count of '${name}' is neither given nor told by an input`, { field: name })
      if (Number.isSafeInteger(count) && count >= 0 && count <= capacity) continue
      const input = Object.entries(this.inputs).find(([, type]) => type.extent?.name === name)?.[0]
      const came = name in told || !input ? '' : ` (input '${input}' is [${tensors[input]!.dims.join(', ')}])`
      throw new ShapeError(`[run] there are ${count} '${name}'${came}; expected a whole number up to ${capacity}`, { field: name })
    }
    for (const [name, type] of Object.entries(this.inputs)) {
      const expected = actualShape(type, counts)
      const { dims } = tensors[name]!
      if (!sameShape(dims, expected)) {
        throw new ShapeError(`[run] input '${name}' is [${dims.join(', ')}]; expected [${expected.join(', ')}]`, {
          field: name,
          shapes: [dims, expected],
        })
      }
    }
    return counts
  }
}
