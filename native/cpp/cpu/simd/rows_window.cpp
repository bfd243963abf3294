// Windows of rows into one: depthwise convolution, mean and maximum; and rows times one row. A strip of columns stays in registers while
// the window's rows pass, in order.
#include "cpu/simd/row_loops.h"

namespace chiasma::cpu::CHIASMA_ISA {

namespace {

template <typename F>
void depthwise(InRows x, WindowRows window, const float* weights, int64_t weight_stride, const float* bias, OutRows out, int64_t columns, F activation) {
  const OutRow to(out, 0);
  for_strips(columns, [=](int64_t c, auto lanes, auto strip) {
    constexpr int n = decltype(strip)::registers;
    Vec sum[n];
    for (int i = 0; i < n; ++i) sum[i] = bias ? load_lanes(bias + c + i * Vec::lanes, lanes) : zero();
    for (int64_t t = 0; t < window.count; ++t) {
      const InRow row(x, window.rows[t]);
      const float* const weight = weights + window.places[t] * weight_stride + c;
      for (int i = 0; i < n; ++i) sum[i] = fma(row.load(c + i * Vec::lanes, lanes), load_lanes(weight + i * Vec::lanes, lanes), sum[i]);
    }
    for (int i = 0; i < n; ++i) to.store(c + i * Vec::lanes, activation(sum[i]), lanes);
  });
}

template <typename F>
void reduce(InRows x, WindowRows window, OutRows out, int64_t columns, float divisor, F join) {
  const OutRow to(out, 0);
  for_strips(columns, [=](int64_t c, auto lanes, auto strip) {
    constexpr int n = decltype(strip)::registers;
    Vec all[n];
    for (int i = 0; i < n; ++i) all[i] = InRow(x, window.rows[0]).load(c + i * Vec::lanes, lanes);
    for (int64_t t = 1; t < window.count; ++t) {
      const InRow row(x, window.rows[t]);
      for (int i = 0; i < n; ++i) all[i] = join(row.load(c + i * Vec::lanes, lanes), all[i]);
    }
    for (int i = 0; i < n; ++i) to.store(c + i * Vec::lanes, all[i] / set(divisor), lanes);
  });
}

}  // namespace

void depthwise_row(InRows x, WindowRows window, const float* weights, int64_t weight_stride, const float* bias, const UnaryKind* activation, OutRows out,
                   int64_t columns) {
  const bool brief = out.type == RowType::bfloat16;
  const auto with = [=](auto function) { depthwise(x, window, weights, weight_stride, bias, out, columns, function); };
  if (!activation) return with([](Vec v) { return v; });
  switch (*activation) {
    case UnaryKind::gelu:
      return brief ? with([](Vec v) { return brief_gelu(v); }) : with([](Vec v) { return gelu(v); });
    case UnaryKind::quick_gelu:
      return brief ? with([](Vec v) { return brief_quick_gelu(v); }) : with([](Vec v) { return quick_gelu(v); });
    case UnaryKind::gelu_tanh:
      return brief ? with([](Vec v) { return brief_gelu_tanh(v); }) : with([](Vec v) { return gelu_tanh(v); });
    case UnaryKind::relu:
      return with([](Vec v) { return relu(v); });
    case UnaryKind::silu:
      return with([](Vec v) { return silu(v); });
    case UnaryKind::tanh:
      return with([](Vec v) { return tanh(v); });
    default:
      return;  // no activation of the op
  }
}

void pool_window_row(bool max, InRows x, WindowRows window, OutRows out, int64_t columns) {
  if (max) return reduce(x, window, out, columns, 1, [](Vec a, Vec b) { return max_nan(a, b); });
  reduce(x, window, out, columns, static_cast<float>(window.count), [](Vec a, Vec b) { return a + b; });
}

void scale_rows(InRows x, const float* scale, const float* shift, OutRows out, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) {
    const InRow from(x, r);
    const OutRow to(out, r);
    for_columns(columns, [=](int64_t c, auto lanes) {
      const Vec scaled = from.load(c, lanes) * load_lanes(scale + c, lanes);
      to.store(c, shift ? scaled + load_lanes(shift + c, lanes) : scaled, lanes);
    });
  }
}

}  // namespace chiasma::cpu::CHIASMA_ISA
