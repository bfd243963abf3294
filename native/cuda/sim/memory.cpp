#include "cuda/sim/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace chiasma::sim {

namespace {

constexpr size_t red_zone = 1024;   // on each side
constexpr size_t granularity = 256;  // of addresses, as cudaMalloc's
constexpr int red_zone_byte = 0xa5;
constexpr size_t page = 4096;
// Larger allocations are poisoned at their beginning only: no test fills them, and what nobody touches takes no memory of the host.
constexpr size_t large = size_t{1} << 30, poisoned_of_large = size_t{1} << 20;

size_t rounded(size_t bytes) { return (bytes + granularity - 1) / granularity * granularity; }

// Up to the next multiple of the granularity the tail of an allocation belongs to its red zone.
char* zone_end(const Allocation& allocation) { return allocation.begin + rounded(allocation.bytes) + red_zone; }

// The first byte of [begin, end) that is not the red zone's, or null.
const char* damaged(const char* begin, const char* end) {
  const char* const at = std::find_if(begin, end, [](char byte) { return static_cast<unsigned char>(byte) != red_zone_byte; });
  return at == end ? nullptr : at;
}

std::string damage_of(const Allocation& allocation) {
  const std::string what = "an allocation of " + std::to_string(allocation.bytes) + " bytes";
  if (const char* at = damaged(allocation.begin - red_zone, allocation.begin)) {
    return "something wrote " + std::to_string(allocation.begin - at) + " bytes before the start of " + what;
  }
  if (const char* at = damaged(allocation.end(), zone_end(allocation))) {
    return "something wrote " + std::to_string(at - allocation.end()) + " bytes past the end of " + what;
  }
  return {};
}

}  // namespace

const Allocation* find(const Allocations& allocations, const void* address) {
  const auto after = std::upper_bound(allocations.begin(), allocations.end(), address,
                                      [](const void* value, const Allocation& allocation) { return value < allocation.begin; });
  return after == allocations.begin() ? nullptr : &*(after - 1);
}

std::string explain(const Allocations& allocations, int device, const void* address, size_t bytes) {
  const char* const at = static_cast<const char*>(address);
  const Allocation* const before = find(allocations, address);
  if (before && at + bytes <= before->end()) {
    if (!before->ready) return "an allocation that its stream has not come to yet";
    if (before->device != device && before->device != pinned_host) return "memory of device " + std::to_string(before->device) + ", not " + std::to_string(device);
    return {};
  }
  const Allocation* const after = before ? (before + 1 < allocations.data() + allocations.size() ? before + 1 : nullptr)
                                         : (allocations.empty() ? nullptr : allocations.data());
  if (before && (!after || at - before->end() <= after->begin - at)) {
    return std::to_string(at - before->begin) + " bytes into an allocation of " + std::to_string(before->bytes) + " bytes";
  }
  if (after) return std::to_string(after->begin - at) + " bytes before an allocation of " + std::to_string(after->bytes) + " bytes";
  return "device memory that nobody allocated";
}

DeviceMemory& DeviceMemory::instance() {
  static DeviceMemory memory;
  return memory;
}

DeviceMemory::DeviceMemory() : allocations_(std::make_shared<const Allocations>()) {
  for (reserved_ = size_t{64} << 30; reserved_ >= (size_t{1} << 28); reserved_ /= 2) {
    void* const memory = mmap(nullptr, reserved_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) continue;
    base_ = next_ = static_cast<char*>(memory);
    return;
  }
  reserved_ = 0;
}

void* DeviceMemory::allocate(size_t bytes, int device, bool ready, size_t limit) {
  std::lock_guard lock(mutex_);
  if (device != pinned_host && (bytes > limit || used_[device] > limit - bytes)) return nullptr;
  // Next fit: freed addresses come back late, so that stale pointers are seen.
  const size_t space = rounded(bytes) + 2 * red_zone;
  Allocations all = *allocations_;
  const auto fits = [&](char* from, char* until) -> char* {
    for (char* at = from;;) {
      const auto next = std::find_if(all.begin(), all.end(), [&](const Allocation& a) { return zone_end(a) > at; });
      char* const free_until = next == all.end() ? until : std::min(until, next->begin - red_zone);
      if (at <= free_until && static_cast<size_t>(free_until - at) >= space) return at;
      if (next == all.end() || zone_end(*next) >= until) return nullptr;
      at = zone_end(*next);
    }
  };
  char* at = fits(next_, base_ + reserved_);
  if (!at) at = fits(base_, base_ + reserved_);
  if (!at) return nullptr;
  next_ = at + space;
  const Allocation allocation{at + red_zone, bytes, device, ready};
  std::memset(at, red_zone_byte, red_zone);
  std::memset(allocation.begin, 0xff, bytes > large ? poisoned_of_large : bytes);
  std::memset(allocation.end(), red_zone_byte, static_cast<size_t>(zone_end(allocation) - allocation.end()));
  all.insert(std::upper_bound(all.begin(), all.end(), allocation, [](const Allocation& a, const Allocation& b) { return a.begin < b.begin; }), allocation);
  publish(std::move(all));
  used_[device] += bytes;
  return allocation.begin;
}

void DeviceMemory::make_ready(void* pointer) {
  std::lock_guard lock(mutex_);
  const Allocation* const found = find(*allocations_, pointer);
  if (!found || found->begin != pointer) return;
  Allocations all = *allocations_;
  all[static_cast<size_t>(found - allocations_->data())].ready = true;
  publish(std::move(all));
}

bool DeviceMemory::release(void* pointer, int device, std::string& damage) {
  std::lock_guard lock(mutex_);
  const Allocation* const found = find(*allocations_, pointer);
  if (!found || found->begin != pointer || found->device != device) return false;
  const Allocation allocation = *found;
  damage = damage_of(allocation);
  Allocations all = *allocations_;
  all.erase(all.begin() + (found - allocations_->data()));
  publish(std::move(all));
  used_[device] -= allocation.bytes;
  // Whole pages go back to the system.
  char* const begin = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(allocation.begin) + page - 1) / page * page);
  char* const end = reinterpret_cast<char*>(reinterpret_cast<uintptr_t>(allocation.end()) / page * page);
  if (begin < end) madvise(begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
  return true;
}

size_t DeviceMemory::used(int device) const {
  std::lock_guard lock(mutex_);
  const auto found = used_.find(device);
  return found == used_.end() ? 0 : found->second;
}

std::shared_ptr<const Allocations> DeviceMemory::allocations() const {
  std::lock_guard lock(mutex_);
  return allocations_;
}

std::string DeviceMemory::damage() const {
  const auto all = allocations();
  for (const Allocation& allocation : *all) {
    if (std::string text = damage_of(allocation); !text.empty()) return text;
  }
  return {};
}

}  // namespace chiasma::sim
