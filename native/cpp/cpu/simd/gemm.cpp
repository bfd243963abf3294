// The matrix multiply of gemm.h: packing, the loops over tiles, and the epilogue, which reads a finished tile back from a small buffer.
#include "cpu/simd/gemm.h"

#include "cpu/simd/gemm_tile.h"

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

#if defined(CHIASMA_ISA_avx512_bf16)
constexpr bool has_dot = true;
#else
constexpr bool has_dot = false;
#endif

int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }
int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Groups of 4 steps that K takes. With dot products a step is two k.
template <bool dot>
int64_t groups_of(int64_t k, GemmType weight_type) {
  if (weight_type == GemmType::float32) return round_up(k, 4) / 4;
  return dot ? round_up(k, 8) / 8 : round_up(k, 8) / 4;
}

// Words of one column of a packed panel of W.
int64_t panel_depth(int64_t k, GemmType type) { return type == GemmType::float32 ? round_up(k, 4) : round_up(k, 8) / 2; }

size_t weight_bytes(int64_t n, int64_t k, GemmType type) {
  return static_cast<size_t>(round_up(n, tile_columns)) * static_cast<size_t>(panel_depth(k, type)) * sizeof(float);
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

template <typename T>
void pack_weight_of(const T* rows, int64_t stride, int64_t begin, int64_t count, int64_t n, int64_t k, GemmType type, uint32_t* packed) {
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

// One row of x is turned into words in pieces of this many elements, then dealt out to the panel four words at a time.
constexpr int piece = 256;

// Elements [0, count) of a row, count <= piece; `out` is filled with zeros up to the next multiple of 8 elements.
template <bool dot, typename T>
void row_words(const T* x, int64_t count, GemmType weight_type, uint32_t* out) {
  if (weight_type == GemmType::float32) {
    for (int64_t i = 0; i < count; ++i) out[i] = float_bits(x + i);
    for (int64_t i = count; i < round_up(count, 8); ++i) out[i] = 0;
  } else if (dot) {
    uint16_t halves[piece];
    for (int64_t i = 0; i < count; ++i) halves[i] = static_cast<uint16_t>(bf16_bits(x + i));
    for (int64_t i = count; i < round_up(count, 8); ++i) halves[i] = 0;
    memcpy(out, halves, static_cast<size_t>(round_up(count, 8)) * sizeof(uint16_t));
  } else {
    for (int64_t i = 0; i < count; ++i) out[i] = bf16_bits(x + i) << 16;
    for (int64_t i = count; i < round_up(count, 8); ++i) out[i] = 0;
  }
}

template <bool dot, typename T>
void pack_rows_of(const T* x, int64_t stride, int64_t rows, int64_t k, GemmType weight_type, uint32_t* panel) {
  const int64_t group_elements = dot && weight_type == GemmType::bfloat16 ? 8 : 4;
  for (int64_t r = 0; r < rows; ++r) {
    uint32_t* to = panel + r * group_steps;
    int64_t groups = groups_of<dot>(k, weight_type);
    for (int64_t at = 0; at < k; at += piece) {
      uint32_t words[piece];
      row_words<dot>(x + r * stride + at, smaller(piece, k - at), weight_type, words);
      const int64_t here = smaller(groups, piece / group_elements);
      for (int64_t g = 0; g < here; ++g, to += rows * group_steps) memcpy(to, words + g * group_steps, group_steps * sizeof(uint32_t));
      groups -= here;
    }
  }
}

template <bool dot>
size_t row_bytes(int64_t k, GemmType weight_type) {
  return static_cast<size_t>(groups_of<dot>(k, weight_type)) * group_steps * sizeof(float);
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

CHIASMA_INLINE Vec load_as(const void* p, GemmType type, int64_t at, int n) {
  if (type == GemmType::float32) return load_part(static_cast<const float*>(p) + at, n);
  return load_part(static_cast<const Bf16*>(p) + at, n);
}

// The tile's rows [row, row + rows) and columns [column, column + columns) of C.
template <Activation activation>
void finish_tile(const GemmBlock& block, const float* sums, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  for (int64_t c = 0; c < columns; c += Vec::lanes) {
    const int n = static_cast<int>(smaller(Vec::lanes, columns - c));
    const Vec scale = set(block.scale);
    const Vec bias = block.bias ? load_part(block.bias + column + c, n) : set(-0.0f);  // adding -0 changes nothing
    for (int64_t r = 0; r < rows; ++r) {
      Vec value = activate<activation>(load_packed(sums + r * tile_columns + c) * scale + bias);
      if (block.residual) {
        value = value + load_as(block.residual, block.residual_type, (row + r) * block.residual_stride + column + c, n);
      }
      const int64_t at = (row + r) * block.out_stride + column + c;
      if (block.out_type == GemmType::float32) {
        store_part(static_cast<float*>(block.out) + at, value, n);
      } else {
        store_part(static_cast<Bf16*>(block.out) + at, value, n);
      }
    }
  }
}

using Finish = void (*)(const GemmBlock& block, const float* sums, int64_t row, int64_t rows, int64_t column, int64_t columns);

Finish finish_of(Activation activation) {
  switch (activation) {
    case Activation::gelu:
      return finish_tile<Activation::gelu>;
    case Activation::quick_gelu:
      return finish_tile<Activation::quick_gelu>;
    case Activation::gelu_tanh:
      return finish_tile<Activation::gelu_tanh>;
    case Activation::relu:
      return finish_tile<Activation::relu>;
    case Activation::silu:
      return finish_tile<Activation::silu>;
    case Activation::tanh:
      return finish_tile<Activation::tanh>;
    default:
      return finish_tile<Activation::none>;
  }
}

template <bool dot>
Tile tile_of(GemmType weight_type, int64_t rows) {
  if (weight_type == GemmType::float32) return find_tile<Float32Step>(rows);
#if defined(CHIASMA_ISA_avx512_bf16)
  if (dot) return find_tile<DotStep>(rows);
#endif
  return find_tile<WidenedStep>(rows);
}

template <bool dot>
void multiply(const GemmBlock& block) {
  alignas(64) float sums[tile_rows * tile_columns];
  const int64_t groups = groups_of<dot>(block.k, block.weight_type);
  const int64_t depth = panel_depth(block.k, block.weight_type);
  const int64_t row_panels = (block.rows + tile_rows - 1) / tile_rows;
  const Finish finish = finish_of(block.activation);
  const float* x = static_cast<const float*>(block.x);
  for (int64_t p = block.panel_begin; p < block.panel_end; ++p) {
    const float* w = static_cast<const float*>(block.weight) + p * tile_columns * depth;
    const int64_t column = p * tile_columns;
    const int64_t columns = smaller(tile_columns, block.n - column);
    for (int64_t i = 0; i < row_panels; ++i) {
      const int64_t row = i * block.rows / row_panels;
      const int64_t rows = (i + 1) * block.rows / row_panels - row;
      tile_of<dot>(block.weight_type, rows)(x + row * groups * group_steps, w, groups, sums);
      finish(block, sums, row, rows, column, columns);
    }
  }
}

template <bool dot>
constexpr GemmFunctions functions(const GemmFunctions* widened) {
  return {tile_rows, tile_columns, dot, widened, weight_bytes, pack_weight, row_bytes<dot>, pack_rows<dot>, multiply<dot>};
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
