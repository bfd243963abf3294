// Texts to token ids: @huggingface/tokenizers with what it lacks, truncation, padding and batches. A text is tokenised without special tokens
// and cut, and the special tokens are put round what is left, as Hugging Face's own library does. Long texts are tokenised piece by piece,
// cut where no token reaches across, and no further than their tokens are kept.

import { Tokenizer as Encoder } from '@huggingface/tokenizers'
import { ArgumentError, CheckpointError } from '../core/errors.js'
import { checkOptions, option, type OptionRules } from '../core/options.js'
import { Tensor } from '../core/tensor.js'
import { resolveSource, sourceOptionRules, type SourceOptions } from '../io/hub.js'
import type { JsonObject } from '../io/json.js'
import { checkMarks, marksOf } from '../io/marks.js'
import { modelFolder } from '../io/modules.js'
import { betweenCharacters, TextPieces } from './text-pieces.js'
import { lowercased, readMaxLength, readTokenizerFiles, tokenizerFiles, type TokenizerFiles } from './tokenizer-files.js'
import { correctPreTokenizer, makeNormalizer, type Normalize, type Split, WORD_CHARACTER } from './tokenizer-text.js'
import { TokenizerThreads } from './tokenizer-threads.js'
import { correctUnigram, type UnigramModel } from './tokenizer-unigram.js'

export interface TokenizeOptions {
  /** true or 'longest' (default): to the longest text; 'max_length': to maxLength; false: all texts must come out equally long. */
  padding?: boolean | 'longest' | 'max_length'
  /** Cut texts to maxLength; default false. Of a pair, the longer one is cut first. */
  truncation?: boolean
  /** Tokens of a text with special tokens; default the tokenizer's `maxLength`. */
  maxLength?: number
  /** A second text for each, put after the first one. */
  textPair?: string | readonly string[]
  /** Default true. */
  addSpecialTokens?: boolean
}

const tokenizeRules: OptionRules<TokenizeOptions> = {
  padding: { expected: "true, false, 'longest' or 'max_length'", accepts: (value) => typeof value === 'boolean' || value === 'longest' || value === 'max_length' },
  truncation: option.flag,
  maxLength: option.any,
  textPair: option.any,
  addSpecialTokens: option.flag,
}

export interface EncodeAllOptions {
  /** Default true; with false a text of more than maxLength tokens is an error. */
  truncation?: boolean
  /** Default the tokenizer's `maxLength`. */
  maxLength?: number
  signal?: AbortSignal
  /** Index of the first text in the caller's list, for errors. */
  firstIndex?: number
}

export interface Encoded {
  /** int64 [n, length]. */
  input_ids: Tensor
  /** int64 [n, length], 0 where it is padding; 1 throughout for models that are trained to see it (SigLIP). */
  attention_mask: Tensor
  /** int64 [n, length], where the model takes it: 1 in second texts. */
  token_type_ids?: Tensor
}

/**
 * Made by `AutoTokenizer.fromPretrained`; it is called, and tokenises synchronously.
 *
 * @example
 * const tokenizer = await AutoTokenizer.fromPretrained('sentence-transformers/all-MiniLM-L6-v2')
 * const { input_ids, attention_mask } = tokenizer(['a cat', 'two dogs and a cat'], { truncation: true })
 */
export interface Tokenizer {
  /** @throws ArgumentError for what is no text (with `index`), an absurd option, and texts of unequal lengths without padding. */
  (texts: string | readonly string[], options?: TokenizeOptions): Encoded
  /** Tokens a text may have with its special tokens; Infinity if the checkpoint does not say. */
  readonly maxLength: number
  /** Id of the padding token; 0 if the checkpoint has none. */
  readonly padId: number
  /** Ids of the special tokens. @internal */
  readonly specialIds: ReadonlySet<number>
  /** Ids of one text with special tokens, however many. */
  encode(text: string): number[]
  /** The text of ids, without special tokens. */
  decode(ids: ArrayLike<number> | ArrayLike<bigint>): string
  /**
   * Ids of many texts with special tokens; the event loop gets its turn every few milliseconds. After much text, lists are tokenised on other threads.
   * @throws ArgumentError with `index` for what is no text, or too long while truncation is false. @internal
   */
  encodeAll(texts: readonly string[], options?: EncodeAllOptions): Promise<Int32Array[]>
}

export const AutoTokenizer = {
  /**
   * Loads a checkpoint's tokenizer: tokenizer.json, or vocab.json with merges.txt (CLIP), or vocab.txt (BERT).
   *
   * @param source a folder or a Hub id
   * @throws CheckpointError naming the file that is missing or broken
   */
  async fromPretrained(source: string, options: SourceOptions = {}): Promise<Tokenizer> {
    checkOptions('AutoTokenizer.fromPretrained', options, sourceOptionRules)
    const { folder } = await resolveSource(source, { files: ['tokenizer', 'config'], ...options })
    return makeTokenizer(await readTokenizerFiles(await modelFolder(folder)))
  },
}

export interface TokenizerSource {
  readonly lowercase?: boolean
  readonly threads?: number | undefined
}

/** A tokenizer that is read when it is first asked for: for checkpoints that embed other things than text too. */
export interface LazyTokenizer {
  /** Of the tokenizer. */
  readonly maxLength: number
  /** @throws CheckpointError, every time, for files that are broken or were changed since */
  read(): Promise<Tokenizer>
}

/** @throws CheckpointError for settings that cannot be read. */
export async function lazyTokenizer(folder: string, settings: TokenizerSource = {}): Promise<LazyTokenizer> {
  const place = await modelFolder(folder)
  const [maxLength, marks] = await Promise.all([readMaxLength(place), marksOf(tokenizerFiles(place))])
  let reading: Promise<Tokenizer> | undefined
  const read = async (): Promise<Tokenizer> => {
    try {
      await checkMarks(marks)
      return await loadTokenizer(folder, settings)
    } catch (error) {
      reading = undefined // what was in the way, as too many open files, may be gone the next time
      throw error
    }
  }
  return { maxLength, read: () => (reading ??= read()) }
}

/** The tokenizer that a checkpoint's texts go through before they are embedded. */
export async function loadTokenizer(folder: string, settings: TokenizerSource = {}): Promise<Tokenizer> {
  const { threads } = settings
  const files = await readTokenizerFiles(await modelFolder(folder))
  if (!settings.lowercase) return makeTokenizer(files, { threads })
  return makeTokenizer({ ...files, json: lowercased(files.json) }, { threads })
}

/** Milliseconds of tokenising before the event loop gets its turn. */
const SLICE = 4
/** Characters that are tokenised in one go on the caller's thread at most: some milliseconds' work, or tens of them for the slowest kinds. */
const LONG_PIECE = 16_384
/** Ids that padding to a given length makes at most. */
const MOST_PADDED = 2 ** 26
/** Tokens read beyond those kept where a piece is cut anywhere, so that the cut has no influence on them. */
const MARGIN = 16
const CHARACTERS_PER_TOKEN = 12

/** Special tokens and types round one text, or round two. */
interface Frame {
  readonly before: readonly number[]
  readonly between: readonly number[]
  readonly after: readonly number[]
  /** Type of each part: before, first text, between, second text, after; the parts between may be split. */
  readonly types: (first: number, second: number) => number[]
}

/** @param options.threads how many other threads large lists are for at most; default as many as there are cores. 0 within one of those */
export function makeTokenizer(files: TokenizerFiles, { threads: count }: { threads?: number | undefined } = {}): Tokenizer {
  const { settings } = files
  const threads = count === 0 ? undefined : new TokenizerThreads(files, count)
  const { maxLength } = settings
  const { encoder, pieces } = makeEncoder(files)
  const single = frameOf(encoder, files, false)
  const double = frameOf(encoder, files, true)
  const bare = frameOf(encoder, files, true, false)
  const padId = (settings.padToken === undefined ? undefined : idOf(encoder, settings.padToken)) ?? 0
  const added = (files.json['added_tokens'] ?? []) as readonly { id: number; special?: boolean }[]
  const specialIds = new Set(added.filter(({ special }) => special).map(({ id }) => id))

  const idsOf = (text: string): number[] => encoder.encode(text, { add_special_tokens: false }).ids

  /** The ids of a text, all or at least the first `wanted`. Stops between pieces, so that the caller may let others run. */
  function* contentIds(text: string, wanted: number): Generator<undefined, number[], undefined> {
    const ids: number[] = []
    for (const piece of pieces.of(text)) {
      const missing = wanted - ids.length
      for (let length = Math.max(4096, missing * CHARACTERS_PER_TOKEN); ; length *= 2) {
        // A piece without a place to cut may be long: then its beginning is enough.
        const found = idsOf(length < piece.length ? piece.slice(0, betweenCharacters(piece, length)) : piece)
        yield
        if (length < piece.length && found.length < missing + MARGIN) continue
        for (const id of found) ids.push(id)
        break
      }
      if (ids.length >= wanted) break
    }
    return ids
  }

  function keep(ids: number[], count: number): number[] {
    if (ids.length <= count) return ids
    return settings.truncationSide === 'left' ? ids.slice(ids.length - count) : ids.slice(0, count)
  }

  /** Tokens left for content. */
  function roomIn(limit: number, { before, between, after }: Frame): number {
    const special = before.length + between.length + after.length
    if (limit < special) throw new ArgumentError(`[tokenizer] maxLength is ${limit}; the special tokens alone are ${special}`, { field: 'maxLength' })
    return limit - special
  }

  /** Ids with special tokens, at most `limit` of them. */
  function* frameText(text: string, limit: number, truncation: boolean, index?: number): Generator<undefined, number[], undefined> {
    const room = roomIn(limit, single)
    const wanted = settings.truncationSide === 'left' && truncation ? Number.POSITIVE_INFINITY : room + 1
    const ids = yield* contentIds(checkText(text, index), wanted)
    if (ids.length > room && !truncation) {
      throw new ArgumentError(`[tokenizer] ${textName(index)} has more than the ${limit} tokens that fit`, index === undefined ? {} : { index })
    }
    return [...single.before, ...keep(ids, room), ...single.after]
  }

  function frameTwo(first: string, second: string, limit: number, frame: Frame): { ids: number[]; types: number[] } {
    const [a, b] = [drain(contentIds(first, Number.POSITIVE_INFINITY)), drain(contentIds(second, Number.POSITIVE_INFINITY))]
    const [keepA, keepB] = shareOut(a.length, b.length, roomIn(limit, frame))
    const { before, between, after, types } = frame
    return { ids: [...before, ...keep(a, keepA), ...between, ...keep(b, keepB), ...after], types: types(keepA, keepB) }
  }

  function tokenize(texts: string | readonly string[], options: TokenizeOptions = {}): Encoded {
    checkOptions('tokenizer', options, tokenizeRules)
    const { padding = true, truncation = false, textPair, addSpecialTokens = true } = options
    const limit = checkLimit(options.maxLength ?? maxLength)
    const list = typeof texts === 'string' ? [texts] : texts
    const pairs = typeof textPair === 'string' ? [textPair] : textPair
    if (!Array.isArray(list)) throw new ArgumentError('[tokenizer] texts is no string and no array of strings', { field: 'texts' })
    if (pairs && pairs.length !== list.length) {
      throw new ArgumentError(`[tokenizer] ${pairs.length} second texts for ${list.length} texts`, { field: 'textPair' })
    }
    const most = truncation ? limit : Number.POSITIVE_INFINITY
    const rows = list.map((text: string, i): { ids: number[]; types?: number[] } => {
      const checked = checkText(text, i)
      if (pairs) return frameTwo(checked, checkText(pairs[i], i), most, addSpecialTokens ? double : bare)
      return { ids: addSpecialTokens ? drain(frameText(checked, most, true, i)) : keep(drain(contentIds(checked, settings.truncationSide === 'left' ? Number.POSITIVE_INFINITY : most)), most) }
    })
    let length = rows.reduce((longest, { ids }) => Math.max(longest, ids.length), 0)
    if (padding === 'max_length') {
      if (limit === Number.POSITIVE_INFINITY) throw new ArgumentError("[tokenizer] padding is 'max_length' without maxLength", { field: 'maxLength' })
      if (limit * list.length > MOST_PADDED) throw new ArgumentError(`[tokenizer] ${list.length} texts padded to ${limit} tokens are more than ${MOST_PADDED}`, { field: 'maxLength' })
      length = Math.max(length, limit)
    } else if (padding === false && rows.some(({ ids }) => ids.length !== length)) {
      throw new ArgumentError('[tokenizer] the texts have different numbers of tokens; pad them or give them one by one', { field: 'padding' })
    }
    return tensors(rows, length)
  }

  function tensors(rows: readonly { ids: number[]; types?: number[] }[], length: number): Encoded {
    const dims = [rows.length, length]
    const size = rows.length * length
    const ids = new BigInt64Array(size).fill(BigInt(padId))
    const mask = new BigInt64Array(size).fill(settings.padsCount ? 1n : 0n)
    const types = new BigInt64Array(size)
    rows.forEach((row, r) => {
      const begin = r * length + (settings.paddingSide === 'left' ? length - row.ids.length : 0)
      row.ids.forEach((id, i) => {
        ids[begin + i] = BigInt(id)
        mask[begin + i] = 1n
        types[begin + i] = BigInt(row.types?.[i] ?? 0)
      })
    })
    return {
      input_ids: new Tensor('int64', ids, dims),
      attention_mask: new Tensor('int64', mask, dims),
      ...(settings.hasTokenTypes && { token_type_ids: new Tensor('int64', types, dims) }),
    }
  }

  async function encodeAll(texts: readonly string[], options: EncodeAllOptions = {}): Promise<Int32Array[]> {
    const { truncation = true, signal, firstIndex = 0 } = options
    const limit = checkLimit(options.maxLength ?? maxLength)
    signal?.throwIfAborted()
    texts.forEach((text, i) => checkText(text, firstIndex + i))
    if (threads?.take(texts)) return threads.encode(texts, options)
    if (threads && texts.some(text => hasLongPiece(text, limit)) && (await threads.whenReady())) return threads.encode(texts, options)
    const result: Int32Array[] = []
    let started = performance.now()
    for (let i = 0; i < texts.length; i++) {
      const work = frameText(texts[i]!, limit, truncation, firstIndex + i)
      let step = work.next()
      for (; !step.done; step = work.next()) {
        if (performance.now() - started < SLICE) continue
        await new Promise(resolve => setImmediate(resolve))
        signal?.throwIfAborted()
        started = performance.now()
      }
      result.push(Int32Array.from(step.value))
    }
    return result
  }

  /** Whether what is read of a text has a piece that would hold up the event loop: nothing in it is a place to cut. */
  function hasLongPiece(text: string, limit: number): boolean {
    if (text.length <= LONG_PIECE) return false
    let read = 0
    for (const piece of pieces.of(text)) {
      if (piece.length > LONG_PIECE) return true
      read += piece.length
      if (read > limit * CHARACTERS_PER_TOKEN) return false
    }
    return false
  }

  return Object.assign(tokenize, {
    maxLength,
    padId,
    specialIds,
    encode: (text: string) => drain(frameText(text, Number.POSITIVE_INFINITY, true)),
    decode: (ids: ArrayLike<number> | ArrayLike<bigint>) => (ids.length === 0 ? '' : encoder.decode(Array.from(ids as ArrayLike<number>, Number), { skip_special_tokens: true })),
    encodeAll,
  })
}

/** Parts of the library's tokenizer that are replaced. */
interface EncoderParts {
  readonly added_tokens_map: ReadonlyMap<string, { readonly id: number }>
  normalizer: Normalize
  pre_tokenizer: unknown
  splitter_unnormalized: { split: Split }
  splitter_normalized: { split: Split }
  readonly model: UnigramModel
  readonly post_processor: { post_process(tokens: string[], pair: string[] | null, special: boolean): Processed } | null
}

interface Processed {
  readonly tokens: readonly string[]
  /** Of steps that leave the texts apart. */
  readonly tokens_pair?: readonly string[] | null
  readonly token_type_ids?: readonly number[]
}

interface AddedToken {
  readonly content: string
  /** Found where it is no part of a word. */
  readonly single_word?: boolean
  /** Found after normalising, not before. */
  readonly normalized?: boolean
  /** Takes the blanks before it, or after it. */
  readonly lstrip?: boolean
  readonly rstrip?: boolean
}

/** Blanks beside added tokens go away by Rust's \s; and what becomes a special token by normalising is none. */
function correctAddedTokens(encoder: EncoderParts, added: readonly AddedToken[]): void {
  const tokens = new Map(added.map(token => [token.content, token]))
  const split = (splitter: { split: Split }): Split => {
    const cut = splitter.split.bind(splitter)
    return text => {
      const parts = joinWords(cut(text), tokens)
      parts.forEach((part, i) => {
        const { lstrip, rstrip } = tokens.get(part) ?? {}
        if (lstrip && i > 0) parts[i - 1] = trimEnd(parts[i - 1]!)
        if (rstrip && i + 1 < parts.length) parts[i + 1] = parts[i + 1]!.replace(/^\p{White_Space}+/u, '')
      })
      return parts
    }
  }
  const splitNormalized = split(encoder.splitter_normalized)
  encoder.splitter_unnormalized = { split: split(encoder.splitter_unnormalized) }
  // The library compares after normalising; a blank in front makes the difference.
  const isMade = (part: string) => tokens.has(part) && !tokens.get(part)!.normalized
  encoder.splitter_normalized = { split: text => splitNormalized(text).map(part => (isMade(part) ? ` ${part}` : part)) }
}

/** Puts tokens that are whole words only back into words they are a part of. */
function joinWords(parts: string[], tokens: ReadonlyMap<string, AddedToken>): string[] {
  if (!parts.some(part => tokens.get(part)?.single_word)) return parts
  const joined: string[] = []
  let goesOn = false
  parts.forEach((part, i) => {
    const token = tokens.get(part)
    const isToken = token && !(token.single_word && (endsInWord(parts[i - 1]) || startsWithWord(parts[i + 1])))
    if (goesOn && !isToken) joined[joined.length - 1] += part
    else joined.push(part)
    goesOn = !isToken
  })
  return joined
}

const WORD_END = new RegExp(`${WORD_CHARACTER}$`, 'u')
const WORD_START = new RegExp(`^${WORD_CHARACTER}`, 'u')
const endsInWord = (text = '') => WORD_END.test(text.slice(-2))
const startsWithWord = (text = '') => WORD_START.test(text)

function trimEnd(text: string): string {
  let end = text.length
  while (end > 0 && /\p{White_Space}/u.test(text[end - 1]!)) end--
  return text.slice(0, end)
}

/** The library's tokenizer, with our own steps where its differ from Hugging Face's. */
function makeEncoder({ file, json, config }: TokenizerFiles): { encoder: Encoder & EncoderParts; pieces: TextPieces } {
  try {
    const complete = { added_tokens: [] as AddedToken[], normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null, ...json }
    const added = complete.added_tokens
    const described = { ...complete, added_tokens: added.map(token => ({ ...token, lstrip: false, rstrip: false })) }
    const model = json['model'] as JsonObject
    // Only a WordLevel model's unknown token is taken from the configuration.
    const encoder = new Encoder(described, { clean_up_tokenization_spaces: false, ...config, unk_token: model['unk_token'] }) as Encoder & EncoderParts
    encoder.normalizer = makeNormalizer(complete.normalizer)
    correctAddedTokens(encoder, added)
    // The library has added tokens among the model's own, where pieces of words are looked up.
    for (const { content, single_word } of added) if (single_word && !Array.isArray(model['vocab']) && !Object.hasOwn(model['vocab'] as JsonObject, content)) encoder.model.tokens_to_ids.delete(content)
    if (Array.isArray(model['vocab'])) correctUnigram(encoder.model, model['byte_fallback'] === true)
    correctPreTokenizer(encoder.pre_tokenizer as Parameters<typeof correctPreTokenizer>[0], complete.pre_tokenizer)
    return { encoder, pieces: new TextPieces(complete, encoder.normalizer) }
  } catch (cause) {
    throw new CheckpointError(`${file} is no tokenizer that can be read: ${(cause as Error).message}`, { file, cause })
  }
}

/** Added tokens need not be among the model's own. */
function idOf(encoder: Encoder & EncoderParts, token: string): number | undefined {
  return encoder.added_tokens_map.get(token)?.id ?? encoder.token_to_id(token)
}

/** Stand for the tokens of the first text and the second. */
const [FIRST, SECOND] = ['\0first', '\0second']

/** The special tokens round texts, found by having stand-ins for the texts' tokens processed. */
function frameOf(encoder: Encoder & EncoderParts, { file }: TokenizerFiles, pair: boolean, special = true): Frame {
  const unsupported = (): never => {
    throw new CheckpointError(`${file}: its post-processor does more than put special tokens round texts, which is not supported`, { file, field: 'post_processor' })
  }
  const process = (): Processed => {
    try {
      return encoder.post_processor?.post_process([FIRST], pair ? [SECOND] : null, special) ?? { tokens: [FIRST], tokens_pair: pair ? [SECOND] : null }
    } catch {
      return unsupported()
    }
  }
  const processed = process()
  const tokens = [...processed.tokens, ...(processed.tokens_pair ?? [])]
  const types = processed.token_type_ids ?? tokens.map(token => (token === SECOND ? 1 : 0))
  const first = tokens.indexOf(FIRST)
  const second = pair ? tokens.indexOf(SECOND, first) : first
  const ids = tokens.map((token, i) => (i === first || i === second ? 0 : idOf(encoder, token)))
  if (first < 0 || second < 0 || !ids.every(id => id !== undefined) || !types.every(type => Number.isInteger(type) && type >= 0)) return unsupported()
  const around = (count: number, type: number) => new Array<number>(count).fill(type)
  return {
    before: ids.slice(0, first),
    between: ids.slice(first + 1, second),
    after: ids.slice(second + 1),
    types: (a, b) => [
      ...types.slice(0, first),
      ...around(a, types[first] ?? 0),
      ...types.slice(first + 1, second),
      ...around(b, types[second] ?? 0),
      ...types.slice(second + 1),
    ],
  }
}

/** How many tokens two texts of a and b keep in `room`, by Hugging Face's 'longest_first': the shorter one first gets all it has. */
function shareOut(a: number, b: number, room: number): [number, number] {
  if (a + b <= room) return [a, b]
  let short = Math.min(a, b)
  let long = short > room ? short : Math.max(short, room - short)
  if (short + long > room) {
    short = Math.floor(room / 2)
    long = room - short
  }
  return a > b ? [long, short] : [short, long]
}

/** Runs a generator to its end. */
function drain<T>(work: Generator<undefined, T, undefined>): T {
  for (;;) {
    const step = work.next()
    if (step.done) return step.value
  }
}

/** The text; half a surrogate pair, which is no character, becomes U+FFFD as where strings are UTF-8. */
function checkText(text: unknown, index?: number): string {
  if (typeof text === 'string') return text.isWellFormed() ? text : text.toWellFormed()
  throw new ArgumentError(`[tokenizer] ${textName(index)} is ${text === null ? 'null' : `a ${typeof text}`}; expected a string`, index === undefined ? {} : { index })
}

function textName(index: number | undefined): string {
  return index === undefined ? 'the text' : `text ${index}`
}

function checkLimit(limit: number): number {
  if (limit === Number.POSITIVE_INFINITY || (Number.isInteger(limit) && limit >= 1)) return limit
  throw new ArgumentError(`[tokenizer] maxLength is ${limit}; expected a positive integer`, { field: 'maxLength' })
}
