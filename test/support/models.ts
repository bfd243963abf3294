// What the tests of models share: fixtures, variants of them in temporary folders, and comparing outputs.

import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { listDevices } from '../../lib/core/device.js'
import { Tensor } from '../../lib/core/tensor.js'
import { readTensors } from '../../lib/io/safetensors.js'
import type { Model } from '../../lib/models/model.js'
import { shared, sharedDir } from '../shared.js'

const fixtures = join(dirname(dirname(fileURLToPath(import.meta.url))), 'fixtures', 'parity')

/** The folder of a parity fixture, in the repository or the shared data; undefined if it is in neither. */
export function parityFolder(name: string): string | undefined {
  const own = join(fixtures, name)
  if (existsSync(own)) return own
  return sharedDir && existsSync(shared('parity', name)) ? shared('parity', name) : undefined
}

/** Folders of the shared data that are no encoders: models that write texts, and a fusion that is trained. */
const NO_ENCODERS = new Set(['blip-caption', 'gpt2', 'idefics', 'llava', 'lstm-fusion'])

/** The folder of every model that there are a reference's outputs of, in the repository and the shared data, by name. */
export function parityFolders(): Map<string, string> {
  const namesIn = (folder: string) => readdirSync(folder).filter(name => ['inputs', 'expected'].every(file => existsSync(join(folder, name, `${file}.safetensors`))))
  const others = sharedDir ? namesIn(shared('parity')).filter(name => !NO_ENCODERS.has(name)) : []
  return new Map([...new Set([...namesIn(fixtures), ...others])].sort().map(name => [name, parityFolder(name)!]))
}

/** A fixture that is in the repository. */
export function fixture(name: string): string {
  return join(fixtures, name)
}

type Json = Record<string, any>

/** A copy of a fixture in a temporary folder, gone after the test, with another config.json. */
export function variant(t: Test, name: string, change: (config: Json) => void): string {
  const folder = temporary(t)
  cpSync(fixture(name), folder, { recursive: true })
  const file = join(folder, 'config.json')
  const config = JSON.parse(readFileSync(file, 'utf8')) as Json
  change(config)
  writeFileSync(file, JSON.stringify(config))
  return folder
}

export function temporary(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'chiasma-models-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** Instruction sets that kernels can be run with here. */
export async function instructionSets(): Promise<string[]> {
  return (await listDevices()).find(({ kind }) => kind === 'cpu')?.isa ?? []
}

export interface Difference {
  /** Largest absolute difference; NaN if either side has NaN. */
  readonly max: number
  /** Least cosine of two vectors along the last dimension. */
  readonly cosine: number
  /** Vectors compared. */
  readonly count: number
}

/** Compares vectors along the last dimension, those for which `counts` holds. */
export function difference(got: Tensor, expected: Tensor, counts: (row: number) => boolean = () => true): Difference {
  const width = expected.dims.at(-1)!
  let [max, cosine, count] = [0, 1, 0]
  for (let row = 0; row < expected.size / width; row++) {
    if (!counts(row)) continue
    ++count
    let [ab, aa, bb] = [0, 0, 0]
    for (let i = row * width; i < (row + 1) * width; i++) {
      const a = got.data[i] as number
      const b = expected.data[i] as number
      max = Math.max(max, Math.abs(a - b))
      ab += a * b
      aa += a * a
      bb += b * b
    }
    cosine = Math.min(cosine, ab / Math.sqrt(aa * bb))
  }
  return { max, cosine, count }
}

/**
 * What a model of each dtype may differ from the reference: f32 by a part of the largest value; the others by a vector's cosine, which falls with the
 * square of the dtype's rounding step: 2^-8 of bf16, 2^-11 of f16. The fewer numbers in a row of logits, the more one of them turns its direction.
 */
const cosines: Readonly<Record<string, { least: number; logits: number }>> = {
  bf16: { least: 1 - 2e-3, logits: 1 - 1e-2 },
  f16: { least: 1 - 2e-3 / 16, logits: 1 - 1e-2 / 16 },
}

/** Every output of a fixture's folder against the original authors' code. `part`: what an f32 model may differ by, as a part of the largest value. */
export async function compareWithReference(t: Test, model: Model, folder: string, part = 2e-5): Promise<void> {
  const inputs = await readTensors(join(folder, 'inputs.safetensors'))
  const all = await readTensors(join(folder, 'expected.safetensors'))
  // `mask_of_…`: which rows of outputs count, where no input says so.
  const expected = Object.fromEntries(Object.entries(all).filter(([name]) => !name.startsWith('mask_of_')))
  const outputs = await model.forward(inputs, { outputs: Object.keys(expected) })
  t.strictSame(Object.keys(outputs).sort(), Object.keys(expected).sort(), 'what was asked for and nothing else')
  for (const [name, reference] of Object.entries(expected)) {
    const got = outputs[name]!
    t.strictSame(got.dims, reference.dims, `dimensions of ${name}`)
    if (reference.type === 'int64') {
      t.strictSame(got.data, reference.data, name)
      continue
    }
    const mask = maskOf(folder, name, reference.dims, { ...inputs, ...all })
    const { max, cosine } = difference(flat(got), flat(reference), row => !mask || mask[row] === 1)
    const bound = cosines[model.dtype]
    if (!bound) t.ok(max <= part * Math.max(1, largest(reference)), `${name}: off by ${max}`)
    else t.ok(cosine >= (name.startsWith('logits') ? bound.logits : bound.least), `${name}: cosine ${cosine}`)
    if (mask) {
      const width = reference.dims[2]!
      t.ok((got.data as Float32Array).every((value, i) => value === 0 || mask[Math.floor(i / width)] === 1), `${name} is 0 where masked`)
    }
  }
}

/** A map [B, C, H, W] is one vector for each picture. */
function flat(tensor: Tensor): Tensor {
  const { dims } = tensor
  return dims.length === 4 ? new Tensor('float32', tensor.data as Float32Array, [dims[0]!, dims[0] ? tensor.size / dims[0] : 0]) : tensor
}

/** The masks that, side by side, say which rows of an output [n, columns, C] count, by meta.json or else by what is usual. */
const usualMasks: readonly (readonly [outputs: RegExp, masks: readonly string[]])[] = [
  [/^vision_/, []],
  [/^(mlm_logits|text_hidden_state)$/, ['text_mask']],
  [/^(mvrc_logits|object_hidden_state)$/, ['object_mask']],
  [/./, ['packed_mask']],
  [/./, ['attn_masks']],
  [/./, ['attention_mask']],
  [/./, ['attention_mask', 'visual_attention_mask']],
]

/** 1 for the rows that count, of an output with a row for each column; undefined: all do. */
export function maskOf(folder: string, name: string, dims: readonly number[], tensors: Record<string, Tensor>): number[] | undefined {
  if (dims.length !== 3) return undefined
  const file = join(folder, 'meta.json')
  const told = existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Json)['masks']?.[name] : undefined
  if (told === 'all') return undefined
  const fits = (masks: readonly string[]) => masks.every(mask => tensors[mask]) && masks.reduce((sum, mask) => sum + tensors[mask]!.dims[1]!, 0) === dims[1]
  const masks = told !== undefined ? [told].flat() : usualMasks.find(([outputs, masks]) => outputs.test(name) && (masks.length === 0 || fits(masks)))?.[1]
  if (!masks || masks.length === 0) return undefined
  const rows = (mask: Tensor, b: number) => [...mask.data.subarray(b * mask.dims[1]!, (b + 1) * mask.dims[1]!)].map(Number)
  const all = Array.from({ length: dims[0]! }, (_, b) => masks.flatMap(mask => rows(tensors[mask]!, b)))
  // Text of a packed sequence has its tokens first, whatever the holes in its mask.
  if (masks[0] === 'text_mask') for (const row of all) row.sort((a, b) => b - a)
  return all.flat()
}

export function largest(tensor: Tensor): number {
  return (tensor.data as Float32Array).reduce((most, value) => Math.max(most, Math.abs(value)), 0)
}

export function int64(rows: readonly (readonly number[])[]): Tensor {
  return new Tensor('int64', BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0]!.length])
}

export function sameBits(a: Tensor, b: Tensor): boolean {
  return Buffer.compare(Buffer.from(a.data.buffer, a.data.byteOffset, a.data.byteLength), Buffer.from(b.data.buffer, b.data.byteOffset, b.data.byteLength)) === 0
}

/** Numbers in [0, 1) that are the same in every run. */
export function random(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let x = Math.imul(state ^ (state >>> 15), state | 1)
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61)
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32
  }
}
