// The simulator's streams, memory and graphs: work is late, and what a real device would only sometimes get wrong is refused or seen.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "cuda/launch.cuh"
#include "cuda/sim/options.h"
#include "cuda/sim/stream.h"
#include "device_array.h"
#include "test.h"

namespace chiasma::cuda {

namespace {

using test::DeviceArray;

__global__ void add_one_kernel(float* x, int n) {
  if (static_cast<int>(threadIdx.x) < n) x[threadIdx.x] += 1;
}

__global__ void last_byte_kernel(float* x, int bytes) {
  SMEM_DYN(memory, unsigned char);
  if (threadIdx.x == 0) memory[bytes - 1] = 7;
  __syncthreads();
  x[threadIdx.x] = memory[bytes - 1];
}

struct StreamOwner {
  cudaStream_t stream = nullptr;
  StreamOwner() { CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess); }
  ~StreamOwner() { cudaStreamDestroy(stream); }
};

struct Pinned {
  float* data = nullptr;
  explicit Pinned(size_t count) { CHECK(cudaHostAlloc(&data, count * sizeof(float), cudaHostAllocPortable) == cudaSuccess); }
  ~Pinned() { cudaFreeHost(data); }
};

// Options for one test, and devices that work when it ends.
struct Settings {
  sim::Options before = sim::options();
  Settings() = default;
  explicit Settings(const std::function<void(sim::Options&)>& change) {
    sim::Options options = before;
    change(options);
    sim::set_options(options);
  }
  ~Settings() {
    sim::set_options(before);
    sim::repair_devices();
    cudaSetDevice(0);
    cudaGetLastError();
    sim::take_report();
  }
};

// How many of 40 seeds, and so of 40 moments, `happens` under.
int times(const std::function<bool()>& happens) {
  int count = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    const Settings settings([&](sim::Options& options) { options.seed = seed; });
    count += happens() ? 1 : 0;
  }
  return count;
}

}  // namespace

TEST("sim streams: pinned memory is read late, pageable memory at the call") {
  const StreamOwner owner;
  DeviceArray<float> x(4);
  const Pinned pinned(4);
  const auto sees_later_value = [&](float* host) {
    std::fill_n(host, 4, 1.0f);
    CHECK(cudaMemcpyAsync(x.get(), host, 16, cudaMemcpyHostToDevice, owner.stream) == cudaSuccess);
    std::fill_n(host, 4, 2.0f);  // too early
    CHECK(cudaStreamSynchronize(owner.stream) == cudaSuccess);
    return x.read()[3] == 2.0f;
  };
  const int late = times([&] { return sees_later_value(pinned.data); });
  NOTE("late under " + std::to_string(late) + " of 40 seeds");
  CHECK(late > 20 && late < 40);  // mostly, and now and then at once
  std::vector<float> pageable(4);
  CHECK(times([&] { return sees_later_value(pageable.data()); }) == 0);
}

TEST("sim streams: a copy to the host, and a kernel's work, are there after waiting and mostly not before") {
  const StreamOwner owner;
  const Pinned pinned(4);
  const int early = times([&] {
    DeviceArray<float> x(std::vector<float>(4, 5.0f));
    CHECK(LAUNCH(add_one_kernel, 1, 32, 0, owner.stream, x.get(), 4) == cudaSuccess);
    std::fill_n(pinned.data, 4, 0.0f);
    CHECK(cudaMemcpyAsync(pinned.data, x.get(), 16, cudaMemcpyDeviceToHost, owner.stream) == cudaSuccess);
    const bool there = pinned.data[0] == 6.0f;
    CHECK(cudaStreamSynchronize(owner.stream) == cudaSuccess);
    CHECK(pinned.data[0] == 6.0f && pinned.data[3] == 6.0f);
    return there;
  });
  NOTE("early under " + std::to_string(early) + " of 40 seeds");
  CHECK(early > 0 && early < 20);
}

TEST("sim streams: an event waits for what was before it, a stream for another's event") {
  const StreamOwner first, second;
  cudaEvent_t event = nullptr;
  CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  times([&] {
    DeviceArray<float> x(std::vector<float>(4, 0.0f));
    const Pinned seen(4);
    CHECK(LAUNCH(add_one_kernel, 1, 32, 0, first.stream, x.get(), 4) == cudaSuccess);
    CHECK(cudaEventRecord(event, first.stream) == cudaSuccess);
    CHECK(cudaStreamWaitEvent(second.stream, event, 0) == cudaSuccess);
    CHECK(cudaMemcpyAsync(seen.data, x.get(), 16, cudaMemcpyDeviceToHost, second.stream) == cudaSuccess);
    int asked = 0;
    for (cudaError_t error; (error = cudaEventQuery(event)) != cudaSuccess; ++asked) CHECK(error == cudaErrorNotReady && asked < 1000);
    CHECK(cudaEventSynchronize(event) == cudaSuccess && x.read()[0] == 1.0f);
    CHECK(cudaStreamSynchronize(second.stream) == cudaSuccess && seen.data[0] == 1.0f);
    return true;
  });
  CHECK(cudaEventDestroy(event) == cudaSuccess);
}

TEST("sim streams: two threads with a stream each, waiting for each other's events") {
  const StreamOwner owners[2];
  DeviceArray<float> x(std::vector<float>(1, 0.0f));
  cudaEvent_t events[2];
  for (auto& event : events) CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
  for (int i = 0; i < 20; ++i) {
    const cudaStream_t stream = owners[i % 2].stream;
    CHECK(cudaStreamWaitEvent(stream, events[(i + 1) % 2], 0) == cudaSuccess);
    CHECK(LAUNCH(add_one_kernel, 1, 32, 0, stream, x.get(), 1) == cudaSuccess);
    CHECK(cudaEventRecord(events[i % 2], stream) == cudaSuccess);
  }
  cudaError_t errors[2];
  std::thread other([&] { errors[1] = cudaStreamSynchronize(owners[1].stream); });
  errors[0] = cudaStreamSynchronize(owners[0].stream);
  other.join();
  CHECK(errors[0] == cudaSuccess && errors[1] == cudaSuccess && x.read()[0] == 20.0f);
  for (auto& event : events) cudaEventDestroy(event);
}

TEST("sim memory: allocated and freed in a stream's order, of a size that ends") {
  const Settings settings([](sim::Options& options) { options.memory_bytes = 1 << 20; });
  size_t before = 0, free_bytes = 0, total = 0;
  CHECK(cudaMemGetInfo(&before, &total) == cudaSuccess && total == 1 << 20);
  const StreamOwner owner, other;
  void *memory = nullptr, *more = nullptr;
  CHECK(cudaMallocAsync(&memory, 700 << 10, owner.stream) == cudaSuccess);
  CHECK(cudaMallocAsync(&more, 700 << 10, owner.stream) == cudaErrorMemoryAllocation && !more);
  CHECK(cudaMalloc(&more, 700 << 10) == cudaErrorMemoryAllocation && !more);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation && cudaGetLastError() == cudaSuccess);
  CHECK(cudaFreeAsync(memory, owner.stream) == cudaSuccess);
  CHECK(cudaMallocAsync(&more, 700 << 10, owner.stream) == cudaSuccess);  // after it, on the same stream
  CHECK(cudaFreeAsync(more, owner.stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(owner.stream) == cudaSuccess);
  CHECK(cudaMemGetInfo(&free_bytes, &total) == cudaSuccess && free_bytes == before);
}

TEST("sim memory: another stream must not use it before it is allocated, nor after it is freed") {
  const int seen_early = times([] {
    const StreamOwner owner, other;
    float* memory = nullptr;
    CHECK(cudaMallocAsync(&memory, 16, owner.stream) == cudaSuccess);
    cudaMemsetAsync(memory, 0, 16, other.stream);
    const cudaError_t error = cudaStreamSynchronize(other.stream);
    return error != cudaSuccess && sim::take_report().find("its stream has not come to yet") != std::string::npos;
  });
  CHECK(seen_early > 20);
  const int seen_late = times([] {
    const StreamOwner owner, other;
    float* memory = nullptr;
    CHECK(cudaMalloc(&memory, 16) == cudaSuccess);
    LAUNCH(add_one_kernel, 1, 32, 0, other.stream, memory, 4);
    cudaFreeAsync(memory, owner.stream);
    cudaStreamSynchronize(owner.stream);
    const cudaError_t error = cudaStreamSynchronize(other.stream);
    return error != cudaSuccess && sim::take_report().find("out of bounds") != std::string::npos;
  });
  CHECK(seen_late > 20);
}

TEST("sim graphs: what was captured is done by each launch, with the addresses it had") {
  const StreamOwner owner;
  DeviceArray<float> x(std::vector<float>(4, 0.0f));
  CHECK(cudaStreamBeginCapture(owner.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(LAUNCH(add_one_kernel, 1, 32, 0, owner.stream, x.get(), 4) == cudaSuccess);
  CHECK(LAUNCH(add_one_kernel, 1, 32, 0, owner.stream, x.get(), 2) == cudaSuccess);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  CHECK(cudaStreamEndCapture(owner.stream, &graph) == cudaSuccess);
  CHECK(x.read()[0] == 0.0f);
  CHECK(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess && cudaGraphDestroy(graph) == cudaSuccess);
  for (int i = 0; i < 3; ++i) CHECK(cudaGraphLaunch(exec, owner.stream) == cudaSuccess);
  CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
  CHECK(cudaStreamSynchronize(owner.stream) == cudaSuccess);
  CHECK(x.read() == std::vector<float>({6, 6, 3, 3}));
}

TEST("sim graphs: what is captured has its shared memory, whatever less the same kernel is launched with later") {
  const Settings settings([](sim::Options& options) { options.devices = 2; });
  constexpr int much = 90 << 10, less = 60 << 10;
  for (int device = 0; device < 2; ++device) {  // each has limits of its own
    CHECK(cudaSetDevice(device) == cudaSuccess);
    const StreamOwner owner;
    DeviceArray<float> x(32);
    CHECK(cudaStreamBeginCapture(owner.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(LAUNCH(last_byte_kernel, 1, 32, much, owner.stream, x.get(), much) == cudaSuccess);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t exec = nullptr;
    CHECK(cudaStreamEndCapture(owner.stream, &graph) == cudaSuccess);
    CHECK(cudaGraphInstantiate(&exec, graph, 0) == cudaSuccess && cudaGraphDestroy(graph) == cudaSuccess);
    CHECK(LAUNCH(last_byte_kernel, 1, 32, less, owner.stream, x.get(), less) == cudaSuccess);
    CHECK(cudaGraphLaunch(exec, owner.stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(owner.stream) == cudaSuccess && x.read()[31] == 7);
    // The simulator would have seen it.
    CHECK(cudaFuncSetAttribute(reinterpret_cast<const void*>(last_byte_kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, less) == cudaSuccess);
    CHECK(cudaGraphLaunch(exec, owner.stream) == cudaSuccess);
    CHECK(cudaStreamSynchronize(owner.stream) == cudaErrorInvalidConfiguration);
    CHECK(sim::take_report().find("92160 bytes of shared memory, above 61440") != std::string::npos);
    CHECK(cudaGraphExecDestroy(exec) == cudaSuccess);
    sim::repair_devices();
  }
}

TEST("sim graphs: what a capture does not take makes it void") {
  const StreamOwner owner;
  const Pinned pinned(4);
  DeviceArray<float> x(4);
  std::vector<float> pageable(4);
  void* memory = nullptr;
  struct Step {
    const char* name;
    std::function<cudaError_t()> call;
    bool taken;
  };
  const Step steps[] = {
      {"a copy from pageable memory", [&] { return cudaMemcpyAsync(x.get(), pageable.data(), 16, cudaMemcpyHostToDevice, owner.stream); }, false},
      {"a copy to pageable memory", [&] { return cudaMemcpyAsync(pageable.data(), x.get(), 16, cudaMemcpyDeviceToHost, owner.stream); }, false},
      {"waiting", [&] { return cudaStreamSynchronize(owner.stream); }, false},
      {"asking", [&] { return cudaStreamQuery(owner.stream); }, false},
      {"an allocation on the stream", [&] { return cudaMallocAsync(&memory, 16, owner.stream); }, false},
      {"an allocation", [&] { return cudaMalloc(&memory, 16); }, false},
      {"pinned memory", [&] { return cudaHostAlloc(&memory, 16, 0); }, false},
      {"a copy that waits", [&] { return cudaMemcpy(x.get(), pageable.data(), 16, cudaMemcpyHostToDevice); }, false},
      {"a copy of pinned memory", [&] { return cudaMemcpyAsync(x.get(), pinned.data, 16, cudaMemcpyHostToDevice, owner.stream); }, true},
      {"a kernel", [&] { return LAUNCH(add_one_kernel, 1, 32, 0, owner.stream, x.get(), 4); }, true},
  };
  for (const Step& step : steps) {
    NOTE(step.name);
    CHECK(cudaStreamBeginCapture(owner.stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(step.call() == (step.taken ? cudaSuccess : cudaErrorStreamCaptureUnsupported));
    cudaGraph_t graph = nullptr;
    CHECK(cudaStreamEndCapture(owner.stream, &graph) == (step.taken ? cudaSuccess : cudaErrorStreamCaptureInvalidated));
    CHECK((graph != nullptr) == step.taken);
    if (graph) cudaGraphDestroy(graph);
  }
  // What another thread does is its own affair, unless the capture is global.
  for (const auto mode : {cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeGlobal}) {
    CHECK(cudaStreamBeginCapture(owner.stream, mode) == cudaSuccess);
    std::thread([&] {
      cudaGraph_t graph = nullptr;
      CHECK(cudaStreamEndCapture(owner.stream, &graph) == cudaErrorStreamCaptureWrongThread);
      if (cudaMalloc(&memory, 16) == cudaSuccess) cudaFreeAsync(memory, nullptr);
    }).join();
    cudaGraph_t graph = nullptr;
    CHECK((cudaStreamEndCapture(owner.stream, &graph) == cudaSuccess) == (mode == cudaStreamCaptureModeThreadLocal));
    if (graph) cudaGraphDestroy(graph);
  }
  cudaGetLastError();
  sim::take_report();
}

TEST("sim devices: an error in a stream's work is found late and loses the device, not the other one") {
  const Settings settings([](sim::Options& options) { options.devices = 2; });
  {
    const StreamOwner owner;
    DeviceArray<float> x(4);
    LAUNCH(add_one_kernel, 1, 32, 0, owner.stream, x.get(), 5);
    CHECK(cudaStreamSynchronize(owner.stream) == cudaErrorIllegalAddress);
    CHECK(sim::take_report().find("add_one_kernel") != std::string::npos);
    CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
    CHECK(cudaStreamSynchronize(owner.stream) == cudaErrorIllegalAddress);
    CHECK(LAUNCH(add_one_kernel, 1, 32, 0, owner.stream, x.get(), 4) == cudaErrorIllegalAddress);
    CHECK(std::string(cudaGetErrorString(cudaErrorIllegalAddress)).find("add_one_kernel") != std::string::npos);
    void* memory = nullptr;
    CHECK(cudaMalloc(&memory, 16) == cudaErrorIllegalAddress);
    CHECK(cudaSetDevice(1) == cudaSuccess && cudaMalloc(&memory, 16) == cudaSuccess && cudaFree(memory) == cudaSuccess);
    CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice && cudaSetDevice(0) == cudaSuccess);
  }
}

TEST("sim devices: each has its own memory and streams") {
  const Settings settings([](sim::Options& options) { options.devices = 2; });
  DeviceArray<float> x(std::vector<float>(4, 0.0f));
  CHECK(cudaSetDevice(1) == cudaSuccess);
  const StreamOwner other;
  CHECK(LAUNCH(add_one_kernel, 1, 32, 0, other.stream, x.get(), 4) == cudaSuccess);
  CHECK(cudaStreamSynchronize(other.stream) == cudaErrorIllegalAddress);
  CHECK(sim::take_report().find("memory of device 0, not 1") != std::string::npos);
  sim::repair_devices();
  CHECK(cudaSetDevice(0) == cudaSuccess);
  CHECK(LAUNCH(add_one_kernel, 1, 32, 0, other.stream, x.get(), 4) == cudaErrorInvalidResourceHandle);
}

}  // namespace chiasma::cuda
