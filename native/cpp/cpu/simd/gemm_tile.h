// Register tiles: `rows` x `tile_columns` elements of C, held in registers over the whole of K.
// Packed x, per group of 4 steps: [rows][4] words; packed W, per step: [tile_columns] words. A word is a float, or a pair of bf16 of
// consecutive k for the dot-product instruction. Elsewhere bf16 has no arithmetic: x is held as floats and a word of W, with its pair of
// bf16, serves two steps, widened each time. Measured on an Intel Sapphire Rapids core: floats 96% of the peak of fused multiply-adds,
// widened 88%, dot products 50%, for that core starts only one every other cycle (an AMD Zen 4 starts one every cycle).
#pragma once

#include "cpu/simd/vec.h"

#if defined(_MSC_VER) && !defined(__clang__)
#define CHIASMA_UNROLL
#else
#define CHIASMA_UNROLL _Pragma("GCC unroll 16")
#endif

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

// As many accumulators as the registers hold beside a step's vectors of W and one broadcast of x.
#if defined(CHIASMA_VEC_512)
constexpr int tile_rows = 14, tile_vectors = 2;
#elif defined(CHIASMA_VEC_256)
constexpr int tile_rows = 6, tile_vectors = 2;
#else
constexpr int tile_rows = 4, tile_vectors = 2;
#endif
constexpr int tile_columns = tile_vectors * Vec::lanes;
constexpr int group_steps = 4;

// A vector of a packed panel: aligned.
#if defined(CHIASMA_VEC_512)
CHIASMA_INLINE Vec load_packed(const float* p) { return {_mm512_load_ps(p)}; }
#elif defined(CHIASMA_VEC_256)
CHIASMA_INLINE Vec load_packed(const float* p) { return {_mm256_load_ps(p)}; }
#else
CHIASMA_INLINE Vec load_packed(const float* p) { return load(p); }
#endif

// The even and the odd elements of a vector of pairs of bf16.
#if defined(CHIASMA_VEC_512)
CHIASMA_INLINE Vec load_even(const float* pairs) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_load_si512(pairs), 16))}; }
CHIASMA_INLINE Vec load_odd(const float* pairs) {
  return {_mm512_castsi512_ps(_mm512_and_si512(_mm512_load_si512(pairs), _mm512_set1_epi32(static_cast<int>(0xffff0000u))))};
}
#elif defined(CHIASMA_VEC_256)
CHIASMA_INLINE Vec load_even(const float* pairs) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_load_si256(reinterpret_cast<const __m256i*>(pairs)), 16))};
}
CHIASMA_INLINE Vec load_odd(const float* pairs) {
  return {_mm256_and_ps(_mm256_load_ps(pairs), _mm256_castsi256_ps(_mm256_set1_epi32(static_cast<int>(0xffff0000u))))};
}
#else
CHIASMA_INLINE Vec load_even(const float* pairs) { return make([&](int i) { return float_of(bits_of(pairs[i]) << 16); }); }
CHIASMA_INLINE Vec load_odd(const float* pairs) { return make([&](int i) { return float_of(bits_of(pairs[i]) & 0xffff0000u); }); }
#endif

// How a step reads W's panel `w`, which stands at the current group, and multiplies. `words`: of W's rows of the panel in a group.
struct Float32Step {
  static constexpr int words = group_steps;
  static CHIASMA_INLINE Vec load(const float* w, int step, int v) { return load_packed(w + step * tile_columns + v * Vec::lanes); }
  static CHIASMA_INLINE Vec multiply(const float* x, Vec w, Vec sum) { return fma(set(*x), w, sum); }
};

struct WidenedStep {
  static constexpr int words = group_steps / 2;
  static CHIASMA_INLINE Vec load(const float* w, int step, int v) {
    const float* pairs = w + step / 2 * tile_columns + v * Vec::lanes;
    return step % 2 == 0 ? load_even(pairs) : load_odd(pairs);
  }
  static CHIASMA_INLINE Vec multiply(const float* x, Vec w, Vec sum) { return fma(set(*x), w, sum); }
};

#if defined(CHIASMA_ISA_avx512_bf16)
struct DotStep {
  static constexpr int words = group_steps;
  static CHIASMA_INLINE Vec load(const float* w, int step, int v) { return Float32Step::load(w, step, v); }
  static CHIASMA_INLINE Vec multiply(const float* x, Vec w, Vec sum) {
    int pair;
    memcpy(&pair, x, sizeof pair);
    return {_mm512_dpbf16_ps(sum.v, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)w.v)};
  }
};
#endif

// sums [rows, tile_columns].
template <class Step, int rows>
void multiply_tile(const float* x, const float* w, int64_t groups, float* sums) {
  Vec sum[rows][tile_vectors];
  CHIASMA_UNROLL
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < tile_vectors; ++v) sum[r][v] = zero();
  }
  for (int64_t g = 0; g < groups; ++g) {
    CHIASMA_UNROLL
    for (int step = 0; step < group_steps; ++step) {
      Vec column[tile_vectors];
      CHIASMA_UNROLL
      for (int v = 0; v < tile_vectors; ++v) column[v] = Step::load(w, step, v);
      CHIASMA_UNROLL
      for (int r = 0; r < rows; ++r) {
        CHIASMA_UNROLL
        for (int v = 0; v < tile_vectors; ++v) sum[r][v] = Step::multiply(x + r * group_steps + step, column[v], sum[r][v]);
      }
    }
    x += rows * group_steps;
    w += Step::words * tile_columns;
  }
  CHIASMA_UNROLL
  for (int r = 0; r < rows; ++r) {
    CHIASMA_UNROLL
    for (int v = 0; v < tile_vectors; ++v) store(sums + r * tile_columns + v * Vec::lanes, sum[r][v]);
  }
}

using Tile = void (*)(const float* x, const float* w, int64_t groups, float* sums);

template <class Step, int rows = tile_rows>
Tile find_tile(int64_t wanted) {
  if constexpr (rows == 1) {
    return multiply_tile<Step, 1>;
  } else {
    return wanted == rows ? multiply_tile<Step, rows> : find_tile<Step, rows - 1>(wanted);
  }
}

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
