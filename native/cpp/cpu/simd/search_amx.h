// Scores of bfloat16 and int8 rows by AMX. A query is split into three numbers of the rows' type, whose products with a row are exact: bfloat16
// parts of 8 bits each hold all 24 of a float; int8 parts, in steps of 1/127, 1/127/254 and 1/127/254² of the query's greatest number, hold 22.
// Each part has sums of its own, added at the end. Rows are read as they lie, 32 at a time, against groups of 16 queries.
// Tiles take subnormal numbers as zero and know infinity only by NaN: a bfloat16 score that is tiny or not finite is computed again by
// vectors. That depends on query and row alone, so a score does not depend on its company.
#pragma once

#include "cpu/simd/amx.h"
#include "cpu/simd/search.h"
#include "cpu/simd/vec_transpose.h"

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

constexpr int amx_parts = 3;
constexpr int64_t amx_group_rows = 2 * amx_side;  // of the corpus
constexpr int64_t amx_tile_words = amx_side * amx_side;
constexpr int64_t amx_most_features = 1 << 17;  // up to which sums of int8 fit their 32 bits
constexpr double part_step = 254;

// A prepared group: for each 64 bytes of a row a tile for each part, [words of the row][queries]; then the queries' scales, which int8 has.
constexpr int64_t amx_chunks(CorpusType type, int64_t d) { return (d * (type == CorpusType::int8 ? 1 : 2) + amx_line - 1) / amx_line; }

size_t amx_group_bytes(CorpusType type, int64_t d) {
  if (type == CorpusType::float32 || d > amx_most_features) return 0;
  return static_cast<size_t>(amx_chunks(type, d) * amx_parts * amx_tile_words + amx_side) * sizeof(float);
}

// Element i of query q in part `part`.
template <typename T>
T& part_at(void* group, int64_t i, int64_t q, int part) {
  constexpr int64_t in_word = 4 / sizeof(T), in_chunk = amx_line / static_cast<int64_t>(sizeof(T));
  T* const tile = static_cast<T*>(group) + (i / in_chunk * amx_parts + part) * amx_tile_words * in_word;
  return tile[(i % in_chunk / in_word * amx_side + q) * in_word + i % in_word];
}

void split_query(const float* query, int64_t d, int64_t q, Bf16*, void* group, float&) {
  for (int64_t i = 0; i < d; ++i) {
    float rest = query[i];
    for (int part = 0; part < amx_parts; ++part) {
      const Bf16 value = to_bf16(rest);
      part_at<Bf16>(group, i, q, part) = value;
      rest -= to_float(value);
    }
  }
}

void split_query(const float* query, int64_t d, int64_t q, int8_t*, void* group, float& scale) {
  float most = 0, poison = 0;
  for (int64_t i = 0; i < d; ++i) {
    most = fabsf(query[i]) > most ? fabsf(query[i]) : most;
    poison += query[i] * 0;
  }
  scale = most / 127 + poison;
  if (!(scale > 0)) return;  // all parts are zeros
  const double inverse = 127.0 / most;
  for (int64_t i = 0; i < d; ++i) {
    double rest = query[i] * inverse;
    for (int part = 0; part < amx_parts; ++part, rest *= part_step) {
      const double value = ::rint(rest);
      part_at<int8_t>(group, i, q, part) = static_cast<int8_t>(value);
      rest -= value;
    }
  }
}

template <typename T>
void prepare_group(const float* queries, int64_t stride, int64_t count, int64_t d, void* group, float* scales) {
  for (int64_t q = 0; q < count; ++q) split_query(queries + q * stride, d, q, static_cast<T*>(nullptr), group, scales[q]);
}

void amx_prepare(const float* queries, int64_t stride, int64_t count, CorpusType type, int64_t d, void* group) {
  const size_t bytes = amx_group_bytes(type, d);
  if (bytes == 0) return;
  memset(group, 0, bytes);
  float* const scales = reinterpret_cast<float*>(static_cast<char*>(group) + bytes) - amx_side;
  type == CorpusType::int8 ? prepare_group<int8_t>(queries, stride, count, d, group, scales)
                           : prepare_group<Bf16>(queries, stride, count, d, group, scales);
}

template <bool bytes>
CHIASMA_INLINE void amx_half(const char* rows, int64_t pitch, const char* parts) {
#define CHIASMA_PART(sum, part)                                            \
  _tile_loadd(7, parts + part * amx_tile_words * sizeof(float), amx_line); \
  if constexpr (bytes) _tile_dpbssd(sum, 6, 7);                            \
  else _tile_dpbf16ps(sum, 6, 7);
  _tile_loadd(6, rows, pitch);
  CHIASMA_PART(0, 0)
  CHIASMA_PART(1, 1)
  CHIASMA_PART(2, 2)
  _tile_loadd(6, rows + amx_side * pitch, pitch);
  CHIASMA_PART(3, 0)
  CHIASMA_PART(4, 1)
  CHIASMA_PART(5, 2)
#undef CHIASMA_PART
}

// sums [2 halves][parts][16 rows][16 queries] of `count` rows and one group.
template <bool bytes>
void amx_multiply(const char* rows, int64_t pitch, int64_t count, int64_t row_bytes, const char* group, bool ahead, float* sums) {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  alignas(64) char part[amx_group_rows * amx_line];
  for (int64_t at = 0; at < row_bytes; at += amx_line, group += amx_parts * amx_tile_words * sizeof(float)) {
    if (count == amx_group_rows && at + amx_line <= row_bytes) {
      if (ahead) {
        for (int64_t r = 0; r < amx_group_rows; ++r) __builtin_prefetch(rows + (amx_group_rows + r) * pitch + at, 0, 2);
      }
      amx_half<bytes>(rows + at, pitch, group);
      continue;
    }
    const int64_t some = row_bytes - at < amx_line ? row_bytes - at : amx_line;
    memset(part, 0, sizeof part);
    for (int64_t r = 0; r < count; ++r) memcpy(part + r * amx_line, rows + r * pitch + at, static_cast<size_t>(some));
    __asm__ volatile("" : : "r"(part) : "memory");  // as for amx_load
    amx_half<bytes>(part, amx_line, group);
  }
  _tile_stored(0, sums, amx_line);
  _tile_stored(1, sums + amx_tile_words, amx_line);
  _tile_stored(2, sums + 2 * amx_tile_words, amx_line);
  _tile_stored(3, sums + 3 * amx_tile_words, amx_line);
  _tile_stored(4, sums + 4 * amx_tile_words, amx_line);
  _tile_stored(5, sums + 5 * amx_tile_words, amx_line);
}

// A row's products with 16 queries.
template <bool bytes>
CHIASMA_INLINE Vec amx_product(const float* sums, const float* scales) {
  const float *const second = sums + amx_tile_words, *const third = second + amx_tile_words;
  if constexpr (bytes) {
    const auto whole = [](const float* p) { return Vec{_mm512_cvtepi32_ps(_mm512_load_si512(p))}; };
    const Vec low = fma(whole(third), set(1 / static_cast<float>(part_step)), whole(second));
    return fma(low, set(1 / static_cast<float>(part_step)), whole(sums)) * load(scales);
  } else {
    return load(third) + load(second) + load(sums);
  }
}

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
