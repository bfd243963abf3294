// Fused attention: per sequence and head softmax(q·kᵀ·scale + bias)·v, self or cross, causal or within a window, ragged by cumulative
// lengths. H heads of D features stand side by side in a row, [T, H·D]; rows may be columns of a wider value (one projection for q, k
// and v). Keys and values may have fewer heads G, each for H/G heads of queries that stand side by side (GQA: arXiv:2305.13245).

import type { DataType } from '../core/dtype.js'
import { attribute, describe, defineOp } from '../core/op.js'
import { type Value, sameExtent } from '../core/value.js'
import { sequencesOf } from './sequences.js'

export const attentionOp = defineOp({
  name: 'attention',
  inputs: ['q', 'k', 'v', 'cuSeqlensQ?', 'cuSeqlensK?', 'relativeBias?'],
  attributes: {
    heads: attribute.integer(1),
    scale: attribute.number(({ q }, { heads }) => 1 / Math.sqrt(Math.max(1, (q?.shape.at(-1) ?? 1) / (heads as number)))),
    causal: attribute.flag(false),
    kvHeads: attribute.integer(1, (_, { heads }) => heads as number),
    window: attribute.integer(-1, -1),
    queryLength: attribute.integer(0, 0),
    keyLength: attribute.integer(0, 0),
    dtype: attribute.outputType(),
  },
  infer({ q, k, v, cuSeqlensQ, cuSeqlensK, relativeBias }, { heads, kvHeads, queryLength, keyLength, dtype }, check) {
    check.float('q', 'k', 'v')
    check.rank('q', 2, '[Tq, H·D]')
    check.rank('k', 2, '[Tk, G·D]')
    check.rank('v', 2, '[Tk, G·D]')
    const width = q.shape[1]!
    check.shape(width > 0 && width % heads === 0, ['q'], `q to have a multiple of ${heads} columns, one share for each head`)
    check.argument(heads % kvHeads === 0, 'kvHeads', `kvHeads is ${kvHeads} for ${heads} heads`, 'a divisor of heads')
    const keyWidth = (width / heads) * kvHeads
    check.shape(k.shape[1] === keyWidth && v.shape[1] === keyWidth, ['q', 'k', 'v'], `k and v to be [..., ${keyWidth}]`)
    check.shape(k.shape[0] === v.shape[0], ['k', 'v'], 'as many rows in k as in v')
    check.sameExtent('k', 'v')
    const queries = sequencesOf(check, { name: 'q', value: q }, { name: 'cuSeqlensQ', value: cuSeqlensQ }, { field: 'queryLength', value: queryLength })
    const keys = sequencesOf(check, { name: 'k', value: k }, { name: 'cuSeqlensK', value: cuSeqlensK }, { field: 'keyLength', value: keyLength })
    check.require(queries.count === keys.count, `q has ${queries.count} sequences, k has ${keys.count}`, 'as many')
    check.require(
      sameExtent(queries.extent, keys.extent),
      `the sequences of q vary as ${describe(queries.extent)}, those of k as ${describe(keys.extent)}`,
      'the same',
    )
    if (relativeBias) {
      check.dtype('relativeBias', 'float32')
      check.fixed('relativeBias')
      const [rows, columns] = relativeBias.shape
      check.shape(relativeBias.shape.length === 2 && rows! % 2 === 1 && columns === heads, ['relativeBias'], `relativeBias to be [2L - 1, ${heads}]`)
      const longest = Math.max(queryLength, keyLength)
      check.shape((rows! + 1) / 2 >= longest, ['relativeBias'], `relativeBias to have at least 2·${longest} - 1 rows`)
    }
    return { shape: q.shape, dtype, extent: q.extent }
  },
})

export interface AttentionOptions {
  heads: number
  /** Default 1/√D. */
  scale?: number | undefined
  /** Query i sees key j if j ≤ i + (keys − queries), counted within the sequence. */
  causal?: boolean | undefined
  /** Heads of k and v, each for `heads / kvHeads` heads of q side by side. Default: as many as q has. */
  kvHeads?: number | undefined
  /** Query i sees key j only if |j − i − (keys − queries)| ≤ window. Default −1: there is no window. */
  window?: number | undefined
  /** int32 [S + 1]; or `queryLength`, if all sequences have as many queries. */
  cuSeqlensQ?: Value | undefined
  cuSeqlensK?: Value | undefined
  queryLength?: number | undefined
  keyLength?: number | undefined
  /** float32 [2L − 1, H]: row (j − i + L − 1) is added to the scores of query i and key j. */
  relativeBias?: Value | undefined
  dtype?: DataType | undefined
}

/**
 * Attention of each sequence's queries to its keys, [Tq, H·D]. A sequence without keys gives zeros.
 *
 * @param q float [Tq, H·D]
 * @param k float [Tk, G·D], G = kvHeads
 * @param v float [Tk, G·D]
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function attention(q: Value, k: Value, v: Value, options: AttentionOptions): Value {
  const { cuSeqlensQ, cuSeqlensK, relativeBias, ...attributes } = options
  return attentionOp.one(attention, { q, k, v, cuSeqlensQ, cuSeqlensK, relativeBias }, attributes)
}
