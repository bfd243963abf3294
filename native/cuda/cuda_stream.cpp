// Copies go through pinned memory, so that they are asynchronous whatever memory the caller has. A run ends with the fault record's copy.
#include "cuda/cuda_stream.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <thread>

namespace chiasma::cuda {

namespace {

constexpr auto asking_time = std::chrono::microseconds(200);
constexpr size_t slice_bytes = size_t{64} << 20;      // of a copy, so that pinned memory does not grow with it
constexpr size_t most_under_way = 2 * slice_bytes;  // bytes of pinned memory, before another copy waits for those under way

class GraphRecording final : public core::Recording {
 public:
  GraphRecording(CudaDevice& device, GraphHandle graph) : device_(device), graph_(graph) {}
  ~GraphRecording() override {
    if (device_.enter()) device_.runtime().release_graph(graph_);
  }
  GraphHandle graph() const noexcept { return graph_; }

 private:
  CudaDevice& device_;
  GraphHandle graph_;
};

}  // namespace

CudaStream::~CudaStream() {
  end();
  device_.pinned().give(seen_);
  if (!stream_ || !device_.enter()) return;
  if (reached_) device_.runtime().release_event(reached_);
  if (fault_) device_.runtime().release(fault_, stream_);
  device_.runtime().release_stream(stream_);
}

void CudaStream::begin() {
  device_.use();
  const Runtime& runtime = device_.runtime();
  if (!stream_) device_.check(runtime.make_stream(&stream_), "making a stream");
  if (!reached_) device_.check(runtime.make_event(&reached_), "making an event");
  if (!seen_.memory) seen_ = take(sizeof(Fault));
  if (!fault_) {
    void* memory = nullptr;
    device_.check(runtime.allocate(&memory, sizeof(Fault), stream_), "allocating the fault record");
    fault_ = static_cast<Fault*>(memory);
  }
  // Each time: a run may be left before its faults are looked at.
  device_.check(runtime.fill(fault_, 0xff, sizeof(Fault), stream_), "clearing the fault record");
}

void CudaStream::synchronize() {
  const Runtime& runtime = device_.runtime();
  device_.check(runtime.copy(seen_.memory, fault_, sizeof(Fault), Copy::to_host, stream_), "reading the fault record");
  wait("the run");
  Fault fault;
  std::memcpy(&fault, seen_.memory, sizeof fault);
  if (fault.kernel != no_kernel) throw device_.error_of(fault);
  deliver();
}

// What was under way has been waited for.
void CudaStream::deliver() noexcept {
  for (const Download& download : downloads_) std::memcpy(download.host, download.block.memory, download.bytes);
  give_back();
}

// Short work is waited for by asking, so that waking up adds nothing to it; then the thread sleeps and leaves its core to others.
void CudaStream::wait(const std::string& what) {
  const Runtime& runtime = device_.runtime();
  device_.check(runtime.record_event(reached_, stream_), what);
  int error = error_not_ready;
  for (const auto until = std::chrono::steady_clock::now() + asking_time; error == error_not_ready && std::chrono::steady_clock::now() < until;) {
    error = runtime.query_event(reached_);
    if (error == error_not_ready) std::this_thread::yield();
  }
  if (error == error_not_ready) error = runtime.wait_event(reached_);
  device_.check(error, what);
}

void CudaStream::end() noexcept {
  // After a failure: what is under way must end before its memory goes to others.
  if (stream_ && device_.enter()) device_.runtime().synchronize(stream_);
  give_back();
}

void CudaStream::give_back() noexcept {
  for (const PinnedPool::Block& block : uploads_) device_.pinned().give(block);
  for (const Download& download : downloads_) device_.pinned().give(download.block);
  uploads_.clear();
  downloads_.clear();
  under_way_ = 0;
}

PinnedPool::Block CudaStream::take(size_t bytes) {
  int error = 0;
  const PinnedPool::Block block = device_.pinned().take(bytes, &error);
  device_.check(error, "allocating " + std::to_string(bytes) + " bytes of pinned memory");
  return block;
}

PinnedPool::Block CudaStream::take_for_copy(size_t bytes) {
  if (under_way_ > 0 && under_way_ + bytes > most_under_way) {
    wait("copying");
    deliver();
  }
  const PinnedPool::Block block = take(bytes);
  under_way_ += block.bytes;
  return block;
}

void* CudaStream::upload_to(void* device, size_t bytes) {
  uploads_.reserve(uploads_.size() + 1);
  uploads_.push_back(take_for_copy(bytes));
  staged_for_ = device;
  staged_bytes_ = bytes;
  return uploads_.back().memory;
}

void CudaStream::upload_staged() {
  device_.check(device_.runtime().copy(staged_for_, uploads_.back().memory, staged_bytes_, Copy::to_device, stream_), "an upload");
}

void CudaStream::upload(void* device, const void* host, size_t bytes) {
  if (bytes == 0) return;
  if (device_.pinned().lends(host, bytes)) {
    device_.check(device_.runtime().copy(device, host, bytes, Copy::to_device, stream_), "an upload");
    return;
  }
  for (size_t at = 0; at < bytes; at += slice_bytes) {
    const size_t count = std::min(slice_bytes, bytes - at);
    std::memcpy(upload_to(static_cast<char*>(device) + at, count), static_cast<const char*>(host) + at, count);
    upload_staged();
  }
}

void CudaStream::download(void* host, const void* device, size_t bytes) {
  for (size_t at = 0; at < bytes; at += slice_bytes) {
    const size_t count = std::min(slice_bytes, bytes - at);
    downloads_.reserve(downloads_.size() + 1);
    downloads_.push_back({static_cast<char*>(host) + at, take_for_copy(count), count});
    device_.check(device_.runtime().copy(downloads_.back().block.memory, static_cast<const char*>(device) + at, count, Copy::to_host, stream_), "a download");
  }
}

std::unique_ptr<core::Recording> CudaStream::record(const std::function<void()>& work) {
  const Runtime& runtime = device_.runtime();
  device_.check(runtime.begin_recording(stream_), "recording a plan");
  GraphHandle graph = nullptr;
  try {
    work();
  } catch (...) {
    runtime.end_recording(stream_, &graph);
    if (graph) runtime.release_graph(graph);
    runtime.clear_error();
    throw;
  }
  device_.check(runtime.end_recording(stream_, &graph), "recording a plan");
  return std::make_unique<GraphRecording>(device_, graph);
}

void CudaStream::replay(core::Recording& recording) {
  device_.check(device_.runtime().replay(static_cast<GraphRecording&>(recording).graph(), stream_), "replaying a plan");
}

}  // namespace chiasma::cuda
