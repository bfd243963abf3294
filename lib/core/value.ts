// The graph: a Value is one result of a Node, known by shape and dtype only. Nothing here computes.
// A leading dimension may vary from run to run: its `extent` names the count and says how many rows one of it makes, and
// `shape[0]` is then the capacity the plan was compiled for.

import type { DataType } from './dtype.js'
import { TraceError } from './errors.js'
import type { Shape } from './shape.js'
import type { Tensor } from './tensor.js'

/**
 * Rows that vary: `shape[0]` is `per` for each one counted by `name` (say 'images', 197 tokens each), and `extra` more.
 * Cumulative lengths of the sequences counted by `name` are `{ name, per: 1, extra: 1 }`: one row more than there are sequences.
 */
export interface Extent {
  readonly name: string
  readonly per: number
  readonly extra?: number
}

export function sameExtent(a: Extent | undefined, b: Extent | undefined): boolean {
  return a?.name === b?.name && a?.per === b?.per && (a?.extra ?? 0) === (b?.extra ?? 0)
}

export type AttributeValue = number | string | boolean | readonly number[]
export type Attributes = Readonly<Record<string, AttributeValue>>

/** How a device stores a parameter: as it is, or prepared (packed) as the weight of `linear` and `patchEmbed`. */
export type WeightRole = 'plain' | 'linear'

/** A tensor of the checkpoint, as one module uses it. Identity matters: two uses of one Parameter share device memory. */
export interface Parameter {
  /** The checkpoint's name for it. */
  readonly name: string
  readonly shape: Shape
  /** Storage type on the device. */
  readonly dtype: DataType
  readonly role: WeightRole
  /** How it lies in a stored tensor that has another shape. */
  readonly view?: StoredView
  /** What it is computed from, for one that no checkpoint stores as it is; `name` is then for messages only. */
  readonly derived?: Derived
  /** A factor of each row [shape[0]], multiplied in while the weight is loaded: a batch norm's, folded. */
  readonly rowScale?: Derived
}

/** A part of a stored tensor, with its dimensions in another order. */
export interface StoredView {
  /** Of the tensor as it is stored. */
  readonly shape: Shape
  /** First index of the stored first dimension; the parameter has as many as its size says. Default 0. */
  readonly begin?: number
  /** The stored dimensions in the parameter's order, say [0, 2, 3, 1]. Default: as stored. */
  readonly order?: readonly number[]
}

/** A tensor computed on the host from others of the checkpoint when the model is loaded: for small ones. */
export interface Derived {
  /** By their names in the checkpoint. */
  readonly from: readonly { readonly name: string; readonly shape: Shape }[]
  /** The stored numbers, row-major, in the order of `from`, to those of the parameter. */
  compute(tensors: readonly Float32Array[]): Float32Array | Promise<Float32Array>
}

export interface Node {
  /** An op of the op table, or a leaf: 'input', 'parameter', 'constant'. */
  readonly op: string
  readonly inputs: readonly (Value | undefined)[]
  readonly attributes: Attributes
  readonly outputs: readonly Value[]
  readonly leaf?: { readonly name?: string; readonly parameter?: Parameter; readonly tensor?: Tensor }
}

export class Value {
  constructor(
    readonly node: Node,
    readonly index: number,
    readonly shape: Shape,
    readonly dtype: DataType,
    readonly extent?: Extent,
  ) {}

  /** @throws TraceError */
  get data(): never {
    throw new TraceError(`${this} is being traced and has no data; compile and run it`)
  }

  toString(): string {
    return `a ${this.dtype} [${this.shape.join(', ')}] of '${this.node.op}'`
  }

  /** A value in arithmetic or a comparison is a branch on data that is not there. @throws TraceError */
  [Symbol.toPrimitive](hint: string): string {
    return hint === 'string' ? this.toString() : this.data
  }
}

export interface ValueType {
  readonly shape: Shape
  readonly dtype: DataType
  readonly extent?: Extent
}

/** Makes a node and its outputs. */
export function makeNode(
  op: string,
  inputs: readonly (Value | undefined)[],
  attributes: Attributes,
  types: readonly ValueType[],
  leaf?: Node['leaf'],
): Node {
  const outputs: Value[] = []
  const node: Node = { op, inputs, attributes, outputs, leaf }
  types.forEach((type, i) => outputs.push(new Value(node, i, type.shape, type.dtype, type.extent)))
  return node
}

/** A named input of the traced function. */
export function input(name: string, type: ValueType): Value {
  return makeNode('input', [], {}, [type], { name }).outputs[0]!
}

const parameterValues = new WeakMap<Parameter, Value>()

/** The value of a parameter; one value per Parameter. */
export function parameter(p: Parameter): Value {
  let value = parameterValues.get(p)
  if (!value) {
    value = makeNode('parameter', [], {}, [{ shape: p.shape, dtype: p.dtype }], { parameter: p }).outputs[0]!
    parameterValues.set(p, value)
  }
  return value
}

/** A small host tensor that becomes part of the program. */
export function constant(tensor: Tensor): Value {
  return makeNode('constant', [], {}, [{ shape: tensor.dims, dtype: tensor.type }], { tensor }).outputs[0]!
}
