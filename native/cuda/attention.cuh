// What the two kernels of attention on tensor cores share: a block's sequence, what a query sees, and how rows of a head come into shared memory.
#pragma once

#include "cuda/kernels.cuh"
#include "cuda/rows.cuh"
#include "cuda/tile.cuh"

namespace chiasma::cuda {

constexpr float log2e = 1.4426950408889634f;

// --- Which queries and keys a block has ---

// As span_of, with faults from `first_fault` on.
__device__ __forceinline__ Span checked_span(const Sequences& sequences, int64_t s, const FaultSlot& slot, int64_t first_fault, bool report) {
  if (!sequences.cumulative) return {s * sequences.length, sequences.length};
  const int64_t begin = sequences.cumulative[s], end = sequences.cumulative[s + 1];
  const bool wrong_start = sequences.cumulative[0] != 0;
  if (!wrong_start && begin >= 0 && end >= begin && end <= sequences.rows) return {begin, end - begin};
  if (report) report_fault(slot, first_fault + (wrong_start ? 0 : s + 1), wrong_start ? sequences.cumulative[0] : static_cast<int32_t>(end));
  return {0, 0};
}

// A sequence's queries and keys. One whose lengths are wrong is reported, and has no queries.
struct Sequence {
  Span queries, keys;
};
__device__ __forceinline__ Sequence checked_sequence(const Attention& a, int64_t s, bool report) {
  Sequence sequence{checked_span(a.queries, s, a.slot, 0, report), checked_span(a.keys, s, a.slot, attention_keys, report)};
  const int64_t longest = sequence.queries.length > sequence.keys.length ? sequence.queries.length : sequence.keys.length;
  if (a.bias && longest > a.longest) {
    if (report) report_fault(a.slot, attention_bias + s, static_cast<int32_t>(longest));
    sequence.queries.length = 0;
  }
  return sequence;
}

// A block's work. count 0: none.
struct AttentionWork {
  int64_t query_row, key_row;  // of q and k: this block's first query, its sequence's first key
  int first, count;            // the queries, counted in the sequence
  int queries, keys;           // of the sequence
  int head, kv_head;
  bool only_zeros;             // the rows belong to no sequence
};

// Keys that a query sees: [begin, end), begin <= end. Neither decreases from query to query.
struct Visible {
  int begin, end;
  __device__ __forceinline__ bool none() const { return begin == end; }
  __device__ __forceinline__ bool has(int key) const { return static_cast<uint32_t>(key - begin) < static_cast<uint32_t>(end - begin); }
};
__device__ __forceinline__ Visible visible_keys(const Attention& a, const AttentionWork& work, int query) {
  const int64_t place = static_cast<int64_t>(query) + work.keys - work.queries;  // the key that stands where the query does
  const int64_t begin = a.window < 0 || place < a.window ? 0 : place - a.window;
  const int64_t all = static_cast<int64_t>(work.keys) + work.queries;
  const int64_t after = a.causal ? 0 : a.window < 0 || a.window > all ? all : a.window;
  const int64_t end = place + after + 1 < 0 ? 0 : place + after + 1;
  return {static_cast<int>(begin < work.keys ? begin : work.keys), static_cast<int>(end < work.keys ? end : work.keys)};
}

// 1 / sum, or 0 for a query that saw nothing.
__device__ __forceinline__ float inverse_sum(float sum, const Visible& visible) { return visible.none() ? 0.0f : 1.0f / sum; }

__device__ __forceinline__ void store_number(const Rows& rows, int64_t at, float x) {
  switch (rows.type) {
    case DType::bfloat16:
      static_cast<bf16*>(rows.data)[at] = round_to<bf16>(x);
      break;
    case DType::float16:
      static_cast<f16*>(rows.data)[at] = round_to<f16>(x);
      break;
    default:
      static_cast<float*>(rows.data)[at] = x;
  }
}

// --- Tensor cores ---

constexpr int max_mma_head_size = 128;

// Into a tile of `rows` rows: rows [row, row + count) of one head, by pieces of `Bytes`, which divides every address; zeros elsewhere.
// By `threads` threads, of which this is number `thread`.
template <class T, int HeadSize, int Bytes>
__device__ __forceinline__ void start_rows_by(uint8_t* tile, int rows, const Rows& from, int64_t row, int count, int head, int head_size, int thread, int threads) {
  using Layout = Tile<HeadSize * 2 / unit_bytes>;
  constexpr int pieces = HeadSize * 2 / Bytes;
  const uint8_t* const data = static_cast<const uint8_t*>(from.data) + (row * from.stride + static_cast<int64_t>(head) * head_size) * 2;
  for (int at = thread; at < rows * pieces; at += threads) {
    const int tile_row = at / pieces, byte = at % pieces * Bytes;
    const bool inside = tile_row < count && byte < head_size * 2;
    const uint8_t* const source = inside ? data + tile_row * from.stride * 2 + byte : static_cast<const uint8_t*>(from.data);
    uint8_t* const to = tile + Layout::offset(tile_row, byte / unit_bytes) + byte % unit_bytes;
    if constexpr (Bytes == 2) {
      *reinterpret_cast<T*>(to) = inside ? *reinterpret_cast<const T*>(source) : T{};
    } else {
      const int left = head_size * 2 - byte;
      ptx::cp_async<Bytes>(ptx::shared_address(to), source, !inside ? 0 : left < Bytes ? left : Bytes);
    }
  }
}

template <class T>
constexpr ptx::Product product_of = ptx::Product::bf16;
template <>
constexpr ptx::Product product_of<f16> = ptx::Product::f16;

// Bits 15 and 31 of what this gives are set if the pair's low and high number are infinite or NaN: their exponent is all ones, and overflows.
template <class T>
__device__ __forceinline__ uint32_t not_finite(uint32_t pair) {
  return std::is_same_v<T, f16> ? (pair & 0x7c007c00u) + 0x04000400u : (pair & 0x7f807f80u) + 0x00800080u;
}

// How operands may be read and written: bytes that divide every address.
struct Access {
  int q, k, v;
  bool out_vectors;  // out is of q's type, and its heads lie at multiples of 16 bytes
};

// The largest of 16, 8, 4 and 2 bytes that divides the addresses of all heads.
inline int access_of(const Rows& rows, int64_t head_size) {
  const uint64_t all = reinterpret_cast<uintptr_t>(rows.data) | static_cast<uint64_t>(rows.stride) * 2 | static_cast<uint64_t>(head_size) * 2;
  return all % 16 == 0 ? 16 : all % 8 == 0 ? 8 : all % 4 == 0 ? 4 : 2;
}

// --- Which kernel has a sequence ---

// Those of at most so many keys are attention_resident.cu's, the others attention.cu's. The number of queries must not matter: where few tokens are wanted of a
// model's last attention, they have the bits that they have among all.
struct Resident {
  int64_t keys = -1;  // none
  __host__ __device__ __forceinline__ bool has(int64_t count) const { return count <= keys; }
};

// What attention_resident.cu takes of these sequences, as their own lengths and the device say.
Resident residents_of(const Attention& a, const Access& access);
cudaError_t launch_attention_resident(const Attention& a, const Resident& takes, cudaStream_t stream);
// launch_attention, but all by attention.cu's kernel: to be measured beside it.
cudaError_t launch_attention_ring(const Attention& a, cudaStream_t stream);

}  // namespace chiasma::cuda
