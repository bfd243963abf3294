// Register tiles: `rows` x `tile_columns` elements of C, held in registers over the whole of K.
// x: rows of words, of which a group of 4 steps is read at a time; packed W, per step: [tile_columns] words. A word is a float, or a pair of bf16 of
// consecutive k for the dot-product instruction, or four int8. AVX2 multiplies pairs of int16: x is held as these and a word of W, with its
// four int8, serves two steps. Elsewhere bf16 and int8 have no arithmetic: x is held as floats and a word of W, with its pair of bf16 or its four
// int8, serves two or four steps, widened each time. Sums of products of integers are integers, kept in the same registers and memory as floats.
#pragma once

#include "cpu/simd/vec.h"

#define CHIASMA_UNROLL _Pragma("GCC unroll 16")

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

// Accumulators for most of the registers, beside a step's vectors of W and a broadcast of x. 8 x 48 takes fewer loads and instructions for
// a multiply-add than 14 x 32, which has more accumulators.
#if defined(CHIASMA_VEC_512)
constexpr int tile_rows = 8, tile_vectors = 3;
#elif defined(CHIASMA_VEC_256)
constexpr int tile_rows = 6, tile_vectors = 2;
#else
constexpr int tile_rows = 4, tile_vectors = 2;
#endif
constexpr int tile_columns = tile_vectors * Vec::lanes;
constexpr int group_steps = 4;
constexpr int64_t line_floats = 16;  // of a cache line

// Into the second-level cache.
CHIASMA_INLINE void prefetch(const float* p) { __builtin_prefetch(p, 0, 2); }

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
CHIASMA_INLINE Words load_pairs(const float* pairs) {  // they were stored as words
  Words words;
  memcpy(&words, pairs, sizeof words);
  return words;
}
CHIASMA_INLINE Vec load_even(const float* pairs) { return {(Floats)(load_pairs(pairs) << 16)}; }
CHIASMA_INLINE Vec load_odd(const float* pairs) { return {(Floats)(load_pairs(pairs) & 0xffff0000u)}; }
#endif

// Element `step` of each word of int8, as floats.
#if defined(CHIASMA_VEC_512)
CHIASMA_INLINE Vec load_byte(const float* words, int step) {
  const __m512i all = _mm512_load_si512(words);
  return {_mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_sll_epi32(all, _mm_cvtsi32_si128(24 - 8 * step)), 24))};
}
#elif !defined(CHIASMA_VEC_256)
CHIASMA_INLINE Vec load_byte(const float* words, int step) {
  Words all;
  memcpy(&all, words, sizeof all);
  return widen((Ints)(all << (24 - 8 * step)) >> 24);
}
#endif

// sum + x·w. By the instruction itself, which leaves the sum in its register: GCC's own choice lets sums wait in memory where registers are few, on AVX-512
// beside what finishes another tile.
#if defined(CHIASMA_VEC_256) || defined(CHIASMA_VEC_512)
CHIASMA_INLINE Vec accumulate(Vec x, Vec w, Vec sum) {
  asm("vfmadd231ps %2, %1, %0" : "+v"(sum.v) : "v"(x.v), "v"(w.v));
  return sum;
}
#else
CHIASMA_INLINE Vec accumulate(Vec x, Vec w, Vec sum) { return fma(x, w, sum); }
#endif

// How a step reads W's panel `w`, which stands at the current group, and multiplies. `words`: of W's rows of the panel in a group.
struct Float32Step {
  static constexpr int words = group_steps;
  static CHIASMA_INLINE Vec load(const float* w, int step, int v) { return load_packed(w + step * tile_columns + v * Vec::lanes); }
  static CHIASMA_INLINE Vec multiply(const float* x, Vec w, Vec sum) { return accumulate(set(*x), w, sum); }
};

struct WidenedStep {
  static constexpr int words = group_steps / 2;
  static CHIASMA_INLINE Vec load(const float* w, int step, int v) {
    const float* pairs = w + step / 2 * tile_columns + v * Vec::lanes;
    return step % 2 == 0 ? load_even(pairs) : load_odd(pairs);
  }
  static CHIASMA_INLINE Vec multiply(const float* x, Vec w, Vec sum) { return accumulate(set(*x), w, sum); }
};

#if defined(CHIASMA_VEC_256)
// Pairs of int16. The even two of a word's four bytes meet the even two of x's four, the odd ones the odd: x's words hold them in that order.
struct PairStep {
  static constexpr int words = group_steps;
  static CHIASMA_INLINE Vec load(const float* w, int step, int v) { return Float32Step::load(w, step, v); }
  static CHIASMA_INLINE Vec multiply(const float* x, Vec w, Vec sum) {
    int pair;
    memcpy(&pair, x, sizeof pair);
    const __m256i products = _mm256_madd_epi16(_mm256_castps_si256(w.v), _mm256_set1_epi32(pair));
    asm("vpaddd %1, %0, %0" : "+x"(sum.v) : "x"(products));  // as in `accumulate`
    return sum;
  }
};

struct BytePairStep : PairStep {
  static constexpr int words = group_steps / 2;
  static CHIASMA_INLINE Vec load(const float* w, int step, int v) {
    __m256i bytes = _mm256_load_si256(reinterpret_cast<const __m256i*>(w + step / 2 * tile_columns + v * Vec::lanes));
    if (step % 2 == 0) bytes = _mm256_slli_epi16(bytes, 8);
    return {_mm256_castsi256_ps(_mm256_srai_epi16(bytes, 8))};
  }
};
#else
struct WidenedByteStep {
  static constexpr int words = group_steps / 4;
  static CHIASMA_INLINE Vec load(const float* w, int step, int v) { return load_byte(w + v * Vec::lanes, step); }
  static CHIASMA_INLINE Vec multiply(const float* x, Vec w, Vec sum) { return accumulate(set(*x), w, sum); }
};
#endif

#if defined(CHIASMA_HAS_BYTE_DOT)
struct ByteDotStep {
  static constexpr int words = group_steps;
  static CHIASMA_INLINE Vec load(const float* w, int step, int v) { return Float32Step::load(w, step, v); }
  static CHIASMA_INLINE Vec multiply(const float* x, Vec w, Vec sum) {
    int four;
    memcpy(&four, x, sizeof four);
    asm("vpdpbusd %2, %1, %0" : "+v"(sum.v) : "v"(_mm512_set1_epi32(four)), "v"(w.v));
    return sum;
  }
};
#endif

#if defined(CHIASMA_ISA_avx512_bf16)
struct DotStep {
  static constexpr int words = group_steps;
  static CHIASMA_INLINE Vec load(const float* w, int step, int v) { return Float32Step::load(w, step, v); }
  static CHIASMA_INLINE Vec multiply(const float* x, Vec w, Vec sum) {
    int pair;
    memcpy(&pair, x, sizeof pair);
    asm("vdpbf16ps %2, %1, %0" : "+v"(sum.v) : "v"(_mm512_set1_epi32(pair)), "v"(w.v));
    return sum;
  }
};
#endif

// `groups` groups of a panel as floats or, from bytes for AVX2, pairs of int16.
template <class Step>
CHIASMA_INLINE void widen_panel(const float* w, int64_t groups, float* out) {
  for (int64_t g = 0; g < groups; ++g, w += Step::words * tile_columns) {
    CHIASMA_UNROLL
    for (int step = 0; step < group_steps; ++step, out += tile_columns) {
      CHIASMA_UNROLL
      for (int v = 0; v < tile_vectors; ++v) store(out + v * Vec::lanes, Step::load(w, step, v));
    }
  }
}

// Rows of something else, done between the products of a tile where these leave the vector units free.
struct Aside {
  void (*run)(const void* state, int64_t begin, int64_t end);
  const void* state;
  int64_t rows;  // 0 if there is nothing
};

struct TileWork {
  const float* x;
  int64_t x_pitch;  // floats from one row to the next
  const float* w;
  int64_t groups;
  float* sums;  // [rows, tile_columns], in and out; only out if `fresh`
  bool fresh;
  const float* ahead;   // what comes next of W, or any place:
  int64_t ahead_lines;  // so many cache lines of it are fetched in each group, or always the first
  const float *next_x, *next_w;  // where the tile after this one begins, or any place; for tiles of AMX alone
  Aside aside;  // for tiles of AMX, and for those that finish another or themselves
};

// The sums of a tile, and the groups that it has read. `vectors` of a panel's: the rest of its columns are padding.
template <class Step, int rows, int vectors>
struct TileSums {
  static_assert(rows <= 8);
  CHIASMA_INLINE explicit TileSums(const TileWork& work)
      : x(reinterpret_cast<const char*>(work.x)), from_fifth(x + 4 * work.x_pitch * 4), pitch(work.x_pitch * 4), pitches(3 * pitch), w(work.w), ahead(work.ahead) {
    CHIASMA_UNROLL
    for (int r = 0; r < rows; ++r) {
      CHIASMA_UNROLL
      for (int v = 0; v < vectors; ++v) sum[r][v] = work.fresh ? zero() : load_packed(work.sums + r * tile_columns + v * Vec::lanes);
    }
  }

  // The products of a group with vectors [begin, end) of W; after those of each step, between(step).
  template <typename Between>
  CHIASMA_INLINE void add_vectors(int begin, int end, const Between& between) {
    asm("" : "+r"(pitch), "+r"(pitches));  // else GCC keeps the sum of these and each step, in more registers than there are
    CHIASMA_UNROLL
    for (int step = 0; step < group_steps; ++step) {
      Vec column[vectors];
      CHIASMA_UNROLL
      for (int v = begin; v < end; ++v) column[v] = Step::load(w, step, v);
      CHIASMA_UNROLL
      for (int r = 0; r < rows; ++r) {
        const char* const four = r < 4 ? x : from_fifth;
        const char* const row = r % 4 == 0 ? four : r % 4 == 1 ? four + pitch : r % 4 == 2 ? four + 2 * pitch : four + pitches;
        CHIASMA_UNROLL
        for (int v = begin; v < end; ++v) sum[r][v] = Step::multiply(reinterpret_cast<const float*>(row) + step, column[v], sum[r][v]);
      }
      between(step);
    }
  }

  template <typename Between>
  CHIASMA_INLINE void add_group(const TileWork& work, const Between& between) {
    add_vectors(0, vectors, between);
    x += group_steps * 4;
    from_fifth += group_steps * 4;
    w += Step::words * tile_columns;
    fetch_ahead(work);
  }
  CHIASMA_INLINE void add_group(const TileWork& work) {
    add_group(work, [](int) {});
  }

  CHIASMA_INLINE void fetch_ahead(const TileWork& work) {
    prefetch(ahead);
    for (int64_t i = 1; i < work.ahead_lines; ++i) prefetch(ahead + i * line_floats);
    ahead += work.ahead_lines * line_floats;
  }

  CHIASMA_INLINE void store_to(float* sums) const {
    CHIASMA_UNROLL
    for (int r = 0; r < rows; ++r) {
      CHIASMA_UNROLL
      for (int v = 0; v < vectors; ++v) store(sums + r * tile_columns + v * Vec::lanes, sum[r][v]);
    }
  }

  const char *x, *from_fifth;  // where the group begins in the first row and in the fifth
  int64_t pitch, pitches;  // bytes from one row to the next, and to the third after it
  const float *w, *ahead;
  Vec sum[rows][vectors];
};

template <class Step, int rows, int vectors>
void multiply_tile(const TileWork& work) {
  TileSums<Step, rows, vectors> tile(work);
  for (int64_t g = 0; g < work.groups; ++g) tile.add_group(work);
  tile.store_to(work.sums);
}

using Tile = void (*)(const TileWork& work);

template <class Step, int rows = tile_rows, int vectors = tile_vectors>
Tile find_tile(int64_t wanted, int64_t wanted_vectors = tile_vectors) {
  if constexpr (vectors > 1) {
    if (wanted_vectors < vectors) return find_tile<Step, rows, vectors - 1>(wanted, wanted_vectors);
  }
  if constexpr (rows > 1) {
    if (wanted < rows) return find_tile<Step, rows - 1, vectors>(wanted, wanted_vectors);
  }
  return multiply_tile<Step, rows, vectors>;
}

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
