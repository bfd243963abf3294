// What normalises a row of C features by itself: layerNorm, rmsNorm, l2Normalize, softmax. Statistics are float32.

import type { DataType } from '../core/dtype.js'
import { attribute, defineOp } from '../core/op.js'
import type { Value } from '../core/value.js'

const notNegative = (otherwise?: number) => ({
  ...attribute.number(otherwise),
  expected: 'a number of at least 0',
  accepts: (value: unknown): value is number => Number.isFinite(value) && (value as number) >= 0,
})

export const layerNormOp = defineOp({
  name: 'layerNorm',
  inputs: ['x', 'weight?', 'bias?'],
  attributes: { eps: notNegative(), dtype: attribute.outputType() },
  infer({ x, weight, bias }, { dtype }, check) {
    check.float('x')
    check.rows('x')
    const columns = x.shape.at(-1)!
    for (const [name, value] of [['weight', weight], ['bias', bias]] as const) {
      check.dtype(name, 'float32')
      check.shape(!value || (value.shape.length === 1 && value.shape[0] === columns), ['x', name], `${name} to be [${columns}]`)
    }
    check.fixed('weight', 'bias')
    return { shape: x.shape, dtype, extent: x.extent }
  },
})

/**
 * (x − mean)/√(var + eps)·weight + bias over the last dimension.
 *
 * @param x float [..., C]
 * @param options.weight float32 [C]
 * @param options.bias float32 [C]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function layerNorm(
  x: Value,
  options: { weight?: Value | undefined; bias?: Value | undefined; eps: number; dtype?: DataType | undefined },
): Value {
  const { weight, bias, ...attributes } = options
  return layerNormOp.one(layerNorm, { x, weight, bias }, attributes)
}

export const rmsNormOp = defineOp({
  name: 'rmsNorm',
  inputs: ['x', 'weight?'],
  attributes: { eps: notNegative(), dtype: attribute.outputType() },
  infer({ x, weight }, { dtype }, check) {
    check.float('x')
    check.rows('x')
    const columns = x.shape.at(-1)!
    check.dtype('weight', 'float32')
    check.shape(!weight || (weight.shape.length === 1 && weight.shape[0] === columns), ['x', 'weight'], `weight to be [${columns}]`)
    check.fixed('weight')
    return { shape: x.shape, dtype, extent: x.extent }
  },
})

/**
 * x/√(mean of x² + eps)·weight over the last dimension (arXiv:1910.07467).
 *
 * @param x float [..., C]
 * @param options.weight float32 [C]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function rmsNorm(x: Value, options: { weight?: Value | undefined; eps: number; dtype?: DataType | undefined }): Value {
  const { weight, ...attributes } = options
  return rmsNormOp.one(rmsNorm, { x, weight }, attributes)
}

export const l2NormalizeOp = defineOp({
  name: 'l2Normalize',
  inputs: ['x'],
  attributes: { eps: notNegative(1e-12), dtype: attribute.outputType() },
  infer({ x }, { dtype }, check) {
    check.float('x')
    check.rows('x')
    return { shape: x.shape, dtype, extent: x.extent }
  },
})

/**
 * x / max(‖x‖, eps) over the last dimension; eps is 1e-12 by default.
 *
 * @param x float [..., C]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function l2Normalize(x: Value, options: { eps?: number | undefined; dtype?: DataType | undefined } = {}): Value {
  return l2NormalizeOp.one(l2Normalize, { x }, options)
}

export const softmaxOp = defineOp({
  name: 'softmax',
  inputs: ['x'],
  attributes: { dtype: attribute.outputType() },
  infer({ x }, { dtype }, check) {
    check.float('x')
    check.rows('x')
    return { shape: x.shape, dtype, extent: x.extent }
  },
})

/**
 * exp(x − max) / sum over the last dimension.
 *
 * @param x float [..., C]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function softmax(x: Value, options: { dtype?: DataType | undefined } = {}): Value {
  return softmaxOp.one(softmax, { x }, options)
}
