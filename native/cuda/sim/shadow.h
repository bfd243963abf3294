// Who accessed each two bytes of a block's shared memory since the last barrier of the whole block, to find races: two accesses by different threads, one of them
// writing, with no barrier that orders them. Barriers of a part of the block (a warp, a named barrier) order by vector clocks, as in FastTrack
// (Flanagan and Freund, 2009), but with two readers and one writer remembered for each place: a race with a third reader may be missed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace chiasma::sim {

enum class AccessKind : uint8_t { read, write, atomic, copy_start, copy_end };

struct Access {
  int thread = -1;
  AccessKind kind = AccessKind::read;
  const void* code = nullptr;  // return address
};

struct Conflict {
  bool found = false;
  bool in_flight = false;  // the earlier access is an asynchronous copy that has not landed
  Access earlier;
};

class Shadow {
 public:
  // Of a new block with that many threads and bytes of shared memory in all.
  void reset(int threads, size_t bytes);
  void grow(size_t bytes) { cells_.resize((bytes + 1) / 2); }

  Conflict access(const Access& access, size_t offset, size_t bytes);

  // Barriers. All threads of the block:
  void start_interval();
  // A part: what `thread` did is handed to `clock`; what `clock` holds is handed to `thread`.
  using Clock = std::vector<uint32_t>;
  void release(int thread, Clock& clock);
  void acquire(int thread, const Clock& clock);

 private:
  struct Slot {
    uint32_t clock = 0;
    int32_t code = 0;  // from an address of this module, which holds the kernels as well: there is a cell for every two bytes
    int16_t thread = -1;
    uint8_t bytes = 0;  // bit 0, bit 1
    AccessKind kind = AccessKind::read;
  };
  struct Cell {
    uint32_t interval = 0;
    int32_t copy_code = 0;
    int16_t copier = -1;  // the thread whose copy is under way
    Slot writer, readers[2];
  };

  uint32_t own_clock(int thread) const { return clocks_active_ ? clocks_[static_cast<size_t>(thread * threads_ + thread)] : 1; }
  bool ordered(const Slot& earlier, int thread) const {
    if (earlier.thread < 0 || earlier.thread == thread) return true;
    return clocks_active_ && clocks_[static_cast<size_t>(thread * threads_ + earlier.thread)] >= earlier.clock;
  }
  void activate_clocks();

  int threads_ = 0;
  uint32_t interval_ = 1;
  bool clocks_active_ = false;
  std::vector<uint32_t> clocks_;  // [thread, thread]: the other's clock that a thread has met
  std::vector<Cell> cells_;
};

}  // namespace chiasma::sim
