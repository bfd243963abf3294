// The Hub's local cache, shared with Python's huggingface_hub: models--org--name/{blobs,snapshots,refs,.no_exist}. Blobs are named by
// their hash, snapshots/<commit> has symbolic links to them, refs/<branch> the commit, .no_exist/<commit> empty files for what the repository
// does not have. See https://huggingface.co/docs/hub/local-cache.
// A blob being downloaded is a part file that one process owns: abandoned ones are claimed by renaming, which only one process can win. Its name
// is none that huggingface_hub uses. Where process ids are of several namespaces, an owner may look gone and yet write: it then finds its part taken.

import { createHash, randomBytes } from 'node:crypto'
import { copyFile, mkdir, readFile, readdir, realpath, rename, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { homedir, hostname } from 'node:os'
import { basename, dirname, join, relative } from 'node:path'
import { isFile } from './entry.js'
import { checkInside } from './paths.js'
import { isAlive } from './process-alive.js'

/** A path of the environment; the home folder's `~` is there where no shell has seen it. */
export function pathVariable(name: string): string | undefined {
  return process.env[name]?.replace(/^~(?=$|[/\\])/, homedir) || undefined
}

/** `~/.cache/huggingface`, or where HF_HOME says. */
export function hubHome(): string {
  const cache = pathVariable('XDG_CACHE_HOME') ?? join(homedir(), '.cache')
  return pathVariable('HF_HOME') ?? join(cache, 'huggingface')
}

/** HF_HUB_CACHE, else `hub` in HF_HOME. */
export function hubCacheFolder(given?: string): string {
  return given ?? pathVariable('HF_HUB_CACHE') ?? pathVariable('HUGGINGFACE_HUB_CACHE') ?? join(hubHome(), 'hub')
}

/** Whether a revision is a commit itself, and no branch or tag. */
export const isCommit = (revision: string) => /^[0-9a-f]{40}$/.test(revision)
/** What a server may call a commit: it becomes the name of a folder. */
export const isCommitName = (commit: string) => /^[\w-]{4,64}$/.test(commit)
const host = createHash('sha256').update(hostname()).digest('hex').slice(0, 8)

export class HubCache {
  readonly folder: string

  constructor(
    cacheDir: string,
    id: string,
    readonly revision: string,
  ) {
    checkInside(revision, 'revision', revision)
    this.folder = join(cacheDir, `models--${id.split('/').join('--')}`)
  }

  /** The commit that the revision was at when it was last fetched. */
  async commit(): Promise<string | undefined> {
    if (isCommit(this.revision)) return this.revision
    const commit = (await readFile(join(this.folder, 'refs', this.revision), 'utf8').catch(() => '')).trim()
    return isCommitName(commit) ? commit : undefined
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit)
  }

  /** Whether the snapshot has the file, or is known not to. */
  async lookUp(commit: string, path: string): Promise<'there' | 'absent' | 'unknown'> {
    if (await isFile(join(this.snapshot(commit), path))) return 'there'
    return (await isFile(join(this.folder, '.no_exist', commit, path))) ? 'absent' : 'unknown'
  }

  blob(hash: string): string {
    return join(this.folder, 'blobs', hash)
  }

  /** Makes the snapshot of a commit: links to blobs, marks for what is not there, and last the branch's name for it. */
  async publish(commit: string, files: ReadonlyMap<string, string>, absent: Iterable<string>): Promise<string> {
    const snapshot = this.snapshot(commit)
    for (const [path, blob] of files) await link(blob, join(snapshot, path))
    try {
      await this.note(commit, absent)
    } catch (error) {
      // All files are there: a cache that only others may write to does without notes.
      if (!isOneOf(error, NO_WRITING)) throw error
    }
    return snapshot
  }

  private async note(commit: string, absent: Iterable<string>): Promise<void> {
    for (const path of absent) {
      const mark = join(this.folder, '.no_exist', commit, path)
      await mkdir(dirname(mark), { recursive: true })
      await writeFile(mark, '')
    }
    if (isCommit(this.revision)) return
    const ref = join(this.folder, 'refs', this.revision)
    await mkdir(dirname(ref), { recursive: true })
    const temporary = temporaryName(ref)
    await writeFile(temporary, commit)
    await rename(temporary, ref)
  }

  /** A part file of the blob for this call; it may have content already, from a download that broke off. */
  async claimPart(hash: string): Promise<string> {
    const own = this.newPart(hash)
    await mkdir(dirname(own), { recursive: true })
    for (const left of await this.abandonedParts(hash)) {
      // Another process may be faster; then the name is gone.
      if (await rename(left, own).then(() => true, () => false)) break
    }
    return own
  }

  /** The name of a part file that is not there yet. */
  newPart(hash: string): string {
    return `${this.blob(hash)}.${host}-${process.pid}-${randomBytes(4).toString('hex')}.incomplete`
  }

  /** Leaves a part that is not complete for the next attempt. */
  async releasePart(hash: string, part: string): Promise<void> {
    const size = await stat(part).then(stats => stats.size, () => 0)
    if (size === 0) await rm(part, { force: true })
    else await rename(part, this.releasedPart(hash))
  }

  /** A part whose content has been verified becomes the blob; false if another process has taken it. */
  async finishPart(hash: string, part: string, size: number): Promise<boolean> {
    if (!(await hasSize(part, size))) return false
    try {
      await rename(part, this.blob(hash))
    } catch (error) {
      if (!isOneOf(error, ['ENOENT'])) throw error
      return false
    }
    for (const left of await this.abandonedParts(hash)) await rm(left, { force: true })
    return true
  }

  private releasedPart(hash: string): string {
    return `${this.blob(hash)}.chiasma.incomplete`
  }

  /** Parts that nobody writes to: released ones, and those of processes on this machine that are gone. */
  private async abandonedParts(hash: string): Promise<string[]> {
    const names = await readdir(join(this.folder, 'blobs')).catch(() => [])
    const paths = names.map(name => join(this.folder, 'blobs', name))
    return paths.filter(path => {
      if (path === this.releasedPart(hash)) return true
      const [, blob, owner, pid] = /^([0-9a-f]+)\.([0-9a-f]{8})-(\d+)-[0-9a-f]+\.incomplete$/.exec(basename(path)) ?? []
      return blob === hash && owner === host && !isAlive(Number(pid))
    })
  }
}

export async function hasSize(file: string, size: number): Promise<boolean> {
  return stat(file).then(stats => stats.isFile() && stats.size === size, () => false)
}

const temporaryName = (path: string) => `${path}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`

/** Codes of a folder or file system that is not to be written to. */
const NO_WRITING = ['EROFS', 'EACCES', 'EPERM']
/** Codes of a system, or a file system, that has no links: Windows without developer mode, some network drives. */
const NO_LINKS = ['EPERM', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS']
const isOneOf = (error: unknown, codes: readonly string[]) => codes.includes((error as NodeJS.ErrnoException).code ?? '')

/** A relative link, put in place at once if it is not there; a copy where there are no links. */
async function link(blob: string, path: string): Promise<void> {
  if ((await realpath(path).catch(() => '')) === (await realpath(blob))) return
  await mkdir(dirname(path), { recursive: true })
  const temporary = temporaryName(path)
  try {
    await symlink(relative(dirname(path), blob), temporary)
  } catch (error) {
    if (!isOneOf(error, NO_LINKS)) throw error
    await copyFile(blob, temporary)
  }
  await rename(temporary, path)
}
