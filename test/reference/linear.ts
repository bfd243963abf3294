import { columnsOf, fromRows, type Reference, roundTo, rowsOf } from './array.js'
import { functions } from './elementwise.js'

export function dot(a: Float64Array, b: Float64Array): number {
  let sum = 0
  for (let i = 0; i < a.length; ++i) sum += a[i]! * b[i]!
  return sum
}

const { fround } = Math

/** To the nearest integer, ties to even. */
function toEven(x: number): number {
  const below = Math.floor(x)
  return x - below === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)
}

/** The float32 step between the numbers that bytes stand for, and its inverse: NaN for a range that is not finite, none for a tiny one. */
function byteScale(range: number, steps: number): { step: number; inverse: number } {
  if (!Number.isFinite(range)) return { step: NaN, inverse: 0 }
  return range < fround(1e-30) ? { step: 0, inverse: 0 } : { step: fround(range / steps), inverse: fround(steps / range) }
}

/** What a row of an int8 weight stands for: bytes from −127 to 127 and a step. */
function weightBytes(row: Float64Array): Float64Array {
  const { step, inverse } = byteScale(row.reduce((most, x) => Math.max(most, Math.abs(x)), 0), 127)
  return row.map((x) => (inverse ? toEven(fround(x * inverse)) : 0) * step)
}

/** What a row of x stands for beside an int8 weight: 256 steps from its least to its largest number, zero among them. */
function rowBytes(row: Float64Array): Float64Array {
  const low = row.reduce((least, x) => Math.min(least, x), 0)
  const { step, inverse } = byteScale(fround(row.reduce((most, x) => Math.max(most, x), 0) - low), 255)
  const zero = toEven(fround(-low * inverse))
  return row.map((x) => (inverse ? Math.min(toEven(fround(x * inverse)), 255 - zero) : 0) * step)
}

/** act(x·Wᵀ + bias) + residual; x is rounded to the weight's dtype. */
export const linear: Reference = ([x, weight, bias, residual], { activation }) => {
  const bytes = weight!.dtype === 'int8'
  const weights = bytes ? rowsOf(weight!).map(weightBytes) : rowsOf(weight!)
  const n = weights.length
  const rows = rowsOf(x!).map((row, t) => {
    const rounded = bytes ? rowBytes(row) : row.map((value) => roundTo(value, weight!.dtype))
    return weights.map((w, j) => functions[activation]!(dot(rounded, w) + (bias?.data[j] ?? 0)) + (residual?.data[t * n + j] ?? 0))
  })
  return [fromRows([...x!.shape.slice(0, -1), n], rows)]
}

export const matmul: Reference = ([a, b], { scale }) => {
  const right = rowsOf(b!)
  return [fromRows([a!.shape[0]!, right.length], rowsOf(a!).map((row) => right.map((other) => dot(row, other) * scale)))]
}

/** Pixels to patches to tokens; weights in the order channel, y, x. */
export const patchEmbed: Reference = ([pixels, weight, bias, classToken, positions], { patch: P, rescale, mean, std }) => {
  const bytes = pixels!.dtype === 'uint8'
  const [B, Y, X] = (bytes ? pixels!.shape : [pixels!.shape[0], ...pixels!.shape.slice(2)]) as number[] as [number, number, number]
  const at = (b: number, c: number, y: number, x: number): number => {
    const value = pixels!.data[bytes ? ((b * Y + y) * X + x) * 3 + c : ((b * 3 + c) * Y + y) * X + x]!
    return roundTo(bytes ? (value * rescale - mean[c]) / std[c] : value, weight!.dtype)
  }
  const C = weight!.shape[0]!
  const weights = rowsOf(weight!)
  const down = Math.floor(Y / P)
  const across = Math.floor(X / P)
  const tokens = down * across + (classToken ? 1 : 0)
  const rows: number[][] = []
  for (let b = 0; b < B; ++b) {
    const image: number[][] = classToken ? [[...classToken.data]] : []
    for (let i = 0; i < down; ++i) {
      for (let j = 0; j < across; ++j) {
        const cut = Float64Array.from({ length: 3 * P * P }, (_, k) => {
          const [c, y, x] = [Math.floor(k / (P * P)), Math.floor(k / P) % P, k % P]
          return at(b, c, i * P + y, j * P + x)
        })
        image.push(weights.map((w, n) => dot(cut, w) + (bias?.data[n] ?? 0)))
      }
    }
    rows.push(...image.map((row, t) => row.map((value, n) => value + (positions?.data[t * columnsOf(positions) + n] ?? 0))))
  }
  return [fromRows([B * tokens, C], rows)]
}
