// layerNorm, rmsNorm, l2Normalize, softmax: each row by itself, rows shared out to the pool. Row strides are free.
#include "cpu/norm.h"

#include <cmath>

#include "cpu/operands.h"

namespace chiasma::cpu {

namespace {

using core::ErrorCode;

constexpr int64_t exp_cost = 4;  // an element of softmax takes the time of so many that are only moved

float read_eps(const core::KernelSpec& spec) {
  const double eps = spec.attributes.number("eps");
  if (!(eps >= 0) || !std::isfinite(static_cast<float>(eps))) {
    throw core::Error(ErrorCode::argument, "[" + spec.op + "] eps is " + std::to_string(eps) + "; expected a number of at least 0");
  }
  return static_cast<float>(eps);
}

void check_rows(const Operands& operands) {
  operands.floats(0);
  if (operands.input(0).rank < 1) operands.refuse_shape(0, "[..., C]");
  operands.result_like(0);
}

class LayerNormKernel final : public core::Kernel {
 public:
  LayerNormKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd) {
    const Operands operands(spec, {"x", "weight?", "bias?"});
    check_rows(operands);
    operands.row(1, operands.input(0).columns());
    operands.row(2, operands.input(0).columns());
    eps_ = read_eps(spec);
    spec.attributes.expect_only({"eps", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    check_same("layerNorm", arguments);
    const core::TensorView& x = arguments.inputs[0];
    const core::TensorView& weight = arguments.inputs[1];
    const core::TensorView& bias = arguments.inputs[2];
    const InRows in = in_rows(x);
    const OutRows out = out_rows(arguments.outputs[0]);
    for_pieces(arguments, x.rows(), x.columns(), [&](int64_t begin, int64_t end, int) {
      simd_.layer_norm(at(in, begin), at(out, begin), end - begin, x.columns(), weight.present() ? weight.as<const float>() : nullptr,
                       bias.present() ? bias.as<const float>() : nullptr, eps_);
    });
  }

 private:
  const RowFunctions& simd_;
  float eps_;
};

class RmsNormKernel final : public core::Kernel {
 public:
  RmsNormKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd) {
    const Operands operands(spec, {"x", "weight?"});
    check_rows(operands);
    operands.row(1, operands.input(0).columns());
    eps_ = read_eps(spec);
    spec.attributes.expect_only({"eps", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    check_same("rmsNorm", arguments);
    const core::TensorView& x = arguments.inputs[0];
    const core::TensorView& weight = arguments.inputs[1];
    const InRows in = in_rows(x);
    const OutRows out = out_rows(arguments.outputs[0]);
    for_pieces(arguments, x.rows(), x.columns(), [&](int64_t begin, int64_t end, int) {
      simd_.rms_norm(at(in, begin), at(out, begin), end - begin, x.columns(), weight.present() ? weight.as<const float>() : nullptr, eps_);
    });
  }

 private:
  const RowFunctions& simd_;
  float eps_;
};

class L2NormalizeKernel final : public core::Kernel {
 public:
  L2NormalizeKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd) {
    check_rows(Operands(spec, {"x"}));
    eps_ = read_eps(spec);
    spec.attributes.expect_only({"eps", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    check_same("l2Normalize", arguments);
    const core::TensorView& x = arguments.inputs[0];
    const InRows in = in_rows(x);
    const OutRows out = out_rows(arguments.outputs[0]);
    for_pieces(arguments, x.rows(), x.columns(), [&](int64_t begin, int64_t end, int) {
      simd_.l2_normalize(at(in, begin), at(out, begin), end - begin, x.columns(), eps_);
    });
  }

 private:
  const RowFunctions& simd_;
  float eps_;
};

class SoftmaxKernel final : public core::Kernel {
 public:
  SoftmaxKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd) {
    check_rows(Operands(spec, {"x"}));
    spec.attributes.expect_only({"dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    check_same("softmax", arguments);
    const core::TensorView& x = arguments.inputs[0];
    const InRows in = in_rows(x);
    const OutRows out = out_rows(arguments.outputs[0]);
    for_pieces(arguments, x.rows(), x.columns() * exp_cost, [&](int64_t begin, int64_t end, int) {
      simd_.softmax(at(in, begin), at(out, begin), end - begin, x.columns());
    });
  }

 private:
  const RowFunctions& simd_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_layer_norm(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<LayerNormKernel>(spec, *simd.rows);
}
std::unique_ptr<core::Kernel> make_rms_norm(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<RmsNormKernel>(spec, *simd.rows);
}
std::unique_ptr<core::Kernel> make_l2_normalize(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<L2NormalizeKernel>(spec, *simd.rows);
}
std::unique_ptr<core::Kernel> make_softmax(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<SoftmaxKernel>(spec, *simd.rows);
}

}  // namespace chiasma::cpu
