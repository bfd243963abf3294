// Lays a plan out and runs it. A buffer is alive from the step that first writes it (inputs: from before the first step) to the last step
// that reads it (outputs: to the end); a step's workspace is alive during that step.
#include "core/program.h"

#include <algorithm>
#include <cstring>

#include "core/checked.h"
#include "core/error.h"

namespace chiasma::core {

namespace {

constexpr int64_t guard_bytes = 64;
constexpr unsigned char guard_byte = 0xa5;
constexpr unsigned char nan_byte = 0xff;  // all ones are a NaN in every float type
constexpr size_t kept_shapes = 8;         // of a program's runs: a full batch, and the remainders it is used with

}  // namespace

Program::Program(std::shared_ptr<Device> device, Plan plan, std::shared_ptr<const Weights> weights, ProgramOptions options)
    : device_(std::move(device)), plan_(std::move(plan)), weights_(std::move(weights)), options_(options) {
  if (weights_ && &weights_->device() != device_.get()) throw Error(ErrorCode::argument, "plan: the weights were loaded on another device");
  check_plan(plan_, weights_ ? weights_->shapes() : std::vector<WeightShape>{});
  make_kernels();
  lay_out();
}

Layout Program::layout_of(const PlanValue& value) const {
  return value.kind == ValueKind::weight && !value.alias ? weights_->shapes()[static_cast<size_t>(value.weight)].layout : Layout::plain;
}

int64_t Program::count_of(const PlanValue& value, std::span<const int64_t> counts) const {
  return value.extent == -1 ? 0 : counts[static_cast<size_t>(value.extent)];
}

void Program::make_kernels() {
  const auto view_at_capacity = [&](int i) {
    if (i == -1) return TensorView{};
    const PlanValue& value = plan_.values[static_cast<size_t>(i)];
    return view_of(value, layout_of(value), value.extent == -1 ? 0 : plan_.extents[static_cast<size_t>(value.extent)].capacity, nullptr);
  };
  for (const PlanStep& step : plan_.steps) {
    KernelSpec spec;
    spec.op = step.op;
    for (const int i : step.inputs) {
      spec.inputs.push_back(view_at_capacity(i));
      spec.fixed.push_back(i != -1 && plan_.values[static_cast<size_t>(plan_.values[static_cast<size_t>(i)].root)].kind == ValueKind::weight);
    }
    for (const int i : step.outputs) spec.outputs.push_back(view_at_capacity(i));
    spec.attributes = step.attributes;
    spec.threads = device_->threads();
    spec.f16 = device_->has_f16();
    steps_.push_back({device_->make_kernel(spec), -1, {}});
  }
}

void Program::lay_out() {
  const int steps = static_cast<int>(plan_.steps.size());
  buffer_of_.assign(plan_.values.size(), -1);
  const auto use = [&](int i, int step) {
    const int root = plan_.values[static_cast<size_t>(i)].root;
    const PlanValue& value = plan_.values[static_cast<size_t>(root)];
    if (value.kind == ValueKind::weight) return;
    int& buffer = buffer_of_[static_cast<size_t>(root)];
    if (buffer == -1) {
      buffer = static_cast<int>(buffers_.size());
      buffers_.push_back({root, value.bytes, step, step, 0});
    }
    buffers_[static_cast<size_t>(buffer)].last = step;
  };
  for (const int i : plan_.inputs) use(i, -1);
  for (int k = 0; k < steps; ++k) {
    const PlanStep& step = plan_.steps[static_cast<size_t>(k)];
    for (const int i : step.inputs) {
      if (i != -1) use(i, k);
    }
    for (const int i : step.outputs) use(i, k);
    if (const size_t bytes = steps_[static_cast<size_t>(k)].kernel->workspace_bytes(); bytes > 0) {
      if (bytes > static_cast<uint64_t>(max_size)) throw Error(ErrorCode::out_of_memory, "[" + step.op + "] needs a workspace of " + std::to_string(bytes) + " bytes");
      steps_[static_cast<size_t>(k)].workspace = static_cast<int>(buffers_.size());
      buffers_.push_back({-1, static_cast<int64_t>(bytes), k, k, 0});
    }
  }
  for (const int i : plan_.outputs) use(i, steps);

  const int64_t margin = options_.guard ? guard_bytes : 0;
  std::vector<Lifetime> lifetimes;
  for (const Buffer& buffer : buffers_) lifetimes.push_back({buffer.bytes + 2 * margin, buffer.first, buffer.last});
  const MemoryPlan memory = plan_memory(lifetimes);
  for (size_t b = 0; b < buffers_.size(); ++b) {
    buffers_[b].offset = memory.offsets[b] + margin;
    if (buffers_[b].first >= 0 && buffers_[b].first < steps) steps_[static_cast<size_t>(buffers_[b].first)].born.push_back(static_cast<int>(b));
  }
  arena_bytes_ = static_cast<size_t>(memory.bytes);
  if (const size_t limit = device_->memory_limit(); limit > 0 && arena_bytes_ > limit) {
    throw Error(ErrorCode::out_of_memory, "the plan needs " + std::to_string(arena_bytes_) + " bytes; the device has " + std::to_string(limit));
  }
}

void Program::check_counts(std::span<const int64_t> counts) const {
  if (counts.size() != plan_.extents.size()) {
    throw Error(ErrorCode::argument, std::to_string(counts.size()) + " counts given; the program has " + std::to_string(plan_.extents.size()) + " extents");
  }
  for (size_t i = 0; i < counts.size(); ++i) {
    const Extent& extent = plan_.extents[i];
    if (counts[i] < 0 || counts[i] > extent.capacity) {
      throw Error(ErrorCode::argument, "count of '" + extent.name + "' is " + std::to_string(counts[i]) + "; the program was compiled for at most " +
                                           std::to_string(extent.capacity));
    }
  }
}

size_t Program::input_bytes(size_t input, std::span<const int64_t> counts) const {
  const PlanValue& value = plan_.values[static_cast<size_t>(plan_.inputs[input])];
  return static_cast<size_t>(view_of(value, Layout::plain, count_of(value, counts), nullptr).size()) * size_of(value.dtype);
}

size_t Program::output_bytes(size_t output, std::span<const int64_t> counts) const {
  const PlanValue& value = plan_.values[static_cast<size_t>(plan_.outputs[output])];
  return static_cast<size_t>(view_of(value, Layout::plain, count_of(value, counts), nullptr).size()) * size_of(value.dtype);
}

void Program::run(Stream& stream, void* arena, std::span<const int64_t> counts, std::span<const void* const> inputs,
                  std::span<void* const> outputs, const Stop& stop) {
  check_counts(counts);
  char* const base = static_cast<char*>(arena);
  std::vector<TensorView> views;
  views.reserve(plan_.values.size());
  for (const PlanValue& value : plan_.values) {
    const PlanValue& root = plan_.values[static_cast<size_t>(value.root)];
    const int buffer = buffer_of_[static_cast<size_t>(value.root)];
    void* memory = root.kind == ValueKind::weight ? weights_->memory(static_cast<size_t>(root.weight))
                   : buffer == -1                 ? nullptr
                                                  : base + buffers_[static_cast<size_t>(buffer)].offset;
    views.push_back(view_of(value, layout_of(value), count_of(value, counts), memory));
  }

  stream.begin();
  struct End {
    Stream& stream;
    ~End() { stream.end(); }
  } end{stream};

  if (options_.guard) {
    for (const Buffer& buffer : buffers_) {
      if (buffer.first == -1) poison(stream, base, buffer, counts);
    }
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    device_->upload(stream, views[static_cast<size_t>(plan_.inputs[i])].data, inputs[i], input_bytes(i, counts));
  }
  const auto steps = [&] { run_steps(stream, base, views, counts, stop); };
  if (options_.guard || !stream.can_record()) {
    steps();
  } else {
    bool known = false;
    Shape& shape = shape_of(arena, counts, &known);
    if (!known) {
      steps();
    } else {
      if (!shape.recording) shape.recording = stream.record(steps);
      stream.replay(*shape.recording);
    }
  }
  stop.check();
  for (size_t i = 0; i < outputs.size(); ++i) {
    const TensorView& view = views[static_cast<size_t>(plan_.outputs[i])];
    const size_t row = static_cast<size_t>(view.columns()) * size_of(view.dtype);
    if (view.contiguous()) {
      device_->download(stream, outputs[i], view.data, static_cast<size_t>(view.rows()) * row);
    } else {
      for (int64_t r = 0; r < view.rows(); ++r) {
        device_->download(stream, static_cast<char*>(outputs[i]) + static_cast<size_t>(r) * row,
                          static_cast<char*>(view.data) + static_cast<size_t>(r * view.row_stride) * size_of(view.dtype), row);
      }
    }
  }
  stream.synchronize();
}

void Program::run_steps(Stream& stream, char* base, std::span<const TensorView> views, std::span<const int64_t> counts, const Stop& stop) {
  std::vector<TensorView> operands;
  for (size_t k = 0; k < steps_.size(); ++k) {
    stop.check();
    const PlanStep& step = plan_.steps[k];
    operands.clear();
    for (const int i : step.inputs) operands.push_back(i == -1 ? TensorView{} : views[static_cast<size_t>(i)]);
    for (const int i : step.outputs) operands.push_back(views[static_cast<size_t>(i)]);
    if (options_.guard) {
      for (const int b : steps_[k].born) poison(stream, base, buffers_[static_cast<size_t>(b)], counts);
    }
    const std::span<const TensorView> all(operands);
    void* workspace = steps_[k].workspace == -1 ? nullptr : base + buffers_[static_cast<size_t>(steps_[k].workspace)].offset;
    steps_[k].kernel->run({all.first(step.inputs.size()), all.subspan(step.inputs.size()), workspace, stream});
    if (options_.guard) check_guards(stream, base, static_cast<int>(k), counts);
  }
}

Program::Shape& Program::shape_of(void* arena, std::span<const int64_t> counts, bool* known) {
  const auto found = std::find_if(shapes_.begin(), shapes_.end(), [&](const Shape& shape) {
    return shape.arena == arena && std::equal(shape.counts.begin(), shape.counts.end(), counts.begin(), counts.end());
  });
  *known = found != shapes_.end();
  if (*known) {
    std::rotate(shapes_.begin(), found, found + 1);
  } else {
    if (shapes_.size() == kept_shapes) shapes_.pop_back();
    shapes_.insert(shapes_.begin(), Shape{{counts.begin(), counts.end()}, arena, nullptr});
  }
  return shapes_.front();
}

int64_t Program::used_bytes(const Buffer& buffer, std::span<const int64_t> counts) const {
  if (buffer.value == -1) return buffer.bytes;
  const PlanValue& value = plan_.values[static_cast<size_t>(buffer.value)];
  return view_of(value, Layout::plain, count_of(value, counts), nullptr).size() * static_cast<int64_t>(size_of(value.dtype));
}

void Program::poison(Stream& stream, char* arena, const Buffer& buffer, std::span<const int64_t> counts) const {
  const auto used = static_cast<size_t>(used_bytes(buffer, counts));
  std::vector<unsigned char> bytes(static_cast<size_t>(buffer.bytes + 2 * guard_bytes), guard_byte);
  std::memset(bytes.data() + guard_bytes, nan_byte, used);
  device_->upload(stream, arena + buffer.offset - guard_bytes, bytes.data(), bytes.size());
}

void Program::check_guards(Stream& stream, const char* arena, int step, std::span<const int64_t> counts) const {
  for (const Buffer& buffer : buffers_) {
    if (step < buffer.first || step > buffer.last) continue;
    std::vector<unsigned char> bytes(static_cast<size_t>(buffer.bytes + 2 * guard_bytes));
    device_->download(stream, bytes.data(), arena + buffer.offset - guard_bytes, bytes.size());
    stream.synchronize();
    const auto begin = static_cast<size_t>(guard_bytes);
    const size_t end = begin + static_cast<size_t>(used_bytes(buffer, counts));
    for (size_t i = 0; i < bytes.size(); ++i) {
      if ((i >= begin && i < end) || bytes[i] == guard_byte) continue;
      const std::string what = buffer.value == -1 ? "its workspace" : describe(plan_, buffer.value);
      throw Error(ErrorCode::internal, "[" + plan_.steps[static_cast<size_t>(step)].op + "] step " + std::to_string(step) + " wrote byte " +
                                           std::to_string(static_cast<int64_t>(i) - guard_bytes) + " of " + what + ", which has " +
                                           std::to_string(end - begin));
    }
  }
}

}  // namespace chiasma::core
