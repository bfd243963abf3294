// What the matrix multiply of gemm.h packs, weights and rows of x, and the panels that they are cut into.
// Included only by gemm.cpp.
#pragma once

#include "cpu/simd/gemm.h"

#include <type_traits>

#if defined(CHIASMA_ISA_avx512_vnni) || defined(CHIASMA_ISA_avx512_bf16) || defined(CHIASMA_ISA_amx)
#define CHIASMA_HAS_BYTE_DOT 1  // VPDPBUSD: four products of unsigned and signed bytes
#endif
#if defined(CHIASMA_ISA_amx)
#include "cpu/simd/gemm_amx.h"
#else
#include "cpu/simd/gemm_tile.h"
#endif

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

#if defined(CHIASMA_ISA_avx512_bf16) || defined(CHIASMA_ISA_amx)
constexpr bool has_dot = true;
#else
constexpr bool has_dot = false;
#endif

#if defined(CHIASMA_HAS_BYTE_DOT)
constexpr bool has_byte_dot = true;
#else
constexpr bool has_byte_dot = false;
#endif

// What int8 is multiplied by: four bytes a word, pairs of int16, or single floats where there is neither.
#if defined(CHIASMA_HAS_BYTE_DOT)
constexpr int64_t bytes_per_word = 4;
using ByteStep = ByteDotStep;
using WideByteStep = ByteDotStep;  // never widened
#elif defined(CHIASMA_VEC_256)
constexpr int64_t bytes_per_word = 2;
using ByteStep = BytePairStep;
using WideByteStep = PairStep;
#else
constexpr int64_t bytes_per_word = 1;
using ByteStep = WidenedByteStep;
using WideByteStep = Float32Step;
#endif

constexpr int64_t stream_ahead = 1024;  // floats from what a lone row panel reads of W to what it fetches

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// A panel of C, and the words of a row of x that are read at a time.
struct Geometry {
  int64_t rows, columns, group;
};
constexpr Geometry vector_geometry = {tile_rows, tile_columns, group_steps};
constexpr Geometry geometry_of(GemmType weight_type) {
#if defined(CHIASMA_ISA_amx)
  if (weight_type != GemmType::float32) return {amx_rows, amx_columns, amx_side};
#endif
  return vector_geometry;
}
#if defined(CHIASMA_ISA_amx)
constexpr int64_t row_unit = amx_rows;
#else
constexpr int64_t row_unit = 1;  // tiles of a row less take as much less time
#endif
int64_t panel_columns(GemmType weight_type) { return geometry_of(weight_type).columns; }

// Groups that K takes. With dot products a word is two k.
template <bool dot>
int64_t groups_of(int64_t k, GemmType weight_type) {
#if defined(CHIASMA_ISA_amx)
  if (weight_type == GemmType::int8) return round_up(k, 64) / 64;
  if (weight_type == GemmType::bfloat16) return round_up(k, 32) / 32;
#endif
  if (weight_type == GemmType::float32) return round_up(k, 4) / 4;
  if (weight_type == GemmType::int8) return round_up(k, 16) / (4 * bytes_per_word);
  return dot ? round_up(k, 8) / 8 : round_up(k, 8) / 4;
}

// Words of one column of a packed panel of W.
int64_t panel_depth(int64_t k, GemmType type) {
#if defined(CHIASMA_ISA_amx)
  if (type != GemmType::float32) return groups_of<true>(k, type) * amx_side;
#endif
  if (type == GemmType::float32) return round_up(k, 4);
  return type == GemmType::int8 ? round_up(k, 16) / 4 : round_up(k, 8) / 2;
}

// Behind the panels of an int8 weight: each column's scale, then the sum of each column's bytes.
constexpr int64_t column_words(GemmType type) { return type == GemmType::int8 ? 2 : 0; }
// Behind the groups of a packed row for an int8 weight: its scale, then its zero.
constexpr int64_t row_extra(GemmType weight_type) { return weight_type == GemmType::int8 ? 2 : 0; }

size_t weight_bytes(int64_t n, int64_t k, GemmType type) {
  return static_cast<size_t>(round_up(n, panel_columns(type))) * static_cast<size_t>(panel_depth(k, type) + column_words(type)) * sizeof(float);
}

uint32_t float_bits(const float* p) { return bits_of(*p); }
uint32_t float_bits(const Bf16* p) { return static_cast<uint32_t>(p->bits) << 16; }
uint32_t bf16_bits(const float* p) { return to_bf16(*p).bits; }
uint32_t bf16_bits(const Bf16* p) { return p->bits; }

// `count` rows of W into columns [column, column + count) of one panel.
template <typename T>
void pack_columns(const T* rows, int64_t stride, int64_t column, int64_t count, int64_t k, GemmType type, uint32_t* panel) {
  const int64_t depth = panel_depth(k, type);
  const int64_t width = panel_columns(type);
  uint32_t* to = panel + column;
  if (type == GemmType::float32) {
    for (int64_t i = 0; i < depth; ++i, to += width) {
      for (int64_t c = 0; c < count; ++c) to[c] = i < k ? float_bits(rows + c * stride + i) : 0;
    }
  } else {
    for (int64_t i = 0; i < depth; ++i, to += width) {
      for (int64_t c = 0; c < count; ++c) {
        const T* pair = rows + c * stride + 2 * i;
        const uint32_t even = 2 * i < k ? bf16_bits(pair) : 0;
        const uint32_t odd = 2 * i + 1 < k ? bf16_bits(pair + 1) : 0;
        to[c] = odd << 16 | even;
      }
    }
  }
}

// The step between the numbers that bytes can be: what a range of so many such steps needs, NaN for one that is not finite.
// A range too small for its inverse counts as none.
struct ByteScale {
  float step, inverse;
};
ByteScale byte_scale(float range, float steps) {
  if (!(range < INFINITY)) return {NAN, 0};
  return range < 1e-30f ? ByteScale{0, 0} : ByteScale{range / steps, steps / range};
}

// One row of W into column `column` of a panel as bytes; its scale and the sum of its bytes.
template <typename T>
void pack_byte_column(const T* row, int64_t column, int64_t k, uint32_t* panel, float& scale, int32_t& sum) {
  float largest = 0, poison = 0;
  for (int64_t i = 0; i < k; ++i) {
    const float value = fabsf(to_float(row[i]));
    largest = value > largest ? value : largest;
    poison += value * 0;
  }
  const ByteScale bytes = byte_scale(largest + poison, 127);
  scale = bytes.step;
  sum = 0;
  uint32_t* to = panel + column;
  for (int64_t i = 0; i < 4 * panel_depth(k, GemmType::int8); i += 4, to += panel_columns(GemmType::int8)) {
    uint32_t word = 0;
    for (int64_t j = i; j < i + 4 && j < k && bytes.inverse > 0; ++j) {
      // Adding 1.5·2²³ rounds to the nearest integer, ties to even.
      const float rounded = (to_float(row[j]) * bytes.inverse + 0x1.8p23f) - 0x1.8p23f;
      const int32_t byte = static_cast<int32_t>(rounded);
      sum += byte;
      word |= static_cast<uint32_t>(byte & 0xff) << (8 * (j - i));
    }
    *to = word;
  }
}

template <typename T>
void pack_byte_weight(const T* rows, int64_t stride, int64_t begin, int64_t count, int64_t n, int64_t k, uint32_t* packed) {
  const int64_t depth = panel_depth(k, GemmType::int8);
  const int64_t width = panel_columns(GemmType::int8);
  const int64_t columns = round_up(n, width);
  uint32_t* const scales = packed + columns * depth;
  uint32_t* const sums = scales + columns;
  for (int64_t row = begin; row < begin + count; ++row) {
    const int64_t column = row % width;
    float scale;
    int32_t sum;
    pack_byte_column(rows + (row - begin) * stride, column, k, packed + (row - column) * depth, scale, sum);
    scales[row] = bits_of(scale);
    sums[row] = static_cast<uint32_t>(sum);
  }
  if (begin + count < n) return;
  for (int64_t row = n; row < columns; ++row) {
    uint32_t* to = packed + (columns - width) * depth + row % width;
    for (int64_t i = 0; i < depth; ++i) to[i * width] = 0;
    scales[row] = sums[row] = 0;
  }
}

template <typename T>
void pack_weight_of(const T* rows, int64_t stride, int64_t begin, int64_t count, int64_t n, int64_t k, GemmType type, uint32_t* packed) {
  if (type == GemmType::int8) return pack_byte_weight(rows, stride, begin, count, n, k, packed);
  const int64_t depth = panel_depth(k, type);
  const int64_t width = panel_columns(type);
  const int64_t end = begin + count;
  for (int64_t row = begin; row < end;) {
    const int64_t column = row % width;
    const int64_t part = smaller(width - column, end - row);
    pack_columns(rows + (row - begin) * stride, stride, column, part, k, type, packed + (row - column) * depth);
    row += part;
  }
  const int64_t used = n % width;
  if (end == n && used > 0) {
    uint32_t* panel = packed + (n - used) * depth;
    for (int64_t i = 0; i < depth; ++i) memset(panel + i * width + used, 0, static_cast<size_t>(width - used) * sizeof(uint32_t));
  }
}

void pack_weight(const void* rows, GemmType rows_type, int64_t stride, int64_t begin, int64_t count, int64_t n, int64_t k, GemmType type,
                 void* packed) {
  uint32_t* to = static_cast<uint32_t*>(packed);
  if (rows_type == GemmType::float32) {
    pack_weight_of(static_cast<const float*>(rows), stride, begin, count, n, k, type, to);
  } else {
    pack_weight_of(static_cast<const Bf16*>(rows), stride, begin, count, n, k, type, to);
  }
}

CHIASMA_INLINE Vec round_to_bf16(Vec value) {
  Bf16 halves[Vec::lanes];
  store(halves, value);
  return load(halves);
}

// `count` elements of a row as words, and zeros in the rest of them.
template <bool dot, typename T>
void pack_row(const T* x, int64_t count, int64_t words, GemmType weight_type, uint32_t* out) {
  const int64_t elements = dot && weight_type == GemmType::bfloat16 ? 2 * words : words;
  const auto pack = [&](int64_t i, Vec value) {
    if (weight_type == GemmType::float32) {
      store(reinterpret_cast<float*>(out) + i, value);
    } else if constexpr (dot) {
      store(reinterpret_cast<Bf16*>(out) + i, value);
    } else {
      store(reinterpret_cast<float*>(out) + i, round_to_bf16(value));
    }
  };
  int64_t i = 0;
  for (; i + Vec::lanes <= count; i += Vec::lanes) pack(i, load(x + i));
  if (i < count) pack(i, load_part(x + i, static_cast<int>(count - i)));
  for (i = round_up(count, Vec::lanes); i < elements; i += Vec::lanes) pack(i, zero());
}

struct RowBytes {
  float scale, inverse, zero;
};

// lowest <= 0 <= highest; one of them is not finite if there is such a number in the row.
RowBytes row_bytes_of(float lowest, float highest) {
  const ByteScale bytes = byte_scale(highest - lowest, 255);
  return {bytes.step, bytes.inverse, bytes.inverse > 0 ? (-lowest * bytes.inverse + 0x1.8p23f) - 0x1.8p23f : 0};
}

RowBytes measure_row(const int8_t*, int64_t) { return {1, 1, 128}; }

template <typename T>
RowBytes measure_row(const T* x, int64_t k) {
  Vec low = zero(), high = zero(), poison = zero();
  const auto include = [&](Vec value) {
    low = min(value, low);
    high = max(value, high);
    poison = fma(value, zero(), poison);
  };
  int64_t i = 0;
  for (; i + Vec::lanes <= k; i += Vec::lanes) include(load(x + i));
  if (i < k) include(load_part(x + i, static_cast<int>(k - i)));
  return row_bytes_of(-reduce_max(-low), reduce_max(high) + reduce_sum(poison));
}

#if defined(CHIASMA_VEC_512)
// bfloat16 as integers, 32 at a time: the greatest signed one is the highest number, the greatest unsigned one the lowest below zero. NaN lies beyond infinity.
RowBytes measure_row(const Bf16* x, int64_t k) {
  __m512i high = _mm512_setzero_si512(), low = _mm512_set1_epi16(-0x8000);
  for (int64_t i = 0; i < k; i += 32) {
    const __m512i bits = k - i >= 32 ? _mm512_loadu_si512(x + i) : _mm512_maskz_loadu_epi16((1u << (k - i)) - 1, x + i);
    high = _mm512_max_epi16(bits, high);
    low = _mm512_max_epu16(bits, low);
  }
  const __m256i high_half = _mm256_max_epu16(_mm512_castsi512_si256(high), _mm512_extracti64x4_epi64(high, 1));
  const __m256i low_half = _mm256_max_epu16(_mm512_castsi512_si256(low), _mm512_extracti64x4_epi64(low, 1));
  const __m256i both = _mm256_max_epu16(_mm256_permute2x128_si256(high_half, low_half, 0x20), _mm256_permute2x128_si256(high_half, low_half, 0x31));
  const auto greatest = [](__m128i values) {  // the processor finds the least
    return ~static_cast<uint32_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(values, _mm_set1_epi16(-1))))) << 16;
  };
  return row_bytes_of(float_of(greatest(_mm256_extracti128_si256(both, 1))), float_of(greatest(_mm256_castsi256_si128(both))));
}
#endif

// A vector of a row as what its bytes stand for, before the scale: from −zero to 255 − zero.
CHIASMA_INLINE Vec byte_steps(Vec value, const RowBytes& row) { return min(round(value * set(row.inverse)), set(255 - row.zero)); }

// The row's words: four bytes each, or two int16 with the second and third of four changed places (PairStep), or a float.
template <typename T>
void pack_byte_row(const T* x, int64_t k, const RowBytes& row, int64_t words, uint32_t* to) {
  const int64_t elements = bytes_per_word * words;
  int64_t i = 0;
#if defined(CHIASMA_HAS_BYTE_DOT)
  if constexpr (sizeof(T) == 1) {  // 128 more is the highest bit turned
    for (; i + 64 <= k; i += 64) {
      _mm512_storeu_si512(reinterpret_cast<char*>(to) + i, _mm512_xor_si512(_mm512_loadu_si512(x + i), _mm512_set1_epi8(-128)));
    }
  }
  if constexpr (std::is_same_v<T, Bf16>) {
    const __m512 inverse = _mm512_set1_ps(row.inverse);
    const __m512i zeros = _mm512_set1_epi16(static_cast<int16_t>(row.zero));
    const auto steps_of = [&](const Bf16* at) {  // of 32 numbers, as 16 bits
      const __m512i numbers = _mm512_loadu_si512(at), none = _mm512_setzero_si512();
      const auto rounded = [&](__m512i floats) { return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_castsi512_ps(floats), inverse)); };
      return _mm512_add_epi16(_mm512_packs_epi32(rounded(_mm512_unpacklo_epi16(none, numbers)), rounded(_mm512_unpackhi_epi16(none, numbers))), zeros);
    };
    const __m512i in_order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
    for (; i + 64 <= k; i += 64) {
      const __m512i bytes = _mm512_packus_epi16(steps_of(x + i), steps_of(x + i + 32));
      _mm512_store_si512(reinterpret_cast<char*>(to) + i, _mm512_permutexvar_epi64(in_order, bytes));
    }
  }
#endif
  const auto pack = [&](int64_t i, Vec value) {
#if defined(CHIASMA_HAS_BYTE_DOT)
    const __m512i steps = _mm512_cvtps_epi32((value * set(row.inverse)).v);
    const __m128i bytes = _mm512_cvtusepi32_epi8(_mm512_add_epi32(steps, _mm512_set1_epi32(static_cast<int>(row.zero))));  // none is below 0
    _mm_store_si128(reinterpret_cast<__m128i*>(reinterpret_cast<char*>(to) + i), bytes);
#elif defined(CHIASMA_VEC_256)
    const __m256i steps = _mm256_cvtps_epi32(byte_steps(value, row).v);
    const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(steps), _mm256_extracti128_si256(steps, 1));
    const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
    _mm_store_si128(reinterpret_cast<__m128i*>(reinterpret_cast<int16_t*>(to) + i), _mm_shuffle_epi8(shorts, order));
#else
    store(reinterpret_cast<float*>(to) + i, byte_steps(value, row));
#endif
  };
  for (; i + Vec::lanes <= k; i += Vec::lanes) pack(i, load(x + i));
  if (i < k) pack(i, load_part(x + i, static_cast<int>(k - i)));
  for (i = round_up(k, Vec::lanes); i < elements; i += Vec::lanes) pack(i, zero());  // any number: W has zeros there
}

// Words of a packed row before what row_extra adds.
template <bool dot>
int64_t row_words(int64_t k, GemmType weight_type) {
  return groups_of<dot>(k, weight_type) * geometry_of(weight_type).group;
}

template <bool dot>
size_t row_bytes(int64_t k, GemmType weight_type) {
  // Vectors are stored whole: a line more where they may reach past the words.
  const int64_t words = round_up(row_words<dot>(k, weight_type), line_floats) + row_extra(weight_type);
  return static_cast<size_t>(round_up(words, line_floats) / line_floats | 1) * line_floats * sizeof(float);
}

// Distances that are multiples of half a page put too many rows on the same sets of the first cache.
template <bool dot>
bool as_is(GemmType x_type, int64_t pitch, int64_t k, GemmType weight_type) {
  if (x_type != weight_type || weight_type == GemmType::int8 || pitch % 2048 == 0 || pitch % 4 != 0) return false;
  const int64_t element = weight_type == GemmType::float32 ? 4 : 2;
  return (weight_type == GemmType::float32 || dot) && row_words<dot>(k, weight_type) * 4 == k * element;
}

template <bool dot, typename T>
void pack_rows_of(const T* x, int64_t stride, int64_t rows, int64_t k, GemmType weight_type, char* packed) {
  const int64_t words = row_words<dot>(k, weight_type);
  const int64_t pitch = static_cast<int64_t>(row_bytes<dot>(k, weight_type));
  if constexpr (sizeof(T) > 1) {
    if (weight_type != GemmType::int8) {
      for (int64_t r = 0; r < rows; ++r) pack_row<dot>(x + r * stride, k, words, weight_type, reinterpret_cast<uint32_t*>(packed + r * pitch));
      return;
    }
  }
  // Some rows are measured before the first of them is packed, which waits for its measure.
  constexpr int64_t together = 8;
  for (int64_t r = 0; r < rows; r += together) {
    const int64_t count = smaller(together, rows - r);
    RowBytes measures[together];
    for (int64_t i = 0; i < count; ++i) measures[i] = measure_row(x + (r + i) * stride, k);
    for (int64_t i = 0; i < count; ++i) {
      uint32_t* const to = reinterpret_cast<uint32_t*>(packed + (r + i) * pitch);
      pack_byte_row(x + (r + i) * stride, k, measures[i], words, to);
      to[words] = bits_of(measures[i].scale);
      to[words + 1] = static_cast<uint32_t>(static_cast<int32_t>(measures[i].zero));
    }
  }
}

template <bool dot>
void pack_rows(const void* x, GemmType x_type, int64_t stride, int64_t rows, int64_t k, GemmType weight_type, void* packed) {
  if (x_type == GemmType::float32) {
    pack_rows_of<dot>(static_cast<const float*>(x), stride, rows, k, weight_type, static_cast<char*>(packed));
  } else if (x_type == GemmType::int8) {
    pack_rows_of<dot>(static_cast<const int8_t*>(x), stride, rows, k, weight_type, static_cast<char*>(packed));
  } else {
    pack_rows_of<dot>(static_cast<const Bf16*>(x), stride, rows, k, weight_type, static_cast<char*>(packed));
  }
}

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
