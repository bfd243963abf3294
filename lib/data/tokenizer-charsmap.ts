// SentencePiece's normalisation rules as a tokenizer.json holds them (`Precompiled`), applied as Hugging Face's Rust library does: a cluster of
// characters is looked up whole if it is short, else character by character; of all rules that begin it the shortest counts, and what follows
// within a cluster is dropped. @huggingface/tokenizers only has an approximation.
// The rules: a double-array trie of UTF-8 bytes (darts-clone), whose leaves are offsets into a list of texts that end in a zero byte.

import { Buffer } from 'node:buffer'
import { CheckpointError } from '../core/errors.js'
import { betweenCharacters } from './text-pieces.js'

/** Bytes of a cluster that is looked up whole, at most. */
const SHORT = 5
/** Characters that are cut into clusters at once: the segmenter's time for each grows with the text. */
const WINDOW = 512
/** Clusters remembered at most. */
const REMEMBERED = 20_000

const clusters = new Intl.Segmenter('en', { granularity: 'grapheme' })

/** What rules say of a text that begins with one of their keys; undefined if none does. */
type Rules = (text: string) => string | undefined

/**
 * @param charsmap base64, as `precompiled_charsmap` has it
 * @throws CheckpointError that says what is wrong with it, here or where the broken part is first met
 */
export function makeCharsmapNormalizer(charsmap: unknown): (text: string) => string {
  const rules = readRules(charsmap)
  const known = new Map<string, string>()
  const normalizeCluster = (cluster: string): string => {
    let result = known.get(cluster)
    if (result === undefined) {
      result = Buffer.byteLength(cluster) <= SHORT ? rules(cluster) : undefined
      result ??= Array.from(cluster, (character) => rules(character) ?? character).join('')
      if (known.size >= REMEMBERED) known.clear()
      known.set(cluster, result)
    }
    return result
  }
  const normalizePart = (part: string): string => {
    let result = ''
    let window = WINDOW
    for (let start = 0; start < part.length; ) {
      const end = start + window < part.length ? betweenCharacters(part, start + window) : part.length
      const found = Array.from(clusters.segment(part.slice(start, end)), ({ segment }) => segment)
      // The last one may go on behind the window: the next begins with it, and is longer if there is no other.
      const last = end < part.length ? found.pop()! : ''
      for (const cluster of found) result += normalizeCluster(cluster)
      window = found.length > 0 ? WINDOW : 2 * window
      start = end - last.length
    }
    return result
  }
  const printable = Array.from({ length: 95 }, (_, i) => String.fromCharCode(32 + i))
  if (printable.some((character) => rules(character) !== undefined)) return normalizePart
  // Between two printable ASCII characters a cluster ends, and rules leave them as they are: only what is around others is looked at.
  return (text) => text.replace(/[ -~]?(?:[^ -~]+[ -~]?)+/g, normalizePart)
}

function readRules(charsmap: unknown): Rules {
  if (typeof charsmap !== 'string') throw broken('is no string')
  const bytes = Buffer.from(charsmap, 'base64')
  const size = bytes.length >= 4 ? bytes.readUInt32LE(0) : 0
  if (size < 4 || size % 4 !== 0 || size > bytes.length - 4) {
    throw broken(`has ${bytes.length} bytes, and a trie of ${size} of them`)
  }
  const units = Uint32Array.from({ length: size / 4 }, (_, i) => bytes.readUInt32LE(4 + 4 * i))
  const texts = bytes.subarray(4 + size)
  const unitAt = (index: number): number => {
    const unit = units[index]
    if (unit === undefined) throw broken(`points at unit ${index} of its ${units.length}`)
    return unit
  }
  return (text) => {
    const root = unitAt(0)
    let node = offsetOf(root)
    for (const byte of Buffer.from(text)) {
      if (byte === 0) return undefined
      node ^= byte
      const unit = unitAt(node)
      if (labelOf(unit) !== byte) return undefined
      node ^= offsetOf(unit)
      if (!hasLeaf(unit)) continue
      const start = unitAt(node) & 0x7fffffff
      const end = texts.indexOf(0, start)
      return texts.toString('utf8', start, end < 0 ? texts.length : end)
    }
    return undefined
  }
}

function broken(problem: string): CheckpointError {
  return new CheckpointError(`[tokenizer] precompiled_charsmap ${problem}`, { field: 'precompiled_charsmap' })
}

/** Distance (by exclusive or) from a unit to its children; in units of 256 where the flag says so. */
function offsetOf(unit: number): number {
  return (unit >>> 10) << ((unit & 0x200) >>> 6)
}

/** The byte a unit is for; a leaf's has the highest bit set and is no byte's. */
function labelOf(unit: number): number {
  return (unit & 0x800000ff) >>> 0
}

function hasLeaf(unit: number): boolean {
  return (unit & 0x100) !== 0
}
