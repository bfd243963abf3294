// Retrieval across modalities: of how many pictures is one of their own texts among the K with the best scores, and the other way round.

import { ArgumentError, ShapeError } from '../core/errors.js'
import { checkOptions, option, type OptionRules, shown } from '../core/options.js'
import { Tensor } from '../core/tensor.js'
import type { ImageInput } from '../data/image.js'
import type { Matcher } from './matcher.js'

export interface RecallAtK {
  readonly k: number
  /** Part of the queries that have a right answer among the best k, 0 to 1. */
  readonly recall: number
}

export interface RetrievalReport {
  readonly images: number
  readonly texts: number
  readonly imageToText: readonly RecallAtK[]
  readonly textToImage: readonly RecallAtK[]
}

/** Pictures and their texts. */
export interface RetrievalData {
  readonly images: readonly ImageInput[]
  readonly texts: readonly string[]
  /** The index of the picture that each text belongs to. */
  readonly imageOfText: readonly number[]
}

export interface RetrievalOptions {
  /** Default 1, 5 and 10. */
  ks?: readonly number[]
  allowRemote?: boolean
  signal?: AbortSignal
}

const rules: OptionRules<RetrievalOptions> = {
  ks: { expected: 'an array of positive integers', accepts: value => Array.isArray(value) && value.length > 0 && value.every(k => Number.isSafeInteger(k) && k > 0) },
  allowRemote: option.flag,
  signal: option.signal,
}

/**
 * Recall@K of rows of scores; of equal scores the lower column comes first.
 * @param scores float32 [queries, answers], more for better ones
 * @param right for each query the columns of its right answers; one without any counts as missed
 * @throws ShapeError, ArgumentError
 */
export function recallAtK(scores: Tensor, right: readonly (readonly number[])[], ks: readonly number[] = [1, 5, 10]): RecallAtK[] {
  const [rows, columns] = scores.dims
  if (scores.type !== 'float32' || scores.dims.length !== 2 || rows !== right.length) {
    throw new ShapeError(`[recallAtK] scores are ${scores.type} [${scores.dims.join(', ')}]; expected float32 [${right.length}, answers]`, { field: 'scores', shapes: [scores.dims] })
  }
  const ranks = right.map((answers, row) => {
    const of = scores.data.subarray(row * columns!, (row + 1) * columns!) as Float32Array
    return Math.min(...answers.map(answer => rankOf(of, answer, row)))
  })
  return ks.map(k => ({ k, recall: ranks.length === 0 ? 0 : ranks.filter(rank => rank < k).length / ranks.length }))
}

/** How many come before the answer. */
function rankOf(scores: Float32Array, answer: number, row: number): number {
  const own = scores[answer]
  if (own === undefined) throw new ArgumentError(`[recallAtK] the right answer of query ${row} is ${answer}; expected 0 to ${scores.length - 1}`, { field: 'right', index: row })
  if (Number.isNaN(own)) return Number.POSITIVE_INFINITY // what has no score is not found
  let before = 0
  for (let i = 0; i < scores.length; i++) if (scores[i]! > own || (scores[i] === own && i < answer)) before++
  return before
}

/**
 * Scores every picture with every text, and tells Recall@K in both directions.
 *
 * @example
 * const { textToImage } = await evaluateRetrieval(matcher, { images: ['a.jpg', 'b.jpg'], texts: ['a cat', 'a dog'], imageOfText: [0, 1] })
 * @throws ArgumentError for a text of a picture that is not there; what `Matcher.scores` throws
 */
export async function evaluateRetrieval(matcher: Matcher, { images, texts, imageOfText }: RetrievalData, options: RetrievalOptions = {}): Promise<RetrievalReport> {
  checkOptions('evaluateRetrieval', options, rules)
  const { ks, ...rest } = options
  if (!Array.isArray(imageOfText) || imageOfText.length !== texts.length) {
    throw new ArgumentError(`[evaluateRetrieval] imageOfText is ${shown(imageOfText)}; expected ${texts.length} indices, one for each text`, { field: 'imageOfText' })
  }
  const textsOfImage: number[][] = images.map(() => [])
  imageOfText.forEach((image, text) => {
    const list = textsOfImage[image]
    if (!list) throw new ArgumentError(`[evaluateRetrieval] imageOfText of text ${text} is ${shown(image)}; expected 0 to ${images.length - 1}`, { field: 'imageOfText', index: text })
    list.push(text)
  })
  const scores = await matcher.scores(images, texts, rest)
  return {
    images: images.length,
    texts: texts.length,
    imageToText: recallAtK(scores, textsOfImage, ks),
    textToImage: recallAtK(transposed(scores), imageOfText.map(image => [image]), ks),
  }
}

function transposed({ data, dims }: Tensor): Tensor {
  const [rows, columns] = dims as [number, number]
  const turned = new Float32Array(data.length)
  for (let r = 0; r < rows; r++) for (let c = 0; c < columns; c++) turned[c * rows + r] = data[r * columns + c] as number
  return new Tensor('float32', turned, [columns, rows])
}
