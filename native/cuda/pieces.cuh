// For kernels in which each thread has a piece of eight elements of a row.
#pragma once

#include "cuda/rows.cuh"

namespace chiasma::cuda {

constexpr int piece_threads = 256;

// The piece of this thread: `count` elements from `column` of `row` on; 0 where there is none left.
struct Place {
  int64_t row, column;
  int count;
};
__device__ __forceinline__ Place place_of_thread(int64_t rows, int64_t columns) {
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * piece_threads + threadIdx.x;
  const int64_t pieces = ceil_div(columns, piece_size);
  const int64_t row = piece / pieces, column = piece % pieces * piece_size;
  const int64_t left = row < rows ? columns - column : 0;
  return {row, column, static_cast<int>(left < piece_size ? left : piece_size)};
}

inline dim3 grid_of_pieces(int64_t rows, int64_t columns) { return grid_of(ceil_div(rows * ceil_div(columns, piece_size), piece_threads)); }

}  // namespace chiasma::cuda
