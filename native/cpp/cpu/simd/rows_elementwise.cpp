// Element by element: functions of one operand, arithmetic of two, conversions.
#include "cpu/simd/row_loops.h"

namespace chiasma::cpu::CHIASMA_ISA {

namespace {

template <typename F>
void map_rows(InRows x, OutRows out, int64_t rows, int64_t columns, F function) {
  for (int64_t r = 0; r < rows; ++r) {
    const InRow from(x, r);
    const OutRow to(out, r);
    for_columns(columns, [=](int64_t c, auto lanes) { to.store(c, function(from.load(c, lanes)), lanes); });
  }
}

template <typename F>
void combine_rows(InRows a, InRows b, bool b_scalar, OutRows out, int64_t rows, int64_t columns, F function) {
  for (int64_t r = 0; r < rows; ++r) {
    const InRow left(a, r), right(b, r);
    const OutRow to(out, r);
    if (b_scalar) {
      const Vec same = set(right.bf16 ? to_float(*static_cast<const Bf16*>(right.data)) : *static_cast<const float*>(right.data));
      for_columns(columns, [=](int64_t c, auto lanes) { to.store(c, function(left.load(c, lanes), same), lanes); });
    } else {
      for_columns(columns, [=](int64_t c, auto lanes) { to.store(c, function(left.load(c, lanes), right.load(c, lanes)), lanes); });
    }
  }
}

template <typename In>
void convert_from(const In* x, int64_t stride, OutRows out, int64_t rows, int64_t columns) {
  for (int64_t r = 0; r < rows; ++r) {
    const In* from = x + r * stride;
    const OutRow to(out, r);
    for_columns(columns, [=](int64_t c, auto lanes) { to.store(c, load_lanes(from + c, lanes), lanes); });
  }
}

}  // namespace

void unary_rows(UnaryKind kind, InRows x, OutRows out, int64_t rows, int64_t columns) {
  const bool brief = out.type == RowType::bfloat16;
  const auto map = [=](auto function) { map_rows(x, out, rows, columns, function); };
  switch (kind) {
    case UnaryKind::gelu:
      return brief ? map([](Vec v) { return brief_gelu(v); }) : map([](Vec v) { return gelu(v); });
    case UnaryKind::quick_gelu:
      return brief ? map([](Vec v) { return brief_quick_gelu(v); }) : map([](Vec v) { return quick_gelu(v); });
    case UnaryKind::gelu_tanh:
      return brief ? map([](Vec v) { return brief_gelu_tanh(v); }) : map([](Vec v) { return gelu_tanh(v); });
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
  const auto with = [=](auto function) { combine_rows(a, b, b_scalar, out, rows, columns, function); };
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
