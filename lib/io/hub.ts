// From what a user names as a model (a folder, a file, or a repository on the Hub) to a local folder. A repository's files go into the Hub's
// ordinary cache; what is there is not asked for again, what broke off is resumed, and all that comes is checked by size and hash.

import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { type PathInfo, fileDownloadInfo, listFiles, pathsInfo } from '@huggingface/hub'
import { CheckpointError } from '../core/errors.js'
import { isWeights } from './checkpoint.js'
import { HubCache, hubCacheFolder } from './hub-cache.js'
import { HubClient, HubUnreachable, hubEndpoint, hubToken, isOffline } from './hub-client.js'
import { fetchBlob } from './hub-download.js'
import { type FileGroup, type FileStore, gather } from './hub-files.js'
import { checkInside } from './paths.js'

/** What transformers.js's progress_callback gets. `progress` is in percent, `loaded` and `total` in bytes. */
export type ProgressEvent =
  | { status: 'initiate' | 'download' | 'done'; name: string; file: string }
  | { status: 'progress'; name: string; file: string; progress: number; loaded: number; total: number }
  | { status: 'ready'; task: string; model: string }

export interface SourceOptions {
  /** What is needed of the repository; default all. */
  files?: readonly FileGroup[]
  /** Default: HF_HUB_CACHE, else `hub` in HF_HOME. */
  cacheDir?: string
  /** Branch, tag or commit; default 'main'. */
  revision?: string
  /** Only what is in the cache; also by HF_HUB_OFFLINE=1. */
  localFilesOnly?: boolean
  /** Default: HF_TOKEN, else the file of `hf auth login`. */
  token?: string
  signal?: AbortSignal
  onProgress?: (event: ProgressEvent) => void
}

/**
 * Finds the folder of a model, fetching what is missing from the Hub.
 *
 * @param source a folder or weight file, or a repository id such as 'openai/clip-vit-base-patch32'
 * @returns the folder (for a weight file, the file), and for a repository the commit
 * @throws CheckpointError: neither a folder nor an id, no access (names the licence page), not there, not reachable, a wrong hash, a full disk
 */
export async function resolveSource(source: string, options: SourceOptions = {}): Promise<{ folder: string; revision?: string }> {
  const { files = ['config', 'weights', 'tokenizer', 'processor'], signal } = options
  signal?.throwIfAborted()
  if (typeof source !== 'string' || source === '') throw new CheckpointError(`the model source is ${JSON.stringify(source)}; expected a folder or a Hub id`, { field: 'source' })
  if (await stat(source).then(() => true, () => false)) return { folder: source }
  if (!isRepositoryId(source)) throw new CheckpointError(`${source} is not there, and no Hub id (name or organisation/name) either`, { file: source })

  const cache = new HubCache(hubCacheFolder(options.cacheDir), source, options.revision ?? 'main')
  const emit = options.onProgress ?? (() => {})
  const cached = await cache.commit()
  if (cached !== undefined) {
    const complete = await new CachedRepository(cache, source, cached, emit, true).gather(files)
    if (complete) return complete
  }
  const fallBack = async () => (cached === undefined ? undefined : new CachedRepository(cache, source, cached, emit, false).gather(files))
  if (options.localFilesOnly || isOffline()) {
    const usable = await fallBack()
    if (usable) return usable
    throw new CheckpointError(`${source} (revision ${cache.revision}) is not complete in the cache ${cache.folder}, and the network is not to be used`, { file: source })
  }
  try {
    return await fetchRepository(cache, source, files, options)
  } catch (error) {
    // Without a network, what another program has put into the cache may be enough.
    const usable = error instanceof HubUnreachable ? await fallBack() : undefined
    if (usable) return usable
    throw error
  }
}

/** The Hub's own rule: up to 96 letters, digits, '-', '_' and '.', no '--' or '..', no '-' or '.' at the ends. */
function isRepositoryId(source: string): boolean {
  return source.length <= 96 && /^(\w|\w[\w.-]*\w)(\/(\w|\w[\w.-]*\w))?$/.test(source) && !/--|\.\./.test(source)
}

class Incomplete extends Error {}

/** What the cache has of one commit. */
class CachedRepository implements FileStore {
  private readonly got = new Set<string>()

  constructor(
    private readonly cache: HubCache,
    readonly name: string,
    private readonly commit: string,
    private readonly emit: (event: ProgressEvent) => void,
    /** Whether every file must be known to be there or not to exist; otherwise a config and weights are enough. */
    private readonly strict: boolean,
  ) {}

  /** The snapshot, if it has all that the groups need. */
  async gather(groups: readonly FileGroup[]): Promise<{ folder: string; revision: string } | undefined> {
    try {
      await gather(this, groups)
    } catch (error) {
      if (error instanceof Incomplete || !this.strict) return undefined
      throw error
    }
    const lacksConfig = groups.includes('config') && !this.got.has('config.json') && !this.got.has('modules.json')
    const lacksWeights = groups.includes('weights') && ![...this.got].some(isWeights)
    if (!this.strict && (lacksConfig || lacksWeights || this.got.size === 0)) return undefined
    for (const file of this.got) {
      this.emit({ status: 'initiate', name: this.name, file })
      this.emit({ status: 'done', name: this.name, file })
    }
    return { folder: this.cache.snapshot(this.commit), revision: this.commit }
  }

  async find(paths: readonly string[]): Promise<Set<string>> {
    const states = await Promise.all(paths.map(path => this.cache.lookUp(this.commit, path)))
    if (this.strict && states.includes('unknown')) throw new Incomplete()
    return new Set(paths.filter((_, i) => states[i] === 'there'))
  }

  async first(paths: readonly string[]): Promise<string | undefined> {
    for (const path of paths) {
      const state = await this.cache.lookUp(this.commit, path)
      if (state === 'there') return path
      if (this.strict && state === 'unknown') throw new Incomplete()
    }
    return undefined
  }

  async list(): Promise<string[]> {
    const names = await readdir(this.cache.snapshot(this.commit)).catch(() => [])
    // Weights of an unusual name are known only if they are here.
    if (this.strict && !names.some(isWeights)) throw new Incomplete()
    return names
  }

  async get(path: string): Promise<string> {
    this.got.add(path)
    return join(this.cache.snapshot(this.commit), path)
  }
}

/** How often a repository is begun anew when its branch moves in the middle. */
const RESTARTS = 3

async function fetchRepository(cache: HubCache, id: string, files: readonly FileGroup[], options: SourceOptions): Promise<{ folder: string; revision: string }> {
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
      throw systemError(cache, error)
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
    if (/^[0-9a-f]{40}$/.test(this.cache.revision)) return this.cache.revision
    const [first] = this.blobs.keys()
    if (first === undefined) throw new CheckpointError(`${this.name} has none of the files that a model needs`, { file: this.name })
    // Every answer of the Hub to a file names it; if all blobs were in the cache, there was none yet.
    if (this.client.commit === undefined) await fileDownloadInfo({ ...this.params, path: first }).catch(() => undefined)
    // A server that does not say has at least told when its files were changed last.
    const changes = [...this.infos.values()].flatMap(info => info.lastCommit ?? []).sort((a, b) => +new Date(b.date) - +new Date(a.date))
    const commit = this.client.commit ?? changes[0]?.id
    if (commit === undefined || !/^[0-9a-f]{40}$/.test(commit)) throw new CheckpointError(`the Hub does not say which commit of ${this.name} ${this.cache.revision} is`, { file: this.name })
    return commit
  }
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of items) all.push(item)
  return all
}
