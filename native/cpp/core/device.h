// What a device offers the executor: memory, transfers, weight preparation, streams and kernels. Nothing here knows Node or CUDA.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/kernel.h"

namespace chiasma::core {

// Work that a stream has recorded, to be done again with the same memory and shapes.
class Recording {
 public:
  virtual ~Recording() = default;
};

// An ordered queue of work. The CPU's runs kernels on the calling thread and the pool; CUDA's is a cudaStream_t.
class Stream {
 public:
  virtual ~Stream() = default;
  // A run begins.
  virtual void begin() {}
  // Returns when all work given so far is done. Throws Error if some of it failed: what a kernel says of its data, or ErrorCode::device.
  virtual void synchronize() = 0;
  // The run ends, also one that failed: nothing of it touches host memory afterwards.
  virtual void end() noexcept {}

  virtual bool can_record() const { return false; }
  // Takes down the kernels that `work` launches, without doing them. Only where can_record().
  virtual std::unique_ptr<Recording> record(const std::function<void()>&) { return nullptr; }
  virtual void replay(Recording&) {}
};

struct WeightShape {
  std::string name;
  Layout layout = Layout::plain;
  DType dtype = DType::float32;       // storage type on the device
  std::vector<int64_t> shape;
};

// Rows of a weight as its source holds them, converted to f32 (float types) or left as they are (integer types).
class RowReader {
 public:
  virtual ~RowReader() = default;
  // Reads rows [begin, begin + count) of the source seen as [shape[0], rest] into dst, contiguous; a float source as float32, others in the
  // storage type. Throws Error(checkpoint) naming the file.
  virtual void read(int64_t begin, int64_t count, void* dst) = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string id() const = 0;
  virtual std::string isa() const = 0;
  virtual bool has_bf16() const = 0;
  // Whether its kernels take float16 beside float32 and bfloat16.
  virtual bool has_f16() const { return false; }
  virtual int threads() const = 0;

  // Bytes the device has at all; 0 if that is not known.
  virtual size_t memory_limit() const = 0;
  // 64-byte aligned device memory. Throws Error(out_of_memory) naming the bytes.
  virtual void* allocate(size_t bytes) = 0;
  virtual void release(void* memory, size_t bytes) noexcept = 0;
  // When this returns, others can have what was released. May wait for the device.
  virtual void settle() noexcept {}
  // Copies in the stream's order. The host's memory may be reused when upload returns (but that of take_host), and is filled when the stream has been synchronized.
  virtual void upload(Stream& stream, void* device, const void* host, size_t bytes) = 0;
  // Host memory that upload reads in the stream's order, without a copy before that: it is the caller's again when the run has ended. Null where none is at
  // hand, and any other memory does. Does not wait; on any thread.
  virtual void* take_host(size_t) { return nullptr; }
  virtual void give_host(void*) noexcept {}
  virtual void download(Stream& stream, void* host, const void* device, size_t bytes) = 0;

  virtual std::unique_ptr<Stream> make_stream(int threads) = 0;

  virtual size_t weight_bytes(const WeightShape& weight) const = 0;
  // Fills `memory` (weight_bytes of it, from allocate) by reading rows in order, a few at a time.
  virtual void prepare_weight(const WeightShape& weight, RowReader& reader, void* memory) = 0;
  // How many threads may prepare weights at once.
  virtual int loading_threads() const { return 1; }

  virtual bool has_kernel(std::string_view op) const = 0;
  // Throws Error(unsupported) for an op without a kernel, Error(argument | dtype | shape) for operands the kernel does not take.
  virtual std::unique_ptr<Kernel> make_kernel(const KernelSpec& spec) = 0;
};

}  // namespace chiasma::core
