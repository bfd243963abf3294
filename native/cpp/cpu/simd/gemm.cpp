// The matrix multiply of gemm.h: packing, the loops over tiles, and the epilogue, which reads a finished tile back from a small buffer. Long because
// packing, loops and epilogue share the templates of one instruction set, which have no other reader.
#include "cpu/simd/gemm.h"

#include <float.h>

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
constexpr int64_t row_unit = tile_rows;
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
  if (!(range <= FLT_MAX)) return {NAN, 0};
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
  const float lowest = -reduce_max(-low);
  const ByteScale bytes = byte_scale(reduce_max(high) - lowest + reduce_sum(poison), 255);
  return {bytes.step, bytes.inverse, (-lowest * bytes.inverse + 0x1.8p23f) - 0x1.8p23f};
}

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
#endif
  const auto pack = [&](int64_t i, Vec value) {
#if defined(CHIASMA_HAS_BYTE_DOT)
    const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32((byte_steps(value, row) + set(row.zero)).v));
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
  for (int64_t r = 0; r < rows; ++r, x += stride, packed += pitch) {
    uint32_t* const to = reinterpret_cast<uint32_t*>(packed);
    if constexpr (sizeof(T) > 1) {
      if (weight_type != GemmType::int8) {
        pack_row<dot>(x, k, words, weight_type, to);
        continue;
      }
    }
    const RowBytes row = measure_row(x, k);
    pack_byte_row(x, k, row, words, to);
    to[words] = bits_of(row.scale);
    to[words + 1] = static_cast<uint32_t>(static_cast<int32_t>(row.zero));
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

template <Activation activation>
CHIASMA_INLINE Vec activate(Vec x) {
  if constexpr (activation == Activation::gelu) return gelu(x);
  if constexpr (activation == Activation::quick_gelu) return quick_gelu(x);
  if constexpr (activation == Activation::gelu_tanh) return gelu_tanh(x);
  if constexpr (activation == Activation::relu) return relu(x);
  if constexpr (activation == Activation::silu) return silu(x);
  if constexpr (activation == Activation::tanh) return tanh(x);
  return x;
}

// A whole vector, or its first n lanes.
template <bool whole, typename T>
CHIASMA_INLINE Vec load_lanes(const T* p, int n) {
  if constexpr (whole) return load(p);
  return load_part(p, n);
}
template <bool whole, typename T>
CHIASMA_INLINE void store_lanes(T* p, Vec value, int n) {
  if constexpr (whole) return store(p, value);
  store_part(p, value, n);
}

// What turns the sums of int8 products into numbers; null pointers for other types.
struct ByteScales {
  const float* columns;        // of W, by column of C
  const int32_t* column_sums;
  const char* rows;            // of the row panel: scale and zero of each, x_pitch apart
};

// A run of rows of C: where each goes, and what is added to it. Holds what a block says of it in registers.
class Rows {
 public:
  Rows(const GemmBlock& block, int64_t row, int64_t column) : block_(block), column_(column), place_(block.first_row + row) {
    if (block.group_rows > 0) group_ = place_ / block.group_rows, place_ %= block.group_rows;
    find();
  }

  CHIASMA_INLINE void next() {
    ++place_;
    out_ += out_pitch_;
    residual_ += residual_pitch_;
    if (place_ == group_rows_) ++group_, place_ = 0, find();
  }

  template <bool whole>
  CHIASMA_INLINE Vec add_residual(Vec value, int64_t column, int n) const {
    if (!has_residual_) return value;
    return value + (residual_floats_ ? load_lanes<whole>(reinterpret_cast<const float*>(residual_) + column, n)
                                     : load_lanes<whole>(reinterpret_cast<const Bf16*>(residual_) + column, n));
  }
  template <bool whole>
  CHIASMA_INLINE void write(Vec value, int64_t column, int n) const {
    if (out_floats_) {
      store_lanes<whole>(reinterpret_cast<float*>(out_) + column, value, n);
    } else {
      store_lanes<whole>(reinterpret_cast<Bf16*>(out_) + column, value, n);
    }
  }

 private:
  static int64_t size_of(bool floats) { return floats ? sizeof(float) : sizeof(Bf16); }

  void find() {
    out_ = static_cast<char*>(block_.out) + (group_ * block_.out_group + column_) * size_of(out_floats_) + place_ * out_pitch_;
    if (has_residual_) residual_ = static_cast<const char*>(block_.residual) + column_ * size_of(residual_floats_) + place_ * residual_pitch_;
  }

  const GemmBlock& block_;
  const int64_t column_;
  int64_t place_, group_ = 0;  // among the rows of its group
  const int64_t group_rows_ = block_.group_rows > 0 ? block_.group_rows : -1;
  const bool has_residual_ = block_.residual != nullptr;
  const bool residual_floats_ = block_.residual_type == GemmType::float32, out_floats_ = block_.out_type == GemmType::float32;
  const int64_t residual_pitch_ = has_residual_ ? block_.residual_stride * size_of(residual_floats_) : 0;
  const int64_t out_pitch_ = block_.out_stride * size_of(out_floats_);
  const char* residual_ = nullptr;
  char* out_;
};

// What the sums of `vectors` vectors of columns from `column` on are multiplied with.
template <bool bytes, int vectors>
struct Columns {
  Columns(const GemmBlock& block, const ByteScales& scales, int64_t column) {
    CHIASMA_UNROLL
    for (int v = 0; v < vectors; ++v) {
      scale[v] = bytes ? load(scales.columns + column + v * Vec::lanes) : set(block.scale);
#if defined(CHIASMA_HAS_BYTE_DOT)
      if constexpr (bytes) weight_sums[v] = _mm512_loadu_si512(scales.column_sums + column + v * Vec::lanes);
#endif
    }
  }

  // Vector v of a row's sums as float32. of_row: its scale and zero.
  CHIASMA_INLINE Vec product(const float* sums, int v, const char* of_row) const {
    const Vec sum = load_packed(sums + v * Vec::lanes);
    if constexpr (!bytes) return sum * scale[v];
    const uint32_t* const word = reinterpret_cast<const uint32_t*>(of_row);
    const Vec both = set(float_of(word[0])) * scale[v];
#if defined(CHIASMA_HAS_BYTE_DOT)
    return without(sum, _mm512_mullo_epi32(_mm512_set1_epi32(static_cast<int>(word[1])), weight_sums[v])) * both;
#elif defined(CHIASMA_VEC_256)
    return Vec{_mm256_cvtepi32_ps(_mm256_castps_si256(sum.v))} * both;
#else
    return sum * both;
#endif
  }

  Vec scale[vectors];
#if defined(CHIASMA_HAS_BYTE_DOT)
  static CHIASMA_INLINE Vec without(Vec sum, __m512i excess) { return {_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_castps_si512(sum.v), excess))}; }
  __m512i weight_sums[vectors];
#endif
};

// `vectors` whole vectors of the rows' columns from `column` on, or the first n lanes of one. sums: of the first row and column.
template <Activation activation, bool bytes, int vectors, bool whole>
CHIASMA_INLINE void finish_vectors(const GemmBlock& block, const ByteScales& scales, const float* sums, int64_t row, int64_t rows, int64_t column,
                                   int n) {
  const int64_t sums_stride = geometry_of(block.weight_type).columns;
  const Columns<bytes, vectors> factors(block, scales, column);
  Vec bias[vectors];
  CHIASMA_UNROLL
  for (int v = 0; v < vectors; ++v) bias[v] = block.bias ? load_lanes<whole>(block.bias + column + v * Vec::lanes, n) : set(-0.0f);  // adding -0 changes nothing
  Rows place(block, row, column);
  const char* of_row = scales.rows;
  for (int64_t r = 0; r < rows; ++r, sums += sums_stride, of_row += block.x_pitch, place.next()) {
    CHIASMA_UNROLL
    for (int v = 0; v < vectors; ++v) {
      const Vec value = activate<activation>(factors.product(sums, v, of_row) + bias[v]);
      place.write<whole>(place.add_residual<whole>(value, v * Vec::lanes, n), v * Vec::lanes, n);
    }
  }
}

// The tile's rows [row, row + rows) and columns [column, column + columns) of C.
template <Activation activation, bool bytes>
void finish_tile(const GemmBlock& block, const ByteScales& scales, const float* sums, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  constexpr int64_t pair = 2 * Vec::lanes;
  int64_t c = 0;
  for (; c + pair <= columns; c += pair) finish_vectors<activation, bytes, 2, true>(block, scales, sums + c, row, rows, column + c, Vec::lanes);
  for (; c + Vec::lanes <= columns; c += Vec::lanes) finish_vectors<activation, bytes, 1, true>(block, scales, sums + c, row, rows, column + c, Vec::lanes);
  if (c < columns) finish_vectors<activation, bytes, 1, false>(block, scales, sums + c, row, rows, column + c, static_cast<int>(columns - c));
}

// The same tile where only what is above thresholds is wanted.
template <bool bytes>
void filter_tile(const GemmBlock& block, const ByteScales& scales, const float* sums, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  const int64_t sums_stride = geometry_of(block.weight_type).columns;
  for (int64_t c = 0; c < columns; c += Vec::lanes) {
    const int n = static_cast<int>(smaller(Vec::lanes, columns - c));
    const Vec limits = load_part(block.thresholds + column + c, n);
    const Columns<bytes, 1> factors(block, scales, column + c);
    const auto product_at = [&](const float* at, int64_t r) {
#if defined(CHIASMA_HAS_BYTE_DOT)
      // Of rows that are int8 all scales are 1 and all zeros 128.
      if constexpr (bytes) return factors.without(load_packed(at), _mm512_slli_epi32(factors.weight_sums[0], 7)) * factors.scale[0];
#endif
      return factors.product(at, 0, scales.rows + r * block.x_pitch);
    };
    for (int64_t r = 0; r < rows; ++r) {
      const Vec value = product_at(sums + r * sums_stride + c, r) * set(block.factors[row + r]);
      if (!any_above(value, limits)) continue;
      float values[Vec::lanes];
      store(values, value);
      for (int lane = 0; lane < n; ++lane) {
        if (values[lane] <= block.thresholds[column + c + lane]) continue;
        block.hits[(*block.hit_count)++] = {values[lane], static_cast<int32_t>(row + r), static_cast<int32_t>(column + c + lane)};
      }
    }
  }
}

using Finish = void (*)(const GemmBlock& block, const ByteScales& scales, const float* sums, int64_t row, int64_t rows, int64_t column, int64_t columns);

template <bool bytes>
Finish finish_of(Activation activation) {
  switch (activation) {
    case Activation::gelu:
      return finish_tile<Activation::gelu, bytes>;
    case Activation::quick_gelu:
      return finish_tile<Activation::quick_gelu, bytes>;
    case Activation::gelu_tanh:
      return finish_tile<Activation::gelu_tanh, bytes>;
    case Activation::relu:
      return finish_tile<Activation::relu, bytes>;
    case Activation::silu:
      return finish_tile<Activation::silu, bytes>;
    case Activation::tanh:
      return finish_tile<Activation::tanh, bytes>;
    default:
      return finish_tile<Activation::none, bytes>;
  }
}

// A tile whose sums are complete, its epilogue still to come.
struct Unfinished {
  const GemmBlock& block;
  Finish finish;
  ByteScales scales;
  const float* sums;
  int64_t row, rows, column, columns;

  void run(int64_t begin, int64_t end) const {
    ByteScales from = scales;
    from.rows += begin * block.x_pitch;
    finish(block, from, sums + begin * geometry_of(block.weight_type).columns, row + begin, end - begin, column, columns);
  }
  static void run_aside(const void* tile, int64_t begin, int64_t end) { static_cast<const Unfinished*>(tile)->run(begin, end); }
};

template <bool dot>
Tile tile_of(GemmType weight_type, int64_t rows, int64_t vectors) {
  if (weight_type == GemmType::float32) return find_tile<Float32Step>(rows, vectors);
#if defined(CHIASMA_ISA_amx)
  if (weight_type == GemmType::int8) return rows > amx_side ? multiply_amx<true, true> : multiply_amx<true, false>;
  return rows > amx_side ? multiply_amx<false, true> : multiply_amx<false, false>;
#endif
  if (weight_type == GemmType::int8) return find_tile<ByteStep>(rows, vectors);
#if defined(CHIASMA_ISA_avx512_bf16)
  if (dot) return find_tile<DotStep>(rows, vectors);
#endif
  return find_tile<WidenedStep>(rows, vectors);
}

// A panel of W is taken in pieces of so many bytes: one stays in the first-level cache while the row panels pass by it. The sums of their tiles wait
// in scratch for the next piece.
#if defined(CHIASMA_VEC_256)
constexpr int64_t piece_bytes = 48 << 10;  // a narrow panel is read fast enough from the second-level cache, and a tile's ends cost more than that
#else
constexpr int64_t piece_bytes = 36 << 10;
#endif
constexpr int64_t wide_size = piece_bytes / sizeof(float) * 4;  // a piece of bytes, widened
// From so many row panels on a piece of pairs or bytes is widened once for all of them.
constexpr int64_t widen_from = 8;

// How a block is cut: its rows into panels, the depth into pieces, the pieces into as many `blocks` as let x's part of one stay in the second-level
// cache, W's panels into runs for which a block is finished before the next one begins.
struct Cuts {
  int64_t groups, row_panels, pieces, blocks, run;
};

template <bool dot>
Cuts cuts_of(int64_t rows, int64_t k, GemmType type, int64_t block_bytes) {
  const Geometry geometry = geometry_of(type);
  Cuts cuts;
  cuts.groups = groups_of<dot>(k, type);
  cuts.row_panels = (rows + geometry.rows - 1) / geometry.rows;
  cuts.pieces = cuts.blocks = cuts.run = 1;
  if (cuts.row_panels <= 1 || cuts.groups == 0) return cuts;  // a single row panel reads W as it lies
  int64_t panel_bytes = panel_depth(k, type) * geometry.columns * 4;
  if (bytes_per_word == 2 && type == GemmType::int8) panel_bytes *= 2;  // as pairs
#if defined(CHIASMA_ISA_amx)
  if (type != GemmType::float32) panel_bytes = 0;  // tiles fetch what they need of the second-level cache in time
#endif
  cuts.pieces = panel_bytes > 0 ? smaller((panel_bytes + piece_bytes - 1) / piece_bytes, cuts.groups) : 1;
  cuts.blocks = smaller((rows * cuts.groups * geometry.group * 4 + block_bytes - 1) / block_bytes, panel_bytes > 0 ? cuts.pieces : cuts.groups);
  cuts.pieces = round_up(cuts.pieces, cuts.blocks);
  if (cuts.blocks > 1) {
    const int64_t run = block_bytes / (cuts.row_panels * geometry.rows * geometry.columns * 4);
    cuts.run = run > 1 ? run : 1;
  }
  return cuts;
}

template <bool dot>
size_t scratch_bytes(int64_t rows, int64_t k, GemmType type, int64_t block_bytes) {
  const Geometry geometry = geometry_of(type);
  const Cuts cuts = cuts_of<dot>(rows, k, type, block_bytes);
  // A run's sums take block_bytes at most, or what one panel of C needs; fewer rows never need more.
  const int64_t panel_sums = cuts.row_panels * geometry.rows * geometry.columns;
  const int64_t run_sums = cuts.blocks > 1 ? block_bytes / static_cast<int64_t>(sizeof(float)) : 0;
  return static_cast<size_t>(wide_size + (panel_sums > run_sums ? panel_sums : run_sums)) * sizeof(float);
}

template <bool dot>
void multiply(const GemmBlock& block) {
  const Geometry geometry = geometry_of(block.weight_type);
  const Cuts cuts = cuts_of<dot>(block.rows, block.k, block.weight_type, block.block_bytes);
  const int64_t depth = panel_depth(block.k, block.weight_type);
  const int64_t words = cuts.groups > 0 ? depth / cuts.groups : 0;  // of W's panel in a group, for each column
  const bool bytes = block.weight_type == GemmType::int8;
  const bool has_arithmetic = bytes ? has_byte_dot : dot || block.weight_type == GemmType::float32;
  const bool widen = !has_arithmetic && cuts.row_panels >= widen_from;
  const Finish finish = block.hits ? (bytes ? filter_tile<true> : filter_tile<false>)
                        : bytes    ? finish_of<true>(block.activation)
                                   : finish_of<false>(block.activation);
  ByteScales scales{};
  if (bytes) {
    scales.columns = static_cast<const float*>(block.weight) + round_up(block.n, geometry.columns) * depth;
    scales.column_sums = reinterpret_cast<const int32_t*>(scales.columns + round_up(block.n, geometry.columns));
  }
  float* const wide = static_cast<float*>(block.scratch);
  const int64_t group_lines = words * geometry.columns / line_floats;  // of a panel of W
  const auto piece_begin = [&](int64_t piece) { return piece * cuts.groups / cuts.pieces; };
  const auto w_at = [&](int64_t p, int64_t piece) {
    return static_cast<const float*>(block.weight) + p * depth * geometry.columns + piece_begin(piece) * words * geometry.columns;
  };

  // Panels of two sizes at most, first the greater: a change of tile is a branch that the processor does not foresee.
  const int64_t panel_rows = cuts.row_panels > 0 ? block.rows / cuts.row_panels : 0, more = block.rows - cuts.row_panels * panel_rows;
  const auto even_begin = [&](int64_t i) { return i * panel_rows + smaller(i, more); };
#if defined(CHIASMA_ISA_amx)
  // Tiles are the cheaper the fewer rows they have.
  const bool amx = block.weight_type != GemmType::float32;
  const auto row_begin = [&](int64_t i) { return amx ? smaller(i * amx_rows, block.rows) : even_begin(i); };
  int64_t configured = 0;  // rows
  const bool later = amx;
#else
  const auto& row_begin = even_begin;
  constexpr bool later = false;
#endif
  Unfinished unfinished{block, finish, scales, nullptr, 0, 0, 0, 0};
  // Where sums wait for no other piece, one tile's place is enough: it is read by the time that the next tile's sums come.
  const int64_t sums_step = cuts.pieces > 1 ? geometry.rows * geometry.columns : 0;

  const char* upcoming = static_cast<const char*>(block.upcoming);
  const char* const upcoming_end = upcoming + block.upcoming_bytes;
  const int64_t all_groups = (block.panel_end - block.panel_begin) * cuts.row_panels * cuts.groups;
  const int64_t upcoming_lines = all_groups > 0 ? round_up(block.upcoming_bytes, all_groups * 64) / (all_groups * 64) : 0;  // in a group

  // The tiles of one piece.
  const auto multiply_piece = [&](int64_t p, int64_t piece, float* sums, const float* next) {
    const bool last = piece + 1 == cuts.pieces;
    const int64_t column = p * geometry.columns, columns = smaller(geometry.columns, block.n - column);
    const int64_t vectors = (columns + Vec::lanes - 1) / Vec::lanes;
    TileWork work;
    work.w = w_at(p, piece);
    work.groups = piece_begin(piece + 1) - piece_begin(piece);
    work.fresh = piece == 0;
    work.x_pitch = block.x_pitch / static_cast<int64_t>(sizeof(float));
    const int64_t lines = (group_lines + cuts.row_panels - 1) / cuts.row_panels;
    if (widen) {
      bytes ? widen_panel<ByteStep>(work.w, work.groups, wide) : widen_panel<WidenedStep>(work.w, work.groups, wide);
      work.w = wide;
    }
    for (int64_t i = 0; i < cuts.row_panels; ++i, sums += sums_step) {
      const int64_t row = row_begin(i), rows = row_begin(i + 1) - row;
      const char* const x = static_cast<const char*>(block.x) + row * block.x_pitch;
      work.x = reinterpret_cast<const float*>(x) + piece_begin(piece) * geometry.group;
      work.sums = sums;
      const bool fetch = next && i * lines < group_lines;
      work.ahead = fetch ? next + i * work.groups * lines * line_floats : work.x;
      work.ahead_lines = fetch ? lines : 0;
      if (upcoming < upcoming_end) {
        work.ahead = reinterpret_cast<const float*>(upcoming);
        work.ahead_lines = upcoming_lines;
        upcoming += work.groups * upcoming_lines * line_floats * 4;
      }
#if defined(CHIASMA_ISA_amx)
      const bool again = i + 1 < cuts.row_panels;
      work.next_x = again ? work.x + rows * work.x_pitch : static_cast<const float*>(block.x) + piece_begin(piece) * geometry.group;
      work.next_w = again ? work.w : w_at(p + 1, piece);
      if (amx && rows != configured) amx_configure(configured = rows);
#endif
      const Tile tile = !widen  ? tile_of<dot>(block.weight_type, rows, vectors)
                        : bytes ? find_tile<WideByteStep>(rows, vectors)
                                : find_tile<Float32Step>(rows, vectors);
      work.aside = {Unfinished::run_aside, &unfinished, unfinished.rows};
      tile(work);
      unfinished.rows = 0;
      if (!last) continue;
      scales.rows = x + cuts.groups * geometry.group * 4;
      unfinished.scales = scales, unfinished.sums = sums, unfinished.row = row, unfinished.rows = rows;
      unfinished.column = column, unfinished.columns = columns;
      if (later && cuts.groups > 0) continue;
      unfinished.run(0, rows);
      unfinished.rows = 0;
    }
  };

  for (int64_t run = block.panel_begin; run < block.panel_end; run += cuts.run) {
    const int64_t run_end = smaller(run + cuts.run, block.panel_end);
    for (int64_t b = 0; b < cuts.blocks; ++b) {
      const int64_t begin = b * cuts.pieces / cuts.blocks, end = (b + 1) * cuts.pieces / cuts.blocks;
      for (int64_t p = run; p < run_end; ++p) {
        float* const sums = wide + wide_size + (p - run) * cuts.row_panels * geometry.rows * geometry.columns;
        for (int64_t piece = begin; piece < end; ++piece) {
          // What comes after it: the panel's next piece, the block's in the next panel, the next block's, the next run's.
          const float* next = w_at(p, piece + 1);
          if (cuts.row_panels == 1) {
            next = w_at(p, 0) + stream_ahead;
          } else if (piece + 1 == end) {
            next = p + 1 < run_end ? w_at(p + 1, begin) : b + 1 < cuts.blocks ? w_at(run, end) : run_end < block.panel_end ? w_at(run_end, 0) : nullptr;
          }
          multiply_piece(p, piece, sums, next);
        }
      }
    }
  }
  unfinished.run(0, unfinished.rows);
#if defined(CHIASMA_ISA_amx)
  if (configured > 0) _tile_release();
#endif
}

template <bool dot>
constexpr GemmFunctions functions(const GemmFunctions* widened) {
  return {panel_columns, row_unit, dot, widened, weight_bytes, pack_weight, row_bytes<dot>, as_is<dot>, pack_rows<dot>, scratch_bytes<dot>, multiply<dot>};
}

#if defined(CHIASMA_ISA_avx512_bf16)
constexpr GemmFunctions widened_functions = functions<false>(nullptr);
constexpr const GemmFunctions* widened = &widened_functions;
#else
constexpr const GemmFunctions* widened = nullptr;
#endif

}  // namespace

const GemmFunctions gemm_functions = functions<has_dot>(widened);

}  // namespace chiasma::cpu::CHIASMA_ISA
