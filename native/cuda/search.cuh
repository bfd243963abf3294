// What the two halves of cosineTopK share: search_scan.cu goes through the corpus and leaves lists, search.cu makes results of them. Entries of lists, the workspace,
// and the one exact score.
#pragma once

#include "cuda/kernels.cuh"
#include "cuda/rows.cuh"

namespace chiasma::cuda {

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

// --- Workspace ---

constexpr int max_parts = 3;                       // bf16 parts of a float32
constexpr int few_queries = 8, many_queries = 32;  // of a block of the scan

struct SearchWork {
  float* directions;  // [queries, columns]: of length 1
  float* scales;      // [queries]: what the scan's scores of a query are to its cosines
  bf16* parts;        // [parts, padded queries, depth], in the order of Corpus::element, zeros behind columns and queries
  Entry* lists;       // [padded queries, slices, list]: the best of each slice
  Entry* entries;     // [queries, kept]: of each pass its list
  int64_t padded_queries, depth, slices, kept;
  int query_tile, query_tiles, list, passes;
  int64_t bytes;  // of all
};

// --- One score, by a warp ---

// In float64, which has room for the squares of every float32, great and tiny ones.
template <class T>
__device__ __forceinline__ float warp_score(const TopK& a, const SearchWork& work, int64_t query, int64_t row, int lane) {
  const T* const from = static_cast<const T*>(a.corpus.data) + row * a.corpus.stride;
  const float* const direction = work.directions + query * a.columns;
  double product = 0, square = 0;
#pragma unroll 4
  for (int64_t i = lane; i < a.columns; i += warp_size) {
    const double x = to_float(ptx::load_nc(from + i));
    product += x * direction[i];
    square += x * x;
  }
  product = warp_sum(product);
  if (a.inverse_norms) {
    const float inverse = a.inverse_norms[row];
    return inverse == INFINITY ? 0.0f : static_cast<float>(product * inverse);  // 1 / 0: a row of zeros scores 0
  }
  square = warp_sum(square);
  return square == 0 ? 0.0f : static_cast<float>(product / sqrt(square));
}

// --- The scan ---

// Fills directions, scales and parts.
cudaError_t launch_prepare_queries(const TopK& a, const SearchWork& work, cudaStream_t stream);
// Fills lists: the best of what is behind the last entry of the pass before.
cudaError_t launch_scan(const TopK& a, const SearchWork& work, int pass, cudaStream_t stream);

}  // namespace chiasma::cuda
