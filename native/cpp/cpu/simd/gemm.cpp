// The matrix multiply of gemm.h: packing, the loops over tiles, and the epilogue, which reads a finished tile back from a small buffer.
#include "cpu/simd/gemm.h"

#include <float.h>

#if defined(CHIASMA_ISA_avx512_vnni) || defined(CHIASMA_ISA_avx512_bf16)
#define CHIASMA_HAS_BYTE_DOT 1  // VPDPBUSD: four products of unsigned and signed bytes
#endif
#include "cpu/simd/gemm_tile.h"

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

#if defined(CHIASMA_ISA_avx512_bf16)
constexpr bool has_dot = true;
#else
constexpr bool has_dot = false;
#endif

#if defined(CHIASMA_HAS_BYTE_DOT)
constexpr bool has_byte_dot = true;
#else
constexpr bool has_byte_dot = false;
#endif

constexpr int64_t stream_ahead = 1024;  // floats from what a lone row panel reads of W to what it fetches

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Groups of 4 steps that K takes. With dot products a step is two k.
template <bool dot>
int64_t groups_of(int64_t k, GemmType weight_type) {
  if (weight_type == GemmType::float32) return round_up(k, 4) / 4;
  if (weight_type == GemmType::int8) return has_byte_dot ? round_up(k, 16) / 16 : round_up(k, 16) / 4;
  return dot ? round_up(k, 8) / 8 : round_up(k, 8) / 4;
}

// Words of one column of a packed panel of W.
int64_t panel_depth(int64_t k, GemmType type) {
  if (type == GemmType::float32) return round_up(k, 4);
  return type == GemmType::int8 ? round_up(k, 16) / 4 : round_up(k, 8) / 2;
}

// Behind the panels of an int8 weight: each column's scale, then the sum of each column's bytes.
constexpr int64_t column_words(GemmType type) { return type == GemmType::int8 ? 2 : 0; }
// Behind the groups of a row panel for an int8 weight, for each row: its scale, then its zero.
constexpr int64_t row_extra(GemmType weight_type) { return weight_type == GemmType::int8 ? 2 : 0; }

size_t weight_bytes(int64_t n, int64_t k, GemmType type) {
  return static_cast<size_t>(round_up(n, tile_columns)) * static_cast<size_t>(panel_depth(k, type) + column_words(type)) * sizeof(float);
}

uint32_t float_bits(const float* p) { return bits_of(*p); }
uint32_t float_bits(const Bf16* p) { return static_cast<uint32_t>(p->bits) << 16; }
uint32_t bf16_bits(const float* p) { return to_bf16(*p).bits; }
uint32_t bf16_bits(const Bf16* p) { return p->bits; }

// `count` rows of W into columns [column, column + count) of one panel.
template <typename T>
void pack_columns(const T* rows, int64_t stride, int64_t column, int64_t count, int64_t k, GemmType type, uint32_t* panel) {
  const int64_t depth = panel_depth(k, type);
  uint32_t* to = panel + column;
  if (type == GemmType::float32) {
    for (int64_t i = 0; i < depth; ++i, to += tile_columns) {
      for (int64_t c = 0; c < count; ++c) to[c] = i < k ? float_bits(rows + c * stride + i) : 0;
    }
  } else {
    for (int64_t i = 0; i < depth; ++i, to += tile_columns) {
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
  for (int64_t i = 0; i < round_up(k, 16); i += 4, to += tile_columns) {
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
  const int64_t columns = round_up(n, tile_columns);
  uint32_t* const scales = packed + columns * depth;
  uint32_t* const sums = scales + columns;
  for (int64_t row = begin; row < begin + count; ++row) {
    const int64_t column = row % tile_columns;
    float scale;
    int32_t sum;
    pack_byte_column(rows + (row - begin) * stride, column, k, packed + (row - column) * depth, scale, sum);
    scales[row] = bits_of(scale);
    sums[row] = static_cast<uint32_t>(sum);
  }
  if (begin + count < n) return;
  for (int64_t row = n; row < columns; ++row) {
    uint32_t* to = packed + (columns - tile_columns) * depth + row % tile_columns;
    for (int64_t i = 0; i < depth; ++i) to[i * tile_columns] = 0;
    scales[row] = sums[row] = 0;
  }
}

template <typename T>
void pack_weight_of(const T* rows, int64_t stride, int64_t begin, int64_t count, int64_t n, int64_t k, GemmType type, uint32_t* packed) {
  if (type == GemmType::int8) return pack_byte_weight(rows, stride, begin, count, n, k, packed);
  const int64_t depth = panel_depth(k, type);
  const int64_t end = begin + count;
  for (int64_t row = begin; row < end;) {
    const int64_t column = row % tile_columns;
    const int64_t part = smaller(tile_columns - column, end - row);
    pack_columns(rows + (row - begin) * stride, stride, column, part, k, type, packed + (row - column) * depth);
    row += part;
  }
  const int64_t used = n % tile_columns;
  if (end == n && used > 0) {
    uint32_t* panel = packed + (n - used) * depth;
    for (int64_t i = 0; i < depth; ++i) memset(panel + i * tile_columns + used, 0, static_cast<size_t>(tile_columns - used) * sizeof(uint32_t));
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

// Four words at a time from a row of x to its place in the panel, `rows` places apart.
uint32_t* deal(const uint32_t* words, int64_t groups, int64_t rows, uint32_t* to) {
  for (int64_t g = 0; g < groups; ++g, to += rows * group_steps) memcpy(to, words + g * group_steps, group_steps * sizeof(uint32_t));
  return to;
}

// A row of x is turned into words in stretches of so many elements.
constexpr int64_t stretch = 256;

// `count` elements, at most `stretch`, and zeros up to the next multiple of 8 elements.
template <bool dot, typename T>
void row_words(const T* x, int64_t count, GemmType weight_type, uint32_t* out) {
  const int64_t end = round_up(count, 8);
  if (weight_type == GemmType::float32) {
    for (int64_t i = 0; i < count; ++i) out[i] = float_bits(x + i);
    for (int64_t i = count; i < end; ++i) out[i] = 0;
  } else if (dot) {
    uint16_t halves[stretch];
    for (int64_t i = 0; i < count; ++i) halves[i] = static_cast<uint16_t>(bf16_bits(x + i));
    for (int64_t i = count; i < end; ++i) halves[i] = 0;
    memcpy(out, halves, static_cast<size_t>(end) * sizeof(uint16_t));
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = bf16_bits(x + i) << 16;
    for (int64_t i = count; i < end; ++i) out[i] = 0;
  }
}

struct RowBytes {
  float scale, inverse, zero;
};

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

#if defined(CHIASMA_HAS_BYTE_DOT)
template <typename T>
void pack_byte_row(const T* x, int64_t k, const RowBytes& row, int64_t rows, uint32_t* to) {
  static_assert(Vec::lanes == 4 * group_steps, "a vector is a row's part of a group");
  const auto bytes = [&](Vec value) { return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32((byte_steps(value, row) + set(row.zero)).v)); };
  int64_t i = 0;
  for (; i + Vec::lanes <= k; i += Vec::lanes, to += rows * group_steps) _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes(load(x + i)));
  if (i < k) _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes(load_part(x + i, static_cast<int>(k - i))));
}
#else
template <typename T>
void pack_byte_row(const T* x, int64_t k, const RowBytes& row, int64_t rows, uint32_t* to) {
  for (int64_t at = 0; at < round_up(k, 16); at += 16) {
    alignas(64) float steps[16] = {};
    for (int64_t i = 0; i < 16 && at + i < k; i += Vec::lanes) {
      const int64_t left = k - at - i;
      store(steps + i, byte_steps(left < Vec::lanes ? load_part(x + at + i, static_cast<int>(left)) : load(x + at + i), row));
    }
    uint32_t words[16];
    memcpy(words, steps, sizeof words);
    to = deal(words, 4, rows, to);
  }
}
#endif

template <typename T>
void pack_byte_rows(const T* x, int64_t stride, int64_t rows, int64_t k, int64_t groups, uint32_t* panel) {
  uint32_t* extra = panel + rows * groups * group_steps;
  for (int64_t r = 0; r < rows; ++r) {
    const RowBytes row = measure_row(x + r * stride, k);
    pack_byte_row(x + r * stride, k, row, rows, panel + r * group_steps);
    *extra++ = bits_of(row.scale);
    *extra++ = static_cast<uint32_t>(static_cast<int32_t>(row.zero));
  }
}

template <bool dot, typename T>
void pack_rows_of(const T* x, int64_t stride, int64_t rows, int64_t k, GemmType weight_type, uint32_t* panel) {
  const int64_t group_elements = dot && weight_type == GemmType::bfloat16 ? 8 : 4;
  const int64_t groups = groups_of<dot>(k, weight_type);
  if (weight_type == GemmType::int8) return pack_byte_rows(x, stride, rows, k, groups, panel);
  for (int64_t r = 0; r < rows; ++r) {
    uint32_t* to = panel + r * group_steps;
    int64_t left = groups;
    for (int64_t at = 0; at < k; at += stretch) {
      uint32_t words[stretch];
      row_words<dot>(x + r * stride + at, smaller(stretch, k - at), weight_type, words);
      const int64_t here = smaller(left, stretch / group_elements);
      to = deal(words, here, rows, to);
      left -= here;
    }
  }
}

template <bool dot>
size_t row_bytes(int64_t k, GemmType weight_type) {
  return static_cast<size_t>(groups_of<dot>(k, weight_type) * group_steps + row_extra(weight_type)) * sizeof(float);
}

template <bool dot>
void pack_rows(const void* x, GemmType x_type, int64_t stride, int64_t rows, int64_t k, GemmType weight_type, void* panel) {
  uint32_t* to = static_cast<uint32_t*>(panel);
  if (x_type == GemmType::float32) {
    pack_rows_of<dot>(static_cast<const float*>(x), stride, rows, k, weight_type, to);
  } else {
    pack_rows_of<dot>(static_cast<const Bf16*>(x), stride, rows, k, weight_type, to);
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
  const uint32_t* rows;        // of the row panel: scale and zero of each
};

// Row r's sums of the columns from `column` on, as float32 before the bias.
template <bool bytes>
CHIASMA_INLINE Vec product(const GemmBlock& block, const ByteScales& scales, const float* sums, int64_t r, int64_t column) {
  if constexpr (bytes) {
    const Vec scale = set(float_of(scales.rows[2 * r])) * load(scales.columns + column);
#if defined(CHIASMA_HAS_BYTE_DOT)
    const __m512i zero = _mm512_set1_epi32(static_cast<int>(scales.rows[2 * r + 1]));
    const __m512i excess = _mm512_mullo_epi32(zero, _mm512_loadu_si512(scales.column_sums + column));
    return Vec{_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_load_si512(sums + r * tile_columns), excess))} * scale;
#else
    return load_packed(sums + r * tile_columns) * scale;
#endif
  } else {
    return load_packed(sums + r * tile_columns) * set(block.scale);
  }
}

template <Activation activation, bool bytes, bool whole>
CHIASMA_INLINE void finish_vector(const GemmBlock& block, const ByteScales& scales, const float* sums, int64_t row, int64_t rows, int64_t column,
                                  int n) {
  const Vec bias = block.bias ? load_lanes<whole>(block.bias + column, n) : set(-0.0f);  // adding -0 changes nothing
  for (int64_t r = 0; r < rows; ++r) {
    Vec value = activate<activation>(product<bytes>(block, scales, sums, r, column) + bias);
    if (block.residual) {
      const int64_t at = (row + r) * block.residual_stride + column;
      value = value + (block.residual_type == GemmType::float32 ? load_lanes<whole>(static_cast<const float*>(block.residual) + at, n)
                                                                : load_lanes<whole>(static_cast<const Bf16*>(block.residual) + at, n));
    }
    const int64_t at = (row + r) * block.out_stride + column;
    if (block.out_type == GemmType::float32) {
      store_lanes<whole>(static_cast<float*>(block.out) + at, value, n);
    } else {
      store_lanes<whole>(static_cast<Bf16*>(block.out) + at, value, n);
    }
  }
}

// The tile's rows [row, row + rows) and columns [column, column + columns) of C.
template <Activation activation, bool bytes>
void finish_tile(const GemmBlock& block, const ByteScales& scales, const float* sums, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  int64_t c = 0;
  for (; c + Vec::lanes <= columns; c += Vec::lanes) finish_vector<activation, bytes, true>(block, scales, sums + c, row, rows, column + c, Vec::lanes);
  if (c < columns) finish_vector<activation, bytes, false>(block, scales, sums + c, row, rows, column + c, static_cast<int>(columns - c));
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

template <bool dot>
Tile tile_of(GemmType weight_type, int64_t rows) {
  if (weight_type == GemmType::float32) return find_tile<Float32Step>(rows);
#if defined(CHIASMA_HAS_BYTE_DOT)
  if (weight_type == GemmType::int8) return find_tile<ByteDotStep>(rows);
#else
  if (weight_type == GemmType::int8) return find_tile<WidenedByteStep>(rows);
#endif
#if defined(CHIASMA_ISA_avx512_bf16)
  if (dot) return find_tile<DotStep>(rows);
#endif
  return find_tile<WidenedStep>(rows);
}

// A panel of W is taken in pieces of so many groups of its depth: one stays in the first-level cache while the row panels pass by it.
// The sums of their tiles wait in scratch for the next piece.
constexpr int64_t piece_groups = 48;
constexpr int64_t tile_size = tile_rows * tile_columns;
constexpr int64_t wide_size = piece_groups * group_steps * tile_columns;
// From so many row panels on a piece of pairs or bytes is widened once for all of them.
constexpr int64_t widen_from = 8;

size_t scratch_bytes(int64_t rows) {
  const int64_t row_panels = (rows + tile_rows - 1) / tile_rows;
  return static_cast<size_t>(wide_size + row_panels * tile_size) * sizeof(float);
}

template <bool dot>
void multiply(const GemmBlock& block) {
  const int64_t groups = groups_of<dot>(block.k, block.weight_type);
  const int64_t depth = panel_depth(block.k, block.weight_type);
  const int64_t words = groups > 0 ? depth / groups : 0;  // of W's panel in a group, for each column
  const int64_t row_panels = (block.rows + tile_rows - 1) / tile_rows;
  // A single row panel reads W as it lies.
  const int64_t pieces = groups > piece_groups && row_panels > 1 ? (groups + piece_groups - 1) / piece_groups : 1;
  const bool bytes = block.weight_type == GemmType::int8;
  const bool has_arithmetic = bytes ? has_byte_dot : dot || block.weight_type == GemmType::float32;
  const bool widen = !has_arithmetic && row_panels >= widen_from;
  const Finish finish = bytes ? finish_of<true>(block.activation) : finish_of<false>(block.activation);
  const int64_t row_words = groups * group_steps + row_extra(block.weight_type);
  ByteScales scales{};
  if (bytes) {
    scales.columns = static_cast<const float*>(block.weight) + round_up(block.n, tile_columns) * depth;
    scales.column_sums = reinterpret_cast<const int32_t*>(scales.columns + round_up(block.n, tile_columns));
  }
  float* const wide = static_cast<float*>(block.scratch);
  float* const all_sums = wide + wide_size;
  const int64_t group_lines = words * tile_columns / line_floats;  // of a panel of W

  for (int64_t p = block.panel_begin; p < block.panel_end; ++p) {
    const float* const panel = static_cast<const float*>(block.weight) + p * depth * tile_columns;
    const int64_t column = p * tile_columns;
    const int64_t columns = smaller(tile_columns, block.n - column);
    for (int64_t piece = 0; piece < pieces; ++piece) {
      const int64_t begin = piece * groups / pieces;
      const int64_t end = (piece + 1) * groups / pieces;
      TileWork work;
      work.w = panel + begin * words * tile_columns;
      work.groups = end - begin;
      work.fresh = piece == 0;
      const float* next = panel + end * words * tile_columns;
      if (row_panels == 1) {
        work.ahead_lines = group_lines;
        next = work.w + stream_ahead;
      } else {
        work.ahead_lines = p + 1 == block.panel_end && piece + 1 == pieces ? 0 : (group_lines + row_panels - 1) / row_panels;
      }
      if (widen) {
        bytes ? widen_panel<WidenedByteStep>(work.w, work.groups, wide) : widen_panel<WidenedStep>(work.w, work.groups, wide);
        work.w = wide;
      }
      for (int64_t i = 0; i < row_panels; ++i) {
        const int64_t row = i * block.rows / row_panels;
        const int64_t rows = (i + 1) * block.rows / row_panels - row;
        const float* const x = static_cast<const float*>(block.x) + row * row_words;
        work.x = x + rows * begin * group_steps;
        work.sums = all_sums + i * tile_size;
        work.ahead = next + i * work.groups * work.ahead_lines * line_floats;
        const Tile tile = widen ? find_tile<Float32Step>(rows) : tile_of<dot>(block.weight_type, rows);
        tile(work);
        if (piece + 1 < pieces) continue;
        scales.rows = reinterpret_cast<const uint32_t*>(x + rows * groups * group_steps);
        finish(block, scales, work.sums, row, rows, column, columns);
      }
    }
  }
}

template <bool dot>
constexpr GemmFunctions functions(const GemmFunctions* widened) {
  return {tile_rows, tile_columns, dot, widened, weight_bytes, pack_weight, row_bytes<dot>, pack_rows<dot>, scratch_bytes, multiply<dot>};
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
