// Rewrite rules: named, one function each, applied until none fires. A rule looks at a node of the old graph and may return what
// replaces its (single) output. Results keep their bits; the one exception is named at pushPickUp.
//
// A pass walks the graph once, rebuilds what changed, and merges equal nodes, so that what is computed twice is computed once. Dead
// code needs no rule: what no output depends on is never visited.

import { isFloat } from './dtype.js'
import { topologicalOrder } from './graph.js'
import { sameShape } from './shape.js'
import { type Attributes, makeNode, type Node, sameExtent, type Value, type ValueType } from './value.js'

/** Who reads each value of the graph; the program's outputs are read by the caller, too. */
interface Uses {
  readonly readers: ReadonlyMap<Value, readonly Node[]>
  readonly outputs: ReadonlySet<Value>
}

export type Rule = (node: Node, uses: Uses) => Value | undefined

// --- rules ---

/** cast(x, x's dtype) → x */
export const dropCast: Rule = ({ op, inputs: [x], attributes }) => (op === 'cast' && x!.dtype === attributes['dtype'] ? x : undefined)

/** reshape(x, x's shape) → x; reshape(reshape(x)) → reshape(x) */
export const dropReshape: Rule = ({ op, inputs: [x], attributes, outputs: [out] }) => {
  if (op !== 'reshape') return undefined
  if (sameShape(x!.shape, out!.shape) && sameExtent(x!.extent, out!.extent)) return x
  return x!.node.op === 'reshape' ? build('reshape', [x!.node.inputs[0]!], attributes, out!) : undefined
}

/** columns(x, 0, all) → x */
export const dropColumns: Rule = ({ op, inputs: [x], outputs: [out] }) =>
  op === 'columns' && x!.shape.at(-1) === out!.shape.at(-1) ? x : undefined

/** pickToken of sequences that are one token long → x, cast if need be */
export const dropPick: Rule = ({ op, inputs: [x], attributes }) => (op === 'pickToken' && attributes['length'] === 1 ? asType(x!, attributes) : undefined)

/** add(linear(x, w), b) → linear(x, w, b), for a row b of float32 */
export const fuseBias: Rule = (node, uses) => {
  const [product, bias] = node.inputs
  if (node.op !== 'add' || !product || !isPlainLinear(product, uses) || product.node.inputs[2]) return undefined
  if (bias!.shape.length !== 1 || product.shape.length < 2 || bias!.dtype !== 'float32' || bias!.extent) return undefined
  const [x, weight] = product.node.inputs
  return build('linear', [x, weight, bias, undefined], { ...product.node.attributes, dtype: node.attributes['dtype']! }, node.outputs[0]!)
}

/** unary(linear(x, w, b), kind) → linear(x, w, b, activation) */
export const fuseActivation: Rule = (node, uses) => {
  const [product] = node.inputs
  if (node.op !== 'unary' || !isPlainLinear(product!, uses) || !activations.has(node.attributes['kind'] as string)) return undefined
  const attributes = { activation: node.attributes['kind']!, dtype: node.attributes['dtype']! }
  return build('linear', product!.node.inputs, attributes, node.outputs[0]!)
}

/** add(linear(x, w, b), r) and add(r, linear(x, w, b)) → linear(x, w, b, residual r) */
export const fuseResidual: Rule = (node, uses) => {
  if (node.op !== 'add') return undefined
  const [a, b] = node.inputs as [Value, Value]
  if (!sameShape(a.shape, b.shape)) return undefined
  for (const [product, residual] of [[a, b], [b, a]] as const) {
    if (product === residual || !isUnroundedLinear(product, uses)) continue
    const [x, weight, bias] = product.node.inputs
    const attributes = { ...product.node.attributes, dtype: node.attributes['dtype']! }
    return build('linear', [x, weight, bias, residual], attributes, node.outputs[0]!)
  }
  return undefined
}

/**
 * pickToken(op(x)) → op(pickToken(x)) for ops that work row by row, and pickToken(attention(q, k, v)) → attention(pickToken(q), k, v),
 * where nothing else reads the op's result: the last block then computes picked tokens only.
 * For attention, the picked query must see the same keys when it is its sequence's only one, which then counts as the last: so the last
 * one does; the first does where every query sees all keys, and only the first keeps its row of the relative bias.
 * An empty sequence has no token to pick: `pickToken` gives it zeros, and after this rule its row is what the op makes of zeros.
 */
export const pushPickUp: Rule = (pick, uses) => {
  if (pick.op !== 'pickToken') return undefined
  const x = pick.inputs[0]!
  if (uses.outputs.has(x) || !uses.readers.get(x)!.every((reader) => samePick(reader, pick))) return undefined
  const { op, inputs, attributes } = x.node
  const { shape, extent } = pick.outputs[0]!
  const out: ValueType = { shape, dtype: x.dtype, extent }
  const picked = (value: Value): Value => {
    const { dtype } = value
    return build('pickToken', [value, pick.inputs[1]], { ...pick.attributes, dtype }, { shape: [shape[0]!, value.shape[1]!], dtype, extent })
  }

  if (op === 'attention') {
    const [q, k, v, cuSeqlensQ, cuSeqlensK, relativeBias] = inputs
    if (cuSeqlensQ !== pick.inputs[1] || attributes['queryLength'] !== pick.attributes['length']) return undefined
    const first = pick.attributes['which'] === 'first'
    if (first ? attributes['causal'] || attributes['window'] !== -1 : relativeBias) return undefined
    return asType(build(op, [picked(q!), k, v, undefined, cuSeqlensK, relativeBias], { ...attributes, queryLength: 1 }, out), pick.attributes)
  }
  // The first token is not turned where the table has fewer rows than a sequence.
  const length = attributes['length'] as number
  if (op === 'rotary' && pick.attributes['which'] === 'first' && length === pick.attributes['length'] && length > inputs[1]!.shape[0]!) {
    return asType(asType(picked(inputs[0]!), { dtype: x.dtype }), pick.attributes)
  }
  const rowInputs = rowWise[op]
  if (!rowInputs || inputs.some((value, i) => rowInputs.includes(i) && value && !isFloat(value.dtype))) return undefined
  // A view of columns is cheap; picking the rows of what it is cut from pays only if that becomes smaller, too.
  if (op === 'columns' && uses.readers.get(inputs[0]!)!.length > 1) return undefined
  const newInputs = inputs.map((value, i) => (value && rowInputs.includes(i) && value.shape.length === x.shape.length ? picked(value) : value))
  return asType(build(op, newInputs, attributes, out), pick.attributes)
}

/** The rules in the order they are tried. */
export const rules: Readonly<Record<string, Rule>> = {
  dropCast,
  dropReshape,
  dropColumns,
  dropPick,
  fuseBias,
  fuseActivation,
  fuseResidual,
  pushPickUp,
}

// --- parts of rules ---

/** Which inputs of an op have a row for each row of the output; the op computes each from its own row. */
const rowWise: Readonly<Record<string, readonly number[]>> = {
  linear: [0, 3],
  layerNorm: [0],
  rmsNorm: [0],
  l2Normalize: [0],
  softmax: [0],
  add: [0, 1],
  sub: [0, 1],
  mul: [0, 1],
  div: [0, 1],
  unary: [0],
  cast: [0],
  columns: [0],
}

const activations = new Set(['gelu', 'quick_gelu', 'gelu_tanh', 'relu', 'silu', 'tanh'])

/** A linear without residual whose float32 result has one reader; taking over what that reader does skips no rounding. */
function isUnroundedLinear(value: Value, { readers, outputs }: Uses): boolean {
  const { op, inputs } = value.node
  return op === 'linear' && !inputs[3] && value.dtype === 'float32' && readers.get(value)!.length === 1 && !outputs.has(value)
}

function isPlainLinear(value: Value, uses: Uses): boolean {
  return isUnroundedLinear(value, uses) && value.node.attributes['activation'] === 'none'
}

function samePick(a: Node, b: Node): boolean {
  return (
    a.op === 'pickToken' &&
    a.inputs[1] === b.inputs[1] &&
    a.attributes['which'] === b.attributes['which'] &&
    a.attributes['length'] === b.attributes['length']
  )
}

function asType(value: Value, { dtype }: Attributes): Value {
  if (value.dtype === dtype) return value
  return build('cast', [value], { dtype: dtype! }, { ...typeOf(value), dtype: dtype as ValueType['dtype'] })
}

function build(op: string, inputs: readonly (Value | undefined)[], attributes: Attributes, type: ValueType): Value {
  return makeNode(op, inputs, attributes, [typeOf(type)]).outputs[0]!
}

function typeOf({ shape, dtype, extent }: ValueType): ValueType {
  return { shape, dtype, extent }
}

// --- the engine ---

/** Applies `using` (default: all rules) until nothing changes. */
export function rewrite(outputs: Readonly<Record<string, Value>>, using: readonly Rule[] = Object.values(rules)): Record<string, Value> {
  const names = Object.keys(outputs)
  let current = Object.values(outputs)
  for (;;) {
    const next = rewriteOnce(current, using)
    if (next.every((value, i) => value === current[i])) return Object.fromEntries(names.map((name, i) => [name, next[i]!]))
    current = next
  }
}

function rewriteOnce(outputs: readonly Value[], using: readonly Rule[]): Value[] {
  const order = topologicalOrder(outputs)
  const uses = usesOf(order, outputs)
  const renewed = new Map<Value, Value>()
  const merge = merger()

  /** A value of the old graph, or one that a rule made of such values, in the new graph. */
  function renew(value: Value): Value {
    const known = renewed.get(value)
    if (known) return known
    const { node } = value
    const inputs = node.inputs.map((input) => input && renew(input))
    const changed = inputs.some((input, i) => input !== node.inputs[i])
    const fresh = merge(changed ? makeNode(node.op, inputs, node.attributes, node.outputs.map(typeOf), node.leaf) : node)
    node.outputs.forEach((output, i) => renewed.set(output, fresh.outputs[i]!))
    return renewed.get(value)!
  }

  for (const node of order) {
    let replacement: Value | undefined
    if (!node.leaf) for (const rule of using) if ((replacement = rule(node, uses))) break
    if (replacement) renewed.set(node.outputs[0]!, renew(replacement))
    else renew(node.outputs[0]!)
  }
  return outputs.map((value) => renewed.get(value)!)
}

function usesOf(order: readonly Node[], outputs: readonly Value[]): Uses {
  const readers = new Map<Value, Node[]>()
  for (const node of order) {
    for (const value of node.outputs) readers.set(value, [])
    for (const input of new Set(node.inputs)) if (input) readers.get(input)!.push(node)
  }
  return { readers, outputs: new Set(outputs) }
}

/** Gives the first node that was seen with the same op, inputs and attributes. Leaves are themselves. */
function merger(): (node: Node) => Node {
  const nodes = new Map<string, Node>()
  const ids = new Map<Value, number>()
  const idOf = (value: Value | undefined): number => {
    if (!value) return -1
    if (!ids.has(value)) ids.set(value, ids.size)
    return ids.get(value)!
  }
  return (node) => {
    if (node.leaf) return node
    const extents = node.outputs.map(({ extent }) => extent)
    const key = `${node.op}(${node.inputs.map(idOf)})${JSON.stringify([node.attributes, extents])}`
    const known = nodes.get(key)
    if (!known) nodes.set(key, node)
    return known ?? node
  }
}
