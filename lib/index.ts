// The public names of `chiasma`, and nothing else.

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
