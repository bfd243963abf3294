// One file of the Hub into the cache: bytes are appended to a part file and hashed as they come; a connection that breaks is taken up where
// it broke, in this call and in later ones. The part becomes the blob only if size and hash are those of the Hub's listing: sha256 for large
// files, git's sha1 of 'blob <size>\0' and the content for others.

import { type Hash, createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { downloadFile } from '@huggingface/hub'
import { CheckpointError } from '../core/errors.js'
import type { HubCache } from './hub-cache.js'
import { type HubClient, HubUnreachable, RangeIgnored } from './hub-client.js'

/** Size or hash are not those of the listing. */
export class WrongContent extends CheckpointError {
  override name = 'CheckpointError' // to the user it is one
}

export interface BlobInfo {
  path: string
  /** Hexadecimal: 64 digits of sha256 or 40 of git's sha1. It is the blob's name. */
  hash: string
  size: number
}

/** Called with undefined when a download begins, then with the bytes that are there. */
export type OnBytes = (loaded: number | undefined) => void

const underWay = new Map<string, Promise<void>>()

/**
 * Makes the blob be in the cache and gives its path. A file is downloaded once at a time in this thread: who asks meanwhile waits, and tries
 * itself if the first one fails. Other threads and processes have part files of their own.
 */
export async function fetchBlob(client: HubClient, cache: HubCache, info: BlobInfo, signal: AbortSignal, onBytes: OnBytes): Promise<string> {
  const blob = cache.blob(info.hash)
  for (let other = underWay.get(blob); other; other = underWay.get(blob)) await settled(other, signal)
  const ensure = async () => {
    if (!(await hasSize(blob, info.size))) await new Download(client, cache, info, signal, onBytes).run()
  }
  const own = ensure().finally(() => underWay.delete(blob))
  underWay.set(blob, own)
  await own
  return blob
}

async function hasSize(file: string, size: number): Promise<boolean> {
  return stat(file).then(stats => stats.isFile() && stats.size === size, () => false)
}

async function settled(other: Promise<void>, signal: AbortSignal): Promise<void> {
  signal.throwIfAborted()
  await new Promise<void>((resolve, reject) => {
    const stop = () => reject(signal.reason as Error)
    signal.addEventListener('abort', stop, { once: true })
    const done = () => {
      signal.removeEventListener('abort', stop)
      resolve()
    }
    other.then(done, done)
  })
}

/** Pauses in milliseconds before a broken connection is taken up again; counted anew whenever bytes have come. */
const PAUSES = [250, 1000, 4000]
const PROGRESS_EVERY = 100 // milliseconds

class Download {
  private shown = 0

  constructor(
    private readonly client: HubClient,
    private readonly cache: HubCache,
    private readonly info: BlobInfo,
    private readonly signal: AbortSignal,
    private readonly onBytes: OnBytes,
  ) {}

  async run(): Promise<void> {
    this.onBytes(undefined)
    const { hash } = this.info
    const part = await this.cache.claimPart(hash)
    try {
      const handle = await open(part, 'a+')
      try {
        await this.fill(handle, part)
        await handle.sync()
      } finally {
        await handle.close()
      }
      await this.cache.finishPart(hash, part)
    } catch (error) {
      await this.cache.releasePart(hash, part)
      throw error
    }
  }

  /** Appends to the part until it is the whole file. */
  private async fill(handle: FileHandle, part: string): Promise<void> {
    const { path, size, hash } = this.info
    let failures = 0
    for (;;) {
      const before = (await handle.stat()).size
      const hasher = await this.hashPart(part, before)
      let end = before
      if (before < size) {
        try {
          end = await this.receive(handle, before, hasher)
        } catch (error) {
          if (!(error instanceof RangeIgnored)) throw error
          await handle.truncate(0)
          continue
        }
        failures = end > before ? 0 : failures + 1
      }
      if (end < size) {
        if (failures > PAUSES.length) throw new HubUnreachable(`the connection for ${path} of ${this.client.id} breaks again and again, last at byte ${end} of ${size}`, { file: path })
        await delay(PAUSES[Math.max(0, failures - 1)], undefined, { signal: this.signal })
        continue
      }
      const got = hasher.digest('hex')
      if (end === size && got === hash) return
      // Nothing of this is of use. If a part of it is from an earlier attempt, that may have been at fault.
      await handle.truncate(0)
      if (before > 0) continue
      const what = end === size ? `has the hash ${got}` : `has more than ${size} bytes`
      throw new WrongContent(`${path} of ${this.client.id} ${what}; the Hub's listing says ${size} bytes and ${hash}`, { file: path })
    }
  }

  private async hashPart(part: string, size: number): Promise<Hash> {
    const hasher = this.info.hash.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${this.info.size}\0`)
    if (size > 0) for await (const piece of createReadStream(part, { end: size - 1, signal: this.signal })) hasher.update(piece as Buffer)
    return hasher
  }

  /** Appends what comes from `start` on. A connection that breaks ends it early; the size then tells. */
  private async receive(handle: FileHandle, start: number, hasher: Hash): Promise<number> {
    const { path, size, hash } = this.info
    const { client } = this
    let refused: unknown
    const blob = await downloadFile({
      repo: { type: 'model', name: client.id },
      path,
      xet: false,
      downloadInfo: { size, etag: hash, url: client.address(path) },
      // The library passes on the message only.
      fetch: (input, init) =>
        client.fetch(input, init).catch((error: unknown) => {
          refused = error
          throw error
        }),
    })
    const reader = (start > 0 ? blob!.slice(start, size) : blob!).stream().getReader()
    let end = start
    try {
      while (end <= size) {
        let piece: Awaited<ReturnType<typeof reader.read>>
        try {
          piece = await reader.read()
        } catch {
          this.signal.throwIfAborted()
          if (refused !== undefined) throw refused
          break
        }
        if (piece.done) break
        hasher.update(piece.value)
        for (let done = 0; done < piece.value.length; ) done += (await handle.write(piece.value, done)).bytesWritten
        end += piece.value.length
        this.show(end)
      }
    } finally {
      reader.cancel().catch(() => {})
    }
    return end
  }

  private show(loaded: number): void {
    const now = performance.now()
    if (loaded < this.info.size && now - this.shown < PROGRESS_EVERY) return
    this.shown = now
    this.onBytes(loaded)
  }
}
