// The GPUs of this machine, and the simulator where it is built.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/device.h"

namespace chiasma::cuda {

struct DeviceInfo {
  std::string id;    // 'cuda:0', 'cuda-sim'; 'cuda' where there is none to number
  std::string kind;  // 'cuda', 'cuda-sim'
  std::string name;
  int ordinal = 0;
  uint64_t memory = 0;             // bytes; 0: not known
  std::optional<uint64_t> free = {};  // bytes
  std::string bus_id = {};
  std::string compute_capability = {};  // '9.0'; empty: not known
  std::string reason = {};         // why it cannot be used; empty if it can
};

// Asks the driver once; later calls get the same answer but for the free memory, and for a driver that had no memory to start.
// A device that this process has open is not too full to be used. May take seconds the first time, makes no context.
std::vector<DeviceInfo> list_devices();

// Opens a device of the list. Work that takes long (the context, the library's code) is left to the threads that use it.
// Throws Error(device) if it is not there or cannot be used.
std::unique_ptr<core::Device> open_device(const std::string& id);

}  // namespace chiasma::cuda
