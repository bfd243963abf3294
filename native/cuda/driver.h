// What the NVIDIA driver says of itself and of its GPUs, asked of its library (libcuda.so.1, nvcuda.dll) directly: no context is made, and a machine without one is told
// apart from one whose driver is too old, which the CUDA runtime does not.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace chiasma::cuda {

struct DriverDevice {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  uint64_t memory = 0;       // bytes
  std::string bus_id;        // '0000:65:00.0', by which the management library knows it; may be empty
};

struct Driver {
  std::string problem;   // why there are no devices; empty if there are
  bool passing = false;  // the problem may be gone when the driver is asked again
  std::vector<DriverDevice> devices;
};

// The CUDA version that the library is built with, which a driver must support: 1000 · major + 10 · minor.
constexpr int needed_driver = 13000;
constexpr int needed_capability = 8;  // major

Driver probe_driver();
// Free memory of the GPU, asked of its management library each time; nothing where that cannot say.
std::optional<uint64_t> free_memory(const std::string& bus_id);
// A context and the kernels take this much of a GPU before anything is computed.
constexpr uint64_t needed_memory = uint64_t{512} << 20;
// The problem of a GPU with so much free of so much memory, or an empty string.
std::string memory_problem(uint64_t free, uint64_t total);
// The problem of a driver that supports this version, or an empty string.
std::string driver_problem(int version);
// The problem of a GPU of this compute capability, or an empty string.
std::string capability_problem(int major, int minor);

}  // namespace chiasma::cuda
