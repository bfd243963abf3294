// What all commands have in common (help, exit codes, what goes to stdout), folders of all sorts, and `bench`.

import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { spawn } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import sharp from 'sharp'
import t from 'tap'
import { readEmbeddings } from '../../lib/io/embeddings.js'
import { cli } from '../support/cli.js'
import { temporaryFolder, writePictures, writeTinyClip } from '../support/tiny-clip.js'

const main = join(dirname(dirname(dirname(fileURLToPath(import.meta.url)))), 'dist/cli/main.js')
const { folder, remove } = await temporaryFolder()
t.teardown(remove)
const model = await writeTinyClip(folder)

t.test('every command has help, and an unknown option ends with 2', async (t) => {
  const { stdout, code } = await cli('--help')
  t.equal(code, 0)
  for (const name of ['embed', 'search', 'classify', 'match', 'retrieve', 'doctor', 'convert', 'bench', 'demo']) {
    t.match(stdout, new RegExp(`^  ${name} `, 'm'))
    const [help, wrong] = await Promise.all([cli(name, '--help'), cli(name, '--nonsense')])
    t.equal(help.code, 0)
    t.match(help.stdout, `Usage: chiasma ${name} `)
    t.equal(help.stderr, '')
    t.equal(wrong.code, 2, name)
    t.match(wrong.stderr, /nonsense|not specified|missing required/)
    t.equal(wrong.stdout, '')
  }
  for (const args of [[], ['embed', 'x', '--out', 'x.npy', '--model', model, '--device', 'tpu'], ['embed', 'x', '--out', 'x.npy', '--model', model, '--dtype', 'f64'], ['classify', 'x', '--model', model, '--labels', ' , '], ['bench', '--threads', '0']]) {
    const { code, stdout, stderr } = await cli(...args)
    t.equal(code, 2, `${args.join(' ')}: ${stderr.slice(0, 60)}`)
    t.equal(stdout, '')
  }
})

t.test('a folder of all sorts', async (t) => {
  const tree = join(folder, 'tree')
  await mkdir(join(tree, 'inner', 'more'), { recursive: true })
  await mkdir(join(tree, 'folder.jpg'))
  const picture = await sharp({ create: { width: 30, height: 20, channels: 3, background: 'red' } }).png().toBuffer()
  const named = ['b.PNG', 'ünï 日本 🖼.png', 'new\nline "quoted" [1].png', 'inner/more/deep.webp', '.hidden.png', 'notes.txt']
  for (const name of named) await writeFile(join(tree, name), picture)
  await writeFile(join(tree, 'empty.jpg'), '')
  await writeFile(join(tree, 'text.gif'), 'no picture')
  await symlink('nowhere.png', join(tree, 'lost.png'))
  await symlink('../b.PNG', join(tree, 'inner', 'linked.png'))
  await symlink('..', join(tree, 'inner', 'round'))
  await symlink('more', join(tree, 'inner', 'again'))
  const out = join(folder, 'tree.jsonl')
  const { code, stderr, stdout } = await cli('embed', tree, '--model', model, '--out', out, '--json')
  t.equal(code, 0, stderr)
  const expected = ['b.PNG', 'inner/again/deep.webp', 'inner/linked.png', 'inner/more/deep.webp', 'new\nline "quoted" [1].png', 'ünï 日本 🖼.png'].map((name) => join(tree, name))
  t.same((await readEmbeddings(out)).items, expected)
  t.match(JSON.parse(stdout), { embedded: 6, skipped: 3 })
  for (const line of ['empty.jpg: is empty', 'lost.png: is not there', 'text.gif: is no JPEG']) t.match(stderr, line)
  t.notMatch(stderr, /\x1b/, 'no escape sequences where stderr is no terminal')

  const globbed = await cli('embed', join(tree, '**/*.webp'), join(tree, 'b.PNG'), '--model', model, '--out', out)
  t.equal(globbed.code, 0, globbed.stderr)
  t.same((await readEmbeddings(out)).items, [expected[1], expected[3], join(tree, 'inner/round/inner/more/deep.webp'), expected[0]], 'links that go round end')
  const literal = await cli('embed', join(tree, 'new\nline "quoted" [1].png'), '--model', model, '--out', out)
  t.equal(literal.code, 0, 'a file whose name looks like a pattern')
  await mkdir(join(folder, 'nothing'))
  for (const [path, message] of [[join(folder, 'nothing'), /no image in this folder/], [join(tree, '*.bmp'), /no file matches this pattern/], [join(tree, 'empty.jpg'), /none of the 1 items could be embedded/]] as const) {
    const result = await cli('embed', path, '--model', model, '--out', out)
    t.equal(result.code, 1)
    t.match(result.stderr, message)
  }
})

t.test('texts: none, empty and very long lines', async (t) => {
  const file = join(folder, 'texts.txt')
  for (const extension of ['safetensors', 'jsonl', 'arrow', 'parquet']) {
    await writeFile(file, '\n\n')
    const out = join(folder, `none.${extension}`)
    const { code, stderr } = await cli('embed', '--texts', file, '--model', model, '--out', out)
    t.equal(code, 0, stderr)
    t.same((await readEmbeddings(out)).items, [], extension)
  }
  await writeFile(file, `cat\n${'a'.repeat(100_000)}\r\ndog`)
  const out = join(folder, 'texts.jsonl')
  const { code, stderr } = await cli('embed', '--texts', file, '--model', model, '--out', out)
  t.equal(code, 0, stderr)
  t.same((await readEmbeddings(out)).items.map((text) => text.length), [3, 100_000, 3])
})

t.test('pipes: texts from one, and a reader that goes away', async (t) => {
  await writePictures(folder, 40)
  const shell = (command: string) =>
    new Promise<{ code: number | null; stdout: string }>((resolve) => {
      const child = spawn('bash', ['-o', 'pipefail', '-c', command], { stdio: ['ignore', 'pipe', 'inherit'] })
      let stdout = ''
      child.stdout.on('data', (chunk) => (stdout += chunk))
      child.on('close', (code) => resolve({ code, stdout }))
    })
  const run = `${process.execPath} ${main}`
  const head = await shell(`${run} classify ${folder}/images --model ${model} --labels cat,dog | head -n 1`)
  t.equal(head.code, 0)
  t.equal(head.stdout.split('\n').length, 2)
  const out = join(folder, 'deaf.npy')
  const deaf = await shell(`${run} embed ${folder}/images ${model}/config.json --model ${model} --out ${out} 2>&1 >/dev/null | true`)
  t.equal(deaf.code, 0, 'nobody reads stderr')
  const piped = join(folder, 'piped.npy')
  t.equal((await shell(`printf 'a cat\\nthe dog' | ${run} embed --texts - --model ${model} --out ${piped}`)).code, 0)
  t.same((await readEmbeddings(piped)).items, ['a cat', 'the dog'])
  t.equal((await readEmbeddings(out)).items.length, 40)
})

t.test('bench', async (t) => {
  const { code, stdout, stderr } = await cli('bench', '--model', model, '--batch-size', '2', '--seconds', '0.01', '--json')
  t.equal(code, 0, stderr)
  const { device, products, timed, model: timedModel } = JSON.parse(stdout)
  t.equal(device, 'cpu')
  t.ok(products.some(({ isa, dtype }: { isa: string; dtype: string }) => isa === 'portable' && dtype === 'f32'))
  t.ok(products.every(({ gflops }: { gflops: number }) => gflops > 0.1))
  t.ok(timed.every(({ ms, gflops, gbPerSecond }: { ms: number; gflops?: number; gbPerSecond?: number }) => ms > 0 && (gflops ?? gbPerSecond)! > 0.05))
  t.match(timedModel, { source: model, batchSize: 2 })
  t.ok(timedModel.imagesPerSecond > 1 && timedModel.textsPerSecond > 1)
})
