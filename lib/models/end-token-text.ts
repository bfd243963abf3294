// What CLIP's text tower and its relatives share: words and positions through pre-norm blocks and a last norm, and one token that stands for the text.

import type { Value } from '../core/value.js'
import { type Embedding, hiddenStates, type LayerNorm, type TransformerBlock } from '../nn/index.js'
import { add, gather, pickToken } from '../ops/index.js'
import type { TextTower, TokenInputs, Traced } from './encoder.js'

export interface EndTokenParts {
  vocabulary: number
  /** Rows of the position table. */
  positions: number
  /** Tokens a text may have; default: as many as there are positions. */
  maxLength?: number
  words: { forward(ids: Value): Value }
  places: Embedding
  layers: readonly TransformerBlock[]
  norm: LayerNorm
}

export abstract class EndTokenText implements TextTower {
  readonly prefix: string = ''
  readonly absent = {}
  readonly tokenTypes = 0
  readonly takesPositionIds: boolean = true
  readonly readsFirst = []
  readonly vocabulary: number
  readonly positions: number
  readonly maxLength: number

  constructor(private readonly parts: EndTokenParts) {
    const { vocabulary, positions, maxLength = positions } = parts
    this.vocabulary = vocabulary
    this.positions = positions
    this.maxLength = maxLength
  }

  positionIds(ids: Int32Array): Int32Array {
    return ids.map((_, i) => i)
  }

  abstract endOf(ids: Int32Array): number

  trace({ ids, positions, sequences, ends }: TokenInputs): Traced {
    const { words, places, layers, norm } = this.parts
    const states = hiddenStates(layers, add(words.forward(ids), places.forward(positions)), sequences)
    const last = norm.forward(states.at(-1)!, { dtype: 'float32' })
    const pooled = ends ? gather(last, ends, { dtype: 'float32' }) : pickToken(last, { which: 'last', cuSeqlens: sequences.cuSeqlens })
    return { outputs: { last_hidden_state: last, pooler_output: pooled }, hiddenStates: states, embedding: pooled }
  }
}
