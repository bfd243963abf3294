// Runs a text tower on any number of texts. Tokens that count are packed one text after the other up to a budget, so that padding is
// never computed; texts are read only when their turn comes, so that a large batch is no long pause.

import { Tensor } from '../core/tensor.js'
import type { Value, ValueType } from '../core/value.js'
import { EMBEDDING, type TextTower, type TokenInputs } from './encoder.js'
import type { Part, Prepared } from './part.js'
import { bucket, inHalves, namedValues, type OutputKind, outputKinds, PIECE_BYTES, pipeline, type Programs } from './programs.js'
import { type PlacedTokens, TEXT_INPUTS, TextInputs } from './text-inputs.js'

/** Tokens in one run, unless a single text has more. */
export const TOKENS_AT_ONCE = 2048
const MIN_CAPACITY = 64
/** A plan has room for one text in so many tokens. */
const TOKENS_PER_TEXT = 4
/** Texts in one run. */
export const TEXTS_AT_ONCE = TOKENS_AT_ONCE / TOKENS_PER_TEXT

/** The tokens of one text that are computed. */
export interface TextTokens {
  readonly ids: Int32Array
  readonly positions: Int32Array
  readonly types?: Int32Array | undefined
  /** The first one is masked: it is read, but the others do not see it. */
  readonly firstIsMasked?: boolean
  /** The same of the last one, where the end token is. */
  readonly lastIsMasked?: boolean
  /** Where among them the end token is; for towers with `endOf`. */
  readonly end?: number
  /** So many at the front, a prompt's, are left out by poolings. */
  readonly unpooled?: number
  /** For towers with `readsPlaces`: 1 for the first token that counts, 2 for the next column, …; default: one after the other. */
  readonly places?: Int32Array
  /** For towers with `distanceRow`, where the tokens do not stand side by side: the row of each query's and key's distance. */
  readonly distanceRows?: Int32Array
}

/** Which of the inputs that not every text needs a run has. */
interface Extras {
  readonly ends: boolean
  readonly keyed: boolean
  readonly pooled: boolean
  /** Distances of a text that runs alone; 0: there are several, packed. */
  readonly distances: number
}
const NONE: Extras = { ends: false, keyed: false, pooled: false, distances: 0 }

/** One finished run: texts `texts` have rows offsets[i] to offsets[i + 1] of the outputs per token. */
export interface TextPiece {
  readonly texts: readonly number[]
  readonly offsets: Int32Array
  readonly outputs: Readonly<Record<string, Tensor>>
}

interface Batch {
  index: number[]
  texts: TextTokens[]
  tokens: number
}

export class TextRunner implements Part {
  readonly inputs = TEXT_INPUTS
  readonly required = ['input_ids']
  readonly outputs: readonly string[]
  readonly absent: Readonly<Record<string, string>>
  readonly kinds: ReadonlyMap<string, OutputKind>

  constructor(
    readonly tower: TextTower,
    readonly programs: Programs,
  ) {
    this.kinds = outputKinds(inputs => namedValues(this.trace(inputs), tower.prefix), this.specs(1, 1, NONE), programs)
    this.outputs = [...this.kinds.keys()].filter(name => name !== EMBEDDING)
    this.absent = tower.absent
  }

  prepare(given: Readonly<Record<string, Tensor>>): Prepared {
    const inputs = new TextInputs(this.tower, given)
    return (want, signal) => this.forward(inputs, want, signal)
  }

  /** Outputs for each text [B, C] and each token [B, L, C], zeros where the mask is 0. */
  private async forward(inputs: TextInputs, want: readonly string[], signal: AbortSignal | undefined): Promise<Record<string, Tensor>> {
    const { tower, kinds } = this
    const { count, length } = inputs
    const kindOf = (name: string): OutputKind => kinds.get(name)!
    const results = Object.fromEntries(
      want.map(name => {
        const { per, width } = kindOf(name)
        const dims = per === 'texts' ? [count, width] : [count, length, width]
        return [name, new Tensor('float32', new Float32Array(dims.reduce((a, b) => a * b)), dims)]
      }),
    )
    const pooled = want.some(name => kindOf(name).per === 'texts')
    const needs = {
      end: tower.endOf !== undefined && pooled,
      onlyEnd: tower.endOf !== undefined && want.every(name => kindOf(name).per === 'texts'),
      first: want.some(name => tower.readsFirst.includes(name)),
    }
    const placeOf = new Map<number, PlacedTokens>()
    const read = (index: number) => {
      const tokens = inputs.read(index, needs)
      if (tokens) placeOf.set(index, tokens)
      return tokens
    }
    await this.run(
      count,
      read,
      want,
      ({ texts, offsets, outputs }) => {
        for (const name of want) {
          const { per, width } = kindOf(name)
          const from = outputs[name]!.data as Float32Array
          const to = results[name]!.data as Float32Array
          texts.forEach((text, i) => {
            if (per === 'texts') to.set(from.subarray(i * width, (i + 1) * width), text * width)
            else placeTokens(from.subarray(offsets[i]! * width, offsets[i + 1]! * width), to.subarray(text * length * width), placeOf.get(text)!, width)
          })
        }
        for (const text of texts) placeOf.delete(text)
      },
      signal,
    )
    return results
  }

  /**
   * @param count texts there are
   * @param read the tokens of text i; undefined or none: it is left out
   * @param want names of outputs
   * @param place takes each run's results
   */
  async run(
    count: number,
    read: (index: number) => TextTokens | undefined,
    want: readonly string[],
    place: (piece: TextPiece) => void,
    signal?: AbortSignal,
  ): Promise<void> {
    if (!this.programs.ready) await this.programs.load(signal)
    const bytesPerToken = 4 * want.reduce((sum, name) => sum + (this.kinds.get(name)!.per === 'tokens' ? this.kinds.get(name)!.width : 0), 0)
    let budget = Math.min(TOKENS_AT_ONCE, Math.floor(PIECE_BYTES / Math.max(1, bytesPerToken)))
    let at = 0
    let left: { index: number; text: TextTokens } | undefined
    const takeText = () => {
      while (!left && at < count) {
        const index = at++
        const text = read(index)
        if (text && text.ids.length > 0) left = { index, text }
      }
      return left
    }
    const next = (): Promise<void> | undefined => {
      const batch: Batch = { index: [], texts: [], tokens: 0 }
      for (let taken = takeText(); taken; taken = takeText()) {
        const tokens = batch.tokens + taken.text.ids.length
        const alone = taken.text.distanceRows !== undefined || batch.texts[0]?.distanceRows !== undefined
        if (batch.texts.length > 0 && (alone || tokens > budget || (batch.texts.length + 1) * TOKENS_PER_TEXT > budget)) break
        batch.index.push(taken.index)
        batch.texts.push(taken.text)
        batch.tokens = tokens
        left = undefined
      }
      const { length } = batch.texts
      if (length === 0) return undefined
      const run = async (from: number, count: number) => place(await this.runBatch(partOfBatch(batch, from, count), want, signal))
      return inHalves(0, length, run).then(ran => {
        if (ran < length) budget = Math.min(budget, Math.ceil((batch.tokens * ran) / length))
      })
    }
    await pipeline(next)
  }

  private async runBatch({ index, texts, tokens }: Batch, want: readonly string[], signal: AbortSignal | undefined): Promise<TextPiece> {
    const { distanceRows } = texts[0]!
    const capacity = distanceRows ? tokens : bucket(Math.max(MIN_CAPACITY, tokens, texts.length * TOKENS_PER_TEXT))
    const ends = texts[0]!.end !== undefined
    const keyed = texts.some(text => text.firstIsMasked || text.lastIsMasked)
    const pooled = texts.some(text => text.unpooled)
    const extras: Extras = { ends, keyed, pooled, distances: distanceRows?.length ?? 0 }
    const pick = (values: Record<string, Value>) => Object.fromEntries(want.map(name => [name, values[name]!]))
    const program = this.programs.get(
      JSON.stringify(['texts', capacity, extras, want]),
      inputs => pick(namedValues(this.trace(inputs), this.tower.prefix)),
      this.specs(capacity, distanceRows ? 1 : capacity / TOKENS_PER_TEXT, extras),
    )
    const offsets = cumulative(texts.map(text => text.ids.length))
    const joined = (field: (text: TextTokens) => Int32Array) => vector(concatenate(texts.map(field), tokens))
    const outputs = await program.run(
      {
        ids: joined(text => text.ids),
        positions: joined(text => text.positions),
        ...(this.tower.tokenTypes > 0 && { types: joined(text => text.types ?? new Int32Array(text.ids.length)) }),
        cuSeqlens: vector(offsets),
        ...(ends && { ends: vector(Int32Array.from(texts, (text, i) => offsets[i]! + text.end!)) }),
        ...(this.tower.readsPlaces && { places: joined(text => text.places ?? text.ids.map((_, i) => i + 1)) }),
        ...(distanceRows && { distanceRows: vector(distanceRows) }),
        ...(this.tower.lastApart
          ? rowsApart(texts, offsets)
          : keyed && rowsOf(texts, offsets, 'key', text => (text.firstIsMasked ? 1 : 0), text => (text.lastIsMasked ? 1 : 0))),
        ...(pooled && rowsOf(texts, offsets, 'pooled', text => text.unpooled ?? 0)),
      },
      { signal },
    )
    return { texts: index, offsets, outputs }
  }

  private trace(inputs: Record<string, Value>) {
    const { ids, positions, types, cuSeqlens, ends, places, distanceRows, keyRows, keyLengths, queryLengths, pooledRows, pooledLengths } = inputs as Record<string, Value | undefined>
    const keys = keyRows && { rows: keyRows, cuSeqlens: keyLengths! }
    const pooled = pooledRows && { rows: pooledRows, cuSeqlens: pooledLengths! }
    const tokens: TokenInputs = { ids: ids!, positions: positions!, types, sequences: { cuSeqlens: cuSeqlens!, keys, queries: queryLengths }, ends, pooled, places, distanceRows }
    return this.tower.trace(tokens)
  }

  /** Of one text: nothing varies. */
  private specsAlone(tokens: number, distances: number, keyed: boolean): Record<string, ValueType> {
    const { tokenTypes, readsPlaces } = this.tower
    return {
      ids: vectorOf(tokens),
      positions: vectorOf(tokens),
      ...(tokenTypes > 0 && { types: vectorOf(tokens) }),
      cuSeqlens: vectorOf(2),
      ...(readsPlaces && { places: vectorOf(tokens) }),
      ...(keyed && { keyRows: vectorOf(distances / tokens), keyLengths: vectorOf(2) }),
      distanceRows: vectorOf(distances),
    }
  }

  private specs(tokens: number, texts: number, { ends, keyed, pooled, distances }: Extras): Record<string, ValueType> {
    if (distances > 0) return this.specsAlone(tokens, distances, keyed)
    const perToken: ValueType = { shape: [tokens], dtype: 'int32', extent: { name: 'tokens', per: 1 } }
    const lengths: ValueType = { shape: [texts + 1], dtype: 'int32', extent: { name: 'texts', per: 1, extra: 1 } }
    const lengthsApart: ValueType = { shape: [2 * texts + 1], dtype: 'int32', extent: { name: 'texts', per: 2, extra: 1 } }
    const keysApart: ValueType = { shape: [2 * tokens], dtype: 'int32', extent: { name: 'keys', per: 1 } }
    const apart = this.tower.lastApart
    return {
      ids: perToken,
      positions: perToken,
      ...(this.tower.tokenTypes > 0 && { types: perToken }),
      cuSeqlens: lengths,
      ...(ends && { ends: { shape: [texts], dtype: 'int32', extent: { name: 'texts', per: 1 } } as ValueType }),
      ...(this.tower.readsPlaces && { places: perToken }),
      ...(apart && { keyRows: keysApart, keyLengths: lengthsApart, queryLengths: lengthsApart }),
      ...(!apart && keyed && { keyRows: { ...perToken, extent: { name: 'keys', per: 1 } }, keyLengths: lengths }),
      ...(pooled && { pooledRows: { ...perToken, extent: { name: 'pooled', per: 1 } }, pooledLengths: lengths }),
    }
  }
}

function partOfBatch({ index, texts, tokens }: Batch, from: number, count: number): Batch {
  if (count === texts.length) return { index, texts, tokens }
  const some = texts.slice(from, from + count)
  return { index: index.slice(from, from + count), texts: some, tokens: some.reduce((sum, { ids }) => sum + ids.length, 0) }
}

function vectorOf(length: number): ValueType {
  return { shape: [length], dtype: 'int32' }
}

function vector(data: Int32Array): Tensor {
  return new Tensor('int32', data, [data.length])
}

function cumulative(lengths: readonly number[]): Int32Array {
  const offsets = new Int32Array(lengths.length + 1)
  lengths.forEach((length, i) => (offsets[i + 1] = offsets[i]! + length))
  return offsets
}

function concatenate(parts: readonly Int32Array[], length: number): Int32Array {
  const all = new Int32Array(length)
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}

/** All rows but so many at the front and at the end of each text, as the inputs `${name}Rows` and `${name}Lengths`. */
function rowsOf(texts: readonly TextTokens[], offsets: Int32Array, name: string, skippedOf: (text: TextTokens) => number, leftOf: (text: TextTokens) => number = () => 0): Record<string, Tensor> {
  const rows: number[] = []
  const lengths = texts.map((text, i) => {
    const first = rows.length
    const end = offsets[i + 1]! - leftOf(text)
    for (let row = offsets[i]! + skippedOf(text); row < end; row++) rows.push(row)
    return rows.length - first
  })
  return { [`${name}Rows`]: vector(Int32Array.from(rows)), [`${name}Lengths`]: vector(cumulative(lengths)) }
}

/** Of each text two sequences of queries with their keys: all tokens but the last, which see one another, and the last, which sees those and, unless it is masked, itself. */
function rowsApart(texts: readonly TextTokens[], offsets: Int32Array): Record<string, Tensor> {
  const keys: number[] = []
  const queryLengths: number[] = []
  const keyLengths: number[] = []
  texts.forEach(({ lastIsMasked }, i) => {
    const [first, last] = [offsets[i]!, offsets[i + 1]! - 1]
    for (const end of [last, lastIsMasked ? last : last + 1]) {
      for (let row = first; row < end; row++) keys.push(row)
      keyLengths.push(end - first)
    }
    queryLengths.push(last - first, 1)
  })
  return { keyRows: vector(Int32Array.from(keys)), keyLengths: vector(cumulative(keyLengths)), queryLengths: vector(cumulative(queryLengths)) }
}

/** Copies packed rows to the columns they come from. */
function placeTokens(from: Float32Array, to: Float32Array, { columns, firstIsMasked, lastIsMasked }: PlacedTokens, width: number): void {
  for (let t = firstIsMasked ? 1 : 0; t < columns.length - (lastIsMasked ? 1 : 0); t++) to.set(from.subarray(t * width, (t + 1) * width), columns[t]! * width)
}
