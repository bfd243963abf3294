// The driver's devices, each with the reason if it cannot be used.
#include "cuda/devices.h"

#include <map>
#include <mutex>

#include "core/error.h"
#include "cuda/cuda_device.h"
#include "cuda/driver.h"
#include "cuda/side_library.h"

namespace chiasma::cuda {

namespace {

#if defined(__linux__)
constexpr const char* no_library = "this build has no CUDA library (libchiasma_cuda.so); `npm run build:cuda` builds it";
#else
constexpr const char* no_library = "the CUDA kernels are built for Linux alone so far";
#endif

std::string capability_text(int major, int minor) { return std::to_string(major) + "." + std::to_string(minor); }

// Whether the answer stands for as long as the process lives.
bool add_gpus(std::vector<DeviceInfo>& devices) {
  const Driver driver = probe_driver();
  if (!driver.problem.empty()) {
    DeviceInfo none{.id = "cuda", .kind = "cuda", .name = "NVIDIA GPU"};
    none.reason = driver.problem;
    devices.push_back(std::move(none));
    return !driver.passing;
  }
  std::string library_problem;
  if (!is_file(cuda_library_path())) library_problem = no_library;
  for (size_t i = 0; i < driver.devices.size(); ++i) {
    const DriverDevice& device = driver.devices[i];
    DeviceInfo info{.id = "cuda:" + std::to_string(i), .kind = "cuda", .name = device.name};
    info.ordinal = static_cast<int>(i);
    info.memory = device.memory;
    info.bus_id = device.bus_id;
    info.compute_capability = capability_text(device.major, device.minor);
    info.reason = capability_problem(device.major, device.minor);
    if (info.reason.empty()) info.reason = library_problem;
    devices.push_back(std::move(info));
  }
  return true;
}

// One is 'cuda-sim', several are numbered as GPUs are.
void add_simulator(std::vector<DeviceInfo>& devices) {
  if (!is_file(simulator_path())) return;
  DeviceInfo one{.id = "cuda-sim", .kind = "cuda-sim", .name = "CUDA simulator"};
  try {
    const Runtime& runtime = load_library(simulator_path()).runtime;
    int count = 0;
    runtime.device_count(&count);
    for (int i = 0; i < count; ++i) {
      DeviceInfo info = one;
      if (count > 1) info.id.append(":").append(std::to_string(i));
      info.ordinal = i;
      char name[256] = "";
      int major = 0, minor = 0;
      size_t free = 0, total = 0;
      if (runtime.device_name(i, name, sizeof name) == 0) info.name = name;
      if (runtime.compute_capability(i, &major, &minor) == 0) info.compute_capability = capability_text(major, minor);
      if (runtime.memory(&free, &total) == 0) info.memory = total;
      devices.push_back(std::move(info));
    }
  } catch (const core::Error& error) {
    one.reason = error.what();
    devices.push_back(std::move(one));
  }
}

std::vector<DeviceInfo> known_devices() {
  static std::mutex mutex;
  static std::vector<DeviceInfo> known;  // empty before an answer that stands
  std::lock_guard lock(mutex);
  if (!known.empty()) return known;
  std::vector<DeviceInfo> found;
  const bool stands = add_gpus(found);
  add_simulator(found);
  if (stands) known = found;
  return found;
}

// What the open devices of this process hold, by device: one token each.
std::shared_ptr<const void> token_of(const std::string& id, bool make) {
  static std::mutex mutex;
  static std::map<std::string, std::weak_ptr<const void>> tokens;
  std::lock_guard lock(mutex);
  std::weak_ptr<const void>& known = tokens[id];
  std::shared_ptr<const void> token = known.lock();
  if (!token && make) known = token = std::make_shared<const char>();
  return token;
}

}  // namespace

std::vector<DeviceInfo> list_devices() {
  std::vector<DeviceInfo> devices = known_devices();
  for (DeviceInfo& info : devices) {
    info.free = free_memory(info.bus_id);
    // Where this process has the device open, it has its context, and may be what fills the memory.
    if (info.free && info.reason.empty() && !token_of(info.id, false)) info.reason = memory_problem(*info.free, info.memory);
  }
  return devices;
}

std::unique_ptr<core::Device> open_device(const std::string& id) {
  for (const DeviceInfo& info : known_devices()) {
    if (info.id != id) continue;
    if (!info.reason.empty()) throw core::Error(core::ErrorCode::device, id + " cannot be used: " + info.reason);
    std::string isa = "sm_" + info.compute_capability;
    isa.erase(isa.find('.'), 1);
    return std::make_unique<CudaDevice>(load_library(info.kind == "cuda-sim" ? simulator_path() : cuda_library_path()),
                                        DeviceFacts{id, isa, info.ordinal, static_cast<size_t>(info.memory), token_of(id, true)});
  }
  throw core::Error(core::ErrorCode::device, "there is no device '" + id + "'");
}

}  // namespace chiasma::cuda
