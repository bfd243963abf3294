// The public names of `chiasma`, and nothing else.

export { compile, type Program, type RunOptions } from './core/compile.js'
export { Device, type DeviceInfo, type DeviceOptions, listDevices, memoryUsage } from './core/device.js'
export { type DataType, type TensorData } from './core/dtype.js'
export {
  ArgumentError,
  CheckpointError,
  ChiasmaError,
  DeviceError,
  DisposedError,
  DTypeError,
  type ErrorFields,
  ImageError,
  OutOfMemoryError,
  ShapeError,
  TraceError,
  UnsupportedError,
} from './core/errors.js'
export { Tensor, type TensorLike } from './core/tensor.js'
export * as ops from './ops/host.js'
