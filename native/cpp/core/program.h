// A plan made ready for a device: checked, its kernels made, its memory laid out in one arena. Immutable but for the kernels, so that runs
// are serial: the device's submit thread does them one after another.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/memory_planner.h"
#include "core/plan.h"
#include "core/weights.h"
#include "core/work_queue.h"

namespace chiasma::core {

struct ProgramOptions {
  // Poison round and behind every buffer, checked after every step: a kernel that writes where it must not fails the run with
  // Error(internal) naming the step and the value. Contents start as NaN.
  bool guard = false;
};

class Program {
 public:
  // Throws Error for a plan that does not hold together or asks for more than the device has.
  Program(std::shared_ptr<Device> device, Plan plan, std::shared_ptr<const Weights> weights, ProgramOptions options = {});

  size_t arena_bytes() const noexcept { return arena_bytes_; }
  size_t input_count() const noexcept { return plan_.inputs.size(); }
  size_t output_count() const noexcept { return plan_.outputs.size(); }

  // Throws Error(argument) unless there is one count per extent, within its capacity.
  void check_counts(std::span<const int64_t> counts) const;
  // Bytes of one input or output for these counts.
  size_t input_bytes(size_t input, std::span<const int64_t> counts) const;
  size_t output_bytes(size_t output, std::span<const int64_t> counts) const;
  std::string input_name(size_t input) const { return describe(plan_, plan_.inputs[input]); }

  // `arena`: arena_bytes of device memory, 64-byte aligned. Inputs and outputs are host memory of the sizes above.
  // Throws what a kernel throws, or what `stop` does between steps.
  void run(Stream& stream, void* arena, std::span<const int64_t> counts, std::span<const void* const> inputs, std::span<void* const> outputs,
           const Stop& stop);

 private:
  // The steps as they ran with these counts in this arena; `recording` is made by the second such run.
  struct Shape {
    std::vector<int64_t> counts;
    void* arena = nullptr;
    std::unique_ptr<Recording> recording;
  };
  struct Step {
    std::unique_ptr<Kernel> kernel;
    int workspace = -1;  // index into buffers_
    std::vector<int> born;  // buffers that are first alive at this step
  };
  // A piece of the arena: a root value's, or a step's workspace.
  struct Buffer {
    int value = -1;
    int64_t bytes = 0;
    int first = 0;
    int last = 0;
    int64_t offset = 0;
  };

  void make_kernels();
  void lay_out();
  Layout layout_of(const PlanValue& value) const;
  int64_t count_of(const PlanValue& value, std::span<const int64_t> counts) const;
  void run_steps(Stream& stream, char* base, std::span<const TensorView> views, std::span<const int64_t> counts, const Stop& stop);
  // The shape of this run among those of late, the newest in front.
  Shape& shape_of(void* arena, std::span<const int64_t> counts, bool* known);
  void poison(Stream& stream, char* arena, const Buffer& buffer, std::span<const int64_t> counts) const;
  void check_guards(Stream& stream, const char* arena, int step, std::span<const int64_t> counts) const;
  int64_t used_bytes(const Buffer& buffer, std::span<const int64_t> counts) const;

  std::shared_ptr<Device> device_;
  Plan plan_;
  std::shared_ptr<const Weights> weights_;
  ProgramOptions options_;
  std::vector<Step> steps_;
  std::vector<Buffer> buffers_;
  std::vector<int> buffer_of_;  // of each root value, or -1
  size_t arena_bytes_ = 0;
  std::vector<Shape> shapes_;
};

}  // namespace chiasma::core
