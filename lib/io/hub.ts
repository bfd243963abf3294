// From what a user names as a model (a folder, a file, or a repository on the Hub) to a local folder. A repository's files go into the Hub's
// ordinary cache; what is there is not asked for again, what broke off is resumed, and all that comes is checked by size and hash.

import { readdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { CheckpointError } from '../core/errors.js'
import { option, type OptionRules } from '../core/options.js'
import { isWeights } from './checkpoint.js'
import { HubCache, hubCacheFolder } from './hub-cache.js'
import { HubUnreachable, isOffline } from './hub-client.js'
import { type FileGroup, type FileStore, gather } from './hub-files.js'

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

export const sourceOptionRules: OptionRules<SourceOptions> = {
  files: option.texts,
  cacheDir: option.text,
  revision: option.text,
  localFilesOnly: option.flag,
  token: option.text,
  signal: option.signal,
  onProgress: option.callback,
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
    // Loaded here only: most starts find everything in the cache and need no client.
    const { fetchRepository } = await import('./hub-repository.js')
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

/** One of these says what the model is. */
const CONFIGS = ['config.json', 'open_clip_config.json', 'modules.json']

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
    const lacksConfig = groups.includes('config') && !CONFIGS.some(name => this.got.has(name))
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
