// convolution: windows to rows, then the matrix multiply with its epilogue. depthwiseConvolution, poolWindows, scaleSequences: a kernel each.
#include "core/op_specs.h"
#include "cuda/gemm.h"

namespace chiasma::cuda {

namespace {

using core::ConvolutionSpec;
using core::DepthwiseSpec;
using core::PoolWindowsSpec;
using core::ScaleSequencesSpec;
using core::TensorView;
using core::WindowSpec;

Windows windows_of(const WindowSpec& w) {
  return {w.height, w.width, w.kernel_y, w.kernel_x, w.stride_y, w.stride_x, w.top, w.left, w.down, w.across};
}

void check_counts(const WindowSpec& windows, const TensorView& x, const TensorView& out, const std::string& op) {
  core::check_run(out.rows() == windows.rows_of(x.rows()), op, "the windows and the output have different counts");
}

class ConvolutionKernel final : public CudaKernel {
 public:
  ConvolutionKernel(const core::KernelSpec& spec, CudaDevice& device)
      : CudaKernel(device, spec), spec_(spec), unfolded_(spec.outputs[0].rows(), spec_.depth, spec.inputs[ConvolutionSpec::weight].dtype) {}

  size_t workspace_bytes() const override { return unfolded_.bytes(); }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[ConvolutionSpec::x];
    const TensorView& weight = arguments.inputs[ConvolutionSpec::weight];
    const TensorView& residual = arguments.inputs[ConvolutionSpec::residual];
    const TensorView& out = arguments.outputs[0];
    check_counts(spec_.windows, x, out, op());
    core::check_run(out.rows() <= unfolded_.rows(), op(), "the output has more rows than it was made for");
    if (out.size() == 0) return;
    const Rows unfolded = unfolded_.in(arguments.workspace);
    launch(library().unfold, {rows_of(x), unfolded, windows_of(spec_.windows), out.rows(), spec_.windows.channels}, arguments);
    Gemm gemm = product(unfolded, {weight.data, unfolded.stride, weight.dtype}, unfolded.stride, out);
    gemm.bias = floats_or_null(arguments.inputs[ConvolutionSpec::bias]);
    set_activation(gemm, spec_.activation);
    if (residual.present()) gemm.residual = rows_of(residual);
    launch(library().gemm, gemm, arguments);
  }

 private:
  ConvolutionSpec spec_;
  WorkspaceRows unfolded_;
};

class DepthwiseKernel final : public CudaKernel {
 public:
  DepthwiseKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec), spec_(spec) {}

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[DepthwiseSpec::x];
    const TensorView& weight = arguments.inputs[DepthwiseSpec::weight];
    const TensorView& out = arguments.outputs[0];
    check_counts(spec_.windows, x, out, op());
    if (out.size() == 0) return;
    Depthwise depthwise{};
    depthwise.x = rows_of(x);
    depthwise.out = rows_of(out);
    depthwise.windows = windows_of(spec_.windows);
    depthwise.rows = out.rows();
    depthwise.columns = out.columns();
    depthwise.weight = weight.as<const float>();
    depthwise.weight_stride = weight.row_stride;
    depthwise.bias = floats_or_null(arguments.inputs[DepthwiseSpec::bias]);
    set_activation(depthwise, spec_.activation);
    launch(library().depthwise, depthwise, arguments);
  }

 private:
  DepthwiseSpec spec_;
};

class PoolWindowsKernel final : public CudaKernel {
 public:
  PoolWindowsKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec), spec_(spec) {}

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[0];
    const TensorView& out = arguments.outputs[0];
    check_counts(spec_.windows, x, out, op());
    if (out.size() == 0) return;
    launch(library().pool_windows, {rows_of(x), rows_of(out), windows_of(spec_.windows), out.rows(), out.columns(), spec_.max}, arguments);
  }

 private:
  PoolWindowsSpec spec_;
};

class ScaleSequencesKernel final : public CudaKernel {
 public:
  ScaleSequencesKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec), spec_(spec) {}

  void run(const core::KernelArguments& arguments) override {
    core::check_same(op(), arguments);
    const TensorView& x = arguments.inputs[ScaleSequencesSpec::x];
    const TensorView& scale = arguments.inputs[ScaleSequencesSpec::scale];
    const TensorView& shift = arguments.inputs[ScaleSequencesSpec::shift];
    core::check_run(scale.rows() * spec_.length == x.rows() && (!shift.present() || shift.rows() == scale.rows()), op(), "the sequences and scale have different counts");
    if (x.size() == 0) return;
    launch(library().scale_sequences,
           {rows_of(x), rows_of(arguments.outputs[0]), scale.as<const float>(), scale.row_stride, floats_or_null(shift), shift.row_stride, spec_.length, x.rows(),
            x.columns()},
           arguments);
  }

 private:
  ScaleSequencesSpec spec_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_convolution(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<ConvolutionKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_depthwise_convolution(const core::KernelSpec& spec, CudaDevice& device) {
  return std::make_unique<DepthwiseKernel>(spec, device);
}
std::unique_ptr<core::Kernel> make_pool_windows(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<PoolWindowsKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_scale_sequences(const core::KernelSpec& spec, CudaDevice& device) {
  return std::make_unique<ScaleSequencesKernel>(spec, device);
}

}  // namespace chiasma::cuda
