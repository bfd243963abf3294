// The driver's own libraries, opened at run time. Functions, structures and numbers are those of the CUDA Driver API and of NVML.
#include "cuda/driver.h"

#include "core/shared_library.h"

namespace chiasma::cuda {

namespace {

constexpr int attribute_major = 75, attribute_minor = 76;
constexpr int error_memory = 2, error_no_device = 100;

std::string mebibytes(uint64_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

#if defined(_WIN32)
const std::string driver_library = "nvcuda.dll", management_library = "nvml.dll";
#else
const std::string driver_library = "libcuda.so.1", management_library = "libnvidia-ml.so.1";
#endif

}  // namespace

std::string driver_problem(int version) {
  if (version >= needed_driver) return {};
  return "the NVIDIA driver supports CUDA " + version_text(version) + "; expected " + version_text(needed_driver) + " or later (driver R580 or later)";
}

std::string capability_problem(int major, int minor) {
  if (major >= needed_capability) return {};
  return "its compute capability is " + std::to_string(major) + "." + std::to_string(minor) + "; expected " + std::to_string(needed_capability) + ".0 or later";
}

std::string memory_problem(uint64_t free, uint64_t total) {
  if (free >= needed_memory) return {};
  return "out of memory: " + mebibytes(free) + " of its " + mebibytes(total) + " are free; expected at least " + mebibytes(needed_memory);
}

std::optional<uint64_t> free_memory(const std::string& bus_id) {
  struct Memory {
    unsigned long long total, free, used;
  };
  static const core::SharedLibrary library(management_library);
  static const bool ready = [] {
    const auto init = library ? library.find<int (*)()>("nvmlInit_v2") : nullptr;
    return init && init() == 0;
  }();
  if (!ready || bus_id.empty()) return std::nullopt;
  static const auto get_device = library.find<int (*)(const char*, void**)>("nvmlDeviceGetHandleByPciBusId_v2");
  static const auto get_memory = library.find<int (*)(void*, Memory*)>("nvmlDeviceGetMemoryInfo");
  void* device = nullptr;
  Memory memory{};
  if (!get_device || !get_memory || get_device(bus_id.c_str(), &device) != 0 || get_memory(device, &memory) != 0) return std::nullopt;
  return memory.free;
}

Driver probe_driver() {
  Driver driver;
#if defined(__APPLE__)
  driver.problem = "there is no NVIDIA driver for macOS";
  return driver;
#endif
  const core::SharedLibrary library(driver_library);
  if (!library) {
    driver.problem = "there is no NVIDIA driver (" + driver_library + " cannot be opened)";
    return driver;
  }
  const auto get_version = library.find<int (*)(int*)>("cuDriverGetVersion");
  const auto init = library.find<int (*)(unsigned)>("cuInit");
  const auto get_count = library.find<int (*)(int*)>("cuDeviceGetCount");
  const auto get = library.find<int (*)(int*, int)>("cuDeviceGet");
  const auto get_name = library.find<int (*)(char*, int, int)>("cuDeviceGetName");
  const auto get_attribute = library.find<int (*)(int*, int, int)>("cuDeviceGetAttribute");
  const auto get_memory = library.find<int (*)(size_t*, int)>("cuDeviceTotalMem_v2");
  const auto get_bus_id = library.find<int (*)(char*, int, int)>("cuDeviceGetPCIBusId");  // optional
  int version = 0;
  if (!get_version || !init || !get_count || !get || !get_name || !get_attribute || !get_memory || get_version(&version) != 0) {
    driver.problem = driver_library + " is no CUDA driver";
    return driver;
  }
  driver.problem = driver_problem(version);
  if (!driver.problem.empty()) return driver;
  int count = 0;
  int error = init(0);
  if (error == 0) error = get_count(&count);
  if (error == error_no_device || (error == 0 && count == 0)) {
    driver.problem = "the NVIDIA driver finds no GPU";
    return driver;
  }
  if (error == error_memory) {
    driver.problem = "out of memory: the NVIDIA driver cannot start";
    driver.passing = true;
    return driver;
  }
  if (error != 0) {
    driver.problem = "the NVIDIA driver cannot start: error " + std::to_string(error);
    return driver;
  }
  for (int i = 0; i < count; ++i) {
    DriverDevice device;
    int handle = 0;
    char name[256] = "NVIDIA GPU";
    char bus_id[32] = "";
    size_t memory = 0;
    if (get(&handle, i) == 0) {
      get_name(name, sizeof name, handle);
      get_attribute(&device.major, attribute_major, handle);
      get_attribute(&device.minor, attribute_minor, handle);
      get_memory(&memory, handle);
      if (get_bus_id && get_bus_id(bus_id, sizeof bus_id, handle) != 0) bus_id[0] = 0;
    }
    device.bus_id = bus_id;
    device.name = name;
    device.memory = memory;
    driver.devices.push_back(std::move(device));
  }
  return driver;
}

}  // namespace chiasma::cuda
