// A repository on the Hub as a store of files, through @huggingface/hub's pathsInfo, listFiles and downloadFile. Listings are believed about
// nothing but names (checked), sizes and hashes (checked when the bytes come).

import { createHash } from 'node:crypto'
import { basename } from 'node:path'
import { type PathInfo, fileDownloadInfo, listFiles, pathsInfo } from '@huggingface/hub'
import { CheckpointError } from '../core/errors.js'
import type { ProgressEvent, SourceOptions } from './hub.js'
import { type HubCache, isCommit, isCommitName } from './hub-cache.js'
import { HubClient, hubEndpoint, hubToken } from './hub-client.js'
import { WrongContent, fetchBlob } from './hub-download.js'
import { type FileGroup, type FileStore, gather } from './hub-files.js'
import { checkInside } from './paths.js'

/** How often a repository is begun anew when its branch moves in the middle. */
const RESTARTS = 3

/**
 * Fetches what is missing in the cache and makes the snapshot.
 * @throws CheckpointError, HubUnreachable
 */
export async function fetchRepository(
  cache: HubCache,
  id: string,
  files: readonly FileGroup[],
  options: SourceOptions,
): Promise<{ folder: string; revision: string }> {
  const endpoint = hubEndpoint()
  const token = await hubToken(options.token)
  for (let restart = 0; ; restart++) {
    // Ends what is under way when one part of it has failed.
    const ended = new AbortController()
    const signal = options.signal ? AbortSignal.any([options.signal, ended.signal]) : ended.signal
    const client = new HubClient(id, cache.revision, endpoint, token, signal)
    const repository = new HubRepository(client, cache, signal, options.onProgress ?? (() => {}))
    try {
      await gather(repository, files)
      const commit = await repository.commit()
      if (!client.moved) return { folder: await cache.publish(commit, repository.blobs, repository.absent), revision: commit }
    } catch (error) {
      options.signal?.throwIfAborted()
      // A file that is not as listed may be that of a newer commit; another listing shows it.
      const mayHaveMoved = !isCommit(cache.revision) && (client.moved || (error instanceof WrongContent && restart === 0))
      if (!mayHaveMoved || restart === RESTARTS) throw systemError(cache, error)
    } finally {
      ended.abort()
    }
    if (restart === RESTARTS) throw new CheckpointError(`${id} changes on the Hub while it is fetched; try again, or give a commit as the revision`, { file: id })
  }
}

function systemError(cache: HubCache, error: unknown): unknown {
  if (error instanceof Error && 'syscall' in error && !(error instanceof CheckpointError)) {
    return new CheckpointError(`the cache ${cache.folder} cannot be written: ${error.message}`, { file: cache.folder, cause: error })
  }
  return error
}

/** What we read of a PathInfo or ListFileEntry. */
type Info = Pick<PathInfo, 'oid' | 'size' | 'lfs'> & { lastCommit?: { id: string; date: string | Date } }

/** A repository on the Hub. */
class HubRepository implements FileStore {
  readonly blobs = new Map<string, string>()
  readonly absent = new Set<string>()
  private readonly infos = new Map<string, Info>()

  constructor(
    private readonly client: HubClient,
    private readonly cache: HubCache,
    private readonly signal: AbortSignal,
    private readonly emit: (event: ProgressEvent) => void,
  ) {}

  get name(): string {
    return this.client.id
  }

  private get params() {
    const { id, revision, endpoint, fetch } = this.client
    return { repo: { type: 'model' as const, name: id }, revision, hubUrl: endpoint, fetch }
  }

  async find(paths: readonly string[]): Promise<Set<string>> {
    const found = new Set<string>()
    for (let i = 0; i < paths.length; i += 100) {
      const wanted = paths.slice(i, i + 100)
      for (const info of await this.understood(() => pathsInfo({ ...this.params, paths: wanted, expand: true }))) {
        if (!this.isFile(info) || !wanted.includes(info.path)) continue
        found.add(info.path)
        this.infos.set(info.path, info)
      }
    }
    for (const path of paths) if (!found.has(path)) this.absent.add(path)
    return found
  }

  async first(paths: readonly string[]): Promise<string | undefined> {
    const found = await this.find(paths)
    return paths.find(path => found.has(path))
  }

  async list(): Promise<string[]> {
    const files = (await this.understood(() => collect(listFiles({ ...this.params, revision: encodeURIComponent(this.client.revision) })))).filter(entry => this.isFile(entry))
    for (const file of files) this.infos.set(file.path, file)
    return files.map(file => file.path)
  }

  private isFile(info: { path: string; type: string }): boolean {
    checkInside(String(info.path), `the Hub's list of ${this.name}`, this.name)
    return info.type === 'file'
  }

  /** Errors of @huggingface/hub that are not ours: an answer that is no JSON, or not of the form expected. */
  private async understood<T>(ask: () => Promise<T>): Promise<T> {
    try {
      return await ask()
    } catch (error) {
      this.signal.throwIfAborted()
      if (error instanceof CheckpointError) throw error
      throw new CheckpointError(`the answer of ${this.client.endpoint} on ${this.name} is not understood: ${(error as Error).message}`, { file: this.name, cause: error })
    }
  }

  async get(path: string): Promise<string> {
    const known = this.blobs.get(path)
    if (known !== undefined) return known
    const info = this.infos.get(path)
    const hash = info?.lfs?.oid ?? info?.oid ?? ''
    const size = info?.lfs?.size ?? info?.size
    if (!/^([0-9a-f]{40}|[0-9a-f]{64})$/.test(hash) || !Number.isSafeInteger(size) || size! < 0) {
      throw new CheckpointError(`the Hub gives no valid hash and size of ${path} in ${this.name}`, { file: path })
    }
    const event = { name: this.name, file: path }
    this.emit({ status: 'initiate', ...event })
    const blob = await fetchBlob(this.client, this.cache, { path, hash, size: size! }, this.signal, loaded => {
      if (loaded === undefined) this.emit({ status: 'download', ...event })
      else this.emit({ status: 'progress', ...event, progress: size === 0 ? 100 : (100 * loaded) / size!, loaded, total: size! })
    })
    this.emit({ status: 'done', ...event })
    this.blobs.set(path, blob)
    return blob
  }

  /** The commit that the files are of. */
  async commit(): Promise<string> {
    if (isCommit(this.cache.revision)) return this.cache.revision
    const [first] = this.blobs.keys()
    if (first === undefined) throw new CheckpointError(`${this.name} has none of the files that a model needs`, { file: this.name })
    // Every answer of the Hub to a file names it; if all blobs were in the cache, there was none yet.
    if (this.client.commit === undefined) await fileDownloadInfo({ ...this.params, path: first }).catch(() => undefined)
    if (this.client.commit !== undefined) return this.client.commit
    // A mirror that does not say has perhaps told when its files were changed last; else the state is named by what it consists of.
    const changes = [...this.infos.values()].flatMap(info => info.lastCommit ?? []).sort((a, b) => +new Date(b.date) - +new Date(a.date))
    const latest = changes.find(({ id }) => isCommitName(String(id)))?.id
    return latest ?? createHash('sha1').update(JSON.stringify([...this.blobs].map(([path, blob]) => [path, basename(blob)]).sort())).digest('hex')
  }
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}
