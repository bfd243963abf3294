// Kernels take memory from their workspace alone: once they have run, they allocate nothing.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>
#if defined(_WIN32)
#include <malloc.h>
#endif

#include "core/device.h"
#include "cpu/cpu_device.h"
#include "test.h"

namespace {
std::atomic<bool> counting{false};
std::atomic<int> allocations{0};
}  // namespace

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"  // it sees through one of the two where they are inlined
#endif

namespace {

void* allocate(size_t bytes, std::align_val_t alignment = std::align_val_t(alignof(std::max_align_t))) noexcept {
  if (counting) ++allocations;
  const auto unit = static_cast<size_t>(alignment);
#if defined(_WIN32)
  return _aligned_malloc(std::max<size_t>(bytes, 1), unit);
#else
  return std::aligned_alloc(unit, (std::max<size_t>(bytes, 1) + unit - 1) / unit * unit);
#endif
}
void* checked(void* memory) { return memory ? memory : throw std::bad_alloc(); }
void release(void* memory) noexcept {
#if defined(_WIN32)
  _aligned_free(memory);
#else
  std::free(memory);
#endif
}

}  // namespace

// Of the whole test program. The forms that are not here call one of these.
void* operator new(size_t bytes) { return checked(allocate(bytes)); }
void* operator new(size_t bytes, const std::nothrow_t&) noexcept { return allocate(bytes); }
void* operator new(size_t bytes, std::align_val_t alignment) { return checked(allocate(bytes, alignment)); }
void* operator new(size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept { return allocate(bytes, alignment); }
void operator delete(void* memory) noexcept { release(memory); }
void operator delete(void* memory, size_t) noexcept { release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { release(memory); }
void operator delete(void* memory, size_t, std::align_val_t) noexcept { release(memory); }

namespace {

using namespace chiasma;
using core::DType;
using core::TensorView;

class Zeros final : public core::RowReader {
 public:
  explicit Zeros(int64_t columns) : columns_(columns) {}
  void read(int64_t, int64_t count, void* to) override { std::fill_n(static_cast<float*>(to), count * columns_, 0.0f); }

 private:
  int64_t columns_;
};

// A kernel's operands, all zeros.
class Call {
 public:
  Call(core::Device& device, const char* op, std::vector<std::pair<std::string, core::Attributes::Value>> attributes) : device_(device) {
    spec_.op = op;
    spec_.threads = device.threads();
    for (const auto& [name, value] : attributes) spec_.attributes.set(name, value);
  }

  Call& input(DType dtype, std::vector<int64_t> shape) {
    spec_.inputs.push_back(tensor(dtype, shape));
    return *this;
  }
  Call& absent(size_t count) {
    spec_.inputs.resize(spec_.inputs.size() + count);
    return *this;
  }
  Call& weight(DType dtype, int64_t rows, int64_t columns) {
    const core::WeightShape shape{"w", core::Layout::linear, dtype, {rows, columns}};
    TensorView view = tensor(dtype, {rows, columns});
    view.layout = core::Layout::linear;
    view.data = memory(device_.weight_bytes(shape));
    Zeros reader(columns);
    device_.prepare_weight(shape, reader, view.data);
    spec_.inputs.push_back(view);
    return *this;
  }
  Call& output(DType dtype, std::vector<int64_t> shape) {
    spec_.outputs.push_back(tensor(dtype, shape));
    return *this;
  }

  // Those of a run that is not the first.
  int allocations() {
    const auto kernel = device_.make_kernel(spec_);
    void* const workspace = memory(kernel->workspace_bytes());
    const auto stream = device_.make_stream(device_.threads());
    stream->begin();
    const core::KernelArguments arguments{spec_.inputs, spec_.outputs, workspace, *stream};
    kernel->run(arguments);
    ::allocations = 0;
    counting = true;
    kernel->run(arguments);
    counting = false;
    return ::allocations;
  }

 private:
  void* memory(size_t bytes) {
    kept_.push_back(std::make_unique<std::vector<char>>(bytes + 64));
    void* at = kept_.back()->data();
    size_t space = kept_.back()->size();
    return std::align(64, bytes, at, space);
  }
  TensorView tensor(DType dtype, const std::vector<int64_t>& shape) {
    TensorView view;
    view.dtype = dtype;
    view.rank = static_cast<int>(shape.size());
    std::copy(shape.begin(), shape.end(), view.shape.begin());
    view.row_stride = view.columns();
    view.data = memory(static_cast<size_t>(view.size()) * core::size_of(dtype));
    return view;
  }

  core::Device& device_;
  core::KernelSpec spec_;
  std::vector<std::unique_ptr<std::vector<char>>> kept_;
};

TEST("allocations: none in the ops of models, once they have run") {
  const std::string f32 = "float32", bf16 = "bfloat16";
  for (const cpu::Isa isa : cpu::available_isas()) {
    NOTE(cpu::name_of(isa));
    const auto device = cpu::open_device(cpu::name_of(isa), 2);
    for (const int64_t rows : {3, 200, 900}) {
      NOTE(std::to_string(rows) + " rows");
      for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        NOTE(core::name_of(dtype));
        Call linear(*device, "linear", {{"activation", std::string("gelu")}, {"dtype", bf16}});
        CHECK(linear.input(DType::bfloat16, {rows, 96}).weight(dtype, 200, 96).absent(2).output(DType::bfloat16, {rows, 200}).allocations() == 0);
      }
      Call matmul(*device, "matmul", {{"scale", 1.0}, {"dtype", f32}});
      CHECK(matmul.input(DType::float32, {rows, 64}).input(DType::float32, {100, 64}).output(DType::float32, {rows, 100}).allocations() == 0);
      Call norm(*device, "layerNorm", {{"eps", 1e-5}, {"dtype", bf16}});
      CHECK(norm.input(DType::float32, {rows, 384}).absent(2).output(DType::bfloat16, {rows, 384}).allocations() == 0);
      Call softmax(*device, "softmax", {{"dtype", f32}});
      CHECK(softmax.input(DType::float32, {rows, 384}).output(DType::float32, {rows, 384}).allocations() == 0);
      Call unary(*device, "unary", {{"kind", std::string("gelu")}, {"dtype", bf16}});
      CHECK(unary.input(DType::bfloat16, {rows, 384}).output(DType::bfloat16, {rows, 384}).allocations() == 0);
      Call attention(*device, "attention", {{"heads", 4.0}, {"scale", 0.1}, {"causal", false}, {"window", -1.0},
                                            {"queryLength", static_cast<double>(rows)}, {"keyLength", static_cast<double>(rows)}, {"dtype", bf16}});
      attention.input(DType::bfloat16, {rows, 256}).input(DType::bfloat16, {rows, 256}).input(DType::bfloat16, {rows, 256}).absent(3);
      CHECK(attention.output(DType::bfloat16, {rows, 256}).allocations() == 0);
      for (const DType dtype : {DType::float32, DType::bfloat16, DType::int8}) {
        Call search(*device, "cosineTopK", {{"k", 5.0}});
        search.input(DType::float32, {rows, 64}).input(dtype, {5000, 64}).input(DType::float32, {5000});
        CHECK(search.output(DType::float32, {rows, 5}).output(DType::int32, {rows, 5}).allocations() == 0);
      }
    }
    using Numbers = std::vector<double>;
    const std::vector<std::pair<std::string, core::Attributes::Value>> windows = {{"height", 40.0}, {"width", 40.0}, {"kernel", Numbers{3, 3}}, {"stride", Numbers{1, 1}},
                                                                                  {"padding", Numbers{1, 1, 1, 1}}, {"dtype", f32}};
    auto with = [&windows](const char* name, const char* value) {
      auto attributes = windows;
      attributes.emplace_back(name, std::string(value));
      return attributes;
    };
    Call depthwise(*device, "depthwiseConvolution", with("activation", "none"));
    CHECK(depthwise.input(DType::float32, {1600, 64}).input(DType::float32, {9, 64}).absent(1).output(DType::float32, {1600, 64}).allocations() == 0);
    Call pooled(*device, "poolWindows", with("mode", "max"));
    CHECK(pooled.input(DType::float32, {1600, 64}).output(DType::float32, {1600, 64}).allocations() == 0);
    Call convolution(*device, "convolution", with("activation", "none"));
    CHECK(convolution.input(DType::float32, {1600, 16}).weight(DType::float32, 32, 144).absent(2).output(DType::float32, {1600, 32}).allocations() == 0);
    Call sum(*device, "add", {{"dtype", f32}});
    CHECK(sum.input(DType::float32, {1600, 64}).input(DType::float32, {1600, 64}).output(DType::float32, {1600, 64}).allocations() == 0);
    Call normalized(*device, "l2Normalize", {{"eps", 1e-12}, {"dtype", f32}});
    CHECK(normalized.input(DType::float32, {1600, 64}).output(DType::float32, {1600, 64}).allocations() == 0);
    Call root(*device, "rmsNorm", {{"eps", 1e-6}, {"dtype", f32}});
    CHECK(root.input(DType::float32, {1600, 64}).absent(1).output(DType::float32, {1600, 64}).allocations() == 0);
    Call gathered(*device, "gather", {{"dtype", f32}});
    CHECK(gathered.input(DType::float32, {10, 64}).input(DType::int32, {1600}).output(DType::float32, {1600, 64}).allocations() == 0);
    Call pool(*device, "pool", {{"mode", std::string("mean")}, {"skip", 0.0}, {"length", 16.0}, {"dtype", f32}});
    CHECK(pool.input(DType::float32, {1600, 64}).absent(1).output(DType::float32, {100, 64}).allocations() == 0);
    Call token(*device, "pickToken", {{"which", std::string("first")}, {"length", 16.0}, {"dtype", f32}});
    CHECK(token.input(DType::float32, {1600, 64}).absent(1).output(DType::float32, {100, 64}).allocations() == 0);
    Call patches(*device, "patchEmbed", {{"patch", 16.0}, {"rescale", 1.0 / 255}, {"mean", Numbers{0, 0, 0}}, {"std", Numbers{1, 1, 1}}, {"dtype", f32}});
    CHECK(patches.input(DType::uint8, {3, 64, 64, 3}).weight(DType::float32, 48, 768).absent(3).output(DType::float32, {3, 16, 48}).allocations() == 0);
  }
}

}  // namespace
