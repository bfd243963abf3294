// One file of the Hub into the cache: bytes go into a part file and are hashed as they come; a connection that breaks is taken up where
// it broke, in this call and in later ones. The part becomes the blob only if size and hash are those of the Hub's listing: sha256 for large
// files, git's sha1 of 'blob <size>\0' and the content for others.

import { type Hash, createHash } from 'node:crypto'
import { constants } from 'node:fs'
import { type FileHandle, open, rm } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import { downloadFile } from '@huggingface/hub'
import { CheckpointError } from '../core/errors.js'
import { type HubCache, hasSize } from './hub-cache.js'
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

/** Pauses in milliseconds before a broken connection is taken up again; counted anew whenever it came further than before. */
const PAUSES = [250, 1000, 4000]
const PROGRESS_EVERY = 100 // milliseconds

class Download {
  private shown = 0
  /** The byte that this call has come to, and how often it came no further. */
  private furthest = 0
  private failures = 0
  /** Whether wrong content may be the fault of an earlier attempt. */
  private forgiving = true

  constructor(
    private readonly client: HubClient,
    private readonly cache: HubCache,
    private readonly info: BlobInfo,
    private readonly signal: AbortSignal,
    private readonly onBytes: OnBytes,
  ) {}

  async run(): Promise<void> {
    this.onBytes(undefined)
    const { path, hash, size } = this.info
    const { cache } = this
    let lost = 0
    for (let part = await cache.claimPart(hash); ; part = cache.newPart(hash)) {
      let whole: boolean
      try {
        const handle = await open(part, constants.O_RDWR | constants.O_CREAT)
        try {
          whole = await this.fill(handle)
          if (whole) await handle.sync()
        } finally {
          await handle.close()
        }
        if (whole && (await cache.finishPart(hash, part, size))) return
      } catch (error) {
        if (error instanceof WrongContent) await rm(part, { force: true })
        else await cache.releasePart(hash, part)
        throw error
      }
      // Parts are not emptied: where a process only looked gone, another one may be writing to its part.
      await rm(part, { force: true })
      if (await hasSize(cache.blob(hash), size)) return
      if (whole && ++lost > PAUSES.length) throw new CheckpointError(`another program takes the part files of ${path} away: ${part}`, { file: path })
    }
  }

  /** Writes to the part until it is the whole file; false if it is of no use. */
  private async fill(handle: FileHandle): Promise<boolean> {
    const { path, size, hash } = this.info
    for (;;) {
      const before = (await handle.stat()).size
      const hasher = await this.hashPart(handle, before)
      let end = before
      if (before < size) {
        try {
          end = await this.receive(handle, before, hasher)
        } catch (error) {
          if (error instanceof RangeIgnored) return false
          throw error
        }
        this.failures = end > this.furthest ? 0 : this.failures + 1
        this.furthest = Math.max(this.furthest, end)
      }
      if (end < size) {
        if (this.failures > PAUSES.length) throw new HubUnreachable(`the connection for ${path} of ${this.client.id} breaks again and again, last at byte ${end} of ${size}`, { file: path })
        await delay(PAUSES[Math.max(0, this.failures - 1)], undefined, { signal: this.signal })
        continue
      }
      const got = hasher.digest('hex')
      if (end === size && got === hash) return true
      // Nothing of this is of use. If a part of it is from an earlier attempt, that may have been at fault.
      if (before > 0 && this.forgiving) {
        this.forgiving = false
        return false
      }
      const what = end === size ? `has the hash ${got}` : `has more than ${size} bytes`
      throw new WrongContent(`${path} of ${this.client.id} ${what}; the Hub's listing says ${size} bytes and ${hash}`, { file: path })
    }
  }

  private async hashPart(handle: FileHandle, size: number): Promise<Hash> {
    const hasher = this.info.hash.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${this.info.size}\0`)
    const buffer = Buffer.allocUnsafe(Math.min(size, 1 << 20))
    for (let at = 0; at < size; ) {
      this.signal.throwIfAborted()
      const { bytesRead } = await handle.read(buffer, 0, Math.min(buffer.length, size - at), at)
      if (bytesRead === 0) break
      hasher.update(buffer.subarray(0, bytesRead))
      at += bytesRead
    }
    return hasher
  }

  /** Writes what comes from `start` on, each byte at its place: who else writes to the part writes the same. A connection that breaks ends it early; the size then tells. */
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
      for (;;) {
        let piece: Awaited<ReturnType<typeof reader.read>>
        try {
          piece = await reader.read()
        } catch {
          this.signal.throwIfAborted()
          if (refused !== undefined) throw refused
          break
        }
        if (piece.done) break
        // Too much is wrong: nothing of it is written where another process may be publishing the part.
        if (end + piece.value.length > size) return end + piece.value.length
        hasher.update(piece.value)
        for (let done = 0; done < piece.value.length; ) done += (await handle.write(piece.value, done, undefined, end + done)).bytesWritten
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
