// rotary: each row by itself, by a row of a table of angles. Positions are on the device, so that a wrong one is found by the kernel.
#include "core/op_specs.h"
#include "cuda/kernels.h"

namespace chiasma::cuda {

namespace {

using core::RotarySpec;
using core::TensorView;

class RotaryKernel final : public CudaKernel {
 public:
  RotaryKernel(const core::KernelSpec& spec, CudaDevice& device)
      : CudaKernel(device, spec), spec_(spec), faults_(device, [this](int64_t position, int32_t value) {
          return "[rotary] positions[" + std::to_string(position) + "] is " + std::to_string(value) + "; expected at least 0 and less than " +
                 std::to_string(table_rows_);
        }) {}

  void run(const core::KernelArguments& arguments) override {
    core::check_same(op(), arguments);
    const TensorView& x = arguments.inputs[RotarySpec::x];
    const TensorView& table = arguments.inputs[RotarySpec::table];
    const TensorView& positions = arguments.inputs[RotarySpec::positions];
    core::check_run(!positions.present() || positions.shape[0] == x.rows(), op(), "x and positions have different counts");
    table_rows_ = table.rows();
    launch(library().rotary,
           {rows_of(x), rows_of(arguments.outputs[0]), rows_of(table), positions.present() ? positions.as<const int32_t>() : nullptr, spec_.length,
            table_rows_, x.rows(), spec_.heads, spec_.head_size, spec_.rotated, faults_.slot(stream_of(arguments))},
           arguments);
  }

 private:
  RotarySpec spec_;
  int64_t table_rows_ = 0;  // of the latest run
  FaultReporter faults_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_rotary(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<RotaryKernel>(spec, device); }

}  // namespace chiasma::cuda
