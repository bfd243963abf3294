// What every architecture gives to Model: towers. A tower traces one modality, from pixels or packed tokens to named outputs; running,
// batching and placing results is the same for all of them (image-runner.ts, text-runner.ts).

import { Tensor } from '../core/tensor.js'
import { constant, type Parameter, type Value } from '../core/value.js'
import type { AttentionExtra, PixelScale, Sequences } from '../nn/index.js'
import { gather, pool, reshape } from '../ops/index.js'
import type { TextCleaning } from '../data/text-cleaning.js'
import type { JointTower } from './joint.js'

/** The graph of one batch: B pictures or S texts, T packed tokens. Values nobody asks for are never computed. */
export interface Traced {
  /** By the reference's names: [B, …] or [S, …] for one of each, [B·tokens, C] or [T, C] for each token. */
  readonly outputs: Readonly<Record<string, Value>>
  /** The residual stream: the embeddings, then after each layer. */
  readonly hiddenStates: readonly Value[]
  /** Outputs of picture towers that are pictures themselves: what is [B·height·width, C] here is given as [B, C, height, width]. */
  readonly maps?: Readonly<Record<string, { readonly height: number; readonly width: number }>> | undefined
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
  /** Rows that poolings read, where these are not all: without the prompt. */
  readonly pooled?: { readonly rows: Value; readonly cuSeqlens: Value } | undefined
  /** int32 [Tq·Tk], only for towers with `distanceRow` and a text that runs alone: the row of each query's and key's distance. */
  readonly distanceRows?: Value | undefined
  /** int32 [T], only for towers with `readsPlaces`: 1 for the first token that counts, 2 for the next column, … */
  readonly places?: Value | undefined
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
  /** The column whose token stands for the text, of towers on which later ones have no influence or where there are none. */
  endOf?(ids: Int32Array): number
  /** Whether the token of `endOf` is read even where it is masked: it sees the others and is not seen. */
  readonly readsMaskedEnd?: boolean
  /**
   * There if scores depend on the distances between tokens, a text with a hole in its mask then runs alone: of each distance key − query the row
   * of the table of biases.
   */
  distanceRow?(distance: number): number
  /** Texts that are embedded are filled with this token to this many tokens, which count like others: SigLIP was trained so. */
  readonly pad?: { readonly id: number; readonly length: number } | undefined
  /** There if some layers see only keys at these distances key − query. */
  sees?(distance: number): boolean
  /** Whether `places` are read. */
  readonly readsPlaces?: boolean
  /**
   * There if not a mask but this id tells what is padding: `read` gives a row's tokens, with those that the tower itself puts behind them, and 1 for
   * each that counts.
   */
  readonly padded?: PaddedTexts | undefined
  /** Causal towers whose last token is their own: it sees all that counts, itself or not, and no other sees it. */
  readonly lastApart?: boolean
  /** Outputs read from the first column, masked or not. */
  readonly readsFirst: readonly string[]
  trace(tokens: TokenInputs): Traced
}

export interface PaddedTexts {
  readonly id: number
  read(ids: Int32Array): { readonly ids: Int32Array; readonly mask: Int32Array }
}

/** Frames of clips that count: int32 [T], their rows among all, and where each clip's begin, int32 [B + 1]. */
export interface ValidFrames {
  readonly rows: Value
  readonly cuSeqlens: Value
}

export interface AudioTower extends Tower {
  /** The fewest frames that it can do with. Default 1. */
  readonly leastFrames?: number
  /** There if frames that do not count would have an influence, so that a mask may leave out none: which part of the model reads them. */
  readonly mixesFrames?: string | undefined
  /** Outputs with a row for each of fewer frames: their names, and how many rows come of so many frames. */
  readonly reduced?: { readonly outputs: readonly string[]; framesOf(frames: number): number } | undefined
  /** Frames that so many samples make; 0 for too few. */
  framesOf(samples: number): number
  /** The fewest samples that make so many frames. */
  samplesFor(frames: number): number
  /**
   * Outputs for each frame are [B·frames, C], those after the masking [T, C] where some frames do not count.
   * @param samples float32 [B, L]
   */
  trace(samples: Value, valid?: ValidFrames): Traced
}

/** A picture tower with all of `tower`'s fields but those given. */
export function imagesLike(tower: ImageTower, own: Partial<ImageTower>): ImageTower {
  const { prefix, absent, imageSize, anySize } = tower
  return { prefix, absent, imageSize, ...(anySize && { anySize }), trace: (pixels, scale) => tower.trace(pixels, scale), ...own }
}

/** A text tower with all of `tower`'s fields but those given. */
export function textsLike(tower: TextTower, own: Partial<TextTower>): TextTower {
  const { prefix, absent, vocabulary, tokenTypes, positions, maxLength, takesPositionIds, pad, padded, readsPlaces, readsFirst, readsMaskedEnd, lastApart, endOf, distanceRow, sees } = tower
  return {
    ...{ prefix, absent, vocabulary, tokenTypes, positions, maxLength, takesPositionIds, pad, padded, readsFirst },
    ...(readsPlaces && { readsPlaces }),
    ...(readsMaskedEnd && { readsMaskedEnd }),
    ...(lastApart && { lastApart }),
    ...(endOf && { endOf: (ids: Int32Array) => tower.endOf!(ids) }),
    ...(distanceRow && { distanceRow: (distance: number) => tower.distanceRow!(distance) }),
    ...(sees && { sees: (distance: number) => tower.sees!(distance) }),
    positionIds: ids => tower.positionIds(ids),
    trace: tokens => tower.trace(tokens),
    ...own,
  }
}

/** What a folder of sentence-transformers or open_clip says of texts that are embedded. */
export interface SentenceSettings {
  /** Tokens that they are cut to, whatever the tokenizer says. */
  readonly maxLength?: number | undefined
  /** They are written in small letters before they are tokenized. */
  readonly lowercase: boolean
  /** What else is done to them before. */
  readonly cleaning?: TextCleaning | undefined
  /** Separators among the tokens are 0 (CLIPA). */
  readonly withoutSeparator?: boolean
  /** Whether a prompt's tokens are pooled with the others. */
  readonly poolsPrompt: boolean
}

/** A model as the registry builds it. */
export interface Architecture {
  /** Looks at texts and pictures together. */
  readonly joint?: JointTower
  readonly images?: ImageTower
  readonly texts?: TextTower
  readonly audio?: AudioTower
  /** Logarithm of the factor of image-text cosines; with it there are logits_per_image and logits_per_text. */
  readonly logitScale?: Parameter
  /** Where the joint tower's score of a text and a picture is: a column of one of its outputs, a probability or any number, more for a better match. */
  readonly matching?: { readonly output: string; readonly column: number; readonly kind: 'probability' | 'logit' }
  /** Of a model without a factor: the output of images' and texts' cosines, and the outputs they are computed from. */
  readonly cosines?: { readonly images: string; readonly texts: string; readonly output: string }
  /** Added to the logits; with it there are their sigmoids, `probs_sigmoid`, too. */
  readonly logitBias?: Parameter
  /** Of a folder that says how texts are read. */
  readonly sentence?: SentenceSettings
  /** Names of the classes of `logits`. */
  readonly labels?: readonly string[]
}

/** The rows of x [T, C] whose tokens count, with their cumulative lengths: all but a masked first one that is there to be read, and a prompt. */
export function countedRows(x: Value, { sequences, pooled }: TokenInputs): { rows: Value; cuSeqlens: Value | undefined } {
  const some = pooled ?? sequences.keys
  return some ? { rows: gather(x, some.rows, { dtype: 'float32' }), cuSeqlens: some.cuSeqlens } : { rows: x, cuSeqlens: sequences.cuSeqlens }
}

/** x: [T, C] -> [S, C] over the tokens that count. */
export function meanOfTokens(x: Value, tokens: TokenInputs): Value {
  const { rows, cuSeqlens } = countedRows(x, tokens)
  return pool(rows, { mode: 'mean', cuSeqlens, dtype: 'float32' })
}

/**
 * The mask of a window for a text with holes, whose tokens do not stand side by side: nothing where the tower's `distanceRow` is 0, and not seen
 * where it is 1. Of a text without holes there is none: the op's own window serves.
 */
export function maskByDistance({ ids, sequences, distanceRows }: TokenInputs, heads: number): AttentionExtra {
  if (!distanceRows) return {}
  const shares = constant(new Tensor('float32', Float32Array.of(0, -1e30), [2, 1])) // of a query that sees nothing all keys weigh the same
  const queries = ids.shape[0]!
  const mask = reshape(gather(shares, distanceRows, { dtype: 'float32' }), [queries, sequences.keys?.rows.shape[0] ?? queries])
  return { scoreBias: Array.from({ length: heads }, () => mask) }
}
