// The files of a tokenizer: tokenizer.json with tokenizer_config.json, or the older vocab.json and merges.txt (CLIP) and vocab.txt (BERT),
// from which the same description is made as Hugging Face's converters make.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointError } from '../core/errors.js'

export interface TokenizerConfig {
  /** tokenizer_config.json as it is. */
  readonly raw: object
  readonly maxLength: number
  readonly padToken: string | undefined
  readonly paddingSide: 'left' | 'right'
  readonly truncationSide: 'left' | 'right'
  readonly hasTokenTypes: boolean
}

/** model_max_length is a huge number where there is no limit. */
const noLimit = 1e9

/** @throws CheckpointError naming the file that is missing or broken */
export async function readTokenizerFiles(folder: string): Promise<{ json: object; config: TokenizerConfig; file: string }> {
  const raw = ((await readJson(join(folder, 'tokenizer_config.json'))) ?? {}) as Record<string, unknown>
  const map = ((await readJson(join(folder, 'special_tokens_map.json'))) ?? {}) as Record<string, unknown>
  const file = join(folder, 'tokenizer.json')
  const json = (await readJson(file)) ?? (await fromMerges(folder, raw)) ?? (await fromVocabulary(folder, raw))
  if (!json) throw new CheckpointError(`${folder} has no tokenizer: looked for tokenizer.json, vocab.json with merges.txt, and vocab.txt`, { file })
  return { json, config: readConfig(raw, map, join(folder, 'tokenizer_config.json')), file }
}

function readConfig(raw: Record<string, unknown>, map: Record<string, unknown>, file: string): TokenizerConfig {
  const max = raw['model_max_length']
  if (max !== undefined && max !== null && !(typeof max === 'number' && max >= 1)) {
    throw new CheckpointError(`${file}: model_max_length is ${JSON.stringify(max)}; expected a positive number`, { file, field: 'model_max_length' })
  }
  const names = raw['model_input_names']
  const name = String(raw['tokenizer_class'] ?? '')
  return {
    raw,
    maxLength: typeof max === 'number' && max < noLimit ? Math.floor(max) : Number.POSITIVE_INFINITY,
    padToken: tokenText(raw['pad_token']) ?? tokenText(map['pad_token']),
    paddingSide: raw['padding_side'] === 'left' ? 'left' : 'right',
    truncationSide: raw['truncation_side'] === 'left' ? 'left' : 'right',
    hasTokenTypes: Array.isArray(names) ? names.includes('token_type_ids') : /^Bert|^PreTrainedTokenizer/.test(name),
  }
}

function tokenText(token: unknown): string | undefined {
  if (typeof token === 'string') return token
  const { content } = (token ?? {}) as { content?: unknown }
  return typeof content === 'string' ? content : undefined
}

/** CLIP's byte-pair encoding. */
async function fromMerges(folder: string, raw: Record<string, unknown>): Promise<object | undefined> {
  const vocabFile = join(folder, 'vocab.json')
  const vocab = (await readJson(vocabFile)) as Record<string, number> | undefined
  const text = await readText(join(folder, 'merges.txt'))
  if (!vocab || text === undefined) return undefined
  const [start, end] = [tokenText(raw['bos_token']) ?? '<|startoftext|>', tokenText(raw['eos_token']) ?? '<|endoftext|>']
  if (!(start in vocab) || !(end in vocab) || !/clip/i.test(String(raw['tokenizer_class'] ?? 'CLIPTokenizer'))) {
    throw new CheckpointError(`${folder}: vocab.json and merges.txt are read for CLIP only; expected tokenizer.json`, { file: vocabFile })
  }
  const merges = text.split('\n').filter((line) => line.trim() && !line.startsWith('#version'))
  const added = (content: string, normalized: boolean) => ({ id: vocab[content], content, single_word: false, lstrip: false, rstrip: false, normalized, special: true })
  return {
    version: '1.0',
    added_tokens: [added(start, true), added(end, false)],
    normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }, { type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' }, { type: 'Lowercase' }] },
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: "'s|'t|'re|'ve|'m|'ll|'d|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+" }, behavior: 'Removed', invert: true },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
      ],
    },
    post_processor: { type: 'RobertaProcessing', sep: [end, vocab[end]], cls: [start, vocab[start]], trim_offsets: false, add_prefix_space: false },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: { type: 'BPE', dropout: null, unk_token: end, continuing_subword_prefix: '', end_of_word_suffix: '</w>', fuse_unk: false, vocab, merges },
  }
}

/** BERT's WordPiece. */
async function fromVocabulary(folder: string, raw: Record<string, unknown>): Promise<object | undefined> {
  const file = join(folder, 'vocab.txt')
  const text = await readText(file)
  if (text === undefined) return undefined
  const words = text.replace(/\r/g, '').split('\n')
  if (words.at(-1) === '') words.pop()
  const vocab = Object.fromEntries(words.map((word, id) => [word, id]))
  const name = (field: string, otherwise: string) => tokenText(raw[field]) ?? otherwise
  const [unk, sep, pad, cls, mask] = [name('unk_token', '[UNK]'), name('sep_token', '[SEP]'), name('pad_token', '[PAD]'), name('cls_token', '[CLS]'), name('mask_token', '[MASK]')]
  for (const token of [unk, sep, cls]) if (!(token in vocab)) throw new CheckpointError(`${file} has no ${token}`, { file })
  const special = [pad, unk, cls, sep, mask].filter((token) => token in vocab)
  const piece = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } })
  const sequence = (id: string, type_id: number) => ({ Sequence: { id, type_id } })
  return {
    version: '1.0',
    added_tokens: special.map((content) => ({ id: vocab[content], content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true })),
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: raw['tokenize_chinese_chars'] ?? true,
      strip_accents: raw['strip_accents'] ?? null,
      lowercase: raw['do_lower_case'] ?? true,
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: {
      type: 'TemplateProcessing',
      single: [piece(cls, 0), sequence('A', 0), piece(sep, 0)],
      pair: [piece(cls, 0), sequence('A', 0), piece(sep, 0), sequence('B', 1), piece(sep, 1)],
      special_tokens: Object.fromEntries([cls, sep].map((token) => [token, { id: token, ids: [vocab[token]], tokens: [token] }])),
    },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: { type: 'WordPiece', unk_token: unk, continuing_subword_prefix: '##', max_input_chars_per_word: 100, vocab },
  }
}

/** The parsed file, or undefined if it is not there. */
async function readJson(file: string): Promise<object | undefined> {
  const text = await readText(file)
  if (text === undefined) return undefined
  try {
    const value: unknown = JSON.parse(text)
    if (value !== null && typeof value === 'object' && !Array.isArray(value)) return value
  } catch (cause) {
    throw new CheckpointError(`${file} is not JSON: ${(cause as Error).message}`, { file, cause })
  }
  throw new CheckpointError(`${file} holds no JSON object`, { file })
}

async function readText(file: string): Promise<string | undefined> {
  try {
    return await readFile(file, 'utf8')
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new CheckpointError(`${file} cannot be read: ${(cause as Error).message}`, { file, cause })
  }
}
