// Conversion to safetensors: the same tensors of the same types, the files that belong to them, nothing in the way.

import { copyFile, cp, mkdir, readFile, readdir, stat, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Tensor } from '../../lib/core/tensor.js'
import { openCheckpoint } from '../../lib/io/checkpoint.js'
import { convertCheckpoint } from '../../lib/io/convert.js'
import { readTensor } from '../../lib/io/entry.js'
import { readPytorchEntries } from '../../lib/io/pytorch.js'
import { readSafetensorsHeader, readTensors, writeSafetensors } from '../../lib/io/safetensors.js'
import { noShared, shared } from '../shared.js'

const fixtures = join(dirname(dirname(fileURLToPath(import.meta.url))), 'fixtures', 'pytorch')

t.test('a folder', async t => {
  const dir = t.testdir({ src: { 'config.json': '{"a":1}', 'tokenizer.json': '{}', 'vocab.txt': 'x', 'training_args.bin': 'x', 'events.out': 'x', '.hidden.json': '{}', runs: { 'a.json': '{}' } } })
  const [src, dst] = [join(dir, 'src'), join(dir, 'new', 'dst')]
  await copyFile(join(fixtures, 'zip.bin'), join(src, 'pytorch_model.bin'))
  const progress: [number, number][] = []
  const written = await convertCheckpoint(src, dst, { onProgress: (done, total) => progress.push([done, total]) })
  t.same(written.map(file => file.slice(dst.length + 1)).sort(), ['config.json', 'model.safetensors', 'tokenizer.json', 'vocab.txt'])
  t.same((await readdir(dst)).sort(), ['config.json', 'model.safetensors', 'tokenizer.json', 'vocab.txt'])
  t.equal(await readFile(join(dst, 'config.json'), 'utf8'), '{"a":1}')
  const [done, total] = progress.at(-1)!
  t.equal(done, total)

  const expected = await readTensors(join(fixtures, 'expected.safetensors'))
  const names = [...Object.keys(expected), 'f64', 'i16', 'c64']
  const { entries, metadata } = await readSafetensorsHeader(join(dst, 'model.safetensors'))
  t.same(metadata, { format: 'pt' })
  t.same(entries.map(entry => entry.name).sort(), names.sort())
  t.same(entries.filter(({ dtype }) => !dtype).map(({ name, storedType }) => [name, storedType]), [['f64', 'F64'], ['i16', 'I16'], ['c64', 'C64']], 'types are kept')
  const got = await readTensors(join(dst, 'model.safetensors'), { names: Object.keys(expected) })
  for (const [name, tensor] of Object.entries(expected)) t.same([got[name]!.type, got[name]!.dims, got[name]!.data], [tensor.type, tensor.dims, tensor.data], name)
  const doubles = entries.find(({ name }) => name === 'f64')!
  t.equal((await readFile(doubles.file)).readDoubleLE(doubles.offset), -1, 'also those that are not read')

  const before = (await stat(join(dst, 'model.safetensors'))).mtimeMs
  await t.rejects(convertCheckpoint(src, dst), { name: 'CheckpointError', message: /there already: .*model\.safetensors, .*config\.json/ })
  t.equal((await stat(join(dst, 'model.safetensors'))).mtimeMs, before)
  await convertCheckpoint(src, dst, { overwrite: true })
  await convertCheckpoint(src, src)
  t.ok((await readdir(src)).includes('model.safetensors'), 'in place, its other files are not in the way')
  t.same((await openCheckpoint(src)).files, [join(src, 'model.safetensors')])
})

t.test('files, TorchScript, shards and modules', async t => {
  const dir = t.testdir({
    modules: { 'modules.json': '[{"path":"","type":"Transformer"},{"path":"1_Pooling","type":"Pooling"},{"path":"2_Dense","type":"Dense"},{"path":"3_Normalize","type":"Normalize"}]', '1_Pooling': { 'config.json': '{}' }, '2_Dense': { 'config.json': '{}' } },
    shards: { 'pytorch_model.bin.index.json': '{"weight_map":{"first.weight":"a.bin","f32":"b.bin"}}' },
  })
  await convertCheckpoint(join(fixtures, 'torchscript.pt'), join(dir, 'script'))
  t.same(await readdir(join(dir, 'script')), ['model.safetensors'])
  t.same(await readTensors(join(dir, 'script', 'model.safetensors')), await readTensors(join(fixtures, 'torchscript.expected.safetensors')))

  await copyFile(join(fixtures, 'legacy.bin'), join(dir, 'modules', 'pytorch_model.bin'))
  await copyFile(join(fixtures, 'nested.pt'), join(dir, 'modules', '2_Dense', 'pytorch_model.bin'))
  await convertCheckpoint(join(dir, 'modules'), join(dir, 'out'))
  t.same((await readdir(join(dir, 'out'), { recursive: true })).sort(), ['1_Pooling', '1_Pooling/config.json', '2_Dense', '2_Dense/config.json', '2_Dense/model.safetensors', 'model.safetensors', 'modules.json'])
  t.same(await readTensors(join(dir, 'out', '2_Dense', 'model.safetensors')), await readTensors(join(fixtures, 'nested.expected.safetensors')))

  await copyFile(join(fixtures, 'nested.pt'), join(dir, 'shards', 'a.bin'))
  await copyFile(join(fixtures, 'protocol4.bin'), join(dir, 'shards', 'b.bin'))
  await convertCheckpoint(join(dir, 'shards'), join(dir, 'whole'))
  t.same(await readdir(join(dir, 'whole')), ['model.safetensors'], 'the index is not copied')
  t.ok((await openCheckpoint(join(dir, 'whole'))).has('tied_b'))
})

t.test('what cannot be converted', async t => {
  const dir = t.testdir()
  await t.rejects(convertCheckpoint(join(fixtures, 'newer.bin'), join(dir, 'a')), { name: 'CheckpointError', message: /types that cannot be written: conjugated \(torch.complex64/, mismatched: ['conjugated'] })
  await t.rejects(convertCheckpoint(join(fixtures, 'attack-zip.bin'), join(dir, 'a')), { name: 'CheckpointError', message: /system is not on the list/ })
  await t.rejects(convertCheckpoint(join(dir, 'none'), join(dir, 'a')), { name: 'CheckpointError', message: /none cannot be read/ })
  await mkdir(join(dir, 'empty'))
  await t.rejects(convertCheckpoint(join(dir, 'empty'), join(dir, 'a')), { name: 'CheckpointError', message: /no weights to convert/ })
  t.same(await readdir(dir), ['empty'], 'nothing was written')
  await writeFile(join(dir, 'file'), '')
  await t.rejects(convertCheckpoint(join(fixtures, 'zip.bin'), join(dir, 'file')), { name: 'CheckpointError', message: /cannot be made/ })
  const reason = new Error('enough')
  await t.rejects(convertCheckpoint(join(fixtures, 'zip.bin'), join(dir, 'b'), { signal: AbortSignal.abort(reason) }), reason)
})

t.test('large tensors are copied in pieces', async t => {
  const dir = t.testdir()
  const data = Float32Array.from({ length: 3_000_000 }, (_, i) => i)
  await writeSafetensors(join(dir, 'a.safetensors'), { big: new Tensor('float32', data, [3_000_000]) })
  const steps: number[] = []
  await convertCheckpoint(join(dir, 'a.safetensors'), join(dir, 'b'), { onProgress: done => steps.push(done) })
  t.ok(steps.length > 5)
  t.same((await readTensors(join(dir, 'b', 'model.safetensors')))['big']!.data, data)

  // The same through strides: a transposed view of more than one piece.
  const big = (await readSafetensorsHeader(join(dir, 'a.safetensors'))).entries[0]!
  const transposed = await readTensor({ ...big, shape: [1000, 3000], strides: [1, 1000] })
  t.same([transposed.data[0], transposed.data[1], transposed.data[3000], transposed.data[2_999_999]], [0, 1000, 1, 2_999_999])
})

t.test('real weights', { skip: noShared }, async t => {
  const dir = t.testdir()
  await cp(shared('parity', 'bert-sharded'), join(dir, 'src'), { recursive: true })
  await convertCheckpoint(join(dir, 'src'), join(dir, 'dst'))
  const before = await openCheckpoint(shared('parity', 'bert'))
  const after = await readTensors(join(dir, 'dst', 'model.safetensors'))
  for (const [name, entry] of before.tensors) t.same(after[name]!.data, (await readTensor(entry)).data, name)
  t.ok((await readPytorchEntries(join(fixtures, 'zip.bin'))).length > 0)
})
