// The lines of the comparison, in stages that run one after the other; each stage holds the machine for three minutes at most.

import { join } from 'node:path'
import { captions, captionFile, photoFolder, pixelFile, vectorFile } from './data.mjs'

/** Operations of ViT-B/32 for a picture; chiasma computes the last block for the class token alone. */
const IMAGE = 8.82e9
const IMAGE_PRUNED = 8.2e9
/** Operations for a token: 24 a layer and square of the width, without attention. MiniLM and CLIP's text tower. */
const MINILM_TOKEN = 6 * 24 * 384 ** 2
const CAPTION_TOKEN = 12 * 24 * 512 ** 2
const STS_TOKENS = 14

const chiasma = (task, dtype, job, rest) => ({ name: 'chiasma', own: true, dtype, program: 'chiasma.mjs', job: { task, dtype, ...job }, ...rest })
const peer = (name, needs, program, task, dtype, job, rest) => ({ name, needs, dtype, program, job: { task, dtype, ...job }, ...rest })

export function stages({ shared, models, data, threads, quick, amx }) {
  const clip = join(models, 'clip-vit-base-patch32')
  const minilm = join(models, 'all-minilm-l6-v2')
  const onnx = (folder, name) => join(folder, 'onnx', name)
  const pixels = pixelFile(data)
  const onnxruntime = (task, dtype, job) => peer('onnxruntime-node', 'onnxruntime-node', 'onnxruntime.mjs', task, dtype, job)
  const openvino = (task, dtype, folder, name, job, rest) => {
    const ir = onnx(folder, `${name}${dtype === 'int8' ? '-int8' : ''}.xml`)
    const label = `OpenVINO${job.streams === 2 ? ', 2 streams' : ''}${rest?.label ?? ''}`
    return peer(label, 'openvino', 'openvino_peer.py', task, dtype, { ir, threads, ...job }, rest)
  }
  const torch = (name, needs, task, dtype, job) => peer(name, needs, 'torch_peer.py', task, dtype, { threads, ...job })

  const image = batch => {
    const job = { batch, file: pixels }
    const streams = batch > 1 ? [1, 2] : [1]
    const tower = dtype => ({
      name: `image-b${batch}-${dtype}`,
      section: 'image',
      title: `ViT-B/32 image tower, batches of ${batch}, ${dtype}`,
      unit: 'images/s',
      operations: IMAGE,
      reference: 'onnxruntime-node f32',
      contenders: [
        chiasma('image', dtype, { ...job, model: clip }, { operations: IMAGE_PRUNED }),
        onnxruntime('image', 'f32', { ...job, onnx: onnx(clip, 'vision_model.onnx') }),
        ...(dtype === 'int8' ? [onnxruntime('image', 'int8', { ...job, onnx: onnx(clip, 'vision_model_quantized.onnx') })] : []),
        ...streams.map(count => openvino('image', dtype, clip, 'vision_model', { ...job, streams: count })),
        ...(dtype === 'bf16' ? [torch('PyTorch, compiled', 'torch', 'image', 'bf16', { ...job, model: clip })] : []),
        ...(amx && dtype !== 'f32'
          ? [
              chiasma('image', dtype, { ...job, model: clip, isa: 'avx512_bf16' }, { operations: IMAGE_PRUNED, name: 'chiasma without AMX', vectors: true }),
              openvino('image', dtype, clip, 'vision_model', { ...job }, { env: { ONEDNN_MAX_CPU_ISA: 'AVX512_CORE_BF16' }, label: ' without AMX', vectors: true }),
            ]
          : []),
      ],
    })
    return ['f32', 'bf16', 'int8'].map(tower)
  }

  const sts = { file: join(shared, 'data/sts/dev.jsonl'), parts: 4, model: minilm }
  const sentences = (name, contenders) => ({
    name,
    section: 'text',
    title: `MiniLM-L6 on the sentences of the STS benchmark, ${name === 'sentences-f32' ? 'f32' : 'bf16 and int8'}`,
    unit: 'texts/s',
    operations: STS_TOKENS * MINILM_TOKEN,
    reference: 'sentence-transformers f32',
    contenders,
  })
  const tjs = (task, dtype, job, label = '') => peer(`transformers.js${label}`, '@huggingface/transformers', 'transformers-js.mjs', task, dtype, job)
  const captionsAt = { file: captionFile(data) }
  const tokens = captions(captionsAt.file).map(ids => ids.length)
  const meanTokens = tokens.reduce((a, b) => a + b) / tokens.length

  /** Photos of a round; the next round takes the next ones. */
  const count = quick ? 32 : 96
  const folder = { folder: photoFolder(data, join(shared, 'data/photos'), 2016), model: clip }

  const dimensions = 512
  const rows = 100_000
  const vectors = { corpus: vectorFile(data, rows, dimensions, 3), queries: vectorFile(data, 512, dimensions, 4), dimensions, threads }
  const search = (count, dtype) => {
    const job = { ...vectors, count }
    return {
      name: `search-${count}-${dtype}`,
      section: 'search',
      title: `The 10 nearest of 100,000 × 512, ${count} ${count === 1 ? 'query' : 'queries at once'}, ${dtype}`,
      unit: 'queries/s',
      ...(count === 1 ? { bytes: rows * dimensions * { f32: 4, bf16: 2, int8: 1 }[dtype] } : { operations: 2 * rows * dimensions }),
      indices: true,
      reference: 'FAISS f32',
      contenders: [
        chiasma('search', dtype, job),
        peer('FAISS', 'faiss-cpu', 'faiss_peer.py', 'search', 'f32', job),
        ...(dtype === 'f32' ? [] : [peer('FAISS', 'faiss-cpu', 'faiss_peer.py', 'search', dtype, job)]),
        ...(dtype === 'bf16' ? [] : [peer('usearch', 'usearch', 'usearch.mjs', 'search', dtype, job)]),
        torch(dtype === 'int8' ? 'torch._int_mm + topk' : 'torch matmul + topk', 'torch', 'search', dtype, job),
      ],
    }
  }

  return [
    ...image(1),
    ...image(32),
    sentences('sentences-f32', [
      chiasma('sentences', 'f32', sts),
      torch('sentence-transformers', 'sentence-transformers', 'sentences', 'f32', sts),
      tjs('sentences', 'f32', { ...sts, dtype: 'fp32', sorted: true }, ', sorted'),
      openvino('sentences', 'f32', minilm, 'model', { ...sts, streams: 2 }),
    ]),
    sentences('sentences-reduced', [
      chiasma('sentences', 'bf16', sts),
      chiasma('sentences', 'int8', sts),
      torch('sentence-transformers', 'sentence-transformers', 'sentences', 'bf16', sts),
      torch('sentence-transformers', 'sentence-transformers', 'sentences', 'f32', sts),
      tjs('sentences', 'int8', { ...sts, dtype: 'q8', sorted: true }, ' q8, sorted'),
      tjs('sentences', 'int8', { ...sts, dtype: 'q8' }, ' q8, as given'),
      openvino('sentences', 'bf16', minilm, 'model', { ...sts, streams: 2 }),
      openvino('sentences', 'int8', minilm, 'model', { ...sts, streams: 2 }),
    ]),
    {
      name: 'captions',
      section: 'text',
      title: 'CLIP text tower on captions of 5 to 40 tokens, batches of 32',
      unit: 'texts/s',
      operations: meanTokens * CAPTION_TOKEN,
      reference: 'onnxruntime-node f32',
      contenders: [
        ...['f32', 'bf16', 'int8'].map(dtype => chiasma('captions', dtype, { ...captionsAt, model: clip })),
        onnxruntime('captions', 'f32', { ...captionsAt, onnx: onnx(clip, 'text_model.onnx') }),
        onnxruntime('captions', 'int8', { ...captionsAt, onnx: onnx(clip, 'text_model_quantized.onnx') }),
        ...['f32', 'bf16', 'int8'].flatMap(dtype => [1, 2].map(streams => openvino('captions', dtype, clip, 'text_model', { ...captionsAt, streams }))),
      ],
    },
    {
      name: 'folder-alone',
      section: 'folder',
      title: `JPEG photos to embeddings, other ${count} each round, beside their decoding and the tower alone`,
      unit: 'images/s',
      parts: true,
      contenders: [
        chiasma('folder', 'bf16', { ...folder, count, outputs: false }),
        chiasma('decode', 'bf16', { ...folder, count, outputs: false }, { name: 'decoding and preprocessing alone' }),
        chiasma('tower', 'bf16', { ...folder, count, outputs: false }, { name: 'tower alone' }),
      ],
    },
    {
      name: 'folder-peers',
      section: 'folder',
      title: 'JPEG photos to embeddings, 96 a round',
      unit: 'images/s',
      reference: 'transformers.js f32',
      leastCosine: 0.95, // its resize is another one than Pillow's
      contenders: [
        chiasma('folder', 'f32', { ...folder, count: 96 }),
        chiasma('folder', 'bf16', { ...folder, count: 96 }),
        chiasma('folder', 'int8', { ...folder, count: 96 }),
        tjs('folder', 'f32', { ...folder, count: 96, dtype: 'fp32' }),
        tjs('folder', 'int8', { ...folder, count: 96, dtype: 'q8' }, ' q8'),
      ],
    },
    ...[1, 64, 512].flatMap(count => ['f32', 'bf16', 'int8'].map(dtype => search(count, dtype))),
  ]
}
