// attention: softmax(q·kᵀ·scale + bias)·v by sequence and head. Lengths are on the device, so that wrong ones are found by the kernel.
#include <cmath>

#include "core/checked.h"
#include "cuda/kernels.h"

namespace chiasma::cuda {

namespace {

using core::DType;
using core::ErrorCode;
using core::Operands;
using core::TensorView;

enum Input { q_input, k_input, v_input, lengths_q_input, lengths_k_input, bias_input };

class AttentionKernel final : public CudaKernel {
 public:
  AttentionKernel(const core::KernelSpec& spec, CudaDevice& device)
      : CudaKernel(device, spec), faults_(device, [this](int64_t position, int32_t value) { return explain(position, value); }) {
    const Operands operands(spec, {"q", "k", "v", "cuSeqlensQ?", "cuSeqlensK?", "relativeBias?"});
    const core::Attributes& attributes = spec.attributes;
    attributes.expect_only({"heads", "scale", "causal", "queryLength", "keyLength", "dtype"});
    heads_ = attributes.integer("heads");
    scale_ = static_cast<float>(attributes.number("scale"));
    causal_ = attributes.boolean("causal", false);
    if (heads_ < 1) operands.refuse(ErrorCode::argument, "heads is " + std::to_string(heads_) + "; expected at least 1");
    if (!std::isfinite(scale_)) operands.refuse(ErrorCode::argument, "scale is not finite in float32");
    const TensorView& q = operands.input(q_input);
    for (const size_t i : {q_input, k_input, v_input}) {
      operands.floats(i);
      operands.rank(i, 2, "[rows, heads · head size]");
    }
    const int64_t columns = q.shape[1];
    if (columns < 1 || columns % heads_ != 0) operands.refuse_shape(q_input, "a multiple of " + std::to_string(heads_) + " columns, one share for each head");
    const std::vector<int64_t> keys = {operands.input(k_input).shape[0], columns};
    for (const size_t i : {k_input, v_input}) {
      if (operands.input(i).shape[0] != keys[0] || operands.input(i).shape[1] != columns) operands.refuse_shape(i, core::text_of(keys));
    }
    operands.result({q.shape[0], columns});
    head_size_ = columns / heads_;
    if (head_size_ > max_head_size) {
      operands.refuse(ErrorCode::unsupported, "heads are " + std::to_string(head_size_) + " wide; on CUDA expected at most " + std::to_string(max_head_size));
    }
    query_length_ = core::check_sequences(operands, spec, lengths_q_input, q_input, "queryLength");
    key_length_ = core::check_sequences(operands, spec, lengths_k_input, k_input, "keyLength");
    operands.dtype(bias_input, {DType::float32});
    const TensorView& bias = operands.input(bias_input);
    if (bias.present() && (bias.rank != 2 || bias.shape[0] % 2 != 1 || bias.shape[1] != heads_)) {
      operands.refuse_shape(bias_input, "[2L − 1, " + std::to_string(heads_) + "]");
    }
  }

  void run(const core::KernelArguments& arguments) override {
    const auto inputs = arguments.inputs;
    const TensorView& q = inputs[q_input];
    const TensorView& bias = inputs[bias_input];
    const TensorView& out = arguments.outputs[0];
    Attention attention{};
    attention.q = rows_of(q);
    attention.k = rows_of(inputs[k_input]);
    attention.v = rows_of(inputs[v_input]);
    attention.out = rows_of(out);
    attention.queries = sequences_of(inputs[lengths_q_input], query_length_, q.rows());
    attention.keys = sequences_of(inputs[lengths_k_input], key_length_, inputs[k_input].rows());
    core::check_run(q.rows() == out.rows(), op(), "q and the output have different counts");
    core::check_run(inputs[k_input].rows() == inputs[v_input].rows(), op(), "k and v have different counts");
    core::check_run(attention.queries.count == attention.keys.count, op(), "q and k have different numbers of sequences");
    attention.heads = heads_;
    attention.head_size = head_size_;
    attention.scale = scale_;
    attention.causal = causal_;
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

  int64_t heads_ = 1, head_size_ = 1, query_length_ = 0, key_length_ = 0;
  int64_t longest_ = 0;  // of the latest run
  float scale_ = 1;
  bool causal_ = false;
  FaultReporter faults_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_attention(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<AttentionKernel>(spec, device); }

}  // namespace chiasma::cuda
