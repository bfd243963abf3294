// Tiles of shared memory whose rows are read by ldmatrix: 16-byte units of a row are permuted by the row's number (XOR), so that eight rows' units of one
// column, and one row's units, lie in different banks.
#pragma once

#include "cuda/ptx.cuh"

namespace chiasma::cuda {

constexpr int unit_bytes = 16;

// `Units` to a row.
template <int Units>
struct Tile {
  static constexpr int row_bytes = Units * unit_bytes;

  // Bytes from the tile's start to a unit.
  __device__ __forceinline__ static uint32_t offset(int row, int unit) {
    if constexpr (Units % 8 == 0) unit ^= row & 7;
    if constexpr (Units % 8 == 4) unit ^= row >> 1 & 3;
    if constexpr (Units % 4 == 2) unit ^= row >> 2 & 1;
    return static_cast<uint32_t>(row * row_bytes + unit * unit_bytes);
  }

  // Four 8×8 matrices of two-byte elements: rows `row` to `row` + 15 of units `unit` and `unit` + 1. Registers: the upper and lower rows of the first unit,
  // then of the second: an mma's a operand.
  __device__ __forceinline__ static void load_a(uint32_t (&to)[4], uint32_t tile, int row, int unit, int lane) {
    ptx::ldmatrix(to, tile + offset(row + lane % 16, unit + lane / 16));
  }

  // b operands of two neighbouring n8 blocks, whose columns are the tile's rows from `row` on.
  __device__ __forceinline__ static void load_b(uint32_t (&first)[2], uint32_t (&second)[2], uint32_t tile, int row, int unit, int lane) {
    uint32_t to[4];
    ptx::ldmatrix(to, tile + offset(row + lane / 16 * 8 + lane % 8, unit + lane / 8 % 2));
    first[0] = to[0];
    first[1] = to[1];
    second[0] = to[2];
    second[1] = to[3];
  }

  // The same where the tile's rows are k: b operands of the n8 blocks of units `unit` and `unit` + 1, for rows `row` to `row` + 15.
  __device__ __forceinline__ static void load_b_transposed(uint32_t (&first)[2], uint32_t (&second)[2], uint32_t tile, int row, int unit, int lane) {
    uint32_t to[4];
    ptx::ldmatrix<4, true>(to, tile + offset(row + lane % 16, unit + lane / 16));
    first[0] = to[0];
    first[1] = to[1];
    second[0] = to[2];
    second[1] = to[3];
  }
};

}  // namespace chiasma::cuda
