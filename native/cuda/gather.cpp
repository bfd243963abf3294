// gather, scatter, pickToken, repeatRows, prependRows: rows [T, C] to other places. Indices and lengths are on the device, so that wrong ones are found by the kernels.
#include "core/op_specs.h"
#include "cuda/kernels.h"

namespace chiasma::cuda {

namespace {

using core::DType;
using core::ErrorCode;
using core::Operands;
using core::PrefixSpec;
using core::TensorView;

std::string index_text(const std::string& op, int64_t position, int32_t value) {
  return "[" + op + "] indices[" + std::to_string(position) + "] is " + std::to_string(value) + "; expected ";
}
std::string below(int64_t rows) { return "at least 0 and less than " + std::to_string(rows); }

class GatherKernel final : public CudaKernel {
 public:
  GatherKernel(const core::KernelSpec& spec, CudaDevice& device)
      : CudaKernel(device, spec), faults_(device, [this](int64_t position, int32_t value) {
          return index_text(op(), position, value) + below(table_rows_);
        }) {
    const Operands operands(spec, {"table", "indices"});
    operands.floats(0);
    operands.dtype(1, {DType::int32});
    operands.rank(0, 2, "[V, C]");
    operands.rank(1, 1, "[T]");
    operands.result({operands.input(1).shape[0], operands.input(0).shape[1]});
    spec.attributes.expect_only({"dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& table = arguments.inputs[0];
    const TensorView& indices = arguments.inputs[1];
    const TensorView& out = arguments.outputs[0];
    core::check_run(out.rows() == indices.shape[0], op(), "indices and the output have different counts");
    table_rows_ = table.rows();
    launch(library().gather,
           {rows_of(table), rows_of(out), indices.as<const int32_t>(), table_rows_, out.rows(), out.columns(), faults_.slot(stream_of(arguments))},
           arguments);
  }

 private:
  int64_t table_rows_ = 0;  // of the latest run
  FaultReporter faults_;
};

class ScatterKernel final : public CudaKernel {
 public:
  ScatterKernel(const core::KernelSpec& spec, CudaDevice& device)
      : CudaKernel(device, spec), faults_(device, [this](int64_t position, int32_t value) {
          const bool inside = value >= 0 && value < out_rows_;
          return index_text(op(), position, value) + (inside ? "distinct indices, but one before it is the same" : below(out_rows_));
        }) {
    const Operands operands(spec, {"x", "indices"});
    operands.floats(0);
    operands.dtype(1, {DType::int32});
    operands.rank(0, 2, "[T, C]");
    operands.rank(1, 1, "[T]");
    if (operands.input(0).shape[0] != operands.input(1).shape[0]) {
      operands.refuse_shape(1, "[" + std::to_string(operands.input(0).shape[0]) + "], an index for each row of x");
    }
    rows_ = spec.attributes.integer("rows");
    if (rows_ < 0) operands.refuse(ErrorCode::argument, "rows is " + std::to_string(rows_) + "; expected at least 0");
    operands.result({rows_, operands.input(0).shape[1]});
    spec.attributes.expect_only({"rows", "dtype"});
  }

  size_t workspace_bytes() const override { return static_cast<size_t>(rows_) * sizeof(int32_t); }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[0];
    const TensorView& indices = arguments.inputs[1];
    const TensorView& out = arguments.outputs[0];
    core::check_run(indices.shape[0] == x.rows(), op(), "x and indices have different counts");
    core::check_run(out.rows() <= rows_, op(), "the output has more rows than it was made for");
    out_rows_ = out.rows();
    if (out_rows_ == 0 && x.rows() == 0) return;
    launch(library().scatter,
           {rows_of(x), rows_of(out), indices.as<const int32_t>(), static_cast<int32_t*>(arguments.workspace), x.rows(), out_rows_, out.columns(),
            faults_.slot(stream_of(arguments))},
           arguments);
  }

 private:
  int64_t rows_ = 0;
  int64_t out_rows_ = 0;  // of the latest run
  FaultReporter faults_;
};

class PickTokenKernel final : public CudaKernel {
 public:
  PickTokenKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec), faults_(device, explain_lengths(spec.op)) {
    const Operands operands(spec, {"x", "cuSeqlens?"});
    const TensorView& x = operands.input(0);
    operands.floats(0);
    operands.rank(0, 2, "[T, C]");
    length_ = core::check_sequences(operands, spec, 1);
    last_ = core::parse_choice(spec, "which", {"first", "last"}) == 1;
    operands.result({core::sequence_count(operands.input(1), length_, x.shape[0]), x.shape[1]});
    spec.attributes.expect_only({"which", "length", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[0];
    const TensorView& out = arguments.outputs[0];
    const Sequences sequences = sequences_of(arguments.inputs[1], length_, x.rows());
    core::check_run(out.rows() == sequences.count, op(), "the sequences and the output have different counts");
    launch(library().pick_token, {rows_of(x), rows_of(out), sequences, x.columns(), last_, faults_.slot(stream_of(arguments))}, arguments);
  }

 private:
  int64_t length_ = 0;
  bool last_ = false;
  FaultReporter faults_;
};

class PrefixKernel final : public CudaKernel {
 public:
  PrefixKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec), spec_(spec) {}

  void run(const core::KernelArguments& arguments) override {
    const TensorView& out = arguments.outputs[0];
    spec_.check_run(arguments);
    if (out.rows() == 0) return;
    launch(library().prefix,
           {rows_of(arguments.inputs[PrefixSpec::table]), rows_of(arguments.inputs[PrefixSpec::x]), rows_of(out), spec_.head, spec_.tail, out.rows(), out.columns(), spec_.each}, arguments);
  }

 private:
  PrefixSpec spec_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_repeat_rows(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<PrefixKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_prepend_rows(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<PrefixKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_gather(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<GatherKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_scatter(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<ScatterKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_pick_token(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<PickTokenKernel>(spec, device); }

}  // namespace chiasma::cuda
