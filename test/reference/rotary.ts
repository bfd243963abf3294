import { fromRows, type Reference, rowsOf } from './array.js'

/** Each pair of features is a point of the plane, turned about the origin. */
export const rotary: Reference = ([x, table, positions], { heads, length }) => {
  const D = x!.shape[1]! / heads
  const [L, R] = table!.shape as [number, number]
  const angles = rowsOf(table!)
  const rows = rowsOf(x!).map((row, t) => {
    const place = positions ? positions.data[t]! : (t % length) - (length - L)
    const result = Float64Array.from(row)
    if (place < 0) return result
    for (let h = 0; h < heads; ++h) {
      for (let j = 0; j < R / 2; ++j) {
        const [a, b] = [h * D + j, h * D + R / 2 + j]
        const [cos, sin] = [angles[place]![j]!, angles[place]![R / 2 + j]!]
        result[a] = row[a]! * cos - row[b]! * sin
        result[b] = row[b]! * cos + row[a]! * sin
      }
    }
    return result
  })
  return [fromRows(x!.shape, rows)]
}
