// The public names of `chiasma`, and nothing else.

export { compile, type Program, type RunOptions } from './core/compile.js'
export { Device, type DeviceInfo, type DeviceOptions, listDevices, memoryUsage } from './core/device.js'
export { type DataType, type TensorData } from './core/dtype.js'
export {
  ArgumentError,
  AudioError,
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
export type { Parameter, Value, ValueType } from './core/value.js'
export type { AudioInput, AudioOptions } from './data/audio.js'
export type { AudioFeatures, AudioProcessor } from './data/audio-processor.js'
export { AutoProcessor, type Processor, type ProcessorOptions } from './data/processor.js'
export type { EmbedTimings } from './data/timings.js'
export type { ImageInput } from './data/image.js'
export { readRegionsNpz, readRegionsTsv, regionInputs, type Regions } from './data/regions.js'
export { AutoTokenizer, type Tokenizer, type TokenizeOptions } from './data/tokenizer.js'
export { type Classification, classifyImages, type ClassifyOptions, type ClassifyResult } from './embed/classify.js'
export {
  Embedder,
  type EmbedAudioOptions,
  type EmbedImagesOptions,
  type EmbedOptions,
  type EmbedProgress,
  type EmbedStreamOptions,
  type EmbedTextsOptions,
  type StreamItem,
  type StreamResult,
} from './embed/embedder.js'
export { type Match, Matcher, type MatchOptions, type MatchResult } from './embed/matcher.js'
export { evaluateRetrieval, recallAtK, type RecallAtK, type RetrievalData, type RetrievalOptions, type RetrievalReport } from './embed/retrieval.js'
export type { Precision } from './embed/vectors.js'
export type { ProgressEvent } from './io/hub.js'
export { AutoModel, type LoadOptions } from './models/auto-model.js'
export type { AudioEncoder, Classifier, ForwardOptions, ImageEncoder, Model, TextEncoder } from './models/model.js'
export * as ops from './ops/host.js'
export { type Hit, VectorIndex, type VectorIndexLoadOptions, type VectorIndexOptions } from './search/vector-index.js'
