// Memory, weights and errors. Allocations come from the runtime's stream-ordered pool, on a stream of their own; the executor releases memory only
// when the runs that used it have ended.
#include "cuda/cuda_device.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <functional>

#include "core/convert.h"
#include "cuda/cuda_stream.h"
#include "cuda/gemm.h"

namespace chiasma::cuda {

using core::Error;
using core::ErrorCode;

namespace {

constexpr size_t smallest_block = size_t{64} << 10;
constexpr size_t kept_bytes = size_t{256} << 20;   // of pinned memory that waits for a user
constexpr size_t chunk_bytes = size_t{4} << 20;    // of a weight on its way

// Errors after which every call of the process on this device fails, says the CUDA Runtime API: the process must be started again.
constexpr bool is_sticky(int error) {
  for (const int sticky : {214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 810, 999}) {
    if (error == sticky) return true;
  }
  return false;
}

struct RowSize {
  int64_t rows = 1, columns = 1, stride = 1;
};

bool is_int8_product(const core::WeightShape& weight) { return weight.layout == core::Layout::linear && weight.dtype == core::DType::int8; }

RowSize row_size(const core::WeightShape& weight) {
  RowSize size;
  if (!weight.shape.empty()) size.rows = weight.shape[0];
  for (size_t i = 1; i < weight.shape.size(); ++i) size.columns *= weight.shape[i];
  size.stride = weight.layout == core::Layout::linear ? linear_stride(size.columns) : size.columns;
  return size;
}

}  // namespace

// Blocks of a lost device stay: nobody can give them back.
PinnedPool::~PinnedPool() {
  for (const Entry& entry : entries_) release(entry.block);
}

void PinnedPool::release(const Block& block) noexcept {
  if (device_.enter()) device_.runtime().release_host(block.memory);
}

// The smallest that is large enough.
PinnedPool::Entry* PinnedPool::find_idle(size_t bytes) {
  Entry* best = nullptr;
  for (Entry& entry : entries_) {
    if (entry.state == State::idle && entry.block.bytes >= bytes && (!best || entry.block.bytes < best->block.bytes)) best = &entry;
  }
  return best;
}

PinnedPool::Block PinnedPool::take(size_t bytes, int* error) {
  *error = 0;
  {
    std::lock_guard lock(mutex_);
    if (Entry* const idle = find_idle(bytes)) {
      idle->state = State::taken;
      return idle->block;
    }
  }
  Block block{nullptr, std::bit_ceil(std::max(bytes, smallest_block))};
  *error = device_.runtime().allocate_host(&block.memory, block.bytes);
  if (*error != 0) return {};
  try {
    std::lock_guard lock(mutex_);
    entries_.push_back({block, State::taken});
  } catch (...) {
    release(block);
    throw;
  }
  return block;
}

void PinnedPool::give(const Block& block) noexcept {
  give_back(block.memory);
  for (;;) {
    Block surplus;
    {
      std::lock_guard lock(mutex_);
      size_t idle = 0;
      auto at = entries_.begin();
      for (; at != entries_.end(); ++at) {
        if (at->state == State::idle && (idle += at->block.bytes) > kept_bytes) break;
      }
      if (at == entries_.end()) return;
      surplus = at->block;
      entries_.erase(at);
    }
    release(surplus);
  }
}

void* PinnedPool::lend(size_t bytes) {
  std::lock_guard lock(mutex_);
  Entry* const idle = find_idle(bytes);
  if (!idle) return nullptr;
  idle->state = State::lent;
  return idle->block.memory;
}

void PinnedPool::give_back(const void* memory) noexcept {
  std::lock_guard lock(mutex_);
  for (Entry& entry : entries_) {
    if (entry.block.memory == memory) entry.state = State::idle;
  }
}

bool PinnedPool::lends(const void* from, size_t bytes) const {
  const auto* const begin = static_cast<const char*>(from);
  std::lock_guard lock(mutex_);
  return std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    const auto* const memory = static_cast<const char*>(entry.block.memory);
    return entry.state == State::lent && std::less_equal<>()(memory, begin) && std::less_equal<>()(begin + bytes, memory + entry.block.bytes);
  });
}

CudaDevice::CudaDevice(const Library& library, DeviceFacts facts) : library_(library), facts_(std::move(facts)), pinned_(*this) {}

CudaDevice::~CudaDevice() {
  if (!memory_stream_ || !enter()) return;
  runtime().synchronize(memory_stream_);
  runtime().release_stream(memory_stream_);
}

void CudaDevice::use() {
  {
    std::lock_guard lock(mutex_);
    if (!lost_.empty()) {
      throw Error(ErrorCode::device, facts_.id + " is lost (" + lost_ + "); it works again in a new process");
    }
  }
  check(runtime().set_device(facts_.ordinal), "making the device current");
}

bool CudaDevice::enter() noexcept { return !lost() && runtime().set_device(facts_.ordinal) == 0; }

bool CudaDevice::lost() const {
  std::lock_guard lock(mutex_);
  return !lost_.empty();
}

void CudaDevice::check(int error, const std::string& what) {
  if (error == 0) return;
  const std::string text = what + " failed: " + runtime().error_name(error) + ", " + runtime().error_text(error);
  runtime().clear_error();
  if (error == error_memory) throw Error(ErrorCode::out_of_memory, facts_.id + ": " + text);
  if (is_sticky(error)) {
    std::lock_guard lock(mutex_);
    if (lost_.empty()) lost_ = text;
  }
  throw Error(ErrorCode::device, facts_.id + ": " + text);
}

uint32_t CudaDevice::add_kernel(Explain explain) {
  std::lock_guard lock(mutex_);
  while (next_kernel_ == no_kernel || explains_.count(next_kernel_)) ++next_kernel_;
  explains_.emplace(next_kernel_, std::move(explain));
  return next_kernel_++;
}

void CudaDevice::remove_kernel(uint32_t kernel) noexcept {
  std::lock_guard lock(mutex_);
  explains_.erase(kernel);
}

Error CudaDevice::error_of(const Fault& fault) const {
  std::lock_guard lock(mutex_);
  const auto found = explains_.find(fault.kernel);
  if (found == explains_.end()) return Error(ErrorCode::internal, facts_.id + ": a kernel that is gone reports a fault");
  return Error(ErrorCode::argument, found->second(static_cast<int64_t>(fault.first >> 32), static_cast<int32_t>(fault.first & 0xffffffffu)));
}

void CudaDevice::make_memory_stream() {
  int error = 0;
  {
    std::lock_guard lock(mutex_);
    if (!memory_stream_) error = runtime().make_stream(&memory_stream_);
  }
  check(error, "making a stream");
}

StreamHandle CudaDevice::memory_stream() const {
  std::lock_guard lock(mutex_);
  return memory_stream_;
}

void* CudaDevice::allocate(size_t bytes) {
  use();
  make_memory_stream();
  const StreamHandle stream = memory_stream();
  void* memory = nullptr;
  const auto ask = [&] { return runtime().allocate(&memory, std::max<size_t>(bytes, 1), stream); };
  int error = ask();
  if (error == error_memory) {
    runtime().clear_error();
    settle();
    error = ask();
  }
  if (error == error_memory) {
    runtime().clear_error();
    throw Error(ErrorCode::out_of_memory, "no memory for " + std::to_string(bytes) + " bytes on " + facts_.id);
  }
  check(error, "allocating " + std::to_string(bytes) + " bytes");
  // Other streams may use it from now on.
  check(runtime().synchronize(stream), "allocating " + std::to_string(bytes) + " bytes");
  return memory;
}

// The pool gives memory back when a stream is waited for.
void CudaDevice::settle() noexcept {
  const StreamHandle stream = memory_stream();
  if (stream && enter()) runtime().synchronize(stream);
}

void CudaDevice::release(void* memory, size_t) noexcept {
  if (memory && enter()) runtime().release(memory, memory_stream());
}

void CudaDevice::upload(core::Stream& stream, void* device, const void* host, size_t bytes) {
  static_cast<CudaStream&>(stream).upload(device, host, bytes);
}

void CudaDevice::download(core::Stream& stream, void* host, const void* device, size_t bytes) {
  static_cast<CudaStream&>(stream).download(host, device, bytes);
}

std::unique_ptr<core::Stream> CudaDevice::make_stream(int) { return std::make_unique<CudaStream>(*this); }

size_t CudaDevice::weight_bytes(const core::WeightShape& weight) const {
  const RowSize size = row_size(weight);
  if (is_int8_product(weight)) {
    if (size.columns > max_int8_columns) {
      throw Error(ErrorCode::unsupported, "weight '" + weight.name + "' has " + std::to_string(size.columns) + " inputs; int8 takes at most " +
                                              std::to_string(max_int8_columns));
    }
    return Int8Layout(size.rows, size.columns).bytes;
  }
  return static_cast<size_t>(size.rows * size.stride) * core::size_of(weight.dtype);
}

// Reads rows a few at a time into pinned memory, from where they go to the device: first their bytes, then all scales and sums.
void CudaDevice::prepare_int8(const core::WeightShape& weight, core::RowReader& reader, char* memory) {
  const RowSize size = row_size(weight);
  const Int8Layout layout(size.rows, size.columns);
  const int64_t step = std::clamp<int64_t>(static_cast<int64_t>(chunk_bytes / layout.row_bytes), 1, size.rows);
  std::vector<float> floats(static_cast<size_t>(step * size.columns)), scales(static_cast<size_t>(size.rows));
  std::vector<int32_t> sums(static_cast<size_t>(size.rows));
  CudaStream stream(*this);
  stream.begin();
  for (int64_t row = 0; row < size.rows; row += step) {
    const int64_t count = std::min(step, size.rows - row);
    reader.read(row, count, floats.data());
    auto* const staged = static_cast<int8_t*>(stream.upload_to(memory + static_cast<size_t>(row) * layout.row_bytes, static_cast<size_t>(count) * layout.row_bytes));
    for (int64_t r = 0; r < count; ++r) {
      const auto at = static_cast<size_t>(row + r);
      quantize_weight_row(floats.data() + r * size.columns, size.columns, size.stride, staged + static_cast<size_t>(r) * layout.row_bytes, &scales[at], &sums[at]);
    }
    stream.upload_staged();
  }
  stream.upload(memory + layout.scales, scales.data(), scales.size() * sizeof(float));
  stream.upload(memory + layout.sums, sums.data(), sums.size() * sizeof(int32_t));
  stream.synchronize();
}

void CudaDevice::prepare_weight(const core::WeightShape& weight, core::RowReader& reader, void* memory) {
  const RowSize size = row_size(weight);
  if (size.rows == 0 || size.columns == 0) return;
  if (is_int8_product(weight)) return prepare_int8(weight, reader, static_cast<char*>(memory));
  const size_t element = core::size_of(weight.dtype);
  const size_t row_bytes = static_cast<size_t>(size.stride) * element;
  const int64_t step = std::clamp<int64_t>(static_cast<int64_t>(chunk_bytes / row_bytes), 1, size.rows);
  const bool convert = core::is_float(weight.dtype) && (weight.dtype != core::DType::float32 || size.stride != size.columns);
  std::vector<float> floats(convert ? static_cast<size_t>(step * size.columns) : 0);
  CudaStream stream(*this);
  stream.begin();
  for (int64_t row = 0; row < size.rows; row += step) {
    const int64_t count = std::min(step, size.rows - row);
    char* const staged = static_cast<char*>(stream.upload_to(static_cast<char*>(memory) + static_cast<size_t>(row) * row_bytes, static_cast<size_t>(count) * row_bytes));
    if (!convert) {
      reader.read(row, count, staged);
    } else {
      reader.read(row, count, floats.data());
      for (int64_t r = 0; r < count; ++r) {
        char* const to = staged + static_cast<size_t>(r) * row_bytes;
        core::f32_to_floats(floats.data() + r * size.columns, weight.dtype, to, size.columns);
        std::memset(to + static_cast<size_t>(size.columns) * element, 0, static_cast<size_t>(size.stride - size.columns) * element);
      }
    }
    stream.upload_staged();
  }
  stream.synchronize();
}

bool CudaDevice::has_kernel(std::string_view op) const { return find_kernel(op) != nullptr; }

std::unique_ptr<core::Kernel> CudaDevice::make_kernel(const core::KernelSpec& spec) {
  const KernelFactory make = find_kernel(spec.op);
  if (!make) throw Error(ErrorCode::unsupported, "[" + spec.op + "] has no kernel on CUDA");
  return make(spec, *this);
}

}  // namespace chiasma::cuda
