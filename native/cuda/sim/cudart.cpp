// The runtime API over the simulator. Every stream is done at once; capturing keeps what it is asked to do.
#include "cuda/sim/cudart.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "cuda/sim/block.h"
#include "cuda/sim/memory.h"
#include "cuda/sim/options.h"

using Work = std::function<cudaError_t()>;

struct CUgraph_st {
  std::vector<Work> work;
};
struct CUgraphExec_st {
  std::vector<Work> work;
};
struct CUstream_st {
  CUgraph_st* capture = nullptr;
  bool invalidated = false;
};
struct CUevent_st {
  std::chrono::steady_clock::time_point time;
  bool recorded = false;
};

namespace chiasma::sim {

namespace {

std::mutex options_mutex;

uint64_t environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  if (!text || !*text) return otherwise;
  char* end = nullptr;
  const unsigned long long value = std::strtoull(text, &end, 10);
  return *end ? otherwise : value;
}

Options& shared_options() {
  static Options options = [] {
    Options from;
    from.seed = environment("CHIASMA_SIM_SEED", from.seed);
    from.check_races = environment("CHIASMA_SIM_RACES", 1) != 0;
    from.workers = static_cast<int>(std::clamp<uint64_t>(environment("CHIASMA_SIM_WORKERS", 1), 1, 64));
    return from;
  }();
  return options;
}

// The last failure on a thread, as cudaGetLastError knows it, with what the simulator has to say.
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_report;

cudaError_t failed(cudaError_t error, std::string report = {}) {
  last_error = error;
  last_report = std::move(report);
  return error;
}

// Runners keep their stacks; one is made for each core that runs blocks at the same time.
class Runners {
 public:
  std::unique_ptr<BlockRunner> take(const Options& options) {
    std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<BlockRunner>(options);
    auto runner = std::move(idle_.back());
    idle_.pop_back();
    runner->set_options(options);
    return runner;
  }
  void give(std::unique_ptr<BlockRunner> runner) {
    std::lock_guard lock(mutex_);
    idle_.push_back(std::move(runner));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<BlockRunner>> idle_;
};

Runners& runners() {
  static Runners all;
  return all;
}

cudaError_t run(const Launch& launch) {
  const Options chosen = options();
  const auto allocations = DeviceMemory::instance().allocations();
  const uint64_t blocks = uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  std::atomic<uint64_t> next{0};
  std::atomic<bool> wrong{false};
  Failure first;
  std::mutex first_mutex;
  const auto work = [&] {
    auto runner = runners().take(chosen);
    for (uint64_t number; !wrong && (number = next++) < blocks;) {
      const Index index{static_cast<unsigned>(number % launch.grid.x), static_cast<unsigned>(number / launch.grid.x % launch.grid.y),
                        static_cast<unsigned>(number / (uint64_t{launch.grid.x} * launch.grid.y))};
      Failure failure;
      if (runner->run(launch, index, number, *allocations, failure)) continue;
      wrong = true;
      std::lock_guard lock(first_mutex);
      if (first.error == cudaSuccess) first = std::move(failure);
    }
    runners().give(std::move(runner));
  };
  std::vector<std::thread> others;
  const uint64_t workers = std::min<uint64_t>(blocks, static_cast<uint64_t>(std::max(chosen.workers, 1)));
  for (uint64_t i = 1; i < workers; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  return first.error == cudaSuccess ? cudaSuccess : failed(first.error, std::move(first.report));
}

cudaError_t submit(cudaStream_t stream, Work work) {
  if (!stream || !stream->capture) return work();
  stream->capture->work.push_back(std::move(work));
  return cudaSuccess;
}

// Not allowed while a stream is captured.
cudaError_t outside_capture(cudaStream_t stream) {
  if (!stream || !stream->capture) return cudaSuccess;
  stream->invalidated = true;
  return failed(cudaErrorStreamCaptureUnsupported);
}

// Why `bytes` at an address are no memory of the device, or ''.
std::string bad_range(const void* address, size_t bytes, const char* what) {
  DeviceMemory& memory = DeviceMemory::instance();
  if (!memory.holds(address)) return std::string(what) + " is not device memory";
  const std::string why = explain(*memory.allocations(), address, bytes);
  return why.empty() ? why : std::string(what) + " of " + std::to_string(bytes) + " bytes is " + why;
}

cudaError_t copy(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind) {
  if (width == 0 || height == 0) return cudaSuccess;
  if (!to || !from || width > to_pitch || width > from_pitch) return failed(cudaErrorInvalidValue);
  DeviceMemory& memory = DeviceMemory::instance();
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice || (kind == cudaMemcpyDefault && memory.holds(to));
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice || (kind == cudaMemcpyDefault && memory.holds(from));
  std::string wrong;
  if (to_device || memory.holds(to)) wrong = bad_range(to, (height - 1) * to_pitch + width, "the target");
  if (wrong.empty() && (from_device || memory.holds(from))) wrong = bad_range(from, (height - 1) * from_pitch + width, "the source");
  if (!wrong.empty()) return failed(cudaErrorInvalidValue, "[cuda-sim] a copy between host and device: " + wrong);
  for (size_t row = 0; row < height; ++row) {
    std::memmove(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(from) + row * from_pitch, width);
  }
  return cudaSuccess;
}

cudaError_t fill(void* to, size_t pitch, int value, size_t width, size_t height) {
  if (width == 0 || height == 0) return cudaSuccess;
  if (width > pitch) return failed(cudaErrorInvalidValue);
  const std::string wrong = bad_range(to, (height - 1) * pitch + width, "the target");
  if (!wrong.empty()) return failed(cudaErrorInvalidValue, "[cuda-sim] a fill: " + wrong);
  for (size_t row = 0; row < height; ++row) std::memset(static_cast<char*>(to) + row * pitch, value, width);
  return cudaSuccess;
}

cudaError_t allocate(void** pointer, size_t bytes, bool pinned) {
  if (!pointer) return failed(cudaErrorInvalidValue);
  *pointer = nullptr;
  if (bytes == 0) return cudaSuccess;
  *pointer = DeviceMemory::instance().allocate(bytes, pinned, options().memory_bytes);
  return *pointer ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}

cudaError_t release(void* pointer, bool pinned) {
  if (!pointer) return cudaSuccess;
  std::string damage;
  if (!DeviceMemory::instance().release(pointer, pinned, damage)) {
    return failed(cudaErrorInvalidValue, "[cuda-sim] an address is freed that was not allocated, or twice");
  }
  return damage.empty() ? cudaSuccess : failed(cudaErrorIllegalAddress, "[cuda-sim] found when freeing: " + damage);
}

cudaError_t check_memory() {
  const std::string damage = DeviceMemory::instance().damage();
  return damage.empty() ? cudaSuccess : failed(cudaErrorIllegalAddress, "[cuda-sim] found when synchronising: " + damage);
}

}  // namespace

Options options() {
  std::lock_guard lock(options_mutex);
  return shared_options();
}

void set_options(const Options& options) {
  std::lock_guard lock(options_mutex);
  shared_options() = options;
}

std::string take_report() { return std::exchange(last_report, {}); }

cudaError_t enqueue(const char* name, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, std::shared_ptr<const KernelCall> call) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  std::string wrong;
  if (threads == 0 || threads > max_threads || block.z > 64) wrong = "a block of " + std::to_string(threads) + " threads";
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) wrong = "a grid whose y or z is above 65535";
  if (shared_bytes > max_shared_bytes) wrong = std::to_string(shared_bytes) + " bytes of shared memory, above " + std::to_string(max_shared_bytes);
  if (!wrong.empty()) return failed(cudaErrorInvalidConfiguration, "[cuda-sim] kernel " + std::string(name) + " is launched with " + wrong);
  return submit(stream, [launch = Launch{name, grid, block, shared_bytes, std::move(call)}] { return run(launch); });
}

}  // namespace chiasma::sim

using namespace chiasma::sim;

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
#define CHIASMA_ERROR(name) \
  case name: return #name;
    CHIASMA_ERROR(cudaSuccess)
    CHIASMA_ERROR(cudaErrorInvalidValue)
    CHIASMA_ERROR(cudaErrorMemoryAllocation)
    CHIASMA_ERROR(cudaErrorInitializationError)
    CHIASMA_ERROR(cudaErrorInvalidConfiguration)
    CHIASMA_ERROR(cudaErrorInvalidDevicePointer)
    CHIASMA_ERROR(cudaErrorInsufficientDriver)
    CHIASMA_ERROR(cudaErrorNoDevice)
    CHIASMA_ERROR(cudaErrorInvalidDevice)
    CHIASMA_ERROR(cudaErrorInvalidResourceHandle)
    CHIASMA_ERROR(cudaErrorNotReady)
    CHIASMA_ERROR(cudaErrorIllegalAddress)
    CHIASMA_ERROR(cudaErrorLaunchFailure)
    CHIASMA_ERROR(cudaErrorNotSupported)
    CHIASMA_ERROR(cudaErrorStreamCaptureUnsupported)
    CHIASMA_ERROR(cudaErrorStreamCaptureInvalidated)
    CHIASMA_ERROR(cudaErrorUnknown)
#undef CHIASMA_ERROR
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  if (!last_report.empty() && error != cudaSuccess) return last_report.c_str();
  return cudaGetErrorName(error);
}

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!properties) return failed(cudaErrorInvalidValue);
  if (device != 0) return failed(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "chiasma SIMT simulator");
  properties->totalGlobalMem = options().memory_bytes;
  properties->sharedMemPerBlock = max_static_shared_bytes;
  properties->sharedMemPerBlockOptin = max_shared_bytes;
  properties->sharedMemPerMultiprocessor = max_shared_bytes + 1024;
  properties->regsPerBlock = 65536;
  properties->warpSize = warp_lanes;
  properties->maxThreadsPerBlock = max_threads;
  for (int i = 0; i < 3; ++i) properties->maxThreadsDim[i] = i == 2 ? 64 : max_threads;
  for (int i = 0; i < 3; ++i) properties->maxGridSize[i] = i == 0 ? 0x7fffffff : 65535;
  properties->major = 8;
  properties->minor = 6;
  properties->multiProcessorCount = 4;
  properties->maxThreadsPerMultiProcessor = 1536;
  properties->l2CacheSize = 4 << 20;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  if (const cudaError_t error = cudaGetDeviceProperties(&properties, device); error != cudaSuccess) return error;
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = properties.multiProcessorCount; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = properties.major; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = properties.minor; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(properties.sharedMemPerBlockOptin); return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported: *value = 1; return cudaSuccess;
  }
  return failed(cudaErrorInvalidValue);
}

cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : failed(cudaErrorInvalidDevice); }
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() { return check_memory(); }
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total_bytes) {
  *total_bytes = options().memory_bytes;
  *free_bytes = *total_bytes - std::min(*total_bytes, DeviceMemory::instance().used());
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st;
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!stream) return failed(cudaErrorInvalidResourceHandle);
  delete stream->capture;
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const cudaError_t error = outside_capture(stream);
  return error == cudaSuccess ? check_memory() : error;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) { return outside_capture(stream); }
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned) { return cudaSuccess; }
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return submit(stream, [function, data] {
    function(data);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  event->time = std::chrono::steady_clock::now();
  event->recorded = true;
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t) { return check_memory(); }
cudaError_t cudaEventQuery(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  if (!begin->recorded || !end->recorded) return failed(cudaErrorInvalidResourceHandle);
  *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** pointer, size_t bytes) { return allocate(pointer, bytes, false); }
cudaError_t cudaFree(void* pointer) { return release(pointer, false); }
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  const cudaError_t error = outside_capture(stream);
  return error == cudaSuccess ? allocate(pointer, bytes, false) : error;
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  const cudaError_t error = outside_capture(stream);
  return error == cudaSuccess ? release(pointer, false) : error;
}
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) { return allocate(pointer, bytes, true); }
cudaError_t cudaMallocHost(void** pointer, size_t bytes) { return allocate(pointer, bytes, true); }
cudaError_t cudaFreeHost(void* pointer) { return release(pointer, true); }

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) { return copy(to, bytes, from, bytes, bytes, 1, kind); }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return submit(stream, [=] { return copy(to, bytes, from, bytes, bytes, 1, kind); });
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  return submit(stream, [=] { return copy(to, to_pitch, from, from_pitch, width, height, kind); });
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) { return fill(to, bytes, value, bytes, 1); }
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return submit(stream, [=] { return fill(to, bytes, value, bytes, 1); });
}
cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream) {
  return submit(stream, [=] { return fill(to, pitch, value, width, height); });
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  *pool = nullptr;
  return cudaSetDevice(device);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (!stream || stream->capture) return failed(cudaErrorStreamCaptureUnsupported);
  stream->capture = new CUgraph_st;
  stream->invalidated = false;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!stream || !stream->capture) return failed(cudaErrorInvalidValue);
  *graph = std::exchange(stream->capture, nullptr);
  if (!stream->invalidated) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return failed(cudaErrorStreamCaptureInvalidated);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  for (const Work& work : exec->work) {
    if (const cudaError_t error = submit(stream, work); error != cudaSuccess) return error;
  }
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute attribute, int value) {
  if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize && value > static_cast<int>(max_shared_bytes)) return failed(cudaErrorInvalidValue);
  return cudaSuccess;
}
