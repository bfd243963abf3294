// Windows that slide over pictures of packed pixels, [S·height·width, C], row by row: convolution, depthwiseConvolution, poolWindows.
// A signal is a picture of height 1. Windows may reach over the edge, by less than their own size; there are zeros, or nothing for poolWindows.

import type { DataType } from '../core/dtype.js'
import { attribute, defineOp, type InputCheck } from '../core/op.js'
import { sameShape } from '../core/shape.js'
import type { Extent, Value } from '../core/value.js'
import { type Activation, activations } from './linear.js'
import { sequencesOf } from './sequences.js'

const isCount = (n: number) => Number.isSafeInteger(n) && n >= 1
const isSide = (n: number) => Number.isSafeInteger(n) && n >= 0

const windowAttributes = {
  height: attribute.integer(1),
  width: attribute.integer(1),
  kernel: attribute.numbers(2, [1, 1], isCount, 'integers of at least 1'),
  stride: attribute.numbers(2, [1, 1], isCount, 'integers of at least 1'),
  padding: attribute.numbers(4, [0, 0, 0, 0], isSide, 'integers of at least 0'),
}

export interface Windows {
  /** Pixels of a picture. */
  height: number
  width: number
  /** Of a window: [down, across]. Default 1. */
  kernel?: readonly number[] | undefined
  /** From a window to the next: [down, across]. Default 1. */
  stride?: readonly number[] | undefined
  /** Pixels by which windows reach over the edges: [top, left, bottom, right]. Default 0. */
  padding?: readonly number[] | undefined
}

/** Windows that a side of a picture has. */
export function windowCount(side: number, kernel: number, stride: number, before: number, after: number): number {
  return Math.floor((side + before + after - kernel) / stride) + 1
}

/** Rows of the result, one for each window, and how they vary. */
function windowRows(check: InputCheck, x: Value, { height, width, kernel, stride, padding }: Required<Windows>): { rows: number; extent: Extent | undefined } {
  check.float('x')
  check.rank('x', 2, '[S·height·width, C]')
  const pixels = height * width
  const pictures = sequencesOf(check, { name: 'x', value: x }, { name: 'cuSeqlens', value: undefined }, { field: 'height·width', value: pixels })
  const [top, left, bottom, right] = padding as [number, number, number, number]
  const [tall, wide] = kernel as [number, number]
  check.argument(Math.max(top, bottom) < tall && Math.max(left, right) < wide, 'padding', `padding is [${padding}]`, `less than the kernel [${kernel}]`)
  const down = windowCount(height, tall, stride[0]!, top, bottom)
  const across = windowCount(width, wide, stride[1]!, left, right)
  check.require(down >= 1 && across >= 1, `a picture is ${height} x ${width}`, `at least the kernel [${kernel}] less the padding [${padding}]`)
  const windows = down * across
  return { rows: pictures.count * windows, extent: pictures.extent && { ...pictures.extent, per: pictures.extent.per * windows } }
}

export const convolutionOp = defineOp({
  name: 'convolution',
  inputs: ['x', 'weight', 'bias?', 'residual?'],
  packed: 'weight',
  attributes: { ...windowAttributes, activation: attribute.oneOf(activations, 'none'), dtype: attribute.outputType() },
  infer({ x, weight, bias, residual }, { dtype, activation: _, ...windows }, check) {
    const { rows, extent } = windowRows(check, x, windows)
    check.float('weight', 'residual')
    check.dtype('bias', 'float32')
    check.rank('weight', 2, '[N, height·width·C of a window]')
    const [n, depth] = weight.shape as [number, number]
    const expected = windows.kernel[0]! * windows.kernel[1]! * x.shape[1]!
    check.shape(depth === expected, ['x', 'weight'], `weight to be [N, ${expected}] for a kernel of [${windows.kernel}]`)
    check.shape(!bias || (bias.shape.length === 1 && bias.shape[0] === n), ['weight', 'bias'], `bias to be [${n}]`)
    check.fixed('bias')
    check.shape(!residual || sameShape(residual.shape, [rows, n]), ['x', 'weight', 'residual'], `residual to be [${rows}, ${n}]`)
    return { shape: [rows, n], dtype, extent }
  },
})

/**
 * act(windows of x · Wᵀ + bias) + residual, [S·height'·width', N], a row for each window. Products in the weight's dtype, sums in float32.
 *
 * @param x float [S·height·width, C]
 * @param weight a parameter with role 'linear', float [N, kernel height·kernel width·C], in the order y, x, channel
 * @param options.bias float32 [N]
 * @param options.residual float [S·height'·width', N]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function convolution(
  x: Value,
  weight: Value,
  options: Windows & { bias?: Value | undefined; residual?: Value | undefined; activation?: Activation | undefined; dtype?: DataType | undefined },
): Value {
  const { bias, residual, ...attributes } = options
  return convolutionOp.one(convolution, { x, weight, bias, residual }, attributes)
}

export const depthwiseConvolutionOp = defineOp({
  name: 'depthwiseConvolution',
  inputs: ['x', 'weight', 'bias?'],
  attributes: { ...windowAttributes, activation: attribute.oneOf(activations, 'none'), dtype: attribute.outputType() },
  infer({ x, weight, bias }, { dtype, activation: _, ...windows }, check) {
    const { rows, extent } = windowRows(check, x, windows)
    const columns = x.shape[1]!
    check.dtype('weight', 'float32')
    check.dtype('bias', 'float32')
    const expected = [windows.kernel[0]! * windows.kernel[1]!, columns]
    check.shape(sameShape(weight.shape, expected), ['x', 'weight'], `weight to be [${expected}] for a kernel of [${windows.kernel}]`)
    check.shape(!bias || sameShape(bias.shape, [columns]), ['x', 'bias'], `bias to be [${columns}]`)
    check.fixed('weight', 'bias')
    return { shape: [rows, columns], dtype, extent }
  },
})

/**
 * act(Σ windows of x · weight + bias), each channel by itself, [S·height'·width', C]; in float32.
 *
 * @param x float [S·height·width, C]
 * @param weight float32 [kernel height·kernel width, C]
 * @param options.bias float32 [C]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function depthwiseConvolution(
  x: Value,
  weight: Value,
  options: Windows & { bias?: Value | undefined; activation?: Activation | undefined; dtype?: DataType | undefined },
): Value {
  const { bias, ...attributes } = options
  return depthwiseConvolutionOp.one(depthwiseConvolution, { x, weight, bias }, attributes)
}

export const poolWindowsOp = defineOp({
  name: 'poolWindows',
  inputs: ['x'],
  attributes: { ...windowAttributes, mode: attribute.oneOf(['mean', 'max']), dtype: attribute.outputType() },
  infer({ x }, { dtype, mode: _, ...windows }, check) {
    const { rows, extent } = windowRows(check, x, windows)
    return { shape: [rows, x.shape[1]!], dtype, extent }
  },
})

/**
 * Mean or maximum of each window's pixels, those within the picture, [S·height'·width', C].
 *
 * @param x float [S·height·width, C]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function poolWindows(x: Value, options: Windows & { mode: 'mean' | 'max'; dtype?: DataType | undefined }): Value {
  return poolWindowsOp.one(poolWindows, { x }, options)
}
