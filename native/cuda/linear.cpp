// linear: act(x·Wᵀ + bias) + residual with a weight of role `linear`. matmul: a·bᵀ · scale. Both are the one matrix multiply of gemm.cu.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "cuda/gemm.h"

namespace chiasma::cuda {

using core::DType;
using core::ErrorCode;
using core::Operands;
using core::TensorView;

namespace {

constexpr int64_t alignment = 16;  // bytes, of what gemm reads
constexpr size_t round_up(size_t bytes) { return (bytes + 63) / 64 * 64; }

bool is_aligned(const TensorView& view) {
  return reinterpret_cast<uintptr_t>(view.data) % alignment == 0 && view.row_stride * static_cast<int64_t>(core::size_of(view.dtype)) % alignment == 0;
}

const float* floats_or_null(const TensorView& view) { return view.present() ? view.as<const float>() : nullptr; }

char* at(void* memory, size_t offset) { return static_cast<char*>(memory) + offset; }

class LinearKernel final : public CudaKernel {
 public:
  LinearKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec) {
    const Operands operands(spec, {"x", "weight*", "bias?", "residual?"});
    const TensorView& x = operands.input(0);
    const TensorView& weight = operands.input(1);
    operands.floats(0);
    operands.weight(1);
    columns_ = weight.shape[0];
    inner_ = weight.shape[1];
    if (x.rank < 1 || x.columns() != inner_) operands.refuse_shape(0, "[..., " + std::to_string(inner_) + "]");
    operands.row(2, columns_);
    if (operands.input(3).present()) {
      operands.floats(3);
      const TensorView& residual = operands.input(3);
      if (residual.columns() != columns_ || residual.rows() != x.rows()) {
        operands.refuse_shape(3, std::to_string(x.rows()) + " rows of " + std::to_string(columns_));
      }
    }
    operands.result_rows(x.rows(), columns_);
    const int activation = core::parse_choice(spec, "activation", {"gelu", "quick_gelu", "gelu_tanh", "relu", "silu", "tanh", "none"});
    activated_ = activation < 6;
    if (activated_) activation_ = static_cast<UnaryKind>(activation);
    spec.attributes.expect_only({"activation", "dtype"});
    int8_ = weight.dtype == DType::int8;
    if (int8_) {
      rows_ = x.rows();
      scales_ = round_up(static_cast<size_t>(rows_ * linear_stride(inner_)));
      offsets_ = scales_ + round_up(static_cast<size_t>(rows_) * sizeof(float));
      workspace_ = offsets_ + static_cast<size_t>(rows_) * sizeof(int32_t);
    } else {
      operand_ = GemmOperand(x, weight.dtype);
      workspace_ = operand_.workspace_bytes();
    }
  }

  size_t workspace_bytes() const override { return workspace_; }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[0];
    const TensorView& weight = arguments.inputs[1];
    const TensorView& residual = arguments.inputs[3];
    const TensorView& out = arguments.outputs[0];
    core::check_run(x.rows() == out.rows(), op(), "x and the output have different counts");
    if (x.rows() == 0 || columns_ == 0) return;
    Gemm gemm{};
    gemm.weight = {weight.data, linear_stride(inner_), weight.dtype};
    gemm.out = rows_of(out);
    gemm.rows = x.rows();
    gemm.columns = columns_;
    gemm.inner = inner_;
    gemm.scale = 1;
    gemm.bias = floats_or_null(arguments.inputs[2]);
    gemm.activated = activated_;
    gemm.activation = activation_;
    gemm.residual_period = x.rows();
    if (residual.present()) gemm.residual = rows_of(residual);
    if (int8_) {
      core::check_run(x.rows() <= rows_, op(), "x has more rows than the kernel was made for");
      const Int8Layout layout(columns_, inner_);
      gemm.x = {arguments.workspace, linear_stride(inner_), DType::int8};
      auto* const scales = reinterpret_cast<float*>(at(arguments.workspace, scales_));
      auto* const offsets = reinterpret_cast<int32_t*>(at(arguments.workspace, offsets_));
      gemm.x_scales = scales;
      gemm.x_offsets = offsets;
      gemm.weight_scales = reinterpret_cast<const float*>(at(weight.data, layout.scales));
      gemm.weight_sums = reinterpret_cast<const int32_t*>(at(weight.data, layout.sums));
      launch(library().quantize, {rows_of(x), gemm.x, x.rows(), inner_, scales, offsets}, arguments);
    } else {
      const GemmOperand::Ready ready = operand_.ready(x, arguments.workspace);
      gemm.x = ready.rows;
      if (ready.copied) launch(library().cast, {rows_of(x), gemm.x, x.rows(), inner_}, arguments);
    }
    launch(library().gemm, gemm, arguments);
  }

 private:
  int64_t columns_ = 0, inner_ = 0, rows_ = 0;
  bool activated_ = false, int8_ = false;
  UnaryKind activation_ = UnaryKind::gelu;
  GemmOperand operand_;
  size_t scales_ = 0, offsets_ = 0, workspace_ = 0;
};

class MatmulKernel final : public CudaKernel {
 public:
  MatmulKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec) {
    const Operands operands(spec, {"a", "b"});
    const TensorView& a = operands.input(0);
    const TensorView& b = operands.input(1);
    operands.floats(0);
    operands.floats(1);
    operands.rank(0, 2, "[M, K]");
    operands.rank(1, 2, "[N, K]");
    if (a.shape[1] != b.shape[1]) operands.refuse_shape(0, "[M, " + std::to_string(b.shape[1]) + "]");
    operands.result_rows(a.rows(), b.rows());
    scale_ = static_cast<float>(spec.attributes.number("scale"));
    spec.attributes.expect_only({"scale", "dtype"});
    // As precise as the more precise of the two.
    type_ = a.dtype == b.dtype ? a.dtype : DType::float32;
    a_ = GemmOperand(a, type_);
    b_ = GemmOperand(b, type_);
  }

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
    Gemm gemm{};
    gemm.x = left.rows;
    gemm.weight = right.rows;
    gemm.out = rows_of(out);
    gemm.rows = out.rows();
    gemm.columns = out.columns();
    gemm.inner = a.columns();
    gemm.scale = scale_;
    gemm.residual_period = out.rows();
    launch(library().gemm, gemm, arguments);
  }

 private:
  DType type_ = DType::float32;
  float scale_ = 1;
  GemmOperand a_, b_;
};

}  // namespace

GemmOperand::GemmOperand(const TensorView& view, DType type) : type_(type) {
  const bool tight = view.dtype == type && view.rows() > 1 && view.row_stride == view.columns();  // then it lies where the arena, aligned, puts it
  if (!tight || view.columns() * static_cast<int64_t>(core::size_of(type)) % alignment != 0) {
    bytes_ = round_up(static_cast<size_t>(view.rows() * linear_stride(view.columns())) * core::size_of(type));
  }
}

GemmOperand::Ready GemmOperand::ready(const TensorView& view, void* workspace) const noexcept {
  if (view.dtype == type_ && is_aligned(view)) return {rows_of(view), false};
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
  const bool usable = range >= 1e-30f && range <= FLT_MAX;  // a range too small for its inverse counts as none
  const float inverse = usable ? 127 / range : 0;
  *scale = usable ? range / 127 : range <= FLT_MAX ? 0.0f : NAN;
  *sum = 0;
  for (int64_t i = 0; i < stride; ++i) {
    bytes[i] = usable && i < columns ? static_cast<int8_t>(std::nearbyint(row[i] * inverse)) : int8_t{0};
    *sum += bytes[i];
  }
}

std::unique_ptr<core::Kernel> make_linear(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<LinearKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_matmul(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<MatmulKernel>(spec, device); }

}  // namespace chiasma::cuda
