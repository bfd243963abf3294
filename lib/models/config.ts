// Reading config.json: schemas say what a model needs, errors say which field of which file is missing or absurd. The sizes that
// decide what is computed are required; settings that the reference implementation has defaults for get the same defaults here.

import * as v from 'valibot'
import { CheckpointError, UnsupportedError } from '../core/errors.js'
import type { Activation } from '../nn/index.js'

export type Config = Readonly<Record<string, unknown>>

/** config.json, parsed, and where it is. */
export interface ConfigFile {
  readonly json: Config
  readonly file: string
}

/**
 * Checks `config` by `schema`.
 * @param section the object below config.json's top, say 'text_config'
 * @throws CheckpointError naming the file and every field that does not fit.
 */
export function readConfig<S extends v.GenericSchema>(schema: S, { json, file }: ConfigFile, section?: string): v.InferOutput<S> {
  const value = section === undefined ? json : json[section]
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    const came = value === undefined ? 'is missing' : `is ${show(value)}`
    throw new CheckpointError(`${file}: ${section ?? 'the content'} ${came}; expected an object`, { file, field: section })
  }
  const result = v.safeParse(schema, value)
  if (result.success) return result.output
  const fields = result.issues.map(issue => [section, v.getDotPath(issue)].filter(Boolean).join('.'))
  const problems = result.issues.map(({ input, message }, i) => `${fields[i]} ${input === undefined ? 'is missing' : `is ${show(input)}; expected ${message}`}`)
  throw new CheckpointError(`${file}: ${problems.join(', and ')}`, { file, field: fields[0] })
}

/**
 * Whether what a section leaves out has the default of its class, each field by itself: so transformers 4 wrote the sections of its pairs. In other
 * files widths come all or none, so that a forgotten field is no silent default.
 */
export function savesDifferencesOnly({ json }: ConfigFile): boolean {
  return typeof json['transformers_version'] === 'string' && json['transformers_version'].startsWith('4.')
}

/**
 * Older files of CLIP and Chinese-CLIP repeat a section as `text_config_dict`, which then counts: what it leaves out has its class's default.
 * @param defaults those that whoever reads the section does not have
 */
export function withOlderSpelling(file: ConfigFile, section: string | undefined, defaults: object): ConfigFile {
  const older = section === undefined ? undefined : file.json[`${section}_dict`]
  if (older === undefined || older === null || typeof older !== 'object') return file
  return { ...file, json: { ...file.json, [section!]: { ...defaults, ...older } } }
}

/** Where a tower alone is described: in a section of the pair's config.json, or else all of it. @param pair the pair's model_type */
export function sectionOf({ json }: ConfigFile, pair: string, section: string): string | undefined {
  return json['model_type'] === pair ? section : undefined
}

function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value)
  return text.length > 60 ? `${text.slice(0, 60)}…` : text
}

/** An integer from `least` to `most`. */
export function integer(least: number, most: number) {
  const expected = `an integer from ${least} to ${most}`
  return v.pipe(v.number(expected), v.integer(expected), v.minValue(least, expected), v.maxValue(most, expected))
}

/** Width of a layer, in features. */
export const width = () => integer(1, 65536)
/** Rows of an embedding table. */
export const tableRows = () => integer(1, 10_000_000)
export const layerCount = () => integer(1, 1000)
export const headCount = () => integer(1, 1024)

export function epsilon(otherwise: number) {
  const expected = 'a number above 0 and below 1'
  return v.nullish(v.pipe(v.number(expected), v.gtValue(0, expected), v.ltValue(1, expected)), otherwise)
}

export function flag(otherwise: boolean) {
  return v.nullish(v.boolean('true or false'), otherwise)
}

/** One number for both sides, or [height, width]. */
export function sides(most: number) {
  const side = integer(1, most)
  const expected = `an integer from 1 to ${most}, or two of them`
  return v.pipe(
    v.union([side, v.tuple([side, side])], expected),
    v.transform(value => (typeof value === 'number' ? { height: value, width: value } : { height: value[0], width: value[1] })),
  )
}

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  gelu: 'gelu',
  gelu_python: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  gelu_python_tanh: 'gelu_tanh',
  gelu_accurate: 'gelu_tanh',
  linear: 'none',
  quick_gelu: 'quick_gelu',
  relu: 'relu',
  silu: 'silu',
  swish: 'silu',
  tanh: 'tanh',
}

/** hidden_act and its like, in the reference's names. */
export function activation(otherwise: string) {
  const names = Object.keys(ACTIVATIONS)
  return v.pipe(
    v.nullish(v.picklist(names, `one of ${names.join(', ')}`), otherwise),
    v.transform(name => ACTIVATIONS[name]!),
  )
}

/** The names of a classifier's outputs, in order. */
export function labelNames(config: { id2label?: Record<string, string | number> | null; num_labels?: number | null }): string[] {
  const { id2label, num_labels } = config
  const count = id2label ? Object.keys(id2label).length : (num_labels ?? 2)
  return Array.from({ length: count }, (_, i) => String(id2label?.[i] ?? `LABEL_${i}`))
}

export const labels = {
  id2label: v.nullish(v.record(v.string(), v.union([v.string(), v.number()], 'a name'), 'an object from numbers to names')),
  num_labels: v.nullish(integer(1, 1_000_000)),
}

/** How many places there are below `path`, ending with a dot, by the highest number that a tensor has: of one that lacks another it is told as missing. */
export function placesBelow(path: string, tensors: ReadonlyMap<string, unknown>): number {
  let count = 0
  for (const name of tensors.keys()) if (name.startsWith(path)) count = Math.max(count, 1 + Number.parseInt(name.slice(path.length), 10) || 0)
  return count
}

/** @throws CheckpointError unless the heads share the width evenly. */
export function checkHeads(file: string, field: string, heads: number, total: number): void {
  if (total % heads !== 0) throw new CheckpointError(`${file}: ${field} is ${heads}, which does not divide the width ${total}`, { file, field })
}

/** num_channels: pictures are RGB here. */
export function threeChannels() {
  return v.nullish(v.literal(3, '3 channels'), 3)
}

/** @returns the side of a patch. @throws CheckpointError if a picture holds none, UnsupportedError unless patches are square. */
export function squarePatch(file: string, patch: { height: number; width: number }, image: { height: number; width: number }): number {
  if (patch.height !== patch.width) {
    throw new UnsupportedError(`${file}: patch_size is ${patch.height} x ${patch.width}; only square patches are supported`, { file, field: 'patch_size' })
  }
  if (patch.height > Math.min(image.height, image.width)) {
    throw new CheckpointError(`${file}: patch_size is ${patch.height}, larger than the image_size ${image.height} x ${image.width}`, { file, field: 'patch_size' })
  }
  return patch.height
}
