// Exact search: the k rows of a corpus with the greatest cosine to each query, without making the [M, N] matrix of scores.

import { attribute, defineOp } from '../core/op.js'
import type { Value } from '../core/value.js'

export const cosineTopKOp = defineOp({
  name: 'cosineTopK',
  inputs: ['queries', 'corpus', 'inverseNorms?'],
  attributes: { k: attribute.integer(1) },
  infer({ queries, corpus, inverseNorms }, { k }, check) {
    check.float('queries')
    check.dtype('corpus', 'float32', 'bfloat16', 'int8')
    check.dtype('inverseNorms', 'float32')
    check.rank('queries', 2, '[M, D]')
    check.rank('corpus', 2, '[N, D]')
    check.shape(queries.shape[1] === corpus.shape[1], ['queries', 'corpus'], `corpus to be [N, ${queries.shape[1]}]`)
    check.shape(
      !inverseNorms || (inverseNorms.shape.length === 1 && inverseNorms.shape[0] === corpus.shape[0]),
      ['corpus', 'inverseNorms'],
      `inverseNorms to be [${corpus.shape[0]}]`,
    )
    check.sameExtent('corpus', 'inverseNorms')
    const shape = [queries.shape[0]!, k]
    const { extent } = queries
    return [
      { shape, dtype: 'float32', extent },
      { shape, dtype: 'int32', extent },
    ]
  },
})

/**
 * Scores (float32) and indices (int32), both [M, k]: best first, ties to the lower index, NaN last; where k > N the rest is −∞ and −1.
 *
 * @param queries float [M, D]
 * @param corpus float32, bfloat16 or int8 [N, D]
 * @param options.inverseNorms float32 [N], 1/‖row‖ of the corpus; computed if absent
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function cosineTopK(queries: Value, corpus: Value, options: { k: number; inverseNorms?: Value | undefined }): [scores: Value, indices: Value] {
  const { inverseNorms, ...attributes } = options
  const [scores, indices] = cosineTopKOp.apply(cosineTopK, { queries, corpus, inverseNorms }, attributes)
  return [scores!, indices!]
}
