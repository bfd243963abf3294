import { type Reference, sequences, sizeOf } from './array.js'
import { softmaxRow } from './norm.js'

/** Sequence by sequence, head by head, query by query. */
export const attention: Reference = ([q, k, v, cuQ, cuK, relativeBias], { heads: H, scale, causal, queryLength, keyLength }) => {
  const width = q!.shape[1]!
  const D = width / H
  const data = new Float64Array(sizeOf(q!.shape))
  const queries = sequences(cuQ, queryLength, q!.shape[0]!)
  const keys = sequences(cuK, keyLength, k!.shape[0]!)
  const L = relativeBias ? (relativeBias.shape[0]! + 1) / 2 : 0
  queries.forEach(({ begin, length: n }, s) => {
    const { begin: keyBegin, length: m } = keys[s]!
    for (let h = 0; h < H; ++h) {
      for (let i = 0; i < n; ++i) {
        const seen = causal ? Math.min(m, Math.max(0, i + m - n + 1)) : m
        if (seen === 0) continue
        const scores = Float64Array.from({ length: seen }, (_, j) => {
          let product = 0
          for (let d = 0; d < D; ++d) product += q!.data[(begin + i) * width + h * D + d]! * k!.data[(keyBegin + j) * width + h * D + d]!
          return product * scale + (relativeBias ? relativeBias.data[(j - i + L - 1) * H + h]! : 0)
        })
        const shares = softmaxRow(scores)
        for (let d = 0; d < D; ++d) {
          let result = 0
          for (let j = 0; j < seen; ++j) result += shares[j]! * v!.data[(keyBegin + j) * width + h * D + d]!
          data[(begin + i) * width + h * D + d] = result
        }
      }
    }
  })
  return [{ shape: q!.shape, data, dtype: 'float32' }]
}
