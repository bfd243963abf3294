// Device memory (and pinned host memory): one reserved range of addresses, so that any access to it is either inside a live allocation or wrong.
// Allocations start as NaN and lie between red zones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace chiasma::sim {

struct Allocation {
  char* begin;
  size_t bytes;
  bool pinned;
  char* end() const { return begin + bytes; }
};

// Ordered by address; never changed once made.
using Allocations = std::vector<Allocation>;

// The allocation that holds or precedes the address, or null.
const Allocation* find(const Allocations& allocations, const void* address);
// 'reads 4 bytes 12 bytes past the end of an allocation of 400 bytes': why an access is wrong, or '' if it is right.
std::string explain(const Allocations& allocations, const void* address, size_t bytes);

class DeviceMemory {
 public:
  static DeviceMemory& instance();

  bool holds(const void* address) const { return address >= base_ && address < base_ + reserved_; }
  void* allocate(size_t bytes, bool pinned, size_t limit);  // null if there is not enough
  bool release(void* pointer, bool pinned, std::string& damage);
  size_t used() const;
  std::shared_ptr<const Allocations> allocations() const;
  // The first damaged red zone, or ''.
  std::string damage() const;

 private:
  DeviceMemory();
  void publish(Allocations changed) { allocations_ = std::make_shared<const Allocations>(std::move(changed)); }

  char* base_ = nullptr;
  size_t reserved_ = 0, used_ = 0;
  char* next_ = nullptr;
  mutable std::mutex mutex_;
  std::shared_ptr<const Allocations> allocations_;
};

}  // namespace chiasma::sim
