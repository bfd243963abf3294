// convolution: the matrix multiply of `linear` on rows that are made of each window's pixels while they are packed, so that the unfolded
// picture is never in memory as a whole. depthwiseConvolution, poolWindows: a window's rows into one. scaleSequences: a row for all of a sequence's.
#include "cpu/convolution.h"

#include <algorithm>
#include <cstring>

#include "core/op_specs.h"
#include "cpu/gemm.h"
#include "cpu/operands.h"

namespace chiasma::cpu {

using core::ConvolutionSpec;
using core::DepthwiseSpec;
using core::PoolWindowsSpec;
using core::ScaleSequencesSpec;
using core::TensorView;
using core::WindowSpec;

namespace {

class ConvolutionKernel final : public core::Kernel {
 public:
  ConvolutionKernel(const core::KernelSpec& spec, const SimdKernels& simd) : ConvolutionKernel(ConvolutionSpec(spec), spec, choose_gemm(simd)) {}

  size_t workspace_bytes() const override { return gemm_.workspace_bytes() + static_cast<size_t>(threads_) * scratch_bytes(); }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[ConvolutionSpec::x];
    const TensorView& bias = arguments.inputs[ConvolutionSpec::bias];
    const TensorView& residual = arguments.inputs[ConvolutionSpec::residual];
    const TensorView& out = arguments.outputs[0];
    check_run(out.rows() == spec_.windows.rows_of(x.rows()), "convolution", "the windows and the output have different counts");
    GemmBlock block{};
    block.weight = arguments.inputs[ConvolutionSpec::weight].data;
    block.weight_type = gemm_.weight_type();
    block.n = spec_.features;
    block.k = spec_.depth;
    block.scale = 1;
    block.bias = bias.present() ? bias.as<const float>() : nullptr;
    block.activation = static_cast<Activation>(spec_.activation);
    if (residual.present()) {
      block.residual = residual.data;
      block.residual_type = gemm_type(residual.dtype);
      block.residual_stride = residual.row_stride;
    }
    block.out = out.data;
    block.out_type = gemm_type(out.dtype);
    block.out_stride = out.row_stride;

    char* const scratch = static_cast<char*>(arguments.workspace) + gemm_.workspace_bytes();
    const auto row_bytes = static_cast<int64_t>(gemm_.functions().row_bytes(spec_.depth, gemm_.weight_type()));
    const auto pack = [&](int64_t row, int64_t rows, void* packed, int worker) {
      char* const unfolded = scratch + static_cast<size_t>(worker) * scratch_bytes();
      for (int64_t r = 0; r < rows; ++r) {
        unfold(x, row + r, unfolded);
        gemm_.functions().pack_rows(unfolded, x_type_, spec_.depth, 1, spec_.depth, gemm_.weight_type(), static_cast<char*>(packed) + r * row_bytes);
      }
    };
    gemm_.run(static_cast<const CpuStream&>(arguments.stream), arguments.workspace, out.rows(), block, pack);
  }

 private:
  ConvolutionKernel(const ConvolutionSpec& checked, const core::KernelSpec& spec, const GemmFunctions& functions)
      : spec_(checked),
        threads_(std::max(spec.threads, 1)),
        x_type_(gemm_type(spec.inputs[ConvolutionSpec::x].dtype)),
        element_(static_cast<int64_t>(core::size_of(spec.inputs[ConvolutionSpec::x].dtype))),
        gemm_(functions, checked.features, checked.depth, gemm_type(spec.inputs[ConvolutionSpec::weight].dtype), threads_) {}

  size_t scratch_bytes() const { return (static_cast<size_t>(spec_.depth * element_) + 63) / 64 * 64; }

  // The pixels of window `row`, in the order y, x, channel; zeros outside of the picture.
  void unfold(const TensorView& x, int64_t row, char* to) const {
    const WindowSpec& w = spec_.windows;
    const WindowSpec::Window window = w.window(row);
    const int64_t pixel = w.channels * element_, line = w.kernel_x * pixel, pitch = x.row_stride * element_;
    for (int64_t ky = 0; ky < w.kernel_y; ++ky, to += line) {
      if (ky < window.y_begin || ky >= window.y_end) {
        std::memset(to, 0, static_cast<size_t>(line));
        continue;
      }
      std::memset(to, 0, static_cast<size_t>(window.x_begin * pixel));
      const char* from = x.as<const char>() + (window.first + ky * w.width + window.x_begin) * pitch;
      char* at = to + window.x_begin * pixel;
      if (pitch == pixel) {
        std::memcpy(at, from, static_cast<size_t>((window.x_end - window.x_begin) * pixel));
      } else {
        for (int64_t kx = window.x_begin; kx < window.x_end; ++kx, at += pixel, from += pitch) std::memcpy(at, from, static_cast<size_t>(pixel));
      }
      std::memset(to + window.x_end * pixel, 0, static_cast<size_t>((w.kernel_x - window.x_end) * pixel));
    }
  }

  ConvolutionSpec spec_;
  int threads_;
  GemmType x_type_;
  int64_t element_;  // bytes
  Gemm gemm_;
};

// What for_windows notes down for each thread: rows of x, and their places in the window.
size_t windows_bytes(int threads, const WindowSpec& w) { return static_cast<size_t>(threads) * static_cast<size_t>(2 * w.area()) * sizeof(int64_t); }

// Calls body(row, window) for each row of out, with the rows of x in its window. The workspace has windows_bytes for so many threads.
template <typename F>
void for_windows(const core::KernelArguments& arguments, int threads, const WindowSpec& w, const TensorView& out, F&& body) {
  static_cast<const CpuStream&>(arguments.stream).check_threads(threads);
  for_pieces(arguments, out.rows(), out.columns() * w.area(), [&](int64_t begin, int64_t end, int worker) {
    int64_t* const rows = static_cast<int64_t*>(arguments.workspace) + worker * 2 * w.area();
    int64_t* const places = rows + w.area();
    for (int64_t row = begin; row < end; ++row) {
      const WindowSpec::Window window = w.window(row);
      int64_t count = 0;
      for (int64_t y = window.y_begin; y < window.y_end; ++y) {
        for (int64_t x = window.x_begin; x < window.x_end; ++x, ++count) {
          rows[count] = window.first + y * w.width + x;
          places[count] = y * w.kernel_x + x;
        }
      }
      body(row, WindowRows{rows, places, count});
    }
  });
}

class DepthwiseKernel final : public core::Kernel {
 public:
  DepthwiseKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd), spec_(spec), threads_(std::max(spec.threads, 1)) {
    if (spec_.activation > 0) activation_ = static_cast<UnaryKind>(spec_.activation - 1);
  }

  size_t workspace_bytes() const override { return windows_bytes(threads_, spec_.windows); }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[DepthwiseSpec::x];
    const TensorView& weight = arguments.inputs[DepthwiseSpec::weight];
    const TensorView& bias = arguments.inputs[DepthwiseSpec::bias];
    const TensorView& out = arguments.outputs[0];
    check_run(out.rows() == spec_.windows.rows_of(x.rows()), "depthwiseConvolution", "the windows and the output have different counts");
    const InRows in = in_rows(x);
    const OutRows result = out_rows(out);
    const float* const biases = bias.present() ? bias.as<const float>() : nullptr;
    for_windows(arguments, threads_, spec_.windows, out, [&](int64_t row, const WindowRows& window) {
      simd_.depthwise(in, window, weight.as<const float>(), weight.row_stride, biases, spec_.activation > 0 ? &activation_ : nullptr, at(result, row), out.columns());
    });
  }

 private:
  const RowFunctions& simd_;
  DepthwiseSpec spec_;
  int threads_;
  UnaryKind activation_ = UnaryKind::relu;
};

class PoolWindowsKernel final : public core::Kernel {
 public:
  PoolWindowsKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd), spec_(spec), threads_(std::max(spec.threads, 1)) {}

  size_t workspace_bytes() const override { return windows_bytes(threads_, spec_.windows); }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[0];
    const TensorView& out = arguments.outputs[0];
    check_run(out.rows() == spec_.windows.rows_of(x.rows()), "poolWindows", "the windows and the output have different counts");
    const InRows in = in_rows(x);
    const OutRows result = out_rows(out);
    for_windows(arguments, threads_, spec_.windows, out, [&](int64_t row, const WindowRows& window) { simd_.pool_window(spec_.max, in, window, at(result, row), out.columns()); });
  }

 private:
  const RowFunctions& simd_;
  PoolWindowsSpec spec_;
  int threads_;
};

class ScaleSequencesKernel final : public core::Kernel {
 public:
  ScaleSequencesKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd), spec_(spec) {}

  void run(const core::KernelArguments& arguments) override {
    check_same("scaleSequences", arguments);
    const TensorView& x = arguments.inputs[ScaleSequencesSpec::x];
    const TensorView& scale = arguments.inputs[ScaleSequencesSpec::scale];
    const TensorView& shift = arguments.inputs[ScaleSequencesSpec::shift];
    check_run(scale.rows() * spec_.length == x.rows() && (!shift.present() || shift.rows() == scale.rows()), "scaleSequences", "the sequences and scale have different counts");
    const InRows in = in_rows(x);
    const OutRows result = out_rows(arguments.outputs[0]);
    for_pieces(arguments, x.rows(), x.columns(), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end;) {
        const int64_t s = row / spec_.length, count = std::min((s + 1) * spec_.length, end) - row;
        simd_.scale(at(in, row), scale.as<const float>() + s * scale.row_stride, shift.present() ? shift.as<const float>() + s * shift.row_stride : nullptr,
                    at(result, row), count, x.columns());
        row += count;
      }
    });
  }

 private:
  const RowFunctions& simd_;
  ScaleSequencesSpec spec_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_convolution(const core::KernelSpec& spec, const SimdKernels& simd) { return std::make_unique<ConvolutionKernel>(spec, simd); }
std::unique_ptr<core::Kernel> make_depthwise_convolution(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<DepthwiseKernel>(spec, *simd.rows);
}
std::unique_ptr<core::Kernel> make_pool_windows(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<PoolWindowsKernel>(spec, *simd.rows);
}
std::unique_ptr<core::Kernel> make_scale_sequences(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<ScaleSequencesKernel>(spec, *simd.rows);
}

}  // namespace chiasma::cpu
