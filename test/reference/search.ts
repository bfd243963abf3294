import { fromRows, type Reference, rowsOf } from './array.js'
import { dot } from './linear.js'

/** All scores [M, N]; a row of zeros scores 0. */
export function cosines(queries: readonly Float64Array[], corpus: readonly Float64Array[], inverseNorms?: Float64Array): number[][] {
  const inverse = (row: Float64Array): number => {
    const norm = Math.sqrt(dot(row, row))
    return norm === 0 ? 0 : 1 / norm
  }
  const inverses = corpus.map((row, n) => inverseNorms?.[n] ?? inverse(row))
  return queries.map((query) => {
    const own = inverse(query)
    return corpus.map((row, n) => dot(query, row) * own * inverses[n]!)
  })
}

export const cosineTopK: Reference = ([queries, corpus, inverseNorms], { k }) => {
  const all = cosines(rowsOf(queries!), rowsOf(corpus!), inverseNorms?.data)
  const best = all.map((scores) => {
    const order = scores.map((score, index) => ({ score, index }))
    order.sort((a, b) => Number(Number.isNaN(a.score)) - Number(Number.isNaN(b.score)) || b.score - a.score || a.index - b.index)
    return Array.from({ length: k }, (_, i) => order[i] ?? { score: -Infinity, index: -1 })
  })
  const shape = [best.length, k]
  return [
    fromRows(shape, best.map((row) => row.map(({ score }) => score))),
    { ...fromRows(shape, best.map((row) => row.map(({ index }) => index))), dtype: 'int32' },
  ]
}
