// A device for tests of the executor: host memory it keeps count of, and kernels a test writes itself.
#pragma once

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <string>

#include "core/device.h"
#include "core/error.h"

namespace chiasma::test {

class FakeStream final : public core::Stream {
 public:
  void synchronize() override {}
};

class FakeDevice final : public core::Device {
 public:
  using Body = std::function<void(const core::KernelArguments&)>;

  // Ops by name: what they do, and the workspace they ask for.
  std::map<std::string, Body, std::less<>> ops;
  size_t workspace = 0;
  size_t limit = size_t{1} << 32;
  std::atomic<int64_t> allocated{0};

  std::string id() const override { return "fake"; }
  std::string isa() const override { return "fake"; }
  bool has_bf16() const override { return false; }
  int threads() const override { return 1; }
  size_t memory_limit() const override { return limit; }

  void* allocate(size_t bytes) override {
    if (bytes > limit) throw core::Error(core::ErrorCode::out_of_memory, std::to_string(bytes) + " bytes");
    allocated += static_cast<int64_t>(bytes);
    return ::operator new(bytes, std::align_val_t(64));
  }
  void release(void* memory, size_t bytes) noexcept override {
    allocated -= static_cast<int64_t>(bytes);
    ::operator delete(memory, std::align_val_t(64));
  }
  void upload(core::Stream&, void* device, const void* host, size_t bytes) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void download(core::Stream&, void* host, const void* device, size_t bytes) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }
  std::unique_ptr<core::Stream> make_stream(int) override { return std::make_unique<FakeStream>(); }

  size_t weight_bytes(const core::WeightShape& weight) const override {
    size_t bytes = 4;
    for (const int64_t dim : weight.shape) bytes *= static_cast<size_t>(dim);
    return bytes;
  }
  void prepare_weight(const core::WeightShape& weight, core::RowReader& reader, void* memory) override {
    const int64_t rows = weight.shape.empty() ? 1 : weight.shape[0];
    for (int64_t row = 0; row < rows; ++row) reader.read(row, 1, static_cast<char*>(memory) + static_cast<size_t>(row) * (weight_bytes(weight) / static_cast<size_t>(rows)));
  }

  bool has_kernel(std::string_view op) const override { return ops.find(op) != ops.end(); }
  std::unique_ptr<core::Kernel> make_kernel(const core::KernelSpec& spec) override {
    const auto op = ops.find(spec.op);
    if (op == ops.end()) throw core::Error(core::ErrorCode::unsupported, spec.op);
    return std::make_unique<FakeKernel>(op->second, workspace);
  }

 private:
  class FakeKernel final : public core::Kernel {
   public:
    FakeKernel(Body body, size_t workspace) : body_(std::move(body)), workspace_(workspace) {}
    size_t workspace_bytes() const override { return workspace_; }
    void run(const core::KernelArguments& arguments) override { body_(arguments); }

   private:
    Body body_;
    size_t workspace_;
  };
};

}  // namespace chiasma::test
