// pool: mean, maximum or sum/√length of each sequence's rows but the first few. Work is cut by sequences and by strips of columns, so that one long
// sequence keeps all threads busy too. The row stride is free.
#include "cpu/pool.h"

#include <algorithm>
#include <string>

#include "cpu/operands.h"
#include "cpu/sequences.h"

namespace chiasma::cpu {

namespace {

using core::TensorView;

constexpr int64_t strip_columns = 256;

class PoolKernel final : public core::Kernel {
 public:
  PoolKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd) {
    const Operands operands(spec, {"x", "cuSeqlens?"});
    const TensorView& x = operands.input(0);
    operands.floats(0);
    operands.rank(0, 2, "[T, C]");
    length_ = core::check_sequences(operands, spec, 1);
    mode_ = static_cast<PoolMode>(parse_choice(spec, "mode", {"mean", "max", "mean_sqrt_len"}));
    operands.result({core::sequence_count(operands.input(1), length_, x.shape[0]), x.shape[1]});
    skip_ = spec.attributes.integer("skip", 0);
    if (skip_ < 0) operands.refuse(core::ErrorCode::argument, "skip is " + std::to_string(skip_) + "; expected at least 0");
    spec.attributes.expect_only({"mode", "skip", "length", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[0];
    const TensorView& out = arguments.outputs[0];
    const Sequences sequences("pool", arguments.inputs[1], length_, x.rows());
    check_run(out.rows() == sequences.count(), "pool", "the sequences and the output have different counts");
    const InRows in = in_rows(x);
    const OutRows result = out_rows(out);
    const int64_t columns = x.columns();
    const int64_t strips = (columns + strip_columns - 1) / strip_columns;
    for_pieces(arguments, sequences.count() * strips, sequences.longest() * strip_columns, [&](int64_t begin, int64_t end, int) {
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t s = piece / strips, column = piece % strips * strip_columns;
        const int64_t skipped = std::min(skip_, sequences.length(s));
        simd_.pool(mode_, at(in, sequences.begin(s) + skipped, column), at(result, s, column), sequences.length(s) - skipped,
                   std::min(strip_columns, columns - column));
      }
    });
  }

 private:
  const RowFunctions& simd_;
  int64_t length_, skip_ = 0;
  PoolMode mode_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_pool(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<PoolKernel>(spec, *simd.rows);
}

}  // namespace chiasma::cpu
