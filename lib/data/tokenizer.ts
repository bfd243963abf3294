// Texts to token ids: @huggingface/tokenizers with what it lacks, truncation, padding and batches. Content is tokenised without special
// tokens, cut, and the special tokens put round it, which is what Hugging Face's own library does. Very long texts are cut at a blank first:
// no token reaches across one, so the ids that are kept are those of the whole text.

import { Tokenizer as Encoder } from '@huggingface/tokenizers'
import { ArgumentError, CheckpointError } from '../core/errors.js'
import { Tensor } from '../core/tensor.js'
import { readTokenizerFiles, type TokenizerConfig } from './tokenizer-files.js'

export interface TokenizeOptions {
  /** true or 'longest' (default): to the longest text; 'max_length': to maxLength; false: all texts must come out equally long. */
  padding?: boolean | 'longest' | 'max_length'
  /** Cut texts to maxLength; default false. */
  truncation?: boolean
  /** Tokens of a text with special tokens; default the tokenizer's `maxLength`. */
  maxLength?: number
  /** A second text for each, after a separator. */
  textPair?: string | readonly string[]
  /** Default true. */
  addSpecialTokens?: boolean
}

export interface EncodeAllOptions {
  truncation?: boolean
  maxLength?: number
  signal?: AbortSignal | undefined
  /** Index of the first text in the caller's list, for errors. */
  firstIndex?: number
}

export interface Tokenizer {
  /**
   * Tokenises synchronously: int64 [n, length] each.
   * @throws ArgumentError for what is no text, and for a batch of unequal lengths without padding
   */
  (texts: string | readonly string[], options?: TokenizeOptions): { input_ids: Tensor; attention_mask: Tensor; token_type_ids?: Tensor }
  /** Tokens a text may have with special tokens; Infinity if the checkpoint does not say. */
  readonly maxLength: number
  /** Id of the padding token. */
  readonly padId: number
  /** Ids of one text with special tokens. */
  encode(text: string): number[]
  /** The text of ids, without special tokens. */
  decode(ids: ArrayLike<number> | ArrayLike<bigint>): string
  /**
   * Tokenises many texts in slices between which the event loop gets its turn. Default: cut to `maxLength`.
   * @throws ArgumentError with `index` for a text that is too long while truncation is false
   */
  encodeAll(texts: readonly string[], options?: EncodeAllOptions): Promise<Int32Array[]>
}

export const AutoTokenizer = {
  /**
   * Loads the tokenizer of a checkpoint folder: tokenizer.json, or vocab.json and merges.txt (CLIP), or vocab.txt (BERT).
   * @throws CheckpointError naming the file that is missing or broken
   */
  async fromPretrained(folder: string): Promise<Tokenizer> {
    const { json, config, file } = await readTokenizerFiles(folder)
    return makeTokenizer(json, config, file)
  },
}

/** Time a slice of `encodeAll` may take before the event loop gets its turn. */
const sliceMilliseconds = 4
/** Characters read of a text at first, for each token that may be kept; doubled until there are enough tokens. */
const charactersPerToken = 12
/** Tokens read beyond those kept, so that the cut has no influence on them. */
const margin = 16

function makeTokenizer(json: object, config: TokenizerConfig, file: string): Tokenizer {
  let encoder: Encoder
  try {
    encoder = new Encoder(json, config.raw)
  } catch (cause) {
    throw new CheckpointError(`${file} is no tokenizer that can be read: ${(cause as Error).message}`, { file, cause })
  }
  const { prefix, suffix, separator } = specialTokens(encoder, file)
  const maxLength = config.maxLength
  const padId = (config.padToken === undefined ? undefined : encoder.token_to_id(config.padToken)) ?? 0

  const idsOf = (text: string): number[] => encoder.encode(text.toWellFormed(), { add_special_tokens: false }).ids

  /** At least the first `count` ids of a text, or all; and whether there are more than `count`. */
  function content(text: string, count: number): { ids: number[]; more: boolean } {
    for (let length = Math.max(1024, count * charactersPerToken); ; length *= 2) {
      const whole = !(length < text.length)
      const ids = idsOf(whole ? text : text.slice(0, blankBefore(text, length)))
      if (whole) return { ids, more: ids.length > count }
      if (ids.length >= count + margin) return { ids, more: true }
    }
  }

  function cut(ids: number[], count: number): number[] {
    if (ids.length <= count) return ids
    return config.truncationSide === 'left' ? ids.slice(ids.length - count) : ids.slice(0, count)
  }

  /** Ids with special tokens, at most `limit` of them. */
  function single(text: string, limit: number, truncation: boolean, index: number | undefined): number[] {
    const room = limit - prefix.length - suffix.length
    if (room < 0) throw new ArgumentError(`maxLength is ${limit}; the special tokens alone are ${prefix.length + suffix.length}`, { field: 'maxLength' })
    if (room === Number.POSITIVE_INFINITY) return [...prefix, ...idsOf(text), ...suffix]
    const all = config.truncationSide === 'left' && truncation
    const { ids, more } = all ? { ids: idsOf(text), more: false } : content(text, room)
    if (more && !truncation) {
      const which = index === undefined ? 'the text' : `text ${index}`
      throw new ArgumentError(`${which} has more than the ${limit} tokens that fit`, index === undefined ? {} : { index })
    }
    return [...prefix, ...cut(ids, room), ...suffix]
  }

  /** Two texts: the longer one is cut first, token by token, as `longest_first` has it. */
  function pair(first: string, second: string, limit: number): { ids: number[]; types: number[] } {
    let [a, b] = [idsOf(first), idsOf(second)]
    const special = prefix.length + separator.length + suffix.length
    let over = a.length + b.length + special - limit
    if (over > 0) {
      let [keepA, keepB] = [a.length, b.length]
      for (; over > 0 && keepA + keepB > 0; over--) {
        if (keepA > keepB) keepA--
        else keepB--
      }
      ;[a, b] = [cut(a, keepA), cut(b, keepB)]
    }
    const ids = [...prefix, ...a, ...separator, ...b, ...suffix]
    const firstLength = prefix.length + a.length + separatorOfFirst(separator)
    return { ids, types: ids.map((_, i) => (i < firstLength ? 0 : 1)) }
  }

  function tokenize(texts: string | readonly string[], options: TokenizeOptions = {}): { input_ids: Tensor; attention_mask: Tensor; token_type_ids?: Tensor } {
    const { padding = true, truncation = false, textPair, addSpecialTokens = true } = options
    const limit = checkLimit(options.maxLength ?? maxLength)
    const list = typeof texts === 'string' ? [texts] : texts
    const pairs = typeof textPair === 'string' ? [textPair] : textPair
    if (!Array.isArray(list)) throw new ArgumentError('the tokenizer takes a string or an array of strings', { field: 'texts' })
    if (pairs && pairs.length !== list.length) {
      throw new ArgumentError(`${pairs.length} second texts for ${list.length} texts`, { field: 'textPair' })
    }
    const most = truncation ? limit : Number.POSITIVE_INFINITY
    const rows = list.map((text, i) => {
      checkText(text, i)
      if (pairs) return pair(text, checkText(pairs[i], i), most)
      if (!addSpecialTokens) return { ids: cut(idsOf(text), most), types: undefined }
      return { ids: single(text, most, true, i), types: undefined }
    })
    let length = rows.reduce((longest, { ids }) => Math.max(longest, ids.length), 0)
    if (padding === 'max_length') {
      if (limit === Number.POSITIVE_INFINITY) throw new ArgumentError("padding 'max_length' needs maxLength; this tokenizer has none of its own", { field: 'maxLength' })
      length = Math.max(length, limit)
    } else if (padding === false && rows.some(({ ids }) => ids.length !== length)) {
      throw new ArgumentError('the texts come out with different lengths; ask for padding or give them one by one', { field: 'padding' })
    }
    const size = rows.length * length
    const ids = new BigInt64Array(size).fill(BigInt(padId))
    const mask = new BigInt64Array(size)
    const types = new BigInt64Array(size)
    rows.forEach((row, r) => {
      const begin = r * length + (config.paddingSide === 'left' ? length - row.ids.length : 0)
      row.ids.forEach((id, i) => {
        ids[begin + i] = BigInt(id)
        mask[begin + i] = 1n
        if (row.types?.[i]) types[begin + i] = 1n
      })
    })
    const dims = [rows.length, length]
    return {
      input_ids: new Tensor('int64', ids, dims),
      attention_mask: new Tensor('int64', mask, dims),
      ...(config.hasTokenTypes && { token_type_ids: new Tensor('int64', types, dims) }),
    }
  }

  async function encodeAll(texts: readonly string[], options: EncodeAllOptions = {}): Promise<Int32Array[]> {
    const { truncation = true, signal, firstIndex = 0 } = options
    const limit = Math.min(checkLimit(options.maxLength ?? maxLength), maxLength)
    const result: Int32Array[] = []
    let started = performance.now()
    for (let i = 0; i < texts.length; i++) {
      if (performance.now() - started > sliceMilliseconds) {
        await new Promise((resolve) => setImmediate(resolve))
        signal?.throwIfAborted()
        started = performance.now()
      }
      result.push(Int32Array.from(single(checkText(texts[i], firstIndex + i), limit, truncation, firstIndex + i)))
    }
    return result
  }

  return Object.assign(tokenize, {
    maxLength,
    padId,
    encode: (text: string) => single(checkText(text), Number.POSITIVE_INFINITY, true, undefined),
    decode: (ids: ArrayLike<number> | ArrayLike<bigint>) => encoder.decode(Array.from(ids as ArrayLike<number>, Number), { skip_special_tokens: true }),
    encodeAll,
  })
}

/** The ids before and after a text's own, and between two texts, found by tokenising one and two letters. */
function specialTokens(encoder: Encoder, file: string): { prefix: number[]; suffix: number[]; separator: number[] } {
  const plain = encoder.encode('a', { add_special_tokens: false }).ids
  const full = encoder.encode('a').ids
  const at = find(full, plain, 0)
  if (at < 0 || !full.every(Number.isInteger)) {
    throw new CheckpointError(`${file}: its post-processor does more than put special tokens round a text, which is not supported`, { file })
  }
  const prefix = full.slice(0, at)
  const suffix = full.slice(at + plain.length)
  const two = encoder.encode('a', { text_pair: 'a' }).ids
  const second = find(two, plain, at + plain.length)
  return { prefix, suffix, separator: second < 0 ? [] : two.slice(at + plain.length, second) }
}

/** RoBERTa puts two separators between texts, of which the first ends the first text. */
function separatorOfFirst(separator: readonly number[]): number {
  return Math.min(1, separator.length)
}

function find(ids: readonly number[], part: readonly number[], from: number): number {
  for (let at = from; at + part.length <= ids.length; at++) if (part.every((id, i) => ids[at + i] === id)) return at
  return -1
}

/** Where to cut `text` before `length`: at the last blank of its second half, else between two characters. */
function blankBefore(text: string, length: number): number {
  for (let at = length; at > length / 2; at--) if (/\s/.test(text[at]!)) return at
  return /[\udc00-\udfff]/.test(text[length]!) ? length - 1 : length
}

function checkText(text: unknown, index?: number): string {
  if (typeof text === 'string') return text
  const which = index === undefined ? 'the text' : `text ${index}`
  throw new ArgumentError(`${which} is ${text === null ? 'null' : typeof text}; expected a string`, index === undefined ? {} : { index })
}

function checkLimit(limit: number): number {
  if (limit === Number.POSITIVE_INFINITY || (Number.isInteger(limit) && limit >= 1)) return limit
  throw new ArgumentError(`maxLength is ${limit}; expected a positive integer`, { field: 'maxLength' })
}
