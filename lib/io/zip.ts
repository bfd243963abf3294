// A zip archive as torch.save writes it: its weights are stored members (the code in TorchScript archives is compressed and of no
// interest), with zip64 where it must be. Only places are returned; members are read by ranges. Every length in the archive is checked
// against the file before it is used.
// Layouts: APPNOTE.TXT 4.3.7 (local header), 4.3.12 (central directory), 4.3.14 to 4.3.16 (end records), 4.5.3 (zip64 extra field).

import type { FileHandle } from 'node:fs/promises'
import { promisify } from 'node:util'
import { inflateRaw } from 'node:zlib'
import { CheckpointError } from '../core/errors.js'
import { readExactly } from './entry.js'

export class ZipArchive {
  constructor(
    private readonly handle: FileHandle,
    private readonly file: string,
    /** Where the central directory starts; all members lie before it. */
    private readonly directoryOffset: number,
    private readonly members: ReadonlyMap<string, Member>,
  ) {}

  get names(): string[] {
    return [...this.members.keys()]
  }

  has(name: string): boolean {
    return this.members.has(name)
  }

  /**
   * Where a member's bytes are in the file.
   * @throws CheckpointError if there is no such member, or it is compressed, encrypted or not where the directory says.
   */
  async locate(name: string): Promise<{ offset: number; size: number }> {
    const { size, stored, method } = this.member(name)
    if (method !== 0 || stored !== size) this.refuse(`member ${name} is compressed; PyTorch stores its tensors as they are`)
    return { offset: await this.begin(name), size }
  }

  /**
   * A member's bytes, inflated if need be.
   * @throws CheckpointError if there is no such member, it is encrypted, larger than `most` bytes or not what the directory says.
   */
  async read(name: string, most: number): Promise<Buffer> {
    const { size, stored, method } = this.member(name)
    if (size > most) this.refuse(`member ${name} has ${size} bytes; at most ${most} are read`)
    if (method !== 0 && method !== DEFLATED) this.refuse(`member ${name} is compressed by method ${method}; expected stored or deflated`)
    const bytes = await readExactly(this.handle, this.file, await this.begin(name), stored)
    if (method === 0) return bytes
    const whole = await promisify(inflateRaw)(bytes, { maxOutputLength: Math.max(1, size) }).catch(() => this.refuse(`member ${name} cannot be inflated`))
    if (whole.length !== size) this.refuse(`member ${name} inflates to ${whole.length} bytes; the directory says ${size}`)
    return whole
  }

  private refuse(why: string): never {
    throw new CheckpointError(`${this.file}: zip archive ${why}`, { file: this.file })
  }

  private member(name: string): Member {
    const member = this.members.get(name) ?? this.refuse(`has no member ${name}`)
    if (member.flags & 1) this.refuse(`member ${name} is encrypted`)
    return member
  }

  /** Where the bytes of a member begin. */
  private async begin(name: string): Promise<number> {
    const refuse = (why: string): never => this.refuse(why)
    const { header, stored } = this.member(name)
    const tooLarge = `member ${name} of ${stored} bytes does not fit before the directory`
    if (header + 30 + stored > this.directoryOffset) refuse(tooLarge)
    // The local header repeats the name and has an extra field of its own (PyTorch pads there), so only it tells where the data starts.
    const local = await readExactly(this.handle, this.file, header, 30)
    if (local.readUInt32LE(0) !== LOCAL) refuse(`member ${name} is not where the directory says`)
    const offset = header + 30 + local.readUInt16LE(26) + local.readUInt16LE(28)
    if (offset + stored > this.directoryOffset) refuse(tooLarge)
    return offset
  }
}

interface Member {
  method: number
  flags: number
  /** Bytes in the archive. */
  stored: number
  size: number
  /** Where the local header is. */
  header: number
}

const DEFLATED = 8
const LOCAL = 0x04034b50
const CENTRAL = 0x02014b50
const END = 0x06054b50
const END64 = 0x06064b50
const LOCATOR64 = 0x07064b50
/** A central directory of this size has some hundred thousand members. */
const MAX_DIRECTORY = 64 * 1024 * 1024

/** Whether the file begins as a zip archive. */
export function looksLikeZip(start: Uint8Array): boolean {
  return start[0] === 0x50 && start[1] === 0x4b && start[2] === 3 && start[3] === 4
}

/** @throws CheckpointError naming the file: cut off or contradictory. */
export async function openZip(handle: FileHandle, file: string, fileSize: number): Promise<ZipArchive> {
  const refuse = (why: string): never => {
    throw new CheckpointError(`${file}: zip archive ${why}`, { file })
  }
  const { offset, size, count } = await findDirectory(handle, file, fileSize, refuse)
  if (size > MAX_DIRECTORY) refuse(`has a directory of ${size} bytes; at most ${MAX_DIRECTORY} are read`)
  if (offset + size > fileSize) refuse(`says its directory ends at byte ${offset + size}; the file has ${fileSize}`)
  const directory = await readExactly(handle, file, offset, size)
  const members = new Map<string, Member>()
  let at = 0
  for (let i = 0; i < count; i++) {
    if (at + 46 > size || directory.readUInt32LE(at) !== CENTRAL) refuse(`has a broken directory at member ${i} of ${count}`)
    const nameSize = directory.readUInt16LE(at + 28)
    const extraSize = directory.readUInt16LE(at + 30)
    const end = at + 46 + nameSize + extraSize + directory.readUInt16LE(at + 32)
    if (end > size) refuse(`has a broken directory at member ${i} of ${count}`)
    const name = directory.toString('utf8', at + 46, at + 46 + nameSize)
    const member = readMember(directory, at, nameSize, extraSize) ?? refuse(`member ${name} has no valid zip64 field`)
    if (members.has(name)) refuse(`has the member ${name} twice`)
    members.set(name, member)
    at = end
  }
  return new ZipArchive(handle, file, offset, members)
}

type Refuse = (why: string) => never

async function findDirectory(handle: FileHandle, file: string, fileSize: number, refuse: Refuse) {
  // The zip64 locator, the end record and its comment.
  const tailSize = Math.min(fileSize, 20 + 22 + 0xffff)
  const tail = await readExactly(handle, file, fileSize - tailSize, tailSize)
  let at = tailSize - 22
  // The end record is followed by a comment of the length it states.
  while (at >= 0 && !(tail.readUInt32LE(at) === END && at + 22 + tail.readUInt16LE(at + 20) === tailSize)) at--
  if (at < 0) refuse('has no end record (is the file cut off?)')
  const end = { count: tail.readUInt16LE(at + 10), size: tail.readUInt32LE(at + 12), offset: tail.readUInt32LE(at + 16) }
  if (end.count !== 0xffff && end.size !== 0xffffffff && end.offset !== 0xffffffff) return end
  const endPosition = fileSize - tailSize + at
  if (at < 20 || tail.readUInt32LE(at - 20) !== LOCATOR64) return end
  const position = toNumber(tail.readBigUInt64LE(at - 20 + 8))
  if (position + 56 > endPosition) refuse('has a zip64 locator that points past the end')
  const record = await readExactly(handle, file, position, 56)
  if (record.readUInt32LE(0) !== END64) refuse('has no zip64 end record where it says')
  return { count: toNumber(record.readBigUInt64LE(32)), size: toNumber(record.readBigUInt64LE(40)), offset: toNumber(record.readBigUInt64LE(48)) }
}

/** Infinity for what is not exactly a number: no check against a file's size lets it through. */
function toNumber(value: bigint): number {
  return value > BigInt(Number.MAX_SAFE_INTEGER) ? Infinity : Number(value)
}

/** Sizes and places are in the directory's fields or, where those are all ones, in the zip64 extra field. */
function readMember(directory: Buffer, at: number, nameSize: number, extraSize: number): Member | undefined {
  const member = {
    flags: directory.readUInt16LE(at + 8),
    method: directory.readUInt16LE(at + 10),
    stored: directory.readUInt32LE(at + 20),
    size: directory.readUInt32LE(at + 24),
    header: directory.readUInt32LE(at + 42),
  }
  const wide = (['size', 'stored', 'header'] as const).filter(key => member[key] === 0xffffffff)
  if (wide.length === 0) return member
  const extraEnd = at + 46 + nameSize + extraSize
  let extra = at + 46 + nameSize
  while (extra + 4 <= extraEnd && directory.readUInt16LE(extra) !== 1) extra += 4 + directory.readUInt16LE(extra + 2)
  if (extra + 4 > extraEnd || extra + 4 + wide.length * 8 > Math.min(extraEnd, extra + 4 + directory.readUInt16LE(extra + 2))) return undefined
  wide.forEach((key, i) => (member[key] = toNumber(directory.readBigUInt64LE(extra + 4 + i * 8))))
  return member
}
