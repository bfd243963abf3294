// The driver's devices, each with the reason if it cannot be used.
#include "cuda/devices.h"

#include "core/error.h"
#include "cuda/cuda_device.h"
#include "cuda/driver.h"
#include "cuda/side_library.h"

namespace chiasma::cuda {

namespace {

std::string capability_text(int major, int minor) { return std::to_string(major) + "." + std::to_string(minor); }

void add_gpus(std::vector<DeviceInfo>& devices) {
  const Driver driver = probe_driver();
  if (!driver.problem.empty()) {
    devices.push_back({"cuda", "cuda", "NVIDIA GPU", 0, "", driver.problem});
    return;
  }
  std::string library_problem;
  if (!is_file(cuda_library_path())) library_problem = "this build has no CUDA library (libchiasma_cuda.so); `npm run build:cuda` builds it";
  for (size_t i = 0; i < driver.devices.size(); ++i) {
    const DriverDevice& device = driver.devices[i];
    std::string reason = capability_problem(device.major, device.minor);
    if (reason.empty()) reason = library_problem;
    devices.push_back({"cuda:" + std::to_string(i), "cuda", device.name, device.memory, capability_text(device.major, device.minor), reason});
  }
}

void add_simulator(std::vector<DeviceInfo>& devices) {
  if (!is_file(simulator_path())) return;
  DeviceInfo info{"cuda-sim", "cuda-sim", "CUDA simulator", 0, "", ""};
  try {
    const Runtime& runtime = load_library(simulator_path()).runtime;
    char name[256] = "";
    int major = 0, minor = 0;
    size_t free = 0, total = 0;
    if (runtime.device_name(0, name, sizeof name) == 0) info.name = name;
    if (runtime.compute_capability(0, &major, &minor) == 0) info.compute_capability = capability_text(major, minor);
    if (runtime.memory(&free, &total) == 0) info.memory = total;
  } catch (const core::Error& error) {
    info.reason = error.what();
  }
  devices.push_back(std::move(info));
}

}  // namespace

const std::vector<DeviceInfo>& list_devices() {
  static const std::vector<DeviceInfo> devices = [] {
    std::vector<DeviceInfo> found;
    add_gpus(found);
    add_simulator(found);
    return found;
  }();
  return devices;
}

std::unique_ptr<core::Device> open_device(const std::string& id) {
  for (const DeviceInfo& info : list_devices()) {
    if (info.id != id) continue;
    if (!info.reason.empty()) throw core::Error(core::ErrorCode::device, id + " cannot be used: " + info.reason);
    const bool simulated = info.kind == "cuda-sim";
    const size_t colon = id.find(':');
    const int ordinal = colon == std::string::npos ? 0 : std::stoi(id.substr(colon + 1));
    std::string isa = "sm_" + info.compute_capability;
    isa.erase(isa.find('.'), 1);
    return std::make_unique<CudaDevice>(load_library(simulated ? simulator_path() : cuda_library_path()),
                                        DeviceFacts{id, isa, ordinal, static_cast<size_t>(info.memory)});
  }
  throw core::Error(core::ErrorCode::device, "there is no device '" + id + "'");
}

}  // namespace chiasma::cuda
