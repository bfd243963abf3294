// The runtime API over the simulator: devices, streams that are late (stream.h), memory (memory.h), captures and graphs.
// The null stream does its work at once and loses no device: kernels' tests launch on it. Long as the API that it stands in for.
#include "cuda/sim/cudart.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "cuda/sim/block.h"
#include "cuda/sim/kernel_launch.h"
#include "cuda/sim/memory.h"
#include "cuda/sim/options.h"
#include "cuda/sim/stream.h"

using chiasma::sim::Stream;
using chiasma::sim::Work;

struct CUgraph_st {
  std::vector<Work> work;
};
struct CUgraphExec_st {
  int device;
  std::vector<Work> work;
};
struct CUstream_st {
  explicit CUstream_st(std::shared_ptr<Stream> made) : queue(std::move(made)) {}
  std::shared_ptr<Stream> queue;
  // While it is captured:
  CUgraph_st* capture = nullptr;
  bool invalidated = false;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id captured_by;
};
struct CUevent_st {
  std::shared_ptr<Stream> queue;  // where it was recorded last; null: nowhere yet
  uint64_t position = 0;
  std::shared_ptr<std::chrono::steady_clock::time_point> time;
};

namespace chiasma::sim {

namespace {

// The last failure on a thread, as cudaGetLastError knows it, with what the simulator has to say.
thread_local cudaError_t last_error = cudaSuccess;
thread_local std::string last_report;
thread_local int current_device = 0;

std::mutex captures_mutex;
std::vector<CUstream_st*> captures;  // guarded: streams that are being captured

int device_of(cudaStream_t stream) { return stream ? stream->queue->device() : current_device; }

cudaError_t submit(cudaStream_t stream, Work work) {
  if (const Failure loss = loss_of(device_of(stream))) return failed(loss);
  if (!stream) {
    const Failure failure = work();
    return failure ? failed(failure) : cudaSuccess;
  }
  if (stream->capture) {
    stream->capture->work.push_back(std::move(work));
    return cudaSuccess;
  }
  stream->queue->submit(std::move(work));
  return cudaSuccess;
}

cudaError_t refuse(CUstream_st& stream, const char* what) {
  stream.invalidated = true;
  return failed(cudaErrorStreamCaptureUnsupported, std::string("[cuda-sim] ") + what + " while a stream is captured");
}

// Not allowed on a stream while it is captured.
cudaError_t outside_capture(cudaStream_t stream, const char* what) {
  return stream && stream->capture ? refuse(*stream, what) : cudaSuccess;
}

// Calls that may wait for the device: not allowed on any thread during a global capture, nor on the thread of a capture that is local to it.
cudaError_t outside_captures(const char* what) {
  std::lock_guard lock(captures_mutex);
  for (CUstream_st* const stream : captures) {
    const bool own = stream->captured_by == std::this_thread::get_id();
    if (stream->mode == cudaStreamCaptureModeGlobal || (stream->mode == cudaStreamCaptureModeThreadLocal && own)) return refuse(*stream, what);
  }
  return cudaSuccess;
}

// Why a device may not use `bytes` at an address of its memory, or ''.
std::string bad_range(int device, const void* address, size_t bytes, const char* what) {
  DeviceMemory& memory = DeviceMemory::instance();
  if (!memory.holds(address)) return std::string(what) + " is not device memory";
  const std::string why = explain(*memory.allocations(), device, address, bytes);
  return why.empty() ? why : std::string(what) + " of " + std::to_string(bytes) + " bytes is " + why;
}

struct Copy {
  void* to;
  size_t to_pitch;
  const void* from;
  size_t from_pitch, width, height;
  cudaMemcpyKind kind;
  int device;

  size_t to_bytes() const { return (height - 1) * to_pitch + width; }
  size_t from_bytes() const { return (height - 1) * from_pitch + width; }
};

bool is_pageable(const void* address) { return !DeviceMemory::instance().holds(address); }

Failure copy(const Copy& copy) {
  const bool to_device = copy.kind == cudaMemcpyHostToDevice || copy.kind == cudaMemcpyDeviceToDevice;
  const bool from_device = copy.kind == cudaMemcpyDeviceToHost || copy.kind == cudaMemcpyDeviceToDevice;
  std::string wrong;
  if (to_device || !is_pageable(copy.to)) wrong = bad_range(copy.device, copy.to, copy.to_bytes(), "the target");
  if (wrong.empty() && (from_device || !is_pageable(copy.from))) wrong = bad_range(copy.device, copy.from, copy.from_bytes(), "the source");
  if (!wrong.empty()) return {cudaErrorInvalidValue, "[cuda-sim] a copy between host and device: " + wrong};
  for (size_t row = 0; row < copy.height; ++row) {
    std::memmove(static_cast<char*>(copy.to) + row * copy.to_pitch, static_cast<const char*>(copy.from) + row * copy.from_pitch, copy.width);
  }
  return {};
}

// Copies from pageable memory take it as it is now; copies to it wait for the device; neither can be captured. Pinned memory is read and written when
// the stream comes to it.
cudaError_t copy_on(cudaStream_t stream, Copy what) {
  if (what.width == 0 || what.height == 0) return cudaSuccess;
  if (!what.to || !what.from || what.width > what.to_pitch || what.width > what.from_pitch) return failed(cudaErrorInvalidValue);
  what.device = device_of(stream);
  const bool pageable_to = is_pageable(what.to), pageable_from = is_pageable(what.from);
  if (pageable_to || pageable_from) {
    if (const cudaError_t error = outside_capture(stream, "a copy of memory that is not pinned"); error != cudaSuccess) return error;
  }
  if (pageable_from && !pageable_to && stream) {
    const auto bytes = std::make_shared<std::vector<char>>(static_cast<const char*>(what.from), static_cast<const char*>(what.from) + what.from_bytes());
    return submit(stream, [what, bytes] {
      Copy from = what;
      from.from = bytes->data();
      return copy(from);
    });
  }
  if (const cudaError_t error = submit(stream, [what] { return copy(what); }); error != cudaSuccess || !pageable_to || !stream) return error;
  const Failure loss = stream->queue->finish();
  return loss ? failed(loss) : cudaSuccess;
}

cudaError_t fill_on(cudaStream_t stream, void* to, size_t pitch, int value, size_t width, size_t height) {
  if (width == 0 || height == 0) return cudaSuccess;
  if (width > pitch) return failed(cudaErrorInvalidValue);
  return submit(stream, [=, device = device_of(stream)]() -> Failure {
    const std::string wrong = bad_range(device, to, (height - 1) * pitch + width, "the target");
    if (!wrong.empty()) return {cudaErrorInvalidValue, "[cuda-sim] a fill: " + wrong};
    for (size_t row = 0; row < height; ++row) std::memset(static_cast<char*>(to) + row * pitch, value, width);
    return {};
  });
}

Failure release(void* pointer, int device) {
  std::string damage;
  if (!DeviceMemory::instance().release(pointer, device, damage)) {
    return {cudaErrorInvalidValue, "[cuda-sim] an address is freed that was not allocated, or twice"};
  }
  if (!damage.empty()) return {cudaErrorIllegalAddress, "[cuda-sim] found when freeing: " + damage};
  return {};
}

cudaError_t allocate(void** pointer, size_t bytes, int device) {
  if (!pointer) return failed(cudaErrorInvalidValue);
  *pointer = nullptr;
  if (const cudaError_t error = outside_captures("an allocation"); error != cudaSuccess) return error;
  if (const Failure loss = loss_of(current_device)) return failed(loss);
  if (bytes == 0) return cudaSuccess;
  *pointer = DeviceMemory::instance().allocate(bytes, device, true, options().memory_bytes);
  return *pointer ? cudaSuccess : failed(cudaErrorMemoryAllocation);
}

cudaError_t free_now(void* pointer, int device) {
  if (!pointer) return cudaSuccess;
  if (const cudaError_t error = outside_captures("freeing"); error != cudaSuccess) return error;
  const Failure failure = release(pointer, device);
  return failure ? failed(failure) : cudaSuccess;
}

// After a device's work was waited for.
cudaError_t checked(const Failure& loss) {
  if (loss) return failed(loss);
  const std::string damage = DeviceMemory::instance().damage();
  return damage.empty() ? cudaSuccess : failed(cudaErrorIllegalAddress, "[cuda-sim] found when synchronising: " + damage);
}

}  // namespace

cudaError_t failed(Failure failure) {
  last_error = failure.error;
  last_report = std::move(failure.report);
  return failure.error;
}

cudaError_t failed(cudaError_t error, std::string report) { return failed(Failure{error, std::move(report)}); }

std::string take_report() { return std::exchange(last_report, {}); }

cudaError_t enqueue(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, std::shared_ptr<const KernelCall> call) {
  const Launch launch{name, kernel, grid, block, shared_bytes, std::move(call), device_of(stream)};
  if (const Failure failure = check_launch(launch)) return failed(failure);
  if (launch.device != current_device) return failed(cudaErrorInvalidResourceHandle, "[cuda-sim] kernel " + launch.name + " is launched on a stream of another device");
  return submit(stream, [launch] { return run_launch(launch); });
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
    CHIASMA_ERROR(cudaErrorStreamCaptureWrongThread)
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

// --- Devices ---

cudaError_t cudaGetDeviceCount(int* count) {
  *count = options().devices;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (!properties) return failed(cudaErrorInvalidValue);
  if (device < 0 || device >= options().devices) return failed(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "chiasma SIMT simulator");
  properties->totalGlobalMem = options().memory_bytes;
  properties->sharedMemPerBlock = max_static_shared_bytes;
  properties->sharedMemPerBlockOptin = options().shared_bytes;
  properties->sharedMemPerMultiprocessor = options().shared_bytes + 1024;
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

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= options().devices) return failed(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
  if (const cudaError_t error = outside_captures("waiting for the device"); error != cudaSuccess) return error;
  return checked(finish_device(current_device));
}
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
  *free_bytes = *total_bytes - std::min(*total_bytes, DeviceMemory::instance().used(current_device));
  return cudaSuccess;
}

// --- Streams and events ---

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  if (const Failure loss = loss_of(current_device)) return failed(loss);
  *stream = new CUstream_st(make_stream(current_device));
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  if (!stream) return failed(cudaErrorInvalidResourceHandle);
  {
    std::lock_guard lock(captures_mutex);
    std::erase(captures, stream);
  }
  delete stream->capture;
  const Failure loss = stream->queue->finish();
  delete stream;
  return loss ? failed(loss) : cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (!stream) return checked({});
  const cudaError_t error = outside_capture(stream, "waiting for the stream");
  return error == cudaSuccess ? checked(stream->queue->finish()) : error;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (!stream) return cudaSuccess;
  if (const cudaError_t error = outside_capture(stream, "asking the stream"); error != cudaSuccess) return error;
  const uint64_t position = stream->queue->submitted();
  if (!stream->queue->done(position) && !now_and_then(4)) return cudaErrorNotReady;
  return checked(stream->queue->finish(position));
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (!event->queue) return cudaSuccess;
  return submit(stream, [queue = event->queue, position = event->position] { return queue->finish(position); });
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  return submit(stream, [function, data]() -> Failure {
    function(data);
    return {};
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
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  if (const cudaError_t error = outside_capture(stream, "recording an event"); error != cudaSuccess) return error;
  const auto time = event->time = std::make_shared<std::chrono::steady_clock::time_point>();
  const cudaError_t error = submit(stream, [time]() -> Failure {
    *time = std::chrono::steady_clock::now();
    return {};
  });
  event->queue = stream ? stream->queue : nullptr;
  event->position = stream ? stream->queue->submitted() : 0;
  return error;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) { return checked(event->queue ? event->queue->finish(event->position) : Failure{}); }
cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (!event->queue) return cudaSuccess;
  if (!event->queue->done(event->position) && !now_and_then(4)) return cudaErrorNotReady;
  return checked(event->queue->finish(event->position));
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
  for (const cudaEvent_t event : {begin, end}) {
    if (!event->time) return failed(cudaErrorInvalidResourceHandle);
    if (event->queue && !event->queue->done(event->position)) return cudaErrorNotReady;
  }
  *milliseconds = std::chrono::duration<float, std::milli>(*end->time - *begin->time).count();
  return cudaSuccess;
}

// --- Memory ---

cudaError_t cudaMalloc(void** pointer, size_t bytes) { return allocate(pointer, bytes, current_device); }
cudaError_t cudaFree(void* pointer) {
  if (pointer) finish_device(current_device);
  return free_now(pointer, current_device);
}
cudaError_t cudaMallocAsync(void** pointer, size_t bytes, cudaStream_t stream) {
  if (!pointer) return failed(cudaErrorInvalidValue);
  *pointer = nullptr;
  if (const cudaError_t error = outside_capture(stream, "an allocation"); error != cudaSuccess) return error;
  const int device = device_of(stream);
  if (const Failure loss = loss_of(device)) return failed(loss);
  if (bytes == 0) return cudaSuccess;
  DeviceMemory& memory = DeviceMemory::instance();
  const size_t limit = options().memory_bytes;
  *pointer = memory.allocate(bytes, device, !stream, limit);
  if (!*pointer && stream) {
    stream->queue->finish();  // what was freed on this stream before may be had
    *pointer = memory.allocate(bytes, device, false, limit);
  }
  if (!*pointer) return failed(cudaErrorMemoryAllocation);
  return submit(stream, [made = *pointer]() -> Failure {
    DeviceMemory::instance().make_ready(made);
    return {};
  });
}
cudaError_t cudaFreeAsync(void* pointer, cudaStream_t stream) {
  if (!pointer) return cudaSuccess;
  if (const cudaError_t error = outside_capture(stream, "freeing"); error != cudaSuccess) return error;
  return submit(stream, [pointer, device = device_of(stream)] { return release(pointer, device); });
}
cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned) { return allocate(pointer, bytes, pinned_host); }
cudaError_t cudaMallocHost(void** pointer, size_t bytes) { return allocate(pointer, bytes, pinned_host); }
cudaError_t cudaFreeHost(void* pointer) { return free_now(pointer, pinned_host); }

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  if (const cudaError_t error = outside_captures("a copy that waits"); error != cudaSuccess) return error;
  return copy_on(nullptr, {to, bytes, from, bytes, bytes, 1, kind, 0});
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return copy_on(stream, {to, bytes, from, bytes, bytes, 1, kind, 0});
}
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width, size_t height, cudaMemcpyKind kind,
                              cudaStream_t stream) {
  return copy_on(stream, {to, to_pitch, from, from_pitch, width, height, kind, 0});
}
cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  if (const cudaError_t error = outside_captures("a fill that waits"); error != cudaSuccess) return error;
  return fill_on(nullptr, to, bytes, value, bytes, 1);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) { return fill_on(stream, to, bytes, value, bytes, 1); }
cudaError_t cudaMemset2DAsync(void* to, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream) {
  return fill_on(stream, to, pitch, value, width, height);
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* pool, int device) {
  *pool = nullptr;
  return device >= 0 && device < options().devices ? cudaSuccess : failed(cudaErrorInvalidDevice);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) { return cudaSuccess; }
cudaError_t cudaMemPoolTrimTo(cudaMemPool_t, size_t) { return cudaSuccess; }

// --- Graphs ---

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (!stream || stream->capture) return failed(cudaErrorStreamCaptureUnsupported);
  if (const Failure loss = loss_of(device_of(stream))) return failed(loss);
  stream->capture = new CUgraph_st;
  stream->invalidated = false;
  stream->mode = mode;
  stream->captured_by = std::this_thread::get_id();
  std::lock_guard lock(captures_mutex);
  captures.push_back(stream);
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  if (!stream || !stream->capture) return failed(cudaErrorInvalidValue);
  if (stream->mode != cudaStreamCaptureModeRelaxed && stream->captured_by != std::this_thread::get_id()) return failed(cudaErrorStreamCaptureWrongThread);
  {
    std::lock_guard lock(captures_mutex);
    std::erase(captures, stream);
  }
  *graph = std::exchange(stream->capture, nullptr);
  if (!stream->invalidated) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return failed(cudaErrorStreamCaptureInvalidated);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  *exec = new CUgraphExec_st{current_device, graph->work};
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  if (exec->device != device_of(stream)) return failed(cudaErrorInvalidValue, "[cuda-sim] a graph is launched on a stream of another device");
  return submit(stream, [all = exec->work]() -> Failure {
    for (const Work& work : all) {
      if (Failure failure = work()) return failure;
    }
    return {};
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > options().shared_bytes) {
    return failed(cudaErrorInvalidValue, "[cuda-sim] a kernel asks for " + std::to_string(value) + " bytes of shared memory, above " + std::to_string(options().shared_bytes));
  }
  set_dynamic_shared_limit(current_device, kernel, static_cast<size_t>(value));
  return cudaSuccess;
}
