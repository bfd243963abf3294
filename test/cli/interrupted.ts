// Embedding runs that end early, and what the next run makes of it: resumed where the same thing makes the same rows, begun anew where not.

import { cp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { Journal } from '../../lib/cli/journal.js'
import { readEmbeddings } from '../../lib/io/embeddings.js'
import { cli, startCli } from '../support/cli.js'
import { temporaryFolder, writePictures, writeTinyClip } from '../support/tiny-clip.js'

const { folder, remove } = await temporaryFolder()
t.teardown(remove)
const model = await writeTinyClip(folder)
await writePictures(folder, 400)
const args = (out: string, ...rest: string[]) => ['embed', join(folder, 'images'), '--model', model, '--dtype', 'f32', '--batch-size', '4', '--out', out, ...rest]
const whole = join(folder, 'whole.safetensors')
t.equal((await cli(...args(whole))).code, 0)

async function entries(out: string): Promise<number> {
  return (await readFile(`${out}.part.jsonl`, 'utf8').catch(() => '')).split('\n').length - 2
}

/** Begins a run and sends it a signal once it has some rows. */
async function interrupt(out: string, signal: NodeJS.Signals) {
  const { child, result } = startCli(args(out))
  while (child.exitCode === null && (await entries(out)) < 20) await new Promise((resolve) => setTimeout(resolve, 2))
  child.kill(signal)
  return result
}

const sameAsWhole = async (out: string) =>
  (await readFile(out)).equals(await readFile(whole)) && (await readFile(`${out}.items.jsonl`)).equals(await readFile(`${whole}.items.jsonl`))

t.test('SIGINT: an orderly end, and the same file afterwards', async (t) => {
  const out = join(folder, 'interrupted.safetensors')
  const { code, signal, stderr } = await interrupt(out, 'SIGINT')
  t.ok(signal === 'SIGINT' || code === 130, 'whoever started it sees the signal')
  const kept = Number(/(\d+) of 400 items are kept in .*interrupted\.safetensors\.part; the same command goes on from there/.exec(stderr)?.[1])
  t.equal(kept, await entries(out), stderr)
  t.ok(kept >= 20)
  const again = await cli(...args(out))
  t.equal(again.code, 0, again.stderr)
  t.match(again.stderr, `going on after ${kept} of 400 items`)
  t.ok(await sameAsWhole(out))
  t.same((await readdir(folder)).filter((name) => name.startsWith('interrupted')), ['interrupted.safetensors', 'interrupted.safetensors.items.jsonl'])
})

t.test('what is kept is used only for what made it', async (t) => {
  const out = join(folder, 'other.safetensors')
  await interrupt(out, 'SIGKILL')
  const kept = await entries(out)
  t.ok((await readdir(folder)).includes('other.safetensors.part.lock'), 'a killed run leaves its lock')
  const parts = ['.part', '.part.jsonl'].map((end) => out + end)
  const saved = await Promise.all(parts.map((part) => readFile(part)))
  /** The same journal again, in front of another run. */
  const runWith = async (...rest: string[]) => {
    await Promise.all(parts.map((part, i) => writeFile(part, saved[i]!)))
    const result = await cli(...args(out, ...rest))
    t.equal(result.code, 0, result.stderr)
    return result.stderr
  }
  /** Changes a file of the model, and takes that back. */
  const runWithFile = async (name: string, change: (bytes: Buffer) => Buffer) => {
    const file = join(model, name)
    const { atime, mtime } = await stat(file)
    const before = await readFile(file)
    await writeFile(file, change(Buffer.from(before)))
    await utimes(file, atime, mtime)
    const said = await runWith()
    await writeFile(file, before)
    return said
  }
  const other = await runWithFile('model.safetensors', (bytes) => {
    // One number of the last tensor, so that size, header and time are as they were.
    bytes[bytes.length - 2]! ^= 1
    return bytes
  })
  t.match(other, 'starting anew')
  t.match(other, 'made with another model')
  t.notMatch(other, 'going on')
  t.match(await runWithFile('preprocessor_config.json', (bytes) => Buffer.from(JSON.stringify({ ...JSON.parse(String(bytes)), resample: 2 }))), 'another configuration', 'preprocessing')
  t.match(await runWithFile('vocab.json', (bytes) => Buffer.concat([bytes, Buffer.from(' ')])), 'another configuration', 'tokenizer')
  t.match(await runWith('--no-normalize'), 'another normalize')
  t.match(await runWith('--dtype', 'bf16'), 'another dtype')
  t.match(await runWith('--batch-size', '7'), `going on after ${kept} of 400 items`, 'the batch size changes no row')
  t.ok(await sameAsWhole(out))
})

t.test('a file that changed since, or another list of files', async (t) => {
  const images = join(folder, 'changing')
  await cp(join(folder, 'images'), images, { recursive: true })
  const out = join(folder, 'changing.jsonl')
  const run = () => startCli(['embed', images, '--model', model, '--dtype', 'f32', '--batch-size', '4', '--out', out])
  const { child, result } = run()
  while (child.exitCode === null && (await entries(out)) < 30) await new Promise((resolve) => setTimeout(resolve, 2))
  child.kill('SIGKILL')
  await result
  await cp(join(images, '00300.jpg'), join(images, '00010.jpg'))
  await rm(join(images, '00399.jpg'))
  const { code, stderr } = await run().result
  t.equal(code, 0, stderr)
  const dropped = Number(/(\d+) of (\d+) items kept in .*changing\.jsonl\.part no longer fit: item 11 is another/.exec(stderr)?.[1])
  t.ok(dropped >= 20, stderr)
  t.match(stderr, 'going on after 10 of 399 items')
  const { items, embeddings } = await readEmbeddings(out)
  t.equal(items.length, 399)
  const row = (i: number) => embeddings.data.subarray(i * 20, (i + 1) * 20)
  t.same(row(10), row(300))
})

t.test('two runs at once do not write the same file', async (t) => {
  const out = join(folder, 'twice.safetensors')
  const first = startCli(args(out))
  while (first.child.exitCode === null && (await entries(out)) < 4) await new Promise((resolve) => setTimeout(resolve, 2))
  first.child.kill('SIGSTOP')
  const second = await cli(...args(out))
  first.child.kill('SIGCONT')
  t.equal(second.code, 1)
  t.match(second.stderr, new RegExp(`another run \\(process ${first.child.pid}\\) is writing .*twice\\.safetensors`))
  t.equal((await first.result).code, 0)
  t.ok(await sameAsWhole(out))
})

t.test('of two runs that find a lock of nobody one takes it', async (t) => {
  const out = join(folder, 'stale.npy')
  for (let round = 0; round < 100; round++) {
    await writeFile(`${out}.part.lock`, '999999999 12345')
    const journals = await Promise.allSettled([1, 2].map(() => Journal.open(out, {}, 4, () => true)))
    const opened = journals.flatMap((journal) => (journal.status === 'fulfilled' ? [journal.value] : []))
    const refused = journals.flatMap((journal) => (journal.status === 'rejected' ? [String(journal.reason)] : []))
    for (const journal of opened) await journal.remove()
    if (opened.length !== 1) t.fail(`${opened.length} have it in round ${round}`)
    for (const reason of refused) if (!reason.includes(`another run (process ${process.pid}) is writing`)) t.fail(reason)
  }
  t.same((await readdir(folder)).filter((name) => name.startsWith('stale')), [])
})

t.test('convert: SIGINT leaves nothing behind', async (t) => {
  const source = join(folder, 'large.safetensors')
  const bytes = 512 << 20
  const header = Buffer.from(`{"a":{"dtype":"U8","shape":[${bytes}],"data_offsets":[0,${bytes}]}} `)
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(header.length))
  await writeFile(source, Buffer.concat([length, header]))
  await truncate(source, 8 + header.length + bytes)
  const target = join(folder, 'converted')
  const { child, result } = startCli(['convert', source, target])
  while (child.exitCode === null && !(await readdir(target).catch(() => [])).length) await new Promise((resolve) => setTimeout(resolve, 2))
  child.kill('SIGINT')
  const { code, signal, stderr } = await result
  t.ok(signal === 'SIGINT' || code === 130, `whoever started it sees the signal: ${code} ${stderr}`)
  t.notOk((await readdir(folder)).includes('converted'), 'the folder is gone')
})
