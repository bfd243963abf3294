// add, sub, mul, div, unary, cast: element by element. Row strides are free; tensors without gaps are taken as one long row.
#include "cpu/elementwise.h"

#include <algorithm>

#include "cpu/operands.h"

namespace chiasma::cpu {

namespace {

using core::DType;
using core::ErrorCode;
using core::TensorView;

constexpr int64_t function_cost = 3;  // an element of gelu takes the time of so many that are only moved

class BinaryKernel final : public core::Kernel {
 public:
  BinaryKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd), op_(spec.op) {
    constexpr std::string_view ops[] = {"add", "sub", "mul", "div"};  // as BinaryKind orders them
    const auto found = std::find(std::begin(ops), std::end(ops), op_);
    const Operands operands(spec, {"a", "b"});
    if (found == std::end(ops)) operands.refuse(ErrorCode::unsupported, "is no arithmetic op");
    kind_ = static_cast<BinaryKind>(found - std::begin(ops));
    operands.floats(0);
    operands.floats(1);
    const TensorView& a = operands.input(0);
    const TensorView& b = operands.input(1);
    const bool trailing = b.rank <= a.rank && std::equal(b.shape.begin(), b.shape.begin() + b.rank, a.shape.begin() + (a.rank - b.rank));
    if (!trailing) operands.refuse_shape(1, shape_text(a) + " or trailing dimensions of it");
    operands.result_like(0);
    spec.attributes.expect_only({"dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& a = arguments.inputs[0];
    const TensorView& b = arguments.inputs[1];
    const TensorView& out = arguments.outputs[0];
    const int64_t rows = a.rows(), columns = a.columns();
    const bool scalar = b.rank == 0;
    const int64_t period = b.rows();  // row r of a goes with row r % period of b
    check_same(op_, arguments);
    check_run(scalar || b.columns() == columns, op_, "a and b have different columns");
    check_run(rows == 0 || (period > 0 && rows % period == 0), op_, "the rows of a are no multiple of those of b");

    const InRows left = in_rows(a);
    InRows right = in_rows(b);
    const OutRows result = out_rows(out);
    const bool gapless = a.contiguous() && out.contiguous();
    if (scalar || period == rows || period == 1) {
      // b moves with a, stays at its row, or is one element for all.
      const bool same = !scalar && period == rows;
      const bool flat = gapless && (scalar || (same && b.contiguous()));
      if (!same) right.stride = 0;
      return for_elements(arguments, flat, rows, columns, 1, [&](int64_t row, int64_t column, int64_t count, int64_t width) {
        simd_.binary(kind_, at(left, row, column), at(right, row, scalar ? 0 : column), scalar, at(result, row, column), count, width);
      });
    }
    for_pieces(arguments, rows, columns, [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        simd_.binary(kind_, at(left, row), at(right, row % period), false, at(result, row), 1, columns);
      }
    });
  }

 private:
  const RowFunctions& simd_;
  std::string op_;
  BinaryKind kind_;
};

class UnaryKernel final : public core::Kernel {
 public:
  UnaryKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd) {
    const Operands operands(spec, {"x"});
    operands.floats(0);
    operands.result_like(0);
    kind_ = static_cast<UnaryKind>(
        parse_choice(spec, "kind", {"gelu", "quick_gelu", "gelu_tanh", "relu", "silu", "tanh", "sigmoid", "exp", "neg", "sqrt", "abs"}));
    spec.attributes.expect_only({"kind", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[0];
    const TensorView& out = arguments.outputs[0];
    check_same("unary", arguments);
    const InRows in = in_rows(x);
    const OutRows result = out_rows(out);
    for_elements(arguments, x.contiguous() && out.contiguous(), x.rows(), x.columns(), function_cost,
                 [&](int64_t row, int64_t column, int64_t rows, int64_t columns) {
                   simd_.unary(kind_, at(in, row, column), at(result, row, column), rows, columns);
                 });
  }

 private:
  const RowFunctions& simd_;
  UnaryKind kind_;
};

class CastKernel final : public core::Kernel {
 public:
  CastKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd) {
    const Operands operands(spec, {"x"});
    operands.dtype(0, {DType::float32, DType::bfloat16, DType::int32, DType::uint8});
    operands.result_like(0);
    spec.attributes.expect_only({"dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[0];
    const TensorView& out = arguments.outputs[0];
    check_same("cast", arguments);
    const InRows in = in_rows(x);
    const OutRows result = out_rows(out);
    for_elements(arguments, x.contiguous() && out.contiguous(), x.rows(), x.columns(), 1,
                 [&](int64_t row, int64_t column, int64_t rows, int64_t columns) {
                   simd_.convert(at(in, row, column), at(result, row, column), rows, columns);
                 });
  }

 private:
  const RowFunctions& simd_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_binary(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<BinaryKernel>(spec, *simd.rows);
}
std::unique_ptr<core::Kernel> make_unary(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<UnaryKernel>(spec, *simd.rows);
}
std::unique_ptr<core::Kernel> make_cast(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<CastKernel>(spec, *simd.rows);
}

}  // namespace chiasma::cpu
