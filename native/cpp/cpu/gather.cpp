// gather, scatter, pickToken, repeatRows, prependRows: rows [T, C] to other places, converted on the way if the types differ. Indices are all checked before a
// row is moved. Row strides are free.
#include "cpu/gather.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "core/op_specs.h"
#include "cpu/operands.h"
#include "cpu/sequences.h"

namespace chiasma::cpu {

namespace {

using core::DType;
using core::Error;
using core::ErrorCode;
using core::PrefixSpec;
using core::TensorView;

// Copies single rows of one tensor into another.
class RowMover {
 public:
  RowMover(const RowFunctions& simd, const TensorView& from, const TensorView& to)
      : simd_(simd),
        from_(in_rows(from)),
        to_(out_rows(to)),
        columns_(to.columns()),
        bytes_(static_cast<size_t>(columns_) * core::size_of(to.dtype)),
        same_type_(from.dtype == to.dtype) {}

  void move(int64_t from, int64_t to) const {
    const InRows source = at(from_, from);
    const OutRows target = at(to_, to);
    if (!same_type_) {
      simd_.convert(source, target, 1, columns_);
    } else if (bytes_ > 0) {
      std::memcpy(target.data, source.data, bytes_);
    }
  }
  void clear(int64_t to) const {
    if (bytes_ > 0) std::memset(at(to_, to).data, 0, bytes_);  // zeros are all zero bits in both float types
  }

 private:
  const RowFunctions& simd_;
  InRows from_;
  OutRows to_;
  int64_t columns_;
  size_t bytes_;
  bool same_type_;
};

[[noreturn]] void refuse_index(const char* op, int64_t position, int32_t index, const std::string& expected) {
  throw Error(ErrorCode::argument, std::string("[") + op + "] indices[" + std::to_string(position) + "] is " + std::to_string(index) +
                                       "; expected " + expected);
}

std::string below(int64_t rows) { return "at least 0 and less than " + std::to_string(rows); }

class GatherKernel final : public core::Kernel {
 public:
  GatherKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd) {
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
    const TensorView& out = arguments.outputs[0];
    const int64_t n = arguments.inputs[1].shape[0];
    const int32_t* const indices = arguments.inputs[1].as<const int32_t>();
    check_run(out.rows() == n, "gather", "indices and the output have different counts");
    for (int64_t i = 0; i < n; ++i) {
      if (indices[i] < 0 || indices[i] >= table.rows()) refuse_index("gather", i, indices[i], below(table.rows()));
    }
    const RowMover mover(simd_, table, out);
    for_pieces(arguments, n, out.columns(), [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) mover.move(indices[i], i);
    });
  }

 private:
  const RowFunctions& simd_;
};

// Turned round first: the workspace holds for each row of the output the row of x that goes there, or −1. So each row is written once,
// and an index given twice is found.
class ScatterKernel final : public core::Kernel {
 public:
  ScatterKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd) {
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
    const TensorView& out = arguments.outputs[0];
    const int64_t n = x.rows(), rows = out.rows();
    const int32_t* const indices = arguments.inputs[1].as<const int32_t>();
    check_run(arguments.inputs[1].shape[0] == n, "scatter", "x and indices have different counts");
    check_run(rows <= rows_, "scatter", "the output has more rows than it was made for");
    int32_t* const source = static_cast<int32_t*>(arguments.workspace);
    std::fill(source, source + rows, -1);
    for (int64_t i = 0; i < n; ++i) {
      if (indices[i] < 0 || indices[i] >= rows) refuse_index("scatter", i, indices[i], below(rows));
      int32_t& taken = source[indices[i]];
      if (taken != -1) refuse_index("scatter", i, indices[i], "distinct indices, but indices[" + std::to_string(taken) + "] is the same");
      taken = static_cast<int32_t>(i);
    }
    const RowMover mover(simd_, x, out);
    for_pieces(arguments, rows, out.columns(), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        if (source[row] == -1) {
          mover.clear(row);
        } else {
          mover.move(source[row], row);
        }
      }
    });
  }

 private:
  const RowFunctions& simd_;
  int64_t rows_;
};

class PickTokenKernel final : public core::Kernel {
 public:
  PickTokenKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd) {
    const Operands operands(spec, {"x", "cuSeqlens?"});
    const TensorView& x = operands.input(0);
    operands.floats(0);
    operands.rank(0, 2, "[T, C]");
    length_ = core::check_sequences(operands, spec, 1);
    last_ = parse_choice(spec, "which", {"first", "last"}) == 1;
    operands.result({core::sequence_count(operands.input(1), length_, x.shape[0]), x.shape[1]});
    spec.attributes.expect_only({"which", "length", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[0];
    const TensorView& out = arguments.outputs[0];
    const Sequences sequences("pickToken", arguments.inputs[1], length_, x.rows());
    check_run(out.rows() == sequences.count(), "pickToken", "the sequences and the output have different counts");
    const RowMover mover(simd_, x, out);
    for_pieces(arguments, sequences.count(), x.columns(), [&](int64_t begin, int64_t end, int) {
      for (int64_t s = begin; s < end; ++s) {
        if (sequences.length(s) == 0) {
          mover.clear(s);
        } else {
          mover.move(sequences.begin(s) + (last_ ? sequences.length(s) - 1 : 0), s);
        }
      }
    });
  }

 private:
  const RowFunctions& simd_;
  int64_t length_;
  bool last_;
};

// The rows of a table before `length` rows of each sequence of x (prependRows), or alone, as often as there are such sequences (repeatRows).
class PrefixKernel final : public core::Kernel {
 public:
  PrefixKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd), spec_(spec) {}

  void run(const core::KernelArguments& arguments) override {
    const TensorView& table = arguments.inputs[PrefixSpec::table];
    const TensorView& out = arguments.outputs[0];
    spec_.check_run(arguments);
    const int64_t head = spec_.head, tail = spec_.tail;
    const RowMover from_table(simd_, table, out), from_x(simd_, spec_.alone ? table : arguments.inputs[PrefixSpec::x], out);
    for_pieces(arguments, out.rows(), out.columns(), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t s = row / (head + tail), i = row % (head + tail);
        if (i < head) {
          from_table.move(spec_.each ? s * head + i : i, row);
        } else {
          from_x.move(s * tail + i - head, row);
        }
      }
    });
  }

 private:
  const RowFunctions& simd_;
  PrefixSpec spec_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_repeat_rows(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<PrefixKernel>(spec, *simd.rows);
}
std::unique_ptr<core::Kernel> make_prepend_rows(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<PrefixKernel>(spec, *simd.rows);
}
std::unique_ptr<core::Kernel> make_gather(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<GatherKernel>(spec, *simd.rows);
}
std::unique_ptr<core::Kernel> make_scatter(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<ScatterKernel>(spec, *simd.rows);
}
std::unique_ptr<core::Kernel> make_pick_token(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<PickTokenKernel>(spec, *simd.rows);
}

}  // namespace chiasma::cpu
