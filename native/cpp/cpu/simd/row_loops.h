// Loops over one row in registers. Included by simd/rows_*.cpp.
#pragma once

#include "cpu/simd/rows.h"
#include "cpu/simd/vec.h"

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

// How many lanes a step of a row has: all of them, or an int at its end. A type of its own, so that whole steps are compiled apart.
struct AllLanes {};

template <typename T>
CHIASMA_INLINE Vec load_lanes(const T* p, AllLanes) {
  return load(p);
}
template <typename T>
CHIASMA_INLINE Vec load_lanes(const T* p, int n) {
  return load_part(p, n);
}
template <typename T>
CHIASMA_INLINE void store_lanes(T* p, Vec a, AllLanes) {
  store(p, a);
}
template <typename T>
CHIASMA_INLINE void store_lanes(T* p, Vec a, int n) {
  store_part(p, a, n);
}
// a where the row has elements, else b.
CHIASMA_INLINE Vec within(Vec a, Vec, AllLanes) { return a; }
CHIASMA_INLINE Vec within(Vec a, Vec b, int n) { return select_first(n, a, b); }

// step(column, lanes) over a row.
template <typename F>
CHIASMA_INLINE void for_columns(int64_t columns, F&& step) {
  int64_t c = 0;
  for (; c + Vec::lanes <= columns; c += Vec::lanes) step(c, AllLanes{});
  if (c < columns) step(c, static_cast<int>(columns - c));
}

// Strips of 4 registers, then of 1, the last one partial. strip(column, lanes, integral constant: registers).
template <int Registers>
struct Strip {
  static constexpr int registers = Registers;
};
template <typename F>
CHIASMA_INLINE void for_strips(int64_t columns, F&& strip) {
  int64_t c = 0;
  for (; c + 4 * Vec::lanes <= columns; c += 4 * Vec::lanes) strip(c, AllLanes{}, Strip<4>{});
  for (; c + Vec::lanes <= columns; c += Vec::lanes) strip(c, AllLanes{}, Strip<1>{});
  if (c < columns) strip(c, static_cast<int>(columns - c), Strip<1>{});
}

// acc = step(acc, column, lanes) over a row in four accumulators that all start at `start`, joined by join(a, b) pairwise.
template <typename F, typename J>
CHIASMA_INLINE Vec accumulate(int64_t columns, Vec start, F&& step, J&& join) {
  Vec a = start, b = start, c = start, d = start;
  int64_t i = 0;
  for (; i + 4 * Vec::lanes <= columns; i += 4 * Vec::lanes) {
    a = step(a, i, AllLanes{});
    b = step(b, i + Vec::lanes, AllLanes{});
    c = step(c, i + 2 * Vec::lanes, AllLanes{});
    d = step(d, i + 3 * Vec::lanes, AllLanes{});
  }
  for (; i + Vec::lanes <= columns; i += Vec::lanes) a = step(a, i, AllLanes{});
  if (i < columns) b = step(b, i, static_cast<int>(columns - i));
  return join(join(a, b), join(c, d));
}
template <typename F>
CHIASMA_INLINE float sum_columns(int64_t columns, F&& step) {
  return reduce_sum(accumulate(columns, zero(), step, [](Vec a, Vec b) { return a + b; }));
}

// Rows whose element type is chosen at each step: the branch is foretold, and a loop for each pair of types would be many loops.
struct InRow {
  InRow(const InRows& rows, int64_t row)
      : data(static_cast<const char*>(rows.data) + row * rows.stride * (rows.type == RowType::bfloat16 ? 2 : 4)),
        bf16(rows.type == RowType::bfloat16) {}

  template <typename L>
  CHIASMA_INLINE Vec load(int64_t column, L lanes) const {
    return bf16 ? load_lanes(static_cast<const Bf16*>(data) + column, lanes) : load_lanes(static_cast<const float*>(data) + column, lanes);
  }

  const void* data;
  bool bf16;
};
struct OutRow {
  OutRow(const OutRows& rows, int64_t row)
      : data(static_cast<char*>(rows.data) + row * rows.stride * (rows.type == RowType::bfloat16 ? 2 : 4)), bf16(rows.type == RowType::bfloat16) {}

  template <typename L>
  CHIASMA_INLINE void store(int64_t column, Vec value, L lanes) const {
    if (bf16) {
      store_lanes(static_cast<Bf16*>(data) + column, value, lanes);
    } else {
      store_lanes(static_cast<float*>(data) + column, value, lanes);
    }
  }

  void* data;
  bool bf16;
};

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
