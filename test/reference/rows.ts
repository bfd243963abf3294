import { columnsOf, fill, fromRows, type Reference, rowsOf, sequences } from './array.js'

export const gather: Reference = ([table, indices]) => {
  const rows = rowsOf(table!)
  return [fromRows([indices!.shape[0]!, columnsOf(table!)], [...indices!.data].map((i) => rows[i]!))]
}

export const scatter: Reference = ([x, indices], { rows: count }) => {
  const result = fill([count, columnsOf(x!)], () => 0)
  rowsOf(x!).forEach((row, t) => result.data.set(row, indices!.data[t]! * columnsOf(x!)))
  return [result]
}

export const pickToken: Reference = ([x, cuSeqlens], { which, length }) => {
  const rows = rowsOf(x!)
  const picked = sequences(cuSeqlens, length, x!.shape[0]!).map(({ begin, length: n }) => {
    if (n === 0) return new Float64Array(columnsOf(x!))
    return rows[which === 'first' ? begin : begin + n - 1]!
  })
  return [fromRows([picked.length, columnsOf(x!)], picked)]
}

export const pool: Reference = ([x, cuSeqlens], { mode, skip = 0, length }) => {
  const rows = rowsOf(x!)
  const pooled = sequences(cuSeqlens, length, x!.shape[0]!).map(({ begin, length: all }) =>
    Array.from({ length: columnsOf(x!) }, (_, c) => {
      const n = Math.max(0, all - skip)
      if (n === 0) return 0
      const values = rows.slice(begin + all - n, begin + all).map((row) => row[c]!)
      if (mode === 'max') return values.reduce((most, value) => Math.max(most, value), -Infinity)
      return values.reduce((total, value) => total + value, 0) / (mode === 'mean' ? n : Math.sqrt(n))
    }),
  )
  return [fromRows([pooled.length, columnsOf(x!)], pooled)]
}

export const repeatRows: Reference = ([table, like, cuSeqlens], { length }) => {
  const count = sequences(cuSeqlens, length, like!.shape[0]!).length
  return [fromRows([count * table!.shape[0]!, columnsOf(table!)], Array.from({ length: count }, () => rowsOf(table!)).flat())]
}

export const prependRows: Reference = ([prefix, x], { length, each }) => {
  const sequences = x!.shape[0]! / length
  const own = each ? prefix!.shape[0]! / Math.max(1, sequences) : 0
  const before = (s: number) => (each ? rowsOf(prefix!).slice(s * own, (s + 1) * own) : rowsOf(prefix!))
  const rows = Array.from({ length: sequences }, (_, s) => [...before(s), ...rowsOf(x!).slice(s * length, (s + 1) * length)]).flat()
  return [fromRows([rows.length, columnsOf(x!)], rows)]
}

export const scaleSequences: Reference = ([x, scale, shift], { length }) => {
  const [scales, shifts] = [rowsOf(scale!), shift && rowsOf(shift)]
  const of = (t: number) => Math.floor(t / length)
  return [fromRows(x!.shape, rowsOf(x!).map((row, t) => row.map((value, c) => value * scales[of(t)]![c]! + (shifts?.[of(t)]![c] ?? 0))))]
}
