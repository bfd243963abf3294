// The first half of cosineTopK: through the corpus, without the matrix of scores.
//
// A block goes through a slice of the corpus, 128 rows at a time, for 8 or 32 queries: the ring of gemm, tensor cores, rows of the corpus as m and queries as n.
// So the corpus is read once for up to 8 queries. Scores are as exact as float32 sums are: what bf16 cannot hold is multiplied in up to three bf16 parts whose
// sum is the number, the products of parts that matter one after the other. Scores that beat a query's threshold are collected, 32 at a time, and merged
// into the query's list of the n best of this slice, whose last is the threshold.
#include "cuda/search.cuh"
#include "cuda/tile.cuh"

namespace chiasma::cuda {

namespace {

// --- The corpus as fragments ---

constexpr int slice_units = 4, slice_bytes = slice_units * unit_bytes;
constexpr int tile_rows = 128;
constexpr int warps = 4, threads = warps * warp_size;
constexpr int row_blocks = tile_rows / warps / 16;
using Slice = Tile<slice_units>;

// bf16 parts of a pair, most significant first, as registers of an operand.
template <int Parts>
__device__ __forceinline__ void split(float low, float high, uint32_t (&parts)[Parts]) {
#pragma unroll
  for (int p = 0; p < Parts; ++p) {
    parts[p] = pack2<bf16>(low, high);
    const float2 taken = unpack2<bf16>(parts[p]);
    low -= taken.x;
    high -= taken.y;
  }
}

// Bytes i and i + 1 of a word as a pair of bf16, which is exact.
__device__ __forceinline__ uint32_t bytes_to_bf16(uint32_t word, int i) {
  return pack2<bf16>(static_cast<float>(static_cast<int8_t>(word >> 8 * i)), static_cast<float>(static_cast<int8_t>(word >> 8 * (i + 1))));
}

// How 64 bytes of a row of the corpus become a operands: `steps` of 16 elements, each in `parts`. Which of the 16 has which place of an operand is what ldmatrix
// makes of the type; queries are stored in that order: `element` says which of 16 stands at a place.
template <class T>
struct Corpus;

template <>
struct Corpus<bf16> {
  static constexpr int steps = 2, parts = 1;
  __host__ __device__ static constexpr int element(int place) { return place; }
  __device__ __forceinline__ static void load(uint32_t (&to)[parts][row_blocks][4], uint32_t tile, int row, int step, int lane) {
#pragma unroll
    for (int i = 0; i < row_blocks; ++i) Slice::load_a(to[0][i], tile, row + i * 16, step * 2, lane);
  }
};

template <>
struct Corpus<int8_t> {
  static constexpr int steps = 4, parts = 1;
  __host__ __device__ static constexpr int element(int place) { return place % 8 / 2 * 4 + place / 8 * 2 + place % 2; }
  __device__ __forceinline__ static void load(uint32_t (&to)[parts][row_blocks][4], uint32_t tile, int row, int step, int lane) {
#pragma unroll
    for (int i = 0; i < row_blocks; ++i) {
      uint32_t words[2];  // of the upper and the lower row: bytes 4t to 4t + 3
      ptx::ldmatrix(words, tile + Slice::offset(row + i * 16 + lane % 16, step));
#pragma unroll
      for (int r = 0; r < 4; ++r) to[0][i][r] = bytes_to_bf16(words[r % 2], r / 2 * 2);
    }
  }
};

template <>
struct Corpus<float> {
  static constexpr int steps = 1, parts = max_parts;
  __host__ __device__ static constexpr int element(int place) { return place % 8 / 2 + place % 2 * 4 + place / 8 * 8; }
  __device__ __forceinline__ static void load(uint32_t (&to)[parts][row_blocks][4], uint32_t tile, int row, int, int lane) {
#pragma unroll
    for (int i = 0; i < row_blocks; ++i) {
      uint32_t words[2][4];  // of two units each: element t of the upper and the lower row, then of the next unit
#pragma unroll
      for (int half = 0; half < 2; ++half) Slice::load_a(words[half], tile, row + i * 16, half * 2, lane);
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        uint32_t pair[parts];
        split<parts>(ptx::bits_to_float(words[r / 2][r % 2]), ptx::bits_to_float(words[r / 2][r % 2 + 2]), pair);
#pragma unroll
        for (int p = 0; p < parts; ++p) to[p][i][r] = pair[p];
      }
    }
  }
};

// --- Queries ---

__device__ __forceinline__ int element_at(DType corpus, int place) {
  return corpus == DType::bfloat16 ? Corpus<bf16>::element(place) : corpus == DType::int8 ? Corpus<int8_t>::element(place) : Corpus<float>::element(place);
}

// A warp for each query: its direction, and what the tensor cores multiply: the direction in three parts, or in one the query times a power of two, which is
// exact if the query is bf16.
template <class In, int Parts>
__global__ void __launch_bounds__(row_threads) prepare_queries_kernel(TopK a, SearchWork work) {
  const int64_t query = row_of_warp();
  if (query >= work.padded_queries) return;
  const int lane = lane_of_thread();
  const bool real = query < a.query_count;
  const In* const from = static_cast<const In*>(a.queries.data) + query * a.queries.stride;
  double squares = 0;
  for (int64_t i = lane; real && i < a.columns; i += warp_size) {
    const double x = to_float(from[i]);
    squares += x * x;
  }
  const double norm = sqrt(warp_sum(squares));
  const bool finite = norm <= 1e300;
  const double inverse = !finite ? static_cast<double>(NAN) : norm > 0 ? 1.0 / norm : 0.0;
  int exponent = 0;
  if (Parts == 1 && finite && norm > 0) frexp(norm, &exponent);
  const double scale = Parts > 1 ? inverse : finite ? ldexp(1.0, -exponent) : static_cast<double>(NAN);
  if (real && lane == 0) work.scales[query] = Parts > 1 ? 1.0f : static_cast<float>(norm * scale);
  for (int64_t i = lane; real && i < a.columns; i += warp_size) work.directions[query * a.columns + i] = static_cast<float>(to_float(from[i]) * inverse);
  for (int64_t place = lane; place < work.depth; place += warp_size) {
    const int64_t i = place / 16 * 16 + element_at(a.corpus.type, static_cast<int>(place % 16));
    float left = real && i < a.columns ? static_cast<float>(to_float(from[i]) * scale) : 0.0f;
#pragma unroll
    for (int p = 0; p < Parts; ++p) {
      const bf16 part = round_to<bf16>(left);
      work.parts[(p * work.padded_queries + query) * work.depth + place] = part;
      left -= to_float(part);
    }
  }
}

// --- Through the corpus ---

constexpr int half_rows = tile_rows / row_blocks;  // whose scores are in shared memory at a time: 16 of each warp
constexpr int score_stride = half_rows + 4;        // neighbouring queries start 4 banks apart

template <class T, int Parts, int Queries>
struct Scan {
  static constexpr int query_row_bytes = Corpus<T>::steps * 32;
  static constexpr int stage_bytes = tile_rows * slice_bytes + Parts * Queries * query_row_bytes;
  static constexpr int stages = stage_bytes * 4 <= 72 * 1024 ? 4 : 3;
  static constexpr int pending = stages * stage_bytes;                // Entry [Queries, 32]
  static constexpr int least = pending + Queries * warp_size * 8;     // Entry [Queries]: what a new entry must beat
  static constexpr int bound = least + Queries * 8;                   // Entry [Queries]: what it must be behind
  static constexpr int scores = bound + Queries * 8;                  // float [Queries, score_stride]
  static constexpr int counts = scores + Queries * score_stride * 4;  // int [Queries]: of pending
  static constexpr int scratch = counts + Queries * 4;                // Entry [warps, list]
  static constexpr int shared_bytes(int list) { return scratch + warps * list * 8; }
};

// Rows [row, row + 128) of the corpus, bytes [byte, byte + 64) of each, into a stage; zeros outside. `access`: bytes that divide every address.
template <class T>
__device__ __forceinline__ void start_corpus(uint8_t* stage, const TopK& a, int64_t row, int64_t byte, int access) {
  const int64_t bytes = a.columns * static_cast<int64_t>(sizeof(T)), row_bytes = a.corpus.stride * static_cast<int64_t>(sizeof(T));
  const uint8_t* const data = static_cast<const uint8_t*>(a.corpus.data);
#pragma unroll
  for (int i = 0; i < tile_rows * slice_units / threads; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * threads;
    const int tile_row = at / slice_units, unit = at % slice_units;
    const int64_t left = row + tile_row < a.rows ? bytes - byte - unit * unit_bytes : 0;
    const uint8_t* const from = left > 0 ? data + (row + tile_row) * row_bytes + byte + unit * unit_bytes : data;
    uint8_t* const to = stage + Slice::offset(tile_row, unit);
    const auto piece = [&](int begin, int size) { return left <= begin ? 0 : left - begin < size ? static_cast<int>(left - begin) : size; };
    if (access == 16) {
      ptx::cp_async<16>(ptx::shared_address(to), from, piece(0, 16));
    } else if (access == 4) {
#pragma unroll
      for (int b = 0; b < unit_bytes; b += 4) ptx::cp_async<4>(ptx::shared_address(to + b), piece(b, 4) ? from + b : data, piece(b, 4));
    } else {
#pragma unroll
      for (int b = 0; b < unit_bytes; b += static_cast<int>(sizeof(T))) {
        *reinterpret_cast<T*>(to + b) = piece(b, sizeof(T)) ? ptx::load_nc(reinterpret_cast<const T*>(from + b)) : T{};
      }
    }
  }
}

template <class T, int Parts, int Queries>
__device__ __forceinline__ void start_queries(uint8_t* stage, const SearchWork& work, int64_t query, int64_t slice) {
  using S = Scan<T, Parts, Queries>;
  constexpr int units = S::query_row_bytes / unit_bytes;
  for (int at = static_cast<int>(threadIdx.x); at < Parts * Queries * units; at += threads) {
    const int row = at / units, unit = at % units;
    const int64_t from = (static_cast<int64_t>(row / Queries) * work.padded_queries + query + row % Queries) * work.depth + slice * Corpus<T>::steps * 16 + unit * 8;
    ptx::cp_async<16>(ptx::shared_address(stage + Tile<units>::offset(row, unit)), work.parts + from);
  }
}

template <class T, int Parts, int Queries>
__global__ void __launch_bounds__(threads, Queries > few_queries ? 2 : 3) scan_kernel(TopK a, SearchWork work, int pass, int access) {
  using S = Scan<T, Parts, Queries>;
  using C = Corpus<T>;
  using QueryTile = Tile<S::query_row_bytes / unit_bytes>;
  constexpr int query_blocks = Queries / 8;
  SMEM_DYN(shared, uint8_t);
  Entry* const pending = reinterpret_cast<Entry*>(shared + S::pending);
  Entry* const least = reinterpret_cast<Entry*>(shared + S::least);
  Entry* const bound = reinterpret_cast<Entry*>(shared + S::bound);
  float* const scores = reinterpret_cast<float*>(shared + S::scores);
  int* const counts = reinterpret_cast<int*>(shared + S::counts);
  const int lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / warp_size;
  const int g = lane / 4, t = lane % 4;
  Entry* const scratch = reinterpret_cast<Entry*>(shared + S::scratch) + warp * work.list;

  // Blocks of all queries go through a slice together, so that L2 serves all but the first.
  const int64_t first_query = static_cast<int64_t>(blockIdx.x) % work.query_tiles * Queries, slice = static_cast<int64_t>(blockIdx.x) / work.query_tiles;
  const int64_t all_tiles = ceil_div(a.rows, tile_rows);
  const int64_t first_tile = slice * all_tiles / work.slices, end_tile = (slice + 1) * all_tiles / work.slices;
  const int64_t k_slices = ceil_div(a.columns * static_cast<int64_t>(sizeof(T)), slice_bytes);

  // A warp looks after every fourth query: its pending entries, its list.
  const auto list_of = [&](int query) { return work.lists + ((first_query + query) * work.slices + slice) * work.list; };
  for (int query = warp; query < Queries; query += warps) {
    for (int i = lane; i < work.list; i += warp_size) list_of(query)[i] = no_entry;
    if (lane == 0) {
      counts[query] = 0;
      least[query] = no_entry;
      bound[query] = pass == 0 || first_query + query >= a.query_count ? ~no_entry
                                                                        : work.entries[(first_query + query) * work.kept + static_cast<int64_t>(pass) * work.list - 1];
    }
  }
  __syncwarp();
  const auto flush = [&](int query) {
    Entry* const list = list_of(query);
    for (int i = lane; i < work.list; i += warp_size) scratch[i] = list[i];
    __syncwarp();
    merge_lanes(scratch, work.list, lane < counts[query] ? pending[query * warp_size + lane] : no_entry, lane);
    for (int i = lane; i < work.list; i += warp_size) list[i] = scratch[i];
    __syncwarp();
    if (lane == 0) {
      counts[query] = 0;
      least[query] = scratch[work.list - 1];
    }
    __syncwarp();
  };

  int64_t load_tile = first_tile, load_slice = 0;
  int load_stage = 0;
  const auto start_stage = [&] {
    if (load_tile < end_tile) {
      uint8_t* const stage = shared + load_stage * S::stage_bytes;
      start_corpus<T>(stage, a, load_tile * tile_rows, load_slice * slice_bytes, access);
      start_queries<T, Parts, Queries>(stage + tile_rows * slice_bytes, work, first_query, load_slice);
      if (++load_slice == k_slices) {
        load_slice = 0;
        ++load_tile;
      }
      load_stage = load_stage + 1 == S::stages ? 0 : load_stage + 1;
    }
    ptx::cp_async_commit();
  };
#pragma unroll
  for (int i = 0; i < S::stages - 1; ++i) start_stage();

  int stage_number = 0;
  for (int64_t tile = first_tile; tile < end_tile; ++tile) {
    float sums[row_blocks][query_blocks][4] = {};
    float squares[row_blocks][2] = {};
    for (int64_t k_slice = 0; k_slice < k_slices; ++k_slice) {
      ptx::cp_async_wait<S::stages - 2>();
      __syncthreads();
      const uint32_t corpus = ptx::shared_address(shared + stage_number * S::stage_bytes);
      const uint32_t queries = corpus + tile_rows * slice_bytes;
      stage_number = stage_number + 1 == S::stages ? 0 : stage_number + 1;
      start_stage();
#pragma unroll
      for (int step = 0; step < C::steps; ++step) {
        uint32_t rows[C::parts][row_blocks][4];
        C::load(rows, corpus, warp * row_blocks * 16, step, lane);
        if (!a.inverse_norms) {
#pragma unroll
          for (int i = 0; i < row_blocks; ++i) {
#pragma unroll
            for (int r = 0; r < 4; ++r) {
              float2 pair = make_float2(0, 0);
#pragma unroll
              for (int p = C::parts - 1; p >= 0; --p) {
                const float2 part = unpack2<bf16>(rows[p][i][r]);
                pair.x += part.x;
                pair.y += part.y;
              }
              squares[i][r % 2] = fmaf(pair.y, pair.y, fmaf(pair.x, pair.x, squares[i][r % 2]));
            }
          }
        }
#pragma unroll
        for (int p = 0; p < Parts; ++p) {
          uint32_t columns[query_blocks][2];
#pragma unroll
          for (int j = 0; j < query_blocks; ++j) {
            ptx::ldmatrix(columns[j], queries + QueryTile::offset(p * Queries + j * 8 + lane % 8, step * 2 + lane / 8 % 2));
          }
#pragma unroll
          for (int c = 0; c < C::parts; ++c) {
            if (c + p < max_parts) ptx::mma<ptx::Product::bf16>(sums, rows[c], columns);  // the rest is below float32's last digit
          }
        }
      }
    }

#pragma unroll 1
    for (int block = 0; block < row_blocks; ++block) {
      const int64_t first_row = tile * tile_rows + block * 16;
#pragma unroll
      for (int i = 0; i < row_blocks; ++i) {
        if (i != block) continue;
        // NaN for rows so great or tiny that float32 or bf16 parts lose digits: their scores are taken exactly. But zeros remain zeros.
        float inverse[2];
        bool empty[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (a.inverse_norms) {
            const int64_t row = first_row + warp * row_blocks * 16 + g + half * 8;
            inverse[half] = row < a.rows ? a.inverse_norms[row] : 0.0f;
            const float size = fabsf(inverse[half]);
            empty[half] = size == 0 || inverse[half] == INFINITY;
            if (!(size > 1e-15f && size < 1e15f)) inverse[half] = NAN;
          } else {
            float square = squares[i][half];
            square += __shfl_xor_sync(full_warp, square, 1);
            square += __shfl_xor_sync(full_warp, square, 2);
            empty[half] = square == 0;
            inverse[half] = square > 1e-30f && square < 1e30f ? 1.0f / sqrtf(square) : NAN;
          }
        }
#pragma unroll
        for (int j = 0; j < query_blocks; ++j) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            const float sum = sums[i][j][e];
            scores[(j * 8 + t * 2 + e % 2) * score_stride + warp * 16 + g + e / 2 * 8] = empty[e / 2] && sum == 0 ? 0.0f : sum * inverse[e / 2];
          }
        }
      }
      __syncthreads();
      for (int query = warp; query < Queries && first_query + query < a.query_count; query += warps) {
        for (int at = lane; at < half_rows; at += warp_size) {
          const int64_t row = first_row + at / 16 * row_blocks * 16 + at % 16;
          float score = scores[query * score_stride + at];
          for (unsigned again = __ballot_sync(full_warp, !(fabsf(score) < INFINITY) && row < a.rows); again; again &= again - 1) {
            const int from = __ffs(static_cast<int>(again)) - 1;
            const float exact = warp_score<T>(a, work, first_query + query, __shfl_sync(full_warp, row, from), lane) * work.scales[first_query + query];
            if (lane == from) score = exact;
          }
          const Entry entry = row < a.rows ? entry_of(score, row) : no_entry;
          const bool better = entry > least[query] && entry < bound[query];
          const unsigned all = __ballot_sync(full_warp, better);
          if (all == 0) continue;
          const int count = counts[query], added = __popc(all);
          const bool full = count + added > warp_size;
          __syncwarp();
          if (full) flush(query);
          const int begin = full ? 0 : count;
          if (better) pending[query * warp_size + begin + __popc(all & ((1u << lane) - 1))] = entry;
          if (lane == 0) counts[query] = begin + added;
          __syncwarp();
        }
      }
      __syncthreads();
    }
  }
  for (int query = warp; query < Queries; query += warps) flush(query);
  ptx::cp_async_wait<0>();
}

// --- Launchers ---

template <class T, int Parts, int Queries>
cudaError_t launch(const TopK& a, const SearchWork& work, int pass, cudaStream_t stream) {
  const uint64_t all = reinterpret_cast<uintptr_t>(a.corpus.data) | static_cast<uint64_t>(a.corpus.stride) * sizeof(T);
  return LAUNCH((scan_kernel<T, Parts, Queries>), grid_of(work.query_tiles * work.slices), threads, static_cast<size_t>(Scan<T, Parts, Queries>::shared_bytes(work.list)),
                stream, a, work, pass, all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : 1);
}

template <class T, int Parts>
cudaError_t launch_tiles(const TopK& a, const SearchWork& work, int pass, cudaStream_t stream) {
  return work.query_tile == few_queries ? launch<T, Parts, few_queries>(a, work, pass, stream) : launch<T, Parts, many_queries>(a, work, pass, stream);
}

// Whether one bf16 part holds a query's numbers and one the corpus'.
bool one_part(const TopK& a) { return a.queries.type == DType::bfloat16 && a.corpus.type != DType::float32; }

}  // namespace

cudaError_t launch_prepare_queries(const TopK& a, const SearchWork& work, cudaStream_t stream) {
  return with_float(a.queries.type, [&](auto query) {
    using In = decltype(query);
    const dim3 grid = grid_of_rows(work.padded_queries);
    if constexpr (std::is_same_v<In, bf16>) {
      if (one_part(a)) return LAUNCH((prepare_queries_kernel<In, 1>), grid, row_threads, 0, stream, a, work);
    }
    return LAUNCH((prepare_queries_kernel<In, max_parts>), grid, row_threads, 0, stream, a, work);
  });
}

cudaError_t launch_scan(const TopK& a, const SearchWork& work, int pass, cudaStream_t stream) {
  switch (a.corpus.type) {
    case DType::float32:
      return launch_tiles<float, max_parts>(a, work, pass, stream);
    case DType::bfloat16:
      return one_part(a) ? launch_tiles<bf16, 1>(a, work, pass, stream) : launch_tiles<bf16, max_parts>(a, work, pass, stream);
    case DType::int8:
      return one_part(a) ? launch_tiles<int8_t, 1>(a, work, pass, stream) : launch_tiles<int8_t, max_parts>(a, work, pass, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace chiasma::cuda
