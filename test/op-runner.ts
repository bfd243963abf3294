// What the op tests share: inputs made from a case, a program for one op, results against the float64 reference.

import { compile } from '../lib/core/compile.js'
import type { Device } from '../lib/core/device.js'
import { type DataType, dataView, type FloatType, fromBfloat16, fromFloat16, type TensorData, toBfloat16 } from '../lib/core/dtype.js'
import { BYTES_PER_ELEMENT, isFloat } from '../lib/core/dtype.js'
import { Tensor } from '../lib/core/tensor.js'
import { type Attributes, type Parameter, parameter, type Value, type ValueType } from '../lib/core/value.js'
import { columns, type OpName, opTable } from '../lib/ops/index.js'
import type { CaseInput, Fill, OpCase } from './op-cases.js'
import { type RefArray, roundTo, sizeOf, toFloat16 } from './reference/index.js'

/** Which float types a case is run with. */
export interface Variant {
  readonly input: FloatType
  readonly weight: FloatType | 'int8'
  readonly output: FloatType
}

/** All mixtures of float32, `low` and int8 weights that make a difference for the case. */
export function variantsOf(name: OpName, { inputs }: OpCase, low: 'bfloat16' | 'float16'): Variant[] {
  const types = ['float32', low] as const
  const some = (test: (input: CaseInput) => boolean) => Object.values(inputs).some(test)
  const free = types.filter((type) => type === 'float32' || some((input) => !input.dtype && input.role !== 'linear'))
  const weighted = some((input) => input.role === 'linear')
  const weights: Variant['weight'][] = !weighted ? ['float32'] : name === 'linear' ? [...types, 'int8'] : [...types]
  const outputs = types.filter((type) => type === 'float32' || 'dtype' in opTable[name].attributes)
  return free.flatMap((input) => weights.flatMap((weight) => outputs.map((output) => ({ input, weight, output }))))
}

export function titleOf(name: OpName, { title, inputs }: OpCase, { input, weight, output }: Variant): string {
  const shapes = Object.values(inputs).map(({ shape }) => `[${shape}]`)
  const short = (type: Variant['weight']) => ({ float32: 'f32', bfloat16: 'bf16', float16: 'f16', int8: 'int8' })[type]
  const hasWeight = Object.values(inputs).some(({ role }) => role === 'linear')
  return `${name} ${short(input)}${hasWeight ? `·${short(weight)}` : ''}→${short(output)} ${shapes.join(' ')} ${title}`
}

/** A small generator of reproducible normal numbers. */
export function normals(seed: number): () => number {
  let state = seed >>> 0 || 1
  const uniform = (): number => {
    state = (state + 0x6d2b79f5) >>> 0
    let bits = Math.imul(state ^ (state >>> 15), state | 1)
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61)
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32
  }
  return () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform())
}

function valuesOf(fill: Fill, size: number, seed: number): Float64Array {
  if (typeof fill === 'function') return Float64Array.from({ length: size }, (_, i) => fill(i))
  if (Array.isArray(fill)) return Float64Array.from({ length: size }, (_, i) => fill[i % fill.length] as number)
  const next = normals(seed)
  const scale = typeof fill === 'object' && 'put' in fill ? (fill.scale ?? 1) : 1
  const values = Float64Array.from({ length: size }, () => (fill === 'zeros' ? 0 : next() * scale))
  if (typeof fill === 'object' && 'put' in fill) for (const [at, value] of Object.entries(fill.put)) values[Number(at)] = value
  return values
}

export function dtypeOf(input: CaseInput, variant: Variant): DataType {
  const float = variant.input === 'float16' && input.float16 === false ? 'float32' : variant.input
  return input.dtype ?? (input.role === 'linear' ? variant.weight : float)
}

/** The input as the reference sees it: rounded to its dtype. An int8 weight is made from floats, by the reference as by the device. */
export function arrayOf(input: CaseInput, variant: Variant, seed: number): RefArray {
  const type = dtypeOf(input, variant)
  const dtype = input.role === 'linear' && type === 'int8' ? 'float32' : type
  const values = valuesOf(input.fill ?? 'normal', sizeOf(input.shape), seed)
  return { shape: input.shape, data: values.map((value) => roundTo(value, dtype)), dtype }
}

export function tensorOf({ shape, data, dtype }: RefArray): Tensor {
  const result = dataView(dtype, new ArrayBuffer(data.length * BYTES_PER_ELEMENT[dtype])) as Exclude<TensorData, BigInt64Array>
  for (let i = 0; i < data.length; ++i) result[i] = dtype === 'bfloat16' ? toBfloat16(data[i]!) : dtype === 'float16' ? toFloat16(data[i]!) : data[i]!
  return new Tensor(dtype, result, shape)
}

export function numbersOf({ type, data }: Tensor): Float64Array {
  return Float64Array.from(data as ArrayLike<number>, type === 'bfloat16' ? fromBfloat16 : type === 'float16' ? fromFloat16 : undefined!)
}

/** A tensor whose rows are columns of wider ones; around them is what must not be read. */
function widened(array: RefArray, begin: number, of: number): RefArray {
  const width = array.shape.at(-1)!
  const rows = sizeOf(array.shape.slice(0, -1))
  const data = new Float64Array(rows * of).fill(NaN)
  for (let r = 0; r < rows; ++r) data.set(array.data.subarray(r * width, (r + 1) * width), r * of + begin)
  return { shape: [...array.shape.slice(0, -1), of], data, dtype: array.dtype }
}

export interface OpRun {
  readonly inputs: readonly (RefArray | undefined)[]
  readonly attributes: Attributes
  readonly outputs: readonly Tensor[]
}

/** Runs one op on a device and gives what it was run with and what came out. */
export async function runOp(name: OpName, opCase: OpCase, variant: Variant, device: Device, guard = true): Promise<OpRun> {
  const op = opTable[name]
  const arrays: Record<string, RefArray> = {}
  Object.entries(opCase.inputs).forEach(([input, spec], i) => (arrays[input] = arrayOf(spec, variant, 17 + i * 101)))
  const attributes = { ...opCase.attributes, ...('dtype' in op.attributes && { dtype: variant.output }) }
  let all: Attributes = {}

  const specs: Record<string, ValueType> = {}
  const tensors: Record<string, Tensor> = {}
  const parameters: Record<string, Parameter> = {}
  for (const [input, { role, view, shape }] of Object.entries(opCase.inputs)) {
    const array = view ? widened(arrays[input]!, view.begin, view.of) : arrays[input]!
    tensors[input] = tensorOf(array)
    if (role) {
      const dtype = dtypeOf(opCase.inputs[input]!, variant)
      parameters[input] = { name: input, shape, dtype, role }
      arrays[input] = { ...array, dtype }
    } else {
      specs[input] = { shape: array.shape, dtype: array.dtype }
    }
  }
  const entries = Object.entries(parameters).map(([input, parameter]) => ({ parameter, source: tensors[input]! }))
  const weights = entries.length > 0 ? await device.loadWeights(entries) : undefined
  const fn = (inputs: Record<string, Value>) => {
    const values = Object.fromEntries(
      Object.entries(opCase.inputs).map(([input, { role, view, shape }]) => {
        const value = role ? parameter(parameters[input]!) : inputs[input]!
        return [input, view ? columns(value, view.begin, view.begin + shape.at(-1)!) : value]
      }),
    )
    const outputs = op.apply(runOp, values as never, attributes as never)
    all = outputs[0]!.node.attributes
    return Object.fromEntries(outputs.map((output, i) => [String(i), output]))
  }
  const program = compile(fn, specs, device, weights, { guard })
  try {
    const results = await program.run(Object.fromEntries(Object.keys(specs).map((input) => [input, tensors[input]!])))
    const order = op.inputs.map((input) => arrays[input.replace('?', '')])
    return { inputs: order, attributes: all, outputs: Object.values(results) }
  } finally {
    program.dispose()
    weights?.dispose()
  }
}

/**
 * What is wrong with a result, or undefined: NaN and infinity must be where the reference has them, numbers may differ by
 * `allowed`·(1 + |reference|) before they are rounded to the result's dtype.
 */
export function mismatch(got: Tensor, expected: RefArray, allowed: number): string | undefined {
  if (got.dims.join() !== expected.shape.join()) return `shape is [${got.dims}], expected [${expected.shape}]`
  const numbers = numbersOf(got)
  const dtype = got.type
  let worst = { ratio: 0, text: undefined as string | undefined }
  for (let i = 0; i < numbers.length; ++i) {
    const have = numbers[i]!
    const exact = expected.data[i]!
    const want = isFloat(dtype) ? roundTo(exact, dtype) : exact
    if (want === have || (want !== want && have !== have)) continue
    const bound = allowed * (1 + Math.abs(exact)) + (allowed > 0 ? halfStep(have, dtype) : 0)
    const finite = Number.isFinite(want) && Number.isFinite(have)
    const ratio = finite && bound > 0 ? Math.abs(have - exact) / bound : Infinity
    if (ratio > worst.ratio) worst = { ratio, text: `element ${i} is ${have}, expected ${exact} ± ${bound}` }
  }
  return worst.ratio > 1 ? worst.text : undefined
}

/** Half the distance from a number to the next of its dtype. */
function halfStep(value: number, dtype: DataType): number {
  const [least, digits] = dtype === 'float16' ? [-14, 11] : dtype === 'bfloat16' ? [-126, 8] : [-126, 24]
  const exponent = Math.max(least, Math.floor(Math.log2(Math.abs(value))))
  return 2 ** (exponent - digits)
}

/** The bits of each item of a batch: its rows of every output. NaNs of any kind are the same. */
export function bitsOf(outputs: readonly Tensor[], rows: readonly number[]): string[] {
  let at = 0
  return rows.map((count) => {
    const parts = outputs.map((output) => {
      const width = output.size / Math.max(1, output.dims[0]!)
      return numbersOf(output).subarray(at * width, (at + count) * width)
    })
    at += count
    return parts.map((part) => Buffer.from(part.buffer, part.byteOffset, part.byteLength).toString('base64')).join(' ')
  })
}
