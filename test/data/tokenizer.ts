// Token ids against Hugging Face's Rust library (test/references/make_tokenizer_fixtures.py): every kind of tokenizer, plain, cut from either
// side, and in pairs. CHIASMA_TOKENIZERS names a folder of more. The parity folders' strings, where they are.

import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { AutoTokenizer } from '../../lib/data/tokenizer.js'
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
