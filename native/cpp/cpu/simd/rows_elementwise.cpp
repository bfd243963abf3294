// Element by element: functions of one operand, arithmetic of two, conversions.
#include "cpu/simd/row_loops.h"

namespace chiasma::cpu::CHIASMA_ISA {

namespace {

template <typename F>
void map_rows(InRows x, OutRows out, int64_t rows, int64_t columns, F function) {
  with_types(x, out, [=](auto* from, auto* to) {
    for (int64_t r = 0; r < rows; ++r) {
      const auto* row = from + r * x.stride;
      auto* result = to + r * out.stride;
      for_columns(columns, [=](int64_t c, auto lanes) { store_lanes(result + c, function(load_lanes(row + c, lanes)), lanes); });
    }
  });
}

template <typename B, typename F>
void combine_rows(InRows a, const B* b, int64_t b_stride, bool b_scalar, OutRows out, int64_t rows, int64_t columns, F function) {
  with_types(a, out, [=](auto* from, auto* to) {
    for (int64_t r = 0; r < rows; ++r) {
      const auto* left = from + r * a.stride;
      const B* right = b + r * b_stride;
      auto* result = to + r * out.stride;
      if (b_scalar) {
        const Vec same = set(to_float(*right));
        for_columns(columns, [=](int64_t c, auto lanes) { store_lanes(result + c, function(load_lanes(left + c, lanes), same), lanes); });
      } else {
        for_columns(columns, [=](int64_t c, auto lanes) {
          store_lanes(result + c, function(load_lanes(left + c, lanes), load_lanes(right + c, lanes)), lanes);
        });
      }
    }
  });
}

template <typename F>
void combine(InRows a, InRows b, bool b_scalar, OutRows out, int64_t rows, int64_t columns, F function) {
  if (b.type == RowType::float32) {
    combine_rows(a, static_cast<const float*>(b.data), b.stride, b_scalar, out, rows, columns, function);
  } else {
    combine_rows(a, static_cast<const Bf16*>(b.data), b.stride, b_scalar, out, rows, columns, function);
  }
}

template <typename In>
void convert_from(const In* x, int64_t stride, OutRows out, int64_t rows, int64_t columns) {
  const auto convert_to = [=](auto* to) {
    for (int64_t r = 0; r < rows; ++r) {
      const In* row = x + r * stride;
      auto* result = to + r * out.stride;
      for_columns(columns, [=](int64_t c, auto lanes) { store_lanes(result + c, load_lanes(row + c, lanes), lanes); });
    }
  };
  if (out.type == RowType::float32) {
    convert_to(static_cast<float*>(out.data));
  } else {
    convert_to(static_cast<Bf16*>(out.data));
  }
}

}  // namespace

void unary_rows(UnaryKind kind, InRows x, OutRows out, int64_t rows, int64_t columns) {
  const auto map = [=](auto function) { map_rows(x, out, rows, columns, function); };
  switch (kind) {
    case UnaryKind::gelu:
      return map([](Vec v) { return gelu(v); });
    case UnaryKind::quick_gelu:
      return map([](Vec v) { return quick_gelu(v); });
    case UnaryKind::gelu_tanh:
      return map([](Vec v) { return gelu_tanh(v); });
    case UnaryKind::relu:
      return map([](Vec v) { return relu(v); });
    case UnaryKind::silu:
      return map([](Vec v) { return silu(v); });
    case UnaryKind::tanh:
      return map([](Vec v) { return tanh(v); });
    case UnaryKind::sigmoid:
      return map([](Vec v) { return sigmoid(v); });
    case UnaryKind::exp:
      return map([](Vec v) { return exp(v); });
    case UnaryKind::neg:
      return map([](Vec v) { return -v; });
    case UnaryKind::sqrt:
      return map([](Vec v) { return sqrt(v); });
    case UnaryKind::abs:
      return map([](Vec v) { return abs(v); });
  }
}

void binary_rows(BinaryKind kind, InRows a, InRows b, bool b_scalar, OutRows out, int64_t rows, int64_t columns) {
  const auto with = [=](auto function) { combine(a, b, b_scalar, out, rows, columns, function); };
  switch (kind) {
    case BinaryKind::add:
      return with([](Vec x, Vec y) { return x + y; });
    case BinaryKind::sub:
      return with([](Vec x, Vec y) { return x - y; });
    case BinaryKind::mul:
      return with([](Vec x, Vec y) { return x * y; });
    case BinaryKind::div:
      return with([](Vec x, Vec y) { return x / y; });
  }
}

void convert_rows(InRows x, OutRows out, int64_t rows, int64_t columns) {
  switch (x.type) {
    case RowType::float32:
      return convert_from(static_cast<const float*>(x.data), x.stride, out, rows, columns);
    case RowType::bfloat16:
      return convert_from(static_cast<const Bf16*>(x.data), x.stride, out, rows, columns);
    case RowType::int32:
      return convert_from(static_cast<const int32_t*>(x.data), x.stride, out, rows, columns);
    case RowType::uint8:
      return convert_from(static_cast<const uint8_t*>(x.data), x.stride, out, rows, columns);
  }
}

}  // namespace chiasma::cpu::CHIASMA_ISA
