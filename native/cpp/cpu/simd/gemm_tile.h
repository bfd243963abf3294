// Register tiles: `rows` x `panel_columns` elements of C, held in registers over the whole of K.
// Packed x, per group of 4 steps: [rows][4] words; packed W, per step: [panel_columns] words. A word is a float, or a pair of bf16 of
// consecutive k for the dot-product instruction. Where bf16 has no arithmetic x is held as floats and a pair of W's steps is widened.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(CHIASMA_ISA_avx2) || defined(CHIASMA_ISA_avx512) || defined(CHIASMA_ISA_avx512_bf16)
#include <immintrin.h>
#endif

#if defined(_MSC_VER)
#define CHIASMA_UNROLL
#define CHIASMA_INLINE __forceinline
#else
#define CHIASMA_UNROLL _Pragma("GCC unroll 16")
#define CHIASMA_INLINE inline __attribute__((always_inline))
#endif

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

// The vector of accumulators, and how many columns and rows of them fill the registers.
#if defined(CHIASMA_ISA_avx512) || defined(CHIASMA_ISA_avx512_bf16)

using TileVector = __m512;
constexpr int tile_width = 16, tile_vectors = 2, tile_rows = 14;

CHIASMA_INLINE TileVector tile_zero() { return _mm512_setzero_ps(); }
CHIASMA_INLINE TileVector tile_broadcast(const float* p) { return _mm512_set1_ps(*p); }
CHIASMA_INLINE TileVector tile_load(const float* p) { return _mm512_load_ps(p); }
CHIASMA_INLINE void tile_store(float* p, TileVector v) { _mm512_store_ps(p, v); }
CHIASMA_INLINE TileVector tile_fma(TileVector a, TileVector b, TileVector c) { return _mm512_fmadd_ps(a, b, c); }
// The even and the odd elements of pairs of bf16.
CHIASMA_INLINE TileVector tile_even(const void* p) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_load_si512(p), 16)); }
CHIASMA_INLINE TileVector tile_odd(const void* p) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_load_si512(p), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
CHIASMA_INLINE void tile_prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

#elif defined(CHIASMA_ISA_avx2)

using TileVector = __m256;
constexpr int tile_width = 8, tile_vectors = 2, tile_rows = 6;

CHIASMA_INLINE TileVector tile_zero() { return _mm256_setzero_ps(); }
CHIASMA_INLINE TileVector tile_broadcast(const float* p) { return _mm256_broadcast_ss(p); }
CHIASMA_INLINE TileVector tile_load(const float* p) { return _mm256_load_ps(p); }
CHIASMA_INLINE void tile_store(float* p, TileVector v) { _mm256_store_ps(p, v); }
CHIASMA_INLINE TileVector tile_fma(TileVector a, TileVector b, TileVector c) { return _mm256_fmadd_ps(a, b, c); }
CHIASMA_INLINE TileVector tile_even(const void* p) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_load_si256(static_cast<const __m256i*>(p)), 16));
}
CHIASMA_INLINE TileVector tile_odd(const void* p) {
  return _mm256_castsi256_ps(
      _mm256_and_si256(_mm256_load_si256(static_cast<const __m256i*>(p)), _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
CHIASMA_INLINE void tile_prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }

#else  // portable: four lanes, which most processors have; the product and the sum are rounded each

struct TileVector {
  float lane[4];
};
constexpr int tile_width = 4, tile_vectors = 2, tile_rows = 4;

CHIASMA_INLINE TileVector tile_zero() { return {{0, 0, 0, 0}}; }
CHIASMA_INLINE TileVector tile_broadcast(const float* p) { return {{*p, *p, *p, *p}}; }
CHIASMA_INLINE TileVector tile_load(const float* p) { return {{p[0], p[1], p[2], p[3]}}; }
CHIASMA_INLINE void tile_store(float* p, TileVector v) { std::memcpy(p, v.lane, sizeof v.lane); }
CHIASMA_INLINE TileVector tile_fma(TileVector a, TileVector b, TileVector c) {
  for (int i = 0; i < 4; ++i) c.lane[i] += a.lane[i] * b.lane[i];
  return c;
}
CHIASMA_INLINE TileVector tile_even(const void* p) {
  uint32_t words[4];
  std::memcpy(words, p, sizeof words);
  for (uint32_t& word : words) word <<= 16;
  TileVector v;
  std::memcpy(v.lane, words, sizeof words);
  return v;
}
CHIASMA_INLINE TileVector tile_odd(const void* p) {
  uint32_t words[4];
  std::memcpy(words, p, sizeof words);
  for (uint32_t& word : words) word &= 0xffff0000u;
  TileVector v;
  std::memcpy(v.lane, words, sizeof words);
  return v;
}
CHIASMA_INLINE void tile_prefetch(const void*) {}

#endif

constexpr int tile_columns = tile_width * tile_vectors;
constexpr int group_steps = 4;

// How a step reads and multiplies. `b` is W's panel at the current group.
struct Float32Step {
  static constexpr int words = group_steps;  // of W in a group
  static CHIASMA_INLINE TileVector load(const float* b, int step, int v) { return tile_load(b + step * tile_columns + v * tile_width); }
  static CHIASMA_INLINE TileVector multiply(const float* a, TileVector b, TileVector c) { return tile_fma(tile_broadcast(a), b, c); }
};

struct WidenedStep {
  static constexpr int words = group_steps / 2;
  static CHIASMA_INLINE TileVector load(const float* b, int step, int v) {
    const float* pair = b + step / 2 * tile_columns + v * tile_width;
    return step % 2 == 0 ? tile_even(pair) : tile_odd(pair);
  }
  static CHIASMA_INLINE TileVector multiply(const float* a, TileVector b, TileVector c) { return tile_fma(tile_broadcast(a), b, c); }
};

#if defined(CHIASMA_ISA_avx512_bf16)
struct DotStep {
  static constexpr int words = group_steps;
  static CHIASMA_INLINE TileVector load(const float* b, int step, int v) { return Float32Step::load(b, step, v); }
  static CHIASMA_INLINE TileVector multiply(const float* a, TileVector b, TileVector c) {
    int pair;
    std::memcpy(&pair, a, sizeof pair);
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_set1_epi32(pair), (__m512bh)b);
  }
};
#endif

// c [rows, tile_columns], 64-byte aligned.
template <class Step, int rows>
void multiply_tile(const float* a, const float* b, int64_t groups, float* c) {
  TileVector sum[rows][tile_vectors];
  CHIASMA_UNROLL
  for (int r = 0; r < rows; ++r)
    for (int v = 0; v < tile_vectors; ++v) sum[r][v] = tile_zero();

  for (int64_t g = 0; g < groups; ++g) {
    CHIASMA_UNROLL
    for (int step = 0; step < group_steps; ++step) {
      TileVector w[tile_vectors];
      CHIASMA_UNROLL
      for (int v = 0; v < tile_vectors; ++v) w[v] = Step::load(b, step, v);
      CHIASMA_UNROLL
      for (int r = 0; r < rows; ++r)
        CHIASMA_UNROLL
        for (int v = 0; v < tile_vectors; ++v) sum[r][v] = Step::multiply(a + r * group_steps + step, w[v], sum[r][v]);
    }
    a += rows * group_steps;
    b += Step::words * tile_columns;
  }

  CHIASMA_UNROLL
  for (int r = 0; r < rows; ++r)
    CHIASMA_UNROLL
    for (int v = 0; v < tile_vectors; ++v) tile_store(c + r * tile_columns + v * tile_width, sum[r][v]);
}

using Tile = void (*)(const float* a, const float* b, int64_t groups, float* c);

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
