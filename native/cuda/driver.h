// What the NVIDIA driver says of itself and of its GPUs, asked of libcuda.so.1 directly: no context is made, and a machine without one is told
// apart from one whose driver is too old, which the CUDA runtime does not.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace chiasma::cuda {

struct DriverDevice {
  std::string name;
  int major = 0, minor = 0;  // compute capability
  uint64_t memory = 0;       // bytes
};

struct Driver {
  std::string problem;  // why there are no devices; empty if there are
  std::vector<DriverDevice> devices;
};

// The CUDA version that the library is built with, which a driver must support: 1000 · major + 10 · minor.
constexpr int needed_driver = 13000;
constexpr int needed_capability = 8;  // major

Driver probe_driver();
// The problem of a driver that supports this version, or an empty string.
std::string driver_problem(int version);
// The problem of a GPU of this compute capability, or an empty string.
std::string capability_problem(int major, int minor);

}  // namespace chiasma::cuda
