// attention on tensor cores with all keys and values of a sequence and head in shared memory, where attention.cu has a ring of a few. They are loaded once
// for many queries, and nothing waits for them any more after the first barrier: each warp goes through tiles of 16 queries on its own.
//
// Up to 128 keys, and up to 256 or 288 where the host knows the length and heads are at most 64 wide, a warp has the scores of whole rows in registers: one maximum,
// one sum, nothing is scaled again. Sequences of up to 64 keys share a block with other heads of theirs, so that its warps have work. Longer
// sequences that fit into shared memory take their scores 64 keys at a time, as attention.cu does. Biases and addresses that are no multiples of 16 bytes, which few models have, are left to attention.cu as well: they would
// cost every sequence registers.
//
// Which kernel a sequence gets is decided by its own number of keys and by what all sequences have in common: types, head size, and whether lengths are
// cumulative. Those are on the device, and a block's memory is what the longest would need: of them, sequences of up to 128 keys are taken here, and
// attention.cu's kernel is launched for the others. A query's result does not depend on the heads or tiles that a block has, so these are chosen by the batch and the GPU.
#include "cuda/attention.cuh"

namespace chiasma::cuda {

namespace {

// --- What a block has ---

constexpr int64_t short_keys = 128;
// Whose scores are in registers together, as those allow.
constexpr int row_keys(int head_size) { return head_size <= 32 ? 256 : head_size <= 64 ? 288 : short_keys; }
constexpr int long_keys = 64;               // whose scores are in registers at a time
constexpr int short_warps = 4;
constexpr int long_warps(int head_size) { return head_size <= 64 ? 12 : 8; }  // as registers allow

// Rows of a tile of keys: 32 are multiplied at a time.
__host__ __device__ __forceinline__ int64_t tile_rows(int64_t keys) { return round_up(keys, 32); }

// Heads of a block: up to four whose keys have room in the place of 128.
__host__ __device__ __forceinline__ int64_t heads_together(int64_t tile_rows) { return tile_rows <= 32 ? 4 : tile_rows <= 64 ? 2 : 1; }

// Lanes 4g to 4g + 3 have a matrix of 4×4 words, lane t row t; they get its columns.
__device__ __forceinline__ void transpose_quad(uint32_t (&words)[4], int t) {
#pragma unroll
  for (int distance = 1; distance <= 2; distance *= 2) {
    const bool odd = (t & distance) != 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & distance) continue;
      const uint32_t other = __shfl_xor_sync(full_warp, odd ? words[i] : words[i + distance], distance);
      (odd ? words[i] : words[i + distance]) = other;
    }
  }
}

// --- The kernel ---

// Blocks at once. Two of short sequences fill the shared memory of sm_120, where registers for three do not suffice.
constexpr int blocks_at_once(int head_size, int keys, bool once) { return !once ? 1 : keys <= short_keys && head_size <= 64 && architecture != 1200 ? 3 : 2; }

// Once: at most Keys keys, whose scores are in registers together. Block: `parts` parts of a sequence's tiles of queries, head, sequence.
template <class T, int HeadSize, int Keys, int Warps, bool Once>
__global__ void __launch_bounds__(Warps * warp_size, blocks_at_once(HeadSize, Keys, Once))
    attention_resident_kernel(Attention a, Resident takes, int parts) {
  using Layout = Tile<HeadSize * 2 / unit_bytes>;
  constexpr int threads = Warps * warp_size;
  constexpr int steps = HeadSize / 16, columns = HeadSize / 8, key_steps = Keys / 16;
  constexpr int chunk = columns % 4 == 0 ? 4 : 2, chunks = columns / chunk;  // of columns that are multiplied at a time
  constexpr int row_bytes = HeadSize * 2;
  constexpr ptx::Product product = product_of<T>;
  static_assert(key_steps % 2 == 0);
  SMEM_DYN(shared, uint8_t);  // a tile of queries for each warp, keys and values of each head, whether some value is not finite
  const int lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / warp_size;
  const int g = lane / 4, t = lane % 4;
  const int head_size = static_cast<int>(a.head_size);

  const int part = static_cast<int>(blockIdx.x % parts), head = static_cast<int>(blockIdx.x / parts % a.heads);
  const int64_t s = static_cast<int64_t>(blockIdx.x / parts / a.heads);
  const Sequence sequence = checked_sequence(a, s, head == 0 && part == 0 && threadIdx.x == 0);
  if (!takes.has(sequence.keys.length)) return;
  AttentionWork work{};
  work.query_row = sequence.queries.begin;
  work.key_row = sequence.keys.begin;
  work.queries = static_cast<int>(sequence.queries.length);
  work.keys = static_cast<int>(sequence.keys.length);
  const int key_rows = static_cast<int>(tile_rows(work.keys));
  const int together = static_cast<int>(heads_together(key_rows));
  if (head % together != 0) return;
  const int heads = static_cast<int>(a.heads) - head < together ? static_cast<int>(a.heads) - head : together;
  const int group = static_cast<int>(a.heads / a.kv_heads);  // of heads that share keys and values
  const int tiles = (work.queries + 15) / 16;
  const int first_tile = static_cast<int>(static_cast<int64_t>(part) * tiles / parts);
  const int part_tiles = static_cast<int>(static_cast<int64_t>(part + 1) * tiles / parts) - first_tile;
  const int units = heads * part_tiles;  // a head's tile of queries each
  if (units == 0) return;

  uint8_t* const q_rows = shared + warp * 16 * row_bytes;
  const auto keys_of = [&](int h) { return shared + Warps * 16 * row_bytes + h * 2 * key_rows * row_bytes; };
  const auto first_query = [&](int unit) { return (first_tile + unit % part_tiles) * 16; };
  const auto start_queries = [&](int unit) {
    const int first = first_query(unit), left = work.queries - first;
    start_rows_by<T, HeadSize, unit_bytes>(q_rows, 16, a.q, work.query_row + first, left < 16 ? left : 16, head + unit / part_tiles, head_size, lane, warp_size);
    ptx::cp_async_commit();
  };
  const int end_query = (first_tile + part_tiles) * 16 < work.queries ? (first_tile + part_tiles) * 16 : work.queries;
  const int seen = visible_keys(a, work, end_query - 1).end;
  for (int h = 0; h < heads; ++h) {
    const int kv_head = (head + h) / group, rows = static_cast<int>(tile_rows(seen));
    start_rows_by<T, HeadSize, unit_bytes>(keys_of(h), rows, a.k, work.key_row, seen, kv_head, head_size, static_cast<int>(threadIdx.x), threads);
    start_rows_by<T, HeadSize, unit_bytes>(keys_of(h) + key_rows * row_bytes, rows, a.v, work.key_row, seen, kv_head, head_size, static_cast<int>(threadIdx.x), threads);
  }
  if (warp < units) start_queries(warp);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  // A value that is not finite would come as NaN, by the weight 0, to a query that must not see it: it is taken out here, and added where it is seen.
  const bool some_see_less = a.causal || a.window >= 0;
  int* const found = reinterpret_cast<int*>(keys_of(heads));
  if (some_see_less && threadIdx.x == 0) *found = 0;
  __syncthreads();
  if (some_see_less) {
    for (int h = 0; h < heads; ++h) {
      uint32_t* const values = reinterpret_cast<uint32_t*>(keys_of(h) + key_rows * row_bytes);
      for (int at = static_cast<int>(threadIdx.x); at < static_cast<int>(tile_rows(seen)) * (row_bytes / 4); at += threads) {
        const uint32_t bits = not_finite<T>(values[at]);
        if ((bits & 0x80008000u) == 0) continue;
        values[at] &= ((bits & 0x8000u) ? 0u : 0xffffu) | ((bits & 0x80000000u) ? 0u : 0xffff0000u);
        atomicOr(found, 1);
      }
    }
    __syncthreads();
  }

  for (int unit = warp; unit < units; unit += Warps) {
    ptx::cp_async_wait<0>();
    __syncwarp();
    const uint32_t q_tile = ptx::shared_address(q_rows), k_tile = ptx::shared_address(keys_of(unit / part_tiles)), v_tile = k_tile + key_rows * row_bytes;
    const int own_head = head + unit / part_tiles, first = first_query(unit);
    const int count = work.queries - first < 16 ? work.queries - first : 16;
    uint32_t q_part[steps][1][4];
#pragma unroll
    for (int step = 0; step < steps; ++step) Layout::load_a(q_part[step][0], q_tile, 0, step * 2, lane);
    __syncwarp();
    if (unit + Warps < units) start_queries(unit + Warps);  // on their way while this unit is computed

    // This lane's two queries are rows g and g + 8 of the tile. Keys that some query sees, and those that all see.
    const Visible visible[2] = {visible_keys(a, work, first + g), visible_keys(a, work, first + g + 8)};
    const Visible top = visible_keys(a, work, first), bottom = visible_keys(a, work, first + count - 1);
    const int some_begin = top.begin, some_end = bottom.end, all_begin = bottom.begin, all_end = top.end;

    const float scale = a.scale * log2e;
    float largest[2] = {-INFINITY, -INFINITY}, weights[2] = {0, 0};
    float sums[chunks][1][chunk][4];
#pragma unroll
    for (int n = 0; n < columns; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[n / chunk][0][n % chunk][e] = 0;
    }

    int first_key = Once ? 0 : some_begin / Keys * Keys;
    do {
      // Steps of 16 keys: [begin_step, end_step) have some that are seen.
      const int begin_step = some_begin > first_key ? (some_begin - first_key) / 16 : 0;
      const int end_step = some_end - first_key < Keys ? (some_end - first_key + 15) / 16 : key_steps;
      float scores[key_steps][1][2][4];
#pragma unroll
      for (int i = 0; i < key_steps; ++i) {
#pragma unroll
        for (int e = 0; e < 8; ++e) scores[i][0][e / 4][e % 4] = 0;
      }
#pragma unroll
      for (int i = 0; i < key_steps; i += 2) {
        if (i >= end_step || i + 2 <= begin_step) continue;
#pragma unroll
        for (int step = 0; step < steps; ++step) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            uint32_t k_part[2][2];
            Layout::load_b(k_part[0], k_part[1], k_tile + first_key * row_bytes, (i + half) * 16, step * 2, lane);
            ptx::mma<product>(scores[i + half], q_part[step], k_part);
          }
        }
      }

      float new_largest[2] = {largest[0], largest[1]};
#pragma unroll
      for (int i = 0; i < key_steps; ++i) {
        if (i >= end_step || i < begin_step) continue;
        const int step_key = first_key + i * 16;
        if (step_key < all_begin || step_key + 16 > all_end) {
#pragma unroll
          for (int e = 0; e < 8; ++e) {
            if (!visible[e % 4 / 2].has(step_key + e / 4 * 8 + t * 2 + e % 2)) scores[i][0][e / 4][e % 4] = -INFINITY;
          }
        }
#pragma unroll
        for (int e = 0; e < 8; ++e) new_largest[e % 4 / 2] = fmaxf(new_largest[e % 4 / 2], scores[i][0][e / 4][e % 4]);
      }
      float taken_off[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        new_largest[r] = fmaxf(new_largest[r], __shfl_xor_sync(full_warp, new_largest[r], 1));
        new_largest[r] = fmaxf(new_largest[r], __shfl_xor_sync(full_warp, new_largest[r], 2));
        if constexpr (!Once) {
          const float shrink = new_largest[r] == largest[r] ? 1.0f : ptx::ex2((largest[r] - new_largest[r]) * scale);
          weights[r] *= shrink;
#pragma unroll
          for (int n = 0; n < columns; ++n) {
            for (int e = 2 * r; e < 2 * r + 2; ++e) sums[n / chunk][0][n % chunk][e] *= shrink;
          }
        }
        largest[r] = new_largest[r];
        taken_off[r] = largest[r] == -INFINITY ? 0.0f : largest[r] * scale;
      }

#pragma unroll
      for (int i = 0; i < key_steps; ++i) {
        if (i >= end_step || i < begin_step) continue;
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          float& score = scores[i][0][e / 4][e % 4];
          score = ptx::ex2(fmaf(score, scale, -taken_off[e % 4 / 2]));
          weights[e % 4 / 2] += score;
        }
        uint32_t p_part[1][4];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          p_part[0][half * 2] = pack2<T>(scores[i][0][half][0], scores[i][0][half][1]);
          p_part[0][half * 2 + 1] = pack2<T>(scores[i][0][half][2], scores[i][0][half][3]);
        }
#pragma unroll
        for (int c = 0; c < chunks; ++c) {
          uint32_t v_part[chunk][2];
#pragma unroll
          for (int n = 0; n < chunk; n += 2) Layout::load_b_transposed(v_part[n], v_part[n + 1], v_tile + first_key * row_bytes, i * 16, c * chunk + n, lane);
          ptx::mma<product>(sums[c], p_part, v_part);
        }
      }
      first_key += Keys;
    } while (!Once && first_key < some_end);

    if (some_see_less && *found) {
#pragma unroll 1
      for (int key = some_begin; key < some_end; ++key) {
        const T* const from = static_cast<const T*>(a.v.data) + (work.key_row + key) * a.v.stride + static_cast<int64_t>(own_head / group) * head_size;
#pragma unroll
        for (int n = 0; n < columns; ++n) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const int column = n * 8 + t * 2 + e % 2;
            const float value = column < head_size ? to_float(from[column]) : 0.0f;
            if (!(fabsf(value) < INFINITY) && visible[e / 2].has(key)) sums[n / chunk][0][n % chunk][e] += value;
          }
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      weights[r] += __shfl_xor_sync(full_warp, weights[r], 1);
      weights[r] += __shfl_xor_sync(full_warp, weights[r], 2);
      const float inverse = inverse_sum(weights[r], visible[r]);
#pragma unroll
      for (int n = 0; n < columns; ++n) {
        for (int e = 2 * r; e < 2 * r + 2; ++e) {
          float& sum = sums[n / chunk][0][n % chunk][e];
          sum = visible[r].none() ? 0.0f : sum * inverse;
        }
      }
    }
    const int64_t out_column = static_cast<int64_t>(own_head) * head_size;
    // Four lanes have 16 bytes of a row in each of four blocks of columns: each takes those of one.
#pragma unroll
    for (int n = 0; n < columns; n += 4) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        uint32_t words[4] = {};
#pragma unroll
        for (int i = 0; i < 4 && n + i < columns; ++i) {
          words[i] = pack2<T>(sums[(n + i) / chunk][0][(n + i) % chunk][2 * r], sums[(n + i) / chunk][0][(n + i) % chunk][2 * r + 1]);
        }
        transpose_quad(words, t);
        const int row = g + 8 * r, column = (n + t) * 8;
        if (row >= count || column >= head_size) continue;
        T* const to = static_cast<T*>(a.out.data) + (work.query_row + first + row) * a.out.stride + out_column + column;
        ptx::store_16(to, {words[0], words[1], words[2], words[3]});
      }
    }
  }
}

// --- Launchers ---

struct Gpu {
  int shared_bytes, multiprocessors;  // of a block, of all
};

Gpu current_gpu() {
  Gpu gpu{};
  int device = 0;
  if (cudaGetDevice(&device) != cudaSuccess || cudaDeviceGetAttribute(&gpu.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) != cudaSuccess ||
      cudaDeviceGetAttribute(&gpu.multiprocessors, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
    return {};
  }
  return gpu;
}

constexpr int padded_head_size(int64_t head_size) { return head_size <= 32 ? 32 : head_size <= 64 ? 64 : head_size <= 80 ? 80 : head_size <= 96 ? 96 : 128; }

int64_t shared_bytes(int warps, int64_t rows, int head_size) { return (warps * 16 + 2 * rows) * head_size * 2 + unit_bytes; }

template <class T, int HeadSize, int Keys, int Warps, bool Once>
cudaError_t launch_keys(const Attention& a, const Resident& takes, cudaStream_t stream) {
  const int64_t key_rows = tile_rows(a.keys.length), together = heads_together(key_rows);
  const bool packed = a.queries.cumulative || a.keys.cumulative;
  // Two blocks for each multiprocessor, if tiles suffice for more than there are heads.
  int64_t parts = 1;
  if (!packed && together == 1) {
    const int64_t wanted = ceil_div(2 * current_gpu().multiprocessors, a.queries.count * a.heads), most = ceil_div(ceil_div(a.queries.length, 16), Warps);
    parts = wanted < most ? wanted : most;
    if (parts < 1) parts = 1;
  }
  const int64_t blocks = a.queries.count * a.heads * parts, rows = packed ? short_keys : key_rows * (together < a.heads ? together : a.heads);
  return LAUNCH((attention_resident_kernel<T, HeadSize, Keys, Warps, Once>), grid_of(blocks), Warps * warp_size,
                static_cast<size_t>(shared_bytes(Warps, rows, HeadSize)), stream, a, takes, static_cast<int>(parts));
}

template <class T, int HeadSize>
cudaError_t launch_head_size(const Attention& a, const Resident& takes, cudaStream_t stream) {
  if (takes.keys <= short_keys) return launch_keys<T, HeadSize, short_keys, short_warps, true>(a, takes, stream);
  if constexpr (row_keys(HeadSize) > short_keys) {
    if (takes.keys <= row_keys(HeadSize)) return launch_keys<T, HeadSize, row_keys(HeadSize), short_warps, true>(a, takes, stream);
  }
  return launch_keys<T, HeadSize, long_keys, long_warps(HeadSize), false>(a, takes, stream);
}

template <class T>
cudaError_t launch_type(const Attention& a, const Resident& takes, cudaStream_t stream) {
  switch (padded_head_size(a.head_size)) {
    case 32:
      return launch_head_size<T, 32>(a, takes, stream);
    case 64:
      return launch_head_size<T, 64>(a, takes, stream);
    case 80:
      return launch_head_size<T, 80>(a, takes, stream);
    case 96:
      return launch_head_size<T, 96>(a, takes, stream);
    default:
      return launch_head_size<T, 128>(a, takes, stream);
  }
}

}  // namespace

Resident residents_of(const Attention& a, const Access& access) {
  if (a.bias || !(a.scale > 0) || access.q != unit_bytes || access.k != unit_bytes || access.v != unit_bytes || !access.out_vectors) return Resident{};
  if (a.queries.cumulative || a.keys.cumulative || a.keys.length <= short_keys) return {short_keys};
  const int64_t keys = a.keys.length;
  const int head_size = padded_head_size(a.head_size);
  if (keys <= row_keys(head_size)) return {row_keys(head_size)};
  const bool fits = shared_bytes(long_warps(head_size), tile_rows(keys), head_size) <= current_gpu().shared_bytes;
  return fits ? Resident{keys} : Resident{};
}

cudaError_t launch_attention_resident(const Attention& a, const Resident& takes, cudaStream_t stream) {
  if (a.queries.count == 0) return cudaSuccess;
  return a.q.type == DType::bfloat16 ? launch_type<bf16>(a, takes, stream) : launch_type<f16>(a, takes, stream);
}

}  // namespace chiasma::cuda
