// A Hub for tests: the routes that a download needs, on one port, and large files behind a redirect to a second one, as the real one
// sends them to a delivery network. It can break connections, lie and refuse.

import { createHash } from 'node:crypto'
import { type IncomingMessage, type Server, type ServerResponse, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Request {
  host: 'hub' | 'cdn'
  method: string
  path: string
  headers: IncomingMessage['headers']
}

export const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex')
export const gitHash = (bytes: Uint8Array) => createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex')

export class HubServer {
  commit = 'c'.repeat(40)
  readonly files = new Map<string, Buffer>()
  readonly requests: Request[] = []
  /** Files that are stored as large ones, by their sha256, and come from the other port. */
  readonly large = new Set<string>()
  /** Bytes after which the connection is cut, one number an answer to a file; then it is whole. */
  readonly cuts = new Map<string, number[]>()
  /** Answers in place of the ordinary one, by path; a count of how often. */
  refuse: ((request: Request) => { status: number; headers?: Record<string, string>; body?: string } | undefined) | undefined
  /** Changes what the listings say. */
  tamper: (entry: Record<string, unknown>) => Record<string, unknown> = entry => entry
  ranges = true
  namesCommit = true
  /** Milliseconds between pieces of 64 KB. */
  slowness = 0
  private readonly hub: Server
  private readonly cdn: Server

  private constructor(readonly id: string) {
    this.hub = createServer((request, response) => void this.answer('hub', request, response))
    this.cdn = createServer((request, response) => void this.answer('cdn', request, response))
  }

  /** `large`: names of the files that are stored as large ones. */
  static async start(files: Record<string, string | Buffer>, large: string[] = [], id = 'someone/some-model'): Promise<HubServer> {
    const server = new HubServer(id)
    for (const [name, content] of Object.entries(files)) server.files.set(name, Buffer.from(content as string))
    for (const name of large) server.large.add(name)
    for (const one of [server.hub, server.cdn]) await new Promise<void>(resolve => one.listen(0, '127.0.0.1', resolve))
    return server
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.hub.address() as AddressInfo).port}`
  }

  async close(): Promise<void> {
    for (const one of [this.hub, this.cdn]) {
      one.closeAllConnections()
      await new Promise(resolve => one.close(resolve))
    }
  }

  /** Paths of the files that were sent, in order; each once for each request. */
  sent(): string[] {
    return this.requests.flatMap(({ host, path }) => {
      const file = /\/resolve\/[^/]+\/(.*)$/.exec(path)?.[1]
      return file !== undefined && (host === 'cdn' || !this.large.has(file)) ? [file] : []
    })
  }

  private async answer(host: 'hub' | 'cdn', request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url!
    const entry: Request = { host, method: request.method!, path, headers: request.headers }
    this.requests.push(entry)
    const refused = this.refuse?.(entry)
    if (refused) return void response.writeHead(refused.status, refused.headers).end(refused.body ?? '')
    let body = ''
    for await (const piece of request) body += String(piece)
    const listing = new RegExp(`^/api/models/${this.id}/paths-info/`).test(path)
    const tree = new RegExp(`^/api/models/${this.id}/tree/`).test(path)
    if (listing || tree) {
      const wanted = listing ? (JSON.parse(body) as { paths: string[] }).paths : [...this.files.keys()].filter(name => !name.includes('/'))
      const entries = wanted.filter(name => this.files.has(name)).map(name => this.tamper(this.describe(name)))
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(entries))
      return
    }
    const name = decodeURIComponent(new RegExp(`^/${this.id}/resolve/[^/]+/(.*)$`).exec(path)?.[1] ?? '')
    const content = this.files.get(name)
    if (!content) return void response.writeHead(404, { 'x-error-code': 'EntryNotFound' }).end('not there')
    const headers = { etag: `"${gitHash(content)}"`, ...(this.namesCommit && host === 'hub' && { 'x-repo-commit': this.commit }) }
    if (host === 'hub' && this.large.has(name)) {
      const location = `http://127.0.0.1:${(this.cdn.address() as AddressInfo).port}${request.url}`
      response.writeHead(302, { ...headers, location, 'x-linked-etag': `"${sha256(content)}"`, 'x-linked-size': content.length }).end()
      return
    }
    await this.send(name, content, headers, request.headers.range, response)
  }

  private describe(name: string): Record<string, unknown> {
    const content = this.files.get(name)!
    const lfs = this.large.has(name) ? { lfs: { oid: sha256(content), size: content.length, pointerSize: 130 } } : {}
    return { type: 'file', path: name, size: content.length, oid: gitHash(content), ...lfs, lastCommit: { id: this.commit, title: 'x', date: '2024-01-01T00:00:00.000Z' } }
  }

  private async send(name: string, content: Buffer, headers: Record<string, string>, range: string | undefined, response: ServerResponse): Promise<void> {
    const [, first, last] = (this.ranges && /^bytes=(\d+)-(\d*)$/.exec(range ?? '')) || []
    const start = Number(first ?? 0)
    const end = last ? Math.min(Number(last) + 1, content.length) : content.length
    const part = content.subarray(start, end)
    const partial = first !== undefined && { 'content-range': `bytes ${start}-${end - 1}/${content.length}` }
    response.writeHead(partial ? 206 : 200, { ...headers, 'content-length': part.length, ...partial })
    const cut = this.cuts.get(name)?.shift() ?? Infinity
    for (let at = 0; at < part.length && !response.destroyed; at += 65536) {
      const piece = part.subarray(at, Math.min(at + 65536, cut))
      await new Promise<void>(resolve => response.write(piece, () => resolve()))
      if (at + 65536 >= cut) {
        // What was written is on its way; then the line is dead.
        await new Promise(resolve => setTimeout(resolve, 20))
        response.destroy()
        return
      }
      if (this.slowness > 0) await new Promise(resolve => setTimeout(resolve, this.slowness))
    }
    response.end()
  }
}
