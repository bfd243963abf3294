// pool: a sequence's rows into one, a strip of columns at a time that stays in registers while the rows pass.
// Sums are taken over 32 rows, then over these sums, so that their error grows little with the sequence.
#include "cpu/simd/row_loops.h"

namespace chiasma::cpu::CHIASMA_ISA {

namespace {

constexpr int64_t group_rows = 32;

void sum_rows(InRows x, OutRow out, int64_t rows, int64_t columns, float divisor) {
  for_strips(columns, [=](int64_t c, auto lanes, auto strip) {
    constexpr int n = decltype(strip)::registers;
    Vec total[n];
    for (int i = 0; i < n; ++i) total[i] = zero();
    for (int64_t begin = 0; begin < rows; begin += group_rows) {
      const int64_t end = begin + group_rows < rows ? begin + group_rows : rows;
      Vec sum[n];
      for (int i = 0; i < n; ++i) sum[i] = zero();
      for (int64_t r = begin; r < end; ++r) {
        const InRow row(x, r);
        for (int i = 0; i < n; ++i) sum[i] = sum[i] + row.load(c + i * Vec::lanes, lanes);
      }
      for (int i = 0; i < n; ++i) total[i] = total[i] + sum[i];
    }
    for (int i = 0; i < n; ++i) out.store(c + i * Vec::lanes, total[i] / set(divisor), lanes);
  });
}

void max_rows(InRows x, OutRow out, int64_t rows, int64_t columns) {
  for_strips(columns, [=](int64_t c, auto lanes, auto strip) {
    constexpr int n = decltype(strip)::registers;
    Vec most[n];
    for (int i = 0; i < n; ++i) most[i] = InRow(x, 0).load(c + i * Vec::lanes, lanes);
    for (int64_t r = 1; r < rows; ++r) {
      const InRow row(x, r);
      for (int i = 0; i < n; ++i) most[i] = max_nan(row.load(c + i * Vec::lanes, lanes), most[i]);
    }
    for (int i = 0; i < n; ++i) out.store(c + i * Vec::lanes, most[i], lanes);
  });
}

}  // namespace

void pool_rows(PoolMode mode, InRows x, OutRows out, int64_t rows, int64_t columns) {
  const OutRow to(out, 0);
  const float length = static_cast<float>(rows);
  if (rows == 0) return for_columns(columns, [=](int64_t c, auto lanes) { to.store(c, zero(), lanes); });
  switch (mode) {
    case PoolMode::mean:
      return sum_rows(x, to, rows, columns, length);
    case PoolMode::mean_sqrt_len:
      return sum_rows(x, to, rows, columns, sqrtf(length));
    case PoolMode::max:
      return max_rows(x, to, rows, columns);
  }
}

}  // namespace chiasma::cpu::CHIASMA_ISA
