// rotary: pairs of a head's features, half of the rotated ones apart, turned by an angle each.
#include "cpu/simd/row_loops.h"

namespace chiasma::cpu::CHIASMA_ISA {

void rotate_row(InRows x, OutRows out, int64_t heads, int64_t head_size, int64_t rotated, const float* angles) {
  const InRow from(x, 0);
  const OutRow to(out, 0);
  const int64_t half = rotated / 2;
  for (int64_t h = 0; h < heads; ++h) {
    const int64_t low = h * head_size, high = low + half, rest = high + half;
    for_columns(half, [=](int64_t c, auto lanes) {
      const Vec a = from.load(low + c, lanes), b = from.load(high + c, lanes);
      const Vec cosine = load_lanes(angles + c, lanes), sine = load_lanes(angles + half + c, lanes);
      to.store(low + c, fma(a, cosine, -(b * sine)), lanes);
      to.store(high + c, fma(b, cosine, a * sine), lanes);
    });
    for_columns(head_size - rotated, [=](int64_t c, auto lanes) { to.store(rest + c, from.load(rest + c, lanes), lanes); });
  }
}

}  // namespace chiasma::cpu::CHIASMA_ISA
