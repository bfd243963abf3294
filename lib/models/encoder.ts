// What every architecture gives to Model: towers. A tower traces one modality, from pixels or packed tokens to named outputs; running,
// batching and placing results is the same for all of them (image-runner.ts, text-runner.ts).

import type { Parameter, Value } from '../core/value.js'
import type { PixelScale, Sequences } from '../nn/index.js'
import { gather, pool } from '../ops/index.js'

/** The graph of one batch: B pictures or S texts, T packed tokens. Values nobody asks for are never computed. */
export interface Traced {
  /** By the reference's names: [B, …] or [S, …] for one of each, [B·tokens, C] or [T, C] for each token. */
  readonly outputs: Readonly<Record<string, Value>>
  /** The residual stream: the embeddings, then after each layer. */
  readonly hiddenStates: readonly Value[]
  /** What stands for the picture or text in a search, [B or S, d], not normalised. */
  readonly embedding: Value
}

/** The name under which a tower's `embedding` is asked for; no output of a model is called so. */
export const EMBEDDING = '(embedding)'

interface Tower {
  /** Put before hidden_state_k: 'vision_', 'text_' or ''. */
  readonly prefix: string
  /** Outputs of the architecture that these weights cannot give, with the tensor that is absent. */
  readonly absent: Readonly<Record<string, string>>
}

export interface ImageTower extends Tower {
  readonly imageSize: { readonly height: number; readonly width: number }
  /** Whether pictures of other sizes are taken, too; those that are embedded have the size that the processor makes. */
  readonly anySize?: boolean
  /** pixels: uint8 [B, H, W, 3] or float32 [B, 3, H, W] */
  trace(pixels: Value, scale: PixelScale): Traced
}

/** Packed tokens; T and S vary. */
export interface TokenInputs {
  /** int32 [T] */
  readonly ids: Value
  /** int32 [T], rows of the position table. */
  readonly positions: Value
  /** int32 [T]; there if the tower has token types. */
  readonly types?: Value | undefined
  readonly sequences: Sequences
  /** int32 [S], the row of each text's end token; without it, that is the last one of each. Only for towers with `endOf`. */
  readonly ends?: Value | undefined
}

export interface TextTower extends Tower {
  readonly vocabulary: number
  /** Rows of the token type table; 0: token types are not read. */
  readonly tokenTypes: number
  /** Rows of the position table. */
  readonly positions: number
  /** Tokens a text may have. */
  readonly maxLength: number
  /** Whether the caller may give position_ids. */
  readonly takesPositionIds: boolean
  /** Position of each column of a row of ids. */
  positionIds(ids: Int32Array): Int32Array
  /** Causal towers: the column whose token stands for the text. Later ones have no influence on it. */
  endOf?(ids: Int32Array): number
  /** Scores depend on distances between rows: unmasked tokens must stand side by side. */
  readonly relativePositions: boolean
  /** Texts that are embedded are filled with this token to this many tokens, which count like others: SigLIP was trained so. */
  readonly pad?: { readonly id: number; readonly length: number } | undefined
  /** Outputs read from the first column, masked or not. */
  readonly readsFirst: readonly string[]
  trace(tokens: TokenInputs): Traced
}

/** A model as the registry builds it. */
export interface Architecture {
  readonly images?: ImageTower
  readonly texts?: TextTower
  /** Logarithm of the factor of image-text cosines; with it there are logits_per_image and logits_per_text. */
  readonly logitScale?: Parameter
  /** Added to the logits; with it there are their sigmoids, `probs_sigmoid`, too. */
  readonly logitBias?: Parameter
  /** Tokens that texts are cut to when they are embedded, where that is less than the tower takes. */
  readonly textLength?: number | undefined
  /** Names of the classes of `logits`. */
  readonly labels?: readonly string[]
}

/** The tokens that count, with their cumulative lengths: all but a masked first one that is there to be read. */
export function countedTokens(x: Value, { keys, cuSeqlens }: Sequences): { tokens: Value; cuSeqlens: Value | undefined } {
  return keys ? { tokens: gather(x, keys.rows, { dtype: 'float32' }), cuSeqlens: keys.cuSeqlens } : { tokens: x, cuSeqlens }
}

/** x: [T, C] -> [S, C] over the tokens that count. */
export function poolTokens(x: Value, sequences: Sequences, mode: 'mean' | 'max' | 'mean_sqrt_len'): Value {
  const { tokens, cuSeqlens } = countedTokens(x, sequences)
  return pool(tokens, { mode, cuSeqlens, dtype: 'float32' })
}
