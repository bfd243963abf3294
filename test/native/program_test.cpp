// Plans and programs on a device of the test's own: checks, extents, views, memory, guards and stopping.
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "core/program.h"
#include "fake_device.h"
#include "test.h"

namespace {

using namespace chiasma::core;
using chiasma::test::FakeDevice;
using chiasma::test::FakeStream;

PlanValue value(ValueKind kind, std::vector<int64_t> shape, int extent = -1, int64_t per = 0, int64_t extra = 0) {
  PlanValue v;
  v.kind = kind;
  v.shape = std::move(shape);
  v.extent = extent;
  v.per = per;
  v.extra = extra;
  return v;
}

PlanValue view(int of, int64_t offset, int64_t row_stride, std::vector<int64_t> shape, int extent = -1, int64_t per = 0) {
  PlanValue v = value(ValueKind::temporary, std::move(shape), extent, per);
  v.alias = Alias{of, offset, row_stride};
  return v;
}

// out[i] = in[i] + 1 over the shape of the output, rows by their stride.
void increment(const KernelArguments& a) {
  const TensorView& in = a.inputs[0];
  const TensorView& out = a.outputs[0];
  for (int64_t r = 0; r < out.rows(); ++r) {
    for (int64_t c = 0; c < out.columns(); ++c) out.as<float>()[r * out.row_stride + c] = in.as<float>()[r * in.row_stride + c] + 1;
  }
}

std::shared_ptr<FakeDevice> make_device() {
  auto device = std::make_shared<FakeDevice>();
  device->ops["increment"] = increment;
  device->ops["overrun"] = [](const KernelArguments& a) {
    increment(a);
    a.outputs[0].as<float>()[a.outputs[0].size()] = 0;
  };
  device->ops["underrun"] = [](const KernelArguments& a) {
    increment(a);
    a.outputs[0].as<char>()[-1] = 0;
  };
  return device;
}

// x [4, 3], n rows of it -> increment three times -> y
Plan chain(const std::string& op = "increment") {
  Plan plan;
  plan.extents = {{"n", 4}};
  plan.values = {value(ValueKind::input, {4, 3}, 0, 1), value(ValueKind::temporary, {4, 3}, 0, 1), value(ValueKind::temporary, {4, 3}, 0, 1),
                 value(ValueKind::output, {4, 3}, 0, 1)};
  plan.steps = {{"increment", {0}, {1}, {}}, {op, {1}, {2}, {}}, {"increment", {2}, {3}, {}}};
  plan.inputs = {0};
  plan.outputs = {3};
  return plan;
}

std::vector<float> run(Program& program, Device& device, std::vector<int64_t> counts, const std::vector<float>& in, const Stop& stop = {}) {
  FakeStream stream;
  void* arena = device.allocate(program.arena_bytes());
  std::vector<float> out(program.output_bytes(0, counts) / 4);
  const void* inputs[] = {in.data()};
  void* outputs[] = {out.data()};
  try {
    program.run(stream, arena, counts, inputs, outputs, stop);
  } catch (...) {
    device.release(arena, program.arena_bytes());
    throw;
  }
  device.release(arena, program.arena_bytes());
  return out;
}

std::vector<float> ramp(size_t n, float first = 0) {
  std::vector<float> values(n);
  std::iota(values.begin(), values.end(), first);
  return values;
}

void refused(ErrorCode code, const Plan& plan, const std::vector<WeightShape>& weights = {}) {
  Plan copy = plan;
  CHECK_THROWS(code, check_plan(copy, weights));
}

TEST("program: runs with fewer rows than its capacity") {
  const auto device = make_device();
  for (const bool guard : {false, true}) {
    Program program(device, chain(), nullptr, {.guard = guard});
    for (const int64_t n : {0, 1, 3, 4}) {
      CHECK(program.input_bytes(0, std::vector<int64_t>{n}) == static_cast<size_t>(n) * 12);
      CHECK(run(program, *device, {n}, ramp(static_cast<size_t>(n) * 3)) == ramp(static_cast<size_t>(n) * 3, 3));
    }
    CHECK_THROWS(ErrorCode::argument, program.check_counts(std::vector<int64_t>{5}));
    CHECK_THROWS(ErrorCode::argument, program.check_counts(std::vector<int64_t>{-1}));
    CHECK_THROWS(ErrorCode::argument, program.check_counts(std::vector<int64_t>{}));
    CHECK_THROWS(ErrorCode::argument, program.check_counts(std::vector<int64_t>{1, 1}));
  }
  CHECK(device->allocated == 0);
}

TEST("program: a chain shares memory, and guards keep it apart") {
  const auto device = make_device();
  CHECK(Program(device, chain(), nullptr).arena_bytes() == 2 * 64);
  CHECK(Program(device, chain(), nullptr, {.guard = true}).arena_bytes() == 2 * (64 + 128));
  device->workspace = 100;
  CHECK(Program(device, chain(), nullptr).arena_bytes() == 2 * 64 + 128);
}

TEST("program: guards find a kernel that writes beside its output") {
  const auto device = make_device();
  for (const char* op : {"overrun", "underrun"}) {
    NOTE(op);
    Program guarded(device, chain(op), nullptr, {.guard = true});
    CHECK_THROWS(ErrorCode::internal, run(guarded, *device, {4}, ramp(12)));
    CHECK_THROWS(ErrorCode::internal, run(guarded, *device, {3}, ramp(9)));
  }
}

TEST("program: views of columns and reshapes, read and written") {
  const auto device = make_device();
  Plan plan;
  plan.extents = {{"n", 4}};
  plan.values = {value(ValueKind::input, {4, 6}, 0, 1),
                 view(0, 2, 6, {4, 2}, 0, 1),                 // columns 2 and 3
                 value(ValueKind::temporary, {4, 2}, 0, 1),
                 view(2, 0, 4, {2, 4}),                       // refused below: it has no extent
                 value(ValueKind::output, {8}, 0, 2)};
  plan.values[3] = view(2, 0, 1, {8, 1}, 0, 2);
  plan.values[4] = value(ValueKind::output, {8, 1}, 0, 2);
  plan.steps = {{"increment", {1}, {2}, {}}, {"increment", {3}, {4}, {}}};
  plan.inputs = {0};
  plan.outputs = {4, 1};
  Program program(device, plan, nullptr, {.guard = true});
  const std::vector<int64_t> counts = {3};
  FakeStream stream;
  void* arena = device->allocate(program.arena_bytes());
  const std::vector<float> in = ramp(18);
  std::vector<float> out(6), columns(6);
  const void* inputs[] = {in.data()};
  void* outputs[] = {out.data(), columns.data()};
  program.run(stream, arena, counts, inputs, outputs, {});
  device->release(arena, program.arena_bytes());
  CHECK(columns == std::vector<float>({2, 3, 8, 9, 14, 15}));
  CHECK(out == std::vector<float>({4, 5, 10, 11, 16, 17}));
}

TEST("program: extents with extra rows") {
  const auto device = make_device();
  Plan plan;
  plan.extents = {{"s", 3}};
  plan.values = {value(ValueKind::input, {4}, 0, 1, 1), value(ValueKind::output, {4}, 0, 1, 1)};
  plan.steps = {{"increment", {0}, {1}, {}}};
  plan.inputs = {0};
  plan.outputs = {1};
  Program program(device, plan, nullptr, {.guard = true});
  CHECK(run(program, *device, {0}, ramp(1)) == ramp(1, 1));
  CHECK(run(program, *device, {2}, ramp(3)) == ramp(3, 1));
}

TEST("program: stops between steps") {
  const auto device = make_device();
  Task task;
  int steps = 0;
  device->ops["cancel"] = [&](const KernelArguments& a) {
    ++steps;
    increment(a);
    task.cancel();
  };
  device->ops["increment"] = [&](const KernelArguments& a) {
    ++steps;
    increment(a);
  };
  Program program(device, chain("cancel"), nullptr);
  CHECK_THROWS(ErrorCode::aborted, run(program, *device, {1}, ramp(3), Stop(&task, nullptr)));
  CHECK(steps == 2);
}

TEST("program: asks for no more than the device has") {
  const auto device = make_device();
  device->limit = 100;
  CHECK_THROWS(ErrorCode::out_of_memory, Program(device, chain(), nullptr));
  device->limit = 128;
  Program(device, chain(), nullptr);
}

TEST("plan: what does not hold together is refused") {
  const Plan good = chain();
  Plan plan = good;
  check_plan(plan, {});

  plan = good, plan.values[1].shape = {4, -3}, refused(ErrorCode::shape, plan);
  plan = good, plan.values[1].shape = {4, int64_t{1} << 47, 1 << 20}, refused(ErrorCode::shape, plan);
  plan = good, plan.values[1].shape = {4, std::numeric_limits<int64_t>::max()}, refused(ErrorCode::shape, plan);
  plan = good, plan.values[1].shape = {4, 1, 1, 1, 1, 1, 3}, refused(ErrorCode::shape, plan);
  plan = good, plan.values[1].shape = {5, 3}, refused(ErrorCode::shape, plan);
  plan = good, plan.values[1].shape = {}, refused(ErrorCode::shape, plan);
  plan = good, plan.values[1].per = 2, refused(ErrorCode::shape, plan);
  plan = good, plan.values[1].per = -1, refused(ErrorCode::shape, plan);
  plan = good, plan.values[1].extra = 1, refused(ErrorCode::shape, plan);
  plan = good, plan.values[1].extent = 1, refused(ErrorCode::argument, plan);
  plan = good, plan.extents[0].capacity = -1, refused(ErrorCode::argument, plan);
  plan = good, plan.extents[0].capacity = int64_t{1} << 60, refused(ErrorCode::argument, plan);
  plan = good, plan.extents[0].capacity = 5, refused(ErrorCode::shape, plan);

  plan = good, plan.steps[0].inputs = {9}, refused(ErrorCode::argument, plan);
  plan = good, plan.steps[0].inputs = {-2}, refused(ErrorCode::argument, plan);
  plan = good, plan.steps[0].outputs = {4}, refused(ErrorCode::argument, plan);
  plan = good, plan.steps[0].outputs = {-1}, refused(ErrorCode::argument, plan);
  plan = good, plan.steps[0].outputs = {}, refused(ErrorCode::argument, plan);
  plan = good, plan.steps[0].outputs = {0}, refused(ErrorCode::argument, plan);  // an input is written
  plan = good, plan.steps[1].outputs = {1}, refused(ErrorCode::argument, plan);  // in place
  plan = good, plan.steps[2].outputs = {1}, refused(ErrorCode::argument, plan);  // written twice
  plan = good, plan.steps[0].inputs = {2}, refused(ErrorCode::argument, plan);   // read before it is written
  plan = good, plan.inputs = {1}, refused(ErrorCode::argument, plan);
  plan = good, plan.inputs = {0, 0}, refused(ErrorCode::argument, plan);
  plan = good, plan.inputs = {}, refused(ErrorCode::argument, plan);
  plan = good, plan.inputs = {-1}, refused(ErrorCode::argument, plan);
  plan = good, plan.outputs = {7}, refused(ErrorCode::argument, plan);
  plan = good, plan.steps.pop_back(), refused(ErrorCode::argument, plan);  // the output is never written

  // Views of value 0, [4, 3] with n rows.
  const auto with_view = [&](PlanValue v) {
    Plan changed = good;
    changed.values.push_back(std::move(v));
    changed.outputs = {4};
    return changed;
  };
  plan = with_view(view(0, 1, 3, {4, 2}, 0, 1)), check_plan(plan, {});
  plan = with_view(view(0, 0, 12, {1, 12})), refused(ErrorCode::argument, plan);           // another extent
  plan = with_view(view(0, 2, 3, {4, 2}, 0, 1)), refused(ErrorCode::shape, plan);          // past the end
  plan = with_view(view(0, -1, 3, {4, 2}, 0, 1)), refused(ErrorCode::shape, plan);
  plan = with_view(view(0, std::numeric_limits<int64_t>::max(), 3, {4, 2}, 0, 1)), refused(ErrorCode::shape, plan);
  plan = with_view(view(0, 0, 1, {4, 2}, 0, 1)), refused(ErrorCode::argument, plan);       // rows overlap
  plan = with_view(view(0, 0, 3, {8, 2}, 0, 2)), refused(ErrorCode::shape, plan);
  plan = with_view(view(0, 0, std::numeric_limits<int64_t>::max(), {4, 2}, 0, 1)), refused(ErrorCode::shape, plan);
  plan = with_view(view(4, 0, 3, {4, 3}, 0, 1)), refused(ErrorCode::argument, plan);       // of itself
  plan = with_view(view(17, 0, 3, {4, 3}, 0, 1)), refused(ErrorCode::argument, plan);
  plan = with_view(view(0, 0, 3, {4, 3}, 0, 1)), plan.values[4].dtype = DType::int32, refused(ErrorCode::dtype, plan);
  // A view whose end lies within the base at capacity but not with fewer rows.
  plan = with_view(view(0, 6, 3, {2, 3})), refused(ErrorCode::argument, plan);
}

TEST("plan: weights must be what they are said to be") {
  const std::vector<WeightShape> weights = {{"w", Layout::plain, DType::float32, {2, 3}}, {"packed", Layout::linear, DType::float32, {2, 3}}};
  Plan good = chain();
  good.values.push_back(value(ValueKind::weight, {2, 3}));
  good.values[4].weight = 0;
  Plan plan = good;
  check_plan(plan, weights);
  plan = good, refused(ErrorCode::argument, plan);
  plan = good, plan.values[4].weight = 2, refused(ErrorCode::argument, plan, weights);
  plan = good, plan.values[4].weight = -1, refused(ErrorCode::argument, plan, weights);
  plan = good, plan.values[4].shape = {3, 2}, refused(ErrorCode::shape, plan, weights);
  plan = good, plan.values[4].dtype = DType::bfloat16, refused(ErrorCode::dtype, plan, weights);
  plan = good, plan.steps[0].outputs = {4}, refused(ErrorCode::argument, plan, weights);
  plan = good, plan.values[4].weight = 1, plan.outputs = {4}, refused(ErrorCode::argument, plan, weights);
  plan = good, plan.values[4].weight = 1, plan.values.push_back(view(4, 0, 3, {1, 3})), refused(ErrorCode::argument, plan, weights);
}

}  // namespace
