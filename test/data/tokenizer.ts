// Token ids against Hugging Face's Rust library (test/references/make_tokenizer_fixtures.py): every kind of tokenizer, plain, cut from either
// side, and in pairs. CHIASMA_TOKENIZERS names a folder of more. The parity folders' strings, where they are.

import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { AutoTokenizer } from '../../lib/data/tokenizer.js'
import { makeCharsmapNormalizer } from '../../lib/data/tokenizer-charsmap.js'
import { noShared, shared } from '../shared.js'
import { temporary } from '../support/models.js'

interface Cut {
  maxLength: number | null
  side: 'left' | 'right'
}
interface Expected {
  plain: [string, number[]][]
  cut: (Cut & { rows: [string, number[]][] })[]
  pairs: (Cut & { rows: [string, string, number[], number[]][] })[]
}

const own = fileURLToPath(new URL('../fixtures/tokenizers/', import.meta.url))
const folders = [own, process.env['CHIASMA_TOKENIZERS']].flatMap(root => (root ? readdirSync(root).map(name => join(root, name)) : []))
const numbers = ({ data }: { data: ArrayLike<unknown> }) => Array.from(data, Number)

async function cutting(t: Test, folder: string, side: string) {
  const copy = temporary(t)
  cpSync(join(folder, 'tokenizer.json'), join(copy, 'tokenizer.json'))
  const config = JSON.parse(readFileSync(join(folder, 'tokenizer_config.json'), 'utf8')) as object
  writeFileSync(join(copy, 'tokenizer_config.json'), JSON.stringify({ ...config, truncation_side: side }))
  return AutoTokenizer.fromPretrained(copy)
}

/** A tokenizer whose tokenizer.json is a fixture's with a change, or is made anew. */
async function changed(t: Test, name: string, change: (json: any) => unknown, config: object = {}) {
  const folder = temporary(t)
  const json = JSON.parse(readFileSync(join(own, name, 'tokenizer.json'), 'utf8'))
  const made = change(json)
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(typeof made === 'object' ? made : json))
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify(config))
  return AutoTokenizer.fromPretrained(folder)
}

for (const folder of folders) {
  await t.test(folder.slice(folder.lastIndexOf('/') + 1), async t => {
    const tokenizers = { right: await cutting(t, folder, 'right'), left: await cutting(t, folder, 'left') }
    const expected = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as Expected
    const wrong: unknown[] = []
    const check = (got: number[], want: number[], what: unknown) => {
      if (got.length !== want.length || got.some((id, i) => id !== want[i])) wrong.push({ what, got: got.join(), want: want.join() })
    }
    for (const [text, ids] of expected.plain) check(tokenizers.right.encode(text), ids, text)
    for (const { maxLength, side, rows } of expected.cut) {
      for (const [text, ids] of rows) check(numbers(tokenizers[side](text, { truncation: true, maxLength: maxLength! }).input_ids), ids, { text, maxLength, side })
      const all = await tokenizers[side].encodeAll(rows.map(([text]) => text), { maxLength: maxLength! })
      rows.forEach(([text, ids], i) => check(Array.from(all[i]!), ids, { text, maxLength, side, encodeAll: true }))
    }
    for (const { maxLength, side, rows } of expected.pairs) {
      for (const [a, b, ids, types] of rows) {
        const encoded = tokenizers[side](a, { textPair: b, ...(maxLength !== null && { truncation: true, maxLength }) })
        check(numbers(encoded.input_ids), ids, { a, b, maxLength, side })
        if (encoded.token_type_ids) check(numbers(encoded.token_type_ids), types, { a, b, types: true })
      }
    }
    t.same(wrong, [])
  })
}

for (const name of ['tokenizer-bert', 'tokenizer-clip']) {
  t.test(name, { skip: noShared }, async t => {
    const { rows } = JSON.parse(readFileSync(shared('parity', name, 'strings.json'), 'utf8')) as { rows: { text: string; ids: number[] }[] }
    const tokenizer = await AutoTokenizer.fromPretrained(shared('parity', name))
    for (const { text, ids } of rows) t.same(tokenizer.encode(text), ids, JSON.stringify(text))
  })
}

t.test('a long text without special tokens, cut from either side', async t => {
  const folder = join(own, 'word-piece-cased')
  const text = Array.from({ length: 3000 }, (_, i) => (i % 3 ? 'the' : 'city')).join(' ') + ' in the night'
  for (const side of ['left', 'right'] as const) {
    const tokenizer = await cutting(t, folder, side)
    const whole = numbers(tokenizer(text, { addSpecialTokens: false }).input_ids)
    const cut = numbers(tokenizer(text, { addSpecialTokens: false, truncation: true, maxLength: 5 }).input_ids)
    t.same(cut, side === 'left' ? whole.slice(-5) : whole.slice(0, 5), side)
  }
})

t.test('padding', async t => {
  const folder = join(own, 'word-piece-cased')
  const tokenizer = await AutoTokenizer.fromPretrained(folder)
  const texts = ['a', 'the city in the night']
  const [short, long] = texts.map(text => tokenizer.encode(text)) as [number[], number[]]
  const fill = (length: number, ids: number[]) => [...ids, ...new Array<number>(length - ids.length).fill(0)]
  const longest = tokenizer(texts)
  t.same(numbers(longest.input_ids), [...fill(long.length, short), ...long])
  t.same(numbers(longest.attention_mask), [...fill(long.length, short.map(() => 1)), ...long.map(() => 1)])
  t.same(tokenizer(texts, { padding: 'max_length', maxLength: 20 }).input_ids.dims, [2, 20])
  t.same(numbers(tokenizer(texts, { padding: 'max_length', maxLength: 20 }).input_ids), [...fill(20, short), ...fill(20, long)])
  t.throws(() => tokenizer(texts, { padding: false }), { code: 'ERR_ARGUMENT', field: 'padding' })
  t.same(numbers(tokenizer('a', { addSpecialTokens: false }).input_ids), short.slice(1, -1))
  const left = temporary(t)
  cpSync(join(folder, 'tokenizer.json'), join(left, 'tokenizer.json'))
  writeFileSync(join(left, 'tokenizer_config.json'), JSON.stringify({ padding_side: 'left', pad_token: '[PAD]' }))
  t.same(numbers((await AutoTokenizer.fromPretrained(left))(texts).input_ids), [...new Array<number>(long.length - short.length).fill(0), ...short, ...long])
})

t.test("SentencePiece's rules that are broken", async t => {
  const whole = readFileSync(join(own, 'sentencepiece', 'tokenizer.json'), 'utf8')
  const folder = temporary(t)
  const file = join(folder, 'tokenizer.json')
  const use = (charsmap: unknown) => {
    const json = JSON.parse(whole)
    json.normalizer.normalizers[0].precompiled_charsmap = charsmap
    writeFileSync(file, JSON.stringify(json))
    return AutoTokenizer.fromPretrained(folder)
  }
  const { precompiled_charsmap } = JSON.parse(whole).normalizer.normalizers[0]
  const bytes = Buffer.from(precompiled_charsmap, 'base64')
  for (const charsmap of [3, [1], '!', bytes.subarray(0, 100).toString('base64'), Buffer.alloc(8).toString('base64')]) {
    await t.rejects(use(charsmap), { code: 'ERR_CHECKPOINT', file, message: /precompiled_charsmap/ }, JSON.stringify(charsmap).slice(0, 20))
  }
  // A trie cut to its first block: what is asked of the rest says so.
  const short = Buffer.concat([Buffer.from([0, 4, 0, 0]), bytes.subarray(4, 1028), bytes.subarray(4 + bytes.readUInt32LE(0))])
  const text = '\uff21\uff22'
  await t.rejects(async () => (await use(short.toString('base64')))(text), { code: 'ERR_CHECKPOINT', message: /precompiled_charsmap points at unit/ })
  for (const none of ['', null]) t.same((await use(none)).encode('a').length, 3, 'no rules')
  t.same((await use(precompiled_charsmap)).encode(text), (await use(precompiled_charsmap)).encode('AB'))
})

t.test('descriptions that are broken', async t => {
  const whole = readFileSync(join(own, 'unigram', 'tokenizer.json'), 'utf8')
  const folder = temporary(t)
  const file = join(folder, 'tokenizer.json')
  const cases: [(json: any) => void, string][] = [
    [json => delete json.model, 'model'],
    [json => (json.model.vocab = 3), 'model.vocab'],
    [json => (json.model.vocab[7] = ['x']), 'model.vocab[7]'],
    [json => (json.added_tokens[1].id = -1), 'added_tokens[1]'],
    [json => (json.normalizer.normalizers[1].pattern = 'x'), 'normalizer.normalizers.1.pattern'],
    [json => delete json.normalizer.normalizers[1].pattern, 'normalizer.normalizers.1.pattern'],
    [json => delete json.post_processor.single, 'post_processor'],
    [json => (json.post_processor.single = 'x'), 'post_processor'],
    [json => (json.post_processor.pair[0].SpecialToken.type_id = 0.5), 'post_processor'],
  ]
  for (const [change, field] of cases) {
    const json = JSON.parse(whole)
    change(json)
    writeFileSync(file, JSON.stringify(json))
    await t.rejects(AutoTokenizer.fromPretrained(folder), { code: 'ERR_CHECKPOINT', file, field }, field)
  }
  for (const text of ['', '{', '[]', whole.slice(0, 5000), '{"model":{},"model":{}}']) {
    writeFileSync(file, text)
    await t.rejects(AutoTokenizer.fromPretrained(folder), { code: 'ERR_CHECKPOINT', file }, text.slice(0, 20))
  }
  await t.rejects(AutoTokenizer.fromPretrained(temporary(t)), { code: 'ERR_CHECKPOINT', message: /tokenizer\.json is not there/ })
})

t.test('long texts and lone surrogates', async t => {
  for (const folder of [...folders, ...(noShared ? [] : [shared('parity/tokenizer-bert'), shared('parity/tokenizer-clip')])]) {
    const tokenizer = await AutoTokenizer.fromPretrained(folder)
    for (const text of ['a'.repeat(1_000_000), 'hello world, '.repeat(80_000), '中'.repeat(400_000), 'aZ9%é中'.repeat(150_000), ' '.repeat(1_000_000), '!?.,'.repeat(250_000)]) {
      const [ids] = await tokenizer.encodeAll([text], { maxLength: 32 })
      t.ok(ids!.length <= 32)
      // As far as the tokens are kept, the beginning alone gives the same.
      t.same(Array.from(ids!), Array.from((await tokenizer.encodeAll([text.slice(0, 6000)], { maxLength: 32 }))[0]!), `${folder} ${text.slice(0, 10)}`)
      await t.rejects(tokenizer.encodeAll(['short', `${text}x y z `.repeat(2)], { maxLength: 2, truncation: false }), { code: 'ERR_ARGUMENT' })
    }
    // A surrogate alone is no character: it is read as the replacement character.
    t.same(tokenizer.encode('a\ud800b \udc00 c'), tokenizer.encode('a\ufffdb \ufffd c'), folder)
  }
})

t.test('models that take no mask see padding like other tokens', async t => {
  const folder = temporary(t)
  cpSync(join(own, 'byte-level', 'tokenizer.json'), join(folder, 'tokenizer.json'))
  const config = JSON.parse(readFileSync(join(own, 'byte-level', 'tokenizer_config.json'), 'utf8')) as object
  writeFileSync(join(folder, 'tokenizer_config.json'), JSON.stringify({ ...config, model_input_names: ['input_ids'] }))
  const { attention_mask } = (await AutoTokenizer.fromPretrained(folder))(['a', 'a longer text'], { padding: true })
  t.ok(numbers(attention_mask).every(one => one === 1))
})

t.test('SentencePiece normalises long runs of characters without a blank', async t => {
  const { precompiled_charsmap } = JSON.parse(readFileSync(join(own, 'sentencepiece', 'tokenizer.json'), 'utf8')).normalizer.normalizers[0]
  const normalize = makeCharsmapNormalizer(precompiled_charsmap)
  const clusters = ['中', 'ｱ', 'é', 'ê\u0323', '👩‍👩‍👧‍👦', '㍿', '한', '𝓢', 'ﬁ', `é${'\u0301'.repeat(700)}`, '🇩🇪', '𫠓']
  const run = Array.from({ length: 2000 }, (_, i) => clusters[(i * 7 + (i >> 4)) % (i % 50 ? 9 : clusters.length)]!)
  t.equal(normalize(run.join('')), run.map(normalize).join(''))
  const started = performance.now()
  normalize('自然語言處理是人工智慧的一個重要領域，'.repeat(5000))
  t.ok(performance.now() - started < 3000, 'in a time that grows with the length alone')
})

t.test('Unigram gives what no piece covers as bytes', async t => {
  const bytes = (count: number) => Array.from({ length: count }, (_, i) => [`<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`, -20])
  const withBytes = (count: number) => changed(t, 'unigram', json => void Object.assign(json.model, { byte_fallback: true, vocab: [...json.model.vocab, ...bytes(count)] }))
  const all = await withBytes(256)
  t.same(all.encode('the 𓀀 city'), [0, 21, 5, 652, 559, 540, 540, 36, 2])
  t.same(all.encode('emoji 🦄🦄 in'), [0, 314, 10, 261, 74, 5, 652, 571, 578, 544, 652, 571, 578, 544, 110, 2])
  t.same((await withBytes(200)).encode('the 𓀀 city'), [0, 21, 5, 3, 36, 2], 'unknown where bytes are missing')
})

t.test("Unigram without its model's type", async t => {
  // As good are several ways to cut it, of which the library takes another.
  t.same((await changed(t, 'unigram', json => void delete json.model.type)).encode('!!!!!!!!!!'), [0, 5, 143, 24, 143, 143, 2])
})

t.test('special tokens where a letter has none', async t => {
  const special = { '[CLS]': { id: '[CLS]', ids: [0], tokens: ['[CLS]'] }, '[SEP]': { id: '[SEP]', ids: [1], tokens: ['[SEP]'] } }
  const mark = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } })
  const text = (id: string, type_id: number) => ({ Sequence: { id, type_id } })
  const tokenizer = await changed(t, 'byte-level', ({ added_tokens: [first, , second] }) => ({
    added_tokens: [{ ...first, id: 0, content: '[CLS]' }, { ...second, id: 1, content: '[SEP]' }],
    pre_tokenizer: { type: 'WhitespaceSplit' },
    post_processor: { type: 'TemplateProcessing', single: [mark('[CLS]', 0), text('A', 0), mark('[SEP]', 0)], pair: [mark('[CLS]', 0), text('A', 0), mark('[SEP]', 0), text('B', 1), mark('[SEP]', 1)], special_tokens: special },
    model: { type: 'BPE', unk_token: null, vocab: { '[CLS]': 0, '[SEP]': 1, A: 2, C: 3, G: 4, T: 5, AC: 6 }, merges: ['A C'] },
  }))
  t.same(tokenizer.encode('ACGT'), [0, 6, 4, 5, 1])
  t.same(numbers(tokenizer('AC', { textPair: 'GT' }).input_ids), [0, 6, 1, 4, 5, 1])
})

t.test('post-processors that are refused or put nothing', async t => {
  const text = (id: string) => ({ Sequence: { id, type_id: 0 } })
  const single = [text('A')]
  for (const described of [{ single: [text('A'), text('A')], pair: [text('A'), text('B')] }, { single, pair: [text('B'), text('A')] }, { single: [{ SpecialToken: { id: '[X]', type_id: 0 } }, text('A')], pair: [] }]) {
    await t.rejects(changed(t, 'word-piece-cased', json => void (json.post_processor = { type: 'TemplateProcessing', ...described })), { code: 'ERR_CHECKPOINT', field: 'post_processor' })
  }
  for (const type of [null, { type: 'ByteLevel' }]) {
    const tokenizer = await changed(t, 'word-piece-cased', json => void (json.post_processor = type), { model_input_names: ['input_ids', 'token_type_ids'] })
    const { input_ids, token_type_ids } = tokenizer('the city', { textPair: 'in the night' })
    t.same([numbers(input_ids), numbers(token_type_ids!)], [[336, 354, 416, 336, 343], [0, 0, 1, 1, 1]])
  }
})

t.test('pairs without special tokens', async t => {
  const tokenizer = await AutoTokenizer.fromPretrained(join(own, 'word-piece-cased'))
  const options = { textPair: 'in the night', addSpecialTokens: false }
  const { input_ids, token_type_ids } = tokenizer('the city', options)
  t.same([numbers(input_ids), numbers(token_type_ids!)], [[336, 354, 416, 336, 343], [0, 0, 1, 1, 1]])
  t.same(numbers(tokenizer('the city', { ...options, truncation: true, maxLength: 4 }).input_ids), [336, 354, 416, 336])
})

t.test('unknown words of a WordLevel model', async t => {
  const model = { type: 'WordLevel', vocab: { '[UNK]': 0, hello: 1, world: 2 }, unk_token: '[UNK]' }
  const make = (unk_token: string) => changed(t, 'unigram', () => ({ pre_tokenizer: { type: 'WhitespaceSplit' }, model: { ...model, unk_token } }))
  const tokenizer = await make('[UNK]')
  t.same(tokenizer.encode('hello there world'), [1, 0, 2])
  t.same((await tokenizer.encodeAll(['hello there'])).map(ids => Array.from(ids)), [[1, 0]])
  await t.rejects(make('<unk>'), { code: 'ERR_CHECKPOINT', field: 'model.unk_token' })
})

t.test('sides that tokenizer.json alone names', async t => {
  const sides = { padding: { direction: 'Left', pad_token: '[PAD]' }, truncation: { direction: 'Left', max_length: 4 } }
  const left = await changed(t, 'word-piece-cased', json => void Object.assign(json, sides))
  t.same(numbers(left(['the', 'the city']).input_ids), [0, 2, 336, 3, 2, 336, 354, 3])
  t.same(numbers(left('the city in', { truncation: true, maxLength: 4 }).input_ids), [2, 354, 416, 3])
  const right = await changed(t, 'word-piece-cased', json => void Object.assign(json, sides), { padding_side: 'right' })
  t.same(numbers(right(['the', 'the city']).input_ids), [2, 336, 3, 0, 2, 336, 354, 3])
})

t.test('steps that cut', async t => {
  // After the first two, of what blanks leave.
  const cases: [object, number[]][] = [
    [{ type: 'Whitespace' }, [2, 1, 336, 14, 354, 1, 416, 56, 232, 19, 199, 52, 314, 1, 3]],
    [{ type: 'WhitespaceSplit' }, [2, 1, 1, 56, 232, 19, 199, 52, 1, 3]],
    [{ type: 'BertPreTokenizer' }, [2, 1, 336, 14, 354, 14, 14, 416, 56, 232, 19, 199, 52, 1, 15, 3]],
    [{ type: 'Digits', individual_digits: true }, [2, 1, 1, 56, 18, 19, 123, 52, 1, 3]],
    [{ type: 'Digits', individual_digits: false }, [2, 1, 1, 56, 18, 19, 199, 52, 1, 3]],
    [{ type: 'Punctuation', behavior: 'Isolated' }, [2, 1, 336, 14, 354, 14, 14, 416, 56, 232, 19, 199, 52, 1, 15, 3]],
    [{ type: 'Punctuation', behavior: 'Removed' }, [2, 1, 336, 354, 416, 56, 232, 19, 199, 52, 1, 3]],
    [{ type: 'Punctuation', behavior: 'Contiguous' }, [2, 1, 336, 14, 354, 1, 416, 56, 232, 19, 199, 52, 1, 15, 3]],
    [{ type: 'Punctuation', behavior: 'MergedWithPrevious' }, [2, 1, 1, 1, 14, 416, 56, 232, 19, 199, 52, 1, 3]],
    [{ type: 'Punctuation', behavior: 'MergedWithNext' }, [2, 1, 336, 14, 222, 320, 229, 14, 14, 319, 56, 232, 19, 199, 52, 1, 15, 3]],
    [{ type: 'Split', pattern: { String: '-' }, behavior: 'Isolated', invert: false }, [2, 1, 336, 14, 354, 14, 14, 416, 56, 232, 19, 199, 52, 1, 3]],
    [{ type: 'Split', pattern: { Regex: '[a-e]' }, behavior: 'Isolated', invert: true }, [2, 54, 52, 1, 71, 230, 56, 14, 54, 1, 56, 18, 19, 199, 52, 1, 3]],
    [{ type: 'Split', pattern: { String: '-' }, behavior: 'Removed', invert: false }, [2, 1, 336, 354, 416, 56, 232, 19, 199, 52, 1, 3]],
    [{ type: 'Split', pattern: { Regex: '[a-e]' }, behavior: 'Removed', invert: true }, [2, 54, 52, 56, 54, 56, 52, 3]],
    [{ type: 'Split', pattern: { String: '-' }, behavior: 'Contiguous', invert: false }, [2, 1, 336, 14, 354, 1, 416, 56, 232, 19, 199, 52, 1, 3]],
    [{ type: 'Split', pattern: { Regex: '[a-e]' }, behavior: 'Contiguous', invert: true }, [2, 500, 1, 71, 230, 56, 14, 54, 1, 56, 18, 19, 199, 52, 1, 3]],
    [{ type: 'Split', pattern: { String: '-' }, behavior: 'MergedWithPrevious', invert: false }, [2, 1, 1, 1, 14, 416, 56, 232, 19, 199, 52, 1, 3]],
    [{ type: 'Split', pattern: { Regex: '[a-e]' }, behavior: 'MergedWithPrevious', invert: true }, [2, 54, 1, 71, 230, 1, 1, 56, 232, 19, 199, 52, 1, 3]],
    [{ type: 'Split', pattern: { String: '-' }, behavior: 'MergedWithNext', invert: false }, [2, 1, 336, 14, 222, 320, 229, 14, 14, 319, 56, 232, 19, 199, 52, 1, 3]],
    [{ type: 'Split', pattern: { Regex: '[a-e]' }, behavior: 'MergedWithNext', invert: true }, [2, 54, 52, 1, 336, 14, 222, 1, 56, 18, 19, 199, 52, 1, 3]],
  ]
  for (const [i, [step, ids]] of cases.entries()) {
    const pre_tokenizer = i < 2 ? step : { type: 'Sequence', pretokenizers: [{ type: 'WhitespaceSplit' }, step] }
    const tokenizer = await changed(t, 'word-piece-cased', json => void Object.assign(json, { normalizer: null, pre_tokenizer }))
    t.same(tokenizer.encode('café the-city--in e1 2٣ a\x85of\ufeff.'), ids, JSON.stringify(step))
  }
  for (const step of [{ type: 'Punctuation', behavior: 'removed' }, { type: 'CharDelimiterSplit', delimiter: '-' }]) {
    await t.rejects(changed(t, 'word-piece-cased', json => void (json.pre_tokenizer = step)), { code: 'ERR_CHECKPOINT' })
  }
})

t.test('long texts are cut where no step notices', async t => {
  const cases: [string, string, (json: any) => unknown][] = [
    ['byte-level', 'the\n', () => {}],
    ['byte-level', ' the', json => void (json.normalizer = { type: 'Strip', strip_left: true, strip_right: false })],
    ['byte-level', ' the', json => void (json.normalizer = { type: 'Replace', pattern: { Regex: '^ ' }, content: '' })],
    ['unigram', 'the\n', () => {}],
    ['unigram', 'the ', json => {
      json.pre_tokenizer = { type: 'Split', pattern: { String: ' ' }, behavior: 'MergedWithPrevious', invert: false }
      json.model.vocab.push(['the ', 0])
    }],
    ['word-piece-cased', 'the中', json => void (json.normalizer.handle_chinese_chars = false)],
  ]
  for (const [name, unit, change] of cases) {
    const tokenizer = await changed(t, name, json => {
      if (unit === ' the' && name === 'byte-level') json.pre_tokenizer.add_prefix_space = false
      change(json)
    })
    const [few, more, long] = [100, 101, 2000].map(count => tokenizer.encode(unit.repeat(count))) as [number[], number[], number[]]
    const period = more.slice(few.length - 1, -1)
    t.same(long, [...few.slice(0, -1), ...Array.from({ length: 1900 }, () => period).flat(), few.at(-1)], `${name} ${JSON.stringify(unit)}`)
  }
})

t.test('added tokens that are words alone', async t => {
  const tokenizer = await changed(t, 'word-piece-cased', ({ added_tokens: tokens }) => void tokens.push({ ...tokens[0], id: 700, content: 'xyzq', single_word: true, special: false }))
  const cases: [string, number[]][] = [
    ['the xyzq sat', [336, 700, 70, 338]],
    ['xyzq-xyzq.', [700, 14, 700, 15]],
    ['axyzq', [1]],
    ['xyzqs', [1]],
    ['_xyzq', [51, 1]],
    ['xyzqxyzq', [1]],
  ]
  for (const [text, ids] of cases) t.same(tokenizer.encode(text), [2, ...ids, 3], text)
  // Round texts, too, where the model's own vocabulary has them not.
  const framed = await changed(t, 'word-piece-cased', json => {
    delete json.model.vocab['[CLS]']
    for (const token of json.added_tokens) token.single_word = true
  })
  t.same(framed.encode('the'), [2, 336, 3])
})

t.test('added tokens that other files have', async t => {
  const token = { content: '<new>', single_word: false, lstrip: false, rstrip: false, normalized: false, special: true }
  const decoder = { 3: { ...token, content: '[SEP]' }, 700: token }
  const tokenizer = await changed(t, 'word-piece-cased', () => {}, { added_tokens_decoder: decoder })
  t.same(tokenizer.encode('the<new>city'), [2, 336, 700, 354, 3])
  t.equal(tokenizer.decode([336, 700, 354]), 'the city')
  await t.rejects(changed(t, 'word-piece-cased', () => {}, { added_tokens_decoder: { 700: {} } }), { code: 'ERR_CHECKPOINT', field: 'added_tokens_decoder' })
  const folder = temporary(t)
  writeFileSync(join(folder, 'vocab.txt'), '[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n')
  writeFileSync(join(folder, 'added_tokens.json'), JSON.stringify({ '<New>': 5, '[MASK]': 6 }))
  writeFileSync(join(folder, 'special_tokens_map.json'), JSON.stringify({ mask_token: '[MASK]' }))
  const old = await AutoTokenizer.fromPretrained(folder)
  t.same(old.encode('the<New>[MASK]'), [2, 4, 5, 6, 3])
  t.equal(old.decode([4, 5, 6]), 'the <New>', 'those with a part of their own are special')
})

t.test('texts of SigLIP 2 are written in small letters', async t => {
  const folder = temporary(t)
  cpSync(join(own, 'word-piece-cased', 'tokenizer.json'), join(folder, 'tokenizer.json'))
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ model_type: 'siglip2' }))
  const tokenizer = await AutoTokenizer.fromPretrained(folder)
  t.same(tokenizer.encode('The CITY'), tokenizer.encode('the city'))
})

t.test('no ids, and too many', async t => {
  const tokenizer = await AutoTokenizer.fromPretrained(join(own, 'word-piece-cased'))
  t.equal(tokenizer.decode([]), '')
  t.throws(() => tokenizer('a', { padding: 'max_length', maxLength: 2 ** 31 }), { code: 'ERR_ARGUMENT', field: 'maxLength' })
})

t.test("options of the tokenizer's class", async t => {
  const cased = [2, 46, 331, 1, 159, 163, 3]
  const cases: [string, string, object, number[]][] = [
    ['word-piece-cased', 'BertTokenizer', {}, cased],
    ['word-piece-cased', 'BertTokenizer', { do_lower_case: true }, [2, 336, 500, 224, 213, 159, 163, 3]],
    ['word-piece-cased', 'BertTokenizer', { do_lower_case: true, strip_accents: false }, [2, 336, 1, 159, 163, 3]],
    ['word-piece-cased', 'DistilBertTokenizer', { do_lower_case: false, tokenize_chinese_chars: false }, [2, 46, 331, 1, 1, 3]],
    ['word-piece-cased', 'PreTrainedTokenizerFast', { do_lower_case: true, tokenize_chinese_chars: false }, cased],
    ['byte-level', 'RobertaTokenizer', { add_prefix_space: false }, [0, 88, 297, 326, 2]],
    ['byte-level', 'PreTrainedTokenizerFast', { add_prefix_space: false }, [0, 309, 326, 2]],
  ]
  for (const [name, tokenizer_class, options, ids] of cases) {
    const tokenizer = await changed(t, name, () => {}, { tokenizer_class, ...options })
    t.same(tokenizer.encode(name === 'byte-level' ? 'the city' : 'The café 中文'), ids, `${tokenizer_class} ${JSON.stringify(options)}`)
  }
})
