// How config.json says which layers attend to what and how their positions are turned, in the spellings of transformers 4 (rope_theta,
// rope_scaling) and 5 (rope_parameters).

import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import type { RotaryScaling } from '../nn/index.js'
import { type ConfigFile, tableRows } from './config.js'

export const FULL = 'full_attention'
export const SLIDING = 'sliding_attention'
/** Tokens a text may have at most, whatever a config allows: tables of positions have a row for each. */
export const MOST_POSITIONS = 131_072

/** layer_types: one name for each layer. */
export function layerTypes() {
  const expected = `'${FULL}' or '${SLIDING}' for each layer`
  return v.nullish(v.array(v.picklist([FULL, SLIDING], expected), expected))
}

export function theta() {
  const expected = 'a number above 0, at most 1e12'
  return v.pipe(v.number(expected), v.gtValue(0, expected), v.maxValue(1e12, expected))
}

function factor() {
  const expected = 'a number above 0, at most 1e6'
  return v.nullish(v.pipe(v.number(expected), v.gtValue(0, expected), v.maxValue(1e6, expected)))
}

/** rope_parameters, or rope_scaling. */
export function ropeParameters() {
  return objectOf({
    ...{ rope_theta: v.nullish(theta()), rope_type: v.nullish(v.string('a name')), type: v.nullish(v.string('a name')) },
    ...{ factor: factor(), attention_factor: factor(), mscale: factor(), mscale_all_dim: factor(), beta_fast: factor(), beta_slow: factor() },
    ...{ low_freq_factor: factor(), high_freq_factor: factor(), partial_rotary_factor: factor() },
    original_max_position_embeddings: v.nullish(tableRows()),
    truncate: v.nullish(v.boolean('true or false')),
  })
}

/** rope_parameters for each type of layer. */
export function ropeByLayerType() {
  return objectOf({ [FULL]: v.nullish(ropeParameters()), [SLIDING]: v.nullish(ropeParameters()) })
}

function objectOf<E extends v.ObjectEntries>(entries: E) {
  const expected = `an object with ${Object.keys(entries).join(', ')}`
  return v.pipe(v.custom<object>(value => typeof value === 'object' && !Array.isArray(value), expected), v.object(entries, expected))
}
export type RopeParameters = v.InferOutput<ReturnType<typeof ropeParameters>>

/**
 * How positions are scaled, of `positions` that a text may have; undefined: not at all. Of 'dynamic' too, whose frequencies change only beyond
 * them, by the longest text of a batch.
 * @throws UnsupportedError for a scaling that is not there, CheckpointError for a number that it needs
 */
export function ropeScaling({ file }: ConfigFile, field: string, rope: RopeParameters | null | undefined, positions: number): RotaryScaling | undefined {
  const type = rope?.rope_type ?? rope?.type ?? 'default'
  const part = rope?.partial_rotary_factor ?? 1
  if (part !== 1) throw new UnsupportedError(`${file}: ${field}.partial_rotary_factor is ${part}; only 1 is supported`, { file, field: `${field}.partial_rotary_factor` })
  const original = rope?.original_max_position_embeddings ?? positions
  const needed = (name: 'factor' | 'low_freq_factor' | 'high_freq_factor', otherwise?: number): number => {
    const value = rope?.[name] ?? otherwise
    if (value !== undefined) return value
    throw new CheckpointError(`${file}: ${field}.${name} is missing, which the rope_type '${type}' needs`, { file, field: `${field}.${name}` })
  }
  switch (type) {
    case 'default':
    case 'dynamic':
      return undefined
    case 'linear':
      return { kind: 'linear', factor: needed('factor') }
    case 'llama3':
      return { kind: 'llama3', factor: needed('factor'), original, low: needed('low_freq_factor'), high: needed('high_freq_factor') }
    case 'yarn': {
      const factor = needed('factor', positions / original)
      const growth = (scale: number) => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1)
      const { mscale, mscale_all_dim: ofAll } = rope!
      const attention = rope!.attention_factor ?? (mscale && ofAll ? growth(mscale) / growth(ofAll) : growth(1))
      return { kind: 'yarn', factor, original, attention, fast: rope!.beta_fast ?? 32, slow: rope!.beta_slow ?? 1, truncate: rope!.truncate ?? true }
    }
    default:
      throw new UnsupportedError(`${file}: ${field} has the rope_type '${type}'; 'default', 'linear', 'dynamic', 'yarn' and 'llama3' are supported`, { file, field })
  }
}

/** @throws UnsupportedError for positions that are scaled, where no reference says how */
export function checkUnscaled({ file }: ConfigFile, field: string, rope: RopeParameters | null | undefined): void {
  const type = rope?.rope_type ?? rope?.type ?? 'default'
  if (type !== 'default') throw new UnsupportedError(`${file}: ${field} has the rope_type '${type}'; only 'default' is supported there`, { file, field })
}

/** @throws CheckpointError unless there is a type for each layer */
export function checkLayerTypes({ file }: ConfigFile, types: readonly string[], layers: number): void {
  if (types.length !== layers) throw new CheckpointError(`${file}: layer_types has ${types.length} names for ${layers} layers`, { file, field: 'layer_types' })
}

/** Features are turned in pairs. @throws CheckpointError naming `field` */
export function checkPairs({ file }: ConfigFile, field: string, headSize: number): void {
  if (headSize % 2 !== 0) throw new CheckpointError(`${file}: ${field} gives heads of ${headSize} features; expected an even number`, { file, field })
}
