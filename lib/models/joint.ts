// What an architecture gives that looks at text and picture together, or at pictures of sizes of their own: a joint tower. Its examples have
// rows of several kinds (tokens, regions, both in one sequence), and of each kind a number of their own: they are packed one after the other.

import type { Tensor } from '../core/tensor.js'
import type { Value } from '../core/value.js'
import type { PixelScale, Sequences } from '../nn/index.js'
import type { Traced } from './encoder.js'

/** What each row of a stream has: an int32, or an array. */
export interface RowInput {
  readonly dtype: 'int32' | 'float32' | 'uint8'
  /** Of what a row has; default: it is one number, and all rows are a vector. */
  readonly shape?: readonly number[]
  /** The numbers are rows of this stream, counted from where the sequence begins there. */
  readonly rowsOf?: string
}

/** The inputs of each kind of rows. */
export type Streams = Readonly<Record<string, Readonly<Record<string, RowInput>>>>

export type RowData = Int32Array | Float32Array | Uint8Array

/** The rows of one kind that one sequence has. */
export interface SequenceRows {
  readonly count: number
  /** By the stream's inputs. */
  readonly values: Readonly<Record<string, RowData>>
  /** The column of the outputs that each row belongs to; below 0: none, the row is computed for others. Default: one after the other. */
  readonly columns?: Int32Array | undefined
  /** 1 for rows that the others do not see: they are masked, and computed because they are read. */
  readonly unseen?: Uint8Array | undefined
}

/** The sequences of an example, each with rows of every stream. */
export type Example = readonly Readonly<Record<string, SequenceRows>>[]

/** The inputs of one call, checked. */
export interface Examples {
  readonly count: number
  /** The streams' inputs where they are others than the tower's. */
  readonly streams?: Streams | undefined
  /** Columns that outputs for each row have. */
  readonly lengths: Readonly<Record<string, number>>
  /** Dimensions of outputs that have others than [count, C] or [count, columns, C]. */
  readonly dims?: Readonly<Record<string, readonly number[]>> | undefined
  /** Outputs that are told by the inputs alone. */
  readonly told?: Readonly<Record<string, Tensor>> | undefined
  /** What stands in outputs where nothing is computed; default 0. */
  readonly fill?: Readonly<Record<string, number>> | undefined
  /** Undefined if all of the example is masked. @throws ArgumentError naming the example */
  read(index: number): Example | undefined
}

/** The packed rows of one run, while it is traced. */
export interface PackedRows {
  value(stream: string, input: string): Value
  has(stream: string, input: string): boolean
  /** Where the sequences of a stream begin and end, and which of its rows are seen. */
  sequences(stream: string): Sequences & { readonly cuSeqlens: Value }
  /** The rows of `shared.by`, a sequence for each of `shared.stream`. */
  sharing(): Sequences & { readonly cuSeqlens: Value }
  /** x, the rows of `from`, put in the places among the rows of `to` that the input `place` of `from` tells; zeros elsewhere. */
  placed(x: Value, from: string, to: string, input?: string): Value
}

export interface JointTower {
  /** Put before hidden_state_k. */
  readonly prefix: string
  /** Outputs of the architecture that these weights cannot give, with the tensor that is absent. */
  readonly absent: Readonly<Record<string, string>>
  readonly inputs: readonly string[]
  readonly required: readonly string[]
  /** Outputs that are told by the inputs alone. */
  readonly told?: readonly string[]
  /** Outputs of the model's other parts that are inputs of this one. */
  readonly uses?: readonly string[]
  /** Default 1. */
  readonly sequencesPerExample?: number
  readonly streams: Streams
  /** Neighbouring examples whose rows of `stream` are the same object have them once, and those of `by` look at them together. */
  readonly shared?: { readonly stream: string; readonly by: string }
  /** Tokens a text may have. */
  readonly maxLength?: number
  /** Whether what it embeds are pictures alone, so that it is the model's picture tower. */
  readonly embedsPictures?: boolean
  /** Whether it reads pixels, which a processor makes. */
  readonly takesPixels?: boolean
  /** @throws ArgumentError, ShapeError, DTypeError unless the inputs belong together. */
  read(given: Readonly<Record<string, Tensor>>): Examples
  /** @param scale how uint8 pixels become numbers */
  trace(rows: PackedRows, scale: PixelScale): Traced
}
