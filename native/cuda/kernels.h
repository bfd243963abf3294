// The visible table of the CUDA device's kernels: op name -> factory. kernels.cpp holds it; absence from it means unsupported.
// Each family's factories are in the .cpp of its stem; they check operands and attributes and fill the structs of library.h.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/operands.h"
#include "cuda/cuda_device.h"
#include "cuda/cuda_stream.h"

namespace chiasma::cuda {

using KernelFactory = std::unique_ptr<core::Kernel> (*)(const core::KernelSpec& spec, CudaDevice& device);

// Null for an op without a kernel.
KernelFactory find_kernel(std::string_view op);

std::unique_ptr<core::Kernel> make_linear(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_matmul(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_attention(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_patch_embed(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_convolution(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_depthwise_convolution(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_pool_windows(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_scale_sequences(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_layer_norm(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_rms_norm(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_rotary(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_l2_normalize(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_softmax(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_gather(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_scatter(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_pick_token(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_repeat_rows(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_prepend_rows(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_pool(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_binary(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_unary(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_cast(const core::KernelSpec& spec, CudaDevice& device);
std::unique_ptr<core::Kernel> make_cosine_top_k(const core::KernelSpec& spec, CudaDevice& device);

// --- What factories share ---

inline Rows rows_of(const core::TensorView& view) { return {view.data, view.row_stride, view.dtype}; }

// Tensors that may be null where a call takes float32.
inline const float* floats_or_null(const core::TensorView& view) { return view.present() ? view.as<const float>() : nullptr; }

// `activation` of a spec: 0 for none, else 1 + the kind.
template <class Arguments>
void set_activation(Arguments& call, int activation) {
  call.activated = activation > 0;
  if (call.activated) call.activation = static_cast<UnaryKind>(activation - 1);
}

// A kernel that launches on the run's stream.
class CudaKernel : public core::Kernel {
 protected:
  CudaKernel(CudaDevice& device, const core::KernelSpec& spec) : device_(device), op_(spec.op) {}

  const Library& library() const noexcept { return device_.library(); }
  const std::string& op() const noexcept { return op_; }
  static CudaStream& stream_of(const core::KernelArguments& arguments) { return static_cast<CudaStream&>(arguments.stream); }

  template <class Arguments>
  void launch(int (*function)(const Arguments&, StreamHandle), const Arguments& what, const core::KernelArguments& arguments) const {
    device_.check(function(what, stream_of(arguments).handle()), "[" + op_ + "]");
  }

 private:
  CudaDevice& device_;
  std::string op_;
};

// A kernel's right to report that its data is wrong.
class FaultReporter {
 public:
  FaultReporter(CudaDevice& device, CudaDevice::Explain explain) : device_(device), kernel_(device.add_kernel(std::move(explain))) {}
  ~FaultReporter() { device_.remove_kernel(kernel_); }
  FaultReporter(const FaultReporter&) = delete;
  FaultReporter& operator=(const FaultReporter&) = delete;

  FaultSlot slot(const CudaStream& stream) const { return {stream.fault(), kernel_}; }

 private:
  CudaDevice& device_;
  uint32_t kernel_;
};

// Sequences of packed rows for a run.
Sequences sequences_of(const core::TensorView& cumulative, int64_t length, int64_t rows);
// What is wrong with cuSeqlens[position].
CudaDevice::Explain explain_lengths(const std::string& op);

}  // namespace chiasma::cuda
