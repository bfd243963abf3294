// Runs an audio tower on any number of clips of one length, a few at a time: samples to frames. Frames that a mask leaves out are not computed.

import { ArgumentError, DTypeError, ShapeError } from '../core/errors.js'
import { partOf, Tensor, unwritten } from '../core/tensor.js'
import type { Value, ValueType } from '../core/value.js'
import { type AudioTower, EMBEDDING } from './encoder.js'
import type { Part, Prepared } from './part.js'
import { bucket, checkFinite, inHalves, namedValues, type OutputKind, outputKinds, pipeline, type Programs } from './programs.js'

/** Samples in one run, unless a single clip has more: 20 seconds at the usual rate. */
export const SAMPLES_AT_ONCE = 320_000

interface Clips {
  /** float32 [n, L] */
  readonly values: Tensor
  /** Frames of each clip that count; undefined: all do. */
  readonly valid: readonly number[] | undefined
}

export class AudioRunner implements Part {
  readonly inputs = ['input_values', 'attention_mask']
  readonly required = ['input_values']
  readonly outputs: readonly string[]
  readonly absent: Readonly<Record<string, string>>
  readonly kinds: ReadonlyMap<string, OutputKind>
  /** Names of outputs with a row for each frame. */
  private readonly perFrame: ReadonlySet<string>

  constructor(
    readonly tower: AudioTower,
    readonly programs: Programs,
  ) {
    // Two frames or more tell the outputs for each frame from those for each clip.
    const frames = Math.max(2, tower.leastFrames ?? 1)
    const length = tower.samplesFor(frames)
    this.kinds = outputKinds(({ samples }) => this.trace(samples!), specs(1, length, frames, false), programs)
    if (!tower.mixesFrames) outputKinds(({ samples, rows, cuSeqlens }) => this.trace(samples!, rows, cuSeqlens), specs(1, length, frames, true), programs)
    const reduced = tower.reduced?.outputs ?? []
    this.perFrame = new Set([...this.kinds].filter(([name, { rows }]) => rows === frames || reduced.includes(name)).map(([name]) => name))
    this.outputs = [...this.kinds.keys()].filter(name => name !== EMBEDDING)
    this.absent = tower.absent
  }

  /** The fewest samples of a clip. */
  get leastSamples(): number {
    return this.tower.samplesFor(this.tower.leastFrames ?? 1)
  }

  /** Rows of an output for a clip of so many frames. */
  private rowsOf(name: string, frames: number): number {
    if (!this.perFrame.has(name)) return 1
    const { reduced } = this.tower
    return reduced?.outputs.includes(name) ? reduced.framesOf(frames) : frames
  }

  prepare(given: Readonly<Record<string, Tensor>>): Prepared {
    const values = this.readValues(given['input_values']!)
    const clips = { values, valid: this.readMask(given['attention_mask'], values) }
    return (want, signal) => this.run(clips, want, signal)
  }

  /** @throws DTypeError, ShapeError unless `tensor` holds clips that are long enough. */
  private readValues(tensor: Tensor): Tensor {
    const { type, dims } = tensor
    if (type !== 'float32') throw new DTypeError(`[forward] input_values is ${type}; expected float32`, { field: 'input_values' })
    const least = this.leastSamples
    if (dims.length !== 2 || dims[1]! < least) {
      throw new ShapeError(`[forward] input_values is [${dims.join(', ')}]; expected [n, samples], at least ${least} samples`, { field: 'input_values', shapes: [dims] })
    }
    return tensor
  }

  /** As many frames count, from the first on, as the samples that a mask counts would make, wherever they are. */
  private readMask(mask: Tensor | undefined, { dims }: Tensor): number[] | undefined {
    if (!mask) return undefined
    const field = 'attention_mask'
    if (mask.type !== 'int64' && mask.type !== 'int32') throw new DTypeError(`[forward] ${field} is ${mask.type}; expected int64 or int32`, { field })
    const [n, length] = dims as [number, number]
    if (mask.dims.length !== 2 || mask.dims[0] !== n || mask.dims[1] !== length) {
      throw new ShapeError(`[forward] ${field} is [${mask.dims.join(', ')}]; expected [${n}, ${length}], as input_values`, { field, shapes: [mask.dims, dims] })
    }
    const least = this.leastSamples
    const valid = Array.from({ length: n }, (_, index) => {
      let samples = 0
      for (let i = index * length; i < (index + 1) * length; i++) {
        const value = Number(mask.data[i])
        if (value !== 0 && value !== 1) throw new ArgumentError(`[forward] ${field} of clip ${index} is ${value} at sample ${i - index * length}; expected 0 or 1`, { field, index })
        samples += value
      }
      if (samples > 0 && samples < least) throw new ArgumentError(`[forward] ${field} of clip ${index} counts ${samples} samples; expected none or at least ${least}`, { field, index })
      return this.tower.framesOf(samples)
    })
    const frames = this.tower.framesOf(length)
    const index = valid.findIndex(count => count !== frames)
    if (index < 0) return undefined
    const { mixesFrames } = this.tower
    if (mixesFrames) {
      throw new ArgumentError(`[forward] ${field} of clip ${index} counts ${valid[index]} of ${frames} frames; expected all, as ${mixesFrames} reads frames side by side: run clips of another length by themselves`, { field, index })
    }
    return valid
  }

  /**
   * @param want names of outputs
   * @returns for each, [n, C] or [n, frames, C]; zeros for frames that do not count
   * @throws ArgumentError naming the clip that holds NaN or infinity
   */
  async run({ values, valid }: Clips, want: readonly string[], signal?: AbortSignal): Promise<Record<string, Tensor>> {
    if (!this.programs.ready) await this.programs.load(signal)
    const [count, length] = values.dims as [number, number]
    const frames = this.tower.framesOf(length)
    const kinds = want.map(name => ({ name, width: this.kinds.get(name)!.width, rows: this.rowsOf(name, frames) }))
    const results = kinds.map(({ rows, width }) => (valid ? new Float32Array(count * rows * width) : (unwritten('float32', [count, rows, width], 'forward') as Float32Array)))
    let most = Math.max(1, Math.floor(SAMPLES_AT_ONCE / length))
    let first = 0
    const run = async (from: number, clips: number) => {
      const some = partOf(values, from * length, [clips, length], '[forward] input_values')
      checkFinite(some.data as Float32Array, length, from, { field: 'input_values', noun: 'clip', place: 'sample' })
      const parts = kinds.map(({ name, rows, width }, i): [string, Float32Array] => [name, results[i]!.subarray(from * rows * width, (from + clips) * rows * width)])
      if (!valid) await this.program(clips, length, frames, false, want).run({ samples: some }, { signal, into: Object.fromEntries(parts) })
      else await this.runMasked(some, valid.slice(from, from + clips), frames, parts, signal)
    }
    await pipeline(() => {
      if (first >= count) return undefined
      const [from, clips] = [first, Math.min(most, count - first)]
      first += clips
      return inHalves(from, clips, run).then(ran => {
        if (ran < clips) most = Math.min(most, ran)
      })
    })
    return Object.fromEntries(kinds.map(({ name, rows, width }, i) => [name, new Tensor('float32', results[i]!, this.perFrame.has(name) ? [count, rows, width] : [count, width])]))
  }

  private async runMasked(samples: Tensor, valid: readonly number[], frames: number, parts: [string, Float32Array][], signal: AbortSignal | undefined): Promise<void> {
    const rows = Int32Array.from(valid.flatMap((count, clip) => Array.from({ length: count }, (_, i) => clip * frames + i)))
    const cuSeqlens = Int32Array.from([0, ...valid])
    for (let i = 1; i < cuSeqlens.length; i++) cuSeqlens[i]! += cuSeqlens[i - 1]!
    const program = this.program(valid.length, samples.dims[1]!, frames, true, parts.map(([name]) => name))
    const inputs = { samples, rows: new Tensor('int32', rows, [rows.length]), cuSeqlens: new Tensor('int32', cuSeqlens, [cuSeqlens.length]) }
    const outputs = await program.run(inputs, { signal })
    for (const [name, part] of parts) {
      const { data, dims } = outputs[name]!
      const width = dims[1]!
      // What is packed has a row for each frame that counts.
      if (program.outputTypes[name]!.extent!.name !== 'frames') part.set(data as Float32Array)
      else rows.forEach((row, i) => part.set((data as Float32Array).subarray(i * width, (i + 1) * width), row * width))
    }
  }

  private program(clips: number, length: number, frames: number, masked: boolean, want: readonly string[]) {
    const capacity = bucket(clips)
    const pick = (values: Record<string, Value>) => Object.fromEntries(want.map(name => [name, values[name]!]))
    return this.programs.get(
      JSON.stringify(['audio', capacity, length, masked, want]),
      ({ samples, rows, cuSeqlens }) => pick(this.trace(samples!, rows, cuSeqlens)),
      specs(capacity, length, frames, masked),
    )
  }

  private trace(samples: Value, rows?: Value, cuSeqlens?: Value): Record<string, Value> {
    return namedValues(this.tower.trace(samples, rows && cuSeqlens && { rows, cuSeqlens }), this.tower.prefix)
  }
}

function specs(clips: number, length: number, frames: number, masked: boolean): Record<string, ValueType> {
  return {
    samples: { shape: [clips, length], dtype: 'float32', extent: { name: 'clips', per: 1 } },
    ...(masked && {
      rows: { shape: [clips * frames], dtype: 'int32', extent: { name: 'frames', per: 1 } },
      cuSeqlens: { shape: [clips + 1], dtype: 'int32', extent: { name: 'clips', per: 1, extra: 1 } },
    }),
  }
}
