// From forward's input_ids, attention_mask, token_type_ids and position_ids [B, L] to the tokens that are computed, one text at a time.

import { ArgumentError, DTypeError, ShapeError } from '../core/errors.js'
import { checkHeld, type Tensor } from '../core/tensor.js'
import type { TextTower } from './encoder.js'
import type { TextTokens } from './text-runner.js'

export const TEXT_INPUTS = ['input_ids', 'attention_mask', 'token_type_ids', 'position_ids'] as const

/** What the wanted outputs need of a text. */
export interface Needs {
  /** The token that stands for the text, of a tower that has `endOf`. */
  end: boolean
  /** No token after that one. */
  onlyEnd: boolean
  /** The first column's token, even if it is masked. */
  first: boolean
}

/** The tokens of a text, and the column each of them comes from. */
export interface PlacedTokens extends TextTokens {
  readonly columns: readonly number[]
}

export class TextInputs {
  readonly count: number
  /** Columns: tokens of each text, with padding. */
  readonly length: number
  private readonly tensors: Readonly<Record<string, Tensor>>

  /** @throws ShapeError, DTypeError unless the tensors belong together. */
  constructor(
    private readonly tower: TextTower,
    given: Readonly<Record<string, Tensor>>,
  ) {
    this.tensors = Object.fromEntries(TEXT_INPUTS.flatMap(name => (given[name] ? [[name, given[name]]] : [])))
    const { dims } = this.tensors['input_ids']!
    if (dims.length !== 2 || dims[1] === 0) {
      throw new ShapeError(`[forward] input_ids is [${dims.join(', ')}]; expected [texts, tokens]`, { field: 'input_ids', shapes: [dims] })
    }
    this.count = dims[0]!
    this.length = dims[1]!
    for (const [name, { type, dims }] of Object.entries(this.tensors)) {
      const types = name === 'attention_mask' ? ['int64', 'int32', 'uint8', 'bool'] : ['int64', 'int32']
      if (!types.includes(type)) throw new DTypeError(`[forward] ${name} is ${type}; expected ${types.join(' or ')}`, { field: name })
      const fits = dims.length === 2 && dims[1] === this.length && (dims[0] === this.count || (name === 'position_ids' && dims[0] === 1))
      if (!fits) {
        throw new ShapeError(`[forward] ${name} is [${dims.join(', ')}]; expected [${this.count}, ${this.length}] as input_ids`, { field: name, shapes: [dims] })
      }
    }
    if (this.tensors['position_ids'] && !tower.takesPositionIds) {
      throw new ArgumentError('[forward] this model takes no position_ids', { field: 'position_ids' })
    }
  }

  /**
   * The tokens of text `index` that are computed; undefined if all are masked.
   * @throws ArgumentError naming the text, the position and the value that is out of range
   */
  read(index: number, needs: Needs): PlacedTokens | undefined {
    const { tower } = this
    const { ids, mask } = countedTokens(tower, this.row('input_ids', index, tower.vocabulary)!, this.row('attention_mask', index, 2))
    const types = tower.tokenTypes > 0 ? this.row('token_type_ids', index, tower.tokenTypes) : undefined
    const positions = this.row('position_ids', index, tower.positions) ?? tower.positionIds(ids)
    const end = needs.end ? tower.endOf!(ids) : ids.length - 1
    const last = needs.onlyEnd ? end : ids.length - 1
    const columns: number[] = []
    for (let c = 0; c <= last; c++) if (!mask || mask[c] === 1) columns.push(c)
    if (columns.length === 0 && !mask?.includes(1)) return undefined
    const lastIsMasked = needs.end && mask?.[end] === 0
    if (lastIsMasked && !tower.readsMaskedEnd) {
      throw new ArgumentError(`[forward] attention_mask of text ${index} masks position ${end}, where its end token is read`, { field: 'attention_mask', index })
    }
    const firstIsMasked = needs.first && mask?.[0] === 0
    const hasHole = columns.at(-1)! - columns[0]! >= columns.length
    const keys = [...columns]
    // In the reference it depends on the implementation of attention what such a token is.
    if (firstIsMasked && tower.sees && !keys.some(key => tower.sees!(key))) {
      throw new ArgumentError(`[forward] attention_mask of text ${index} masks the first token, which is read, and all within its window; expected a token there that counts`, { field: 'attention_mask', index })
    }
    if (firstIsMasked) columns.unshift(0)
    if (lastIsMasked) columns.push(end)
    this.checkLength(index, columns, positions)
    return {
      columns,
      ids: pick(ids, columns),
      positions: pick(positions, columns),
      types: types && pick(types, columns),
      firstIsMasked,
      lastIsMasked,
      ...(tower.distanceRow && (hasHole || firstIsMasked) && { distanceRows: distanceRows(columns, keys, tower.distanceRow.bind(tower)) }),
      ...(needs.end && !needs.onlyEnd && { end: columns.indexOf(end) }),
      ...(tower.readsPlaces && { places: Int32Array.from(columns, c => c - columns[firstIsMasked ? 1 : 0]! + 1) }),
    }
  }

  private checkLength(index: number, columns: readonly number[], positions: Int32Array): void {
    const { maxLength, positions: rows } = this.tower
    if (columns.filter(c => c < this.length).length <= maxLength && columns.every(c => positions[c]! < rows)) return
    throw new ArgumentError(`[forward] text ${index} has ${columns.length} tokens up to position ${columns.at(-1)}; this model takes at most ${maxLength}`, {
      field: 'input_ids',
      index,
    })
  }

  /** One row as int32, every number of it in [0, limit). */
  private row(name: string, index: number, limit: number): Int32Array | undefined {
    const tensor = this.tensors[name]
    if (!tensor) return undefined
    checkHeld(tensor, `[forward] ${name}`)
    const from = tensor.dims[0] === 1 ? 0 : index * this.length
    const { data } = tensor
    const row = new Int32Array(this.length)
    if (data instanceof BigInt64Array) {
      const words = new Int32Array(data.buffer, data.byteOffset + from * 8, this.length * 2) // low word, high word
      for (let i = 0; i < row.length; i++) row[i] = words[2 * i + 1] === 0 ? words[2 * i]! : -1
    } else {
      for (let i = 0; i < row.length; i++) row[i] = data[from + i] as number
    }
    for (let i = 0; i < row.length; i++) {
      if (row[i]! >= 0 && row[i]! < limit) continue
      throw new ArgumentError(`[forward] ${name} of text ${index} is ${data[from + i]} at position ${i}; expected 0 to ${limit - 1}`, { field: name, index })
    }
    return row
  }
}

/** A row's tokens and which of them count; undefined: all. Of towers that tell by an id, what a mask leaves out is padding. */
export function countedTokens({ padded }: TextTower, ids: Int32Array, mask?: Int32Array): { ids: Int32Array; mask?: Int32Array | undefined } {
  if (!padded) return { ids, mask }
  return padded.read(mask ? ids.map((id, i) => (mask[i] === 1 ? id : padded.id)) : ids)
}

function distanceRows(queries: readonly number[], keys: readonly number[], row: (distance: number) => number): Int32Array {
  const furthest = Math.max(queries.at(-1)!, keys.at(-1)!)
  const ofDistance = Int32Array.from({ length: 2 * furthest + 1 }, (_, i) => row(i - furthest))
  const rows = new Int32Array(queries.length * keys.length)
  let at = 0
  for (const query of queries) for (const key of keys) rows[at++] = ofDistance[key - query + furthest]!
  return rows
}

function pick(row: Int32Array, columns: readonly number[]): Int32Array {
  return Int32Array.from(columns, c => row[c]!)
}
