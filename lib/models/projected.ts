// A tower in a model of two: its outputs carry the tower's prefix, and what it pools is projected into the space that both towers share.

import type { Value } from '../core/value.js'
import type { Linear } from '../nn/index.js'
import { l2Normalize } from '../ops/index.js'
import { EMBEDDING, type ImageTower, imagesLike, type TextTower, textsLike, type Traced } from './encoder.js'

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
    ...(traced.maps && { maps: prefixed(traced.maps, prefix) }),
    embedding,
  }
}

function prefixed<T>(named: Readonly<Record<string, T>>, prefix: string): Record<string, T> {
  return Object.fromEntries(Object.entries(named).map(([name, value]) => [prefix + name, value]))
}

/** `tower` with outputs `vision_…`, `image_embeds` and `image_embeds_unnormalized`. */
export function projectedImages(tower: ImageTower, head: Head = {}): ImageTower {
  const prefix = 'vision_'
  return imagesLike(tower, {
    prefix,
    absent: prefixed(tower.absent, prefix),
    trace: (pixels, scale) => project(tower.trace(pixels, scale), prefix, 'image_embeds', head),
  })
}

/**
 * `tower` with outputs `text_…`, `text_embeds` and `text_embeds_unnormalized`.
 * @param head.readsFirst whether what is pooled is the first token's, masked or not
 */
export function projectedTexts(tower: TextTower, head: Head & { readsFirst: boolean }): TextTower {
  const prefix = 'text_'
  const own = head.readsFirst ? ['text_embeds', 'text_embeds_unnormalized', EMBEDDING] : []
  return textsLike(tower, {
    prefix,
    absent: prefixed(tower.absent, prefix),
    readsFirst: [...tower.readsFirst.filter(name => name !== EMBEDDING).map(name => prefix + name), ...own],
    trace: tokens => project(tower.trace(tokens), prefix, 'text_embeds', head),
  })
}
