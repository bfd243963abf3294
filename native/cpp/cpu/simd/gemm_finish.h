// The epilogue of the matrix multiply of gemm.h, of sums that are read back from a small buffer or are still in registers: scales, bias, activation and
// residual, or the filter of a search. Included only by gemm.cpp.
#pragma once

#include <array>
#include <type_traits>

#include "cpu/simd/gemm_pack.h"

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

// The activations, in their order, and those of results that are rounded to bfloat16.
enum class Finisher : uint8_t { none, gelu, quick_gelu, gelu_tanh, relu, silu, tanh, brief_gelu, brief_quick_gelu, brief_gelu_tanh };
static_assert(static_cast<int>(Finisher::tanh) == static_cast<int>(Activation::tanh));

Finisher finisher_of(const GemmBlock& block) {
  if (block.out_type == GemmType::bfloat16 && !block.residual) {  // what is added could leave little but the error
    if (block.activation == Activation::gelu) return Finisher::brief_gelu;
    if (block.activation == Activation::quick_gelu) return Finisher::brief_quick_gelu;
    if (block.activation == Activation::gelu_tanh) return Finisher::brief_gelu_tanh;
  }
  return static_cast<Finisher>(block.activation);
}

template <Finisher finisher>
CHIASMA_INLINE Vec activate(Vec x) {
  if constexpr (finisher == Finisher::gelu) return gelu(x);
  if constexpr (finisher == Finisher::quick_gelu) return quick_gelu(x);
  if constexpr (finisher == Finisher::gelu_tanh) return gelu_tanh(x);
  if constexpr (finisher == Finisher::relu) return relu(x);
  if constexpr (finisher == Finisher::silu) return silu(x);
  if constexpr (finisher == Finisher::tanh) return tanh(x);
  if constexpr (finisher == Finisher::brief_gelu) return brief_gelu(x);
  if constexpr (finisher == Finisher::brief_quick_gelu) return brief_quick_gelu(x);
  if constexpr (finisher == Finisher::brief_gelu_tanh) return brief_gelu_tanh(x);
  return x;
}

#if defined(CHIASMA_VEC_512)
// The activations that have halves.
constexpr bool has_halves(Finisher finisher) {
  return finisher == Finisher::gelu || finisher == Finisher::gelu_tanh || finisher == Finisher::brief_gelu || finisher == Finisher::brief_gelu_tanh;
}
template <Finisher finisher>
constexpr const auto& gelu_table() {
  if constexpr (finisher == Finisher::gelu) {
    return erf_gelu_table;
  } else if constexpr (finisher == Finisher::gelu_tanh) {
    return tanh_gelu_table;
  } else if constexpr (finisher == Finisher::brief_gelu) {
    return brief_erf_gelu_table;
  } else {
    return brief_tanh_gelu_table;
  }
}
// Read only when x is known: held in registers it would drive sums of products out of them.
template <Finisher finisher>
CHIASMA_INLINE const auto& table_of(Vec x) {
  const auto* table = &gelu_table<finisher>();
  asm("" : "+r"(table) : "v"(x.v));
  return *table;
}
#endif

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

constexpr int64_t line_bytes = line_floats * sizeof(float);

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

  char* out() const { return out_; }
  const char* residual() const { return residual_; }

  // Into the first-level cache: what `columns` columns of the row need.
  void fetch(int64_t columns) const {
    for (int64_t at = 0; at < columns * size_of(out_floats_); at += line_bytes) __builtin_prefetch(out_ + at, 1);
    if (!has_residual_) return;
    for (int64_t at = 0; at < columns * size_of(residual_floats_); at += line_bytes) __builtin_prefetch(residual_ + at);
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

// What turns sums of `vectors` vectors of columns from `column` on into numbers.
template <bool bytes, int vectors>
struct Columns {
  Columns(float uniform, const ByteScales& scales, int64_t column) {
    CHIASMA_UNROLL
    for (int v = 0; v < vectors; ++v) {
      scale[v] = bytes ? load(scales.columns + column + v * Vec::lanes) : set(uniform);
#if defined(CHIASMA_HAS_BYTE_DOT)
      if constexpr (bytes) weight_sums[v] = _mm512_loadu_si512(scales.column_sums + column + v * Vec::lanes);
#endif
    }
  }

  // Vector v of a row's sums as float32, and `bias`. of_row: its scale and zero.
  CHIASMA_INLINE Vec product(Vec sum, int v, const char* of_row, Vec bias) const {
    if constexpr (!bytes) return fma(sum, scale[v], bias);
    const uint32_t* const word = reinterpret_cast<const uint32_t*>(of_row);
    const Vec row_scale = set(float_of(word[0]));
#if defined(CHIASMA_HAS_BYTE_DOT)
    return fma(without(sum, _mm512_mullo_epi32(_mm512_set1_epi32(static_cast<int>(word[1])), weight_sums[v])) * scale[v], row_scale, bias);
#elif defined(CHIASMA_VEC_256)
    return fma(Vec{_mm256_cvtepi32_ps(_mm256_castps_si256(sum.v))} * scale[v], row_scale, bias);
#else
    return fma(sum * scale[v], row_scale, bias);
#endif
  }

  Vec scale[vectors];
#if defined(CHIASMA_HAS_BYTE_DOT)
  static CHIASMA_INLINE Vec without(Vec sum, __m512i excess) { return {_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_castps_si512(sum.v), excess))}; }
  __m512i weight_sums[vectors];
#endif
};

template <bool whole>
CHIASMA_INLINE Vec load_bias(const GemmBlock& block, int64_t column, int n) {
  return block.bias ? load_lanes<whole>(block.bias + column, n) : set(-0.0f);  // adding -0 changes nothing
}

// `vectors` whole vectors of the rows' columns from `column` on, or the first n lanes of one. sums: of the first row and column.
template <Finisher finisher, bool bytes, int vectors, bool whole>
CHIASMA_INLINE void finish_vectors(const GemmBlock& block, const ByteScales& scales, const float* sums, int64_t row, int64_t rows, int64_t column,
                                   int n) {
  const int64_t sums_stride = geometry_of(block.weight_type).columns;
  const Columns<bytes, vectors> factors(block.scale, scales, column);
  Vec bias[vectors];
  CHIASMA_UNROLL
  for (int v = 0; v < vectors; ++v) bias[v] = load_bias<whole>(block, column + v * Vec::lanes, n);
  Rows place(block, row, column);
  const char* of_row = scales.rows;
  for (int64_t r = 0; r < rows; ++r, sums += sums_stride, of_row += block.x_pitch, place.next()) {
    CHIASMA_UNROLL
    for (int v = 0; v < vectors; ++v) {
      const Vec value = activate<finisher>(factors.product(load_packed(sums + v * Vec::lanes), v, of_row, bias[v]));
      place.write<whole>(place.add_residual<whole>(value, v * Vec::lanes, n), v * Vec::lanes, n);
    }
  }
}

// The tile's rows [row, row + rows) and columns [column, column + columns) of C.
template <Finisher finisher, bool bytes>
void finish_tile(const GemmBlock& block, const ByteScales& scales, const float* sums, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  constexpr int64_t pair = 2 * Vec::lanes;
  int64_t c = 0;
  for (; c + pair <= columns; c += pair) finish_vectors<finisher, bytes, 2, true>(block, scales, sums + c, row, rows, column + c, Vec::lanes);
  for (; c + Vec::lanes <= columns; c += Vec::lanes) finish_vectors<finisher, bytes, 1, true>(block, scales, sums + c, row, rows, column + c, Vec::lanes);
  if (c < columns) finish_vectors<finisher, bytes, 1, false>(block, scales, sums + c, row, rows, column + c, static_cast<int>(columns - c));
}

// The same tile where only what is above thresholds is wanted.
template <bool bytes>
void filter_tile(const GemmBlock& block, const ByteScales& scales, const float* sums, int64_t row, int64_t rows, int64_t column, int64_t columns) {
  const int64_t sums_stride = geometry_of(block.weight_type).columns;
  for (int64_t c = 0; c < columns; c += Vec::lanes) {
    const int n = static_cast<int>(smaller(Vec::lanes, columns - c));
    const Vec limits = load_part(block.thresholds + column + c, n);
    const Columns<bytes, 1> factors(block.scale, scales, column + c);
    const auto product_at = [&](const float* at, int64_t r) {
#if defined(CHIASMA_HAS_BYTE_DOT)
      // Of rows that are int8 all scales are 1 and all zeros 128.
      if constexpr (bytes) return factors.without(load_packed(at), _mm512_slli_epi32(factors.weight_sums[0], 7)) * factors.scale[0];
#endif
      return factors.product(load_packed(at), 0, scales.rows + r * block.x_pitch, set(-0.0f));
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
Finish finish_of(const GemmBlock& block) {
  if (block.hits) return filter_tile<bytes>;
  switch (finisher_of(block)) {
    case Finisher::none:
      return finish_tile<Finisher::none, bytes>;
    case Finisher::gelu:
      return finish_tile<Finisher::gelu, bytes>;
    case Finisher::quick_gelu:
      return finish_tile<Finisher::quick_gelu, bytes>;
    case Finisher::gelu_tanh:
      return finish_tile<Finisher::gelu_tanh, bytes>;
    case Finisher::relu:
      return finish_tile<Finisher::relu, bytes>;
    case Finisher::silu:
      return finish_tile<Finisher::silu, bytes>;
    case Finisher::tanh:
      return finish_tile<Finisher::tanh, bytes>;
    case Finisher::brief_gelu:
      return finish_tile<Finisher::brief_gelu, bytes>;
    case Finisher::brief_quick_gelu:
      return finish_tile<Finisher::brief_quick_gelu, bytes>;
    case Finisher::brief_gelu_tanh:
      return finish_tile<Finisher::brief_gelu_tanh, bytes>;
  }
  return nullptr;
}

// A tile whose sums are complete, or soon will be, its epilogue still to come.
struct Unfinished {
  const GemmBlock* block;
  Finish finish;
  ByteScales scales;
  const float* sums;
  int64_t row, rows, column, columns;

  void run(int64_t begin, int64_t end) const {
    ByteScales from = scales;
    from.rows += begin * block->x_pitch;
    finish(*block, from, sums + begin * geometry_of(block->weight_type).columns, row + begin, end - begin, column, columns);
  }
  static void run_aside(const void* tile, int64_t begin, int64_t end) { static_cast<const Unfinished*>(tile)->run(begin, end); }
};

// Tiles that finish the one before, or themselves; null where there are none.
struct FinishingTiles {
  Tile beside, whole;
};

#if defined(CHIASMA_VEC_512)
// What becomes of results beside products: with or without a residual of the result's type, they are written as float32 or rounded to bfloat16.
enum class Ending : uint8_t { written, added, rounded, added_rounded, other };
constexpr bool adds(Ending ending) { return ending == Ending::added || ending == Ending::added_rounded; }
constexpr bool rounds(Ending ending) { return ending == Ending::rounded || ending == Ending::added_rounded; }

Ending ending_of(const GemmBlock& block) {
  const bool floats = block.out_type == GemmType::float32;
  if (!block.residual) return floats ? Ending::written : Ending::rounded;
  if (block.residual_type != block.out_type) return Ending::other;
  return floats ? Ending::added : Ending::added_rounded;
}

// Where the rows of a tile go, fetched into the first-level cache, and what else finishing whole ones takes.
struct TilePlaces {
  CHIASMA_INLINE explicit TilePlaces(const Unfinished& tile)
      : uniform(tile.block->scale), scales(tile.scales), column(tile.column), bias(tile.block->bias ? tile.block->bias + tile.column : no_bias.data()) {
    Rows place(*tile.block, tile.row, tile.column);
    for (int64_t r = 0; r < tile.rows; ++r, place.next()) {
      place.fetch(tile_columns);
      x[r] = scales.rows + r * tile.block->x_pitch;
      out[r] = place.out();
      residual[r] = place.residual();
    }
  }

  // Vector v of a row's products from its sums, and of its results.
  template <bool bytes>
  CHIASMA_INLINE Vec product(Vec sums, int64_t r, int64_t v) const {
    const Columns<bytes, 1> factors(uniform, scales, column + v * Vec::lanes);
    return factors.product(sums, 0, x[r], load(bias + v * Vec::lanes));
  }
  template <Finisher finisher, Ending ending, bool bytes>
  CHIASMA_INLINE Vec result(Vec sums, int64_t r, int v) const {
    const Vec value = activate<finisher>(product<bytes>(sums, r, v));
    using Residual = std::conditional_t<rounds(ending), Bf16, float>;
    if constexpr (adds(ending)) return value + load(reinterpret_cast<const Residual*>(residual[r]) + v * Vec::lanes);
    return value;
  }

  // Adding -0 changes nothing.
  static constexpr std::array<float, tile_columns> no_bias = [] {
    std::array<float, tile_columns> values{};
    for (float& value : values) value = -0.0f;
    return values;
  }();
  const float uniform;
  const ByteScales scales;
  const int64_t column;
  const float* const bias;
  const char* x[tile_rows];
  char* out[tile_rows];
  const char* residual[tile_rows];
};

// multiply_tile that finishes whole rows of the tile before: what that takes besides multiplications goes on beside its products. A row after each group, or
// a vector in two halves after two steps.
template <class Step, int rows, Finisher finisher, Ending ending, bool bytes>
void multiply_beside(const TileWork& work) {
  TileSums<Step, rows, tile_vectors> tile(work);
  const Unfinished& before = *static_cast<const Unfinished*>(work.aside.state);
  const TilePlaces places(before);
  constexpr bool again = ending == Ending::rounded;  // nothing is added, so that a tile can be finished once more
  RoundedStore rounded;
  const auto write = [&](Vec value, int64_t r, int64_t v) __attribute__((always_inline)) {
    using Out = std::conditional_t<rounds(ending), Bf16, float>;
    Out* const to = reinterpret_cast<Out*>(places.out[r]) + v * Vec::lanes;
    if constexpr (again) {
      rounded.store(to, value);
    } else {
      store(to, value);
    }
  };
  const auto sums_at = [&](int64_t r, int64_t v) __attribute__((always_inline)) { return load_packed(before.sums + r * tile_columns + v * Vec::lanes); };
  int64_t g = 0;
  if constexpr (has_halves(finisher)) {
    static_assert(group_steps == 4);
    int64_t r = 0, v = 0, left = before.rows * tile_vectors;
    const auto begin = [&]() __attribute__((always_inline)) {
      const Vec x = places.template product<bytes>(sums_at(r, v), r, v);
      return begin_gelu(x, table_of<finisher>(x));
    };
    const auto end = [&](const Halfway& half) __attribute__((always_inline)) {
      write(end_gelu(half, table_of<finisher>(half.x)), r, v);
      if (++v == tile_vectors) v = 0, ++r;
    };
    for (; left >= 2 && g < work.groups; ++g, left -= 2) {
      Halfway half;
      tile.add_group(work, [&](int step) __attribute__((always_inline)) {
        if (step % 2 == 0) {
          half = begin();
        } else {
          end(half);
        }
      });
    }
    for (; g < work.groups; ++g) tile.add_group(work);
    for (; left > 0; --left) end(begin());
  } else {
    const auto finish_row = [&](int64_t r) __attribute__((always_inline)) {
      CHIASMA_UNROLL
      for (int v = 0; v < tile_vectors; ++v) write(places.template result<finisher, ending, bytes>(sums_at(r, v), r, v), r, v);
    };
    int64_t r = 0;
    for (; r < before.rows && g < work.groups; ++g, ++r) {
      tile.add_group(work);
      finish_row(r);
    }
    for (; g < work.groups; ++g) tile.add_group(work);
    for (; r < before.rows; ++r) finish_row(r);
  }
  if (again && !rounded.right()) before.run(0, before.rows);
  tile.store_to(work.sums);
}

constexpr int64_t places_ahead = 8;  // groups before its end in which a tile that finishes itself fetches its places

// multiply_tile that finishes its own whole rows from registers, each vector of columns beside the last products of the next. For tiles of few groups,
// where rows of another take more than the products leave free; not for activations in halves.
template <class Step, int rows, Finisher finisher, Ending ending, bool bytes>
void multiply_whole(const TileWork& work) {
  TileSums<Step, rows, tile_vectors> tile(work);
  int64_t g = 1;
  for (; g + places_ahead < work.groups; ++g) tile.add_group(work);
  const TilePlaces places(*static_cast<const Unfinished*>(work.aside.state));
  for (; g < work.groups; ++g) tile.add_group(work);
  CHIASMA_UNROLL
  for (int v = 0; v < tile_vectors; ++v) {
    tile.add_vectors(v, v + 1, [](int) {});
    if (v == 0) tile.fetch_ahead(work);
    Vec values[rows];
    CHIASMA_UNROLL
    for (int r = 0; r < rows; ++r) {
      values[r] = places.template result<finisher, ending, bytes>(tile.sum[r][v], r, v);
      if constexpr (!rounds(ending)) store(reinterpret_cast<float*>(places.out[r]) + v * Vec::lanes, values[r]);
    }
    if constexpr (rounds(ending)) {
      store_all(values, [&](int r) { return reinterpret_cast<Bf16*>(places.out[r]) + v * Vec::lanes; });
    }
  }
}

// Those for so many rows, of what models have; none for anything else. Results are bfloat16 or, before a sum and without products of bfloat16, float32.
template <class Step, bool bytes>
FinishingTiles find_finishing(int64_t rows, Finisher finisher, Ending ending) {
  constexpr bool brief_results = has_dot && !std::is_same_v<Step, Float32Step>;
  const auto of = [rows]<Finisher which, Ending end>() -> FinishingTiles {
    const auto of_rows = []<int count>() -> FinishingTiles {
      if constexpr (has_halves(which)) return {multiply_beside<Step, count, which, end, bytes>, nullptr};
      return {multiply_beside<Step, count, which, end, bytes>, multiply_whole<Step, count, which, end, bytes>};
    };
    if (rows == tile_rows) return of_rows.template operator()<tile_rows>();
    return rows == tile_rows - 1 ? of_rows.template operator()<tile_rows - 1>() : FinishingTiles{};
  };
  if (finisher == Finisher::none && ending == Ending::added) return of.template operator()<Finisher::none, Ending::added>();
  if (finisher == Finisher::none && ending == Ending::written) return of.template operator()<Finisher::none, Ending::written>();
  if constexpr (brief_results) {
    if (finisher == Finisher::none && ending == Ending::added_rounded) return of.template operator()<Finisher::none, Ending::added_rounded>();
  }
  if (ending != (brief_results ? Ending::rounded : Ending::written)) return {};
  const auto either = [&]<Finisher precise, Finisher brief>() -> FinishingTiles {
    if constexpr (brief_results) return finisher == brief ? of.template operator()<brief, Ending::rounded>() : FinishingTiles{};
    return finisher == precise ? of.template operator()<precise, Ending::written>() : FinishingTiles{};
  };
  switch (finisher) {
    case Finisher::none:
      return either.template operator()<Finisher::none, Finisher::none>();
    case Finisher::gelu:
    case Finisher::brief_gelu:
      return either.template operator()<Finisher::gelu, Finisher::brief_gelu>();
    case Finisher::quick_gelu:
    case Finisher::brief_quick_gelu:
      return either.template operator()<Finisher::quick_gelu, Finisher::brief_quick_gelu>();
    case Finisher::gelu_tanh:
    case Finisher::brief_gelu_tanh:
      return either.template operator()<Finisher::gelu_tanh, Finisher::brief_gelu_tanh>();
    default:
      return {};
  }
}
#endif

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
