// Rows read and written in pieces of eight elements, by 16 bytes where memory allows. Which lane has which elements does not depend on that,
// so that results keep their bits whatever a row's place.
#pragma once

#include <type_traits>

#include "cuda/library.h"
#include "cuda/number.cuh"
#include "cuda/warp.cuh"

namespace chiasma::cuda {

constexpr int piece_size = 8;
constexpr int rows_per_block = 4;  // one warp each
constexpr int row_threads = rows_per_block * warp_size;

// Whether every row begins at a multiple of 16 bytes.
template <class T>
bool aligned(const Rows& rows) {
  return reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 && rows.stride * sizeof(T) % 16 == 0;
}

// Elements behind `count` become 0. `vectors`: the address is a multiple of 16.
template <class T>
__device__ __forceinline__ void load_piece(float (&to)[piece_size], const T* from, int count, bool vectors) {
  if (vectors && count == piece_size) {
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint4 words = ptx::load_nc(reinterpret_cast<const uint4*>(from) + half);
        const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if constexpr (std::is_same_v<T, float>) {
            to[half * 4 + i] = ptx::bits_to_float(word[i]);
          } else {
            to[half * 4 + i] = to_float(static_cast<T>(word[i]));
          }
        }
      }
    } else if constexpr (sizeof(T) == 2) {
      const uint4 words = ptx::load_nc(reinterpret_cast<const uint4*>(from));
      const uint32_t word[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 pair = unpack2<T>(word[i]);
        to[2 * i] = pair.x;
        to[2 * i + 1] = pair.y;
      }
    } else {
      const uint2 words = ptx::load_nc(reinterpret_cast<const uint2*>(from));
#pragma unroll
      for (int i = 0; i < piece_size; ++i) to[i] = to_float(static_cast<T>((i < 4 ? words.x : words.y) >> (i % 4 * 8)));
    }
  } else {
#pragma unroll
    for (int i = 0; i < piece_size; ++i) to[i] = i < count ? to_float(ptx::load_nc(from + i)) : 0.0f;
  }
}

template <class T>
__device__ __forceinline__ void store_piece(T* to, const float (&from)[piece_size], int count, bool vectors) {
  if (vectors && count == piece_size) {
    if constexpr (sizeof(T) == 4) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float* const four = from + half * 4;
        ptx::store_16(to + half * 4, {ptx::float_to_bits(four[0]), ptx::float_to_bits(four[1]), ptx::float_to_bits(four[2]), ptx::float_to_bits(four[3])});
      }
    } else {
      uint4 words;
      words.x = pack2<T>(from[0], from[1]);
      words.y = pack2<T>(from[2], from[3]);
      words.z = pack2<T>(from[4], from[5]);
      words.w = pack2<T>(from[6], from[7]);
      ptx::store_16(to, words);
    }
  } else {
#pragma unroll
    for (int i = 0; i < piece_size; ++i) {
      if (i < count) to[i] = round_to<T>(from[i]);
    }
  }
}

__device__ __forceinline__ int lane_of_thread() { return static_cast<int>(threadIdx.x) % warp_size; }
// The row of this thread's warp.
__device__ __forceinline__ int64_t row_of_warp() { return static_cast<int64_t>(blockIdx.x) * rows_per_block + threadIdx.x / warp_size; }

// A row's pieces, dealt to the lanes of a warp in turn. The row is kept in registers if it has at most Pieces · 256 elements, and read again
// by every pass for Pieces = 0.
template <class T, int Pieces>
class LaneRow {
 public:
  __device__ __forceinline__ LaneRow(const Rows& rows, int64_t row, int64_t columns, bool vectors)
      : from_(static_cast<const T*>(rows.data) + row * rows.stride), columns_(columns), vectors_(vectors) {
    if constexpr (Pieces > 0) {
#pragma unroll
      for (int p = 0; p < Pieces; ++p) {
        const int64_t column = first(p);
        load_piece(kept_[p], from_ + column, count(column), vectors_);
      }
    }
  }

  // f(values, column, count): the piece of `count` values from `column` on; values behind them are 0.
  template <class F>
  __device__ __forceinline__ void each(F&& f) const {
    if constexpr (Pieces > 0) {
#pragma unroll
      for (int p = 0; p < Pieces; ++p) {
        const int64_t column = first(p);
        if (column < columns_) f(kept_[p], column, count(column));
      }
    } else {
      for (int64_t column = first(0); column < columns_; column += warp_size * piece_size) {
        float values[piece_size];
        load_piece(values, from_ + column, count(column), vectors_);
        f(values, column, count(column));
      }
    }
  }

 private:
  __device__ __forceinline__ static int64_t first(int piece) { return static_cast<int64_t>(piece * warp_size + lane_of_thread()) * piece_size; }
  __device__ __forceinline__ int count(int64_t column) const {
    return static_cast<int>(columns_ - column < piece_size ? (columns_ > column ? columns_ - column : 0) : piece_size);
  }

  const T* from_;
  int64_t columns_;
  bool vectors_;
  float kept_[Pieces > 0 ? Pieces : 1][piece_size];
};

// Calls `f` with a value of the C++ type that `type` names.
template <class F>
cudaError_t with_float(DType type, F&& f) {
  switch (type) {
    case DType::float32:
      return f(float{});
    case DType::bfloat16:
      return f(bf16{});
    case DType::float16:
      return f(f16{});
    default:
      return cudaErrorInvalidValue;
  }
}

inline dim3 grid_of_rows(int64_t rows) { return grid_of(ceil_div(rows, rows_per_block)); }

// Keeps the first fault of the run's first faulty kernel.
__device__ __forceinline__ void report_fault(const FaultSlot& slot, int64_t position, int32_t value) {
  const uint32_t holder = atomicCAS(&slot.fault->kernel, no_kernel, slot.kernel);
  if (holder != no_kernel && holder != slot.kernel) return;
  atomicMin(reinterpret_cast<unsigned long long*>(&slot.fault->first),
            static_cast<unsigned long long>(position) << 32 | static_cast<uint32_t>(value));
}

// Where sequence s lies: rows [begin, begin + length). A sequence that no rows can be is reported, and is empty.
struct Span {
  int64_t begin, length;
};
__device__ __forceinline__ Span span_of(const Sequences& sequences, int64_t s, const FaultSlot& slot, bool report) {
  if (!sequences.cumulative) return {s * sequences.length, sequences.length};
  const int64_t begin = sequences.cumulative[s], end = sequences.cumulative[s + 1];
  if (s == 0 && begin != 0) {
    if (report) report_fault(slot, 0, static_cast<int32_t>(begin));
    return {0, 0};
  }
  if (begin < 0 || end < begin || end > sequences.rows) {
    if (report) report_fault(slot, s + 1, static_cast<int32_t>(end));
    return {0, 0};
  }
  return {begin, end - begin};
}

}  // namespace chiasma::cuda
