// One GPU, or the simulator: its memory, its errors, and what its threads share. All of CUDA is reached through the side library's table.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/error.h"
#include "cuda/library.h"

namespace chiasma::cuda {

class CudaDevice;

// Host memory that the GPU reads and writes by itself, kept for the next user.
class PinnedPool {
 public:
  struct Block {
    void* memory = nullptr;
    size_t bytes = 0;
  };

  explicit PinnedPool(CudaDevice& device) : device_(device) {}
  ~PinnedPool();
  PinnedPool(const PinnedPool&) = delete;
  PinnedPool& operator=(const PinnedPool&) = delete;

  // A block of at least `bytes`; its `memory` is null and *error set if there is none to be had.
  Block take(size_t bytes, int* error);
  void give(const Block& block) noexcept;

  // An idle block's memory, or null; neither asks the driver for anything.
  void* lend(size_t bytes);
  void give_back(const void* memory) noexcept;
  // Whether all of these bytes are in one lent block.
  bool lends(const void* from, size_t bytes) const;

 private:
  enum class State { idle, taken, lent };
  struct Entry {
    Block block;
    State state;
  };

  Entry* find_idle(size_t bytes);
  void release(const Block& block) noexcept;

  CudaDevice& device_;
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;  // guarded
};

struct DeviceFacts {
  std::string id;
  std::string isa;  // 'sm_90'
  int ordinal = 0;
  size_t memory = 0;  // bytes
  std::shared_ptr<const void> in_use = {};  // lives as long as one of the process' devices of this id
};

class CudaDevice final : public core::Device {
 public:
  CudaDevice(const Library& library, DeviceFacts facts);
  ~CudaDevice() override;

  const Library& library() const noexcept { return library_; }
  const Runtime& runtime() const noexcept { return library_.runtime; }
  PinnedPool& pinned() noexcept { return pinned_; }

  // Makes this device the calling thread's. Throws Error(device) if the device is lost.
  void use();
  // The same before something is given back, on whatever thread; false if the device is lost, and everything with it.
  bool enter() noexcept;
  // Throws Error(out_of_memory | device) saying what failed, unless `error` is 0. After an error that cannot be recovered from, the device is lost.
  void check(int error, const std::string& what);
  bool lost() const;

  // A kernel that finds faults in its data: `explain` says what is wrong with the value at a position.
  using Explain = std::function<std::string(int64_t position, int32_t value)>;
  uint32_t add_kernel(Explain explain);
  void remove_kernel(uint32_t kernel) noexcept;
  core::Error error_of(const Fault& fault) const;

  std::string id() const override { return facts_.id; }
  std::string isa() const override { return facts_.isa; }
  bool has_bf16() const override { return true; }
  bool has_f16() const override { return true; }
  int threads() const override { return 1; }
  size_t memory_limit() const override { return facts_.memory; }
  void* allocate(size_t bytes) override;
  void release(void* memory, size_t bytes) noexcept override;
  void settle() noexcept override;
  void* take_host(size_t bytes) override { return pinned_.lend(bytes); }
  void give_host(void* memory) noexcept override { pinned_.give_back(memory); }
  void upload(core::Stream& stream, void* device, const void* host, size_t bytes) override;
  void download(core::Stream& stream, void* host, const void* device, size_t bytes) override;
  std::unique_ptr<core::Stream> make_stream(int threads) override;
  size_t weight_bytes(const core::WeightShape& weight) const override;
  void prepare_weight(const core::WeightShape& weight, core::RowReader& reader, void* memory) override;
  bool has_kernel(std::string_view op) const override;
  std::unique_ptr<core::Kernel> make_kernel(const core::KernelSpec& spec) override;

 private:
  void make_memory_stream();
  StreamHandle memory_stream() const;  // null before the first allocation
  void prepare_int8(const core::WeightShape& weight, core::RowReader& reader, char* memory);

  const Library& library_;
  DeviceFacts facts_;
  mutable std::mutex mutex_;
  StreamHandle memory_stream_ = nullptr;   // guarded: what allocations and releases are ordered by
  std::string lost_;                       // guarded: why the device is lost
  std::map<uint32_t, Explain> explains_;   // guarded
  uint32_t next_kernel_ = 0;               // guarded
  PinnedPool pinned_;                      // its end needs the others
};

// Columns from one row of a weight of role `linear` to the next: rows begin at multiples of 128 bytes, and are zero behind their end.
constexpr int64_t linear_stride(int64_t columns) { return (columns + 63) / 64 * 64; }

}  // namespace chiasma::cuda
