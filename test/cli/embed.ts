import { cp, mkdir, open, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { classifyImages } from '../../lib/embed/classify.js'
import { Embedder } from '../../lib/embed/embedder.js'
import { readEmbeddings } from '../../lib/io/embeddings.js'
import { cli, startCli } from '../support/cli.js'
import { fixture } from '../support/models.js'
import { temporaryFolder, writePictures, writeTinyClip } from '../support/tiny-clip.js'

const { folder, remove } = await temporaryFolder()
t.teardown(remove)
const model = await writeTinyClip(folder)
const pictures = await writePictures(folder, 24)

t.test('every format holds the same rows, and search reads them', async (t) => {
  const tables = []
  for (const extension of ['safetensors', 'npy', 'jsonl', 'arrow', 'parquet']) {
    const out = join(folder, `photos.${extension}`)
    const { code, stderr, stdout } = await cli('embed', join(folder, 'images'), '--model', model, '--out', out, '--dtype', 'f32')
    t.equal(code, 0, stderr)
    t.equal(stdout, '', 'nothing on stdout')
    const table = await readEmbeddings(out)
    t.same(table.items, pictures, `${extension}: items in order`)
    t.same(table.embeddings.dims, [24, 20])
    tables.push(table)
    const found = await cli('search', '--index', out, '--image', pictures[7]!, '--model', model, '--top-k', '3', '--json', '--dtype', 'f32')
    t.equal(found.code, 0, found.stderr)
    const hits = JSON.parse(found.stdout)
    t.equal(hits.length, 3)
    t.match(hits[0], { item: pictures[7], index: 7 })
    t.ok(Math.abs(hits[0].score - 1) < 1e-5, 'a picture is nearest to itself')
    t.equal(found.stderr.includes('does not say'), false, `${extension} says what made it`)
    t.match(table.metadata, { model, dtype: 'f32', normalized: 'true', weights: /^[0-9a-f]{64}$/ })
  }
  for (const { embeddings } of tables.slice(1)) t.same(embeddings.data, tables[0]!.embeddings.data, 'the same bits in every format')
})

t.test('search refuses what another model made', async (t) => {
  const out = join(folder, 'made.npy')
  t.equal((await cli('embed', ...pictures.slice(0, 3), '--model', model, '--out', out)).code, 0)
  const search = (...args: string[]) => cli('search', '--index', out, '--text', 'a cat', '--json', ...args)
  // Of the same shapes: one number is another.
  const other = join(folder, 'other')
  await cp(model, other, { recursive: true })
  const weights = await readFile(join(other, 'model.safetensors'))
  weights[weights.length - 2]! ^= 1
  await writeFile(join(other, 'model.safetensors'), weights)
  const refused = await search('--model', other)
  t.equal(refused.code, 1)
  t.match(refused.stderr, `${out} was made with ${model}, whose weights are others than those of ${other}`)
  t.equal(refused.stdout, '')
  t.equal(JSON.parse((await search('--model', other, '--other-model')).stdout).length, 3)

  // The same weights in another file, and in another type of arithmetic.
  const converted = join(folder, 'converted')
  t.equal((await cli('convert', model, converted)).code, 0)
  const found = await search('--model', converted, '--dtype', 'bf16')
  t.equal(found.code, 0, found.stderr)
  t.notMatch(found.stderr, 'weights')

  await rm(`${out}.metadata.json`)
  const unknown = await search('--model', other)
  t.equal(unknown.code, 0, unknown.stderr)
  t.match(unknown.stderr, `${out} does not say which weights made it`)
})

t.test('an interrupted run goes on to the same file', async (t) => {
  const many = await writePictures(join(folder, 'many'), 400)
  const whole = join(folder, 'whole.safetensors')
  const resumed = join(folder, 'resumed.safetensors')
  const args = ['embed', join(folder, 'many/images'), '--model', model, '--dtype', 'f32', '--batch-size', '4', '--out']
  t.equal((await cli(...args, whole)).code, 0)

  const { child, result } = startCli([...args, resumed])
  while (child.exitCode === null && (await lines(`${resumed}.part.jsonl`)) < 20) await new Promise((resolve) => setTimeout(resolve, 2))
  child.kill('SIGKILL')
  t.equal((await result).signal, 'SIGKILL', 'it was killed in mid-run')
  // What a crash may leave: half a line, and a row without its line.
  const journal = `${resumed}.part.jsonl`
  const text = await readFile(journal, 'utf8')
  await writeFile(journal, text.slice(0, -9))
  const again = await cli(...args, resumed)
  t.equal(again.code, 0, again.stderr)
  t.match(again.stderr, /going on after \d+ of 400 items/)
  t.same(await readFile(resumed), await readFile(whole), 'the embeddings are the same')
  t.same(await readFile(`${resumed}.items.jsonl`), await readFile(`${whole}.items.jsonl`), 'so are the items')
  t.equal(await lines(journal), 0, 'the journal is gone')
  t.equal((await readEmbeddings(resumed)).items.length, many.length)
})

t.test('sounds: a folder of them, resumed, with a broken one, and a sound as the query', async (t) => {
  const sounds = join(folder, 'sounds')
  const source = fixture('wav2vec2-group-mask')
  const wav = await readFile(new URL('../fixtures/audio/pcm16-16000-stereo.wav', import.meta.url))
  await mkdir(sounds)
  // So many that a run has long not ended when it is killed for having its first lines.
  for (let i = 0; i < 600; i++) {
    const one = Buffer.from(wav)
    // The first samples: no two are the same.
    one.writeInt16LE(1000 * (i % 25), 44)
    one.writeInt16LE(1000 * Math.floor(i / 25), 48)
    await writeFile(join(sounds, `${String(i).padStart(3, '0')}.wav`), one)
  }
  await writeFile(join(sounds, '007.wav'), 'this is no sound')
  await writeFile(join(sounds, 'picture.jpg'), 'a model of sounds does not look for it')
  const whole = join(folder, 'sounds.safetensors')
  const first = await cli('embed', sounds, '--model', source, '--dtype', 'f32', '--out', whole, '--json')
  t.equal(first.code, 0, first.stderr)
  t.match(first.stderr, /007\.wav/)
  t.match(JSON.parse(first.stdout), { embedded: 599, skipped: 1, dimensions: 32 })
  const { items, embeddings } = await readEmbeddings(whole)
  t.equal(items[7], join(sounds, '008.wav'))
  await using embedder = await Embedder.fromPretrained(source, { dtype: 'f32', device: 'cpu' })
  t.same((await embedder.embedAudio([items[7]!])).data, embeddings.data.slice(7 * 32, 8 * 32), 'as embedAudio has it')

  const resumed = join(folder, 'sounds-resumed.safetensors')
  const args = ['embed', sounds, '--model', source, '--dtype', 'f32', '--batch-size', '2', '--out', resumed]
  const { child, result } = startCli(args)
  while (child.exitCode === null && (await lines(`${resumed}.part.jsonl`)) < 10) await new Promise((resolve) => setTimeout(resolve, 2))
  child.kill('SIGKILL')
  t.equal((await result).signal, 'SIGKILL', 'it was killed in mid-run')
  const again = await cli(...args)
  t.match(again.stderr, /going on after \d+ of 600 items/)
  t.same(await readFile(resumed), await readFile(whole), 'the embeddings are the same')

  const found = await cli('search', '--index', whole, '--audio', items[20]!, '--model', source, '--dtype', 'f32', '--json', '--top-k', '1')
  t.match(JSON.parse(found.stdout), [{ item: items[20], index: 20 }], found.stderr)
  const both = await cli('search', '--index', whole, '--audio', items[20]!, '--text', 'a', '--model', source)
  t.equal(both.code, 2)
  t.match(both.stderr, /--text, --image or --audio, one of the three/)
  const classified = await cli('classify', items[20]!, '--model', source, '--labels', 'a bell,a dog')
  t.equal(classified.code, 1)
  t.match(classified.stderr, /classifying sounds into labels in words needs a checkpoint with an audio and a text encoder/)
  const texts = await cli('embed', sounds, '--model', fixture('bert-v5'), '--out', join(folder, 'no.npy'))
  t.match(texts, { code: 1, stderr: /tokenizer|embeds neither images nor sounds/ })
})

t.test('one broken file is reported and skipped', async (t) => {
  const broken = join(folder, 'images', '00010b.jpg')
  await writeFile(broken, 'this is no picture')
  t.teardown(() => rm(broken))
  const out = join(folder, 'skipped.jsonl')
  const { code, stderr, stdout } = await cli('embed', join(folder, 'images'), '--model', model, '--out', out, '--json')
  t.equal(code, 0, stderr)
  t.match(stderr, new RegExp(`skipped .*00010b.jpg`))
  t.match(JSON.parse(stdout), { embedded: 24, skipped: 1, dimensions: 20 })
  t.same((await readEmbeddings(out)).items, pictures)
})

t.test('texts', async (t) => {
  const file = join(folder, 'texts.txt')
  await writeFile(file, 'a cat\n\nthe dog\nsome birds\n')
  const out = join(folder, 'texts.npy')
  const { code, stderr } = await cli('embed', '--texts', file, '--model', model, '--out', out)
  t.equal(code, 0, stderr)
  t.same((await readEmbeddings(out)).items, ['a cat', 'the dog', 'some birds'])
  const found = await cli('search', '--index', out, '--text', 'the dog', '--model', model, '--json')
  t.equal(JSON.parse(found.stdout)[0].item, 'the dog', found.stderr)
})

t.test('the file of the texts is not written over', async (t) => {
  const texts = '{"text":"a cat"}\n{"text":"the dog"}\n'
  const file = join(folder, 'own.jsonl')
  await writeFile(file, texts)
  const linked = join(folder, 'linked.jsonl')
  await symlink(file, linked)
  const outs: [string, string][] = [[file, file], [linked, file], [file, linked]]
  for (const end of ['.items.jsonl', '.metadata.json', '.part', '.part.jsonl', '.part.lock']) {
    const beside = join(folder, `beside.npy${end}`)
    await writeFile(beside, texts)
    outs.push([beside, join(folder, 'beside.npy')])
  }
  for (const [source, out] of outs) {
    const { code, stderr } = await cli('embed', '--texts', source, '--model', join(folder, 'absent'), '--out', out)
    t.equal(code, 2, stderr)
    t.match(stderr, `which --texts ${source} reads`, 'before the model is looked for')
    t.equal(await readFile(source, 'utf8'), texts)
  }
  const input = await open(file)
  const { code, stderr } = await startCli(['embed', '--texts', '-', '--model', model, '--out', file], {}, 'pipe', input.fd).result
  await input.close()
  t.equal(code, 2, stderr)
  t.equal(await readFile(file, 'utf8'), texts, 'as standard input')
})

t.test('wrong usage and wrong input', async (t) => {
  const out = join(folder, 'never.npy')
  const aFolder = join(folder, 'folder.npy')
  await mkdir(aFolder)
  const usage: [string[], RegExp][] = [
    [['embed', '--model', model, '--out', out], /paths of images or sounds, or --texts/],
    [['embed', 'x', '--out', out], /--model/],
    [['embed', 'x', '--model', model, '--out', out, '--batch-size', '0'], /positive integer/],
    [['embed', 'x', '--model', model, '--out', out, '--nonsense'], /unknown option/],
    [['embed', 'x', '--model', model, '--out', 'x.csv'], /'x\.csv' is invalid\. expected a name ending in \.safetensors/],
    [['nonsense'], /unknown command/],
    [['search', '--index', out, '--model', model], /--text, --image or --audio/],
  ]
  for (const [args, message] of usage) {
    const { code, stderr, stdout } = await cli(...args)
    t.equal(code, 2, `${args.join(' ')}: ${stderr}`)
    t.match(stderr, message)
    t.equal(stdout, '')
  }
  const failures: [string[], RegExp][] = [
    [['embed', join(folder, 'absent'), '--model', model, '--out', out], /absent: no such file or folder/],
    [['embed', pictures[0]!, '--model', join(folder, 'absent'), '--out', out], /absent/],
    [['embed', pictures[0]!, '--model', join(folder, 'absent'), '--out', join(folder, 'no', 'folder.npy')], /folder\.npy cannot be written: there is no folder .*no$/m],
    [['embed', pictures[0]!, '--model', model, '--out', aFolder], /folder\.npy is a folder/],
    [['embed', pictures[0]!, '--model', model, '--out', out, '--device', 'cuda:7'], /cuda:7/],
    [['embed', pictures[0]!, '--model', model, '--out', out, '--dtype', 'f16'], /f16/],
    [['search', '--index', out, '--text', 'a', '--model', model], /never\.npy/],
  ]
  for (const [args, message] of failures) {
    const { code, stderr, stdout } = await cli(...args)
    t.equal(code, 1, `${args.join(' ')}: ${stderr}`)
    t.match(stderr, message)
    t.notMatch(stderr, /\n {4}at /, 'no stack trace')
    t.equal(stdout, '')
  }
})

t.test('help and version', async (t) => {
  const help = await cli('embed', '--help')
  t.equal(help.code, 0)
  t.match(help.stdout, /--batch-size/)
  t.match((await cli('help', 'search')).stdout, /--top-k/)
  t.match((await cli('--help')).stdout, /embed .*\n[^]*doctor/)
  t.match((await cli('--version')).stdout, /^\d+\.\d+\.\d+/)
  t.match((await cli('doctor')).stdout, /cpu: .+\n\s+instruction sets portable/)
  const doctor = JSON.parse((await cli('doctor', '--json')).stdout)
  t.match(doctor.devices[0], { id: 'cpu', available: true })
})

t.test('classify', async (t) => {
  const { code, stdout, stderr } = await cli('classify', ...pictures.slice(0, 3), '--model', model, '--labels', 'cat, dog,bird', '--json')
  t.equal(code, 0, stderr)
  const results = JSON.parse(stdout)
  t.same(results.map(({ item }: { item: string }) => item), pictures.slice(0, 3))
  for (const { labels } of results) {
    t.same(labels.map(({ label }: { label: string }) => label).sort(), ['bird', 'cat', 'dog'])
    const sum = labels.reduce((total: number, { score }: { score: number }) => total + score, 0)
    t.ok(Math.abs(sum - 1) < 1e-6, 'scores are probabilities')
  }
  await using embedder = await Embedder.fromPretrained(model, { dtype: 'f32', device: 'cpu' })
  const template = 'an {} in it'
  const marked = ['cat', "a$'b", 'a$$b', '$&'] // patterns of String.replace
  const [picture, words] = [await embedder.embedImages([pictures[0]!]), await embedder.embedTexts(marked.map((label) => template.split('{}').join(label)))]
  const logits = marked.map((_, i) => embedder.model.logitScale! * cosine(picture.data as Float32Array, (words.data as Float32Array).subarray(i * embedder.dimensions)))
  const total = logits.reduce((sum, logit) => sum + Math.exp(logit), 0)
  for await (const { labels: found } of classifyImages(embedder, [pictures[0]!], { labels: marked, template })) {
    for (const { label, score } of found!) t.ok(Math.abs(score - Math.exp(logits[marked.indexOf(label)]!) / total) < 1e-5, label)
  }
})

function cosine(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, x, i) => sum + x * b[i]!, 0)
}

async function lines(file: string): Promise<number> {
  return (await readFile(file, 'utf8').catch(() => '')).split('\n').length - 1
}
