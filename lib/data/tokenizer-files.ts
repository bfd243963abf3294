// The files of a tokenizer: tokenizer.json with tokenizer_config.json, or the older vocab.json and merges.txt (CLIP) and vocab.txt (BERT),
// from which the same description is made as Hugging Face's converters make.

import { join } from 'node:path'
import { CheckpointError } from '../core/errors.js'
import { type JsonObject, readJsonObject, readSmallFile } from '../io/json.js'
import { isFile } from './files.js'

/** A tokenizer's description, in tokenizer.json's form, and its settings. */
export interface TokenizerFiles {
  /** The file that errors name. */
  readonly file: string
  readonly json: JsonObject
  /** tokenizer_config.json as it is. */
  readonly config: JsonObject
  readonly settings: TokenizerSettings
}

export interface TokenizerSettings {
  /** Tokens a text may have; Infinity if no file says. */
  readonly maxLength: number
  readonly padToken: string | undefined
  readonly paddingSide: 'left' | 'right'
  readonly truncationSide: 'left' | 'right'
  readonly hasTokenTypes: boolean
  /** Padding is seen like other tokens: the model takes no mask. */
  readonly padsCount: boolean
}

const CONFIG = 'tokenizer_config.json'
const MODEL_CONFIG = 'config.json'
/** model_max_length is a huge number where there is no limit. */
const NO_LIMIT = 1e9
const MAX_TEXT_FILE = 100_000_000
const MAX_ID = 2 ** 31 - 1
/** Models whose positions begin after the padding id, so that there are fewer than max_position_embeddings. */
const OFFSET_POSITIONS = /^(roberta|xlm-roberta|mpnet|camembert|data2vec-text|longformer)$/
/** Tokenizer classes that take tokenizer.json as it is. */
const NO_CLASS = /^(PreTrainedTokenizerFast|TokenizersBackend|)$/
/** Model types and tokenizer classes with token types in their inputs. */
const WITH_TYPES = /^(bert|electra|deberta-?v2|lxmert|visual_?bert|vilt)/i

/**
 * Tokens a text may have; Infinity if no file says.
 * @throws CheckpointError
 */
export async function readMaxLength(folder: string): Promise<number> {
  const file = join(folder, CONFIG)
  return longestOf((await readIfThere(file)) ?? {}, file, (await readIfThere(join(folder, MODEL_CONFIG))) ?? {})
}

/** The files that a tokenizer is read from, so far as they are there. */
export const tokenizerFiles = (folder: string): string[] =>
  [CONFIG, MODEL_CONFIG, 'special_tokens_map.json', 'added_tokens.json', 'tokenizer.json', 'vocab.json', 'merges.txt', 'vocab.txt'].map(name => join(folder, name))

/**
 * @throws CheckpointError naming the file that is missing or broken, and the field.
 */
export async function readTokenizerFiles(folder: string): Promise<TokenizerFiles> {
  const configFile = join(folder, CONFIG)
  const config = (await readIfThere(configFile)) ?? {}
  const model = (await readIfThere(join(folder, MODEL_CONFIG))) ?? {}
  const tokens = { ...(await readIfThere(join(folder, 'special_tokens_map.json'))), ...config }
  const file = join(folder, 'tokenizer.json')
  const made = (await isFile(file)) ? { file, json: await readJsonObject(file) } : ((await fromMerges(folder, tokens)) ?? (await fromVocabulary(folder, tokens)))
  if (!made) throw new CheckpointError(`${file} is not there, and neither vocab.json with merges.txt nor vocab.txt`, { file })
  checkDescription(made.json, made.file)
  const [padding, truncation] = [made.json['padding'], made.json['truncation']].map(part => (part ?? {}) as JsonObject) as [JsonObject, JsonObject]
  const className = typeof config['tokenizer_class'] === 'string' ? config['tokenizer_class'] : (model['model_type'] ?? '')
  const names = config['model_input_names']
  const settings: TokenizerSettings = {
    maxLength: longestOf(config, configFile, model),
    padToken: contentOf(tokens['pad_token']) ?? contentOf(padding['pad_token']),
    paddingSide: sideOf(config, 'padding_side', configFile, padding),
    truncationSide: sideOf(config, 'truncation_side', configFile, truncation),
    hasTokenTypes: Array.isArray(names) ? names.includes('token_type_ids') : WITH_TYPES.test(String(className)),
    padsCount: Array.isArray(names) && !names.includes('attention_mask'),
  }
  const json = withAdded(NO_CLASS.test(String(className)) ? made.json : withOptions(made.json, config), await moreTokens(folder, config, tokens))
  // Siglip2Tokenizer's way, whatever class the folder names.
  return { file: made.file, json: model['model_type'] === 'siglip2' ? lowercased(json) : json, config, settings }
}

/** The description with texts written in small letters first. */
export function lowercased(json: JsonObject): JsonObject {
  const { normalizer } = json
  return { ...json, normalizer: { type: 'Sequence', normalizers: [{ type: 'Lowercase' }, ...(normalizer ? [normalizer] : [])] } }
}

/** The description with what tokenizer_config.json says of the same: a class of its own makes these steps by that. */
function withOptions({ ...json }: JsonObject, config: JsonObject): JsonObject {
  const change = (part: string, type: string, names: Record<string, string>) => {
    const step = json[part] as JsonObject | null | undefined
    const given = Object.entries(names).filter(([option]) => option in config)
    if (step?.['type'] === type) json[part] = { ...step, ...Object.fromEntries(given.map(([option, field]) => [field, config[option]])) }
  }
  change('normalizer', 'BertNormalizer', { do_lower_case: 'lowercase', strip_accents: 'strip_accents', tokenize_chinese_chars: 'handle_chinese_chars' })
  change('pre_tokenizer', 'ByteLevel', { add_prefix_space: 'add_prefix_space' })
  return json
}

/** Added tokens beside tokenizer.json: tokenizer_config.json's added_tokens_decoder has them by id, else added_tokens.json has the ids by token. */
async function moreTokens(folder: string, config: JsonObject, tokens: JsonObject): Promise<JsonObject[]> {
  const decoder = config['added_tokens_decoder'] as JsonObject | undefined
  const file = join(folder, decoder ? CONFIG : 'added_tokens.json')
  const ids = decoder ? {} : ((await readIfThere(file)) ?? {})
  const named = new Set(Object.values(tokens).map(contentOf))
  const more = [
    ...Object.entries(decoder ?? {}).map(([id, token]): JsonObject => ({ ...(token as JsonObject), id: Number(id) })),
    ...Object.entries(ids).map(([content, id]) => special(id, content, !named.has(content), named.has(content))),
  ].filter(({ content }) => content !== '')
  const wrong = more.find(token => !isAdded(token))
  if (wrong) throw new CheckpointError(`${file} has the added token ${show(wrong)}; expected its content and id`, { file, ...(decoder && { field: 'added_tokens_decoder' }) })
  return more
}

/** The description with those added tokens that it lacks. */
function withAdded(json: JsonObject, tokens: readonly JsonObject[]): JsonObject {
  const known = (json['added_tokens'] ?? []) as { content: string }[]
  const contents = new Set<unknown>(known.map(({ content }) => content))
  const missing = tokens.filter(({ content }) => !contents.has(content))
  return missing.length > 0 ? { ...json, added_tokens: [...known, ...missing] } : json
}

async function readIfThere(file: string): Promise<JsonObject | undefined> {
  return (await isFile(file)) ? readJsonObject(file) : undefined
}

const longestOf = (config: JsonObject, file: string, model: JsonObject): number => maxLengthOf(config, file) ?? positionsOf(model) ?? Number.POSITIVE_INFINITY

function maxLengthOf(config: JsonObject, file: string): number | undefined {
  const length = config['model_max_length'] ?? undefined
  if (length === undefined) return undefined
  if (typeof length !== 'number' || !(length >= 1)) {
    throw new CheckpointError(`${file}: model_max_length is ${show(length)}; expected a positive number`, { file, field: 'model_max_length' })
  }
  return length < NO_LIMIT ? Math.floor(length) : undefined
}

/** What config.json knows of the longest text. */
function positionsOf(model: JsonObject): number | undefined {
  const text = (model['text_config'] ?? model) as JsonObject
  const positions = text['max_position_embeddings']
  if (!Number.isSafeInteger(positions) || (positions as number) < 3) return undefined
  return OFFSET_POSITIONS.test(String(text['model_type'])) ? (positions as number) - 2 : (positions as number)
}

/** tokenizer_config.json's side, else the direction in tokenizer.json ('Left' or 'Right'). */
function sideOf(config: JsonObject, field: string, file: string, { direction }: JsonObject): 'left' | 'right' {
  const side = config[field] ?? String(direction ?? 'right').toLowerCase()
  if (side !== 'left' && side !== 'right') throw new CheckpointError(`${file}: ${field} is ${show(side)}; expected 'left' or 'right'`, { file, field })
  return side
}

/** A token is a string or an object with its content. */
function contentOf(token: unknown): string | undefined {
  if (typeof token === 'string') return token
  const { content } = (token ?? {}) as { content?: unknown }
  return typeof content === 'string' ? content : undefined
}

/** What the library takes for granted. */
function checkDescription(json: JsonObject, file: string): void {
  const fail = (field: string, problem: string): never => {
    throw new CheckpointError(`${file}: ${field} ${problem}`, { file, field })
  }
  const model = json['model'] as JsonObject | undefined
  if (model === null || typeof model !== 'object') return fail('model', model === undefined ? 'is missing' : `is ${show(model)}; expected an object`)
  const vocab = model['vocab']
  if (vocab === null || typeof vocab !== 'object') return fail('model.vocab', vocab === undefined ? 'is missing' : `is ${show(vocab)}; expected an object`)
  if (Array.isArray(vocab)) {
    const wrong = vocab.findIndex(piece => !Array.isArray(piece) || typeof piece[0] !== 'string' || typeof piece[1] !== 'number')
    if (wrong >= 0) fail(`model.vocab[${wrong}]`, `is ${show(vocab[wrong])}; expected [token, score]`)
  } else {
    if (!Object.values(vocab).every(isId)) {
      const [token, id] = Object.entries(vocab).find(([, id]) => !isId(id))!
      fail('model.vocab', `gives ${show(token)} the id ${show(id)}; expected an integer from 0 to ${MAX_ID}`)
    }
    const unknown = model['unk_token']
    if (/^Word(Piece|Level)$/.test(String(model['type'])) && !(typeof unknown === 'string' && Object.hasOwn(vocab, unknown))) fail('model.unk_token', `is ${show(unknown)}; expected a word of the vocabulary`)
  }
  const merges = model['merges']
  if (model['type'] === 'BPE' && !Array.isArray(merges)) fail('model.merges', merges === undefined ? 'is missing' : `is ${show(merges)}; expected a list`)
  for (const field of ['normalizer', 'pre_tokenizer', 'decoder']) checkPatterns(json[field], field, fail)
  const added = json['added_tokens'] ?? []
  if (!Array.isArray(added)) return fail('added_tokens', `is ${show(added)}; expected a list`)
  added.forEach((token: JsonObject | null, i) => {
    if (!isAdded(token)) fail(`added_tokens[${i}]`, `is ${show(token)}; expected an object with content and id`)
  })
}

/** Patterns are { String } or { Regex } wherever they stand; the library would go on without others. */
function checkPatterns(value: unknown, path: string, fail: (field: string, problem: string) => never): void {
  if (value === null || typeof value !== 'object') return
  const { type, pattern } = value as JsonObject
  if (type === 'Split' || type === 'Replace') {
    const { String: text, Regex: regex } = (pattern ?? {}) as JsonObject
    if (typeof text !== 'string' && typeof regex !== 'string') fail(`${path}.pattern`, `is ${show(pattern)}; expected { String } or { Regex }`)
  }
  for (const [key, inner] of Object.entries(value)) checkPatterns(inner, `${path}.${key}`, fail)
}

function isAdded(token: JsonObject | null): boolean {
  return typeof token?.['content'] === 'string' && token['content'] !== '' && isId(token['id'])
}

function isId(id: unknown): boolean {
  return Number.isInteger(id) && (id as number) >= 0 && (id as number) <= MAX_ID
}

/** CLIP's byte-pair encoding. */
async function fromMerges(folder: string, tokens: JsonObject): Promise<{ file: string; json: JsonObject } | undefined> {
  const [file, mergesFile] = [join(folder, 'vocab.json'), join(folder, 'merges.txt')]
  if (!(await isFile(file)) || !(await isFile(mergesFile))) return undefined
  const vocab = await readJsonObject(file)
  const [start, end] = [contentOf(tokens['bos_token']) ?? '<|startoftext|>', contentOf(tokens['eos_token']) ?? '<|endoftext|>']
  const unknown = contentOf(tokens['unk_token']) ?? end
  if (!/^CLIP/.test(String(tokens['tokenizer_class'] ?? 'CLIPTokenizer')) || !(start in vocab) || !(end in vocab)) {
    throw new CheckpointError(`${file} and merges.txt are read for CLIP only; other models need a tokenizer.json`, { file })
  }
  const merges = (await readLines(mergesFile)).filter(line => line !== '' && !line.startsWith('#version'))
  const json = {
    added_tokens: [special(vocab[start], start, true), special(vocab[end], end, false)],
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
    model: { type: 'BPE', unk_token: unknown, continuing_subword_prefix: '', end_of_word_suffix: '</w>', fuse_unk: false, vocab, merges },
  }
  return { file, json }
}

/** BERT's WordPiece. */
async function fromVocabulary(folder: string, tokens: JsonObject): Promise<{ file: string; json: JsonObject } | undefined> {
  const file = join(folder, 'vocab.txt')
  if (!(await isFile(file))) return undefined
  const words = await readLines(file)
  if (words.at(-1) === '') words.pop()
  const vocab = Object.fromEntries(words.map((word, id) => [word, id]))
  const [unknown, separator, padding, start, mask] = (
    [
      ['unk_token', '[UNK]'],
      ['sep_token', '[SEP]'],
      ['pad_token', '[PAD]'],
      ['cls_token', '[CLS]'],
      ['mask_token', '[MASK]'],
    ] as const
  ).map(([field, usual]) => contentOf(tokens[field]) ?? usual) as [string, string, string, string, string]
  for (const token of [unknown, separator, start]) if (!(token in vocab)) throw new CheckpointError(`${file} has no ${token}`, { file })
  const piece = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } })
  const text = (id: string, type_id: number) => ({ Sequence: { id, type_id } })
  const json = {
    added_tokens: [padding, unknown, start, separator, mask].filter(token => token in vocab).map(token => special(vocab[token], token, false)),
    normalizer: {
      type: 'BertNormalizer',
      clean_text: true,
      handle_chinese_chars: tokens['tokenize_chinese_chars'] ?? true,
      strip_accents: tokens['strip_accents'] ?? null,
      lowercase: tokens['do_lower_case'] ?? true,
    },
    pre_tokenizer: { type: 'BertPreTokenizer' },
    post_processor: {
      type: 'TemplateProcessing',
      single: [piece(start, 0), text('A', 0), piece(separator, 0)],
      pair: [piece(start, 0), text('A', 0), piece(separator, 0), text('B', 1), piece(separator, 1)],
      special_tokens: Object.fromEntries([start, separator].map(token => [token, { id: token, ids: [vocab[token]], tokens: [token] }])),
    },
    decoder: { type: 'WordPiece', prefix: '##', cleanup: true },
    model: { type: 'WordPiece', unk_token: unknown, continuing_subword_prefix: '##', max_input_chars_per_word: 100, vocab },
  }
  return { file, json }
}

function special(id: unknown, content: string, normalized: boolean, isSpecial = true): JsonObject {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized, special: isSpecial }
}

async function readLines(file: string): Promise<string[]> {
  return (await readSmallFile(file, MAX_TEXT_FILE)).toString('utf8').split(/\r?\n/)
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}
