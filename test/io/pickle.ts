// Hand-made pickles that torch would never write: each is refused with the reason, quickly and without much memory.

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { PickleDict, type PickleRules, PickleTuple, unpickle } from '../../lib/io/pickle.js'
import { readPytorchEntries } from '../../lib/io/pytorch.js'
import { readTensor } from '../../lib/io/entry.js'

const rules: PickleRules = {
  what: 'test',
  file: 'test',
  allows: name => name === 'good.function',
  allowsRecord: () => false,
  reduce: (_, args) => args.length,
  persistent: id => id,
}

/** Strings are taken as latin1, numbers as bytes. */
function bytes(...parts: (string | number | Buffer)[]): Buffer {
  return Buffer.concat(parts.map(part => (typeof part === 'string' ? Buffer.from(part, 'latin1') : typeof part === 'number' ? Buffer.from([part]) : part)))
}
const u32 = (value: number) => Buffer.from(Uint32Array.of(value).buffer)
const text = (value: string) => bytes('X', u32(Buffer.byteLength(value)), value)
const int = (value: number) => bytes('J', Buffer.from(Int32Array.of(value).buffer))
const load = async (...parts: (string | number | Buffer)[]) => (await unpickle(bytes(0x80, 2, ...parts), rules)).value

t.test('values', async t => {
  t.equal(await load('N.'), null)
  t.same([await load(0x88, '.'), await load(0x89, '.')], [true, false])
  t.same([await load('K', 255, '.'), await load('M', 1, 2, '.'), await load(int(-5), '.')], [255, 513, -5])
  t.same([await load(0x8a, 0, '.'), await load(0x8a, 2, 0xff, 0x7f, '.'), await load(0x8a, 1, 0xff, '.')], [0, 32767, -1])
  t.equal(await load(0x8a, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, '.'), 1n << 64n)
  t.equal(await load('G', Buffer.from([0x3f, 0xf8, 0, 0, 0, 0, 0, 0]), '.'), 1.5)
  t.equal(await load('X', u32(2), 0xc3, 0xa4, '.'), 'ä')
  t.same(await load('](K', 1, 'K', 2, 'e', 'N', 'a.'), [1, 2, null])
  t.same(await load('K', 1, 'K', 2, 0x86, '.'), new PickleTuple([1, 2]))
  const dict = (await load('}', text('a'), 'K', 1, 's.')) as PickleDict
  t.same(dict.items, ['a', 1])
  t.same(((await load('(', text('a'), 'K', 1, 'd.')) as PickleDict).items, ['a', 1])
  t.same(await load(text('x'), 'q', 7, '0', 'h', 7, '.'), 'x')
  t.equal(await load('cgood\nfunction\nNN', 0x86, 'R.'), 2)
  t.equal(await load(text('good'), text('function'), 0x93, 'N', 0x85, 'R.'), 1)
  t.equal((await unpickle(bytes(0x80, 2, 'N.', 'rest'), rules)).end, 4)
})

t.test('refused', async t => {
  const cases: [string, (string | number | Buffer)[], RegExp][] = [
    ['a global', ['cos\nsystem\n', text('ls'), 0x85, 'R.'], /the global os\.system is not on the list/],
    ['a global from the stack', [text('os'), text('system'), 0x93, '.'], /the global os\.system is not on the list/],
    ['a global with a dotted name', ['cgood\nfunction.__globals__\n.'], /good\.function\.__globals__ is not on the list/],
    ['a global of numbers', ['NN', 0x93, '.'], /name is no string/],
    ['a long global', [`c${'a'.repeat(1000)}\nb\n.`], /a global whose name has 1001 characters/],
    ['INST', ['(', text('ls'), 'ios\nsystem\n.'], /opcode 0x69 is not allowed/],
    ['OBJ', ['(No.'], /opcode 0x6f is not allowed/],
    ['EXT1', [0x82, 1, '.'], /opcode 0x82 is not allowed/],
    ['PERSID', ['Pid\n.'], /opcode 0x50 is not allowed/],
    ['NEWOBJ_EX', ['NNN', 0x92, '.'], /opcode 0x92 is not allowed/],
    ['an object', ['cgood\nfunction\n)', 0x81, '.'], /an object of class good.function is not allowed/],
    ['calling a string', [text('x'), ')R.'], /a call of what is no allowed global/],
    ['calling with a list', ['cgood\nfunction\n]R.'], /a call of what is no allowed global/],
    ['attributes for a list', [']}b.'], /attributes for what is no object/],
    ['underflow', ['0.'], /stack underflow/],
    ['underflow of a tuple', ['N', 0x87, '.'], /stack underflow/],
    ['STOP on nothing', ['.'], /stack underflow/],
    ['no mark', ['Nt.'], /no mark/],
    ['a memo never set', ['h', 3, '.'], /memo 3 was never set/],
    ['items for a tuple', [')Na.'], /items for what is no list/],
    ['odd items', ['}(Nu.'], /no dictionary/],
    ['protocol 6', [0x80, 6, 'N.'], /pickle protocol 6/],
    ['a huge integer', [0x8b, u32(1 << 30), '.'], /an integer of 1073741824 bytes/],
    ['a string past the end', ['X', u32(0xffffffff), 'abc'], /ends in the middle/],
    ['a 2^63 byte string', [0x8d, Buffer.from([0, 0, 0, 0, 0, 0, 0, 0x80]), 'abc'], /ends in the middle/],
    ['no end', ['NNNN'], /ends in the middle/],
    ['an unfinished line', ['cos'], /ends in the middle/],
    ['a deep stack', [Buffer.alloc(1_100_000, 'N')], /more than 1000000 values on the stack/],
    ['deep marks', [Buffer.alloc(1_100_000, '(')], /more than 1000000 marks/],
    ['endless work', [Buffer.alloc(6_000_000, 'N0')], /more than 5000000 opcodes/],
  ]
  for (const [name, parts, pattern] of cases) await t.rejects(load(...parts), { code: 'ERR_CHECKPOINT', message: pattern }, name)
})

t.test('a long pickle leaves the event loop alone, and stops on request', async t => {
  const stop = new AbortController()
  const reason = new Error('stopped')
  setTimeout(() => stop.abort(reason), 1)
  await t.rejects(unpickle(bytes(0x80, 2, Buffer.alloc(4_000_000, 'N0'), 'N.'), rules, 0, stop.signal), reason)
})

// Legacy files are easiest to make by hand: five pickles and the storages.
function legacy(object: Buffer, storages: [string, number, Buffer][] = [['0', 4, Buffer.alloc(16)]]): Buffer {
  const keys = bytes(0x80, 2, '](', ...storages.map(([key]) => text(key)), 'e.')
  const count = (value: number) => Buffer.from(BigInt64Array.of(BigInt(value)).buffer)
  return bytes(
    bytes(0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, '.'),
    bytes(0x80, 2, 'M', 0xe9, 3, '.'),
    bytes(0x80, 2, '}', text('little_endian'), 0x88, 's.'),
    bytes(0x80, 2, object, '.'),
    keys,
    ...storages.map(([, size, data]) => bytes(count(size), data)),
  )
}
const storage = (count = 4, key = '0', cls = 'FloatStorage') =>
  bytes('(', text('storage'), `ctorch\n${cls}\n`, text(key), text('cpu'), int(count), 't')
const tuple = (...values: number[]) => bytes('(', ...values.map(int), 't')
const tensor = (offset: number, shape: Buffer, strides: Buffer, base = bytes(storage(), 'NtQ')) =>
  bytes('ctorch._utils\n_rebuild_tensor_v2\n(', base, int(offset), shape, strides, 0x89, 'NtR')
const stored = bytes(storage().subarray(0, -1), 'NtQ')
const one = (offset: number, shape: Buffer, strides: Buffer, base = stored) => bytes('}', text('t'), tensor(offset, shape, strides, base), 's')

t.test('tensors', async t => {
  const file = join(t.testdir(), 'x.bin')
  const entries = async (object: Buffer, storages?: [string, number, Buffer][]) => {
    await writeFile(file, legacy(object, storages))
    return readPytorchEntries(file)
  }
  const data = Buffer.from(Float32Array.of(1, 2, 3, 4).buffer)
  const [entry] = await entries(one(1, tuple(2), tuple(2)), [['0', 4, data]])
  t.same((await readTensor(entry!)).data, new Float32Array([2, 4]))
  const view = bytes(storage().subarray(0, -1), '(', text('v'), int(1), int(2), 'ttQ')
  t.same((await readTensor((await entries(one(1, tuple(1), tuple(1), view), [['0', 4, data]]))[0]!)).data, new Float32Array([3]), 'a view of a storage')

  const ok = one(0, tuple(4), tuple(1))
  const cases: [string, Buffer, RegExp, [string, number, Buffer][]?][] = [
    ['past the storage', one(0, tuple(5), tuple(1)), /goes past its storage of 4 elements/],
    ['offset past the storage', one(4, tuple(1), tuple(1)), /goes past its storage/],
    ['strides past the storage', one(0, tuple(2, 2), tuple(3, 1)), /goes past its storage/],
    ['negative offset', one(-1, tuple(1), tuple(1)), /no integers >= 0/],
    ['negative stride', one(3, tuple(2), tuple(-1)), /no integers >= 0/],
    ['negative size', one(0, tuple(-2), tuple(1)), /no integers >= 0/],
    ['shape and strides differ', one(0, tuple(2, 2), tuple(1)), /no integers >= 0/],
    ['a shape of any size on nothing', one(0, tuple(2147483647, 2147483647), tuple(0, 0)), /tensor of shape/],
    ['a shape of much on little', one(0, tuple(200000000), tuple(0)), /on a storage of 4 elements/],
    ['view outside', one(0, tuple(1), tuple(1), bytes(storage().subarray(0, -1), '(', text('v'), int(3), int(2), 'ttQ')), /a view that lies outside/],
    ['view past its own end', one(2, tuple(1), tuple(1), view), /goes past its storage of 2/],
    ['an unknown storage class', one(0, tuple(1), tuple(1), bytes(storage(4, '0', 'NoStorage').subarray(0, -1), 'NtQ')), /torch\.NoStorage is not on the list/],
    ['a persistent id of None', one(0, tuple(1), tuple(1), Buffer.from('NQ')), /names no storage/],
    ['no storage', one(0, tuple(1), tuple(1), Buffer.from('N')), /without a storage/],
    ['two sizes', bytes('}', text('a'), tensor(0, tuple(1), tuple(1), stored), 's', text('b'), tensor(0, tuple(1), tuple(1), bytes(storage(3).subarray(0, -1), 'NtQ')), 's'), /storage 0 is given two sizes/],
    ['another count in the file', ok, /storage 0 has 3 elements; its pickle says 4/, [['0', 3, Buffer.alloc(12)]]],
    ['storage cut', ok, /ends at byte/, [['0', 4, Buffer.alloc(15)]]],
    ['no storages', ok, /has no storage 0/, []],
    ['a storage of nobody', ok, /lists the storage 1 that nothing refers to/, [['1', 0, Buffer.alloc(0)]]],
    ['a storage twice', ok, /lists the storage 0 twice/, [['0', 4, data], ['0', 4, data]]],
    ['no tensors', Buffer.from('}'), /holds no tensors/, []],
    ['a bare list', Buffer.from(']'), /holds no tensors/, []],
    ['a dictionary that holds itself', bytes('}q', 0, text('model'), 'h', 0, 's'), /holds no tensors|nests dictionaries/, []],
    ['a dictionary that holds itself by another name', bytes('}q', 0, text('x'), 'h', 0, 's'), /nests dictionaries deeper than 64/, []],
    // Each level holds the one below ten times: 10^12 entries from some hundred bytes.
    ['a tree that multiplies', bytes('}q', 0, ...Array.from({ length: 12 }, (_, level) => bytes('}q', level + 1, ...Array.from({ length: 10 }, (_, i) => bytes(text(`${i}`), 'h', level, 's'))))), /more than 1000000 entries/, []],
    ['a name of megabytes', bytes('}', text('a'.repeat(3_000_000)), tensor(0, tuple(1), tuple(1), stored), 's'), /name of more than 2000 characters/],
    ['a list copied again and again', bytes('ccollections\nOrderedDict\nq', 0, '](', Buffer.concat(Array(10_000).fill(bytes('K', 1, 'K', 2, 0x86))), 'e', 0x85, 'q', 1, '0(', Buffer.concat(Array(2_000).fill(bytes('h', 0, 'h', 1, 'R'))), 't'), /more than 5000000 opcodes/],
    ['attributes looked through again and again', bytes('}(', Buffer.concat(Array(20_000).fill(bytes('K', 1, 'N'))), 'uq', 2, '0(', Buffer.concat(Array(1_000).fill(bytes('ctorch._utils\n_rebuild_tensor_v2\n(', stored, int(0), tuple(1), tuple(1), 0x89, 'Nh', 2, 'tR'))), 't'), /more than 5000000 opcodes/],
    ['65 dimensions', one(0, tuple(...Array(65).fill(1)), tuple(...Array(65).fill(1))), /a tensor of 65 dimensions; expected at most 64/],
    ['calling a class', bytes('ctorch\nTensor\n)R'), /torch\.Tensor is no function that may be called/],
    ['a record outside of TorchScript', bytes('c__torch__\nModel\n)', 0x81), /__torch__\.Model is not on the list/],
  ]
  for (const [name, object, pattern, storages] of cases) {
    await t.rejects(entries(object, storages), { name: 'CheckpointError', code: 'ERR_CHECKPOINT', message: pattern, file }, name)
  }
  await writeFile(file, bytes(0x80, 2, 'K', 1, '.'))
  await t.rejects(readPytorchEntries(file), { name: 'CheckpointError', message: /the magic number is missing/ })
  await writeFile(file, 'version https://git-lfs.github.com/spec/v1')
  await t.rejects(readPytorchEntries(file), { name: 'CheckpointError', message: /is a Git LFS pointer, not the file itself; run: git lfs pull/ })
  await writeFile(file, '')
  await t.rejects(readPytorchEntries(file), { name: 'CheckpointError', message: /no PyTorch file/ })
})
