// Pictures of sizes of their own within a padded canvas: which patches their masks mark, and the pixels of those, patch by patch.

import { ArgumentError, DTypeError, ShapeError } from '../core/errors.js'
import { checkHeld, type Tensor } from '../core/tensor.js'
import type { Grid } from '../nn/index.js'

export type { Grid } from '../nn/index.js'
export type PatchPixels = 'float32' | 'uint8'

/** The patches of a picture that count. */
export interface Marked {
  /** Row by row in the canvas. */
  readonly places: Int32Array
  /** Rows and columns that the first column and row of the canvas have marked. */
  readonly grid: Grid
}

/** Pictures of one call. */
export interface Pictures {
  readonly pixels: Tensor
  readonly type: PatchPixels
  /** In pixels. */
  readonly size: Grid
  /** In patches; what is beyond whole ones is ignored. */
  readonly canvas: Grid
}

/**
 * Pictures uint8 [n, H, W, 3] or float32 [n, 3, H, W].
 * @throws DTypeError, ShapeError
 */
export function checkPixels(pixels: Tensor, patch: number): Pictures {
  const { type, dims } = pixels
  if (type !== 'uint8' && type !== 'float32') throw new DTypeError(`[forward] pixel_values is ${type}; expected uint8 or float32`, { field: 'pixel_values' })
  const bytes = type === 'uint8'
  if (dims.length !== 4 || dims[bytes ? 3 : 1] !== 3) {
    throw new ShapeError(`[forward] pixel_values is ${type} [${dims.join(', ')}]; expected ${bytes ? '[n, H, W, 3]' : '[n, 3, H, W]'}`, { field: 'pixel_values', shapes: [dims] })
  }
  const [height, width] = (bytes ? dims.slice(1, 3) : dims.slice(2)) as [number, number]
  if (height < patch || width < patch) {
    throw new ShapeError(`[forward] pixel_values is [${dims.join(', ')}]; expected pictures of at least one patch of ${patch} x ${patch}`, { field: 'pixel_values', shapes: [dims] })
  }
  return { pixels, type, size: { height, width }, canvas: { height: Math.floor(height / patch), width: Math.floor(width / patch) } }
}

/**
 * The patches whose pixel nearest to the top left corner is marked in pixel_mask [n, H, W]; all where there is no mask.
 * @throws ShapeError, DTypeError; ArgumentError for a picture without any
 */
export function markedPatches(mask: Tensor | undefined, { pixels, size, canvas }: Pictures): Marked[] {
  const count = pixels.dims[0]!
  const all = Int32Array.from({ length: canvas.height * canvas.width }, (_, i) => i)
  if (!mask) return Array.from({ length: count }, () => ({ places: all, grid: canvas }))
  const { height, width } = size
  const [pictures, rows, columns] = mask.dims
  if (mask.dims.length !== 3 || pictures !== count || rows !== height || columns !== width) {
    throw new ShapeError(`[forward] pixel_mask is [${mask.dims.join(', ')}]; expected [${count}, ${height}, ${width}] as pixel_values`, { field: 'pixel_mask', shapes: [mask.dims] })
  }
  if (!['int64', 'int32', 'uint8', 'bool', 'float32'].includes(mask.type)) {
    throw new DTypeError(`[forward] pixel_mask is ${mask.type}; expected int64, int32, uint8, bool or float32`, { field: 'pixel_mask' })
  }
  checkHeld(mask, '[forward] pixel_mask')
  const nearest = (i: number, from: number, to: number) => Math.min(from - 1, Math.floor(Math.fround(Math.fround(from / to) * i)))
  return Array.from({ length: count }, (_, index) => {
    const marked = all.filter(place => {
      const [row, column] = [Math.floor(place / canvas.width), place % canvas.width]
      const at = (index * height + nearest(row, height, canvas.height)) * width + nearest(column, width, canvas.width)
      const value = Number(mask.data[at])
      if (value === 0 || value === 1) return value === 1
      throw new ArgumentError(`[forward] pixel_mask of picture ${index} is ${value} at element ${at - index * height * width}; expected 0 or 1`, { field: 'pixel_mask', index })
    })
    const grid = { height: marked.filter(place => place % canvas.width === 0).length, width: marked.filter(place => place < canvas.width).length }
    if (marked.length > 0 && grid.height * grid.width > 0) return { places: marked, grid }
    throw new ArgumentError(`[forward] pixel_mask of picture ${index} marks no patch of its first row or column; expected the top left one at least`, { field: 'pixel_mask', index })
  })
}

/**
 * The pixels of the marked patches, each as a small picture of its own.
 * @throws ArgumentError naming the picture that holds NaN or infinity
 */
export function patchRows({ pixels, type, size: { height, width }, canvas }: Pictures, picture: number, { places }: Marked, patch: number): Float32Array | Uint8Array {
  checkHeld(pixels, '[forward] pixel_values')
  const bytes = type === 'uint8'
  const data = pixels.data as Uint8Array
  const length = places.length * 3 * patch * patch
  const rows = (bytes ? new Uint8Array(length) : new Float32Array(length)) as Uint8Array
  const first = picture * 3 * height * width
  // Lines of the picture: of all three colours together, or one after the other.
  const planes = bytes ? 1 : 3
  const step = bytes ? 3 : 1
  let to = 0
  for (const place of places) {
    const [y, x] = [Math.floor(place / canvas.width) * patch, (place % canvas.width) * patch]
    for (let plane = 0; plane < planes; plane++) {
      for (let line = 0; line < patch; line++, to += patch * step) {
        const from = first + plane * height * width + ((y + line) * width + x) * step
        rows.set(data.subarray(from, from + patch * step), to)
      }
    }
  }
  if (!bytes) checkFinite(rows as unknown as Float32Array, picture)
  return rows
}

function checkFinite(rows: Float32Array, index: number): void {
  let sum = 0
  for (let i = 0; i < rows.length; i++) sum += rows[i]! * 0 // NaN as soon as one is not finite
  if (sum === 0) return
  const value = rows.find(value => !Number.isFinite(value))
  throw new ArgumentError(`[forward] pixel_values of picture ${index} hold ${value}; expected finite numbers`, { field: 'pixel_values', index })
}
