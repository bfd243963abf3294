import { type Reference, sequences, sizeOf } from './array.js'
import { softmaxRow } from './norm.js'

/** Sequence by sequence, head by head, query by query. */
export const attention: Reference = ([q, k, v, cuQ, cuK, relativeBias], { heads: H, kvHeads: G = H, scale, causal, window = -1, queryLength, keyLength }) => {
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
        const place = i + m - n
        const seen = Array.from({ length: m }, (_, j) => j).filter((j) => !(causal && j > place) && !(window >= 0 && Math.abs(j - place) > window))
        if (seen.length === 0) continue
        const group = Math.floor(h / (H / G))
        const at = (j: number, d: number) => (keyBegin + j) * G * D + group * D + d
        const scores = Float64Array.from(seen, (j) => {
          let product = 0
          for (let d = 0; d < D; ++d) product += q!.data[(begin + i) * width + h * D + d]! * k!.data[at(j, d)]!
          return product * scale + (relativeBias ? relativeBias.data[(j - i + L - 1) * H + h]! : 0)
        })
        const shares = softmaxRow(scores)
        for (let d = 0; d < D; ++d) {
          let result = 0
          seen.forEach((j, n) => (result += shares[n]! * v!.data[at(j, d)]!))
          data[(begin + i) * width + h * D + d] = result
        }
      }
    }
  })
  return [{ shape: q!.shape, data, dtype: 'float32' }]
}
