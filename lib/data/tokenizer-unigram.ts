// Unigram (Kudo, arXiv:1804.10959): of all ways to cut a word into pieces, the one with the greatest sum of scores. Where two are as good,
// Hugging Face's Rust library keeps the one found first from the left, with shorter pieces tried first; @huggingface/tokenizers does not, so
// its search is replaced here. Which are as good depends on the last bit of the scores, so they are read from decimal digits as that library
// does: the digits as an integer, divided by a power of ten.

import { Buffer } from 'node:buffer'

/** What is used of the library's model. */
export interface UnigramModel {
  readonly tokens_to_ids: Map<string, number>
  scores: readonly number[]
  readonly min_score: number
  unk_score: number
  readonly trie: { common_prefix_search(chars: readonly string[], start: number): Iterable<string> }
  encode(words: readonly string[]): string[]
  /** Joins neighbours that no piece covers; done here, since it does so across words. */
  fuse_unk: boolean
}

/** Below the least score of all. */
const UNKNOWN_PENALTY = 10

/**
 * Gives a model of the library the search of Hugging Face's.
 * @param byBytes what no piece covers is given as the pieces of its bytes, where all are there
 */
export function correctUnigram(model: UnigramModel, byBytes: boolean): void {
  model.fuse_unk = false
  model.scores = model.scores.map(inTwoSteps)
  model.unk_score = inTwoSteps(model.min_score) - UNKNOWN_PENALTY
  const { tokens_to_ids } = model
  const covered = (piece: string): string[] => {
    if (!byBytes || tokens_to_ids.has(piece)) return [piece]
    const bytes = Array.from(Buffer.from(piece), byte => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
    return bytes.every(byte => tokens_to_ids.has(byte)) ? bytes : [piece]
  }
  model.encode = words => words.flatMap(word => piecesOf(word, model)).flatMap(covered)
}

/** A number made of its decimal digits with two roundings instead of one. */
function inTwoSteps(value: number): number {
  const [, sign, whole, fraction = '', power = '0'] = /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]\d+))?$/.exec(String(value))!
  const digits = Number(BigInt(whole! + fraction))
  const exponent = Number(power) - fraction.length
  const made = exponent < 0 ? digits / 10 ** -exponent : digits * 10 ** exponent
  return sign === '-' ? -made : made
}

function piecesOf(word: string, { tokens_to_ids, scores, unk_score, trie }: UnigramModel): string[] {
  const chars = Array.from(word)
  const size = chars.length
  // Of the best way to each place: its score, where its last piece begins, and whether that is a character no piece covers.
  const best = new Float64Array(size + 1)
  const from = new Int32Array(size + 1).fill(-1)
  const unknown = new Uint8Array(size + 1)
  const offer = (start: number, end: number, score: number, isUnknown: boolean) => {
    const sum = score + best[start]!
    if (from[end] !== -1 && !(sum > best[end]!)) return
    best[end] = sum
    from[end] = start
    unknown[end] = isUnknown ? 1 : 0
  }
  for (let start = 0; start < size; start++) {
    let covered = false
    let end = start
    let length = 0
    for (const piece of trie.common_prefix_search(chars, start)) {
      for (; length < piece.length; end++) length += chars[end]!.length
      offer(start, end, scores[tokens_to_ids.get(piece)!]!, false)
      if (end === start + 1) covered = true
    }
    if (!covered) offer(start, start + 1, unk_score, true)
  }
  const pieces: string[] = []
  for (let end = size; end > 0; ) {
    let start = from[end]!
    if (unknown[end]) while (start > 0 && unknown[start]) start = from[start]!
    pieces.push(chars.slice(start, end).join(''))
    end = start
  }
  return pieces.reverse()
}
