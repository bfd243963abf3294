// Devices as users name them, and what lives on one: weights and plans. Which device and dtype was chosen is always visible
// (`device.id`, `device.dtype`); asking for what is not there is an error that says what is.

import type { FileSource, NativeDevice, NativeWeights, WeightSpec } from '../../typings/addon.js'
import { type DataType, type FloatType, isFloat } from './dtype.js'
import { ArgumentError, DeviceError, ShapeError, UnsupportedError } from './errors.js'
import { abortable, native } from './native.js'
import { checkOptions, option, type OptionRules } from './options.js'
import { PlanCache } from './plan-cache.js'
import { sizeOf } from './shape.js'
import { Tensor, type TensorLike } from './tensor.js'
import type { Parameter } from './value.js'

export interface DeviceInfo {
  /** 'cpu', 'cuda:0', …; 'cuda' where there is no GPU to number. */
  id: string
  kind: string
  name: string
  /** Bytes; each 0 where it is not known. */
  memory: { total: number; free: number }
  /** CPU: instruction sets this build has kernels for and the processor has, weakest first. */
  isa?: string[]
  computeCapability?: string
  /** CPU: cores this process may use. */
  threads?: number
  available: boolean
  /** Why it is not available. */
  reason?: string
}

/**
 * The devices of this machine, also those that cannot be used, with the reason.
 *
 * @throws DeviceError if the native addon cannot be loaded on this platform
 */
export async function listDevices(): Promise<DeviceInfo[]> {
  const devices = await native((addon) => addon.listDevices(), listDevices)
  return devices.map((info) => ({ ...info, memory: { total: info.memory.total, free: info.memory.free ?? 0 } }))
}

export interface DeviceOptions {
  /** 'auto' (default: cuda where one works, else cpu), 'cpu', 'cuda', 'cuda:N', 'gpu'; for tests 'cuda-sim'. */
  device?: string | undefined
  /** 'auto' (default: bf16 where the device has bf16 arithmetic, else f32), 'f32', 'bf16', on the CPU 'int8', on CUDA 'f16'; also 'fp32' and 'q8'. */
  dtype?: string | undefined
  /** Cores to use at most. */
  threads?: number | undefined
  /** Caps the CPU's instruction set; for tests and measurements. */
  isa?: string | undefined
}

const deviceRules: OptionRules<DeviceOptions> = { device: option.text, dtype: option.text, threads: option.positiveInteger, isa: option.text }

/** The types that models can compute in. */
export type ComputeDType = 'f32' | 'bf16' | 'f16' | 'int8'
type KnownDType = 'auto' | ComputeDType

const dtypeAliases: Readonly<Record<string, KnownDType>> = {
  auto: 'auto',
  f32: 'f32',
  fp32: 'f32',
  float32: 'f32',
  bf16: 'bf16',
  bfloat16: 'bf16',
  f16: 'f16',
  fp16: 'f16',
  float16: 'f16',
  int8: 'int8',
  q8: 'int8',
}

const floatTypes = { f32: 'float32', bf16: 'bfloat16', f16: 'float16' } as const

const open = new Set<WeakRef<Device>>()

/** An opened device. It has a submit thread of its own and shares the process's thread pool; dispose of it to give back its memory. */
export class Device {
  readonly id: string
  readonly dtype: ComputeDType
  /** The instruction set in use. */
  readonly isa: string
  readonly threads: number
  /** Whether the device has bf16 arithmetic. */
  readonly bf16: boolean
  /** Plans that were compiled for this device. @internal */
  readonly plans = new PlanCache()
  /** @internal */
  readonly native: NativeDevice
  private readonly reference = new WeakRef(this)

  private constructor(device: NativeDevice, dtype: ComputeDType) {
    this.native = device
    this.id = device.id
    this.isa = device.isa
    this.threads = device.threads
    this.bf16 = device.bf16
    this.dtype = dtype
    open.add(this.reference)
  }

  /**
   * Opens a device.
   *
   * @example
   * await using device = await Device.open({ device: 'cpu', dtype: 'f32' })
   * @throws DeviceError if it is absent, UnsupportedError for a dtype it cannot compute in, ArgumentError for a name that is none
   */
  static async open(options: DeviceOptions = {}): Promise<Device> {
    checkOptions('Device.open', options, deviceRules)
    const { device = 'auto', dtype = 'auto', threads, isa } = options
    const type = parseDType(dtype)
    const info = choose(device, await listDevices())
    if (type === 'f16' && info.kind === 'cpu') {
      throw new UnsupportedError(`[device] dtype 'f16' is not supported on cpu; expected 'f32', 'bf16' or 'int8'`, { field: 'dtype' })
    }
    const opened = native((addon) => addon.openDevice({ id: info.id, ...(isa !== undefined && { isa }), ...(threads !== undefined && { threads }) }))
    return new Device(opened, type === 'auto' ? (opened.bf16 ? 'bf16' : 'f32') : type)
  }

  /** The type of weights and of what passes between ops, as tensors spell it. With int8 products, what is quickest beside them. */
  get computeType(): FloatType {
    return this.dtype === 'int8' ? (this.bf16 ? 'bfloat16' : 'float32') : floatTypes[this.dtype]
  }

  /** The type of the weights of a transformer block's products: the compute type, or int8. */
  get productType(): FloatType | 'int8' {
    return this.dtype === 'int8' ? 'int8' : this.computeType
  }

  /** Whether the device has a kernel for the op. */
  hasOp(op: string): boolean {
    return native(() => this.native.hasOp(op))
  }

  /**
   * Puts parameters on the device, converted to their storage type and packed if they are the weight of a product. Files are read by
   * ranges on a native thread.
   *
   * @param entries each parameter once, with a piece of a file or a host tensor of as many elements
   * @param options.signal stops loading between tensors; the promise rejects with its reason at once, and what was loaded is freed soon after
   * @param options.onProgress may throw: the load ends, what was loaded is freed, and the promise rejects with what it threw
   * @throws ShapeError, ArgumentError, CheckpointError (naming the file), OutOfMemoryError
   */
  async loadWeights(
    entries: readonly {
      parameter: Parameter
      source: FileSource | TensorLike
      rowScale?: Float32Array
      /** The tensor is not copied, and must stay as it is until the promise has settled. @internal */
      held?: boolean
    }[],
    options: { signal?: AbortSignal | undefined; onProgress?: ((loadedBytes: number, totalBytes: number) => void) | undefined } = {},
  ): Promise<Weights> {
    const index = new Map<Parameter, number>()
    const specs = entries.map(({ parameter, source, rowScale, held }, i): WeightSpec => {
      if (index.has(parameter)) {
        throw new ArgumentError(`[loadWeights] parameter '${parameter.name}' is given twice; expected each once`, { field: parameter.name })
      }
      index.set(parameter, i)
      return { ...weightSpec(parameter, source, held), ...(rowScale && { rowScale }) }
    })
    // A callback that throws stops the load, which rejects with what it threw when nothing of it is left.
    const failed = new AbortController()
    const { onProgress } = options
    const report = onProgress && ((done: number, total: number) => {
      try {
        onProgress(done, total)
      } catch (error) {
        failed.abort(error)
      }
    })
    const loaded = await abortable(
      options.signal ? AbortSignal.any([options.signal, failed.signal]) : failed.signal,
      (task) => native(() => this.native.loadWeights(specs, task, report)),
      (late) => late.dispose(),
      () => failed.signal.aborted || entries.some(({ held }) => held),
    )
    return new Weights(loaded, index, this.plans)
  }

  /** Bytes in use on this device by this object. */
  memoryUsage(): { weights: number; arena: number; total: number } {
    return native(() => this.native.memoryUsage())
  }

  /** Frees plans, arena and weights when the last run that uses them ends; waits for queued runs to settle. */
  async dispose(): Promise<void> {
    open.delete(this.reference)
    this.plans.clear()
    await native(() => this.native.dispose())
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose()
  }
}

/** Parameters on a device. */
export class Weights {
  private static count = 0
  /** Distinguishes weights in the keys of plans. @internal */
  readonly id = ++Weights.count

  /** @internal */
  constructor(
    readonly native: NativeWeights,
    /** Where each parameter stands. */
    readonly index: ReadonlyMap<Parameter, number>,
    /** Not a callback, whose scope would keep what the weights were made of. */
    private readonly plans: PlanCache,
  ) {}

  /** Device memory they take. */
  get bytes(): number {
    return native(() => this.native.bytes)
  }

  /** Frees the memory when the last run that uses it ends. Programs made with these weights cannot run afterwards. */
  dispose(): void {
    native(() => this.native.dispose())
    this.plans.forget(this.id) // last: it lets the device give back what is free
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

/** Bytes in use on each device, over all that are open in this thread: `{ cpu: { weights, arena, total } }`. */
export function memoryUsage(): Record<string, { weights: number; arena: number; total: number }> {
  const usage: Record<string, { weights: number; arena: number; total: number }> = {}
  for (const reference of open) {
    const device = reference.deref()
    if (!device) {
      open.delete(reference)
      continue
    }
    const { weights, arena, total } = device.memoryUsage()
    const sum = (usage[device.id] ??= { weights: 0, arena: 0, total: 0 })
    sum.weights += weights
    sum.arena += arena
    sum.total += total
  }
  return usage
}

const shared = new Map<string, Promise<Device>>()

/** A device that lives as long as the thread, for calls that have none of their own. One for each combination of options. */
export function sharedDevice(options: DeviceOptions): Promise<Device> {
  const key = JSON.stringify([options.device ?? 'auto', options.dtype ?? 'auto', options.threads, options.isa])
  let device = shared.get(key)
  if (!device) {
    device = Device.open(options)
    device.catch(() => shared.delete(key))
    shared.set(key, device)
  }
  return device
}

/** Whether it names a dtype, on some device. @internal */
export const isDTypeName = (name: string) => Object.hasOwn(dtypeAliases, name)
/** Whether it names a device, be it there or not. @internal */
export const isDeviceName = (name: string) => /^(auto|cpu|gpu|cuda(-sim)?(:\d+)?)$/.test(name)

function parseDType(dtype: string): KnownDType {
  const known = isDTypeName(dtype) ? dtypeAliases[dtype] : undefined
  if (!known) throw new ArgumentError(`[device] dtype is '${dtype}'; expected 'auto', 'f32', 'bf16', 'f16' or 'int8'`, { field: 'dtype' })
  return known
}

function choose(wanted: string, devices: readonly DeviceInfo[]): DeviceInfo {
  const id = wanted === 'gpu' ? 'cuda' : wanted
  if (typeof id !== 'string' || !isDeviceName(id)) {
    throw new ArgumentError(`[device] device is '${wanted}'; expected 'auto', 'cpu', 'cuda' or 'cuda:N'`, { field: 'device' })
  }
  const fits = ({ id: its, kind }: DeviceInfo) => its === id || (!id.includes(':') && kind === id)
  const found =
    id === 'auto'
      ? (devices.find(({ kind, available }) => kind === 'cuda' && available) ?? devices.find(({ kind }) => kind === 'cpu'))
      : (devices.find((info) => fits(info) && info.available) ??
        devices.find(fits) ??
        devices.find((info) => info.id === 'cuda' && id.startsWith('cuda:'))) // why there is no GPU at all
  if (found?.available) return found
  if (!found && id.startsWith('cuda-sim')) {
    throw new DeviceError(`[device] '${wanted}' is not built; in a clone of the repository \`npm run build:sim\` builds it`, { field: 'device' })
  }
  const there = devices.filter(({ available }) => available).map((info) => `${info.id} (${info.name})`)
  throw new DeviceError(
    `[device] '${wanted}' ${found ? `cannot be used: ${found.reason}` : 'is not there'}; this machine has ${there.join(', ') || 'none'}`,
    { field: 'device' },
  )
}

function weightSpec(parameter: Parameter, source: FileSource | TensorLike, held?: boolean): WeightSpec {
  const { name, role, dtype } = parameter
  const shape = [...parameter.shape]
  if (role === 'linear' && shape.length !== 2) {
    throw new ShapeError(`[loadWeights] parameter '${name}' is [${shape.join(', ')}]; expected [outputs, inputs] for role 'linear'`)
  }
  const isFile = 'file' in source
  const from = isFile ? source.shape : source.dims
  if (sizeOf(from) !== sizeOf(shape)) {
    throw new ShapeError(`[loadWeights] '${name}' comes as [${from.join(', ')}]; expected the elements of [${shape.join(', ')}]`, {
      shapes: [from, shape],
      ...(isFile && { file: source.file }),
    })
  }
  if (isFile) return { name, role, dtype, shape, source }
  const tensor = Tensor.from(source, name)
  checkConversion(name, tensor.type, role === 'linear' && dtype === 'int8' ? 'float32' : dtype)
  return { name, role, dtype, shape, source: { data: tensor.data, dtype: tensor.type, ...(held && { held }) } }
}

function checkConversion(name: string, from: DataType, to: DataType): void {
  if (from === to || (isFloat(from) && isFloat(to))) return
  throw new ArgumentError(`[loadWeights] '${name}' comes as ${from}; expected ${isFloat(to) ? 'a float type' : to}`, { field: name })
}
