// An op is declared once: its name, inputs, attributes and how the outputs' types follow from them. `defineOp` turns that into a
// checked constructor of graph nodes. Errors are thrown while tracing, with the stack of whoever called the op; native code never
// sees a wrong shape. Input names that end in `?` may be absent.

import { type DataType, isFloat } from './dtype.js'
import { ArgumentError, ChiasmaError, DTypeError, ShapeError } from './errors.js'
import { type Shape, sizeOf } from './shape.js'
import { type Attributes, type AttributeValue, type Extent, makeNode, sameExtent, Value, type ValueType } from './value.js'

/** Dimensions a tensor may have at most; the native side's max_rank. */
export const MAX_RANK = 6

// --- attributes ---

/** What an attribute may be, and what it is where the caller says nothing. */
export interface AttributeRule<T extends AttributeValue> {
  /** Completes the sentence "expected …". */
  readonly expected: string
  accepts(value: unknown): value is T
  readonly otherwise?: T | ((inputs: Readonly<Record<string, Value | undefined>>, attributes: Attributes) => T)
}

type AttributeRules = Readonly<Record<string, AttributeRule<any>>>
type AttributesOf<A> = { readonly [K in keyof A]: A[K] extends AttributeRule<infer T> ? T : never }

function rule<T extends AttributeValue>(
  expected: string,
  accepts: (value: unknown) => boolean,
  otherwise?: AttributeRule<T>['otherwise'],
): AttributeRule<T> {
  return { expected, accepts: accepts as AttributeRule<T>['accepts'], ...(otherwise !== undefined && { otherwise }) }
}

/** The kinds of attributes. */
export const attribute = {
  oneOf: <const T extends string>(names: readonly T[], otherwise?: T) =>
    rule<T>(`one of ${names.map((name) => `'${name}'`).join(', ')}`, (value) => names.includes(value as T), otherwise),
  number: (otherwise?: AttributeRule<number>['otherwise']) => rule<number>('a finite number', Number.isFinite, otherwise),
  /** An integer of at least `least`. */
  integer: (least: number, otherwise?: AttributeRule<number>['otherwise']) =>
    rule<number>(`an integer of at least ${least}`, (value) => Number.isSafeInteger(value) && (value as number) >= least, otherwise),
  flag: (otherwise: boolean) => rule<boolean>('true or false', (value) => typeof value === 'boolean', otherwise),
  /** `count` numbers for which `fits` holds. */
  numbers: (count: number, otherwise: readonly number[], fits: (n: number) => boolean = Number.isFinite, what = 'finite numbers') =>
    rule<readonly number[]>(
      `${count} ${what}`,
      (value) => Array.isArray(value) && value.length === count && value.every((n) => Number.isFinite(n) && fits(n)),
      otherwise,
    ),
  /** The output's dtype; the first input's where the caller gives none, float32 where that is no float. */
  outputType: (types: readonly DataType[] = ['float32', 'bfloat16', 'float16']) =>
    rule<DataType>(
      `one of ${types.map((type) => `'${type}'`).join(', ')}`,
      (value) => types.includes(value as DataType),
      (inputs) => {
        const first = Object.values(inputs)[0]!.dtype
        return isFloat(first) ? first : 'float32'
      },
    ),
}

// --- inputs ---

type Required<S extends string> = S extends `${string}?` ? never : S
type Optional<S extends string> = S extends `${infer Name}?` ? Name : never
export type InputsOf<I extends readonly string[]> = { readonly [K in Required<I[number]>]: Value } & {
  readonly [K in Optional<I[number]>]?: Value | undefined
}

/** The checks `infer` makes of its inputs, by their names; an absent optional input passes all of them. */
export class InputCheck {
  constructor(
    readonly op: string,
    private readonly inputs: Readonly<Record<string, Value | undefined>>,
  ) {}

  /** @throws ShapeError naming the shapes of `names` unless `holds`. */
  shape(holds: boolean, names: readonly string[], expected: string): void {
    if (holds) return
    const present = names.filter((name) => this.inputs[name])
    const came = present.map((name) => `${name} is [${this.inputs[name]!.shape.join(', ')}]`).join(', ')
    throw new ShapeError(`[${this.op}] ${came}; expected ${expected}`, {
      op: this.op,
      shapes: present.map((name) => this.inputs[name]!.shape),
    })
  }

  dtype(name: string, ...types: readonly DataType[]): void {
    const value = this.inputs[name]
    if (!value || types.includes(value.dtype)) return
    throw new DTypeError(`[${this.op}] ${name} is ${value.dtype}; expected ${types.join(' or ')}`, { op: this.op })
  }

  float(...names: readonly string[]): void {
    for (const name of names) this.dtype(name, 'float32', 'bfloat16', 'float16')
  }

  /** The input has exactly `rank` dimensions; `as` spells them, say '[T, C]'. */
  rank(name: string, rank: number, as: string): void {
    const value = this.inputs[name]
    if (value) this.shape(value.shape.length === rank, [name], `${name} to be ${as}`)
  }

  /** The input has rows: at least one dimension, of which the last does not vary from run to run. */
  rows(name: string): void {
    const value = this.inputs[name]
    if (!value) return
    this.shape(value.shape.length >= 1, [name], `${name} to have at least one dimension`)
    this.require(value.shape.length > 1 || !value.extent, `${name} varies in its last dimension (${describe(value.extent)})`, 'that to be fixed')
  }

  /** Nothing of the input varies from run to run. */
  fixed(...names: readonly string[]): void {
    for (const name of names) {
      const extent = this.inputs[name]?.extent
      this.require(!extent, `${name} varies from run to run (${describe(extent)})`, `${name} to be of one shape`)
    }
  }

  /** Both inputs vary alike in their first dimension, or neither does. */
  sameExtent(a: string, b: string): void {
    const [first, second] = [this.inputs[a], this.inputs[b]]
    if (!first || !second || sameExtent(first.extent, second.extent)) return
    throw new ShapeError(
      `[${this.op}] ${a} has ${describe(first.extent)}, ${b} has ${describe(second.extent)}; expected the rows of both to vary alike`,
      { op: this.op, shapes: [first.shape, second.shape] },
    )
  }

  /** @throws ShapeError `[op] came; expected …` unless `holds`. */
  require(holds: boolean, came: string, expected: string): void {
    if (!holds) throw new ShapeError(`[${this.op}] ${came}; expected ${expected}`, { op: this.op })
  }

  /** @throws ArgumentError unless `holds`. */
  argument(holds: boolean, field: string, came: string, expected: string): void {
    if (!holds) throw new ArgumentError(`[${this.op}] ${came}; expected ${expected}`, { op: this.op, field })
  }
}

/** An extent in words: `197 rows for each of 'images'`. */
export function describe(extent: Extent | undefined): string {
  if (!extent) return 'a fixed number of rows'
  const more = extent.extra ? ` and ${extent.extra} more` : ''
  return `${extent.per} row${extent.per === 1 ? '' : 's'} for each of '${extent.name}'${more}`
}

/** `shape` with another last dimension. */
export function withLast(shape: Shape, last: number): Shape {
  return [...shape.slice(0, -1), last]
}

// --- ops ---

/**
 * The backward rule of an op, for a later graph-to-graph transform: from the node and the gradients of its outputs (absent where
 * nothing reads one) to those of its inputs, in order, written with ops; undefined where an input needs none.
 */
export type Vjp = (
  inputs: readonly (Value | undefined)[],
  attributes: Attributes,
  outputs: readonly Value[],
  gradients: readonly (Value | undefined)[],
) => readonly (Value | undefined)[]

export interface OpDeclaration<I extends readonly string[], A extends AttributeRules> {
  readonly name: string
  readonly inputs: I
  /** The input that a device keeps packed: it must be a parameter with role 'linear', and only it may be one. */
  readonly packed?: NoInfer<I[number]>
  readonly attributes: A
  /** Set where the CUDA device has no kernel for it: a model that needs it cannot be loaded there. */
  readonly cuda?: false
  /** The outputs' types. `extent` is given by ops whose first dimension no input determines. */
  infer(inputs: InputsOf<I>, attributes: AttributesOf<A>, check: InputCheck, extent?: Extent): ValueType | readonly ValueType[]
  readonly vjp?: Vjp
}

type Given<A> = { readonly [K in keyof AttributesOf<A>]?: AttributesOf<A>[K] | undefined }

export interface Op<I extends readonly string[] = readonly string[], A extends AttributeRules = AttributeRules> extends OpDeclaration<I, A> {
  /**
   * Checks inputs and attributes, infers, and makes the node. Errors point at whoever called `caller`.
   * @throws ArgumentError, DTypeError, ShapeError
   */
  apply(caller: Function, inputs: InputsOf<I>, attributes: Given<A>, extent?: Extent): readonly Value[]
  /** `apply` for ops with one output. */
  one(caller: Function, inputs: InputsOf<I>, attributes: Given<A>, extent?: Extent): Value
}

/**
 * Declares an op.
 *
 * @example
 * const squareOp = defineOp({ name: 'square', inputs: ['x'], attributes: { dtype: attribute.outputType() },
 *   infer: ({ x }, { dtype }) => ({ shape: x.shape, dtype, extent: x.extent }) })
 */
export function defineOp<const I extends readonly string[], const A extends AttributeRules>(
  declaration: OpDeclaration<I, A>,
): Op<I, A> {
  const names = declaration.inputs.map((input) => ({ name: input.replace(/\?$/, ''), optional: input.endsWith('?') }))

  function apply(caller: Function, inputs: InputsOf<I>, given: Given<A>, extent?: Extent): readonly Value[] {
    try {
      const byName = inputs as Readonly<Record<string, Value | undefined>>
      checkInputs(declaration, names, byName)
      const attributes = checkAttributes(declaration, byName, given as Readonly<Record<string, unknown>>)
      const check = new InputCheck(declaration.name, byName)
      const inferred = declaration.infer(inputs, attributes as AttributesOf<A>, check, extent)
      const types = Array.isArray(inferred) ? (inferred as readonly ValueType[]) : [inferred as ValueType]
      for (const { shape } of types) checkOutput(declaration.name, shape)
      return makeNode(declaration.name, names.map(({ name }) => byName[name]), attributes, types).outputs
    } catch (error) {
      if (error instanceof ChiasmaError) Error.captureStackTrace(error, caller)
      throw error
    }
  }
  return { ...declaration, apply, one: (caller, inputs, attributes, extent) => apply(caller, inputs, attributes, extent)[0]! }
}

function checkInputs(
  { name: op, packed }: { name: string; packed?: string },
  names: readonly { name: string; optional: boolean }[],
  inputs: Readonly<Record<string, Value | undefined>>,
): void {
  for (const { name, optional } of names) {
    const value: unknown = inputs[name]
    if (value === undefined && optional) continue
    if (!(value instanceof Value)) {
      const came = value === null ? 'null' : typeof value === 'object' ? (value.constructor?.name ?? 'an object') : typeof value
      throw new ArgumentError(`[${op}] ${name} is ${came}; expected a Value`, { op, field: name })
    }
    const role = value.node.leaf?.parameter?.role
    if (name === packed && role !== 'linear') {
      throw new ArgumentError(
        `[${op}] ${name} is ${role ? 'a plain parameter' : value.node.leaf ? value.node.op === 'input' ? 'an input' : 'a constant' : `the result of '${value.node.op}'`}; expected a parameter with role 'linear'` +
          (op === 'linear' ? ' (matmul multiplies two values)' : ''),
        { op, field: name },
      )
    }
    if (name !== packed && role === 'linear') {
      throw new ArgumentError(`[${op}] ${name} is a parameter with role 'linear', which devices keep packed; expected one with role 'plain'`, {
        op,
        field: name,
      })
    }
  }
}

function checkAttributes(
  { name: op, attributes: rules, inputs: names }: { name: string; attributes: AttributeRules; inputs: readonly string[] },
  inputs: Readonly<Record<string, Value | undefined>>,
  given: Readonly<Record<string, unknown>>,
): Attributes {
  for (const field of Object.keys(given)) {
    if (!(field in rules)) {
      const options = [...names.filter((name) => name.endsWith('?')).map((name) => name.slice(0, -1)), ...Object.keys(rules)]
      throw new ArgumentError(`[${op}] there is no option '${field}'; expected ${options.join(', ')}`, { op, field })
    }
  }
  const attributes: Record<string, AttributeValue> = {}
  for (const [field, { accepts, expected, otherwise }] of Object.entries(rules)) {
    const value = given[field] ?? (typeof otherwise === 'function' ? otherwise(inputs, attributes) : otherwise)
    if (!accepts(value)) {
      const came = typeof value === 'string' ? `'${value}'` : Array.isArray(value) ? `[${value}]` : String(value)
      const error = field === 'dtype' ? DTypeError : ArgumentError
      throw new error(`[${op}] ${field} is ${came}; expected ${expected}`, { op, field })
    }
    attributes[field] = value
  }
  return attributes
}

function checkOutput(op: string, shape: Shape): void {
  if (shape.length > MAX_RANK) {
    throw new ShapeError(`[${op}] the result would be [${shape.join(', ')}]; expected at most ${MAX_RANK} dimensions`, { op })
  }
  sizeOf(shape)
}
