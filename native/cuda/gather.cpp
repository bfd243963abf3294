// gather, scatter, pickToken, repeatRows, prependRows: rows [T, C] to other places. Indices and lengths are on the device, so that wrong ones are found by the kernels.
#include <algorithm>

#include "cuda/kernels.h"

namespace chiasma::cuda {

namespace {

using core::DType;
using core::ErrorCode;
using core::Operands;
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
  PrefixKernel(const core::KernelSpec& spec, CudaDevice& device, bool alone) : CudaKernel(device, spec), alone_(alone) {
    const Operands operands = alone ? Operands(spec, {"table", "like", "cuSeqlens?"}) : Operands(spec, {"prefix", "x"});
    for (const size_t i : {0, 1}) {
      operands.floats(i);
      operands.rank(i, 2, i == 0 ? "[L, C]" : "[T, C]");
    }
    const auto& table = operands.input(0).shape;
    const auto& x = operands.input(1).shape;
    if (alone) {
      length_ = core::check_sequences(operands, spec, 2, 1);
    } else {
      length_ = spec.attributes.integer("length");
      if (length_ < 1 || x[0] % length_ != 0) operands.refuse(ErrorCode::argument, "length is " + std::to_string(length_) + "; expected a divisor of " + std::to_string(x[0]));
    }
    if (!alone && table[1] != x[1]) operands.refuse_shape(0, "[P, " + std::to_string(x[1]) + "]");
    const int64_t sequences = count(operands.input(1), alone ? operands.input(2) : TensorView());
    each_ = !alone && spec.attributes.boolean("each", false);
    if (each_ && sequences > 0 && table[0] % sequences != 0) operands.refuse_shape(0, "as many rows for each of " + std::to_string(sequences) + " sequences");
    head_ = each_ ? table[0] / std::max<int64_t>(sequences, 1) : table[0];
    operands.result({sequences * (head_ + (alone ? 0 : length_)), table[1]});
    if (alone) spec.attributes.expect_only({"length", "dtype"});
    if (!alone) spec.attributes.expect_only({"length", "each", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& table = arguments.inputs[0];
    const TensorView& x = arguments.inputs[1];
    const TensorView& out = arguments.outputs[0];
    const int64_t head = head_, tail = alone_ ? 0 : length_;
    core::check_run(out.rows() == count(x, alone_ ? arguments.inputs[2] : TensorView()) * (head + tail), op(), "the sequences and the output have different counts");
    core::check_run(table.rows() == (each_ ? out.rows() / std::max<int64_t>(head + tail, 1) : 1) * head, op(), "the prefix and the sequences have different counts");
    if (out.rows() == 0) return;
    launch(library().prefix, {rows_of(table), rows_of(x), rows_of(out), head, tail, out.rows(), out.columns(), each_}, arguments);
  }

 private:
  int64_t count(const TensorView& x, const TensorView& cumulative) const { return core::sequence_count(cumulative, length_, x.rows()); }

  bool alone_;
  bool each_ = false;    // each sequence has a prefix of its own
  int64_t head_ = 0;     // rows of a prefix
  int64_t length_ = 0;
};

}  // namespace

std::unique_ptr<core::Kernel> make_repeat_rows(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<PrefixKernel>(spec, device, true); }
std::unique_ptr<core::Kernel> make_prepend_rows(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<PrefixKernel>(spec, device, false); }
std::unique_ptr<core::Kernel> make_gather(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<GatherKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_scatter(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<ScatterKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_pick_token(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<PickTokenKernel>(spec, device); }

}  // namespace chiasma::cuda
