// A learned table of positions over a grid of patches, for pictures of many sizes in one run: each patch says with which weights the table's
// rows are mixed. The weights are those of torch.nn.functional.interpolate, mode 'bilinear'.

import { type Parameter, parameter, type Value } from '../core/value.js'
import { matmul } from '../ops/index.js'
import type { Grid } from './positions.js'
import type { Scope } from './scope.js'

export interface MixedPositionsOptions {
  width: number
  grid: Grid
  /** Rows of the table before those of the patches: a class token's. Default 0. */
  skip?: number
  /** align_corners: the corners of both grids are the same points. Else edges are, and shrinking averages over all it leaves out (antialias). */
  alignCorners: boolean
}

export class MixedPositions {
  private readonly transposed: Parameter

  constructor(
    scope: Scope,
    name: string,
    private readonly options: MixedPositionsOptions,
  ) {
    const { width, grid, skip = 0 } = options
    const patches = grid.height * grid.width
    this.transposed = scope.parameter(name, [width, patches], { view: { shape: [skip + patches, width], begin: skip, order: [1, 0] } })
  }

  /** Rows of the table, so many weights each patch has. */
  get size(): number {
    return this.options.grid.height * this.options.grid.width
  }

  /** weights: float32 [T, size] -> float32 [T, C] */
  forward(weights: Value): Value {
    return matmul(weights, parameter(this.transposed), { dtype: 'float32' })
  }

  /** The weights [to.height·to.width, size] of a picture's patches, row by row. */
  weights(to: Grid): Float32Array {
    const { grid, alignCorners } = this.options
    const of = alignCorners ? cornerWeights : edgeWeights
    const rows = of(grid.height, to.height)
    const columns = of(grid.width, to.width)
    const weights = new Float32Array(to.height * to.width * this.size)
    let at = 0
    for (const row of rows) for (const column of columns) for (const y of row) for (const x of column) weights[at++] = y * x
    return weights
  }
}

/** For each of `to` places the weights of `from` ones, first and last being the same places. */
function cornerWeights(from: number, to: number): Float64Array[] {
  return Array.from({ length: to }, (_, i) => {
    const weights = new Float64Array(from)
    const place = to > 1 ? (i * (from - 1)) / (to - 1) : 0
    const low = Math.min(from - 1, Math.floor(place))
    weights[low] = 1 - (place - low)
    if (low + 1 < from) weights[low + 1] = place - low
    return weights
  })
}

/** The same with the edges being the same, and wider where there are fewer than `from`. */
function edgeWeights(from: number, to: number): Float64Array[] {
  const scale = from / to
  const reach = Math.max(1, scale)
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale - 0.5
    const weights = Float64Array.from({ length: from }, (_, j) => Math.max(0, 1 - Math.abs(j - centre) / reach))
    const sum = weights.reduce((total, weight) => total + weight, 0)
    return weights.map(weight => weight / sum)
  })
}
