// linear: act(x·Wᵀ + bias) + residual with a weight of role `linear`. matmul: a·bᵀ · scale. Both are the one matrix multiply of gemm.cu.
#include <algorithm>
#include <cmath>

#include "core/op_specs.h"
#include "cuda/gemm.h"

namespace chiasma::cuda {

using core::DType;
using core::LinearSpec;
using core::MatmulSpec;
using core::TensorView;

namespace {

constexpr int64_t alignment = 16;  // bytes, of what gemm reads
constexpr size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

bool is_aligned(const TensorView& view) {
  return reinterpret_cast<uintptr_t>(view.data) % alignment == 0 && view.row_stride * static_cast<int64_t>(core::size_of(view.dtype)) % alignment == 0;
}

char* at(void* memory, size_t offset) { return static_cast<char*>(memory) + offset; }

class LinearKernel final : public CudaKernel {
 public:
  LinearKernel(const core::KernelSpec& spec, CudaDevice& device)
      : CudaKernel(device, spec), spec_(spec), int8_(spec.inputs[LinearSpec::weight].dtype == DType::int8) {
    if (int8_) {
      scales_ = round_up(static_cast<size_t>(spec_.rows * linear_stride(spec_.inner)));
      offsets_ = scales_ + round_up(static_cast<size_t>(spec_.rows) * sizeof(float));
      workspace_ = offsets_ + static_cast<size_t>(spec_.rows) * sizeof(int32_t);
    } else {
      operand_ = GemmOperand(spec.inputs[LinearSpec::x], spec.inputs[LinearSpec::weight].dtype);
      workspace_ = operand_.workspace_bytes();
    }
  }

  size_t workspace_bytes() const override { return workspace_; }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[LinearSpec::x];
    const TensorView& weight = arguments.inputs[LinearSpec::weight];
    const TensorView& residual = arguments.inputs[LinearSpec::residual];
    const TensorView& out = arguments.outputs[0];
    core::check_run(x.rows() == out.rows() && x.rows() <= spec_.rows, op(), "x and the output have different counts");
    if (x.rows() == 0 || spec_.columns == 0) return;
    const int64_t stride = linear_stride(spec_.inner);
    Gemm gemm = product(rows_of(x), {weight.data, stride, weight.dtype}, spec_.inner, out);
    gemm.bias = floats_or_null(arguments.inputs[LinearSpec::bias]);
    set_activation(gemm, spec_.activation);
    if (residual.present()) gemm.residual = rows_of(residual);
    if (int8_) {
      const Int8Layout layout(spec_.columns, spec_.inner);
      auto* const scales = reinterpret_cast<float*>(at(arguments.workspace, scales_));
      auto* const offsets = reinterpret_cast<int32_t*>(at(arguments.workspace, offsets_));
      gemm.x = {arguments.workspace, stride, DType::int8};
      gemm.x_scales = scales;
      gemm.x_offsets = offsets;
      gemm.weight_scales = reinterpret_cast<const float*>(at(weight.data, layout.scales));
      gemm.weight_sums = reinterpret_cast<const int32_t*>(at(weight.data, layout.sums));
      launch(library().quantize, {rows_of(x), gemm.x, x.rows(), spec_.inner, scales, offsets}, arguments);
    } else {
      const GemmOperand::Ready ready = operand_.ready(x, arguments.workspace);
      gemm.x = ready.rows;
      if (ready.copied) launch(library().cast, {rows_of(x), gemm.x, x.rows(), spec_.inner}, arguments);
    }
    launch(library().gemm, gemm, arguments);
  }

 private:
  LinearSpec spec_;
  bool int8_;
  GemmOperand operand_;
  size_t scales_ = 0, offsets_ = 0, workspace_ = 0;
};

class MatmulKernel final : public CudaKernel {
 public:
  MatmulKernel(const core::KernelSpec& spec, CudaDevice& device)
      : CudaKernel(device, spec), spec_(spec), a_(spec.inputs[MatmulSpec::a], spec_.product), b_(spec.inputs[MatmulSpec::b], spec_.product) {}

  size_t workspace_bytes() const override { return a_.workspace_bytes() + b_.workspace_bytes(); }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& a = arguments.inputs[0];
    const TensorView& b = arguments.inputs[1];
    const TensorView& out = arguments.outputs[0];
    core::check_run(a.rows() == out.rows() && b.rows() == out.columns(), op(), "the inputs and the output have different counts");
    if (out.rows() == 0 || out.columns() == 0) return;
    const GemmOperand::Ready left = a_.ready(a, arguments.workspace), right = b_.ready(b, at(arguments.workspace, a_.workspace_bytes()));
    if (left.copied) launch(library().cast, {rows_of(a), left.rows, a.rows(), a.columns()}, arguments);
    if (right.copied) launch(library().cast, {rows_of(b), right.rows, b.rows(), b.columns()}, arguments);
    Gemm gemm = product(left.rows, right.rows, a.columns(), out);
    gemm.scale = spec_.scale;
    launch(library().gemm, gemm, arguments);
  }

 private:
  MatmulSpec spec_;
  GemmOperand a_, b_;
};

}  // namespace

GemmOperand::GemmOperand(const TensorView& view, DType type) : type_(type) {
  const bool tight = view.dtype == type && view.rows() > 1 && view.row_stride == view.columns();  // then it lies where the arena, aligned, puts it
  if (!tight || view.columns() * static_cast<int64_t>(core::size_of(type)) % alignment != 0) {
    bytes_ = round_up(static_cast<size_t>(view.rows() * linear_stride(view.columns())) * core::size_of(type));
  }
}

GemmOperand::Ready GemmOperand::ready(const TensorView& view, void* workspace) const {
  if (view.dtype == type_ && is_aligned(view)) return {rows_of(view), false};
  if (bytes_ == 0) throw core::Error(core::ErrorCode::internal, "a matrix that was to lie at a multiple of 16 bytes does not");
  return {{workspace, linear_stride(view.columns()), type_}, true};
}

Int8Layout::Int8Layout(int64_t rows, int64_t columns) noexcept
    : row_bytes(static_cast<size_t>(linear_stride(columns))),
      scales(row_bytes * static_cast<size_t>(rows)),
      sums(scales + static_cast<size_t>(rows) * sizeof(float)),
      bytes(sums + static_cast<size_t>(rows) * sizeof(int32_t)) {}

void quantize_weight_row(const float* row, int64_t columns, int64_t stride, int8_t* bytes, float* scale, int32_t* sum) noexcept {
  float largest = 0, poison = 0;  // poison: NaN if a number is not finite
  for (int64_t i = 0; i < columns; ++i) {
    largest = std::max(largest, std::fabs(row[i]));
    poison += row[i] * 0;
  }
  const float range = largest + poison;
  const bool usable = range >= 1e-30f && range < INFINITY;  // a range too small for its inverse counts as none
  const float inverse = usable ? 127 / range : 0;
  *scale = usable ? range / 127 : range < INFINITY ? 0.0f : NAN;
  *sum = 0;
  for (int64_t i = 0; i < stride; ++i) {
    bytes[i] = usable && i < columns ? static_cast<int8_t>(std::nearbyint(row[i] * inverse)) : int8_t{0};
    *sum += bytes[i];
  }
}

std::unique_ptr<core::Kernel> make_linear(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<LinearKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_matmul(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<MatmulKernel>(spec, device); }

}  // namespace chiasma::cuda
