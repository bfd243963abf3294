// Pictures to tokens in one op: normalise, cut into P x P patches, project, put the class token first, add the positions.
// Checkpoints name and shape these tensors in many ways, so the names are given; a convolution's weight [C, 3, P, P] is [C, 3·P·P] here,
// and leading dimensions of 1 ([1, 1, C] for a class token) are dropped when the tensors are matched.

import { type Parameter, parameter, type Value } from '../core/value.js'
import { patchEmbed } from '../ops/index.js'
import type { Scope } from './scope.js'

/** How uint8 pixels become numbers: (pixel · rescale − mean) / std, per channel. */
export interface PixelScale {
  readonly rescale: number
  readonly mean: readonly number[]
  readonly std: readonly number[]
}

export interface PatchEmbedOptions {
  width: number
  /** Side of a patch in pixels. */
  patch: number
  /** Rows of the position table: patches, and one more for the class token. */
  tokens: number
  /** Checkpoint names below the scope; a part without a name does not exist. */
  names: { weight: string; bias?: string; classToken?: string; positions?: string }
  /** The stored table has `of` rows, of which these begin at `begin`: those before are for tokens that are put there otherwise. */
  positionRows?: { begin: number; of: number }
}

export class PatchEmbed {
  readonly weight: Parameter
  readonly bias: Parameter | undefined
  readonly classToken: Parameter | undefined
  readonly positions: Parameter | undefined
  readonly patch: number

  constructor(scope: Scope, { width, patch, tokens, names, positionRows }: PatchEmbedOptions) {
    this.patch = patch
    this.weight = scope.parameter(names.weight, [width, 3 * patch * patch], { role: 'linear' })
    this.bias = names.bias === undefined ? undefined : scope.parameter(names.bias, [width])
    this.classToken = names.classToken === undefined ? undefined : scope.parameter(names.classToken, [width])
    this.positions = names.positions === undefined ? undefined : scope.parameter(names.positions, [tokens, width], positionRows && { view: { shape: [positionRows.of, width], begin: positionRows.begin } })
  }

  /**
   * pixels: uint8 [B, Y, X, 3] or float32 [B, 3, Y, X] -> float32 [B·tokens, C]
   * @param positions float32 [tokens, C], in the table's place
   */
  forward(pixels: Value, scale: PixelScale, positions = this.positions && parameter(this.positions)): Value {
    return patchEmbed(pixels, parameter(this.weight), {
      bias: this.bias && parameter(this.bias),
      classToken: this.classToken && parameter(this.classToken),
      positionEmbedding: positions,
      patch: this.patch,
      rescale: scale.rescale,
      mean: scale.mean,
      std: scale.std,
      dtype: 'float32',
    })
  }
}
