// pool: mean, maximum or sum/√length of each sequence's rows but the first few. The row stride is free.
#include "cuda/kernels.h"

namespace chiasma::cuda {

namespace {

using core::Operands;
using core::TensorView;

class PoolKernel final : public CudaKernel {
 public:
  PoolKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec), faults_(device, explain_lengths(spec.op)) {
    const Operands operands(spec, {"x", "cuSeqlens?"});
    const TensorView& x = operands.input(0);
    operands.floats(0);
    operands.rank(0, 2, "[T, C]");
    length_ = core::check_sequences(operands, spec, 1);
    mode_ = static_cast<PoolMode>(core::parse_choice(spec, "mode", {"mean", "max", "mean_sqrt_len"}));
    operands.result({core::sequence_count(operands.input(1), length_, x.shape[0]), x.shape[1]});
    skip_ = spec.attributes.integer("skip", 0);
    if (skip_ < 0) operands.refuse(core::ErrorCode::argument, "skip is " + std::to_string(skip_) + "; expected at least 0");
    spec.attributes.expect_only({"mode", "skip", "length", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[0];
    const TensorView& out = arguments.outputs[0];
    const Sequences sequences = sequences_of(arguments.inputs[1], length_, x.rows());
    core::check_run(out.rows() == sequences.count, op(), "the sequences and the output have different counts");
    if (sequences.count == 0 || x.columns() == 0) return;
    launch(library().pool, {rows_of(x), rows_of(out), sequences, x.columns(), mode_, skip_, faults_.slot(stream_of(arguments))}, arguments);
  }

 private:
  int64_t length_ = 0, skip_ = 0;
  PoolMode mode_ = PoolMode::mean;
  FaultReporter faults_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_pool(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<PoolKernel>(spec, device); }

}  // namespace chiasma::cuda
