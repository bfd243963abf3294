// safetensors: broken files are refused with the reason, whole ones read and written to the bit.

import { createHash } from 'node:crypto'
import { readFile, readdir, truncate, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { CheckpointError } from '../../lib/core/errors.js'
import { Tensor } from '../../lib/core/tensor.js'
import { fileSource, readTensor } from '../../lib/io/entry.js'
import { readSafetensorsHeader, readTensors, writeAtomically, writeSafetensors } from '../../lib/io/safetensors.js'
import { noShared, shared } from '../shared.js'

const fixtures = join(dirname(dirname(fileURLToPath(import.meta.url))), 'fixtures', 'malformed-safetensors')

/** A file with this header (or header length) and this many zero bytes of data. */
async function craft(file: string, header: string | Buffer, data = 0, length?: bigint): Promise<string> {
  const json = Buffer.from(header as string)
  const size = Buffer.alloc(8)
  size.writeBigUInt64LE(length ?? BigInt(json.length))
  await writeFile(file, Buffer.concat([size, json, Buffer.alloc(data)]))
  return file
}

t.test('the labelled files', async t => {
  const labels = JSON.parse(await readFile(join(fixtures, 'labels.json'), 'utf8')) as { files: Record<string, { valid: boolean; reason: string }> }
  // What the message must hold, beside the file's name.
  const says: Record<string, RegExp> = {
    'dtype_unknown.safetensors': /tensor t: unknown dtype F99/,
    'duplicate_key.safetensors': /key "t" twice/,
    'empty_file.safetensors': /0 bytes, which is shorter than the 8-byte header length/,
    'header_len_huge.safetensors': /header length 9223372036854775808 is over 100 MB/,
    'header_not_json.safetensors': /header does not start with \{/,
    'hole.safetensors': /hole of 8 bytes before tensor a/,
    'offset_negative.safetensors': /tensor t: negative data offset/,
    'offset_past_eof.safetensors': /tensor t: data_offsets end at 64, past the data section of 16 bytes/,
    'overlapping.safetensors': /tensor b: data overlaps another tensor/,
    'shape_mismatch.safetensors': /tensor t: 16 bytes of data, but dtype and shape need 20/,
  }
  for (const [name, { valid }] of Object.entries(labels.files)) {
    const file = join(fixtures, name)
    if (valid) {
      t.equal((await readSafetensorsHeader(file)).entries.length, 1, name)
      continue
    }
    const error = await readSafetensorsHeader(file).then(() => undefined, (e: unknown) => e)
    t.ok(error instanceof CheckpointError, `${name} is refused`)
    t.match((error as CheckpointError).message, says[name]!, name)
    t.ok((error as CheckpointError).message.includes(file), 'names the file')
    t.equal((error as CheckpointError).file, file)
  }
  t.equal(Object.keys(labels.files).length, Object.keys(says).length + 1)
})

t.test('further lies', async t => {
  const dir = t.testdir()
  const one = (info: string) => `{"t":${info}}`
  const cases: [string, string | Buffer, number, RegExp, bigint?][] = [
    ['2 GiB header length', '{}', 0, /header length 2147483648 is over 100 MB/, 1n << 31n],
    ['length past the end', '{}', 0, /header length 50000000 goes past the end of the file, which has 10 bytes/, 50_000_000n],
    ['one past the end', '{}', 0, /header length 3 goes past the end/, 3n],
    ['empty header', '', 0, /does not start with/],
    ['cut JSON', '{"t":', 0, /header is no JSON/],
    ['bytes after the object', '{}\0\0', 0, /header is no JSON/],
    ['no UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), 0, /no UTF-8/],
    ['tensor is null', one('null'), 0, /tensor t: no object/],
    ['no dtype', one('{"shape":[1],"data_offsets":[0,4]}'), 4, /unknown dtype/],
    ['dtype of the prototype', one('{"dtype":"constructor","shape":[1],"data_offsets":[0,4]}'), 4, /unknown dtype constructor/],
    ['no shape', one('{"dtype":"F32","data_offsets":[0,4]}'), 4, /shape undefined is no list/],
    ['negative dim', one('{"dtype":"F32","shape":[-1,-1],"data_offsets":[0,4]}'), 4, /shape \[-1,-1\] is no list of integers >= 0/],
    ['fractional dim', one('{"dtype":"F32","shape":[1.5],"data_offsets":[0,6]}'), 6, /is no list of integers/],
    ['overflowing shape', one('{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}'), 0, /too many elements/],
    ['overflowing shape times zero', one('{"dtype":"F32","shape":[9007199254740991,9007199254740991,0],"data_offsets":[0,0]}'), 0, /x/],
    ['three offsets', one('{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}'), 8, /no two integers/],
    ['reversed offsets', one('{"dtype":"F32","shape":[1],"data_offsets":[8,4]}'), 8, /end before they begin/],
    ['offset beyond exact integers', one('{"dtype":"F32","shape":[1],"data_offsets":[0,36893488147419103232]}'), 8, /no two integers/],
    ['rest after the last', one('{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'), 9, /5 bytes after the last tensor/],
    ['data without tensors', '{}', 3, /3 bytes after the last tensor/],
    ['key twice by an escape', '{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', 0, /key "a" twice/],
    ['dtype twice', one('{"dtype":"U8","shape":[4],"data_offsets":[0,4],"dtype":"F32"}'), 4, /key "dtype" twice/],
    ['metadata of numbers', '{"__metadata__":{"a":1}}', 0, /__metadata__ is no map of strings/],
    ['metadata twice', '{"__metadata__":{},"__metadata__":{}}', 0, /key "__metadata__" twice/],
    ['half a byte', one('{"dtype":"F4","shape":[3],"data_offsets":[0,1]}'), 1, /need 1.5/],
  ]
  for (const [name, header, data, pattern, length] of cases) {
    if (name === 'overflowing shape times zero') {
      // No data and no elements: nothing can go wrong, whatever the other dimensions say.
      t.equal((await readSafetensorsHeader(await craft(join(dir, 'zero'), header, data))).entries.length, 1)
      continue
    }
    const file = await craft(join(dir, 'file.safetensors'), header, data, length)
    await t.rejects(readSafetensorsHeader(file), { name: 'CheckpointError', code: 'ERR_CHECKPOINT', message: pattern, file }, name)
  }
  const pointer = join(dir, 'pointer.safetensors')
  await writeFile(pointer, `version https://git-lfs.github.com/spec/v1\noid sha256:${'0'.repeat(64)}\nsize 12\n`)
  await t.rejects(readSafetensorsHeader(pointer), { name: 'CheckpointError', file: pointer, message: /pointer\.safetensors is a Git LFS pointer, not the file itself; run: git lfs pull/ })
  await t.rejects(readSafetensorsHeader(join(dir, 'none')), { name: 'CheckpointError', message: /is not there/ })
  await t.rejects(readSafetensorsHeader(dir), { name: 'CheckpointError', message: /folder|no regular file/ })
})

t.test('a header as long as is allowed but not there allocates nothing', async t => {
  const file = await craft(join(t.testdir(), 'a.safetensors'), '{}', 0, 99_999_999n)
  const before = process.memoryUsage().arrayBuffers
  await t.rejects(readSafetensorsHeader(file), { message: /goes past the end/ })
  t.ok(process.memoryUsage().arrayBuffers - before < 1_000_000)
})

t.test('types that are listed but not read', async t => {
  const header = '{"d":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},"s":{"dtype":"I16","shape":[],"data_offsets":[16,18]},"n":{"dtype":"I8","shape":[2],"data_offsets":[18,20]}}'
  const file = await craft(join(t.testdir(), 'a.safetensors'), header, 20)
  const { entries } = await readSafetensorsHeader(file)
  t.same(entries.map(e => [e.name, e.storedType, e.dtype]), [['d', 'F64', undefined], ['s', 'I16', undefined], ['n', 'I8', 'int8']])
  t.throws(() => fileSource(entries[0]!), { name: 'CheckpointError', message: /tensor d is F64, which is not read/ })
  await t.rejects(readTensor(entries[1]!), { name: 'CheckpointError', message: /I16/ })
  t.equal((await readTensor(entries[2]!)).data.length, 2)
})

t.test('a file that shrinks after its header was read', async t => {
  const file = join(t.testdir(), 'a.safetensors')
  await writeSafetensors(file, { t: new Tensor('float32', new Float32Array(1000), [1000]) })
  const { entries } = await readSafetensorsHeader(file)
  await truncate(file, 1000)
  await t.rejects(readTensor(entries[0]!), { name: 'CheckpointError', message: /ends at byte/ })
  await t.rejects(readSafetensorsHeader(file), { name: 'CheckpointError', message: /past the data section/ })
})

t.test('write and read every type', async t => {
  const dir = t.testdir()
  const file = join(dir, 'all.safetensors')
  const tensors = {
    f: new Tensor('float32', new Float32Array([1, -2, NaN, Infinity]), [2, 2]),
    h: new Tensor('float16', new Uint16Array([0x3c00, 0x7e00, 1]), [3]),
    b: new Tensor('bfloat16', new Uint16Array([0x3f80]), [1, 1, 1]),
    l: new Tensor('int64', new BigInt64Array([-1n, 1n << 62n]), [2]),
    i: new Tensor('int32', new Int32Array([]), [0, 5]),
    c: new Tensor('int8', new Int8Array([-128, 127, 3]), [3]),
    u: new Tensor('uint8', new Uint8Array([255]), []),
    o: new Tensor('bool', new Uint8Array([0, 1]), [2]),
    ['__proto__']: new Tensor('uint8', new Uint8Array([7]), [1]),
  }
  await writeSafetensors(file, tensors, { format: 'pt', note: 'ä' })
  t.same(await readdir(dir), ['all.safetensors'], 'no temporary file is left')
  const { entries, metadata } = await readSafetensorsHeader(file)
  t.same(metadata, { format: 'pt', note: 'ä' })
  t.equal(entries[0]!.offset % 8, 0, 'data is aligned')
  const read = await readTensors(file)
  t.same(Object.keys(read), Object.keys(tensors))
  for (const [name, tensor] of Object.entries(tensors)) {
    t.equal(read[name]!.type, tensor.type)
    t.same(read[name]!.dims, tensor.dims)
    t.same(read[name]!.data, tensor.data, name)
  }
  t.same(Object.keys(await readTensors(file, { names: ['l', 'f'] })), ['l', 'f'])
  await t.rejects(readTensors(file, { names: ['l', 'no', 'none'] }), { name: 'CheckpointError', message: /no tensor no, none/, missing: ['no', 'none'] })
  await writeSafetensors(join(dir, 'empty'), {})
  t.same(await readTensors(join(dir, 'empty')), {})
})

t.test('a failed write leaves what was there', async t => {
  const dir = t.testdir()
  const file = join(dir, 'a.safetensors')
  await writeSafetensors(file, { t: new Tensor('uint8', new Uint8Array([1, 2, 3]), [3]) })
  const before = await readFile(file)
  const stream = (bytes: () => Iterable<Uint8Array>) => [{ name: 't', dtype: 'uint8' as const, shape: [3], bytes }]
  await t.rejects(writeSafetensors(file, stream(() => [new Uint8Array(2)])), { name: 'ArgumentError', message: /gave 2 of the 3 bytes/ })
  await t.rejects(writeSafetensors(file, stream(() => [new Uint8Array(2), new Uint8Array(2)])), { name: 'ArgumentError', message: /more than the 3/ })
  await t.rejects(writeSafetensors(file, [...stream(() => []), ...stream(() => [])]), { name: 'ArgumentError', message: /twice/ })
  const stop = new AbortController()
  const reason = new Error('enough')
  await t.rejects(writeSafetensors(file, stream(function* () {
    yield new Uint8Array(1)
    stop.abort(reason)
    yield new Uint8Array(2)
  }), {}, { signal: stop.signal }), reason)
  t.same(await readdir(dir), ['a.safetensors'])
  t.same(await readFile(file), before)
  await t.rejects(writeSafetensors(join(dir, 'no', 'a.safetensors'), {}), { name: 'CheckpointError', message: /cannot be written/ })
})

t.test('a full disk is a typed error', async t => {
  const noSpace = Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC', syscall: 'write' })
  await t.rejects(writeAtomically(join(t.testdir(), 'x'), () => Promise.reject(noSpace)), { name: 'CheckpointError', message: /cannot be written: its disk is full/ })
})

t.test('real weights', { skip: noShared }, async t => {
  const { entries, metadata } = await readSafetensorsHeader(shared('models', 'all-minilm-l6-v2', 'model.safetensors'))
  t.same(metadata, { format: 'pt' })
  const ids = entries.find(entry => entry.name.endsWith('position_ids'))!
  t.same([ids.dtype, ids.shape], ['int64', [1, 512]])
  t.equal((await readTensor(ids)).data[511], 511n)
  // The bytes of the file itself, cut by hand.
  const word = entries.find(entry => entry.name === 'embeddings.word_embeddings.weight')!
  const whole = await readFile(word.file)
  const hash = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
  const tensor = await readTensor(word)
  t.equal(hash(new Uint8Array(tensor.data.buffer)), hash(whole.subarray(word.offset, word.offset + 30522 * 384 * 2)))
})
