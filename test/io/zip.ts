// Zip archives made by hand: zip64, padding and comments are read; whatever contradicts itself is refused.

import { open, readFile, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { readTensor } from '../../lib/io/entry.js'
import { readPytorchEntries } from '../../lib/io/pytorch.js'
import { openZip } from '../../lib/io/zip.js'

interface Member {
  name: string
  data: Buffer
  method?: number
  flags?: number
  /** What the directory says in place of the truth. */
  size?: bigint
  stored?: bigint
  header?: bigint
  extra?: Buffer
}

const le = (bytes: number, value: number | bigint) => {
  const out = Buffer.alloc(8)
  out.writeBigUInt64LE(BigInt(value))
  return out.subarray(0, bytes)
}

interface Options {
  zip64?: boolean
  comment?: string
  count?: number
  directoryOffset?: bigint
  directorySize?: bigint
  locator?: bigint
}

function zip(members: Member[], { zip64 = false, comment = '', ...lies }: Options = {}): Buffer {
  const parts: Buffer[] = []
  const directory: Buffer[] = []
  let at = 0n
  const add = (...buffers: Buffer[]) => buffers.forEach(buffer => (parts.push(buffer), (at += BigInt(buffer.length))))
  for (const { name, data, method = 0, flags = 0, size = BigInt(data.length), stored = BigInt(data.length), header = at, extra } of members) {
    // As PyTorch does, an extra field pads the data, and the local sizes are zero.
    const padding = Buffer.concat([Buffer.from('FB'), le(2, 6), Buffer.alloc(6, 'Z')])
    add(le(4, 0x04034b50), le(2, 45), le(2, flags), le(2, method), Buffer.alloc(16), le(2, name.length), le(2, padding.length), Buffer.from(name), padding, data)
    const wide = extra ?? (zip64 ? Buffer.concat([Buffer.from('FB'), le(2, 2), le(2, 0), le(2, 1), le(2, 24), le(8, size), le(8, stored), le(8, header)]) : Buffer.alloc(0))
    const field = (value: bigint) => (zip64 || extra ? le(4, 0xffffffff) : le(4, value))
    directory.push(le(4, 0x02014b50), le(4, 0x2d002d), le(2, flags), le(2, method), Buffer.alloc(8), field(stored), field(size), le(2, name.length), le(2, wide.length), Buffer.alloc(10), field(header), Buffer.from(name), wide)
  }
  const offset = lies.directoryOffset ?? at
  const bytes = Buffer.concat(directory)
  const size = lies.directorySize ?? BigInt(bytes.length)
  const count = lies.count ?? members.length
  add(bytes)
  if (zip64) {
    const record = at
    add(le(4, 0x06064b50), le(8, 44), le(4, 0x2d002d), Buffer.alloc(8), le(8, count), le(8, count), le(8, size), le(8, offset))
    add(le(4, 0x07064b50), le(4, 0), le(8, lies.locator ?? record), le(4, 1))
    add(le(4, 0x06054b50), Buffer.alloc(4), le(2, 0xffff), le(2, 0xffff), le(4, 0xffffffff), le(4, 0xffffffff))
  } else {
    add(le(4, 0x06054b50), Buffer.alloc(4), le(2, count), le(2, count), le(4, size), le(4, offset))
  }
  add(le(2, comment.length), Buffer.from(comment))
  return Buffer.concat(parts)
}

/** The members of a real archive. */
async function members(file: string): Promise<Member[]> {
  const bytes = await readFile(file)
  const handle = await open(file)
  try {
    const archive = await openZip(handle, file, bytes.length)
    const places = await Promise.all(archive.names.map(name => archive.locate(name)))
    return archive.names.map((name, i) => ({ name, data: bytes.subarray(places[i]!.offset, places[i]!.offset + places[i]!.size) }))
  } finally {
    await handle.close()
  }
}

const fixture = join(dirname(dirname(fileURLToPath(import.meta.url))), 'fixtures', 'pytorch', 'zip.bin')

t.test('zip64, comments, other names of the root', async t => {
  const real = await members(fixture)
  const file = join(t.testdir(), 'x.bin')
  const expected = await Promise.all((await readPytorchEntries(fixture)).filter(entry => entry.dtype).map(async entry => [entry.name, await readTensor(entry)]))
  for (const options of [{}, { zip64: true }, { comment: 'PK\x05\x06 a comment that looks like an end record' }, { zip64: true, comment: 'x'.repeat(65535) }]) {
    const renamed = real.map(member => ({ ...member, name: member.name.replace(/^[^/]*/, 'archive') }))
    await writeFile(file, zip(renamed, options))
    t.same(await Promise.all((await readPytorchEntries(file)).filter(entry => entry.dtype).map(async entry => [entry.name, await readTensor(entry)])), expected, JSON.stringify(options).slice(0, 60))
  }
})

t.test('refused', async t => {
  const real = await members(fixture)
  const pickle = real.find(({ name }) => name.endsWith('data.pkl'))!
  const others = real.filter(member => member !== pickle)
  const root = pickle.name.slice(0, -'data.pkl'.length)
  const changed = (name: string, change: Partial<Member>) => real.map(member => (member.name === root + name ? { ...member, ...change } : member))
  const cases: [string, Buffer, RegExp][] = [
    ['no pickle', zip(others), /has 0 data\.pkl; expected one/],
    ['old TorchScript', zip([...others, { name: 'm/model.json', data: Buffer.from('{}') }]), /from before PyTorch 1\.4/],
    ['two pickles', zip([...real, { ...pickle, name: 'other/data.pkl' }]), /has 2 data\.pkl/],
    ['a name twice', zip([...real, pickle]), /has the member .*data\.pkl twice/],
    ['compressed', zip(changed('data.pkl', { method: 8 })), /data\.pkl is compressed/],
    ['stored in another size', zip(changed('data/0', { stored: 1n })), /data\/0 is compressed/],
    ['encrypted', zip(changed('data.pkl', { flags: 1 })), /data\.pkl is encrypted/],
    ['a size that is too small', zip(changed('data/0', { size: 4n, stored: 4n })), /data\/0 has 4 bytes; its pickle says/],
    ['a size past the directory', zip(changed('data/0', { size: 1n << 20n, stored: 1n << 20n })), /data\/0 of 1048576 bytes does not fit/],
    ['a size of 2^60', zip(changed('data/0', { size: 1n << 60n, stored: 1n << 60n }), { zip64: true }), /data\/0 of Infinity bytes does not fit/],
    ['a place past the end', zip(changed('data/0', { header: 1n << 40n }), { zip64: true }), /does not fit before the directory/],
    ['a place in other data', zip(changed('data/0', { header: 1n })), /data\/0 is not where the directory says/],
    ['no zip64 field', zip(changed('data/0', { extra: Buffer.from('FB\x02\x00xx') })), /data\/0 has no valid zip64 field/],
    ['a cut zip64 field', zip(changed('data/0', { extra: Buffer.concat([le(2, 1), le(2, 8), le(8, 1)]) })), /data\/0 has no valid zip64 field/],
    ['a zip64 field of a lying length', zip(changed('data/0', { extra: Buffer.concat([le(2, 1), le(2, 60000), le(8, 1)]) })), /data\/0 has no valid zip64 field/],
    ['storages missing', zip(real.filter(({ name }) => name !== `${root}data/3`)), /has no member .*data\/3/],
    ['big-endian', zip(changed('byteorder', { data: Buffer.from('big') })), /byte order "big"; only little-endian/],
    ['a directory past the end', zip(real, { directoryOffset: 1_000_000n }), /its directory ends at byte .*; the file has/],
    ['a huge directory', zip(real, { zip64: true, directorySize: 1n << 40n }), /has a directory of 1099511627776 bytes/],
    ['a directory of 2^63 bytes', zip(real, { zip64: true, directorySize: 1n << 63n }), /has a directory of Infinity bytes/],
    ['more members than there are', zip(real, { count: 1000 }), /broken directory at member \d+ of 1000/],
    ['a directory elsewhere', zip(real, { directoryOffset: 2n }), /broken directory at member 0/],
    ['a zip64 locator past the end', zip(real, { zip64: true, locator: 1n << 50n }), /locator that points past the end/],
    ['a zip64 locator to other data', zip(real, { zip64: true, locator: 5n }), /no zip64 end record where it says/],
    ['no end record', zip(real).subarray(0, -1), /has no end record/],
  ]
  const file = join(t.testdir(), 'x.bin')
  for (const [name, bytes, pattern] of cases) {
    await writeFile(file, bytes)
    await t.rejects(readPytorchEntries(file), { name: 'CheckpointError', code: 'ERR_CHECKPOINT', message: pattern, file }, name)
  }
})
