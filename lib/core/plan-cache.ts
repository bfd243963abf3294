// Native programs by key: what is compiled again with the same graph, shapes and weights is not built again. An entry is disposed of
// when it has left the cache and no Program uses it any more; what is in use is never pulled away.

import type { NativeProgram } from '../../typings/addon.js'

export interface PlanEntry {
  readonly key: string
  readonly program: NativeProgram
  users: number
}

/** Least recently used plans leave first. */
export class PlanCache {
  private readonly entries = new Map<string, PlanEntry>()
  hits = 0
  misses = 0

  constructor(readonly capacity = 64) {}

  get size(): number {
    return this.entries.size
  }

  /** The entry for `key`, made if it is not there; the caller gives it back with `release`. */
  take(key: string, make: () => NativeProgram): PlanEntry {
    let entry = this.entries.get(key)
    if (entry) {
      ++this.hits
      this.entries.delete(key)
    } else {
      ++this.misses
      entry = { key, program: make(), users: 0 }
    }
    this.entries.set(key, entry)
    ++entry.users
    if (this.entries.size > this.capacity) this.drop(this.entries.values().next().value!)
    return entry
  }

  release(entry: PlanEntry): void {
    --entry.users
    if (entry.users === 0 && this.entries.get(entry.key) !== entry) entry.program.dispose()
  }

  /** Drops the plans made with these weights. */
  forget(weights: number): void {
    for (const entry of [...this.entries.values()]) if (entry.key.startsWith(`${weights}:`)) this.drop(entry)
  }

  clear(): void {
    for (const entry of [...this.entries.values()]) this.drop(entry)
  }

  private drop(entry: PlanEntry): void {
    this.entries.delete(entry.key)
    if (entry.users === 0) entry.program.dispose()
  }
}
