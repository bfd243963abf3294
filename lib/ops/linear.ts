// Matrix products. `linear` is the workhorse: act(x·Wᵀ + bias) + residual with a packed weight; `matmul` multiplies two values.

import type { DataType } from '../core/dtype.js'
import { attribute, defineOp, withLast } from '../core/op.js'
import { sameShape } from '../core/shape.js'
import type { Value } from '../core/value.js'

export const activations = ['none', 'gelu', 'quick_gelu', 'gelu_tanh', 'relu', 'silu', 'tanh'] as const
/** 'gelu' is the exact one (erf), 'quick_gelu' is x·sigmoid(1.702x). */
export type Activation = (typeof activations)[number]

export const linearOp = defineOp({
  name: 'linear',
  inputs: ['x', 'weight', 'bias?', 'residual?'],
  packed: 'weight',
  attributes: { activation: attribute.oneOf(activations, 'none'), dtype: attribute.outputType() },
  infer({ x, weight, bias, residual }, { dtype }, check) {
    check.float('x', 'residual')
    check.dtype('weight', 'float32', 'bfloat16', 'float16', 'int8')
    check.dtype('bias', 'float32')
    check.rank('weight', 2, '[outputs, inputs]')
    check.rows('x')
    const [n, k] = weight.shape as [number, number]
    check.shape(x.shape.at(-1) === k, ['x', 'weight'], `x to be [..., ${k}]`)
    check.shape(!bias || (bias.shape.length === 1 && bias.shape[0] === n), ['weight', 'bias'], `bias to be [${n}]`)
    check.fixed('bias')
    const shape = withLast(x.shape, n)
    check.shape(!residual || sameShape(residual.shape, shape), ['x', 'weight', 'residual'], `residual to be [${shape.join(', ')}]`)
    check.sameExtent('x', 'residual')
    return { shape, dtype, extent: x.extent }
  },
})

/**
 * act(x·Wᵀ + bias) + residual, [..., N]. Products in the weight's dtype, sums in float32. An int8 weight is made from floats, each row
 * with a scale of its own; the rows of x are then turned into bytes between their least and their largest number, zero included.
 *
 * @param x float [..., K]
 * @param weight a parameter with role 'linear', float or int8 [N, K]; int8: K at most 65536
 * @param options.bias float32 [N]
 * @param options.residual float [..., N]
 * @param options.dtype of the result; default x's
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function linear(
  x: Value,
  weight: Value,
  options: { bias?: Value | undefined; residual?: Value | undefined; activation?: Activation | undefined; dtype?: DataType | undefined } = {},
): Value {
  const { bias, residual, ...attributes } = options
  return linearOp.one(linear, { x, weight, bias, residual }, attributes)
}

export const matmulOp = defineOp({
  name: 'matmul',
  inputs: ['a', 'b'],
  attributes: { scale: attribute.number(1), dtype: attribute.outputType() },
  infer({ a, b }, { dtype }, check) {
    check.float('a', 'b')
    check.rank('a', 2, '[M, K]')
    check.rank('b', 2, '[N, K]')
    check.shape(a.shape[1] === b.shape[1], ['a', 'b'], `b to be [N, ${a.shape[1]}]`)
    check.fixed('b')
    return { shape: [a.shape[0]!, b.shape[0]!], dtype, extent: a.extent }
  },
})

/**
 * a·bᵀ · scale, [M, N]. Products in bfloat16 only if both are bfloat16.
 *
 * @param a float [M, K]
 * @param b float [N, K]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function matmul(a: Value, b: Value, options: { scale?: number | undefined; dtype?: DataType | undefined } = {}): Value {
  return matmulOp.one(matmul, { a, b }, options)
}

