import { columnsOf, fromRows, type RefArray, type Reference, roundTo, rowsOf } from './array.js'
import { functions } from './elementwise.js'
import { dot } from './linear.js'

/** Of each window the rows of x within its picture, each with its number in the window; row by row of windows, picture by picture. */
function windowsOf(x: RefArray, { height, width, kernel, stride, padding }: Record<string, any>): { row: Float64Array; place: number }[][] {
  const rows = rowsOf(x)
  const down = Math.floor((height + padding[0] + padding[2] - kernel[0]) / stride[0]) + 1
  const across = Math.floor((width + padding[1] + padding[3] - kernel[1]) / stride[1]) + 1
  const windows: { row: Float64Array; place: number }[][] = []
  for (let picture = 0; picture < rows.length / (height * width); ++picture) {
    for (let i = 0; i < down; ++i) {
      for (let j = 0; j < across; ++j) {
        const pixels: { row: Float64Array; place: number }[] = []
        for (let ky = 0; ky < kernel[0]; ++ky) {
          for (let kx = 0; kx < kernel[1]; ++kx) {
            const [y, x] = [i * stride[0] - padding[0] + ky, j * stride[1] - padding[1] + kx]
            if (y >= 0 && y < height && x >= 0 && x < width) pixels.push({ row: rows[(picture * height + y) * width + x]!, place: ky * kernel[1] + kx })
          }
        }
        windows.push(pixels)
      }
    }
  }
  return windows
}

/** Each window as one row, zeros outside of the picture, times the weight; x is rounded to the weight's dtype. */
export const convolution: Reference = ([x, weight, bias, residual], attributes) => {
  const channels = columnsOf(x!)
  const weights = rowsOf(weight!)
  const n = weights.length
  const rows = windowsOf(x!, attributes).map((pixels, t) => {
    const unfolded = new Float64Array(columnsOf(weight!))
    for (const { row, place } of pixels) unfolded.set(row.map((value) => roundTo(value, weight!.dtype)), place * channels)
    return weights.map((w, j) => functions[attributes['activation']]!(dot(unfolded, w) + (bias?.data[j] ?? 0)) + (residual?.data[t * n + j] ?? 0))
  })
  return [fromRows([rows.length, n], rows)]
}

export const depthwiseConvolution: Reference = ([x, weight, bias], attributes) => {
  const weights = rowsOf(weight!)
  const rows = windowsOf(x!, attributes).map((pixels) =>
    Array.from({ length: columnsOf(x!) }, (_, c) =>
      functions[attributes['activation']]!(pixels.reduce((sum, { row, place }) => sum + row[c]! * weights[place]![c]!, bias?.data[c] ?? 0)),
    ),
  )
  return [fromRows([rows.length, columnsOf(x!)], rows)]
}

export const poolWindows: Reference = ([x], attributes) => {
  const rows = windowsOf(x!, attributes).map((pixels) =>
    Array.from({ length: columnsOf(x!) }, (_, c) => {
      const values = pixels.map(({ row }) => row[c]!)
      if (attributes['mode'] === 'max') return values.reduce((most, value) => Math.max(most, value), -Infinity)
      return values.reduce((sum, value) => sum + value, 0) / values.length
    }),
  )
  return [fromRows([rows.length, columnsOf(x!)], rows)]
}
