// What the CUDA kernels must do in a model: every call of one block and around it, at the shapes of well-known encoders, with the operations and bytes that
// no implementation can go without. docs/cuda-kernels.md shows the floors that follow; bench/cuda.cu measures the same calls.

export const peak = { flops: 790e12, bytes: 4.3e12 } // dense bf16 products and device memory of an H200, as measured

/** Sizes of the encoders. `patch` is absent for text. */
export const models = {
  'ViT-B/32': { tokens: 50, width: 768, heads: 12, hidden: 3072, layers: 12, side: 224, patch: 32, projection: 512 },
  'ViT-B/16': { tokens: 197, width: 768, heads: 12, hidden: 3072, layers: 12, side: 224, patch: 16, projection: 512 },
  'ViT-L/14': { tokens: 257, width: 1024, heads: 16, hidden: 4096, layers: 24, side: 224, patch: 14, projection: 768 },
  'CLIP text': { tokens: 77, width: 512, heads: 8, hidden: 2048, layers: 12, vocabulary: 49408, projection: 512 },
}

const sizes = { f32: 4, bf16: 2, u8: 1 }

function gemm(name, times, { rows, columns, inner, depth = inner, out = 'bf16', activation = 'none', residual = false, period = rows }) {
  const bytes = (rows * inner + columns * inner) * 2 + rows * columns * sizes[out] + columns * 4 + (residual ? Math.min(period, rows) * columns * 4 : 0)
  return { name, kernel: 'gemm_mma_kernel', times, flops: 2 * rows * columns * depth, bytes, call: { op: 'gemm', rows, columns, inner, out, activation, residual, period } }
}

function rowwise(name, kernel, times, { rows, columns, from, to, more = 0, op, ...rest }) {
  return { name, kernel, times, flops: 0, bytes: rows * columns * (sizes[from] + sizes[to]) + more, call: { op, rows, columns, from, to, ...rest } }
}

/**
 * The calls of one forward pass over `batch` items of a model, all tokens computed.
 * `times`: how often in the pass; flops and bytes: of one call, every input read once and every output written once; call: what bench/cuda.cu runs.
 */
export function callsOf(model, batch) {
  const { tokens, width, heads, hidden, layers, side, patch, projection, vocabulary } = models[model]
  const rows = batch * tokens
  const headSize = width / heads
  const causal = patch === undefined
  const pairs = causal ? (tokens * (tokens + 1)) / 2 : tokens * tokens
  const attention = {
    name: 'attention',
    kernel: 'attention_resident_kernel',
    times: layers,
    flops: 4 * pairs * headSize * heads * batch,
    bytes: 4 * rows * width * 2,
    call: { op: 'attention', sequences: batch, tokens, heads, headSize, causal },
  }
  const depth = patch && 3 * patch * patch
  const inner = patch && Math.ceil(depth / 64) * 64 // as rows of patches are padded
  const before = patch
    ? [
        {
          name: 'patches', kernel: 'patchify_bytes_kernel', times: 1, flops: 0, bytes: batch * side * side * 3 + rows * inner * 2,
          call: { op: 'patchify', pictures: batch, side, patch, inner },
        },
        gemm('patch projection', 1, { rows, columns: width, inner, depth, out: 'f32', residual: true, period: tokens }),
      ]
    : [
        rowwise('token embedding', 'gather_kernel', 1, { rows, columns: width, from: 'f32', to: 'f32', more: rows * 4, op: 'gather', table: vocabulary }),
        rowwise('add positions', 'binary_kernel', 1, { rows, columns: width, from: 'f32', to: 'f32', more: tokens * width * 4, op: 'add', period: tokens }),
      ]
  return [
    ...before,
    rowwise('layer norm', 'layer_norm_kernel', 2 * layers + 1, { rows, columns: width, from: 'f32', to: 'bf16', more: width * 8, op: 'layerNorm' }),
    gemm('q, k, v: each', 3 * layers, { rows, columns: width, inner: width }),
    attention,
    gemm('attention out', layers, { rows, columns: width, inner: width, out: 'f32', residual: true }),
    gemm('MLP in', layers, { rows, columns: hidden, inner: width, activation: 'quick_gelu' }),
    gemm('MLP out', layers, { rows, columns: width, inner: hidden, out: 'f32', residual: true }),
    rowwise('pooled token', 'pick_token_kernel', 1, { rows: batch, columns: width, from: 'f32', to: 'bf16', op: 'pickToken', tokens }),
    gemm('projection', 1, { rows: batch, columns: projection, inner: width, out: 'f32' }),
    rowwise('normalise', 'l2_normalize_kernel', 1, { rows: batch, columns: projection, from: 'f32', to: 'f32', op: 'l2Normalize' }),
  ]
}

/** Searches of the 10 nearest rows: of a corpus of a million bf16 vectors, for few and for many queries. */
export const searches = [1, 64, 1024].map((queries) => {
  const [rows, columns, k] = [1_000_000, 512, 10]
  return {
    name: `${queries} ${queries === 1 ? 'query' : 'queries'} of ${columns}, ${rows.toLocaleString('en')} rows`,
    kernel: 'scan_kernel',
    times: 1,
    flops: 2 * queries * rows * columns,
    bytes: (rows + queries) * columns * 2 + queries * k * 8,
    call: { op: 'topK', queries, rows, columns, k },
  }
})

/** Seconds that a call takes at least. */
export function floorOf({ flops, bytes }, { flops: rate, bytes: bandwidth } = peak) {
  return Math.max(flops / rate, bytes / bandwidth)
}

/**
 * Both attention kernels on the same calls, where lengths are known to the host and where they are cumulative: which is the quicker one, and what it costs to launch both.
 */
export function attentions(batch) {
  const shapes = [
    { of: 'ViT-B/32', tokens: 50, heads: 12 }, { of: 'CLIP text', tokens: 77, heads: 8, causal: true }, { of: 'BERT, packed', tokens: 20, heads: 12, packed: true },
    { of: 'BERT, packed', tokens: 128, heads: 12, packed: true }, { of: 'ViT-B/16', tokens: 197, heads: 12 }, { of: 'ViT-L/14', tokens: 257, heads: 16 },
    { of: 'ViT-H/14', tokens: 257, heads: 16, headSize: 80 }, { of: 'ViT-L/14@336', tokens: 577, heads: 16 },
  ]
  return shapes.flatMap(({ of, tokens, heads, headSize = 64, causal = false, packed = false }) =>
    ['attention', 'attentionRing'].map((op) => ({
      name: `${of}: ${tokens} tokens${op === 'attention' ? '' : ', ring'}`,
      kernel: op === 'attention' ? 'attention_resident_kernel' : 'attention_mma_kernel',
      times: 1,
      flops: 4 * (causal ? (tokens * (tokens + 1)) / 2 : tokens * tokens) * headSize * heads * batch,
      bytes: 4 * batch * tokens * heads * headSize * 2,
      call: { op, sequences: batch, tokens, heads, headSize, causal, packed },
    })),
  )
}

/** The calls as lines for bench/cuda.cu: `model<TAB>name<TAB>flops<TAB>bytes<TAB>op key=value…`. */
export function linesOf(batch, only = Object.keys(models)) {
  const all = [...only.map((model) => [model, callsOf(model, batch)]), ['attention', attentions(batch)], ['top-k', searches]]
  return all.flatMap(([model, calls]) =>
    calls.map(({ name, flops, bytes, call: { op, ...rest } }) => [model, name, flops, bytes, [op, ...Object.entries(rest).map(([key, value]) => `${key}=${Number.isNaN(Number(value)) ? value : Number(value)}`)].join(' ')].join('\t')),
  )
}
