// How the Hub is spoken to: endpoint, token, one guarded fetch. @huggingface/hub gets this fetch, so that no request of its can carry the
// token to another host (redirects lead to content delivery networks), hang on after an abort, or fail with an untyped error.

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { CheckpointError } from '../core/errors.js'
import { hubHome, isCommitName, pathVariable } from './hub-cache.js'

/** Where the Hub is: HF_ENDPOINT or https://huggingface.co, without a slash at the end. */
export function hubEndpoint(): string {
  const endpoint = (process.env['HF_ENDPOINT'] || 'https://huggingface.co').replace(/\/+$/, '')
  if (!/^https?:\/\//.test(endpoint) || !URL.canParse(endpoint)) {
    throw new CheckpointError(`HF_ENDPOINT is ${JSON.stringify(endpoint)}; expected an http or https address`, { field: 'HF_ENDPOINT' })
  }
  return endpoint
}

const isSet = (value: string | undefined) => /^(1|true|yes|on)$/i.test(value ?? '')

/** Whether the environment forbids the network. */
export function isOffline(): boolean {
  return isSet(process.env['HF_HUB_OFFLINE']) || isSet(process.env['TRANSFORMERS_OFFLINE'])
}

/** The token given, else HF_TOKEN, else the file that `hf auth login` writes (HF_TOKEN_PATH or HF_HOME/token). */
export async function hubToken(given?: string): Promise<string | undefined> {
  let token = given
  if (token === undefined && !isSet(process.env['HF_HUB_DISABLE_IMPLICIT_TOKEN'])) {
    const path = pathVariable('HF_TOKEN_PATH') ?? join(hubHome(), 'token')
    token = process.env['HF_TOKEN'] || process.env['HUGGING_FACE_HUB_TOKEN'] || (await readFile(path, 'utf8').catch(() => undefined))
  }
  token = token?.trim()
  // The message must not repeat the token, as fetch's own would.
  if (token && !/^[\x21-\x7e]+$/.test(token)) throw new CheckpointError('the Hub token has characters that no token has', { field: 'HF_TOKEN' })
  return token || undefined
}

/** The network could not be reached, or broke off; with the cache there may be a way on. */
export class HubUnreachable extends CheckpointError {
  override name = 'CheckpointError' // to the user it is one
}

/** The server does not do ranges: what is there already cannot be gone on from. */
export class RangeIgnored extends CheckpointError {
  override name = 'CheckpointError'
}

const MAX_REDIRECTS = 10
/** Requests in all before giving up, if the server is busy or broken. */
const ATTEMPTS = 4
/** The same if it does not answer at all; this is what everyone without a network waits for. */
const ATTEMPTS_UNREACHED = 2
const REDIRECTS = new Set([301, 302, 303, 307, 308])
const FOR_A_WHILE = new Set([408, 429, 500, 502, 503, 504])

/** One repository, one revision. */
export class HubClient {
  /** The commit that the revision is at, once an answer has said so. */
  commit: string | undefined
  /** Whether two answers named different commits: the branch moved meanwhile. */
  moved = false

  constructor(
    readonly id: string,
    readonly revision: string,
    readonly endpoint: string,
    private readonly token: string | undefined,
    private readonly signal: AbortSignal,
  ) {}

  get page(): string {
    return `${this.endpoint}/${this.id}`
  }

  /** Address of a file. */
  address(path: string): string {
    return `${this.page}/resolve/${encodeURIComponent(this.revision)}/${path.split('/').map(encodeURIComponent).join('/')}`
  }

  /** fetch for @huggingface/hub. Answers other than success are thrown as CheckpointError, except that a file is not there. */
  readonly fetch: typeof fetch = async (input, init = {}) => {
    for (let attempt = 1; ; attempt++) {
      let problem: CheckpointError
      let attempts = ATTEMPTS
      let pause = 250 * 2 ** attempt
      try {
        const response = await this.follow(new URL(input instanceof Request ? input.url : input), init)
        if (response.ok) return checkRange(response, init, this.page)
        if (response.status === 404 && response.headers.get('x-error-code') === 'EntryNotFound') return response
        await response.body?.cancel()
        problem = this.refusal(response)
        if (!FOR_A_WHILE.has(response.status)) throw problem
        pause = Math.min(Math.max(pause, 1000 * Number(response.headers.get('retry-after') ?? 0) || 0), 30_000)
      } catch (cause) {
        this.signal.throwIfAborted()
        if (cause instanceof CheckpointError) throw cause
        attempts = ATTEMPTS_UNREACHED
        problem = new HubUnreachable(`${this.endpoint} could not be reached for ${this.id}: ${reasonOf(cause)}${proxyHint()}`, { file: this.page, cause })
      }
      if (attempt >= attempts) throw problem
      await delay(pause, undefined, { signal: this.signal }).catch(() => this.signal.throwIfAborted())
    }
  }

  /** Follows redirects by hand: the token is sent to the endpoint itself and nowhere else. */
  private async follow(url: URL, init: RequestInit): Promise<Response> {
    const home = new URL(this.endpoint).origin
    let method = init.method ?? 'GET'
    for (let i = 0; i <= MAX_REDIRECTS; i++) {
      if (url.protocol !== 'http:' && url.protocol !== 'https:') break
      const headers = new Headers(init.headers)
      headers.delete('authorization')
      headers.set('user-agent', 'chiasma')
      // Ranges and sizes count bytes of the file, not of a compressed form of it.
      headers.set('accept-encoding', 'identity')
      if (this.token && url.origin === home) headers.set('authorization', `Bearer ${this.token}`)
      const body = method === 'GET' ? undefined : init.body
      const response = await fetch(url, { method, headers, body, redirect: 'manual', signal: this.signal })
      if (url.origin === home) this.noteCommit(response.headers.get('x-repo-commit'))
      const location = response.headers.get('location')
      if (!REDIRECTS.has(response.status) || location === null) return response
      await response.body?.cancel()
      if (response.status === 303) method = 'GET'
      url = new URL(location, url)
    }
    throw new CheckpointError(`${this.page} redirects too often or to what is no web address`, { file: this.page })
  }

  private noteCommit(commit: string | null): void {
    if (commit === null || !isCommitName(commit)) return
    if (this.commit !== undefined && this.commit !== commit) this.moved = true
    this.commit = commit
  }

  private refusal(response: Response): CheckpointError {
    const { status } = response
    const code = response.headers.get('x-error-code')
    const detail = response.headers.get('x-error-message')
    const say = (text: string) => new CheckpointError(detail ? `${text} (the Hub says: ${detail})` : text, { file: this.page })
    if (status === 401 || status === 403) {
      const token = this.token ? 'the token that was sent does not give access to it' : 'no token was sent'
      if (code === 'GatedRepo') {
        return say(`${this.id} is gated and ${token}; accept its licence at ${this.page}, and set HF_TOKEN to a token of that account`)
      }
      return say(`${this.id} is private, gated or not there, and ${token}; see ${this.page} (licences are accepted there), and set HF_TOKEN to a token with access`)
    }
    if (status === 404) {
      if (code === 'RevisionNotFound') return say(`${this.id} has no revision ${this.revision} on ${this.endpoint}`)
      return say(`${this.id} is not on ${this.endpoint} (revision ${this.revision}), and no folder of that name is here`)
    }
    if (status === 429) return say(`${this.endpoint} takes no more requests for now (status 429)`)
    return say(`${this.endpoint} answered with status ${status} for ${this.id}`)
  }
}

/** An answer to a range must be that range, or bytes would end up in the wrong place. */
async function checkRange(response: Response, init: RequestInit, page: string): Promise<Response> {
  const asked = /^bytes=(\d+)-/.exec(new Headers(init.headers).get('range') ?? '')?.[1]
  if (asked === undefined) return response
  const given = /^bytes (\d+)-/.exec(response.headers.get('content-range') ?? '')?.[1]
  if (response.status === 206 && given === asked) return response
  await response.body?.cancel()
  throw new RangeIgnored(`${page} was asked for bytes from ${asked} on, and answered ${response.status} with bytes from ${given ?? 0} on`, { file: page })
}

function reasonOf(error: unknown): string {
  const cause = (error as { cause?: unknown }).cause
  const inner = cause instanceof AggregateError ? cause.errors[0] : cause
  return inner instanceof Error ? inner.message : error instanceof Error ? error.message : String(error)
}

/** Who has a proxy expects it to be used. Its address may have a password in it. */
function proxyHint(): string {
  const name = ['HTTPS_PROXY', 'https_proxy', 'HTTP_PROXY', 'http_proxy', 'ALL_PROXY', 'all_proxy'].find(variable => process.env[variable])
  if (name === undefined || process.env['NODE_USE_ENV_PROXY'] === '1') return ''
  return ` (${name} is set: Node's fetch uses HTTPS_PROXY and HTTP_PROXY only with NODE_USE_ENV_PROXY=1, in Node 22.21, 24 and later)`
}
