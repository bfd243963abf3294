// attention: softmax(q·kᵀ·scale + bias)·v by sequence and head, without padding. The online softmax of Milakov and Gimelshein (2018), tiled as in
// FlashAttention-2 (Dao, 2023): a block takes some queries of one sequence and head and goes through the tiles of keys that they see, in order. Tiles are
// counted from the sequence's first key; those before a window or behind it are left out.
//
// Tensor cores (attention_mma_kernel; q, k, v all bf16 or all f16, heads of up to 128): four warps of 16 queries; 64 keys and values at a time in a ring of two stages, filled by
// cp.async while the other is used; scores, softmax and the products' a operand stay in registers. Heads are padded with zeros to 32, 64, 80, 96 or 128.
// Otherwise: float32 arithmetic on the ordinary cores, a lane to a key for the scores and to a column for the sums.
//
// Sequences whose keys and values fit into shared memory are attention_resident.cu's, which says which.
//
// A query's result depends on its own sequence and place only. Blocks find their sequence by searching the cumulative lengths: sequence s owns the tiles from
// begin(s) / TileQueries + s on, which is enough for it, and those it does not need do nothing.
#include "cuda/attention.cuh"

namespace chiasma::cuda {

namespace {

// --- Which queries and keys a block has ---

__device__ __forceinline__ int64_t begin_of(const Sequences& sequences, int64_t s) {
  return sequences.cumulative ? sequences.cumulative[s] : s * sequences.length;
}

template <int TileQueries>
__device__ __forceinline__ AttentionWork work_of_block(const Attention& a, const Resident& others) {
  if (blockIdx.x == 0) {
    // Where lengths fall, the search passes over sequences, which then have no block to say so.
    for (int64_t s = threadIdx.x; s < a.queries.count; s += blockDim.x) checked_span(a.queries, s, a.slot, 0, true);
  }
  const int64_t tile = static_cast<int64_t>(blockIdx.x) / a.heads;
  AttentionWork work{};
  work.head = static_cast<int>(blockIdx.x % a.heads);
  work.kv_head = work.head / static_cast<int>(a.heads / a.kv_heads);
  // The last sequence whose first tile is not behind this one; number `count` stands for the rows behind all sequences.
  int64_t low = 0, high = a.queries.count;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (begin_of(a.queries, middle) / TileQueries + middle <= tile) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  Sequence sequence{{0, 0}, {0, 0}};
  if (low == a.queries.count) {
    int64_t end = begin_of(a.queries, low);
    if (end < 0) end = 0;
    sequence.queries = {end, a.queries.rows > end ? a.queries.rows - end : 0};
    work.only_zeros = true;
  } else {
    sequence = checked_sequence(a, low, work.head == 0 && threadIdx.x == 0);
    if (others.has(sequence.keys.length)) return work;
  }
  const auto& [queries, keys] = sequence;
  const int64_t first = (tile - begin_of(a.queries, low) / TileQueries - low) * TileQueries;
  const int64_t left = first < 0 ? 0 : queries.length - first;
  work.query_row = queries.begin + first;
  work.key_row = keys.begin;
  work.first = static_cast<int>(first);
  work.count = static_cast<int>(left < 0 ? 0 : left < TileQueries ? left : TileQueries);
  work.queries = static_cast<int>(queries.length);
  work.keys = static_cast<int>(keys.length);
  return work;
}

__device__ __forceinline__ float load_number(const Rows& rows, int64_t at) {
  switch (rows.type) {
    case DType::bfloat16:
      return to_float(static_cast<const bf16*>(rows.data)[at]);
    case DType::float16:
      return to_float(static_cast<const f16*>(rows.data)[at]);
    default:
      return static_cast<const float*>(rows.data)[at];
  }
}

// --- Tensor cores ---

constexpr int warps = 4;
constexpr int threads = warps * warp_size;
constexpr int tile_queries = warps * 16;
constexpr int tile_keys = 64;

template <class T, int HeadSize>
__device__ __forceinline__ void start_rows(uint8_t* tile, int rows, const Rows& from, int64_t row, int count, int head, int head_size, int bytes, int thread, int threads) {
  switch (bytes) {
    case 16:
      return start_rows_by<T, HeadSize, 16>(tile, rows, from, row, count, head, head_size, thread, threads);
    case 8:
      return start_rows_by<T, HeadSize, 8>(tile, rows, from, row, count, head, head_size, thread, threads);
    case 4:
      return start_rows_by<T, HeadSize, 4>(tile, rows, from, row, count, head, head_size, thread, threads);
    default:
      return start_rows_by<T, HeadSize, 2>(tile, rows, from, row, count, head, head_size, thread, threads);
  }
}

// Whether the warp has a value that is infinite or NaN.
template <class T, int N>
__device__ __forceinline__ bool any_not_finite(const uint32_t (&values)[N][2]) {
  uint32_t bits = 0;
#pragma unroll
  for (int n = 0; n < N; ++n) bits |= not_finite<T>(values[n][0]) | not_finite<T>(values[n][1]);
  return __any_sync(full_warp, (bits & 0x80008000u) != 0);
}

// sums += weights · values of 16 keys, one key after the other and only for the queries that see it: a value that is not finite, times the weight 0 of a query
// that must not see it, would be NaN.
template <ptx::Product P, int N>
__device__ __forceinline__ void add_key_by_key(float (&sums)[1][N][4], const uint32_t (&weights)[4], const uint32_t (&values)[N][2], const Visible (&visible)[2],
                                               int first_key, int t) {
#pragma unroll 1
  for (int k = 0; k < 16; ++k) {
    // Key k is in the halves k % 2 of the registers k / 8 of the lanes whose t is k % 8 / 2.
    const uint32_t mine = t == k % 8 / 2 ? 0xffffu << k % 2 * 16 : 0u;
    const uint32_t low = k < 8 ? mine : 0u, high = k < 8 ? 0u : mine;
    const uint32_t one_weight[1][4] = {{weights[0] & low, weights[1] & low, weights[2] & high, weights[3] & high}};
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const uint32_t one_value[1][2] = {{values[n][0] & low, values[n][1] & high}};
      float products[1][1][4] = {};
      ptx::mma<P>(products, one_weight, one_value);
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[0][n][e] += visible[e / 2].has(first_key + k) ? products[0][0][e] : 0.0f;
    }
  }
}

template <class T, int HeadSize>
constexpr int attention_shared_bytes = (tile_queries + 4 * tile_keys) * HeadSize * 2;

// Blocks at once: one at least; for heads of 64 to 96 the compiler takes all registers under that bound, and spills some on sm_100 and sm_120: no bound.
template <class T, int HeadSize>
__global__ void __launch_bounds__(threads, HeadSize >= 64 && HeadSize <= 96 ? 0 : 1) attention_mma_kernel(Attention a, Access access, Resident others) {
  using Layout = Tile<HeadSize * 2 / unit_bytes>;
  constexpr int steps = HeadSize / 16, columns = HeadSize / 8, key_blocks = tile_keys / 8;
  constexpr int chunk = HeadSize == 32 || HeadSize == 128 ? 4 : 2, chunks = columns / chunk;  // of columns that are multiplied at a time; with four sm_100 spills for 64 and 96
  constexpr bool keeps_queries = HeadSize <= 64;  // in registers; else they are loaded for each tile of keys
  constexpr int tile_bytes = 64 * HeadSize * 2;
  constexpr ptx::Product product = product_of<T>;
  SMEM_DYN(shared, uint8_t);  // queries, then two stages of keys and values
  const int lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / warp_size;
  const int g = lane / 4, t = lane % 4;
  const int head_size = static_cast<int>(a.head_size);
  const AttentionWork work = work_of_block<tile_queries>(a, others);
  if (work.count == 0) return;
  if (work.only_zeros) {
    for (int at = static_cast<int>(threadIdx.x); at < work.count * head_size; at += threads) {
      store_number(a.out, (work.query_row + at / head_size) * a.out.stride + static_cast<int64_t>(work.head) * head_size + at % head_size, 0.0f);
    }
    return;
  }

  const int first_tile = visible_keys(a, work, work.first).begin / tile_keys;
  const int key_tiles = (visible_keys(a, work, work.first + work.count - 1).end + tile_keys - 1) / tile_keys;
  const auto start_stage = [&](int key_tile) {
    if (key_tile < key_tiles) {
      uint8_t* const stage = shared + tile_bytes + key_tile % 2 * 2 * tile_bytes;
      const int64_t row = work.key_row + key_tile * tile_keys;
      const int left = work.keys - key_tile * tile_keys;
      const int count = left < tile_keys ? left : tile_keys;
      start_rows<T, HeadSize>(stage, tile_keys, a.k, row, count, work.kv_head, head_size, access.k, static_cast<int>(threadIdx.x), threads);
      start_rows<T, HeadSize>(stage + tile_bytes, tile_keys, a.v, row, count, work.kv_head, head_size, access.v, static_cast<int>(threadIdx.x), threads);
    }
    ptx::cp_async_commit();
  };
  start_rows<T, HeadSize>(shared, tile_queries, a.q, work.query_row, work.count, work.head, head_size, access.q, static_cast<int>(threadIdx.x), threads);
  start_stage(first_tile);

  // This lane's two queries are rows g and g + 8 of its warp's.
  const int query = work.first + warp * 16 + g;
  const Visible visible[2] = {visible_keys(a, work, query), visible_keys(a, work, query + 8)};
  const float scale = a.scale * log2e;
  float largest[2] = {-INFINITY, -INFINITY}, weights[2] = {0, 0};
  float sums[chunks][1][chunk][4];
#pragma unroll
  for (int n = 0; n < columns; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[n / chunk][0][n % chunk][e] = 0;
  }
  uint32_t q_part[keeps_queries ? steps : 1][1][4];
  ptx::poison(q_part);

  for (int key_tile = first_tile; key_tile < key_tiles; ++key_tile) {
    start_stage(key_tile + 1);
    ptx::cp_async_wait<1>();
    __syncthreads();
    const uint32_t k_tile = ptx::shared_address(shared + tile_bytes + key_tile % 2 * 2 * tile_bytes);
    const uint32_t v_tile = k_tile + tile_bytes;
    const uint32_t q_tile = ptx::shared_address(shared);
    if (keeps_queries && key_tile == first_tile) {
#pragma unroll
      for (int step = 0; step < steps; ++step) Layout::load_a(q_part[keeps_queries ? step : 0][0], q_tile, warp * 16, step * 2, lane);
    }

    float scores[1][key_blocks][4];
#pragma unroll
    for (int j = 0; j < key_blocks; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) scores[0][j][e] = 0;
    }
    // 8 are all: without the number the compiler takes every register for heads of 96 on sm_120, and spills some.
#pragma unroll 8
    for (int step = 0; step < steps; ++step) {
      uint32_t k_part[key_blocks][2];
#pragma unroll
      for (int j = 0; j < key_blocks; j += 2) Layout::load_b(k_part[j], k_part[j + 1], k_tile, j * 8, step * 2, lane);
      if constexpr (!keeps_queries) Layout::load_a(q_part[0][0], q_tile, warp * 16, step * 2, lane);
      ptx::mma<product>(scores, q_part[keeps_queries ? step : 0], k_part);
    }

    // In powers of two; a key that is not seen takes no part in maximum or sum.
    float new_largest[2] = {largest[0], largest[1]};
#pragma unroll
    for (int j = 0; j < key_blocks; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int key = key_tile * tile_keys + j * 8 + t * 2 + e % 2;
        float& score = scores[0][j][e];
        score *= scale;
        if (!visible[e / 2].has(key)) continue;
        if (a.bias && query + e / 2 * 8 < work.queries) {
          score += log2e * a.bias[(key - query - e / 2 * 8 + a.longest - 1) * a.bias_stride + work.head];
        }
        new_largest[e / 2] = fmaxf(new_largest[e / 2], score);
      }
    }
    float shrink[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      new_largest[r] = fmaxf(new_largest[r], __shfl_xor_sync(full_warp, new_largest[r], 1));
      new_largest[r] = fmaxf(new_largest[r], __shfl_xor_sync(full_warp, new_largest[r], 2));
      shrink[r] = new_largest[r] == largest[r] ? 1.0f : ptx::ex2(largest[r] - new_largest[r]);
      largest[r] = new_largest[r];
      weights[r] *= shrink[r];
    }
#pragma unroll
    for (int j = 0; j < key_blocks; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int key = key_tile * tile_keys + j * 8 + t * 2 + e % 2;
        float& score = scores[0][j][e];
        score = visible[e / 2].has(key) ? ptx::ex2(score - largest[e / 2]) : 0.0f;
        weights[e / 2] += score;
      }
    }
#pragma unroll
    for (int n = 0; n < columns; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[n / chunk][0][n % chunk][e] *= shrink[e / 2];
    }

#pragma unroll
    for (int step = 0; step < tile_keys / 16; ++step) {
      uint32_t p_part[1][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        p_part[0][half * 2] = pack2<T>(scores[0][step * 2 + half][0], scores[0][step * 2 + half][1]);
        p_part[0][half * 2 + 1] = pack2<T>(scores[0][step * 2 + half][2], scores[0][step * 2 + half][3]);
      }
#pragma unroll
      for (int c = 0; c < chunks; ++c) {
        uint32_t v_part[chunk][2];
#pragma unroll
        for (int n = 0; n < chunk; n += 2) Layout::load_b_transposed(v_part[n], v_part[n + 1], v_tile, step * 16, c * chunk + n, lane);
        if ((a.causal || a.window >= 0) && any_not_finite<T>(v_part)) {
          add_key_by_key<product>(sums[c], p_part[0], v_part, visible, key_tile * tile_keys + step * 16, t);
        } else {
          ptx::mma<product>(sums[c], p_part, v_part);
        }
      }
    }
    __syncthreads();  // the stage is filled again next
  }

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    weights[r] += __shfl_xor_sync(full_warp, weights[r], 1);
    weights[r] += __shfl_xor_sync(full_warp, weights[r], 2);
    const float factor = inverse_sum(weights[r], visible[r]);
#pragma unroll
    for (int n = 0; n < columns; ++n) {
      for (int e = 2 * r; e < 2 * r + 2; ++e) {
        float& sum = sums[n / chunk][0][n % chunk][e];
        sum = visible[r].none() ? 0.0f : sum * factor;
      }
    }
  }
  const int64_t out_column = static_cast<int64_t>(work.head) * head_size;
  if (access.out_vectors) {
    // Through the queries' tile, of which a warp uses its own rows, so that 16 bytes are written at a time.
    ptx::cp_async_wait<0>();
    __syncthreads();  // where there is no key, nobody has waited for the queries
#pragma unroll
    for (int n = 0; n < columns; ++n) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        *reinterpret_cast<uint32_t*>(shared + Layout::offset(warp * 16 + g + 8 * r, n) + t * 4) = 
            pack2<T>(sums[n / chunk][0][n % chunk][2 * r], sums[n / chunk][0][n % chunk][2 * r + 1]);
      }
    }
    __syncwarp();
    for (int at = lane; at < 16 * columns; at += warp_size) {
      const int row = warp * 16 + at / columns, unit = at % columns;
      if (row >= work.count || unit * 8 >= head_size) continue;
      T* const to = static_cast<T*>(a.out.data) + (work.query_row + row) * a.out.stride + out_column + unit * 8;
      *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(shared + Layout::offset(row, unit));
    }
    return;
  }
#pragma unroll
  for (int n = 0; n < columns; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = warp * 16 + g + e / 2 * 8, column = n * 8 + t * 2 + e % 2;
      if (row < work.count && column < head_size) store_number(a.out, (work.query_row + row) * a.out.stride + out_column + column, sums[n / chunk][0][n % chunk][e]);
    }
  }
}

// --- Ordinary cores ---

constexpr int float_queries = 16, float_keys = warp_size, queries_of_warp = float_queries / warps;

constexpr int float_shared_bytes(int head_size) { return (float_queries * head_size + float_keys * (head_size + 1) + float_keys * head_size) * 4; }

// `Parts` · 32 columns at least.
template <int Parts>
__global__ void __launch_bounds__(threads, 1) attention_float_kernel(Attention a) {
  SMEM_DYN(shared, float);
  const int head_size = static_cast<int>(a.head_size);
  float* const q_tile = shared;                                    // [float_queries, head_size]
  float* const k_tile = q_tile + float_queries * head_size;        // [float_keys, head_size + 1]: lanes read down a column
  float* const v_tile = k_tile + float_keys * (head_size + 1);     // [float_keys, head_size]
  const int lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / warp_size;
  const AttentionWork work = work_of_block<float_queries>(a, Resident{});
  if (work.count == 0) return;
  const int64_t column = static_cast<int64_t>(work.head) * head_size, kv_column = static_cast<int64_t>(work.kv_head) * head_size;

  float largest[queries_of_warp], weights[queries_of_warp], sums[queries_of_warp][Parts];
  Visible visible[queries_of_warp];
#pragma unroll
  for (int r = 0; r < queries_of_warp; ++r) {
    largest[r] = -INFINITY;
    weights[r] = 0;
    const int row = warp * queries_of_warp + r;
    visible[r] = work.only_zeros || row >= work.count ? Visible{0, 0} : visible_keys(a, work, work.first + row);
#pragma unroll
    for (int i = 0; i < Parts; ++i) sums[r][i] = 0;
  }
  const Visible any = work.only_zeros ? Visible{0, 0} : Visible{visible_keys(a, work, work.first).begin, visible_keys(a, work, work.first + work.count - 1).end};
  for (int at = static_cast<int>(threadIdx.x); at < work.count * head_size && !any.none(); at += threads) {
    q_tile[at] = load_number(a.q, (work.query_row + at / head_size) * a.q.stride + column + at % head_size);
  }

  for (int first_key = any.begin / float_keys * float_keys; first_key < any.end; first_key += float_keys) {
    const int count = work.keys - first_key < float_keys ? work.keys - first_key : float_keys;
    __syncthreads();
    for (int at = static_cast<int>(threadIdx.x); at < count * head_size; at += threads) {
      const int64_t row = work.key_row + first_key + at / head_size;
      k_tile[at / head_size * (head_size + 1) + at % head_size] = load_number(a.k, row * a.k.stride + kv_column + at % head_size);
      v_tile[at] = load_number(a.v, row * a.v.stride + kv_column + at % head_size);
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < queries_of_warp; ++r) {
      const int row = warp * queries_of_warp + r, key = first_key + lane;
      const int seen = visible[r].end - first_key < count ? visible[r].end - first_key : count;
      const int first_seen = visible[r].begin > first_key ? visible[r].begin - first_key : 0;
      if (first_seen >= seen) continue;
      const bool sees = lane >= first_seen && lane < seen;
      float score = 0;
      if (sees) {
        for (int d = 0; d < head_size; ++d) score = fmaf(q_tile[row * head_size + d], k_tile[lane * (head_size + 1) + d], score);
        score *= a.scale;
        if (a.bias) score += a.bias[(key - work.first - row + a.longest - 1) * a.bias_stride + work.head];
      }
      const float new_largest = fmaxf(largest[r], warp_max(sees ? score : -INFINITY));
      const float shrink = new_largest == largest[r] ? 1.0f : expf(largest[r] - new_largest);
      largest[r] = new_largest;
      const float weight = sees ? expf(score - new_largest) : 0.0f;
      weights[r] = weights[r] * shrink + weight;
#pragma unroll
      for (int i = 0; i < Parts; ++i) sums[r][i] *= shrink;
      for (int j = first_seen; j < seen; ++j) {
        const float one = __shfl_sync(full_warp, weight, j);
#pragma unroll
        for (int i = 0; i < Parts; ++i) {
          const int d = lane + i * warp_size;
          if (d < head_size) sums[r][i] = fmaf(one, v_tile[j * head_size + d], sums[r][i]);
        }
      }
    }
  }
#pragma unroll
  for (int r = 0; r < queries_of_warp; ++r) {
    const int row = warp * queries_of_warp + r;
    if (row >= work.count) continue;
    const float factor = inverse_sum(warp_sum(weights[r]), visible[r]);
#pragma unroll
    for (int i = 0; i < Parts; ++i) {
      const int d = lane + i * warp_size;
      if (d < head_size) store_number(a.out, (work.query_row + row) * a.out.stride + column + d, visible[r].none() ? 0.0f : sums[r][i] * factor);
    }
  }
}

// --- Launchers ---

constexpr int64_t longest_sequence = 1 << 30;  // kernels count in a sequence with int

template <int TileQueries>
dim3 grid_of_tiles(const Attention& a) {
  return grid_of((a.queries.rows / TileQueries + a.queries.count + 1) * a.heads);
}

template <class T, int HeadSize>
cudaError_t launch_mma(const Attention& a, const Access& access, const Resident& others, cudaStream_t stream) {
  return LAUNCH((attention_mma_kernel<T, HeadSize>), grid_of_tiles<tile_queries>(a), threads, (attention_shared_bytes<T, HeadSize>), stream, a, access, others);
}

template <class T>
cudaError_t launch_mma_padded(const Attention& a, const Access& access, const Resident& others, cudaStream_t stream) {
  if (a.head_size <= 32) return launch_mma<T, 32>(a, access, others, stream);
  if (a.head_size <= 64) return launch_mma<T, 64>(a, access, others, stream);
  if (a.head_size <= 80) return launch_mma<T, 80>(a, access, others, stream);
  if (a.head_size <= 96) return launch_mma<T, 96>(a, access, others, stream);
  return launch_mma<T, 128>(a, access, others, stream);
}

template <int Parts>
cudaError_t launch_float(const Attention& a, cudaStream_t stream) {
  return LAUNCH((attention_float_kernel<Parts>), grid_of_tiles<float_queries>(a), threads, float_shared_bytes(static_cast<int>(a.head_size)), stream, a);
}

cudaError_t launch_ring(const Attention& a, const Access& access, const Resident& others, cudaStream_t stream) {
  return a.q.type == DType::bfloat16 ? launch_mma_padded<bf16>(a, access, others, stream) : launch_mma_padded<f16>(a, access, others, stream);
}

bool on_tensor_cores(const Attention& a) {
  return a.q.type != DType::float32 && a.q.type == a.k.type && a.q.type == a.v.type && a.head_size <= max_mma_head_size;
}

Access access_of(const Attention& a) {
  return {access_of(a.q, a.head_size), access_of(a.k, a.head_size), access_of(a.v, a.head_size), a.out.type == a.q.type && access_of(a.out, a.head_size) == 16};
}

// Whether none of the rows of out is left to the ring.
bool takes_all(const Resident& residents, const Attention& a) {
  return !a.queries.cumulative && !a.keys.cumulative && residents.has(a.keys.length) && a.queries.rows == a.queries.count * a.queries.length;
}

}  // namespace

cudaError_t launch_attention_ring(const Attention& a, cudaStream_t stream) {
  return on_tensor_cores(a) && a.queries.rows > 0 ? launch_ring(a, access_of(a), Resident{}, stream) : cudaErrorInvalidValue;
}

cudaError_t launch_attention(const Attention& a, cudaStream_t stream) {
  if (a.queries.rows == 0 || a.head_size < 1) return cudaSuccess;
  if (a.head_size > max_head_size || a.queries.length > longest_sequence || a.keys.length > longest_sequence) return cudaErrorInvalidValue;
  if (on_tensor_cores(a)) {
    const Access access = access_of(a);
    const Resident residents = residents_of(a, access);
    const cudaError_t error = residents.keys >= 0 ? launch_attention_resident(a, residents, stream) : cudaSuccess;
    return error != cudaSuccess || takes_all(residents, a) ? error : launch_ring(a, access, residents, stream);
  }
  if (a.head_size <= 32) return launch_float<1>(a, stream);
  if (a.head_size <= 64) return launch_float<2>(a, stream);
  if (a.head_size <= 128) return launch_float<4>(a, stream);
  return launch_float<8>(a, stream);
}

}  // namespace chiasma::cuda
