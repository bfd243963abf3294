// What errors say: class, code, text and where they point, for wrong shapes, dtypes and arguments of every op; for names of devices;
// for what the native side refuses.

import { join } from 'node:path'
import t from 'tap'
import { compile } from '../lib/core/compile.js'
import { Device } from '../lib/core/device.js'
import {
  ArgumentError,
  ChiasmaError,
  DeviceError,
  DisposedError,
  DTypeError,
  ShapeError,
  TraceError,
  UnsupportedError,
} from '../lib/core/errors.js'
import { abortable, buildCommand, native } from '../lib/core/native.js'
import { Tensor } from '../lib/core/tensor.js'
import { type Extent, input, parameter, type Value, type WeightRole } from '../lib/core/value.js'
import * as host from '../lib/ops/host.js'
import * as ops from '../lib/ops/index.js'

type Class = new (...args: any[]) => ChiasmaError

const float = (shape: number[], extent?: Extent) => input('x', { shape, dtype: 'float32', extent })
const int = (shape: number[], extent?: Extent) => input('i', { shape, dtype: 'int32', extent })
const weight = (shape: number[], role: WeightRole = 'linear') => parameter({ name: 'w', shape, dtype: 'float32', role })
const images: Extent = { name: 'images', per: 1 }
const tokens: Extent = { name: 'tokens', per: 1 }

const refusals: [what: string, run: () => unknown, Class: Class, message: string][] = [
  ['linear', () => ops.linear(float([8, 200]), weight([512, 768])), ShapeError, '[linear] x is [8, 200], weight is [512, 768]; expected x to be [..., 768]'],
  ['', () => ops.linear(int([8, 768]), weight([512, 768])), DTypeError, '[linear] x is int32; expected float32 or bfloat16 or float16'],
  ['', () => ops.linear(float([8, 4]), float([5, 4])), ArgumentError, "[linear] weight is an input; expected a parameter with role 'linear' (matmul multiplies two values)"],
  ['', () => ops.linear(float([8, 4]), weight([5, 4], 'plain')), ArgumentError, "[linear] weight is a plain parameter; expected a parameter with role 'linear' (matmul multiplies two values)"],
  ['', () => ops.linear(float([8, 4]), weight([5, 4]), { bias: float([4]) }), ShapeError, '[linear] weight is [5, 4], bias is [4]; expected bias to be [5]'],
  ['', () => ops.linear(float([8, 4]), weight([5, 4]), { residual: float([8, 4]) }), ShapeError, '[linear] x is [8, 4], weight is [5, 4], residual is [8, 4]; expected residual to be [8, 5]'],
  ['', () => ops.linear(float([8, 4]), weight([5, 4]), { activation: 'swish' as 'silu' }), ArgumentError, "[linear] activation is 'swish'; expected one of 'none', 'gelu', 'quick_gelu', 'gelu_tanh', 'relu', 'silu', 'tanh'"],
  ['', () => ops.linear(float([8, 4]), weight([5, 4]), { activate: 'silu' } as object), ArgumentError, "[linear] there is no option 'activate'; expected bias, residual, activation, dtype"],
  ['', () => ops.linear(float([8, 4]), weight([5, 4]), { dtype: 'int8' }), DTypeError, "[linear] dtype is 'int8'; expected one of 'float32', 'bfloat16', 'float16'"],
  ['', () => ops.linear(float([8, 4], images), weight([5, 4]), { residual: float([8, 5]) }), ShapeError, "[linear] x has 1 row for each of 'images', residual has a fixed number of rows; expected the rows of both to vary alike"],
  ['', () => ops.linear(float([4], images), weight([5, 4])), ShapeError, "[linear] x varies in its last dimension (1 row for each of 'images'); expected that to be fixed"],
  ['', () => ops.linear(undefined as unknown as Value, weight([5, 4])), ArgumentError, '[linear] x is undefined; expected a Value'],
  ['', () => ops.linear(new Tensor('float32', new Float32Array(1), [1]) as unknown as Value, weight([5, 4])), ArgumentError, '[linear] x is Tensor; expected a Value'],
  ['matmul', () => ops.matmul(float([2, 3]), float([4, 5])), ShapeError, '[matmul] a is [2, 3], b is [4, 5]; expected b to be [N, 3]'],
  ['', () => ops.matmul(float([2, 3]), float([4, 3], images)), ShapeError, "[matmul] b varies from run to run (1 row for each of 'images'); expected b to be of one shape"],
  ['', () => ops.matmul(float([2, 3]), float([4, 3]), { scale: NaN }), ArgumentError, '[matmul] scale is NaN; expected a finite number'],
  ['attention', () => ops.attention(float([4, 10]), float([4, 10]), float([4, 10]), { heads: 3, queryLength: 2, keyLength: 2 }), ShapeError, '[attention] q is [4, 10]; expected q to have a multiple of 3 columns, one share for each head'],
  ['', () => ops.attention(float([4, 8]), float([4, 8]), float([4, 8]), { heads: 2 }), ArgumentError, '[attention] neither cuSeqlensQ nor queryLength is given; expected one of them'],
  ['', () => ops.attention(float([4, 8]), float([4, 8]), float([4, 8]), { heads: 0, queryLength: 4, keyLength: 4 }), ArgumentError, '[attention] heads is 0; expected an integer of at least 1'],
  ['', () => ops.attention(float([4, 8]), float([4, 4]), float([4, 4]), { heads: 4, kvHeads: 3, queryLength: 4, keyLength: 4 }), ArgumentError, '[attention] kvHeads is 3 for 4 heads; expected a divisor of heads'],
  ['', () => ops.attention(float([4, 8]), float([4, 8]), float([4, 8]), { heads: 4, kvHeads: 2, queryLength: 4, keyLength: 4 }), ShapeError, '[attention] q is [4, 8], k is [4, 8], v is [4, 8]; expected k and v to be [..., 4]'],
  ['', () => ops.attention(float([4, 8]), float([4, 8]), float([4, 8]), { heads: 4, window: -2, queryLength: 4, keyLength: 4 }), ArgumentError, '[attention] window is -2; expected an integer of at least -1'],
  ['', () => ops.attention(float([4, 8]), float([4, 8]), float([4, 8]), { heads: 2, queryLength: 4, keyLength: 2 }), ShapeError, '[attention] q has 1 sequences, k has 2; expected as many'],
  ['', () => ops.attention(float([4, 8]), float([5, 8]), float([4, 8]), { heads: 2, queryLength: 4, keyLength: 4 }), ShapeError, '[attention] k is [5, 8], v is [4, 8]; expected as many rows in k as in v'],
  ['', () => ops.attention(float([4, 8], tokens), float([4, 8]), float([4, 8]), { heads: 2, queryLength: 1, keyLength: 1 }), ShapeError, "[attention] the sequences of q vary as 1 row for each of 'tokens', those of k as a fixed number of rows; expected the same"],
  ['patchEmbed', () => ops.patchEmbed(input('p', { shape: [2, 8, 8, 4], dtype: 'uint8' }), weight([5, 48]), { patch: 4 }), ShapeError, '[patchEmbed] pixels is [2, 8, 8, 4]; expected pixels to be [B, Y, X, 3] (uint8)'],
  ['', () => ops.patchEmbed(float([2, 3, 8, 8]), weight([5, 47]), { patch: 4 }), ShapeError, '[patchEmbed] weight is [5, 47]; expected weight to be [C, 48] for a patch of 4'],
  ['', () => ops.patchEmbed(float([2, 3, 2, 8]), weight([5, 48]), { patch: 4 }), ShapeError, '[patchEmbed] pixels is [2, 3, 2, 8]; expected pictures of at least one patch of 4'],
  ['', () => ops.patchEmbed(float([2, 3, 8, 8]), weight([5, 48]), { patch: 4, std: [1, 0, 1] }), ArgumentError, '[patchEmbed] std is [1,0,1]; expected 3 numbers other than 0'],
  ['', () => ops.patchEmbed(float([2, 3, 8, 8]), weight([5, 48]), { patch: 4, positionEmbedding: float([5, 5]) }), ShapeError, '[patchEmbed] pixels is [2, 3, 8, 8], positionEmbedding is [5, 5]; expected positionEmbedding to be [4, 5]'],
  ['convolution', () => ops.convolution(float([24, 8]), weight([5, 70]), { height: 4, width: 6, kernel: [3, 3] }), ShapeError, '[convolution] x is [24, 8], weight is [5, 70]; expected weight to be [N, 72] for a kernel of [3,3]'],
  ['', () => ops.convolution(float([24, 8]), weight([5, 72]), { height: 4, width: 5, kernel: [3, 3] }), ShapeError, '[convolution] x is [24, 8]; expected a multiple of height·width 20 rows'],
  ['', () => ops.convolution(float([4, 8]), weight([5, 72]), { height: 2, width: 2, kernel: [3, 3] }), ShapeError, '[convolution] a picture is 2 x 2; expected at least the kernel [3,3] less the padding [0,0,0,0]'],
  ['', () => ops.convolution(float([24, 8]), weight([5, 72]), { height: 4, width: 6, kernel: [3, 3], padding: [3, 0, 0, 0] }), ArgumentError, '[convolution] padding is [3,0,0,0]; expected less than the kernel [3,3]'],
  ['depthwiseConvolution', () => ops.depthwiseConvolution(float([24, 8]), float([9, 7]), { height: 4, width: 6, kernel: [3, 3] }), ShapeError, '[depthwiseConvolution] x is [24, 8], weight is [9, 7]; expected weight to be [9,8] for a kernel of [3,3]'],
  ['poolWindows', () => ops.poolWindows(float([24, 8]), { mode: 'max', height: 4, width: 6, kernel: [0, 3] }), ArgumentError, '[poolWindows] kernel is [0,3]; expected 2 integers of at least 1'],
  ['rmsNorm', () => ops.rmsNorm(float([2, 8]), { weight: float([7]), eps: 1e-5 }), ShapeError, '[rmsNorm] x is [2, 8], weight is [7]; expected weight to be [8]'],
  ['rotary', () => ops.rotary(float([4, 10]), float([4, 4]), { heads: 3, length: 4 }), ShapeError, '[rotary] x is [4, 10]; expected x to have a multiple of 3 columns, one share for each head'],
  ['', () => ops.rotary(float([4, 8]), float([4, 6]), { heads: 2, length: 4 }), ShapeError, '[rotary] x is [4, 8], table is [4, 6]; expected table to have an even number of columns, at most 4'],
  ['', () => ops.rotary(float([4, 8]), float([4, 4]), { heads: 2 }), ArgumentError, '[rotary] neither positions nor length is given; expected one of them'],
  ['', () => ops.rotary(float([4, 8]), float([5, 4]), { heads: 2, length: 4 }), ShapeError, '[rotary] table is [5, 4]; expected table to have at most 4 rows'],
  ['', () => ops.rotary(float([4, 8]), float([5, 4]), { heads: 2, length: 4, positions: input('p', { shape: [4], dtype: 'int32' }) }), ArgumentError, '[rotary] positions and length are both given; expected one of them'],
  ['layerNorm', () => ops.layerNorm(float([2, 8]), { weight: float([7]), eps: 1e-5 }), ShapeError, '[layerNorm] x is [2, 8], weight is [7]; expected weight to be [8]'],
  ['', () => ops.layerNorm(float([2, 8]), { eps: -1 }), ArgumentError, '[layerNorm] eps is -1; expected a number of at least 0'],
  ['', () => ops.layerNorm(float([2, 8]), { weight: weight([8]), eps: 0 }), ArgumentError, "[layerNorm] weight is a parameter with role 'linear', which devices keep packed; expected one with role 'plain'"],
  ['l2Normalize', () => ops.l2Normalize(float([])), ShapeError, '[l2Normalize] x is []; expected x to have at least one dimension'],
  ['softmax', () => ops.softmax(int([2, 2])), DTypeError, '[softmax] x is int32; expected float32 or bfloat16 or float16'],
  ['gather', () => ops.gather(float([4]), int([2])), ShapeError, '[gather] table is [4]; expected table to be [V, C]'],
  ['', () => ops.gather(float([4, 2]), float([2])), DTypeError, '[gather] indices is float32; expected int32'],
  ['scatter', () => ops.scatter(float([3, 2]), int([2]), { rows: 5 }), ShapeError, '[scatter] x is [3, 2], indices is [2]; expected an index for each row of x'],
  ['', () => ops.scatter(float([3, 2]), int([3]), { rows: 5, extent: { name: 'images', per: 2 } }), ArgumentError, "[scatter] rows is 5; expected 2 rows for each of 'images'"],
  ['pickToken', () => ops.pickToken(float([6, 2]), { which: 'first', length: 4 }), ShapeError, '[pickToken] x is [6, 2]; expected a multiple of length 4 rows'],
  ['', () => ops.pickToken(float([6, 2]), { which: 'middle' as 'last', length: 2 }), ArgumentError, "[pickToken] which is 'middle'; expected one of 'first', 'last'"],
  ['', () => ops.pickToken(float([6, 2]), { which: 'last', cuSeqlens: int([3]), length: 2 }), ArgumentError, '[pickToken] cuSeqlens and length are both given; expected one of them'],
  ['', () => ops.pickToken(float([6, 2]), { which: 'last', cuSeqlens: int([3], { name: 'texts', per: 1 }) }), ShapeError, "[pickToken] the extent of cuSeqlens has 0 extra rows; expected { name: 'texts', per: 1, extra: 1 }"],
  ['repeatRows', () => ops.repeatRows(float([4, 2], images), float([6, 2]), { length: 2 }), ShapeError, "[repeatRows] table varies from run to run (1 row for each of 'images'); expected table to be of one shape"],
  ['prependRows', () => ops.prependRows(float([4, 3]), float([6, 2]), { length: 2 }), ShapeError, '[prependRows] prefix is [4, 3], x is [6, 2]; expected prefix to be [P, 2]'],
  ['', () => ops.prependRows(float([4, 2]), float([6, 2]), { length: 4 }), ShapeError, '[prependRows] x is [6, 2]; expected a multiple of length 4 rows'],
  ['', () => ops.prependRows(float([5, 2]), float([6, 2]), { length: 3, each: true }), ShapeError, '[prependRows] prefix is [5, 2], x is [6, 2]; expected as many rows of prefix for each of the 2 sequences of x'],
  ['scaleSequences', () => ops.scaleSequences(float([6, 2]), float([2, 2]), { length: 2 }), ShapeError, '[scaleSequences] x is [6, 2], scale is [2, 2]; expected scale to be [3, 2]'],
  ['pool', () => ops.pool(float([6, 2], { name: 'images', per: 3 }), { mode: 'mean', length: 2 }), ShapeError, "[pool] x has 3 rows for each of 'images', sequences are 2 long; expected whole sequences for each"],
  ['add', () => ops.add(float([2, 3]), float([2])), ShapeError, '[add] a is [2, 3], b is [2]; expected b to be [2, 3] or its trailing dimensions'],
  ['sub', () => ops.sub(float([2, 3], images), float([2, 3], tokens)), ShapeError, "[sub] a has 1 row for each of 'images', b has 1 row for each of 'tokens'; expected the rows of both to vary alike"],
  ['mul', () => ops.mul(float([2, 3]), float([3], tokens)), ShapeError, "[mul] b varies from run to run (1 row for each of 'tokens'); expected b to be of one shape"],
  ['div', () => ops.div(float([2]), int([2])), DTypeError, '[div] b is int32; expected float32 or bfloat16 or float16'],
  ['unary', () => ops.unary(float([2]), 'log' as 'exp'), ArgumentError, "[unary] kind is 'log'; expected one of 'gelu', 'quick_gelu', 'gelu_tanh', 'relu', 'silu', 'tanh', 'sigmoid', 'exp', 'neg', 'sqrt', 'abs'"],
  ['cast', () => ops.cast(float([2]), 'int8'), DTypeError, "[cast] dtype is 'int8'; expected one of 'float32', 'bfloat16', 'float16'"],
  ['cosineTopK', () => ops.cosineTopK(float([2, 8]), float([5, 7]), { k: 1 }), ShapeError, '[cosineTopK] queries is [2, 8], corpus is [5, 7]; expected corpus to be [N, 8]'],
  ['', () => ops.cosineTopK(float([2, 8]), float([5, 8]), { k: 1.5 }), ArgumentError, '[cosineTopK] k is 1.5; expected an integer of at least 1'],
  ['reshape', () => ops.reshape(float([2, 8]), [3, 5]), ShapeError, '[reshape] x is [2, 8]; expected as many elements as [3, 5]'],
  ['', () => ops.reshape(float([6, 8], { name: 'images', per: 3 }), [3, 16]), ShapeError, "[reshape] x is [6, 8] with 3 rows for each of 'images'; expected whole rows of [3, 16] for each"],
  ['', () => ops.reshape(ops.columns(float([4, 8]), 0, 4), [2, 8]), ShapeError, '[reshape] x is [4, 4]; expected [..., 4], since x is a view of some columns'],
  ['', () => ops.reshape(float([64]), [1, 2, 2, 2, 2, 2, 2]), ShapeError, '[reshape] the result would be [1, 2, 2, 2, 2, 2, 2]; expected at most 6 dimensions'],
  ['columns', () => ops.columns(float([2, 8]), 3, 9), ShapeError, '[columns] x is [2, 8]; expected columns 3 to 9 to lie within the last dimension'],
]

t.test('ops say what came and what was expected, at the line of the call', (t) => {
  const tried = new Set<string>()
  for (const [, run, Class, message] of refusals) {
    try {
      run()
      t.fail(`nothing thrown; expected ${message}`)
    } catch (error) {
      t.ok(error instanceof Class, `${(error as Error).name}: ${message}`)
      t.equal((error as Error).message, message)
      const op = (error as ChiasmaError).op!
      if (op) tried.add(op)
      t.match((error as Error).stack!.split('\n').find((line) => /^\s+at /.test(line)), /errors\.ts/, `${op}: the first frame is the caller's`)
    }
  }
  t.same([...tried].sort(), Object.keys(ops.opTable).sort(), 'every op was made to refuse something')
  t.end()
})

t.test('fields', (t) => {
  try {
    ops.linear(float([8, 200]), weight([512, 768]))
  } catch (error) {
    t.match(error, { name: 'ShapeError', code: 'ERR_SHAPE', op: 'linear', shapes: [[8, 200], [512, 768]] })
    t.ok(error instanceof ChiasmaError)
  }
  t.end()
})

t.test('a traced value has no data', (t) => {
  const value = ops.softmax(float([2, 3]))
  t.throws(() => value.data, { name: 'TraceError', code: 'ERR_TRACE', message: "a float32 [2, 3] of 'softmax' is being traced and has no data; compile and run it" })
  t.throws(() => (value as unknown as number) > 0, TraceError, 'nor can it be compared')
  t.throws(() => +(value as unknown as number), TraceError)
  t.equal(`${value}`, "a float32 [2, 3] of 'softmax'")
  t.end()
})

t.test('devices', async (t) => {
  await t.rejects(Device.open({ device: 'tpu' }), { name: 'ArgumentError', message: "[device] device is 'tpu'; expected 'auto', 'cpu', 'cuda' or 'cuda:N'" })
  await t.rejects(Device.open({ device: 'cuda:77' }), DeviceError)
  await t.rejects(Device.open({ device: 'cuda:77' }), { message: /^\[device\] 'cuda:77' (is not there|cannot be used: .*); this machine has cpu \(.+\)/ })
  await t.rejects(Device.open({ dtype: 'f8' }), { name: 'ArgumentError', message: "[device] dtype is 'f8'; expected 'auto', 'f32', 'bf16', 'f16' or 'int8'" })
  await t.rejects(Device.open({ dtype: 'toString' }), ArgumentError)
  for (const dtype of ['f16', 'fp16']) {
    await t.rejects(Device.open({ device: 'cpu', dtype }), { name: 'UnsupportedError', message: "[device] dtype 'f16' is not supported on cpu; expected 'f32', 'bf16' or 'int8'" })
  }
  for (const dtype of ['int8', 'q8']) {
    await using quantized = await Device.open({ device: 'cpu', dtype })
    t.match(quantized, { dtype: 'int8', computeType: quantized.bf16 ? 'bfloat16' : 'float32', productType: 'int8' })
  }
  await t.rejects(host.cosineSimilarity(new Tensor('float32', new Float32Array(2), [1, 2]), new Tensor('float32', new Float32Array(2), [1, 2]), { dtype: 'int8' }), UnsupportedError)
  for (const threads of [0, 1.5, -1, '2' as unknown as number]) await t.rejects(Device.open({ threads }), { name: 'ArgumentError', field: 'threads' })
  await t.rejects(Device.open({ device: 'cpu', isa: 'mmx' }), DeviceError)
})

t.test('running', async (t) => {
  const device = await Device.open({ device: 'cpu', dtype: 'f32' })
  t.teardown(() => device.dispose())
  const specs = {
    x: { shape: [10, 4], dtype: 'float32', extent: { name: 'tokens', per: 1 } },
    cu: { shape: [4], dtype: 'int32', extent: { name: 'texts', per: 1, extra: 1 } },
  } as const
  const program = compile(({ x, cu }) => ({ y: ops.pool(x!, { mode: 'mean', cuSeqlens: cu! }) }), specs, device)
  const x = (rows: number, columns = 4) => new Tensor('float32', new Float32Array(rows * columns), [rows, columns])
  const cu = (...values: number[]) => new Tensor('int32', Int32Array.from(values), [values.length])
  await t.rejects(program.run({ x: x(5) }), { name: 'ArgumentError', message: "[run] input 'cu' is missing; expected int32 [4]", field: 'cu' })
  await t.rejects(program.run({ x: x(5), cu: cu(0, 5), y: x(1) }), { name: 'ArgumentError', message: "[run] there is no input 'y'; expected x, cu" })
  await t.rejects(program.run({ x: cu(0), cu: cu(0, 5) }), { name: 'DTypeError', message: "[run] input 'x' is int32; expected float32" })
  await t.rejects(program.run({ x: x(5, 3), cu: cu(0, 5) }), { name: 'ShapeError', message: "[run] input 'x' is [5, 3]; expected [5, 4]" })
  await t.rejects(program.run({ x: x(11), cu: cu(0, 5) }), { name: 'ShapeError', message: "[run] there are 11 'tokens' (input 'x' is [11, 4]); expected a whole number up to 10" })
  await t.rejects(program.run({ x: x(5), cu: cu(0, 5) }, { counts: { tokens: 4 } }), { name: 'ShapeError', message: "[run] input 'x' is [5, 4]; expected [4, 4]" })
  await t.rejects(program.run({ x: x(5), cu: cu(0, 5) }, { counts: { images: 4 } }), { name: 'ArgumentError', message: "[run] nothing is counted by 'images'; expected tokens, texts" })
  await t.rejects(program.run({ x: x(5), cu: cu(0, 5) }, { counts: { texts: 0.5 } }), { name: 'ShapeError', message: "[run] there are 0.5 'texts'; expected a whole number up to 3" })
  await t.rejects(program.run({ x: { type: 'float32', data: [1, 2], dims: [2] }, cu: cu(0) }), ArgumentError)
  await t.rejects(program.run({ x: null as unknown as Tensor, cu: cu(0) }), { name: 'ArgumentError', message: "[run] input 'x' is no tensor; expected an object with type, data and dims" })
  await t.rejects(program.run({ x: x(5), cu: cu(0, 9) }), { code: 'ERR_ARGUMENT' }, 'a sequence that ends past the tokens is refused by the kernel')
  await t.rejects(program.run({ x: x(5), cu: cu(0, 4, 2) }), { code: 'ERR_ARGUMENT' })
  t.same((await program.run({ x: x(5), cu: cu(0, 2, 5) }))['y']!.dims, [2, 4], 'the program still runs')
  program.dispose()
  await t.rejects(program.run({ x: x(5), cu: cu(0, 2, 5) }), DisposedError)
})

t.test('data that a kernel refuses: the run fails, the process and the device go on', async (t) => {
  const device = await Device.open({ device: 'cpu', dtype: 'f32' })
  t.teardown(() => device.dispose())
  const specs = { table: { shape: [5, 2], dtype: 'float32' }, indices: { shape: [3], dtype: 'int32' } } as const
  const program = compile(({ table, indices }) => ({ y: ops.gather(table!, indices!) }), specs, device)
  const table = new Tensor('float32', Float32Array.from({ length: 10 }, (_, i) => i), [5, 2])
  const indices = (...values: number[]) => new Tensor('int32', Int32Array.from(values), [3])
  for (const [bad, position] of [[5, 1], [-1, 2]] as const) {
    const values = [0, 0, 0]
    values[position] = bad
    const error = await program.run({ table, indices: indices(...values) }).then(
      () => t.fail('not refused'),
      (reason: unknown) => reason as ArgumentError,
    )
    t.ok(error instanceof ArgumentError, String(error))
    t.match((error as Error).message, new RegExp(`\\[gather\\].*${bad}.*${position}|\\[gather\\].*${position}.*${bad}`))
    t.match((error as Error).stack, /errors\.ts/, 'its stack leads to the caller')
  }
  t.same([...(await program.run({ table, indices: indices(4, 0, 1) }))['y']!.data], [8, 9, 0, 1, 2, 3])
})

t.test('compile', async (t) => {
  const device = await Device.open({ device: 'cpu', dtype: 'f32' })
  t.teardown(() => device.dispose())
  const specs = { x: { shape: [2, 3], dtype: 'float32' } } as const
  t.throws(() => compile((() => undefined) as never, specs, device), { message: '[compile] the function returned no outputs; expected an object of Values by name' })
  t.throws(() => compile((async () => ({})) as never, specs, device), { message: '[compile] the function returned a promise; expected it to return its outputs without waiting' })
  t.throws(() => compile(() => ({ y: 3 as never }), specs, device), { message: "[compile] output 'y' is no Value; expected the result of an op" })
  t.throws(() => compile(({ x }) => ({ y: ops.linear(x!, weight([4, 3])) }), specs, device), { message: "[compile] parameter 'w' is not among the weights: none are given" })
  t.throws(() => compile(({ x }) => ({ y: x! }), { x: { shape: [5, 3], dtype: 'float32', extent: { name: 'images', per: 2 } } }, device), {
    name: 'ShapeError',
    message: "[compile] input 'x' is [5, 3]; expected 2 rows for each of 'images' and 0 more",
  })
  const two = { a: { shape: [4, 3], dtype: 'float32', extent: images }, b: { shape: [5, 3], dtype: 'float32', extent: images } } as const
  t.throws(() => compile(({ a, b }) => ({ a: ops.softmax(a!), b: ops.softmax(b!) }), two, device), {
    message: "[compile] 'images' has room for 4 in one value and 5 in another; expected one capacity",
  })
})

t.test('weights', async (t) => {
  const device = await Device.open({ device: 'cpu', dtype: 'f32' })
  t.teardown(() => device.dispose())
  const p = { name: 'w', shape: [2, 3], dtype: 'float32', role: 'linear' } as const
  const source = new Tensor('float32', new Float32Array(6), [6])
  await t.rejects(device.loadWeights([{ parameter: p, source }, { parameter: p, source }]), { message: "[loadWeights] parameter 'w' is given twice; expected each once" })
  await t.rejects(device.loadWeights([{ parameter: p, source: new Tensor('float32', new Float32Array(5), [5]) }]), {
    name: 'ShapeError',
    message: "[loadWeights] 'w' comes as [5]; expected the elements of [2, 3]",
  })
  await t.rejects(device.loadWeights([{ parameter: p, source: new Tensor('int32', new Int32Array(6), [6]) }]), { message: "[loadWeights] 'w' comes as int32; expected a float type" })
  const missing = { file: '/nowhere/model.safetensors', offset: 0, dtype: 'float32', shape: [2, 3] } as const
  await t.rejects(device.loadWeights([{ parameter: p, source: missing }]), { code: 'ERR_CHECKPOINT', message: /model\.safetensors/ })
})

t.test('ops on host tensors', async (t) => {
  const f = (...dims: number[]) => new Tensor('float32', new Float32Array(dims.reduce((a, b) => a * b, 1)), dims)
  await t.rejects(host.attention(f(2, 3), f(2, 3), f(2, 3)), { name: 'ShapeError', message: '[ops.attention] q is [2, 3]; expected 4 dimensions' })
  await t.rejects(host.attention(f(1, 2, 3, 4), f(1, 2, 3, 5), f(1, 2, 3, 4)), { message: '[ops.attention] q is [1, 2, 3, 4], k is [1, 2, 3, 5]; expected [1, 2, 3, 4]' })
  const cuSeqlens = new Tensor('int32', Int32Array.of(0, 2), [2])
  await t.rejects(host.attention(f(1, 2, 3, 4), f(1, 2, 3, 4), f(1, 2, 3, 4), { cuSeqlens }), {
    message: '[ops.attention] cuSeqlens is [0, 2] for 3 queries and 3 keys; expected numbers that rise from 0 to as many queries as keys',
  })
  await t.rejects(host.patchEmbed(f(1, 3, 8, 8), f(5, 47)), { message: '[ops.patchEmbed] weight is [5, 47]; expected [C, 3, P, P] or [C, 3·P·P]' })
  await t.rejects(host.cosineSimilarity(f(1, 3), f(1, 4)), { message: '[ops.cosineSimilarity] a is [1, 3], b is [1, 4]; expected b to be [..., 3]' })
  await t.rejects(host.cosineTopK(f(1, 3), f(1, 3), 0), { message: '[ops.cosineTopK] k is 0; expected an integer of at least 1' })
  await t.rejects(host.cosineSimilarity(f(1, 3), f(1, 3), { signal: AbortSignal.abort(new Error('enough')) }), { message: 'enough' })
})

t.test('native errors', async (t) => {
  t.throws(() => native(() => { throw Object.assign(new Error('no room'), { code: 'ERR_OUT_OF_MEMORY' }) }), { name: 'OutOfMemoryError', code: 'ERR_OUT_OF_MEMORY', message: 'no room' })
  t.throws(() => native(() => { throw Object.assign(new Error('hm'), { code: 'ERR_INTERNAL' }) }), { name: 'ChiasmaError', code: 'ERR_INTERNAL' })
  t.throws(() => native(() => { throw new TypeError('plain') }), TypeError, 'other errors go through')
  await t.rejects(native(() => Promise.reject(Object.assign(new Error('gone'), { code: 'ERR_DISPOSED' }))), DisposedError)
  await t.rejects(abortable(AbortSignal.abort('why'), () => Promise.resolve(1)).catch((reason) => { throw new Error(reason) }), { message: 'why' })
  t.equal(buildCommand(), `node ${join('scripts', 'build-addon.mjs')}`, 'relative to the folder of the process')
})
