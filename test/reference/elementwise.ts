import { fill, type Reference } from './array.js'

/** erf by its series of positive terms, 2/√π·exp(−x²)·Σ 2ⁿx²ⁿ⁺¹/(2n + 1)!!, which loses no digits. */
export function erf(x: number): number {
  if (x !== x) return NaN
  if (Math.abs(x) > 6) return Math.sign(x)
  let term = x
  let sum = x
  for (let n = 1; n < 300; ++n) {
    term *= (2 * x * x) / (2 * n + 1)
    sum += term
  }
  return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x))

export const functions: Readonly<Record<string, (x: number) => number>> = {
  none: (x) => x,
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  quick_gelu: (x) => x * sigmoid(1.702 * x),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x))),
  relu: (x) => (x !== x ? NaN : Math.max(x, 0)),
  silu: (x) => x * sigmoid(x),
  tanh: Math.tanh,
  sigmoid,
  exp: Math.exp,
  neg: (x) => -x,
  sqrt: Math.sqrt,
  abs: Math.abs,
}

export const unary: Reference = ([x], { kind }) => [fill(x!.shape, (i) => functions[kind]!(x!.data[i]!))]
export const cast: Reference = ([x]) => [fill(x!.shape, (i) => x!.data[i]!)]

function arithmetic(of: (a: number, b: number) => number): Reference {
  return ([a, b]) => [fill(a!.shape, (i) => of(a!.data[i]!, b!.data[i % b!.data.length]!))]
}
export const add = arithmetic((a, b) => a + b)
export const sub = arithmetic((a, b) => a - b)
export const mul = arithmetic((a, b) => a * b)
export const div = arithmetic((a, b) => a / b)
