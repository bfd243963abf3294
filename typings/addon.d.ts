// The bridge's contract, written by hand: what lib/core/native.ts may call and native/cpp/bridge must export.
// Errors thrown or rejected by the addon carry `code`, one of the ERR_* codes of lib/core/errors.ts.

export type WireType = 'float32' | 'float16' | 'bfloat16' | 'int8' | 'uint8' | 'int32' | 'int64' | 'bool'

export interface NativeDeviceInfo {
  id: string // 'cpu', 'cuda:0', 'cuda-sim'; 'cuda' where there is no GPU to number
  kind: 'cpu' | 'cuda' | 'cuda-sim'
  name: string // the processor's or the GPU's
  memory: { total: number; free?: number } // bytes; 0: not known
  computeCapability?: string // of a GPU: '9.0'
  isa?: string[] // instruction sets kernels exist for and the processor has, weakest first: portable, avx2, avx512, avx512_vnni, avx512_bf16, amx
  threads?: number // cores this process may use
  available: boolean
  reason?: string
}

/** One contiguous or strided piece of a file, read by ranges on a native thread. */
export interface FileSource {
  file: string
  offset: number // bytes from the start of the file
  dtype: WireType
  shape: readonly number[]
  strides?: readonly number[] // elements; absent: row-major
}

export interface WeightSpec {
  name: string // for errors
  role: 'plain' | 'linear'
  dtype: WireType // storage type on the device; float sources are converted
  shape: number[] // [rows, columns] for role 'linear'
  source: FileSource | { data: ArrayBufferView; dtype: WireType; held?: boolean } // held: is not copied; must stay as it is until the load ends
  rowScale?: Float32Array // a factor for each of shape[0]'s rows, of float sources
}

export interface WireValue {
  dtype: WireType
  shape: number[] // capacity
  extent?: number // index into WirePlan.extents: shape[0] = per * count + extra at run time
  per?: number // 1 if absent
  extra?: number // 0 if absent; 1 for cumulative lengths, which have a row more than there are sequences
  kind: 'input' | 'weight' | 'temporary' | 'output'
  weight?: number // index into the NativeWeights of createProgram, for kind 'weight'
  alias?: { of: number; offset: number; rowStride: number } // elements; a view of another value, no memory of its own
  name?: string
}

export interface WireStep {
  op: string
  inputs: number[] // indices into values; -1 for an absent optional input
  outputs: number[]
  attributes: Record<string, number | string | boolean | readonly number[]>
}

export interface WirePlan {
  extents: { name: string; capacity: number }[]
  values: WireValue[]
  steps: WireStep[]
  inputs: number[] // values, in the order run() takes them
  outputs: number[] // values, in the order run() returns them
}

/** Stops work: queued runs at once, running ones between ops, loads between tensors. */
export interface NativeTask {
  cancel(): void
}

export interface NativeWeights {
  readonly bytes: number
  dispose(): void // memory is freed when the last run that uses it ends
}

export interface NativeProgram {
  readonly arenaBytes: number
  /** counts: one per extent, at most its capacity. Inputs are copied before run() returns. Resolves with one buffer per output. */
  run(inputs: ArrayBufferView[], counts: number[], task?: NativeTask): Promise<ArrayBuffer[]>
  /**
   * As above, into the caller's arrays, one per output: they are written on another thread until the promise settles, and nobody may
   * detach, read or change them meanwhile. Their contents are undefined if it rejects.
   */
  run(inputs: ArrayBufferView[], counts: number[], task: NativeTask | undefined, outputs: ArrayBufferView[]): Promise<unknown>
  dispose(): void
}

export interface NativeDevice {
  readonly id: string
  readonly isa: string // the instruction set in use; of a GPU 'sm_90'
  readonly bf16: boolean // has bf16 arithmetic
  readonly threads: number
  hasOp(op: string): boolean
  loadWeights(specs: WeightSpec[], task?: NativeTask, onProgress?: (loadedBytes: number, totalBytes: number) => void): Promise<NativeWeights>
  /** guard: poison around and in every buffer, checked after every step (tests). */
  createProgram(plan: WirePlan, weights?: NativeWeights, options?: { guard?: boolean }): NativeProgram
  memoryUsage(): { weights: number; arena: number; total: number }
  dispose(): Promise<void>
}

export interface ImagePlan {
  width: number // of the source
  height: number
  channels: 1 | 2 | 3 | 4 // of the source: grey, grey+alpha, RGB, RGBA; alpha is dropped
  cmyk?: boolean // the 4 channels are CMYK inks
  orientation: number // EXIF 1..8, applied first
  resizeWidth: number // after orientation; equal to the source's size means no resize
  resizeHeight: number
  filter: 'nearest' | 'bilinear' | 'bicubic' | 'lanczos' | 'box' | 'hamming'
  cropLeft: number // of the resized picture, may be negative: outside is 0
  cropTop: number
  cropWidth: number
  cropHeight: number
}

export interface Addon {
  readonly version: string
  /** Asks the driver on another thread; later calls have the same answer. */
  listDevices(): Promise<NativeDeviceInfo[]>
  /** isa caps the instruction set (tests); threads caps the pool's share. */
  openDevice(options: { id: string; isa?: string; threads?: number }): NativeDevice
  createTask(): NativeTask
  /**
   * Pillow's resize in 8-bit fixed point, fused with the crop, into `result`: RGB bytes [cropHeight, cropWidth, 3].
   * Both arrays are used on another thread and not copied: nobody may detach or change them meanwhile. A bad plan throws.
   */
  preprocessImage(pixels: Uint8Array, plan: ImagePlan, result: Uint8Array): Promise<void>
}
