#include "bridge/staging.h"

#include <bit>
#include <new>
#include <utility>

namespace chiasma::bridge {

namespace {

constexpr size_t least_bytes = size_t{64} << 10;
constexpr size_t idle_limit = size_t{32} << 20;  // what the pieces of a few calls at once take

}  // namespace

void StagingDelete::operator()(char* memory) const noexcept { ::operator delete(memory, std::align_val_t(staging_alignment)); }

Staging StagingPool::take(size_t bytes) {
  auto best = idle_.end();
  for (auto at = idle_.begin(); at != idle_.end(); ++at) {
    if (at->bytes >= bytes && (best == idle_.end() || at->bytes < best->bytes)) best = at;
  }
  if (best != idle_.end()) {
    Staging staging = std::move(*best);
    idle_.erase(best);
    return staging;
  }
  const size_t size = bytes <= least_bytes ? least_bytes : bytes <= idle_limit ? std::bit_ceil(bytes) : bytes;
  return {std::unique_ptr<char, StagingDelete>(static_cast<char*>(::operator new(size, std::align_val_t(staging_alignment)))), size};
}

void StagingPool::give_back(Staging staging) noexcept {
  if (!staging.memory || staging.bytes > idle_limit) return;
  try {
    idle_.push_front(std::move(staging));
  } catch (...) {
    return;  // freed instead
  }
  while (bytes() > idle_limit) idle_.pop_back();
}

size_t StagingPool::bytes() const noexcept {
  size_t sum = 0;
  for (const Staging& staging : idle_) sum += staging.bytes;
  return sum;
}

}  // namespace chiasma::bridge
