// PyTorch files: what torch itself wrote (test/references/make_pytorch_fixtures.py) is read to the bit; nothing is ever executed;
// cut, altered and hand-made hostile files give typed errors.

import { existsSync } from 'node:fs'
import { copyFile, mkdir, readFile, readdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { CheckpointError } from '../../lib/core/errors.js'
import { openCheckpoint } from '../../lib/io/checkpoint.js'
import { type TensorEntry, fileSource, readTensor } from '../../lib/io/entry.js'
import { readPytorchEntries } from '../../lib/io/pytorch.js'
import { readTensors } from '../../lib/io/safetensors.js'

const fixtures = join(dirname(dirname(fileURLToPath(import.meta.url))), 'fixtures', 'pytorch')
const fixture = (name: string) => join(fixtures, name)
const read = async (name: string) => new Map((await readPytorchEntries(fixture(name))).map(entry => [entry.name, entry]))

async function same(t: Test, entries: ReadonlyMap<string, TensorEntry>, expectedFile: string) {
  const expected = await readTensors(fixture(expectedFile))
  for (const [name, tensor] of Object.entries(expected)) {
    const entry = entries.get(name)
    if (!entry) {
      t.fail(`${name} is missing`)
      continue
    }
    const got = await readTensor(entry)
    t.equal(got.type, tensor.type, name)
    t.same(got.dims, tensor.dims, name)
    t.same(got.data, tensor.data, name)
  }
  return Object.keys(expected)
}

for (const name of ['zip.bin', 'legacy.bin', 'protocol4.bin', 'protocol5.bin', 'legacy-protocol3.bin']) {
  t.test(name, async t => {
    const entries = await read(name)
    const names = await same(t, entries, 'expected.safetensors')
    const unread = name === 'zip.bin' || name === 'legacy.bin' ? ['f64', 'i16', 'c64'] : []
    t.same([...entries.keys()].sort(), [...names, ...unread].sort())
    t.same(entries.get('transposed')!.strides, [1, 6])
    t.equal(entries.get('transposed')!.offset, entries.get('f32')!.offset, 'a view shares its storage')
    t.equal(entries.get('sliced')!.offset, entries.get('f32')!.offset + 8 * 4)
    t.equal(entries.get('tied_a')!.offset, entries.get('tied_b')!.offset, 'tied tensors share it, too')
    t.equal(entries.get('f32')!.strides, undefined)
    for (const name of unread) t.throws(() => fileSource(entries.get(name)!), { name: 'CheckpointError', message: /torch\.\w+, which is not read/ })
  })
}

t.test('newer kinds of tensors', async t => {
  const entries = await read('newer.bin')
  t.same([...entries.values()].map(e => [e.name, e.storedType, e.dtype]), [
    ['u16', 'torch.uint16', undefined],
    ['f8', 'torch.float8_e4m3fn', undefined],
    ['attributed', 'torch.float32', 'float32'],
    ['conjugated', 'torch.complex64 (conjugated or negated view)', undefined],
    ['plain', 'torch.float32', 'float32'],
  ])
  t.same((await readTensor(entries.get('attributed')!)).data, new Float32Array([-1, -0.75]))
})

t.test('a state dictionary inside', async t => {
  const entries = await read('nested.pt')
  t.same([...entries.keys()].sort(), (await same(t, entries, 'nested.expected.safetensors')).sort(), 'and nothing of the optimizer')
})

for (const name of ['torchscript.pt', 'torchscript-traced.pt']) {
  t.test(name, async t => {
    const entries = await read(name)
    if (name === 'torchscript.pt') t.same([...entries.keys()].sort(), (await same(t, entries, 'torchscript.expected.safetensors')).sort())
    t.ok(entries.has('blocks.0.weight'))
    t.equal((await readTensor(entries.get('input_resolution')!)).data[0], 224n)
    t.equal((await readTensor(entries.get('proj.weight')!)).dims.join(), '2,3')
  })
}

t.test('nothing is executed', async t => {
  const cases: [string, RegExp][] = [
    ['attack-zip.bin', /data\.pkl: the global (posix|nt)\.system is not on the list/],
    ['attack-legacy.bin', /the global (posix|nt)\.system is not on the list/],
    ['attack-eval.bin', /the global (__builtin__|builtins)\.eval is not on the list/],
    ['attack-torch.bin', /the global torch\.serialization\.load is not on the list/],
    ['whole-module.bin', /the global torch\.nn\.modules\.linear\.Linear is not on the list/],
  ]
  for (const [name, pattern] of cases) {
    await t.rejects(readPytorchEntries(fixture(name)), { name: 'CheckpointError', code: 'ERR_CHECKPOINT', message: pattern, file: fixture(name) }, name)
  }
  t.notOk(existsSync('pwned'), 'the command did not run')
})

t.test('as a checkpoint', async t => {
  const dir = t.testdir()
  await copyFile(fixture('zip.bin'), join(dir, 'pytorch_model.bin'))
  await writeFile(join(dir, 'training_args.bin'), 'never opened')
  const checkpoint = await openCheckpoint(dir)
  t.ok(checkpoint.has('f32'))
  const shards = join(dir, 'shards')
  await mkdir(shards)
  await copyFile(fixture('nested.pt'), join(shards, 'one.bin'))
  await copyFile(fixture('legacy.bin'), join(shards, 'two.bin'))
  await writeFile(join(shards, 'pytorch_model.bin.index.json'), JSON.stringify({ weight_map: { 'first.weight': 'one.bin', f32: 'two.bin' } }))
  const sharded = await openCheckpoint(shards)
  t.ok(sharded.has('first.weight') && sharded.has('f32'))
  await copyFile(fixture('torchscript.pt'), join(dir, 'ViT-B-32.pt'))
  t.ok((await openCheckpoint(join(dir, 'ViT-B-32.pt'))).has('proj.weight'))
})

/** The entries with their data, or the CheckpointError; anything else fails the test. */
async function outcome(t: Test, file: string, what: string): Promise<string | undefined> {
  try {
    for (const entry of await readPytorchEntries(file)) if (entry.dtype) await readTensor(entry)
    return undefined
  } catch (error) {
    if (!(error instanceof CheckpointError)) t.fail(`${what}: ${String((error as Error).stack)}`)
    return (error as Error).message
  }
}

t.test('cut files', async t => {
  const file = join(t.testdir(), 'cut.bin')
  for (const name of await readdir(fixtures)) {
    if (!/\.(bin|pt)$/.test(name) || name.startsWith('attack') || name.startsWith('whole')) continue
    const bytes = await readFile(fixture(name))
    let read = 0
    for (let length = 0; length < bytes.length; length += length < 16 ? 1 : 391) {
      await writeFile(file, bytes.subarray(0, length))
      if ((await outcome(t, file, `${name} cut at ${length}`)) === undefined) read++
    }
    t.equal(read, 0, `${name}: no cut file is read`)
  }
})

t.test('altered bytes', async t => {
  const file = join(t.testdir(), 'altered.bin')
  let state = 12345
  const random = (below: number) => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) % below
  for (const name of ['zip.bin', 'legacy.bin', 'torchscript.pt', 'protocol4.bin']) {
    const bytes = await readFile(fixture(name))
    for (let i = 0; i < 100; i++) {
      const altered = Buffer.from(bytes)
      for (let n = 0; n <= random(4); n++) altered[random(altered.length)] = random(256)
      await writeFile(file, altered)
      await outcome(t, file, `${name}, alteration ${i}`)
    }
  }
  t.pass('every one was read or refused with a CheckpointError')
})
