// Register tiles of AMX: 32 x 32 elements of C as four tiles, two of x and two of W beside them. A group is 16 words of a row of x, 32 bf16 or 64
// bytes; packed W has for each word of the depth the words of `amx_columns` columns, as for the dot products of vectors (gemm_tile.h).
// Rows are independent: a panel with fewer of them takes tiles with fewer rows. While tiles multiply, vectors finish the tile before (Aside).
#pragma once

#include "cpu/simd/gemm_tile.h"

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

constexpr int amx_side = 16;      // rows of a tile, and words of its row
constexpr int64_t amx_line = 64;  // bytes of a tile's row

// Eight whole tiles, unless some are given fewer rows.
struct alignas(64) AmxShape {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t columns[16] = {amx_line, amx_line, amx_line, amx_line, amx_line, amx_line, amx_line, amx_line};  // bytes
  uint8_t rows[16] = {amx_side, amx_side, amx_side, amx_side, amx_side, amx_side, amx_side, amx_side};
};

CHIASMA_INLINE void amx_load(const AmxShape& shape) {
  __asm__ volatile("" : : "r"(&shape) : "memory");  // GCC 12 does not know that the next instruction reads it
  _tile_loadconfig(&shape);
}

constexpr int amx_rows = 2 * amx_side, amx_columns = 2 * amx_side;

// Tiles 0 to 3: C; 4 and 5: rows of x; 6 and 7: of W.
void amx_configure(int64_t rows) {
  const int upper = static_cast<int>(rows < amx_side ? rows : amx_side), lower = static_cast<int>(rows) - upper;
  AmxShape shape;
  shape.rows[0] = shape.rows[1] = shape.rows[4] = static_cast<uint8_t>(upper);
  shape.rows[2] = shape.rows[3] = shape.rows[5] = static_cast<uint8_t>(lower > 0 ? lower : 1);
  amx_load(shape);
}

// Lines of the next group, into the first-level cache: 8 rows of x and as many lines of W. Tile loads alone wait for the second-level cache one after the other.
struct AmxAhead {
  const char* x;
  int64_t pitch;
  const char* w;

  CHIASMA_INLINE void fetch_rows() {
    CHIASMA_UNROLL
    for (int r = 0; r < amx_side / 2; ++r) __builtin_prefetch(x + r * pitch, 0, 3);
    x += amx_side / 2 * pitch;
  }
  CHIASMA_INLINE void fetch_words() {
    CHIASMA_UNROLL
    for (int r = 0; r < amx_side / 2; ++r) __builtin_prefetch(w + r * amx_line, 0, 3);
    w += amx_side / 2 * amx_line;
  }
};

// Loads and products take turns with the fetching, so that none waits for the others' queues.
template <bool bytes, bool lower>
CHIASMA_INLINE void amx_group(const char* x, int64_t pitch, const float* w, AmxAhead ahead) {
  constexpr int64_t w_pitch = amx_columns * sizeof(float);
  _tile_loadd(6, w, w_pitch);
  _tile_loadd(4, x, pitch);
  ahead.fetch_rows();
  ahead.fetch_words();
  if constexpr (bytes) _tile_dpbusd(0, 4, 6);
  else _tile_dpbf16ps(0, 4, 6);
  _tile_loadd(7, w + amx_side, w_pitch);
  ahead.fetch_rows();
  ahead.fetch_words();
  if constexpr (bytes) _tile_dpbusd(1, 4, 7);
  else _tile_dpbf16ps(1, 4, 7);
  if constexpr (lower) {
    _tile_loadd(5, x + amx_side * pitch, pitch);
    ahead.fetch_rows();
    ahead.fetch_words();
    if constexpr (bytes) _tile_dpbusd(2, 5, 6);
    else _tile_dpbf16ps(2, 5, 6);
    ahead.fetch_rows();
    ahead.fetch_words();
    if constexpr (bytes) _tile_dpbusd(3, 5, 7);
    else _tile_dpbf16ps(3, 5, 7);
  } else {
    ahead.fetch_words();
    ahead.fetch_words();
  }
}

// As multiply_tile, for a panel of at most 16 rows, or of at most 32 (`lower`), with the tiles configured for it.
template <bool bytes, bool lower>
void multiply_amx(const TileWork& work) {
  constexpr int64_t pitch = amx_columns * sizeof(float);
  __asm__ volatile("" : : : "memory");  // GCC 12 does not know that loads of tiles read memory
  float* const sums = work.sums;
  if (work.fresh) {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (lower) _tile_zero(2);
    if constexpr (lower) _tile_zero(3);
  } else {
    _tile_loadd(0, sums, pitch);
    _tile_loadd(1, sums + amx_side, pitch);
    if constexpr (lower) _tile_loadd(2, sums + amx_side * amx_columns, pitch);
    if constexpr (lower) _tile_loadd(3, sums + amx_side * amx_columns + amx_side, pitch);
  }
  const char* x = reinterpret_cast<const char*>(work.x);
  const int64_t x_pitch = work.x_pitch * static_cast<int64_t>(sizeof(float));
  const float* w = work.w;
  const float* ahead = work.ahead;
  const int64_t share = work.aside.rows > 0 ? (work.aside.rows + work.groups - 1) / work.groups : 0;  // a tile that has an aside has groups
  int64_t aside = 0;
  for (int64_t g = 0; g < work.groups; ++g, x += amx_line, w += amx_side * amx_columns) {
    const bool more = g + 1 < work.groups;
    const char* const next_x = more ? x + amx_line : reinterpret_cast<const char*>(work.next_x);
    const float* const next_w = more ? w + amx_side * amx_columns : work.next_w;
    amx_group<bytes, lower>(x, x_pitch, w, {next_x, x_pitch, reinterpret_cast<const char*>(next_w)});
    for (int64_t i = 0; i < work.ahead_lines; ++i, ahead += line_floats) prefetch(ahead);
    if (aside == work.aside.rows) continue;
    const int64_t end = aside + share < work.aside.rows ? aside + share : work.aside.rows;
    work.aside.run(work.aside.state, aside, end);
    aside = end;
  }
  _tile_stored(0, sums, pitch);
  _tile_stored(1, sums + amx_side, pitch);
  if constexpr (lower) _tile_stored(2, sums + amx_side * amx_columns, pitch);
  if constexpr (lower) _tile_stored(3, sums + amx_side * amx_columns + amx_side, pitch);
}

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
