// attention: softmax(q·kᵀ·scale + bias)·v by sequence and head. Lengths are on the device, so that wrong ones are found by the kernel.
#include "core/op_specs.h"
#include "cuda/kernels.h"

namespace chiasma::cuda {

namespace {

using core::AttentionSpec;
using core::TensorView;

class AttentionKernel final : public CudaKernel {
 public:
  AttentionKernel(const core::KernelSpec& spec, CudaDevice& device)
      : CudaKernel(device, spec), spec_(spec), faults_(device, [this](int64_t position, int32_t value) { return explain(position, value); }) {
    if (spec_.head_size > max_head_size) {
      throw core::Error(core::ErrorCode::unsupported, "[attention] heads are " + std::to_string(spec_.head_size) + " wide; on CUDA expected at most " +
                                                          std::to_string(max_head_size));
    }
  }

  void run(const core::KernelArguments& arguments) override {
    const auto inputs = arguments.inputs;
    const TensorView& q = inputs[AttentionSpec::q];
    const TensorView& bias = inputs[AttentionSpec::bias];
    const TensorView& out = arguments.outputs[0];
    Attention attention{};
    attention.q = rows_of(q);
    attention.k = rows_of(inputs[AttentionSpec::k]);
    attention.v = rows_of(inputs[AttentionSpec::v]);
    attention.out = rows_of(out);
    attention.queries = sequences_of(inputs[AttentionSpec::lengths_q], spec_.query_length, q.rows());
    attention.keys = sequences_of(inputs[AttentionSpec::lengths_k], spec_.key_length, inputs[AttentionSpec::k].rows());
    core::check_run(q.rows() == out.rows(), op(), "q and the output have different counts");
    core::check_run(inputs[AttentionSpec::k].rows() == inputs[AttentionSpec::v].rows(), op(), "k and v have different counts");
    core::check_run(attention.queries.count == attention.keys.count, op(), "q and k have different numbers of sequences");
    attention.heads = spec_.heads;
    attention.kv_heads = spec_.kv_heads;
    attention.head_size = spec_.head_size;
    attention.scale = spec_.scale;
    attention.causal = spec_.causal;
    attention.window = spec_.window;
    if (bias.present()) {
      attention.bias = bias.as<const float>();
      attention.bias_stride = bias.row_stride;
      attention.longest = longest_ = (bias.shape[0] + 1) / 2;
    }
    attention.slot = faults_.slot(stream_of(arguments));
    launch(library().attention, attention, arguments);
  }

 private:
  std::string explain(int64_t position, int32_t value) const {
    const std::string number = std::to_string(value);
    if (position >= attention_bias) {
      return "[attention] sequence " + std::to_string(position - attention_bias) + " has " + number + " rows, but relativeBias serves " +
             std::to_string(longest_) + " at most";
    }
    const bool keys = position >= attention_keys;
    if (keys) position -= attention_keys;
    return std::string("[attention] cuSeqlens") + (keys ? "K[" : "Q[") + std::to_string(position) + "] is " + number + "; expected " +
           (position == 0 ? "0" : std::string("at least what is before it, and at most the rows of ") + (keys ? "k" : "q"));
  }

  AttentionSpec spec_;
  int64_t longest_ = 0;  // of the latest run
  FaultReporter faults_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_attention(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<AttentionKernel>(spec, device); }

}  // namespace chiasma::cuda
