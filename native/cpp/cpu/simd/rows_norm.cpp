// layerNorm (mean, then the variance about it: two passes), l2Normalize, softmax. Statistics are float32.
#include "cpu/simd/row_loops.h"

namespace chiasma::cpu::CHIASMA_ISA {

namespace {

template <typename In, typename Out>
void layer_norm_row(const In* x, Out* out, int64_t columns, const float* weight, const float* bias, float eps) {
  const float count = static_cast<float>(columns);
  const Vec mean = set(sum_columns(columns, [x](Vec sum, int64_t c, auto lanes) { return sum + load_lanes(x + c, lanes); }) / count);
  const float variance = sum_columns(columns, [x, mean](Vec sum, int64_t c, auto lanes) {
                           const Vec d = within(load_lanes(x + c, lanes) - mean, zero(), lanes);
                           return fma(d, d, sum);
                         }) /
                         count;
  const Vec inverse = set(1.0f / sqrtf(variance + eps));
  for_columns(columns, [=](int64_t c, auto lanes) {
    Vec y = (load_lanes(x + c, lanes) - mean) * inverse;
    if (weight) y = y * load_lanes(weight + c, lanes);
    if (bias) y = y + load_lanes(bias + c, lanes);
    store_lanes(out + c, y, lanes);
  });
}

template <typename In, typename Out>
void l2_normalize_row(const In* x, Out* out, int64_t columns, float eps) {
  const float squares = sum_columns(columns, [x](Vec sum, int64_t c, auto lanes) {
    const Vec v = load_lanes(x + c, lanes);
    return fma(v, v, sum);
  });
  const float norm = sqrtf(squares);
  const Vec divisor = set(norm < eps ? eps : norm);  // NaN stays
  for_columns(columns, [=](int64_t c, auto lanes) { store_lanes(out + c, load_lanes(x + c, lanes) / divisor, lanes); });
}

// A NaN may be passed over by the maximum, not by the sum, which makes all of the row NaN.
template <typename In, typename Out>
void softmax_row(const In* x, Out* out, int64_t columns) {
  const Vec lowest = set(-INFINITY);
  const auto larger = [](Vec a, Vec b) { return max(a, b); };
  const Vec highest = set(reduce_max(accumulate(columns, lowest, [=](Vec most, int64_t c, auto lanes) {
    return max(within(load_lanes(x + c, lanes), lowest, lanes), most);
  }, larger)));
  const Vec total = set(sum_columns(columns, [=](Vec sum, int64_t c, auto lanes) {
    return sum + within(exp(load_lanes(x + c, lanes) - highest), zero(), lanes);
  }));
  for_columns(columns, [=](int64_t c, auto lanes) { store_lanes(out + c, exp(load_lanes(x + c, lanes) - highest) / total, lanes); });
}

}  // namespace

void layer_norm_rows(InRows x, OutRows out, int64_t rows, int64_t columns, const float* weight, const float* bias, float eps) {
  with_types(x, out, [=](auto* from, auto* to) {
    for (int64_t r = 0; r < rows; ++r) layer_norm_row(from + r * x.stride, to + r * out.stride, columns, weight, bias, eps);
  });
}

void l2_normalize_rows(InRows x, OutRows out, int64_t rows, int64_t columns, float eps) {
  with_types(x, out, [=](auto* from, auto* to) {
    for (int64_t r = 0; r < rows; ++r) l2_normalize_row(from + r * x.stride, to + r * out.stride, columns, eps);
  });
}

void softmax_rows(InRows x, OutRows out, int64_t rows, int64_t columns) {
  with_types(x, out, [=](auto* from, auto* to) {
    for (int64_t r = 0; r < rows; ++r) softmax_row(from + r * x.stride, to + r * out.stride, columns);
  });
}

}  // namespace chiasma::cpu::CHIASMA_ISA
