// The memory of all devices (and pinned host memory): one reserved range of addresses, so that any access to it is either inside a live allocation or
// wrong. Allocations start as NaN and lie between red zones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace chiasma::sim {

constexpr int pinned_host = -1;  // in place of a device

struct Allocation {
  char* begin;
  size_t bytes;
  int device;  // or pinned_host
  bool ready;  // false: the stream that allocates it has not come so far
  char* end() const { return begin + bytes; }
};

// Ordered by address; never changed once made.
using Allocations = std::vector<Allocation>;

// The allocation that holds or precedes the address, or null.
const Allocation* find(const Allocations& allocations, const void* address);
// '12 bytes past the end of an allocation of 400 bytes': where an address is that a device must not access, or '' if it may. Pinned memory it may.
std::string explain(const Allocations& allocations, int device, const void* address, size_t bytes);

class DeviceMemory {
 public:
  static DeviceMemory& instance();

  bool holds(const void* address) const { return address >= base_ && address < base_ + reserved_; }
  void* allocate(size_t bytes, int device, bool ready, size_t limit);  // null if there is not enough
  void make_ready(void* pointer);
  // False if this is no allocation of this device.
  bool release(void* pointer, int device, std::string& damage);
  size_t used(int device) const;
  std::shared_ptr<const Allocations> allocations() const;
  // The first damaged red zone, or ''.
  std::string damage() const;

 private:
  DeviceMemory();
  void publish(Allocations changed) { allocations_ = std::make_shared<const Allocations>(std::move(changed)); }

  char* base_ = nullptr;
  size_t reserved_ = 0;
  char* next_ = nullptr;
  mutable std::mutex mutex_;
  std::map<int, size_t> used_;  // by device
  std::shared_ptr<const Allocations> allocations_;
};

}  // namespace chiasma::sim
