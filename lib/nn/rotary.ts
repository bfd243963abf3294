// Rotary positions (arXiv:2104.09864) of attention layers: tables of cosines and sines, made once for a model, or for a grid of patches.
// Angles are rounded to float32 where the reference rounds them: at position 30,000 a step of it is an angle of 0.002.

import { setImmediate } from 'node:timers/promises'
import { Tensor } from '../core/tensor.js'
import { constant, type Parameter, type Value } from '../core/value.js'
import { rotary } from '../ops/index.js'
import type { Grid } from './positions.js'
import type { ComputeType, Scope } from './scope.js'

/** How the queries and keys of a layer are turned; see the op `rotary`. */
export interface Rotation {
  /** float32 [L, R] */
  readonly table: Value
  /** int32 [T], rows of the table; or `length`. */
  readonly positions?: Value
  readonly length?: number
}

const ROWS_AT_ONCE = 512

/**
 * How the frequencies are changed for texts longer than a model was first trained on: all divided by a factor ('linear'), or the slower ones more
 * than the faster ones ('yarn': arXiv:2309.00071, with a factor of the cosines and sines; 'llama3': arXiv:2407.21783). `original`: positions of that training.
 */
export type RotaryScaling =
  | { readonly kind: 'linear'; readonly factor: number }
  | { readonly kind: 'yarn'; readonly factor: number; readonly original: number; readonly attention: number; readonly fast: number; readonly slow: number; readonly truncate: boolean }
  | { readonly kind: 'llama3'; readonly factor: number; readonly original: number; readonly low: number; readonly high: number }

/** 1 / theta^(2j / size) for j < size / 2, scaled. */
function frequencies(size: number, theta: number, scaling?: RotaryScaling): Float32Array {
  const powers = Float32Array.from({ length: size / 2 }, (_, j) => theta ** Math.fround((2 * j) / size))
  const plain = powers.map(power => 1 / power)
  if (!scaling) return plain
  const { factor } = scaling
  if (scaling.kind === 'linear') return plain.map(f => f / factor)
  const { original } = scaling
  if (scaling.kind === 'llama3') {
    const { low, high } = scaling
    return plain.map(f => {
      const wave = Math.fround(Math.fround(2 * Math.PI) / f)
      if (wave < original / high) return f
      if (wave > original / low) return f / factor
      const share = Math.fround(Math.fround(Math.fround(original / wave) - low) / (high - low))
      return Math.fround(Math.fround(Math.fround(1 - share) * f) / factor) + Math.fround(share * f)
    })
  }
  // The pair of features that turns so many times over the original positions.
  const pairOf = (turns: number) => (size * Math.log(original / (turns * 2 * Math.PI))) / (2 * Math.log(theta))
  const [first, last] = [pairOf(scaling.fast), pairOf(scaling.slow)]
  const low = Math.max(scaling.truncate ? Math.floor(first) : first, 0)
  const high = Math.min(scaling.truncate ? Math.ceil(last) : last, size - 1)
  const width = low === high ? 0.001 : high - low // the reference's, which keeps it from dividing by zero
  return powers.map((power, j) => {
    const slow = Math.min(1, Math.max(0, Math.fround(Math.fround(j - low) / width)))
    const kept = Math.fround(1 - slow)
    return Math.fround(Math.fround(1 / Math.fround(factor * power)) * Math.fround(1 - kept)) + Math.fround(plain[j]! * kept)
  })
}

/**
 * The table of positions 0 to rows − 1, computed when the model is loaded.
 * @param size rotated features of a head
 */
export function rotaryTable(scope: Scope, { rows, size, theta, scaling }: { rows: number; size: number; theta: number; scaling?: RotaryScaling | undefined }): Parameter {
  const compute = async () => {
    const table = new Float32Array(rows * size)
    const frequency = frequencies(size, theta, scaling)
    const attention = scaling?.kind === 'yarn' ? Math.fround(scaling.attention) : 1
    for (let row = 0; row < rows; row++) {
      if (row % ROWS_AT_ONCE === ROWS_AT_ONCE - 1) await setImmediate() // there may be millions of angles
      frequency.forEach((f, j) => {
        const angle = Math.fround(row * f)
        table[row * size + j] = Math.cos(angle) * attention
        table[row * size + size / 2 + j] = Math.sin(angle) * attention
      })
    }
    return table
  }
  return scope.parameter(`the rotary table of theta ${theta}${scaling ? ` scaled by ${JSON.stringify(scaling)}` : ''}`, [rows, size], { derived: { from: [], compute } })
}

/**
 * The table of a grid of patches, row by row, as DINOv3 has it: patch centres from −1 to 1 along either side; a quarter of a head's features
 * turns by 2π times the row's, a quarter by the column's. Prefix tokens before the patches are not turned.
 */
export function gridRotation({ height, width }: Grid, { size, theta, prefix }: { size: number; theta: number; prefix: number }): Rotation {
  const frequency = Float32Array.from({ length: size / 4 }, (_, j) => 1 / Math.fround(theta ** Math.fround((4 * j) / size)))
  const side = (count: number) =>
    Array.from({ length: count }, (_, i) => {
      const centre = Math.fround(Math.fround(2 * Math.fround(Math.fround(i + 0.5) / count)) - 1)
      const angles = frequency.map(f => Math.fround(Math.fround(2 * Math.PI) * centre) * f)
      return { cosines: angles.map(Math.cos), sines: angles.map(Math.sin) }
    })
  const table = new Float32Array(height * width * size)
  const [rows, columns] = [side(height), side(width)]
  let at = 0
  for (const row of rows) {
    for (const column of columns) {
      for (const part of [row.cosines, column.cosines, row.sines, column.sines]) {
        table.set(part, at)
        at += size / 4
      }
    }
  }
  return { table: constant(new Tensor('float32', table, [height * width, size])), length: prefix + height * width }
}

/** x: float [T, heads·D] -> the same, turned. */
export function turned(x: Value, heads: number, { table, positions, length }: Rotation, dtype: ComputeType): Value {
  return rotary(x, table, { heads, positions, length, dtype })
}
