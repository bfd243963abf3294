// How ops know where sequences begin: cumulative lengths `cuSeqlens` [S + 1], or one length that all of them have.

import type { InputCheck } from '../core/op.js'
import type { Extent, Value } from '../core/value.js'

export interface Sequences {
  readonly count: number // capacity, if they vary
  readonly extent: Extent | undefined
}

/** The sequences of `x`, [T, ...], given as the input `cu` or by the attribute `field`. */
export function sequencesOf(
  check: InputCheck,
  x: { name: string; value: Value },
  cu: { name: string; value: Value | undefined },
  length: { field: string; value: number },
): Sequences {
  const rows = x.value.shape[0]!
  if (cu.value) {
    check.argument(length.value === 0, length.field, `${cu.name} and ${length.field} are both given`, 'one of them')
    check.dtype(cu.name, 'int32')
    check.shape(cu.value.shape.length === 1 && cu.value.shape[0]! >= 1, [cu.name], `${cu.name} to be [sequences + 1]`)
    const extent = cu.value.extent
    check.require(
      !extent || extent.extra === 1,
      `the extent of ${cu.name} has ${extent?.extra ?? 0} extra rows`,
      `{ name: '${extent?.name}', per: ${extent?.per}, extra: 1 }`,
    )
    return { count: cu.value.shape[0]! - 1, extent: extent && { name: extent.name, per: extent.per } }
  }
  check.argument(length.value > 0, length.field, `neither ${cu.name} nor ${length.field} is given`, 'one of them')
  check.shape(rows % length.value === 0, [x.name], `a multiple of ${length.field} ${length.value} rows`)
  const extent = x.value.extent
  if (!extent) return { count: rows / length.value, extent: undefined }
  const per = extent.per / length.value
  check.require(
    Number.isInteger(per) && !extent.extra,
    `${x.name} has ${extent.per} rows for each of '${extent.name}', sequences are ${length.value} long`,
    'whole sequences for each',
  )
  return { count: rows / length.value, extent: { name: extent.name, per } }
}
