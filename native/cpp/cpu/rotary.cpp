// rotary: each row by itself, by the row of the table that its position, or its place in a sequence, names. Positions are all checked before
// a row is turned. Row strides are free.
#include "cpu/rotary.h"

#include <string>

#include "core/op_specs.h"
#include "cpu/operands.h"

namespace chiasma::cpu {

namespace {

using core::RotarySpec;
using core::TensorView;

class RotaryKernel final : public core::Kernel {
 public:
  RotaryKernel(const core::KernelSpec& spec, const RowFunctions& simd) : simd_(simd), spec_(spec) {}

  void run(const core::KernelArguments& arguments) override {
    check_same("rotary", arguments);
    const TensorView& x = arguments.inputs[RotarySpec::x];
    const TensorView& table = arguments.inputs[RotarySpec::table];
    const TensorView& positions = arguments.inputs[RotarySpec::positions];
    const int32_t* const places = positions.present() ? positions.as<const int32_t>() : nullptr;
    check_run(!places || positions.shape[0] == x.rows(), "rotary", "x and positions have different counts");
    for (int64_t row = 0; places && row < x.rows(); ++row) {
      if (places[row] >= 0 && places[row] < table.rows()) continue;
      throw core::Error(core::ErrorCode::argument, "[rotary] positions[" + std::to_string(row) + "] is " + std::to_string(places[row]) +
                                                       "; expected at least 0 and less than " + std::to_string(table.rows()));
    }
    const InRows in = in_rows(x);
    const OutRows out = out_rows(arguments.outputs[0]);
    for_pieces(arguments, x.rows(), x.columns(), [&](int64_t begin, int64_t end, int) {
      for (int64_t row = begin; row < end; ++row) {
        const int64_t place = places ? places[row] : row % spec_.length - (spec_.length - table.rows());
        const bool turned = place >= 0;
        const float* const angles = turned ? table.as<const float>() + place * table.row_stride : nullptr;
        simd_.rotate(at(in, row), at(out, row), spec_.heads, spec_.head_size, turned ? spec_.rotated : 0, angles);
      }
    });
  }

 private:
  const RowFunctions& simd_;
  RotarySpec spec_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_rotary(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<RotaryKernel>(spec, *simd.rows);
}

}  // namespace chiasma::cpu
