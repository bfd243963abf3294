// What a PyTorch pickle may name, and what is made of it: storages, tensors on them, ordered dictionaries, and for TorchScript inert
// records. Names are those of torch.storage, torch._utils, torch.serialization and torch.jit._pickle.

import type { DataType } from '../core/dtype.js'
import { stridedSpan } from './entry.js'
import { PickleDict, PickleGlobal, PickleProblem, type PickleRules, PickleTuple } from './pickle.js'

/** An element type: its torch name, bytes, and our name if we read it. */
export interface TorchType {
  readonly name: string
  readonly width: number
  readonly dtype?: DataType
}

/** One storage of the file; tensors that share it are tied. */
export interface TorchStorage {
  readonly key: string
  readonly type: TorchType
  /** Elements of `type`. */
  readonly count: number
  /** Elements from the start of the storage, for legacy views of another one. */
  readonly start: number
}

/** A tensor as the pickle describes it: checked against its storage, not yet against the file. */
export class TorchTensor {
  constructor(
    readonly storage: TorchStorage,
    readonly type: TorchType,
    /** In elements of `type`, from the start of the storage. */
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}
}

const TYPES: Readonly<Record<string, TorchType>> = Object.fromEntries(
  (
    [
      ['float32', 4, 'float32'], ['float16', 2, 'float16'], ['bfloat16', 2, 'bfloat16'], ['int64', 8, 'int64'], ['int32', 4, 'int32'],
      ['int8', 1, 'int8'], ['uint8', 1, 'uint8'], ['bool', 1, 'bool'],
      ['float64', 8], ['int16', 2], ['uint16', 2], ['uint32', 4], ['uint64', 8], ['complex32', 4], ['complex64', 8], ['complex128', 16],
      ['float8_e4m3fn', 1], ['float8_e5m2', 1], ['float8_e4m3fnuz', 1], ['float8_e5m2fnuz', 1], ['float8_e8m0fnu', 1],
      ['qint8', 1], ['quint8', 1], ['qint32', 4],
    ] as [string, number, DataType?][]
  ).map(([name, width, dtype]) => [name, { name, width, dtype }]),
)

const STORAGES: Readonly<Record<string, string>> = {
  FloatStorage: 'float32', HalfStorage: 'float16', BFloat16Storage: 'bfloat16', LongStorage: 'int64', IntStorage: 'int32', CharStorage: 'int8', ByteStorage: 'uint8',
  BoolStorage: 'bool', DoubleStorage: 'float64', ShortStorage: 'int16', ComplexFloatStorage: 'complex64', ComplexDoubleStorage: 'complex128',
  QInt8Storage: 'qint8', QUInt8Storage: 'quint8', QInt32Storage: 'qint32',
  // Bytes of whatever type the tensor then says.
  UntypedStorage: 'uint8',
}

/** The element type of a storage class such as torch.FloatStorage, torch.cuda.HalfStorage or torch.storage.UntypedStorage. */
function storageType(global: string): TorchType | undefined {
  const name = /^torch\.(?:cuda\.|storage\.)?(\w+)$/.exec(global)?.[1]
  return name !== undefined && Object.hasOwn(STORAGES, name) ? TYPES[STORAGES[name]!] : undefined
}

/** The element type that torch.float32 and the like name. */
function dtypeOf(global: string): TorchType | undefined {
  const name = global.startsWith('torch.') ? global.slice(6) : ''
  return Object.hasOwn(TYPES, name) ? TYPES[name] : undefined
}

type Spend = Parameters<PickleRules['reduce']>[2]
type Reducer = (args: readonly unknown[], spend: Spend) => unknown

const asList: Reducer = ([items]) => {
  if (!Array.isArray(items)) throw new PickleProblem('a list was expected')
  return items
}

/** Every function that a pickle may call, as what it comes to here. */
const REDUCERS: Readonly<Record<string, Reducer>> = {
  'collections.OrderedDict': orderedDict,
  'torch._utils._rebuild_tensor': ([storage, offset, shape, strides], spend) => tensor(storage, offset, shape, strides, spend),
  'torch._utils._rebuild_tensor_v2': ([storage, offset, shape, strides, , , metadata], spend) => tensor(storage, offset, shape, strides, spend, { metadata }),
  'torch._utils._rebuild_tensor_v3': ([storage, offset, shape, strides, , , dtype, metadata], spend) => tensor(storage, offset, shape, strides, spend, { dtype, metadata }),
  'torch._utils._rebuild_parameter': ([data]) => data,
  'torch._utils._rebuild_parameter_with_state': ([data]) => data,
  'torch._tensor._rebuild_from_type_v2': rebuildFromType,
  'torch.Size': ([items], spend) => (items instanceof PickleTuple ? items : new PickleTuple(asList([items], spend) as unknown[])),
  'torch.device': () => null,
  'torch.serialization._get_layout': () => null,
  'torch.jit._pickle.build_intlist': asList,
  'torch.jit._pickle.build_doublelist': asList,
  'torch.jit._pickle.build_boollist': asList,
  'torch.jit._pickle.build_tensorlist': asList,
  'torch.jit._pickle.restore_type_tag': ([value]) => value,
}

/** Classes that occur as arguments only. */
const NAMES = new Set(['torch.Tensor', 'torch.nn.parameter.Parameter', 'torch.nn.parameter.Buffer'])

const isTorchScriptClass = (global: string) => global.startsWith('__torch__.')

/**
 * The rules for one file.
 * @param storages filled with every storage that the pickle names, by key
 * @param torchScript whether classes compiled by TorchScript may occur
 */
export function pytorchRules(what: string, file: string, storages: Map<string, TorchStorage>, torchScript: boolean): PickleRules {
  return {
    what,
    file,
    allows: global =>
      Object.hasOwn(REDUCERS, global) || NAMES.has(global) || !!storageType(global) || !!dtypeOf(global) || (torchScript && isTorchScriptClass(global)),
    allowsRecord: global => torchScript && isTorchScriptClass(global),
    reduce: (global, args, spend) => {
      if (Object.hasOwn(REDUCERS, global)) return REDUCERS[global]!(args, spend)
      // A TorchScript named tuple or enum: its contents are no parameters.
      if (torchScript && isTorchScriptClass(global)) return null
      throw new PickleProblem(`${global} is no function that may be called`)
    },
    persistent: id => storage(id, storages),
  }
}

function orderedDict(args: readonly unknown[], spend: Spend): PickleDict {
  const dict = new PickleDict()
  if (args.length === 0) return dict
  const pairs = asList(args, spend) as unknown[]
  spend(pairs.length)
  for (const pair of pairs) {
    const items = pair instanceof PickleTuple ? pair.items : pair
    if (!Array.isArray(items) || items.length !== 2) throw new PickleProblem('OrderedDict of what are no pairs')
    dict.items.push(items[0], items[1])
  }
  return dict
}

/** `_rebuild_from_type_v2(function, class, arguments, state)`: a tensor with attributes. */
function rebuildFromType([callee, , args]: readonly unknown[], spend: Spend): unknown {
  const name = callee instanceof PickleGlobal ? callee.name : ''
  if (!name.startsWith('torch._utils.') || !Object.hasOwn(REDUCERS, name) || !(args instanceof PickleTuple)) {
    throw new PickleProblem('_rebuild_from_type_v2 of what is no tensor')
  }
  return REDUCERS[name]!(args.items, spend)
}

/** `('storage', class, key, location, element count)`, and in legacy files a view of it: `(key, start, count)` or None. */
function storage(id: unknown, storages: Map<string, TorchStorage>): TorchStorage {
  const items = id instanceof PickleTuple ? id.items : []
  const [tag, cls, key, , count, view] = items
  const type = cls instanceof PickleGlobal ? storageType(cls.name) : undefined
  if (tag !== 'storage' || !type || typeof key !== 'string' || key.length > 200 || !isCount(count)) throw new PickleProblem('a persistent id that names no storage')
  const known = storages.get(key)
  if (known && known.count * known.type.width !== count * type.width) throw new PickleProblem(`storage ${key} is given two sizes`)
  const whole = known ?? { key, type, count, start: 0 }
  storages.set(key, whole)
  if (view === null || view === undefined) return { ...whole, type, count }
  const [, start, viewCount] = view instanceof PickleTuple ? view.items : []
  if (!isCount(start) || !isCount(viewCount) || start + viewCount > count) throw new PickleProblem(`a view that lies outside of storage ${key}`)
  return { key, type, count: viewCount, start }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

/** Elements that a tensor may have beyond those of its storage (expanded dimensions); more would let a few bytes ask for any memory. */
const MAX_EXPANDED = 1 << 24

/** As PyTorch has it. */
const MAX_DIMENSIONS = 64

function tensor(base: unknown, offset: unknown, shape: unknown, strides: unknown, spend: Spend, more: { dtype?: unknown; metadata?: unknown } = {}): TorchTensor {
  const from = base as TorchStorage | null
  if (from === null || typeof from !== 'object' || !('count' in from) || !('type' in from)) throw new PickleProblem('a tensor without a storage')
  const type = more.dtype === undefined ? from.type : more.dtype instanceof PickleGlobal ? dtypeOf(more.dtype.name) : undefined
  if (!type) throw new PickleProblem('a tensor of a type that is none')
  const sizes = shape instanceof PickleTuple ? shape.items : shape
  const steps = strides instanceof PickleTuple ? strides.items : strides
  if (Array.isArray(sizes) && sizes.length > MAX_DIMENSIONS) throw new PickleProblem(`a tensor of ${sizes.length} dimensions; expected at most ${MAX_DIMENSIONS}`)
  if (!isCount(offset) || !Array.isArray(sizes) || !Array.isArray(steps) || sizes.length !== steps.length || ![...sizes, ...steps].every(isCount)) {
    throw new PickleProblem('a tensor whose offset, shape or strides are no integers >= 0')
  }
  const count = sizes.reduce((product: number, dim: number) => product * dim, 1)
  const available = Math.floor((from.count * from.type.width) / type.width)
  if (!Number.isSafeInteger(count)) throw new PickleProblem(`a tensor of shape [${sizes}]`)
  const span = stridedSpan(sizes, steps)
  if (!(offset + span <= available)) {
    throw new PickleProblem(`a tensor of shape [${sizes}], strides [${steps}] and offset ${offset} goes past its storage of ${available} elements`)
  }
  if (count > available && count > MAX_EXPANDED) throw new PickleProblem(`a tensor of shape [${sizes}] on a storage of ${available} elements`)
  return new TorchTensor(from, readableAs(type, more.metadata, spend), offset, sizes, steps)
}

/** Views that read conjugated or negated are not what the bytes say, so they are listed but not read. */
function readableAs(type: TorchType, metadata: unknown, spend: Spend): TorchType {
  if (!(metadata instanceof PickleDict)) return type
  spend(metadata.items.length)
  if (!metadata.items.some(value => value === true)) return type
  return { name: `${type.name} (conjugated or negated view)`, width: type.width }
}
