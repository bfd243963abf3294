// layerNorm (mean, then the variance about it: two passes), rmsNorm, l2Normalize, softmax. Statistics are float32.
#include "cpu/simd/row_loops.h"

namespace chiasma::cpu::CHIASMA_ISA {

namespace {

void layer_norm_row(InRow x, OutRow out, int64_t columns, const float* weight, const float* bias, float eps) {
  const float count = static_cast<float>(columns);
  const Vec mean = set(sum_columns(columns, [=](Vec sum, int64_t c, auto lanes) { return sum + x.load(c, lanes); }) / count);
  const float squares = sum_columns(columns, [=](Vec sum, int64_t c, auto lanes) {
    const Vec d = within(x.load(c, lanes) - mean, zero(), lanes);
    return fma(d, d, sum);
  });
  const Vec inverse = set(1.0f / sqrtf(squares / count + eps));
  for_columns(columns, [=](int64_t c, auto lanes) {
    Vec y = (x.load(c, lanes) - mean) * inverse;
    if (weight) y = y * load_lanes(weight + c, lanes);
    if (bias) y = y + load_lanes(bias + c, lanes);
    out.store(c, y, lanes);
  });
}

void rms_norm_row(InRow x, OutRow out, int64_t columns, const float* weight, float eps) {
  const float squares = sum_columns(columns, [=](Vec sum, int64_t c, auto lanes) {
    const Vec v = x.load(c, lanes);
    return fma(v, v, sum);
  });
  const Vec inverse = set(1.0f / sqrtf(squares / static_cast<float>(columns) + eps));
  for_columns(columns, [=](int64_t c, auto lanes) {
    const Vec y = x.load(c, lanes) * inverse;
    out.store(c, weight ? y * load_lanes(weight + c, lanes) : y, lanes);
  });
}

void l2_normalize_row(InRow x, OutRow out, int64_t columns, float eps) {
  const float norm = sqrtf(sum_columns(columns, [=](Vec sum, int64_t c, auto lanes) {
    const Vec v = x.load(c, lanes);
    return fma(v, v, sum);
  }));
  const Vec divisor = set(norm < eps ? eps : norm);  // NaN stays
  for_columns(columns, [=](int64_t c, auto lanes) { out.store(c, x.load(c, lanes) / divisor, lanes); });
}

// A NaN may be passed over by the maximum, not by the sum, which makes all of the row NaN.
void softmax_row(InRow x, OutRow out, int64_t columns) {
  const Vec lowest = set(-INFINITY);
  const auto larger_of = [=](Vec most, int64_t c, auto lanes) { return max(within(x.load(c, lanes), lowest, lanes), most); };
  const Vec highest = set(reduce_max(accumulate(columns, lowest, larger_of, [](Vec a, Vec b) { return max(a, b); })));
  const Vec total = set(sum_columns(columns, [=](Vec sum, int64_t c, auto lanes) {
    return sum + within(exp(x.load(c, lanes) - highest), zero(), lanes);
  }));
  for_columns(columns, [=](int64_t c, auto lanes) { out.store(c, exp(x.load(c, lanes) - highest) / total, lanes); });
}

}  // namespace

void layer_norm_rows(InRows x, OutRows out, int64_t rows, int64_t columns, const float* weight, const float* bias, float eps) {
  for (int64_t r = 0; r < rows; ++r) layer_norm_row(InRow(x, r), OutRow(out, r), columns, weight, bias, eps);
}

void rms_norm_rows(InRows x, OutRows out, int64_t rows, int64_t columns, const float* weight, float eps) {
  for (int64_t r = 0; r < rows; ++r) rms_norm_row(InRow(x, r), OutRow(out, r), columns, weight, eps);
}

void l2_normalize_rows(InRows x, OutRows out, int64_t rows, int64_t columns, float eps) {
  for (int64_t r = 0; r < rows; ++r) l2_normalize_row(InRow(x, r), OutRow(out, r), columns, eps);
}

void softmax_rows(InRows x, OutRows out, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) softmax_row(InRow(x, r), OutRow(out, r), columns);
}

}  // namespace chiasma::cpu::CHIASMA_ISA
