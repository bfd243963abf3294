// Checkpoints: which files are taken, shards, names, and what does not fit reported at once.

import { copyFile, mkdir, readFile, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { CheckpointError } from '../../lib/core/errors.js'
import { Tensor } from '../../lib/core/tensor.js'
import type { Parameter } from '../../lib/core/value.js'
import { compile } from '../../lib/core/compile.js'
import { Device } from '../../lib/core/device.js'
import { constant, parameter as value } from '../../lib/core/value.js'
import { type MatchedParameter, matchParameters, openCheckpoint, weightSources } from '../../lib/io/checkpoint.js'
import { readTensor } from '../../lib/io/entry.js'
import { writeSafetensors } from '../../lib/io/safetensors.js'
import { Scope } from '../../lib/nn/index.js'
import { linear, unary } from '../../lib/ops/index.js'
import type { FileSource } from '../../typings/addon.js'
import { noShared, shared } from '../shared.js'

const pytorch = join(dirname(dirname(fileURLToPath(import.meta.url))), 'fixtures', 'pytorch')
const f32 = (...dims: number[]) => new Tensor('float32', Float32Array.from({ length: dims.reduce((a, b) => a * b, 1) }, (_, i) => i), dims)
const parameter = (name: string, shape: number[], role: Parameter['role'] = 'plain'): Parameter => ({ name, shape, dtype: 'float32', role })

const sourceOf = (entry: MatchedParameter | undefined) => entry!.source as FileSource

t.test('one file', async t => {
  const dir = t.testdir()
  await writeSafetensors(join(dir, 'model.safetensors'), { a: f32(2, 3), 'x.LayerNorm.gamma': f32(2), 'x.LayerNorm.beta': f32(2) })
  const checkpoint = await openCheckpoint(dir)
  t.same(checkpoint.files, [join(dir, 'model.safetensors')])
  t.same([...checkpoint.tensors.keys()], ['a', 'x.LayerNorm.gamma', 'x.LayerNorm.beta'])
  t.ok(checkpoint.has('x.LayerNorm.weight'), 'older names are found by the newer')
  t.equal(checkpoint.find('x.LayerNorm.bias')!.name, 'x.LayerNorm.beta')
  t.notOk(checkpoint.has('b'))
  t.same((await openCheckpoint(join(dir, 'model.safetensors'))).tensors, checkpoint.tensors, 'a file is a source, too')
  await writeSafetensors(join(dir, 'wrapped.safetensors'), { 'module.a': f32(2), 'module.b.c': f32(1) })
  t.same([...(await openCheckpoint(join(dir, 'wrapped.safetensors'))).tensors.keys()], ['a', 'b.c'], "without DataParallel's own name")
})

t.test('which file', async t => {
  const dir = t.testdir()
  await t.rejects(openCheckpoint(dir), { name: 'CheckpointError', message: /has no weights; expected model.safetensors/ })
  await t.rejects(openCheckpoint(join(dir, 'none')), { name: 'CheckpointError', message: /is not there/ })
  await writeSafetensors(join(dir, 'weights.safetensors'), { a: f32(1) })
  t.same((await openCheckpoint(dir)).files, [join(dir, 'weights.safetensors')])
  await writeSafetensors(join(dir, 'other.safetensors'), { a: f32(1) })
  await t.rejects(openCheckpoint(dir), { name: 'CheckpointError', message: /several weight files and none of the usual name/ })
  await writeSafetensors(join(dir, 'model.safetensors'), { b: f32(1) })
  await writeFile(join(dir, 'pytorch_model.bin'), 'safetensors come first, so this is not looked at')
  t.same([...(await openCheckpoint(dir)).tensors.keys()], ['b'])
  const trained = join(dir, 'trained')
  await mkdir(trained)
  await writeSafetensors(join(trained, 'adapter.safetensors'), { c: f32(1) })
  await copyFile(join(pytorch, 'zip.bin'), join(trained, 'pytorch_model.bin'))
  t.same((await openCheckpoint(trained)).files, [join(trained, 'pytorch_model.bin')], 'a usual name comes before the only one of another')
  const stop = new AbortController()
  stop.abort(new Error('stopped'))
  await t.rejects(openCheckpoint(dir, { signal: stop.signal }), { message: 'stopped' })
})

t.test('matching', async t => {
  const dir = t.testdir()
  await writeSafetensors(join(dir, 'model.safetensors'), {
    'bert.w': f32(4, 3),
    'bert.cls': f32(1, 1, 3),
    'bert.conv': f32(5, 3, 2, 2),
    'bert.n.LayerNorm.gamma': f32(3),
    'cls.head': f32(9),
    double: f32(2),
  })
  const checkpoint = await openCheckpoint(dir)
  const wanted = [parameter('w', [4, 3], 'linear'), parameter('cls', [3]), parameter('conv', [5, 12], 'linear'), parameter('n.LayerNorm.weight', [3])]
  const { entries, unused } = matchParameters(checkpoint, wanted, { prefixes: ['', 'bert.'] })
  t.same(unused, ['cls.head', 'double'], 'unexpected tensors alone are no error')
  t.same(entries.map(e => e.parameter), wanted)
  t.same(entries.map(e => sourceOf(e).shape), [[4, 3], [3], [5, 12], [3]])
  t.equal(sourceOf(entries[0]).offset, checkpoint.tensors.get('bert.w')!.offset)

  const error = (() => {
    try {
      matchParameters(checkpoint, [...wanted, parameter('absent', [1]), parameter('gone', [1]), parameter('w', [3, 4]), parameter('cls', [1, 4])], { prefixes: ['bert.'] })
    } catch (e) {
      return e as CheckpointError
    }
    return undefined
  })()!
  t.equal(error.name, 'CheckpointError')
  t.same(error.missing, ['absent', 'gone'])
  t.same(error.mismatched, ['bert.w is [4,3]; expected [3,4]', 'bert.cls is [1,1,3]; expected [1,4]'])
  t.same(error.unexpected, ['cls.head', 'double'])
  for (const name of ['absent', 'gone', 'bert.w', 'bert.cls', 'cls.head', 'double']) t.ok(error.message.includes(name), `the message lists ${name}`)
  t.throws(() => matchParameters(checkpoint, [parameter('conv', [5, 12])], { prefixes: ['bert.'] }), { message: /expected \[5,12\]/ }, 'kernels are flattened for linear weights only')

  t.equal(sourceOf(matchParameters(checkpoint, [parameter('bert.weights', [4, 3])], { renames: [['weights', 'w']] }).entries[0]).offset, sourceOf(entries[0]).offset)
})

t.test('parts of tensors, and what is computed from them', async t => {
  const dir = t.testdir()
  await writeSafetensors(join(dir, 'model.safetensors'), {
    qkv: f32(6, 2), // 0 … 11
    proj: f32(2, 3),
    'bn.weight': new Tensor('float32', Float32Array.of(2, 3), [2]),
    'bn.var': new Tensor('bfloat16', Uint16Array.of(0x3f80, 0x4080), [2]), // 1, 4
    kernel: f32(2, 3, 1, 2),
  })
  const checkpoint = await openCheckpoint(dir)
  const scope = Scope.root(checkpoint, 'float32')
  const key = scope.parameter('qkv', [2, 2], { view: { shape: [6, 2], begin: 2 } })
  const projected = scope.parameter('proj', [3, 2], { role: 'linear', view: { shape: [2, 3], order: [1, 0] } })
  const scale = {
    from: ['bn.weight', 'bn.var'].map(name => ({ name, shape: [2] })),
    compute: ([weight, variance]: readonly Float32Array[]) => weight!.map((w, i) => w / Math.sqrt(variance![i]!)),
  }
  const folded = scope.at('bn').parameter('folded', [2], { derived: scale })
  const kernel = scope.parameter('kernel', [2, 6], { role: 'linear', view: { shape: [2, 3, 1, 2], order: [0, 2, 3, 1] }, rowScale: scale })
  t.not(scope.parameter('qkv', [2, 2], { view: { shape: [6, 2], begin: 4 } }), key, 'other rows are another parameter')
  t.equal(scope.parameter('qkv', [2, 2], { view: { shape: [6, 2], begin: 2 } }), key)

  const { entries, unused } = matchParameters(checkpoint, scope.parameters)
  t.same(unused, [])
  const device = await Device.open({ device: 'cpu', dtype: 'f32' })
  t.teardown(() => device.dispose())
  const weights = await device.loadWeights(await weightSources(entries))
  const identity = (n: number) => constant(new Tensor('float32', Float32Array.from({ length: n * n }, (_, i) => (i % (n + 1) === 0 ? 1 : 0)), [n, n]))
  using program = compile(
    () => ({
      key: unary(value(key), 'neg'),
      projected: linear(identity(2), value(projected)),
      folded: unary(value(folded), 'neg'),
      kernel: linear(identity(6), value(kernel)),
    }),
    {},
    device,
    weights,
  )
  const outputs = await program.run({})
  t.same([...outputs['key']!.data], [-4, -5, -6, -7])
  t.same([...outputs['projected']!.data], [0, 1, 2, 3, 4, 5], 'columns of proj are the rows of the weight')
  t.same([...outputs['folded']!.data], [-2, -1.5])
  t.same([...outputs['kernel']!.data], [0, 9, 4, 12, 8, 15, 2, 10.5, 6, 13.5, 10, 16.5], 'rows times 2 and 1.5, channels last')

  const wrong = Scope.root(checkpoint, 'float32')
  wrong.parameter('sum', [2], { derived: { from: [{ name: 'bn.weight', shape: [3] }, { name: 'bn.mean', shape: [2] }], compute: ([a]) => a! } })
  wrong.parameter('qkv', [2, 2], { view: { shape: [9, 2] } })
  t.throws(() => matchParameters(checkpoint, wrong.parameters), {
    name: 'CheckpointError',
    missing: ['bn.mean'],
    mismatched: ['bn.weight is [2]; expected [3]', 'qkv is [6,2]; expected [9,2]'],
  })
})

t.test('types that are not read', async t => {
  const dir = t.testdir()
  const header = Buffer.from('{"w":{"dtype":"F64","shape":[1],"data_offsets":[0,8]},"v":{"dtype":"F64","shape":[0],"data_offsets":[8,8]}}')
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(header.length))
  await writeFile(join(dir, 'model.safetensors'), Buffer.concat([length, header, Buffer.alloc(8)]))
  const checkpoint = await openCheckpoint(dir)
  t.same(matchParameters(checkpoint, []).unused, ['w', 'v'], 'they do no harm as long as nobody wants them')
  t.throws(() => matchParameters(checkpoint, [parameter('w', [1])]), { name: 'CheckpointError', message: /w is F64, a type that is not read/ })
})

t.test('shards', async t => {
  const dir = t.testdir()
  const index = (map: unknown) => writeFile(join(dir, 'model.safetensors.index.json'), JSON.stringify({ metadata: {}, weight_map: map }))
  await writeSafetensors(join(dir, 'one.safetensors'), { a: f32(1), extra: f32(2) })
  await mkdir(join(dir, 'sub'))
  await writeSafetensors(join(dir, 'sub', 'two.safetensors'), { b: f32(3) })
  await index({ a: 'one.safetensors', b: 'sub/two.safetensors' })
  const checkpoint = await openCheckpoint(dir)
  t.same([...checkpoint.tensors.keys()].sort(), ['a', 'b', 'extra'])
  t.same(checkpoint.files, [join(dir, 'one.safetensors'), join(dir, 'sub/two.safetensors')])

  await index({ a: 'one.safetensors', b: 'one.safetensors', c: 'one.safetensors' })
  await t.rejects(openCheckpoint(dir), { name: 'CheckpointError', message: /lists tensors that are not in their files: b \(in one.safetensors\), c/ })
  await index({ a: 'three.safetensors' })
  await t.rejects(openCheckpoint(dir), { name: 'CheckpointError', message: /three.safetensors is not there/ })
  for (const name of ['../one.safetensors', '/etc/passwd', 'sub/../../x', 'sub\\..\\..\\x', 'C:\\x', '', '.', 'sub//two.safetensors', 'a\0b']) {
    await index({ a: name })
    await t.rejects(openCheckpoint(dir), { name: 'CheckpointError', message: /expected a relative one that stays inside the folder/ }, JSON.stringify(name))
  }
  for (const map of [undefined, null, [], 'x', { a: 1 }]) {
    await index(map)
    await t.rejects(openCheckpoint(dir), { name: 'CheckpointError', message: /weight_map is no map/ })
  }
  await writeFile(join(dir, 'model.safetensors.index.json'), '{"weight_map":{"a":"one.safetensors","a":"sub/two.safetensors"}}')
  await t.rejects(openCheckpoint(dir), { name: 'CheckpointError', message: /key "a" twice/ })
})

t.test('links into another folder, as the Hub cache makes them', async t => {
  const dir = t.testdir()
  await mkdir(join(dir, 'blobs'))
  await mkdir(join(dir, 'snapshot'))
  await writeSafetensors(join(dir, 'blobs', 'abc'), { a: f32(1) })
  await symlink('../blobs/abc', join(dir, 'snapshot', 'model.safetensors'))
  t.ok((await openCheckpoint(join(dir, 'snapshot'))).has('a'))
})

t.test('sharded and whole are the same', { skip: noShared }, async t => {
  const whole = await openCheckpoint(shared('parity', 'bert'))
  const sharded = await openCheckpoint(shared('parity', 'bert-sharded'))
  t.equal(sharded.files.length, 2)
  t.same([...sharded.tensors.keys()].sort(), [...whole.tensors.keys()].sort())
  for (const [name, entry] of whole.tensors) t.same((await readTensor(sharded.tensors.get(name)!)).data, (await readTensor(entry)).data, name)

  // A copy whose second shard is cut in the middle.
  const dir = t.testdir()
  for (const name of ['model.safetensors.index.json', 'model-00001-of-00002.safetensors']) await copyFile(shared('parity', 'bert-sharded', name), join(dir, name))
  const second = await readFile(shared('parity', 'bert-sharded', 'model-00002-of-00002.safetensors'))
  await writeFile(join(dir, 'model-00002-of-00002.safetensors'), second.subarray(0, second.length / 2))
  await t.rejects(openCheckpoint(dir), { name: 'CheckpointError', message: /model-00002-of-00002.safetensors: tensor .* past the data section/ })
})
