// How config.json says which layers attend to what and how their positions are turned, in the spellings of transformers 4 (rope_theta,
// rope_scaling) and 5 (rope_parameters).

import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import type { ConfigFile } from './config.js'

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

/** rope_parameters, or rope_scaling. */
export function ropeParameters() {
  return objectOf({ rope_theta: v.nullish(theta()), rope_type: v.nullish(v.string('a name')), type: v.nullish(v.string('a name')) })
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

/** @throws UnsupportedError for positions that are scaled */
export function checkRopeType({ file }: ConfigFile, field: string, rope: RopeParameters | null | undefined): void {
  const type = rope?.rope_type ?? rope?.type ?? 'default'
  if (type !== 'default') throw new UnsupportedError(`${file}: ${field} has the rope_type '${type}'; only 'default' is supported`, { file, field })
}

/** @throws CheckpointError unless there is a type for each layer */
export function checkLayerTypes({ file }: ConfigFile, types: readonly string[], layers: number): void {
  if (types.length !== layers) throw new CheckpointError(`${file}: layer_types has ${types.length} names for ${layers} layers`, { file, field: 'layer_types' })
}

/** Features are turned in pairs. @throws CheckpointError naming `field` */
export function checkPairs({ file }: ConfigFile, field: string, headSize: number): void {
  if (headSize % 2 !== 0) throw new CheckpointError(`${file}: ${field} gives heads of ${headSize} features; expected an even number`, { file, field })
}
