// Runs a joint tower on any number of examples. What counts of them is packed one after the other up to a budget, each kind of rows by itself,
// so that no padding is computed, of texts, regions or patches; examples are read only when their turn comes.

import { BYTES_PER_ELEMENT } from '../core/dtype.js'
import type { UnsupportedError } from '../core/errors.js'
import { sizeOf } from '../core/shape.js'
import { Tensor, unwritten } from '../core/tensor.js'
import type { Value, ValueType } from '../core/value.js'
import type { PixelScale } from '../nn/index.js'
import { scatter } from '../ops/index.js'
import { EMBEDDING } from './encoder.js'
import type { Example, Examples, JointTower, PackedRows, RowData, SequenceRows, Streams } from './joint.js'
import type { Part, Prepared } from './part.js'
import { bucket, inHalves, namedValues, type OutputKind, outputKinds, PIECE_BYTES, pipeline, type Programs, UNSCALED } from './programs.js'

/** Rows of a kind in one run, unless a single example has more. */
const ROWS_AT_ONCE = 2048
const MIN_CAPACITY = 64
/** A plan has room for one sequence in so many rows. */
const ROWS_PER_SEQUENCE = 4
const NOTHING_UNSEEN: ReadonlySet<string> = new Set()

interface Batch {
  readonly index: number[]
  readonly examples: Example[]
}

/** The rows of a stream in a batch. */
interface Packed {
  readonly sequences: readonly SequenceRows[]
  /** [sequences + 1] */
  readonly offsets: Int32Array
}

export class JointRunner implements Part {
  readonly inputs: readonly string[]
  readonly required: readonly string[]
  readonly uses: readonly string[]
  readonly outputs: readonly string[]
  readonly absent: Readonly<Record<string, string>>
  readonly kinds: ReadonlyMap<string, OutputKind>
  private readonly perExample: number

  constructor(
    readonly tower: JointTower,
    readonly programs: Programs,
    /** Or why there is none: then only float32 pixels are taken. */
    private readonly scale: PixelScale | UnsupportedError | undefined,
  ) {
    this.perExample = tower.sequencesPerExample ?? 1
    this.kinds = outputKinds(inputs => this.trace(tower.streams, 1, inputs), this.specs(tower.streams, 1, NOTHING_UNSEEN), programs)
    this.inputs = tower.inputs
    this.required = tower.required
    this.uses = tower.uses ?? []
    this.outputs = [...[...this.kinds.keys()].filter(name => name !== EMBEDDING), ...(tower.told ?? [])]
    this.absent = tower.absent
  }

  prepare(given: Readonly<Record<string, Tensor>>): Prepared {
    const read = (tensors: Readonly<Record<string, Tensor>>) => {
      const examples = this.tower.read(tensors)
      const bytes = Object.values(examples.streams ?? {}).some(inputs => Object.values(inputs).some(({ dtype }) => dtype === 'uint8'))
      if (bytes && this.scale instanceof Error) throw this.scale
      return examples
    }
    const examples = this.uses.length === 0 ? read(given) : undefined
    return async (want, signal, used) => this.run(examples ?? read({ ...given, ...used }), want, signal)
  }

  private async run(examples: Examples, want: readonly string[], signal: AbortSignal | undefined): Promise<Record<string, Tensor>> {
    if (!this.programs.ready) await this.programs.load(signal)
    const { count, lengths, dims, told = {}, fill } = examples
    const computed = want.filter(name => !(name in told))
    const kindOf = (name: string): OutputKind => this.kinds.get(name)!
    const results: Record<string, Float32Array> = {}
    for (const name of computed) {
      const { per, rows, width } = kindOf(name)
      results[name] = new Float32Array(count * (per === 'examples' ? rows : lengths[per]!) * width).fill(fill?.[name] ?? 0)
    }
    if (computed.length > 0) await this.runAll(examples, computed, results, signal)
    const shape = (name: string) => {
      const { per, rows, width } = kindOf(name)
      if (dims?.[name]) return dims[name]
      return per !== 'examples' ? [count, lengths[per]!, width] : rows === 1 ? [count, width] : [count, rows, width]
    }
    return Object.fromEntries(want.map(name => [name, told[name] ?? new Tensor('float32', results[name]!, shape(name))]))
  }

  private async runAll(examples: Examples, want: readonly string[], results: Readonly<Record<string, Float32Array>>, signal: AbortSignal | undefined): Promise<void> {
    const streams = examples.streams ?? this.tower.streams
    const bytesPerRow = bytesOf(streams, want.map(name => this.kinds.get(name)!))
    let budget = ROWS_AT_ONCE
    let bytes = PIECE_BYTES
    let at = 0
    let left: { index: number; example: Example } | undefined
    const take = () => {
      while (!left && at < examples.count) {
        const index = at++
        const example = examples.read(index)
        if (example) left = { index, example }
      }
      return left
    }
    const next = (): Promise<void> | undefined => {
      const batch: Batch = { index: [], examples: [] }
      const rows: Record<string, number> = {}
      for (let taken = take(); taken; taken = take()) {
        const more = Object.keys(streams).map((stream): [string, number] => [stream, (rows[stream] ?? 0) + (this.repeats(stream, batch.examples.at(-1), taken.example) ? 0 : rowsOf(taken.example, stream))])
        const fits =
          more.every(([, count]) => count <= budget) &&
          more.reduce((sum, [stream, count]) => sum + count * bytesPerRow[stream]!, 0) <= bytes &&
          (batch.examples.length + 1) * this.perExample * ROWS_PER_SEQUENCE <= budget
        if (batch.examples.length > 0 && !fits) break
        Object.assign(rows, Object.fromEntries(more))
        batch.index.push(taken.index)
        batch.examples.push(taken.example)
        left = undefined
      }
      const { length } = batch.examples
      if (length === 0) return undefined
      const run = (from: number, count: number) =>
        this.runBatch(streams, { index: batch.index.slice(from, from + count), examples: batch.examples.slice(from, from + count) }, want, results, examples.lengths, signal)
      return inHalves(0, length, run).then(ran => {
        if (ran === length) return
        budget = Math.min(budget, Math.ceil((Math.max(...Object.values(rows)) * ran) / length))
        bytes = Math.ceil((bytes * ran) / length)
      })
    }
    await pipeline(next)
  }

  /** Whether an example has its rows of a stream from the one before. */
  private repeats(stream: string, before: Example | undefined, example: Example): boolean {
    return stream === this.tower.shared?.stream && before?.[0]![stream] === example[0]![stream]
  }

  private async runBatch(
    streams: Streams,
    { index, examples }: Batch,
    want: readonly string[],
    results: Readonly<Record<string, Float32Array>>,
    lengths: Readonly<Record<string, number>>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const own = (stream: string) => examples.filter((example, i) => !this.repeats(stream, examples[i - 1], example))
    const packed = Object.fromEntries(Object.keys(streams).map(stream => [stream, pack(own(stream).flatMap(example => example.map(rows => rows[stream]!)))]))
    const keyed = new Set(Object.keys(streams).filter(stream => packed[stream]!.sequences.some(({ unseen }) => unseen?.includes(1))))
    const most = Math.max(...Object.values(packed).map(({ offsets }) => offsets.at(-1)!))
    const capacity = bucket(Math.max(MIN_CAPACITY, most, examples.length * this.perExample * ROWS_PER_SEQUENCE))
    const program = this.programs.get(
      JSON.stringify(['joint', capacity, [...keyed], streams, want]),
      inputs => {
        const values = this.trace(streams, capacity, inputs)
        return Object.fromEntries(want.map(name => [name, values[name]!]))
      },
      this.specs(streams, capacity, keyed),
    )
    const tensors: Record<string, Tensor> = {}
    const { shared } = this.tower
    if (shared) tensors[SHARING] = vector(boundaries(packed[shared.by]!.offsets, examples.map((example, i) => !this.repeats(shared.stream, examples[i - 1], example))))
    for (const [stream, inputs] of Object.entries(streams)) {
      const { sequences, offsets } = packed[stream]!
      tensors[lengthsOf(stream)] = vector(offsets)
      for (const [name, { dtype, shape = [], rowsOf }] of Object.entries(inputs)) {
        const rows = offsets.at(-1)!
        const all = unwritten(dtype, [rows, ...shape], 'forward') as RowData
        sequences.forEach(({ values }, i) => {
          const from = offsets[i]! * sizeOf(shape)
          if (rowsOf === undefined) all.set(values[name]!, from)
          else values[name]!.forEach((row, r) => (all[from + r] = row + packed[rowsOf]!.offsets[i]!))
        })
        tensors[`${stream}.${name}`] = new Tensor(dtype, all, [rows, ...shape])
      }
      if (keyed.has(stream)) Object.assign(tensors, seenRows(stream, packed[stream]!))
    }
    const counts = { examples: examples.length, ...Object.fromEntries(Object.entries(packed).map(([stream, { offsets }]) => [stream, offsets.at(-1)!])) }
    const outputs = await program.run(tensors, { signal, counts: pick(counts, program.extents) })
    for (const name of want) {
      const { per, rows, width } = this.kinds.get(name)!
      const from = outputs[name]!.data as Float32Array
      const to = results[name]!
      if (per === 'examples') {
        const size = rows * width
        index.forEach((example, i) => to.set(from.subarray(i * size, (i + 1) * size), example * size))
      } else {
        const { sequences, offsets } = packed[per]!
        sequences.forEach(({ count, columns }, i) => {
          const first = index[Math.floor(i / this.perExample)]! * lengths[per]!
          for (let r = 0; r < count; r++) {
            const column = columns ? columns[r]! : r
            if (column >= 0) to.set(from.subarray((offsets[i]! + r) * width, (offsets[i]! + r + 1) * width), (first + column) * width)
          }
        })
      }
    }
  }

  private trace(streams: Streams, capacity: number, inputs: Record<string, Value>): Record<string, Value> {
    const value = (stream: string, input: string) => inputs[`${stream}.${input}`]!
    const rows: PackedRows = {
      value,
      has: (stream, input) => streams[stream]?.[input] !== undefined,
      sequences: stream => {
        const seen = inputs[`${stream}.(seen)`]
        return { cuSeqlens: inputs[lengthsOf(stream)]!, ...(seen && { keys: { rows: seen, cuSeqlens: inputs[`${stream}.(seen lengths)`]! } }) }
      },
      sharing: () => ({ cuSeqlens: inputs[SHARING]! }),
      placed: (x, from, to, input = 'place') => scatter(x, value(from, input), { rows: capacity, extent: { name: to, per: 1 }, dtype: 'float32' }),
    }
    return namedValues(this.tower.trace(rows, this.scale instanceof Error || !this.scale ? UNSCALED : this.scale), this.tower.prefix)
  }

  private specs(streams: Streams, capacity: number, keyed: ReadonlySet<string>): Record<string, ValueType> {
    const examples = Math.ceil(capacity / (ROWS_PER_SEQUENCE * this.perExample))
    const lengths: ValueType = { shape: [examples * this.perExample + 1], dtype: 'int32', extent: { name: 'examples', per: this.perExample, extra: 1 } }
    const specs: Record<string, ValueType> = {}
    const { shared } = this.tower
    const groups: ValueType = { ...lengths, extent: { name: 'groups', per: 1, extra: 1 } }
    if (shared) specs[SHARING] = groups
    for (const [stream, inputs] of Object.entries(streams)) {
      specs[lengthsOf(stream)] = stream === shared?.stream ? groups : lengths
      for (const [name, { dtype, shape = [] }] of Object.entries(inputs)) {
        specs[`${stream}.${name}`] = { shape: [capacity, ...shape], dtype, extent: { name: stream, per: 1 } }
      }
      if (!keyed.has(stream)) continue
      specs[`${stream}.(seen)`] = { shape: [capacity], dtype: 'int32', extent: { name: `${stream} seen`, per: 1 } }
      specs[`${stream}.(seen lengths)`] = lengths
    }
    return specs
  }
}

/** Cumulative rows of `shared.by` for each sequence of `shared.stream`. */
const SHARING = '(sharing)'
const lengthsOf = (stream: string) => `${stream}.(lengths)`

function rowsOf(example: Example, stream: string): number {
  return example.reduce((sum, rows) => sum + rows[stream]!.count, 0)
}

/** Bytes that a row of each stream takes, in and out. */
function bytesOf(streams: Streams, outputs: readonly OutputKind[]): Record<string, number> {
  return Object.fromEntries(
    Object.entries(streams).map(([stream, inputs]) => {
      const into = Object.values(inputs).reduce((sum, { dtype, shape = [] }) => sum + BYTES_PER_ELEMENT[dtype] * sizeOf(shape), 0)
      return [stream, outputs.reduce((sum, { per, width }) => sum + (per === stream ? 4 * width : 0), into)]
    }),
  )
}

/** The offsets where a group of sequences begins, and the last. */
function boundaries(offsets: Int32Array, begins: readonly boolean[]): Int32Array {
  return Int32Array.from([...begins.flatMap((begin, i) => (begin ? [offsets[i]!] : [])), offsets.at(-1)!])
}

function pack(sequences: readonly SequenceRows[]): Packed {
  const offsets = new Int32Array(sequences.length + 1)
  sequences.forEach(({ count }, i) => (offsets[i + 1] = offsets[i]! + count))
  return { sequences, offsets }
}

/** The rows that are seen, and the lengths of their sequences. */
function seenRows(stream: string, { sequences, offsets }: Packed): Record<string, Tensor> {
  const rows: number[] = []
  const lengths = new Int32Array(sequences.length + 1)
  sequences.forEach(({ count, unseen }, i) => {
    for (let r = 0; r < count; r++) if (!unseen?.[r]) rows.push(offsets[i]! + r)
    lengths[i + 1] = rows.length
  })
  return { [`${stream}.(seen)`]: vector(Int32Array.from(rows)), [`${stream}.(seen lengths)`]: vector(lengths) }
}

function vector(data: Int32Array): Tensor {
  return new Tensor('int32', data, [data.length])
}

function pick(counts: Readonly<Record<string, number>>, names: readonly string[]): Record<string, number> {
  return Object.fromEntries(names.filter(name => name in counts).map(name => [name, counts[name]!]))
}
