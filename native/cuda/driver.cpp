// libcuda.so.1 by dlopen. Its functions and numbers are those of the CUDA Driver API.
#include "cuda/driver.h"

#include <dlfcn.h>

namespace chiasma::cuda {

namespace {

constexpr int attribute_major = 75, attribute_minor = 76;
constexpr int error_no_device = 100;

std::string version_text(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

class DriverLibrary {
 public:
  DriverLibrary() : handle_(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {}
  explicit operator bool() const noexcept { return handle_ != nullptr; }

  template <class Function>
  Function find(const char* name) const {
    return reinterpret_cast<Function>(dlsym(handle_, name));
  }

 private:
  void* handle_;  // stays open: the driver has threads of its own
};

}  // namespace

std::string driver_problem(int version) {
  if (version >= needed_driver) return {};
  return "the NVIDIA driver supports CUDA " + version_text(version) + "; expected " + version_text(needed_driver) + " or later (driver R580 or later)";
}

std::string capability_problem(int major, int minor) {
  if (major >= needed_capability) return {};
  return "its compute capability is " + std::to_string(major) + "." + std::to_string(minor) + "; expected " + std::to_string(needed_capability) + ".0 or later";
}

Driver probe_driver() {
  Driver driver;
  const DriverLibrary library;
  if (!library) {
    driver.problem = "there is no NVIDIA driver (libcuda.so.1 cannot be opened)";
    return driver;
  }
  const auto get_version = library.find<int (*)(int*)>("cuDriverGetVersion");
  const auto init = library.find<int (*)(unsigned)>("cuInit");
  const auto get_count = library.find<int (*)(int*)>("cuDeviceGetCount");
  const auto get = library.find<int (*)(int*, int)>("cuDeviceGet");
  const auto get_name = library.find<int (*)(char*, int, int)>("cuDeviceGetName");
  const auto get_attribute = library.find<int (*)(int*, int, int)>("cuDeviceGetAttribute");
  const auto get_memory = library.find<int (*)(size_t*, int)>("cuDeviceTotalMem_v2");
  int version = 0;
  if (!get_version || !init || !get_count || !get || !get_name || !get_attribute || !get_memory || get_version(&version) != 0) {
    driver.problem = "libcuda.so.1 is no CUDA driver";
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
  if (error != 0) {
    driver.problem = "the NVIDIA driver cannot start: error " + std::to_string(error);
    return driver;
  }
  for (int i = 0; i < count; ++i) {
    DriverDevice device;
    int handle = 0;
    char name[256] = "NVIDIA GPU";
    size_t memory = 0;
    if (get(&handle, i) == 0) {
      get_name(name, sizeof name, handle);
      get_attribute(&device.major, attribute_major, handle);
      get_attribute(&device.minor, attribute_minor, handle);
      get_memory(&memory, handle);
    }
    device.name = name;
    device.memory = memory;
    driver.devices.push_back(std::move(device));
  }
  return driver;
}

}  // namespace chiasma::cuda
