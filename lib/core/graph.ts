// Graphs as data: topological order, a text form for people and tests, and lowering to the wire form that the executor takes.
// Views (reshape, columns) become aliases; parameters become weights by index; constants travel as further inputs of each run.

import { ArgumentError, ShapeError } from './errors.js'
import type { Node, Parameter, Value, ValueType } from './value.js'
import type { WirePlan, WireStep, WireValue } from '../../typings/addon.js'

/** The nodes that `outputs` depend on, inputs before users. Iterative: graphs may be deeper than the stack. */
export function topologicalOrder(outputs: readonly Value[]): Node[] {
  const order: Node[] = []
  const state = new Map<Node, 'open' | 'done'>()
  const stack = outputs.map((value) => value.node).reverse()
  while (stack.length > 0) {
    const node = stack.at(-1)!
    if (state.get(node) === undefined) {
      state.set(node, 'open')
      for (let i = node.inputs.length - 1; i >= 0; --i) {
        const input = node.inputs[i]
        if (input && !state.has(input.node)) stack.push(input.node)
      }
    } else {
      stack.pop()
      if (state.get(node) === 'open') order.push(node)
      state.set(node, 'done')
    }
  }
  return order
}

/** Whether a node's result is its input's memory seen otherwise: it needs no kernel. */
export function isView({ op }: Node): boolean {
  return op === 'reshape' || op === 'columns'
}

/** One line a node, `%3 = linear(%1, weight) {"activation":"none"} float32 [8, 64]`; for tests and for looking at what was traced. */
export function formatGraph(outputs: Readonly<Record<string, Value>>): string {
  const names = new Map<Value, string>()
  const lines: string[] = []
  for (const node of topologicalOrder(Object.values(outputs))) {
    node.outputs.forEach((value) => {
      const leaf = node.leaf?.name ?? node.leaf?.parameter?.name
      names.set(value, leaf ?? `%${lines.length}${node.outputs.length > 1 ? `.${value.index}` : ''}`)
    })
    if (node.leaf && node.op !== 'constant') continue
    const inputs = node.inputs.map((input) => (input ? names.get(input) : '-')).join(', ')
    const attributes = Object.entries(node.attributes)
      .map(([name, value]) => ` ${name}=${value}`)
      .join('')
    const types = node.outputs.map(({ dtype, shape }) => `${dtype} [${shape.join(', ')}]`).join(', ')
    lines.push(`%${lines.length} = ${node.op}(${inputs})${attributes}: ${types}`)
  }
  for (const [name, value] of Object.entries(outputs)) lines.push(`${name} = ${names.get(value)}`)
  return lines.join('\n')
}

export interface Lowered {
  readonly plan: WirePlan
  /** Names of the plan's inputs, in order; after them come `constants`. */
  readonly inputs: readonly string[]
  readonly constants: readonly Value[]
  /** For each plan output, its type; several names may share one. */
  readonly outputTypes: readonly ValueType[]
  readonly outputIndex: Readonly<Record<string, number>>
}

/** A value's place in the memory of the value at `root`, in elements. */
interface Place {
  readonly index: number
  readonly root: number
  readonly offset: number
  readonly rowStride: number
}

/**
 * The wire form of a graph.
 *
 * @param weightIndex where a parameter stands among the weights
 * @throws ArgumentError, ShapeError
 */
export function lower(outputs: Readonly<Record<string, Value>>, weightIndex: (parameter: Parameter) => number): Lowered {
  const order = topologicalOrder(Object.values(outputs))
  const wanted = new Set(Object.values(outputs))
  const extents = new ExtentTable()
  const values: WireValue[] = []
  const steps: WireStep[] = []
  const places = new Map<Value, Place>()
  const inputs: string[] = []
  const inputIndices: number[] = []
  const constants: Value[] = []
  const constantIndices: number[] = []

  function push(type: ValueType, rest: Pick<WireValue, 'kind'> & Partial<WireValue>): number {
    values.push({ dtype: type.dtype, shape: [...type.shape], ...extents.reference(type), ...rest })
    return values.length - 1
  }
  function place(value: Value, index: number): void {
    places.set(value, { index, root: index, offset: 0, rowStride: lastOf(value.shape) })
  }

  for (const node of order) {
    const first = node.outputs[0]!
    switch (node.op) {
      case 'input':
        place(first, push(first, { kind: 'input', name: node.leaf!.name! }))
        inputs.push(node.leaf!.name!)
        inputIndices.push(places.get(first)!.index)
        break
      case 'constant':
        place(first, push(first, { kind: 'input' }))
        constants.push(first)
        constantIndices.push(places.get(first)!.index)
        break
      case 'parameter': {
        const parameter = node.leaf!.parameter!
        place(first, push(first, { kind: 'weight', weight: weightIndex(parameter), name: parameter.name }))
        break
      }
      case 'reshape':
      case 'columns': {
        const source = node.inputs[0]!
        const { root, offset, rowStride } = places.get(source)!
        const alias = {
          of: root,
          offset: offset + (node.op === 'columns' ? (node.attributes['begin'] as number) : 0),
          rowStride: node.op === 'reshape' && rowStride === lastOf(source.shape) ? lastOf(first.shape) : rowStride,
        }
        places.set(first, { index: push(first, { kind: 'temporary', alias }), root, ...alias })
        break
      }
      default: {
        for (const value of node.outputs) place(value, push(value, { kind: wanted.has(value) ? 'output' : 'temporary' }))
        steps.push({
          op: node.op,
          inputs: node.inputs.map((value) => (value ? places.get(value)!.index : -1)),
          outputs: node.outputs.map((value) => places.get(value)!.index),
          attributes: { ...node.attributes },
        })
      }
    }
  }

  const planOutputs: number[] = []
  const outputTypes: ValueType[] = []
  const outputIndex: Record<string, number> = {}
  const seen = new Map<Value, number>()
  for (const [name, value] of Object.entries(outputs)) {
    if (!seen.has(value)) {
      seen.set(value, planOutputs.length)
      if (value.node.leaf?.parameter?.role === 'linear') {
        throw new ArgumentError(`[compile] output '${name}' is a parameter with role 'linear', which devices keep packed; expected the result of an op`)
      }
      planOutputs.push(places.get(value)!.index)
      outputTypes.push({ shape: value.shape, dtype: value.dtype, extent: value.extent })
    }
    outputIndex[name] = seen.get(value)!
  }

  const plan = { extents: extents.list, values, steps, inputs: [...inputIndices, ...constantIndices], outputs: planOutputs }
  return { plan, inputs, constants, outputTypes, outputIndex }
}

function lastOf(shape: readonly number[]): number {
  return shape.at(-1) ?? 1
}

/** How many of `extent.name` a value of this type has room for. @throws ShapeError if its rows are not whole. */
export function capacityOf({ shape, extent }: ValueType, name: string): number {
  const count = ((shape[0] ?? 0) - (extent!.extra ?? 0)) / extent!.per
  if (!Number.isInteger(count) || count < 0) {
    throw new ShapeError(
      `[compile] ${name} is [${shape.join(', ')}]; expected ${extent!.per} rows for each of '${extent!.name}' and ${extent!.extra ?? 0} more`,
    )
  }
  return count
}

/** The plan's extents; a name has one capacity. */
class ExtentTable {
  readonly list: { name: string; capacity: number }[] = []

  reference(type: ValueType): Pick<WireValue, 'extent' | 'per' | 'extra'> {
    const { extent } = type
    if (!extent) return {}
    const capacity = capacityOf(type, 'a value')
    let index = this.list.findIndex(({ name }) => name === extent.name)
    if (index < 0) index = this.list.push({ name: extent.name, capacity }) - 1
    const known = this.list[index]!
    if (known.capacity !== capacity) {
      throw new ArgumentError(`[compile] '${extent.name}' has room for ${known.capacity} in one value and ${capacity} in another; expected one capacity`)
    }
    return { extent: index, per: extent.per, ...(extent.extra ? { extra: extent.extra } : {}) }
  }
}

/** The shape a value of this type has when each extent has its count. */
export function actualShape({ shape, extent }: ValueType, counts: Readonly<Record<string, number>>): readonly number[] {
  return extent ? [extent.per * counts[extent.name]! + (extent.extra ?? 0), ...shape.slice(1)] : shape
}

