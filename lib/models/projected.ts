// A tower in a model of two: its outputs carry the tower's prefix, and what it pools is projected into the space that both towers share.

import type { Value } from '../core/value.js'
import type { Linear, PixelScale } from '../nn/index.js'
import { l2Normalize } from '../ops/index.js'
import { EMBEDDING, type ImageTower, type TextTower, type TokenInputs, type Traced } from './encoder.js'

export interface Head {
  /** What is projected; default the output `pooler_output`. */
  pooled?: (traced: Traced) => Value
  /** Default: none, what is pooled is the embedding. */
  projection?: Linear | undefined
}

function project(traced: Traced, prefix: string, embeds: string, { pooled, projection }: Head): Traced {
  const vector = pooled ? pooled(traced) : traced.outputs['pooler_output']!
  const embedding = projection ? projection.forward(vector, { dtype: 'float32' }) : vector
  return {
    outputs: {
      ...prefixed(traced.outputs, prefix),
      [embeds]: l2Normalize(embedding, { dtype: 'float32' }),
      [`${embeds}_unnormalized`]: embedding,
    },
    hiddenStates: traced.hiddenStates,
    embedding,
  }
}

function prefixed<T>(named: Readonly<Record<string, T>>, prefix: string): Record<string, T> {
  return Object.fromEntries(Object.entries(named).map(([name, value]) => [prefix + name, value]))
}

/** Outputs `vision_…`, `image_embeds` and `image_embeds_unnormalized` of a tower that stands alone. */
export class ProjectedImages implements ImageTower {
  readonly prefix = 'vision_'
  readonly absent: Readonly<Record<string, string>>
  readonly imageSize: ImageTower['imageSize']

  constructor(
    private readonly tower: ImageTower,
    private readonly head: Head = {},
  ) {
    this.absent = prefixed(tower.absent, this.prefix)
    this.imageSize = tower.imageSize
  }

  trace(pixels: Value, scale: PixelScale): Traced {
    return project(this.tower.trace(pixels, scale), this.prefix, 'image_embeds', this.head)
  }
}

/** Outputs `text_…`, `text_embeds` and `text_embeds_unnormalized` of a tower that stands alone. */
export class ProjectedTexts implements TextTower {
  readonly prefix = 'text_'
  readonly absent: Readonly<Record<string, string>>
  readonly vocabulary: number
  readonly tokenTypes: number
  readonly positions: number
  readonly maxLength: number
  readonly takesPositionIds: boolean
  readonly distanceRow?: (distance: number) => number
  readonly readsPlaces: boolean
  readonly readsFirst: readonly string[]
  readonly pad: TextTower['pad']

  /** @param options.readsFirst whether what is pooled is the first token's, masked or not */
  constructor(
    private readonly tower: TextTower,
    private readonly head: Head & { readsFirst: boolean },
  ) {
    this.absent = prefixed(tower.absent, this.prefix)
    this.vocabulary = tower.vocabulary
    this.tokenTypes = tower.tokenTypes
    this.positions = tower.positions
    this.maxLength = tower.maxLength
    this.takesPositionIds = tower.takesPositionIds
    this.readsPlaces = tower.readsPlaces ?? false
    if (tower.distanceRow) this.distanceRow = distance => tower.distanceRow!(distance)
    this.pad = tower.pad
    const own = head.readsFirst ? ['text_embeds', 'text_embeds_unnormalized', EMBEDDING] : []
    this.readsFirst = [...tower.readsFirst.map(name => this.prefix + name), ...own]
  }

  positionIds(ids: Int32Array): Int32Array {
    return this.tower.positionIds(ids)
  }

  trace(tokens: TokenInputs): Traced {
    return project(this.tower.trace(tokens), this.prefix, 'text_embeds', this.head)
  }
}
