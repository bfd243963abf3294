// layerNorm, rmsNorm, l2Normalize, softmax: each row by itself. Row strides are free.
#include <cmath>

#include "cuda/kernels.h"

namespace chiasma::cuda {

namespace {

using core::Operands;
using core::TensorView;

float read_eps(const core::KernelSpec& spec) {
  const double eps = spec.attributes.number("eps");
  if (!(eps >= 0) || !std::isfinite(static_cast<float>(eps))) {
    throw core::Error(core::ErrorCode::argument, "[" + spec.op + "] eps is " + std::to_string(eps) + "; expected a number of at least 0");
  }
  return static_cast<float>(eps);
}

void check_rows(const Operands& operands) {
  operands.floats(0);
  if (operands.input(0).rank < 1) operands.refuse_shape(0, "[..., C]");
  operands.result_like(0);
}

class LayerNormKernel final : public CudaKernel {
 public:
  LayerNormKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec), eps_(read_eps(spec)) {
    const Operands operands(spec, {"x", "weight?", "bias?"});
    check_rows(operands);
    operands.row(1, operands.input(0).columns());
    operands.row(2, operands.input(0).columns());
    spec.attributes.expect_only({"eps", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    core::check_same(op(), arguments);
    const TensorView& x = arguments.inputs[0];
    launch(library().layer_norm,
           {rows_of(x), rows_of(arguments.outputs[0]), x.rows(), x.columns(), floats_or_null(arguments.inputs[1]), floats_or_null(arguments.inputs[2]), eps_},
           arguments);
  }

 private:
  float eps_;
};

class RmsNormKernel final : public CudaKernel {
 public:
  RmsNormKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec), eps_(read_eps(spec)) {
    const Operands operands(spec, {"x", "weight?"});
    check_rows(operands);
    operands.row(1, operands.input(0).columns());
    spec.attributes.expect_only({"eps", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    core::check_same(op(), arguments);
    const TensorView& x = arguments.inputs[0];
    launch(library().rms_norm, {rows_of(x), rows_of(arguments.outputs[0]), x.rows(), x.columns(), floats_or_null(arguments.inputs[1]), eps_},
           arguments);
  }

 private:
  float eps_;
};

class L2NormalizeKernel final : public CudaKernel {
 public:
  L2NormalizeKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec), eps_(read_eps(spec)) {
    check_rows(Operands(spec, {"x"}));
    spec.attributes.expect_only({"eps", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    core::check_same(op(), arguments);
    const TensorView& x = arguments.inputs[0];
    launch(library().l2_normalize, {rows_of(x), rows_of(arguments.outputs[0]), x.rows(), x.columns(), eps_}, arguments);
  }

 private:
  float eps_;
};

class SoftmaxKernel final : public CudaKernel {
 public:
  SoftmaxKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec) {
    check_rows(Operands(spec, {"x"}));
    spec.attributes.expect_only({"dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    core::check_same(op(), arguments);
    const TensorView& x = arguments.inputs[0];
    launch(library().softmax, {rows_of(x), rows_of(arguments.outputs[0]), x.rows(), x.columns()}, arguments);
  }
};

}  // namespace

std::unique_ptr<core::Kernel> make_layer_norm(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<LayerNormKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_rms_norm(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<RmsNormKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_l2_normalize(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<L2NormalizeKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_softmax(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<SoftmaxKernel>(spec, device); }

}  // namespace chiasma::cuda
