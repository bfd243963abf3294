// A learned table of positions over a grid of patches, at the size it was made for or interpolated to another, as PyTorch does
// (torch.nn.functional.interpolate, mode 'bicubic', align_corners false). Interpolation is a product with a constant matrix.

import { Tensor } from '../core/tensor.js'
import { constant, type Parameter, parameter, type Value } from '../core/value.js'
import { matmul } from '../ops/index.js'
import type { Scope } from './scope.js'

export interface Grid {
  readonly height: number
  readonly width: number
}

export interface GridPositionsOptions {
  width: number
  grid: Grid
  /** Rows of the table before those of the patches: a class token's. Default 0. */
  skip?: number
  /** Whether shrinking averages over all it leaves out, as Pillow does. Default false. */
  antialias?: boolean
}

export class GridPositions {
  private readonly table: Parameter
  private readonly transposed: Parameter
  private readonly matrices = new Map<string, Value>()

  constructor(
    scope: Scope,
    name: string,
    private readonly options: GridPositionsOptions,
  ) {
    const { width, grid, skip = 0 } = options
    const patches = grid.height * grid.width
    const view = { shape: [skip + patches, width], begin: skip }
    this.table = scope.parameter(name, [patches, width], { view })
    this.transposed = scope.parameter(name, [width, patches], { view: { ...view, order: [1, 0] } })
  }

  /** float32 [height·width, C], row by row. */
  forward(to: Grid): Value {
    const { grid, antialias = false } = this.options
    if (to.height === grid.height && to.width === grid.width) return parameter(this.table)
    const key = `${to.height} ${to.width}`
    const known = this.matrices.get(key)
    if (known) return this.times(known)
    const rows = bicubic(grid.height, to.height, antialias)
    const columns = bicubic(grid.width, to.width, antialias)
    const matrix = new Float32Array(to.height * to.width * grid.height * grid.width)
    let at = 0
    for (const row of rows) for (const column of columns) for (const y of row) for (const x of column) matrix[at++] = y * x
    const made = constant(new Tensor('float32', matrix, [to.height * to.width, grid.height * grid.width]))
    this.matrices.clear() // the latest alone: they may be large
    this.matrices.set(key, made)
    return this.times(made)
  }

  private times(matrix: Value): Value {
    return matmul(matrix, parameter(this.transposed), { dtype: 'float32' })
  }
}

/** For each of `to` places, the weights of `from` ones. The cubic has a = -0.75, and -0.5 where it is antialiased. */
function bicubic(from: number, to: number, antialias: boolean): Float64Array[] {
  const scale = from / to
  const a = antialias ? -0.5 : -0.75
  const stretch = antialias ? Math.max(1, scale) : 1
  const cubic = (distance: number) => {
    const x = Math.abs(distance)
    if (x <= 1) return ((a + 2) * x - (a + 3)) * x * x + 1
    return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : 0
  }
  return Array.from({ length: to }, (_, i) => {
    const weights = new Float64Array(from)
    const centre = (i + 0.5) * scale - 0.5
    const reach = 2 * stretch
    for (let j = Math.ceil(centre - reach); j <= Math.floor(centre + reach); j++) {
      // Beyond its ends the table goes on with its last value, or, antialiased, is not there.
      if (!antialias) weights[Math.min(from - 1, Math.max(0, j))]! += cubic(j - centre)
      else if (j >= 0 && j < from) weights[j] = cubic((j - centre) / stretch)
    }
    const sum = antialias ? weights.reduce((total, weight) => total + weight, 0) : 1
    return weights.map(weight => weight / sum)
  })
}
