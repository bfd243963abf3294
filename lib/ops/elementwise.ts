// Element by element: arithmetic of two values, functions of one, casts. The second operand of arithmetic may have the first's
// trailing dimensions only (a row for all rows, or a scalar).

import type { DataType } from '../core/dtype.js'
import { attribute, defineOp } from '../core/op.js'
import { sameShape } from '../core/shape.js'
import type { Value } from '../core/value.js'

function arithmeticOp<const N extends string>(name: N) {
  return defineOp({
    name,
    inputs: ['a', 'b'],
    attributes: { dtype: attribute.outputType() },
    infer({ a, b }, { dtype }, check) {
      check.float('a', 'b')
      const whole = a.shape.length === b.shape.length
      check.shape(
        b.shape.length <= a.shape.length && sameShape(b.shape, a.shape.slice(a.shape.length - b.shape.length)),
        ['a', 'b'],
        `b to be [${a.shape.join(', ')}] or its trailing dimensions`,
      )
      if (whole) check.sameExtent('a', 'b')
      else check.fixed('b')
      return { shape: a.shape, dtype, extent: a.extent }
    },
  })
}

export interface ElementwiseOptions {
  dtype?: DataType | undefined
}

export const addOp = arithmeticOp('add')
/** a + b. @param a float [...] @param b of a's shape or trailing dimensions @throws ShapeError, DTypeError, ArgumentError */
export function add(a: Value, b: Value, options: ElementwiseOptions = {}): Value {
  return addOp.one(add, { a, b }, options)
}

export const subOp = arithmeticOp('sub')
/** a − b; see `add`. */
export function sub(a: Value, b: Value, options: ElementwiseOptions = {}): Value {
  return subOp.one(sub, { a, b }, options)
}

export const mulOp = arithmeticOp('mul')
/** a · b; see `add`. */
export function mul(a: Value, b: Value, options: ElementwiseOptions = {}): Value {
  return mulOp.one(mul, { a, b }, options)
}

export const divOp = arithmeticOp('div')
/** a / b; see `add`. */
export function div(a: Value, b: Value, options: ElementwiseOptions = {}): Value {
  return divOp.one(div, { a, b }, options)
}

export const unaryKinds = ['gelu', 'quick_gelu', 'gelu_tanh', 'relu', 'silu', 'tanh', 'sigmoid', 'exp', 'neg', 'sqrt', 'abs'] as const
export type UnaryKind = (typeof unaryKinds)[number]

export const unaryOp = defineOp({
  name: 'unary',
  inputs: ['x'],
  attributes: { kind: attribute.oneOf(unaryKinds), dtype: attribute.outputType() },
  infer({ x }, { dtype }, check) {
    check.float('x')
    return { shape: x.shape, dtype, extent: x.extent }
  },
})

/**
 * A function of each element.
 *
 * @param x float [...]
 * @throws DTypeError, ArgumentError
 */
export function unary(x: Value, kind: UnaryKind, options: ElementwiseOptions = {}): Value {
  return unaryOp.one(unary, { x }, { kind, ...options })
}

export const castOp = defineOp({
  name: 'cast',
  inputs: ['x'],
  attributes: { dtype: attribute.outputType() },
  infer({ x }, { dtype }, check) {
    check.dtype('x', 'float32', 'bfloat16', 'float16', 'int32', 'uint8')
    return { shape: x.shape, dtype, extent: x.extent }
  },
})

/**
 * The same values in a float type.
 *
 * @param x a float type, int32 or uint8 [...]
 * @throws DTypeError
 */
export function cast(x: Value, dtype: DataType): Value {
  return castOp.one(cast, { x }, { dtype })
}
