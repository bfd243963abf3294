// The public names as a user writes them, compiled by `npm run check` against the declarations that users get: `chiasma` is this package,
// by its own exports. Nothing here runs. Each `@ts-expect-error` is a wrong use that the compiler must refuse.

import {
  ArgumentError,
  AutoModel,
  AutoProcessor,
  AutoTokenizer,
  CheckpointError,
  ChiasmaError,
  classifyImages,
  compile,
  type DataType,
  Device,
  DeviceError,
  type DeviceInfo,
  DisposedError,
  DTypeError,
  Embedder,
  type Hit,
  ImageError,
  type ImageInput,
  listDevices,
  type LoadOptions,
  memoryUsage,
  type Model,
  ops,
  OutOfMemoryError,
  type Processor,
  type ProgressEvent,
  ShapeError,
  Tensor,
  type TensorLike,
  type Tokenizer,
  TraceError,
  UnsupportedError,
  type Value,
  VectorIndex,
} from 'chiasma'
import { LayerNorm, Linear, Scope } from 'chiasma/nn'

/** Accepts a value of exactly this type, not `any` and nothing wider. */
type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
function is<Expected>() {
  return <Actual>(_: Actual, ..._same: Same<Actual, Expected> extends true ? [] : ['not of this type']): void => {}
}

export async function tensors(other: { type: 'float32'; data: Float32Array; dims: number[] }): Promise<void> {
  const tensor = new Tensor('float32', new Float32Array(6), [2, 3])
  is<DataType>()(tensor.type)
  is<readonly number[]>()(tensor.dims)
  is<number>()(tensor.size)
  new Tensor('int64', new BigInt64Array(1), [1])
  new Tensor('bfloat16', new Uint16Array(1), [1])
  const like: TensorLike = other // another library's tensor
  await ops.cosineSimilarity(like, tensor)
  // @ts-expect-error no such type
  new Tensor('float64', new Float32Array(1), [1])
  // @ts-expect-error dims are a list
  new Tensor('float32', new Float32Array(1), 1)
  // @ts-expect-error dims are lacking
  new Tensor('float32', new Float32Array(1))
  // @ts-expect-error a tensor does not change
  tensor.dims = [3, 2]
}

export async function devices(): Promise<void> {
  const list = await listDevices()
  is<DeviceInfo[]>()(list)
  const { id, kind, name, memory, available } = list[0]!
  is<string>()(id)
  is<string>()(kind)
  is<string>()(name)
  is<number>()(memory.total)
  is<boolean>()(available)
  is<string[] | undefined>()(list[0]!.isa)
  is<string | undefined>()(list[0]!.computeCapability)
  is<string | undefined>()(list[0]!.reason)
  const bytes = memoryUsage()['cpu']!
  is<number>()(bytes.weights + bytes.arena + bytes.total)
  // @ts-expect-error a promise
  list.then
  // @ts-expect-error takes nothing
  await listDevices('cpu')
}

const options: LoadOptions = {
  device: 'auto',
  dtype: 'f32',
  threads: 2,
  cacheDir: '/tmp/models',
  revision: 'main',
  localFilesOnly: true,
  signal: AbortSignal.timeout(1000),
  onProgress: (event: ProgressEvent) => {
    if (event.status === 'progress') is<number>()(event.progress + event.loaded + event.total)
    if (event.status === 'ready') is<string>()(event.model)
    // @ts-expect-error only while it is in progress
    event.loaded
  },
}

export async function models(): Promise<void> {
  const model = await AutoModel.fromPretrained('openai/clip-vit-base-patch32', options)
  is<Model>()(model)
  is<string>()(model.device)
  is<string>()(model.dtype)
  is<readonly string[]>()(model.unusedTensors)
  const tokenizer = await AutoTokenizer.fromPretrained('folder')
  is<Tokenizer>()(tokenizer)
  const { input_ids, attention_mask, token_type_ids } = tokenizer(['a cat'], { padding: 'max_length', truncation: true, maxLength: 77 })
  is<Tensor>()(input_ids)
  is<Tensor | undefined>()(token_type_ids)
  const processor = await AutoProcessor.fromPretrained('folder')
  is<Processor>()(processor)
  const { pixel_values } = await processor(['cat.jpg', new URL('file:///dog.jpg')], { output: 'uint8' })
  const outputs = await model.forward({ input_ids, attention_mask, pixel_values }, { outputs: ['image_embeds'], outputHiddenStates: true, signal: options.signal })
  is<Record<string, Tensor>>()(outputs)
  await model.dispose()
  await using scoped = await AutoModel.fromPretrained('folder')
  is<Model>()(scoped)
  // @ts-expect-error loading is a promise
  AutoModel.fromPretrained('folder').forward({})
  // @ts-expect-error models are loaded, not made
  new model.constructor()
  // @ts-expect-error the option is spelled localFilesOnly
  await AutoModel.fromPretrained('folder', { local_files_only: true })
  // @ts-expect-error outputs are names
  await model.forward({ input_ids }, { outputs: 'image_embeds' })
  // @ts-expect-error inputs are tensors
  await model.forward({ input_ids: [[1, 2, 3]] })
  // @ts-expect-error tokenising is synchronous
  tokenizer('a cat').then
  // @ts-expect-error preprocessing is not
  processor('cat.jpg').pixel_values
  // @ts-expect-error no such output
  await processor('cat.jpg', { output: 'float16' })
  // @ts-expect-error no such padding
  tokenizer('a cat', { padding: 'shortest' })
}

export async function embedding(): Promise<void> {
  await using embedder = await Embedder.fromPretrained('folder', options)
  is<number>()(embedder.dimensions)
  is<number>()(embedder.maxLength)
  is<Readonly<Record<string, string>>>()(embedder.prompts)
  const inputs: ImageInput[] = ['cat.jpg', new URL('file:///dog.jpg'), Buffer.alloc(1), new Uint8Array(1), { data: new Uint8Array(3), width: 1, height: 1, channels: 3 }]
  const images = await embedder.embedImages(inputs, { normalize: false, batchSize: 8, signal: options.signal, onProgress: ({ done }) => is<number>()(done) })
  is<Tensor>()(images)
  await embedder.embedImages(new Tensor('uint8', new Uint8Array(3), [1, 1, 1, 3]))
  const texts = await embedder.embedTexts(['a cat'], { prompt: 'query: ', truncateDim: 64, precision: 'ubinary', maxLength: 20, truncation: false })
  is<Tensor>()(texts)
  await embedder.embedTexts(['a cat'], { promptName: 'query' })
  for await (const result of embedder.embedStream(['cat.jpg', { text: 'a cat' }, { image: 'cat.jpg' }, { text: 'a cat', image: 'cat.jpg' }])) {
    is<number>()(result.index)
    if (result.error) is<Error>()(result.error)
    else is<Float32Array>()(result.embedding)
    // @ts-expect-error it may have failed
    result.embedding.length
  }
  for await (const { labels } of classifyImages(embedder, inputs, { labels: ['a cat', 'a dog'], topK: 1 })) {
    if (labels) is<string>()(labels[0]!.label)
  }
  await embedder.dispose()
  // @ts-expect-error a list of images
  await embedder.embedImages('cat.jpg')
  // @ts-expect-error two channels are none of ours
  await embedder.embedImages([{ data: new Uint8Array(2), width: 1, height: 1, channels: 2 }])
  // @ts-expect-error a list of texts
  await embedder.embedTexts('a cat')
  // @ts-expect-error no such precision
  await embedder.embedTexts(['a cat'], { precision: 'int4' })
  // @ts-expect-error embedders are loaded, not made
  new Embedder()
}

export async function kernels(a: Tensor, b: Tensor): Promise<void> {
  is<Tensor>()(await ops.attention(a, a, a, { causal: true, scale: 0.125, cuSeqlens: b, device: 'cpu', dtype: 'f32' }))
  is<Tensor>()(await ops.patchEmbed(a, b, { bias: b, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], classToken: b, positionEmbedding: b }))
  is<Tensor>()(await ops.cosineSimilarity(a, b))
  const { scores, indices } = await ops.cosineTopK(a, b, 10)
  is<Tensor>()(scores)
  is<Tensor>()(indices)
  // @ts-expect-error k is lacking
  await ops.cosineTopK(a, b)
  // @ts-expect-error v is lacking
  await ops.attention(a, b)
  // @ts-expect-error a number, not a string
  await ops.attention(a, b, b, { scale: '1' })
}

export async function search(embeddings: Tensor): Promise<void> {
  const index = await VectorIndex.create({ dimensions: 512, dtype: 'int8', device: 'cpu' })
  is<void>()(await index.add(embeddings, ['a', 'b']))
  const hits = await index.search(embeddings, 10)
  is<Hit[][]>()(hits)
  is<string | undefined>()(hits[0]![0]!.id)
  is<number>()(hits[0]![0]!.index + hits[0]![0]!.score)
  is<void>()(await index.save('index.safetensors'))
  is<VectorIndex>()(await VectorIndex.load('index.safetensors'))
  // @ts-expect-error dimensions are lacking
  await VectorIndex.create({})
  // @ts-expect-error no such dtype
  await VectorIndex.create({ dimensions: 512, dtype: 'f16' })
  // @ts-expect-error ids are strings
  await index.add(embeddings, [1, 2])
}

export function errors(error: unknown): void {
  if (error instanceof ChiasmaError) is<string>()(error.code)
  for (const Class of [ArgumentError, CheckpointError, DeviceError, DisposedError, DTypeError, ImageError, OutOfMemoryError, ShapeError, TraceError, UnsupportedError]) {
    const made: ChiasmaError = new Class('why', { op: 'linear', index: 1 })
    is<number | undefined>()(made.index)
  }
  // @ts-expect-error the base class wants a code and a message
  new ChiasmaError('why')
  // @ts-expect-error no such field
  new ShapeError('why', { colour: 'red' })
}

export async function programs(weights: Set<string>): Promise<void> {
  await using device = await Device.open({ device: 'cpu' })
  const scope = Scope.root(weights, 'float32')
  const norm = new LayerNorm(scope.at('norm'), 4, 1e-6)
  const linear = new Linear(scope.at('linear'), 4, 4, { bias: false })
  const forward = (x: Value): Value => linear.forward(norm.forward(x)) // a Value is one type in both entries
  const program = compile(({ x }) => ({ y: forward(x!) }), { x: { shape: [2, 4], dtype: 'float32' } }, device)
  const { y } = await program.run({ x: new Tensor('float32', new Float32Array(8), [2, 4]) }, { counts: { images: 2 } })
  is<Tensor | undefined>()(y)
  // @ts-expect-error symbolic values have no numbers
  forward(new Tensor('float32', new Float32Array(8), [2, 4]))
  // @ts-expect-error no such dtype
  compile(() => ({}), { x: { shape: [2], dtype: 'f32' } }, device)
}
