// Normalising and splitting of text with exactly the characters that Hugging Face's Rust tokenizers take for control, blank, Chinese, marks
// and punctuation. @huggingface/tokenizers differs in some: Chinese characters beyond 16 bits, a final sigma, no-break marks, and all that
// is newer than the Rust library's tables. Its parts that agree are used as they are.

import { Tokenizer as Encoder } from '@huggingface/tokenizers'
import { makeCharsmapNormalizer } from './tokenizer-charsmap.js'
import { MARKS, PUNCTUATION } from './unicode-tables.js'

export type Normalize = (text: string) => string
export type Split = (text: string) => string[]

type Description = Readonly<Record<string, unknown>>

const REMOVED =
  /[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ue000-\uf8ff\ufeff\ufff9-\ufffb\ufffd\u{110bd}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0001}\u{e0020}-\u{e007f}\u{f0000}-\u{ffffd}\u{100000}-\u{10fffd}]/gu
const BLANK = /[\t\n\r\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]/g
const CHINESE = /[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2b81f}\u{2b920}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu
const MARK = new RegExp(`[${MARKS}]`, 'gu')
const BERT_WORD = new RegExp(`[^\\p{White_Space}${PUNCTUATION}]+|[${PUNCTUATION}]`, 'gu')
/** Rust's \w. */
export const WORD_CHARACTER = '[\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}]'
const WORD = new RegExp(`${WORD_CHARACTER}+|(?:(?!${WORD_CHARACTER})\\P{White_Space})+`, 'gu')
const UNBLANK = /\P{White_Space}+/gu
const PUNCTUATION_MARK = new RegExp(`[${PUNCTUATION}]`, 'gu')
const NUMERAL = /\p{N}/gu
const BYTE_LEVEL_WORD = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu

/** The normalizer of a tokenizer.json. */
export function makeNormalizer(description: unknown): Normalize {
  const { type, ...options } = (description ?? {}) as Description
  switch (type) {
    case undefined:
      return text => text
    case 'Sequence': {
      const steps = ((options['normalizers'] as unknown[] | undefined) ?? []).map(makeNormalizer)
      return text => steps.reduce((result, step) => step(result), text)
    }
    case 'Lowercase':
      return toLowerCase
    case 'BertNormalizer':
      return makeBertNormalizer(options)
    case 'Precompiled':
      // Checkpoints without rules have an empty list.
      return options['precompiled_charsmap'] ? makeCharsmapNormalizer(options['precompiled_charsmap']) : text => text
    default: {
      const { normalizer } = new Encoder({ ...EMPTY, normalizer: description }, {})
      return text => normalizer!.normalize(text)
    }
  }
}

/** A tokenizer that knows no word: a way to the library's own steps. */
const EMPTY = {
  added_tokens: [],
  normalizer: null,
  pre_tokenizer: null,
  post_processor: null,
  decoder: null,
  model: { type: 'WordPiece', vocab: {}, unk_token: '', continuing_subword_prefix: '' },
}

/** As Rust: each character by itself, so that a sigma at a word's end is like any other. */
function toLowerCase(text: string): string {
  return text.replaceAll('Σ', 'σ').toLowerCase()
}

function makeBertNormalizer({ clean_text = true, handle_chinese_chars = true, lowercase = true, strip_accents }: Description): Normalize {
  const strips = strip_accents ?? lowercase
  return text => {
    // In plain text there is nothing to do but lower the case.
    if (!/^[\x20-\x7e]*$/.test(text)) {
      if (clean_text) text = text.replace(REMOVED, '').replace(BLANK, ' ')
      if (handle_chinese_chars) text = text.replace(CHINESE, ' $& ')
      if (strips) text = text.normalize('NFD').replace(MARK, '')
    }
    return lowercase ? toLowerCase(text) : text
  }
}

interface LibraryStep {
  /** Of a byte-level step and others. */
  pattern?: RegExp
  readonly byte_encoder?: unknown
  /** Of a Metaspace step: the mark that stands for a blank. */
  readonly replacement?: string
  readonly prepend_scheme?: string
  pre_tokenize_text(text: string, options: unknown): string[]
  /** Of a sequence. */
  readonly tokenizers?: readonly LibraryStep[]
}

/**
 * Corrects steps of the library, or those in a sequence: those that cut do so as Hugging Face's, byte-level ones get the blanks of Rust's \s,
 * Metaspace ones cut before each blank.
 * @param description of the same steps
 */
export function correctPreTokenizer(step: LibraryStep | null, description: Description | null): void {
  if (!step || !description) return
  if (step.byte_encoder && step.pattern) step.pattern = BYTE_LEVEL_WORD
  if (description['type'] === 'Metaspace' && description['split'] !== false) {
    const mark = step.replacement!
    const place = step.pre_tokenize_text.bind(step)
    step.pre_tokenize_text = (text, options) => place(text, options).flatMap(part => cutBefore(part, mark))
  }
  step.pre_tokenize_text = cutterOf(step, description) ?? step.pre_tokenize_text
  const parts = (description['pretokenizers'] ?? []) as readonly Description[]
  step.tokenizers?.forEach((part, i) => correctPreTokenizer(part, parts[i] ?? null))
}

/** Hugging Face's way of a step that does nothing but cut. */
function cutterOf({ pattern }: LibraryStep, { type, ...options }: Description): Split | undefined {
  const behavior = String(options['behavior'] ?? 'Isolated')
  switch (type) {
    case 'BertPreTokenizer':
      return text => text.match(BERT_WORD) ?? []
    case 'Whitespace':
      return text => text.match(WORD) ?? []
    case 'WhitespaceSplit':
      return text => text.match(UNBLANK) ?? []
    case 'Punctuation':
      return makeCutter(PUNCTUATION_MARK, behavior)
    case 'Digits':
      return makeCutter(NUMERAL, options['individual_digits'] ? 'Isolated' : 'Contiguous')
    case 'Split':
      // Without a text to look for nothing matches.
      return (options['pattern'] as Description)['String'] === '' ? text => [text] : makeCutter(pattern!, behavior, options['invert'] === true)
    default:
      return undefined
  }
}

/** Whether a part goes together with the one before it, by which of the two are matches. */
const JOINS: Readonly<Record<string, (before: boolean, now: boolean) => boolean>> = {
  Removed: () => false,
  Isolated: () => false,
  Contiguous: (before, now) => before === now,
  MergedWithPrevious: (before, now) => now && !before,
  MergedWithNext: (before, now) => before && !now,
}

/** @param invert what is between matches counts as a match, and the other way round */
function makeCutter(pattern: RegExp, behavior: string, invert = false): Split {
  const joins = Object.hasOwn(JOINS, behavior) ? JOINS[behavior]! : undefined
  if (!joins) throw new Error(`behavior is ${JSON.stringify(behavior)}; expected ${Object.keys(JOINS).join(', ')}`)
  const removes = behavior === 'Removed'
  if (removes && invert) return text => (text.match(pattern) ?? []).filter(Boolean)
  return text => {
    const parts: string[] = []
    let before: boolean | undefined
    const add = (part: string, isMatch: boolean) => {
      if (before !== undefined && joins(before, isMatch)) parts[parts.length - 1] += part
      else if (!removes || !isMatch) parts.push(part)
      before = isMatch
    }
    let end = 0
    for (const { 0: match, index } of text.matchAll(pattern)) {
      if (index > end) add(text.slice(end, index), invert)
      add(match, !invert)
      end = index + match.length
    }
    if (end < text.length) add(text.slice(end), invert)
    return parts.filter(Boolean)
  }
}

function cutBefore(text: string, mark: string): string[] {
  const parts: string[] = []
  for (let start = 0; start < text.length; ) {
    const next = text.indexOf(mark, start + 1)
    const end = next < 0 ? text.length : next
    parts.push(text.slice(start, end))
    start = end
  }
  return parts
}
