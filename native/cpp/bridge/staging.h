// Host memory for the copies of runs' inputs. Copies are made on the event loop, so that memory is used again and again: fresh memory would
// cost it a page fault every 4 KB, ten times what the copying takes. On the environment's thread only.
#pragma once

#include <cstddef>
#include <list>
#include <memory>

namespace chiasma::bridge {

// The device's copies go to 64-byte aligned places.
constexpr size_t staging_alignment = 64;

constexpr size_t staged_bytes(size_t bytes) { return (bytes + staging_alignment - 1) / staging_alignment * staging_alignment; }

struct StagingDelete {
  void operator()(char* memory) const noexcept;
};

struct Staging {
  std::unique_ptr<char, StagingDelete> memory;
  size_t bytes = 0;
};

class StagingPool {
 public:
  // `bytes` or more. Throws std::bad_alloc.
  Staging take(size_t bytes);
  void give_back(Staging staging) noexcept;
  void clear() noexcept { idle_.clear(); }
  // Of the idle ones.
  size_t bytes() const noexcept;

 private:
  std::list<Staging> idle_;  // the last used first
};

}  // namespace chiasma::bridge
