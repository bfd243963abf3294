// cosineTopK: the k best rows of a corpus for each query, without the matrix of scores.
//
// A block goes through a slice of the corpus, 128 rows at a time, for 8 or 32 queries: the ring of gemm, tensor cores, rows of the corpus as m and queries as n.
// So the corpus is read once for up to 8 queries. Scores are as exact as float32 sums are: what bf16 cannot hold is multiplied in up to three bf16 parts whose
// sum is the number, the products of parts that matter one after the other. Scores that beat a query's threshold are collected, 32 at a time, and merged
// into the query's list of the n best of this slice, whose last is the threshold.
// Then the slices' lists are merged, what is kept is scored again by ordinary float32 sums, sorted by that, and written. The lists hold some more entries
// than asked for, since the order by both kinds of sums differs where scores are within 1e-6 of each other. k beyond the longest list takes several
// passes over the corpus: each keeps the best of what is behind the last entry of the pass before.
//
// A score depends on query and row alone, and what is kept on the scores: neither the number of queries nor how the corpus is cut shows in the result.
#include "cuda/kernels.cuh"
#include "cuda/rows.cuh"
#include "cuda/tile.cuh"

namespace chiasma::cuda {

namespace {

// --- Entries ---

// A score and its row as one integer: greater is better. The high half orders as scores do, NaN below all; the low half is greater for lower rows.
using Entry = long long;
constexpr Entry no_entry = static_cast<Entry>(1ull << 63);
constexpr int32_t nan_key = static_cast<int32_t>(1u << 31);

__device__ __forceinline__ Entry entry_of(float score, int64_t row) {
  const auto bits = static_cast<int32_t>(ptx::float_to_bits(score + 0.0f));  // one zero
  const int32_t key = score != score ? nan_key : bits >= 0 ? bits : bits ^ 0x7fffffff;
  return static_cast<Entry>(static_cast<uint64_t>(static_cast<uint32_t>(key)) << 32 | (0xffffffffu - static_cast<uint32_t>(row)));
}
__device__ __forceinline__ float score_of(Entry entry) {
  const auto key = static_cast<int32_t>(entry >> 32);
  if (key == nan_key) return NAN;
  return ptx::bits_to_float(static_cast<uint32_t>(key >= 0 ? key : key ^ 0x7fffffff));
}
__device__ __forceinline__ int32_t row_of(Entry entry) { return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(entry)); }

// The warp's entries, least first.
__device__ __forceinline__ Entry sort_lanes(Entry mine, int lane) {
#pragma unroll
  for (int size = 2; size <= warp_size; size *= 2) {
#pragma unroll
    for (int stride = size / 2; stride > 0; stride /= 2) {
      const Entry other = __shfl_xor_sync(full_warp, mine, stride);
      const bool up = (lane & size) == 0, lower = (lane & stride) == 0;
      mine = (mine < other) == (up == lower) ? mine : other;
    }
  }
  return mine;
}

__device__ __forceinline__ void exchange(Entry* list, int pair, int stride, bool descending) {
  const int first = (pair / stride * 2) * stride + pair % stride;
  const Entry a = list[first], b = list[first + stride];
  if ((a < b) == descending) {
    list[first] = b;
    list[first + stride] = a;
  }
}

// The best n of a list of n, best first, in shared memory, and of a warp's 32 entries. n: a power of two, at least 32.
__device__ __forceinline__ void merge_lanes(Entry* list, int n, Entry mine, int lane) {
  mine = sort_lanes(mine, lane);
  Entry& last = list[n - warp_size + lane];
  last = last < mine ? mine : last;  // the list now falls, then rises
  for (int stride = n / 2; stride > 0; stride /= 2) {
    __syncwarp();
    for (int pair = lane; pair < n / 2; pair += warp_size) exchange(list, pair, stride, true);
  }
  __syncwarp();
}

// --- The corpus as fragments ---

constexpr int max_parts = 3;  // of a float32
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

// --- Workspace ---

constexpr int few_queries = 8, many_queries = 32;    // of a block
constexpr int few_blocks = 1024, many_blocks = 512;  // that keep any GPU busy
constexpr int64_t least_slice = 1024;                // rows
constexpr int longest_list = 512;
constexpr int spare = 16;  // entries of a list beyond k

struct Work {
  float* directions;  // [queries, columns]: of length 1
  bf16* parts;        // [parts, padded queries, depth], in the order of Corpus::element, zeros behind columns and queries
  Entry* lists;       // [padded queries, slices, list]: the best of each slice
  Entry* entries;     // [queries, kept]: of each pass its list
  int64_t padded_queries, depth, slices, kept;
  int query_tile, query_tiles, list, passes;
  int64_t bytes;  // of all
};

int64_t slices_of(const TopK& a, int query_tile, int blocks) {
  const int64_t most = ceil_div(a.rows, least_slice), wanted = ceil_div(blocks, ceil_div(a.query_count, query_tile));
  return most < 1 ? 1 : wanted < most ? wanted : most;
}

Work work_of(const TopK& a) {
  Work work{};
  work.padded_queries = round_up(a.query_count, many_queries);
  work.depth = round_up(a.columns, 64);
  work.list = warp_size;
  while (work.list < a.k + spare && work.list < longest_list) work.list *= 2;
  work.passes = static_cast<int>(ceil_div(a.k + spare, work.list));
  work.kept = work.list;
  while (work.kept < static_cast<int64_t>(work.passes) * work.list) work.kept *= 2;
  const bool few = a.query_count <= few_queries;
  work.query_tile = few ? few_queries : many_queries;
  work.query_tiles = static_cast<int>(ceil_div(a.query_count, work.query_tile));
  work.slices = slices_of(a, work.query_tile, few ? few_blocks : many_blocks);
  // Enough for fewer queries and rows as well: ceil(blocks / tiles) · tiles is below blocks + tiles.
  const int64_t most_slices = ceil_div(a.rows, least_slice) > 0 ? ceil_div(a.rows, least_slice) : 1;
  const int64_t few_lists = few_queries * (most_slices < few_blocks ? most_slices : few_blocks);
  const int64_t many_tiles = few ? 0 : work.query_tiles;
  const int64_t many_lists = many_queries * (many_tiles * most_slices < many_blocks + many_tiles ? many_tiles * most_slices : many_blocks + many_tiles);

  char* const memory = static_cast<char*>(a.workspace);
  const auto take = [&](int64_t bytes) {
    char* const part = memory + work.bytes;
    work.bytes += round_up(bytes, 256);
    return part;
  };
  work.directions = reinterpret_cast<float*>(take(a.query_count * a.columns * 4));
  work.parts = reinterpret_cast<bf16*>(take(max_parts * work.padded_queries * work.depth * 2));
  work.lists = reinterpret_cast<Entry*>(take((few_lists > many_lists ? few_lists : many_lists) * work.list * 8));
  work.entries = reinterpret_cast<Entry*>(take(a.query_count * work.kept * 8));
  return work;
}

// --- Queries ---

__device__ __forceinline__ int element_at(DType corpus, int place) {
  return corpus == DType::bfloat16 ? Corpus<bf16>::element(place) : corpus == DType::int8 ? Corpus<int8_t>::element(place) : Corpus<float>::element(place);
}

// A warp for each query: its direction, and what the tensor cores multiply: the direction in three parts, or in one the query times a power of two, which is
// exact if the query is bf16.
template <class In, int Parts>
__global__ void __launch_bounds__(row_threads) prepare_queries_kernel(TopK a, Work work) {
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
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) squares += __shfl_xor_sync(full_warp, squares, lanes);
  const double norm = sqrt(squares);
  const bool finite = norm <= 1e300;
  const double inverse = !finite ? static_cast<double>(NAN) : norm > 0 ? 1.0 / norm : 0.0;
  int exponent = 0;
  if (Parts == 1 && finite && norm > 0) frexp(norm, &exponent);
  const double scale = Parts > 1 ? inverse : finite ? ldexp(1.0, -exponent) : static_cast<double>(NAN);
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

// --- One score, by a warp ---

template <class T>
__device__ __forceinline__ float warp_score(const TopK& a, const Work& work, int64_t query, int64_t row, int lane) {
  constexpr int chains = 4;
  const T* const from = static_cast<const T*>(a.corpus.data) + row * a.corpus.stride;
  const float* const direction = work.directions + query * a.columns;
  float products[chains] = {}, squares[chains] = {};
  for (int64_t first = lane; first < a.columns; first += chains * warp_size) {
#pragma unroll
    for (int c = 0; c < chains; ++c) {
      const int64_t i = first + c * warp_size;
      if (i >= a.columns) continue;
      const float x = to_float(ptx::load_nc(from + i));
      products[c] = fmaf(x, direction[i], products[c]);
      squares[c] = fmaf(x, x, squares[c]);
    }
  }
  const float product = warp_sum((products[0] + products[1]) + (products[2] + products[3]));
  float inverse;
  if (a.inverse_norms) {
    inverse = a.inverse_norms[row];
    inverse = inverse == INFINITY ? 0.0f : inverse;  // 1 / 0: a row of zeros scores 0
  } else {
    const float square = warp_sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
    inverse = square == 0 ? 0.0f : 1.0f / sqrtf(square);
  }
  return product * inverse;
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
__device__ __forceinline__ void start_queries(uint8_t* stage, const Work& work, int64_t query, int64_t slice) {
  using S = Scan<T, Parts, Queries>;
  constexpr int units = S::query_row_bytes / unit_bytes;
  for (int at = static_cast<int>(threadIdx.x); at < Parts * Queries * units; at += threads) {
    const int row = at / units, unit = at % units;
    const int64_t from = (static_cast<int64_t>(row / Queries) * work.padded_queries + query + row % Queries) * work.depth + slice * Corpus<T>::steps * 16 + unit * 8;
    ptx::cp_async<16>(ptx::shared_address(stage + Tile<units>::offset(row, unit)), work.parts + from);
  }
}

template <class T, int Parts, int Queries>
__global__ void __launch_bounds__(threads, Queries > few_queries ? 2 : 3) scan_kernel(TopK a, Work work, int pass, int access) {
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
        float inverse[2];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          if (a.inverse_norms) {
            const int64_t row = first_row + warp * row_blocks * 16 + g + half * 8;
            inverse[half] = row < a.rows ? a.inverse_norms[row] : 0.0f;
            inverse[half] = inverse[half] == INFINITY ? 0.0f : inverse[half];
          } else {
            float square = squares[i][half];
            square += __shfl_xor_sync(full_warp, square, 1);
            square += __shfl_xor_sync(full_warp, square, 2);
            inverse[half] = square == 0 ? 0.0f : 1.0f / sqrtf(square);
          }
        }
#pragma unroll
        for (int j = 0; j < query_blocks; ++j) {
#pragma unroll
          for (int e = 0; e < 4; ++e) scores[(j * 8 + t * 2 + e % 2) * score_stride + warp * 16 + g + e / 2 * 8] = sums[i][j][e] * inverse[e / 2];
        }
      }
      __syncthreads();
      for (int query = warp; query < Queries && first_query + query < a.query_count; query += warps) {
        for (int at = lane; at < half_rows; at += warp_size) {
          const int64_t row = first_row + at / 16 * row_blocks * 16 + at % 16;
          float score = scores[query * score_stride + at];
          // NaN for what overflows in parts.
          for (unsigned again = __ballot_sync(full_warp, score != score && row < a.rows); again; again &= again - 1) {
            const int from = __ffs(static_cast<int>(again)) - 1;
            const float exact = warp_score<T>(a, work, first_query + query, __shfl_sync(full_warp, row, from), lane);
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

// --- From lists to results ---

constexpr int merge_warps = 8, merge_threads = merge_warps * warp_size;

// A block for each query: the best of its slices.
__global__ void __launch_bounds__(merge_threads) merge_kernel(TopK a, Work work, int pass) {
  SMEM_DYN(shared, Entry);  // [merge_warps, list]
  const int lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / warp_size;
  const int64_t query = blockIdx.x;
  Entry* const own = shared + warp * work.list;
  for (int i = lane; i < work.list; i += warp_size) own[i] = no_entry;
  __syncwarp();
  const auto add = [&](const Entry* from) {
    for (int begin = 0; begin < work.list; begin += warp_size) {
      const Entry mine = from[begin + lane];
      if (__shfl_sync(full_warp, mine, 0) <= own[work.list - 1]) break;  // the best of what follows
      __syncwarp();
      merge_lanes(own, work.list, mine, lane);
    }
  };
  for (int64_t slice = warp; slice < work.slices; slice += merge_warps) add(work.lists + (query * work.slices + slice) * work.list);
  __syncthreads();
  if (warp > 0) return;
  for (int other = 1; other < merge_warps; ++other) add(shared + other * work.list);
  for (int i = lane; i < work.list; i += warp_size) work.entries[query * work.kept + static_cast<int64_t>(pass) * work.list + i] = own[i];
}

constexpr int64_t shared_entries = 1024;  // up to which a query's entries are sorted in shared memory

// A block for each query: its entries scored again, sorted and written.
template <class T>
__global__ void __launch_bounds__(merge_threads) finish_kernel(TopK a, Work work) {
  SMEM_DYN(shared, Entry);
  const int lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / warp_size;
  const int64_t query = blockIdx.x;
  const int kept = static_cast<int>(work.kept);
  Entry* const found = work.entries + query * work.kept;
  Entry* const sorted = work.kept <= shared_entries ? shared : found;
  for (int i = warp; i < kept; i += merge_warps) {
    Entry entry = i < work.passes * work.list ? found[i] : no_entry;
    if (entry != no_entry) {
      const int32_t row = row_of(entry);
      entry = entry_of(warp_score<T>(a, work, query, row, lane), row);
    }
    __syncwarp();
    if (lane == 0) sorted[i] = entry;
  }
  for (int size = 2; size <= kept; size *= 2) {
    for (int stride = size / 2; stride > 0; stride /= 2) {
      __syncthreads();
      for (int pair = static_cast<int>(threadIdx.x); pair < kept / 2; pair += merge_threads) exchange(sorted, pair, stride, (pair * 2 & size) == 0);
    }
  }
  __syncthreads();
  for (int64_t i = threadIdx.x; i < a.k; i += merge_threads) {
    const Entry entry = sorted[i];
    a.scores[query * a.scores_stride + i] = entry == no_entry ? -INFINITY : score_of(entry);
    a.indices[query * a.indices_stride + i] = entry == no_entry ? -1 : row_of(entry);
  }
}

// --- Launchers ---

template <class T, int Parts, int Queries>
cudaError_t launch_scan(const TopK& a, const Work& work, int pass, cudaStream_t stream) {
  const uint64_t all = reinterpret_cast<uintptr_t>(a.corpus.data) | static_cast<uint64_t>(a.corpus.stride) * sizeof(T);
  const int64_t blocks = work.query_tiles * work.slices;
  if (blocks > 0x7fffffff) return cudaErrorInvalidConfiguration;
  return LAUNCH((scan_kernel<T, Parts, Queries>), dim3(static_cast<unsigned>(blocks)), threads, static_cast<size_t>(Scan<T, Parts, Queries>::shared_bytes(work.list)),
                stream, a, work, pass, all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : 1);
}

template <class T, int Parts>
cudaError_t launch_passes(const TopK& a, const Work& work, cudaStream_t stream) {
  const dim3 queries(static_cast<unsigned>(a.query_count));
  for (int pass = 0; pass < work.passes; ++pass) {
    cudaError_t error = work.query_tile == few_queries ? launch_scan<T, Parts, few_queries>(a, work, pass, stream) : launch_scan<T, Parts, many_queries>(a, work, pass, stream);
    if (error != cudaSuccess) return error;
    error = LAUNCH(merge_kernel, queries, merge_threads, static_cast<size_t>(merge_warps * work.list) * sizeof(Entry), stream, a, work, pass);
    if (error != cudaSuccess) return error;
  }
  return LAUNCH((finish_kernel<T>), queries, merge_threads, work.kept <= shared_entries ? static_cast<size_t>(work.kept) * sizeof(Entry) : size_t{0}, stream, a, work);
}

}  // namespace

int64_t top_k_bytes(const TopK& a) { return work_of(a).bytes; }

cudaError_t launch_top_k(const TopK& a, cudaStream_t stream) {
  if (a.query_count == 0 || a.k == 0) return cudaSuccess;
  if (a.columns < 1 || a.k > 0x40000000 || a.query_count > 0x7fffffff) return cudaErrorInvalidValue;
  const Work work = work_of(a);
  const bool exact = a.queries.type == DType::bfloat16 && a.corpus.type != DType::float32;
  const cudaError_t error = with_float(a.queries.type, [&](auto query) {
    using In = decltype(query);
    const dim3 grid = grid_of_rows(work.padded_queries);
    if constexpr (std::is_same_v<In, bf16>) {
      if (exact) return LAUNCH((prepare_queries_kernel<In, 1>), grid, row_threads, 0, stream, a, work);
    }
    return LAUNCH((prepare_queries_kernel<In, max_parts>), grid, row_threads, 0, stream, a, work);
  });
  if (error != cudaSuccess) return error;
  switch (a.corpus.type) {
    case DType::float32:
      return launch_passes<float, max_parts>(a, work, stream);
    case DType::bfloat16:
      return exact ? launch_passes<bf16, 1>(a, work, stream) : launch_passes<bf16, max_parts>(a, work, stream);
    case DType::int8:
      return exact ? launch_passes<int8_t, 1>(a, work, stream) : launch_passes<int8_t, max_parts>(a, work, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace chiasma::cuda
