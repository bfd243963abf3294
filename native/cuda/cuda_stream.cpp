// Copies go through pinned memory, so that they are asynchronous whatever memory the caller has. A run ends with the fault record's copy.
#include "cuda/cuda_stream.h"

#include <cstring>

namespace chiasma::cuda {

namespace {

constexpr size_t most_uploading = size_t{64} << 20;  // bytes on their way before upload_to waits

class GraphRecording final : public core::Recording {
 public:
  GraphRecording(CudaDevice& device, GraphHandle graph) : device_(device), graph_(graph) {}
  ~GraphRecording() override {
    if (!device_.lost()) device_.runtime().release_graph(graph_);
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
  if (!stream_ || device_.lost()) return;
  if (fault_) device_.runtime().release(fault_, stream_);
  device_.runtime().release_stream(stream_);
}

void CudaStream::begin() {
  device_.use();
  const Runtime& runtime = device_.runtime();
  if (!stream_) device_.check(runtime.make_stream(&stream_), "making a stream");
  if (!fault_) {
    void* memory = nullptr;
    device_.check(runtime.allocate(&memory, sizeof(Fault), stream_), "allocating the fault record");
    fault_ = static_cast<Fault*>(memory);
    device_.check(runtime.fill(fault_, 0xff, sizeof(Fault), stream_), "clearing the fault record");
    seen_ = take(sizeof(Fault));
  }
}

void CudaStream::synchronize() {
  const Runtime& runtime = device_.runtime();
  device_.check(runtime.copy(seen_.memory, fault_, sizeof(Fault), Copy::to_host, stream_), "reading the fault record");
  device_.check(runtime.synchronize(stream_), "the run");
  Fault fault;
  std::memcpy(&fault, seen_.memory, sizeof fault);
  if (fault.kernel != no_kernel) {
    device_.check(runtime.fill(fault_, 0xff, sizeof(Fault), stream_), "clearing the fault record");
    throw device_.error_of(fault);
  }
  for (const Download& download : downloads_) std::memcpy(download.host, download.block.memory, download.bytes);
  give_back();
}

void CudaStream::end() noexcept {
  // After a failure: what is on its way must land before its memory goes to others.
  if (stream_ && (!uploads_.empty() || !downloads_.empty())) device_.runtime().synchronize(stream_);
  give_back();
}

void CudaStream::give_back() noexcept {
  for (const PinnedPool::Block& block : uploads_) device_.pinned().give(block);
  for (const Download& download : downloads_) device_.pinned().give(download.block);
  uploads_.clear();
  downloads_.clear();
  uploading_ = 0;
}

PinnedPool::Block CudaStream::take(size_t bytes) {
  int error = 0;
  const PinnedPool::Block block = device_.pinned().take(bytes, &error);
  device_.check(error, "allocating " + std::to_string(bytes) + " bytes of pinned memory");
  return block;
}

void* CudaStream::upload_to(void* device, size_t bytes) {
  if (uploading_ + bytes > most_uploading && !uploads_.empty()) {
    device_.check(device_.runtime().synchronize(stream_), "uploading");
    for (const PinnedPool::Block& block : uploads_) device_.pinned().give(block);
    uploads_.clear();
    uploading_ = 0;
  }
  uploads_.reserve(uploads_.size() + 1);
  uploads_.push_back(take(bytes));
  uploading_ += uploads_.back().bytes;
  staged_for_ = device;
  staged_bytes_ = bytes;
  return uploads_.back().memory;
}

void CudaStream::upload_staged() {
  device_.check(device_.runtime().copy(staged_for_, uploads_.back().memory, staged_bytes_, Copy::to_device, stream_), "an upload");
}

void CudaStream::upload(void* device, const void* host, size_t bytes) {
  if (bytes == 0) return;
  std::memcpy(upload_to(device, bytes), host, bytes);
  upload_staged();
}

void CudaStream::download(void* host, const void* device, size_t bytes) {
  if (bytes == 0) return;
  downloads_.reserve(downloads_.size() + 1);
  downloads_.push_back({host, take(bytes), bytes});
  device_.check(device_.runtime().copy(downloads_.back().block.memory, device, bytes, Copy::to_host, stream_), "a download");
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
