// A part of a model that Model.forward runs by itself, a tower say: which inputs it takes and which outputs it gives. Outputs have the
// names of the reference; nothing that nobody asks for is computed.

import type { Tensor } from '../core/tensor.js'

/** Runs a part on inputs that were found to be right: the outputs of these names. `used` are the outputs that it `uses`. */
export type Prepared = (want: readonly string[], signal?: AbortSignal, used?: Readonly<Record<string, Tensor>>) => Promise<Record<string, Tensor>>

export interface Part {
  /** Names of all inputs it takes. */
  readonly inputs: readonly string[]
  /** Those without which it cannot run. */
  readonly required: readonly string[]
  /** Outputs of parts before it that it goes on from. */
  readonly uses?: readonly string[]
  /** Names of its outputs, hidden states too. */
  readonly outputs: readonly string[]
  /** Outputs of the architecture that these weights cannot give, with the tensor that is absent. */
  readonly absent: Readonly<Record<string, string>>
  /** @throws ArgumentError, ShapeError, DTypeError unless the inputs belong together. */
  prepare(given: Readonly<Record<string, Tensor>>): Prepared
}
