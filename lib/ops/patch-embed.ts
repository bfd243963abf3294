// From pixels to tokens in one op: normalise, cut into P×P patches, project, put a class token before them, add positions.
// B pictures of Y rows and X columns make B·tokens rows of C features.

import type { DataType } from '../core/dtype.js'
import { attribute, defineOp } from '../core/op.js'
import type { Value } from '../core/value.js'

export const patchEmbedOp = defineOp({
  name: 'patchEmbed',
  inputs: ['pixels', 'weight', 'bias?', 'classToken?', 'positionEmbedding?'],
  packed: 'weight',
  attributes: {
    patch: attribute.integer(1),
    rescale: attribute.number(1 / 255),
    mean: attribute.numbers(3, [0, 0, 0]),
    std: attribute.numbers(3, [1, 1, 1], (n) => n !== 0, 'numbers other than 0'),
    dtype: attribute.outputType(),
  },
  infer({ pixels, weight, bias, classToken, positionEmbedding }, { patch, dtype }, check) {
    check.dtype('pixels', 'uint8', 'float32')
    check.float('weight')
    const bytes = pixels.dtype === 'uint8'
    const as = bytes ? '[B, Y, X, 3] (uint8)' : '[B, 3, Y, X] (float32)'
    check.shape(pixels.shape.length === 4 && pixels.shape[bytes ? 3 : 1] === 3, ['pixels'], `pixels to be ${as}`)
    const [height, width] = (bytes ? pixels.shape.slice(1, 3) : pixels.shape.slice(2)) as [number, number]
    check.shape(height >= patch && width >= patch, ['pixels'], `pictures of at least one patch of ${patch}`)
    check.rank('weight', 2, '[C, 3·P·P]')
    check.shape(weight.shape[1] === 3 * patch * patch, ['weight'], `weight to be [C, ${3 * patch * patch}] for a patch of ${patch}`)
    const columns = weight.shape[0]!
    for (const [name, value] of [['bias', bias], ['classToken', classToken]] as const) {
      check.dtype(name, 'float32')
      check.shape(!value || (value.shape.length === 1 && value.shape[0] === columns), ['weight', name], `${name} to be [${columns}]`)
    }
    const tokens = Math.floor(height / patch) * Math.floor(width / patch) + (classToken ? 1 : 0)
    check.dtype('positionEmbedding', 'float32')
    check.shape(
      !positionEmbedding ||
        (positionEmbedding.shape.length === 2 && positionEmbedding.shape[0] === tokens && positionEmbedding.shape[1] === columns),
      ['pixels', 'positionEmbedding'],
      `positionEmbedding to be [${tokens}, ${columns}]`,
    )
    check.fixed('bias', 'classToken', 'positionEmbedding')
    const { extent } = pixels
    check.require(!extent?.extra, `pixels has ${extent?.extra} extra pictures`, 'none')
    return { shape: [pixels.shape[0]! * tokens, columns], dtype, extent: extent && { name: extent.name, per: extent.per * tokens } }
  },
})

export interface PatchEmbedOptions {
  /** float32 [C] */
  bias?: Value | undefined
  /** float32 [C] */
  classToken?: Value | undefined
  /** float32 [tokens, C], the class token's row first. */
  positionEmbedding?: Value | undefined
  /** Side of a patch. */
  patch: number
  /** uint8 pixels become (pixel·rescale − mean)/std; default 1/255, 0 and 1. float32 pixels are taken as they are. */
  rescale?: number | undefined
  mean?: readonly number[] | undefined
  std?: readonly number[] | undefined
  dtype?: DataType | undefined
}

/**
 * The tokens of pictures, [B·tokens, C], tokens = ⌊Y/P⌋·⌊X/P⌋ and one more if there is a class token.
 *
 * @param pixels uint8 [B, Y, X, 3] or float32 [B, 3, Y, X]
 * @param weight a parameter with role 'linear', [C, 3·P·P], in the order channel, y, x
 * @throws ShapeError, DTypeError, ArgumentError
 */
export function patchEmbed(pixels: Value, weight: Value, options: PatchEmbedOptions): Value {
  const { bias, classToken, positionEmbedding, ...attributes } = options
  return patchEmbedOp.one(patchEmbed, { pixels, weight, bias, classToken, positionEmbedding }, attributes)
}
