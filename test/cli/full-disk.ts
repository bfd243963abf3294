// A disk that is full, or becomes full: what is said, what is left behind, and that work goes on from there.

import { cp, mkdir, open, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Tensor, VectorIndex } from '../../lib/index.js'
import { readEmbeddings } from '../../lib/io/embeddings.js'
import { cli, startCli } from '../support/cli.js'
import { smallDisk } from '../support/full-disk.js'
import { temporaryFolder, writePictures, writeTinyClip } from '../support/tiny-clip.js'

const { folder, remove } = await temporaryFolder()
const disk = smallDisk(join(folder, 'disk'), 256)
const small = join(folder, 'disk')
t.teardown(async () => {
  if ('unmount' in disk) disk.unmount()
  await remove()
})

t.test('results that stdout cannot take are an error', { skip: !existsSync('/dev/full') && 'no /dev/full' }, async (t) => {
  const full = await open('/dev/full', 'w')
  const { code, stderr } = await startCli(['doctor'], {}, full.fd).result
  await full.close()
  t.equal(code, 1)
  t.match(stderr, /the output cannot be written: .*ENOSPC/)
})

t.test('files on a full disk', { skip: 'reason' in disk && disk.reason }, async (t) => {
  const model = await writeTinyClip(folder)
  await writePictures(folder, 60)
  const args = (out: string) => ['embed', join(folder, 'images'), '--model', model, '--dtype', 'f32', '--batch-size', '8', '--out', out]
  const filler = join(small, 'filler')
  /** Leaves so many kilobytes. */
  const fill = async (left: number) => {
    await rm(filler, { force: true })
    if ('free' in disk) await writeFile(filler, Buffer.alloc(Math.max(0, (disk.free() - left) * 1024)))
  }
  const others = async () => (await readdir(small)).filter((name) => name !== 'filler').sort()

  const whole = join(folder, 'whole.safetensors')
  t.equal((await cli(...args(whole))).code, 0)
  const expected = await readEmbeddings(whole)
  const beside: Readonly<Record<string, readonly string[]>> = { safetensors: ['.items.jsonl'], npy: ['.items.jsonl', '.metadata.json'], jsonl: ['.metadata.json'] }
  // Full from the beginning, in the journal, and when the file itself is written.
  const stages = { safetensors: [0, 8, 24], npy: [24], jsonl: [24], arrow: [24], parquet: [24] }
  for (const [extension, kilobytes] of Object.entries(stages)) {
    await t.test(`embed to .${extension}`, async (t) => {
      const out = join(small, `rows.${extension}`)
      for (const left of kilobytes) {
        await fill(left)
        const { code, stderr, stdout } = await cli(...args(out))
        t.equal(code, 1, `${left} kB: ${stderr}`)
        t.match(stderr, new RegExp(`rows.${extension}.* cannot be written: its disk is full`))
        t.notMatch(stderr, /\n {4}at /)
        t.equal(stdout, '')
        const there = await others()
        if (left === 0) t.same(there, [], 'nothing is left')
        else t.same(there.filter((name) => !/^rows\.\w+(\.items\.jsonl|\.metadata\.json|\.part|\.part\.jsonl)$/.test(name)), [], 'the journal is left, and what stands beside the file')
        if (left === 24) t.match(stderr, /60 of 60 items are kept .* the same command goes on from there/)
      }
      await rm(filler)
      const { code, stderr } = await cli(...args(out))
      t.equal(code, 0, stderr)
      t.match(stderr, /going on after 60 of 60 items/)
      t.same(await readEmbeddings(out), expected, 'what it would be with room enough')
      if (extension === 'safetensors') t.same(await readFile(out), await readFile(whole))
      t.same(await others(), ['', ...(beside[extension] ?? [])].map(end => `rows.${extension}${end}`))
      for (const name of await others()) await rm(join(small, name))
    })
  }

  await t.test('convert', async (t) => {
    const source = join(folder, 'source')
    await mkdir(source)
    await cp(join(model, 'model.safetensors'), join(source, 'model.safetensors'))
    await writeFile(join(source, 'config.json'), '{}')
    await writeFile(join(source, 'vocab.txt'), 'x'.repeat(20_000))
    const target = join(small, 'converted')
    const { size } = await stat(join(source, 'model.safetensors'))
    for (const left of [4, Math.ceil(size / 1024) + 12]) {
      await fill(left)
      const { code, stderr } = await cli('convert', source, target)
      t.equal(code, 1, `${left} kB: ${stderr}`)
      t.match(stderr, /converted\/(model\.safetensors|vocab\.txt) cannot be written: its disk is full/)
      t.same(await others(), [], 'nothing is left')
    }
    await rm(filler)
  })

  await t.test('VectorIndex.save', async (t) => {
    const path = join(small, 'index')
    await using index = await VectorIndex.create({ dimensions: 16 })
    await index.add(new Tensor('float32', new Float32Array(16).fill(1), [1, 16]), ['first'])
    await index.save(path)
    const before = await readFile(path)
    await index.add(new Tensor('float32', new Float32Array(16 * 2000).fill(1), [2000, 16]), Array.from({ length: 2000 }, (_, i) => `${i}`))
    await fill(64)
    await t.rejects(index.save(path), { name: 'CheckpointError', file: path, message: `${path} cannot be written: its disk is full` })
    t.same(await others(), ['index'])
    t.same(await readFile(path), before, 'the index that was there is untouched')
    await rm(filler)
    await index.save(path)
    await using loaded = await VectorIndex.load(path)
    t.equal(loaded.size, 2001)
  })
})
