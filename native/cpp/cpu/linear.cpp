// linear: act(x·Wᵀ + bias) + residual with a packed weight. matmul: a·bᵀ · scale, b packed at run time into the same form.
// M rows of x, N outputs, K inputs.
#include "cpu/linear.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/error.h"
#include "cpu/cpu_device.h"
#include "cpu/gemm.h"

namespace chiasma::cpu {

using core::DType;
using core::Error;
using core::ErrorCode;
using core::LinearSpec;
using core::MatmulSpec;
using core::TensorView;

namespace {

constexpr int64_t read_bytes = 1 << 20;  // of a weight's rows at a time

// A GemmBlock's part that all blocks share.
GemmBlock block_of(GemmType weight_type, int64_t n, int64_t k) {
  GemmBlock block{};
  block.weight_type = weight_type;
  block.n = n;
  block.k = k;
  block.scale = 1;
  return block;
}

// `block` against the rows of x, as they lie or packed.
void run_rows(const Gemm& gemm, const core::Stream& stream, void* workspace, const TensorView& x, GemmType type, GemmBlock& block) {
  const GemmFunctions& functions = gemm.functions();
  const int64_t pitch = x.row_stride * static_cast<int64_t>(core::size_of(x.dtype));
  const auto pack = [&](int64_t row, int64_t rows, void* packed, int) {
    functions.pack_rows(x.as<const char>() + row * pitch, type, x.row_stride, rows, block.k, block.weight_type, packed);
  };
  const bool as_is = functions.as_is(type, pitch, block.k, block.weight_type);
  if (as_is) {
    block.x = x.data;
    block.x_pitch = pitch;
  }
  gemm.run(static_cast<const CpuStream&>(stream), workspace, x.rows(), block, as_is ? Gemm::PackRows() : pack);
}

class LinearKernel final : public core::Kernel {
 public:
  LinearKernel(const core::KernelSpec& spec, const SimdKernels& simd)
      : LinearKernel(LinearSpec(spec), spec, choose_gemm(simd)) {}

  size_t workspace_bytes() const override { return gemm_.workspace_bytes(); }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[LinearSpec::x];
    const TensorView& bias = arguments.inputs[LinearSpec::bias];
    const TensorView& residual = arguments.inputs[LinearSpec::residual];
    const TensorView& out = arguments.outputs[0];
    GemmBlock block = block_;
    block.weight = arguments.inputs[LinearSpec::weight].data;
    block.bias = bias.present() ? bias.as<const float>() : nullptr;
    if (residual.present()) {
      block.residual = residual.data;
      block.residual_stride = residual.row_stride;
    }
    block.out = out.data;
    block.out_stride = out.row_stride;
    run_rows(gemm_, arguments.stream, arguments.workspace, x, x_type_, block);
  }

 private:
  LinearKernel(const LinearSpec& checked, const core::KernelSpec& spec, const GemmFunctions& functions)
      : x_type_(gemm_type(spec.inputs[LinearSpec::x].dtype)),
        block_(block_of(gemm_type(spec.inputs[LinearSpec::weight].dtype), checked.columns, checked.inner)),
        gemm_(functions, block_.n, block_.k, block_.weight_type, spec.threads) {
    block_.residual_type = gemm_type(spec.inputs[LinearSpec::residual].dtype);
    block_.out_type = gemm_type(spec.outputs[0].dtype);
    block_.activation = static_cast<Activation>(checked.activation);
  }

  GemmType x_type_;
  GemmBlock block_;
  Gemm gemm_;
};

class MatmulKernel final : public core::Kernel {
 public:
  MatmulKernel(const core::KernelSpec& spec, const SimdKernels& simd) : MatmulKernel(MatmulSpec(spec), spec, choose_gemm(simd)) {}

  size_t workspace_bytes() const override { return packed_bytes_ + gemm_.workspace_bytes(); }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& a = arguments.inputs[0];
    const TensorView& b = arguments.inputs[1];
    const TensorView& out = arguments.outputs[0];
    const CpuStream& stream = static_cast<const CpuStream&>(arguments.stream);
    if (a.rows() == 0 || block_.n == 0) return;
    const int64_t panel = gemm_.functions().panel_columns(block_.weight_type);
    const auto size = static_cast<int64_t>(core::size_of(b.dtype));
    stream.parallel_for((block_.n + panel - 1) / panel, [&](int64_t task, int) {
      const int64_t begin = task * panel;
      gemm_.functions().pack_weight(b.as<const char>() + begin * b.row_stride * size, b_type_, b.row_stride, begin,
                                    std::min(panel, block_.n - begin), block_.n, block_.k, block_.weight_type, arguments.workspace);
    });
    GemmBlock block = block_;
    block.weight = arguments.workspace;
    block.out = out.data;
    block.out_stride = out.row_stride;
    run_rows(gemm_, stream, static_cast<char*>(arguments.workspace) + packed_bytes_, a, a_type_, block);
  }

 private:
  MatmulKernel(const MatmulSpec& checked, const core::KernelSpec& spec, const GemmFunctions& functions)
      : a_type_(gemm_type(spec.inputs[MatmulSpec::a].dtype)),
        b_type_(gemm_type(spec.inputs[MatmulSpec::b].dtype)),
        block_(block_of(gemm_type(checked.product), checked.columns, checked.inner)),
        gemm_(functions, block_.n, block_.k, block_.weight_type, spec.threads),
        packed_bytes_((functions.weight_bytes(block_.n, block_.k, block_.weight_type) + 63) / 64 * 64) {
    block_.out_type = gemm_type(spec.outputs[0].dtype);
    block_.scale = checked.scale;
  }

  GemmType a_type_, b_type_;
  GemmBlock block_;
  Gemm gemm_;
  size_t packed_bytes_;
};

GemmType packed_type(const core::WeightShape& weight) {
  if (weight.shape.size() != 2) throw Error(ErrorCode::shape, "weight '" + weight.name + "' of role 'linear' has rank " + std::to_string(weight.shape.size()) + "; expected 2");
  if (weight.dtype == DType::float32) return GemmType::float32;
  if (weight.dtype == DType::bfloat16) return GemmType::bfloat16;
  if (weight.dtype != DType::int8) {
    throw Error(ErrorCode::dtype, "weight '" + weight.name + "' of role 'linear' is " + core::name_of(weight.dtype) + "; expected float32, bfloat16 or int8");
  }
  if (weight.shape[1] > max_int8_depth) {
    throw Error(ErrorCode::unsupported, "weight '" + weight.name + "' has " + std::to_string(weight.shape[1]) + " inputs; int8 takes at most " + std::to_string(max_int8_depth));
  }
  return GemmType::int8;
}

size_t packed_weight_bytes(const core::WeightShape& weight, const SimdKernels& simd) {
  const GemmType type = packed_type(weight);
  return simd.gemm->weight_bytes(weight.shape[0], weight.shape[1], type);
}

void prepare_weight(const core::WeightShape& weight, core::RowReader& reader, void* memory, const SimdKernels& simd) {
  const GemmType type = packed_type(weight);
  const int64_t n = weight.shape[0], k = weight.shape[1];
  if (n == 0 || k == 0) return;
  const int64_t row_bytes = k * static_cast<int64_t>(sizeof(float));
  const int64_t panel = simd.gemm->panel_columns(type);
  const int64_t step = std::min(n, std::max<int64_t>(read_bytes / row_bytes / panel, 1) * panel);
  std::vector<float> rows(static_cast<size_t>(step * k));
  for (int64_t begin = 0; begin < n; begin += step) {
    const int64_t count = std::min(step, n - begin);
    reader.read(begin, count, rows.data());
    simd.gemm->pack_weight(rows.data(), GemmType::float32, k, begin, count, n, k, type, memory);
  }
}

}  // namespace

const WeightPacking gemm_weight_packing = {packed_weight_bytes, prepare_weight};

std::unique_ptr<core::Kernel> make_linear(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<LinearKernel>(spec, simd);
}

std::unique_ptr<core::Kernel> make_matmul(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<MatmulKernel>(spec, simd);
}

}  // namespace chiasma::cpu
