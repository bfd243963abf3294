// The shape of AMX's eight tiles.
#pragma once

#include "cpu/simd/vec.h"

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

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
