import { fromRows, type Reference, rowsOf } from './array.js'

const sum = (row: Float64Array) => row.reduce((total, value) => total + value, 0)

export const layerNorm: Reference = ([x, weight, bias], { eps }) => {
  const rows = rowsOf(x!).map((row) => {
    const mean = sum(row) / row.length
    const variance = sum(row.map((value) => (value - mean) ** 2)) / row.length
    return row.map((value, i) => ((value - mean) / Math.sqrt(variance + eps)) * (weight?.data[i] ?? 1) + (bias?.data[i] ?? 0))
  })
  return [fromRows(x!.shape, rows)]
}

export const rmsNorm: Reference = ([x, weight], { eps }) => {
  const rows = rowsOf(x!).map((row) => {
    const meanSquare = sum(row.map((value) => value * value)) / row.length
    return row.map((value, i) => (value / Math.sqrt(meanSquare + eps)) * (weight?.data[i] ?? 1))
  })
  return [fromRows(x!.shape, rows)]
}

export const l2Normalize: Reference = ([x], { eps }) => {
  const rows = rowsOf(x!).map((row) => {
    const norm = Math.max(Math.sqrt(sum(row.map((value) => value * value))), eps)
    return row.map((value) => value / norm)
  })
  return [fromRows(x!.shape, rows)]
}

export function softmaxRow(row: Float64Array): Float64Array {
  const greatest = row.reduce((most, value) => Math.max(most, value), -Infinity)
  const powers = row.map((value) => Math.exp(value - greatest))
  const total = sum(powers)
  return powers.map((value) => value / total)
}

export const softmax: Reference = ([x]) => [fromRows(x!.shape, rowsOf(x!).map(softmaxRow))]
