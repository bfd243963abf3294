// Runs an image tower on any number of pictures, a few at a time.

import { setImmediate } from 'node:timers/promises'
import { DTypeError, ShapeError, type UnsupportedError } from '../core/errors.js'
import { partOf, Tensor, unwritten } from '../core/tensor.js'
import type { Value, ValueType } from '../core/value.js'
import type { PixelScale } from '../nn/index.js'
import { EMBEDDING, type ImageTower, type Traced } from './encoder.js'
import type { Part, Prepared } from './part.js'
import { bucket, checkFinite, inHalves, namedValues, type OutputKind, outputKinds, PIECE_BYTES, pipeline, type Programs, UNSCALED } from './programs.js'

const MAX_IMAGES = 32
/** Sizes of pictures that are remembered. */
const MAX_SIZES = 64

/** Pictures of the tower's size: uint8 [n, H, W, 3] or float32 [n, 3, H, W]. */
export type Pixels = Tensor & { readonly type: 'uint8' | 'float32' }

type Size = ImageTower['imageSize']

export class ImageRunner implements Part {
  readonly inputs = ['pixel_values']
  readonly required = this.inputs
  readonly outputs: readonly string[]
  readonly absent: Readonly<Record<string, string>>
  readonly kinds: ReadonlyMap<string, OutputKind>
  private readonly kindsBySize = new Map<string, ReadonlyMap<string, OutputKind>>()

  constructor(
    readonly tower: ImageTower,
    readonly programs: Programs,
    /** Or why there is none: then only float32 pixels are taken. */
    private readonly scale: PixelScale | UnsupportedError,
    /** Of the pictures that are embedded. */
    readonly size: Size = tower.imageSize,
  ) {
    this.kinds = this.findKinds(tower.imageSize)
    this.outputs = [...this.kinds.keys()].filter(name => name !== EMBEDDING)
    this.absent = tower.absent
  }

  prepare(given: Readonly<Record<string, Tensor>>): Prepared {
    const pixels = this.read(given['pixel_values']!)
    return (want, signal) => this.run(pixels, want, signal)
  }

  /** @throws DTypeError, ShapeError unless `tensor` holds pictures of a size that the tower takes. */
  private read(tensor: Tensor): Pixels {
    const { type, dims } = tensor
    if (type !== 'uint8' && type !== 'float32') throw new DTypeError(`[forward] pixel_values is ${type}; expected uint8 or float32`, { field: 'pixel_values' })
    if (type === 'uint8' && this.scale instanceof Error) throw this.scale
    const expected = spec(type, dims[0] ?? 0, this.sizeOf(tensor)).shape
    if (dims.length !== 4 || expected.some((dim, i) => dim !== dims[i])) {
      const sizes = expected.slice(1).join(', ')
      throw new ShapeError(`[forward] pixel_values is ${type} [${dims.join(', ')}]; expected [n, ${sizes}]`, { field: 'pixel_values', shapes: [dims] })
    }
    if (this.tower.anySize) this.checkSize(tensor)
    return tensor as Pixels
  }

  /** @throws ShapeError for pictures that are too small for the tower. */
  private checkSize(tensor: Tensor): void {
    const { type, dims } = tensor
    try {
      this.kindsOf(this.sizeOf(tensor))
    } catch (error) {
      if (!(error instanceof ShapeError)) throw error
      throw new ShapeError(`[forward] pixel_values is ${type} [${dims.join(', ')}]; expected larger pictures: ${error.message}`, { field: 'pixel_values', shapes: [dims], cause: error })
    }
  }

  /**
   * @param want names of outputs
   * @returns for each, [n, C] or [n, tokens, C]
   * @throws ArgumentError naming the picture that holds NaN or infinity
   */
  private async run(tensor: Pixels, want: readonly string[], signal?: AbortSignal): Promise<Record<string, Tensor>> {
    if (!this.programs.ready) await this.programs.load(signal)
    const { type, data } = tensor
    const count = tensor.dims[0]!
    const size = this.sizeOf(tensor)
    const all = this.kindsOf(size)
    const kinds = want.map(name => all.get(name)!)
    const results = kinds.map(({ rows, width }) => unwritten('float32', [count, rows, width], 'forward'))
    const pixels = size.height * size.width * 3
    const bytesIn = pixels * data.BYTES_PER_ELEMENT
    const bytesOut = 4 * kinds.reduce((sum, { rows, width }) => sum + rows * width, 0)
    let most = Math.max(1, Math.min(MAX_IMAGES, Math.floor(PIECE_BYTES / Math.max(bytesIn, bytesOut))))
    let first = 0
    const next = (): Promise<void> | undefined => {
      if (first >= count) return undefined
      const from = first
      const images = Math.min(most, count - from)
      first += images
      const run = async (from: number, images: number) => {
        const some = partOf(tensor, from * pixels, spec(type, images, size).shape, '[forward] pixel_values')
        if (type === 'float32') checkFinite(some.data as Float32Array, pixels, from, { field: 'pixel_values', noun: 'picture', place: 'element' })
        const into = Object.fromEntries(want.map((name, i) => {
          const each = kinds[i]!.rows * kinds[i]!.width
          return [name, results[i]!.subarray(from * each, (from + images) * each)]
        }))
        await this.runSome(type, some, size, want, into, signal)
      }
      return inHalves(from, images, run).then(ran => {
        if (ran < images) most = Math.min(most, ran)
      })
    }
    await pipeline(next)
    const outputs: Record<string, Tensor> = {}
    for (const [i, name] of want.entries()) outputs[name] = await shaped(name, results[i]!, count, kinds[i]!, signal)
    return outputs
  }

  private async runSome(
    type: Pixels['type'],
    pixels: Tensor,
    size: Size,
    want: readonly string[],
    into: Record<string, Float32Array>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const capacity = bucket(pixels.dims[0]!)
    const pick = (values: Record<string, Value>) => Object.fromEntries(want.map(name => [name, values[name]!]))
    const program = this.programs.get(
      JSON.stringify(['images', type, capacity, size, want]),
      ({ pixels }) => pick(this.trace(pixels!)),
      { pixels: spec(type, capacity, size) },
    )
    await program.run({ pixels }, { signal, into })
  }

  private trace(pixels: Value): Record<string, Value> {
    return namedValues(this.traced(pixels), this.tower.prefix)
  }

  private traced(pixels: Value): Traced {
    return this.tower.trace(pixels, this.scale instanceof Error ? UNSCALED : this.scale)
  }

  private findKinds(size: Size): ReadonlyMap<string, OutputKind> {
    let maps: Traced['maps']
    const fn = ({ pixels }: Record<string, Value>) => {
      const traced = this.traced(pixels!)
      maps = traced.maps
      return namedValues(traced, this.tower.prefix)
    }
    const kinds = outputKinds(fn, { pixels: spec('float32', 1, size) }, this.programs)
    return new Map([...kinds].map(([name, kind]) => [name, maps?.[name] ? { ...kind, map: maps[name] } : kind]))
  }

  /** What outputs look like for pictures of this size; found once for each. */
  private kindsOf(size: Size): ReadonlyMap<string, OutputKind> {
    if (sameSize(size, this.tower.imageSize)) return this.kinds
    const key = `${size.height} ${size.width}`
    const known = this.kindsBySize.get(key)
    if (known) return known
    const kinds = this.findKinds(size)
    if (this.kindsBySize.size === MAX_SIZES) this.kindsBySize.clear()
    this.kindsBySize.set(key, kinds)
    return kinds
  }

  private sizeOf({ type, dims }: Tensor): Size {
    if (!this.tower.anySize || dims.length !== 4) return this.tower.imageSize
    const [height, width] = (type === 'uint8' ? dims.slice(1, 3) : dims.slice(2)) as [number, number]
    return { height, width }
  }
}

function spec(type: Pixels['type'], count: number, { height, width }: Size): ValueType {
  return { shape: type === 'uint8' ? [count, height, width, 3] : [count, 3, height, width], dtype: type, extent: { name: 'images', per: 1 } }
}

/** [n, C], [n, tokens, C], or [n, C, height, width] of a map's pixels. */
async function shaped(name: string, data: Float32Array, count: number, { rows, width, map }: OutputKind, signal: AbortSignal | undefined): Promise<Tensor> {
  // A picture of one patch has a single token.
  const ofTokens = rows > 1 || /(^|_)(last_hidden_state|hidden_state_\d+)$/.test(name)
  if (!map) return new Tensor('float32', data, ofTokens ? [count, rows, width] : [count, width])
  const dims = [count, width, map.height, map.width]
  if (rows === 1) return new Tensor('float32', data, dims)
  const first = unwritten('float32', dims, 'forward') as Float32Array
  for (let n = 0; n < count; n++) {
    const from = n * rows * width
    for (let row = 0; row < rows; row++) for (let c = 0; c < width; c++) first[from + c * rows + row] = data[from + row * width + c]!
    await setImmediate() // there may be millions of pixels
    signal?.throwIfAborted()
  }
  return new Tensor('float32', first, dims)
}

function sameSize(a: Size, b: Size): boolean {
  return a.height === b.height && a.width === b.width
}
