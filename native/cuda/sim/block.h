// Runs the blocks of one kernel on one core, one block at a time: a fiber for each thread, switched where a thread waits, in an order drawn from a seed.
// Anything wrong ends the block with a report; its fibers are then left as they are.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "cuda/sim/failure.h"
#include "cuda/sim/fiber.h"
#include "cuda/sim/memory.h"
#include "cuda/sim/options.h"
#include "cuda/sim/shadow.h"
#include "cuda/sim/simt.h"

namespace chiasma::sim {

constexpr int max_threads = 1024;
constexpr int warp_lanes = 32;
constexpr size_t most_shared_bytes = 227 * 1024;      // of a block, on any device
constexpr size_t max_static_shared_bytes = 48 * 1024;
constexpr size_t stack_bytes = 128 * 1024;

struct Launch {
  std::string name;
  const void* kernel = nullptr;
  dim3 grid, block;
  size_t shared_bytes = 0;
  std::shared_ptr<const KernelCall> call;
  int device = 0;
};

struct AsyncCopy {
  uint32_t shared;
  const char* global;
  int bytes, source_bytes;
  const void* code;
};

// A warp's meeting: the last lane of the mask to come runs `body` for all of them.
using WarpBody = void (*)(void* const* operands, uint32_t mask);

struct Thread {
  enum class State : uint8_t { ready, waiting, exited };

  Context context;
  const char* stack_begin = nullptr;
  const char* stack_end = nullptr;
  int number = 0, lane = 0, warp = 0;
  Index index{};
  State state = State::ready;
  // While it waits:
  const char* waits_for = nullptr;  // '__syncthreads', ...
  const void* waits_at = nullptr;
  uint32_t mask = 0;  // of a warp's meeting; 0 at a barrier
  int barrier = -1;
  WarpBody body = nullptr;
  void* operands = nullptr;
  std::vector<AsyncCopy> copies;    // not yet landed, oldest first
  std::vector<size_t> group_ends;   // into copies
};

class BlockRunner {
 public:
  explicit BlockRunner(const Options& options);

  void set_options(const Options& options) { options_ = options; }

  // Fills `failure` and returns false if the block went wrong.
  bool run(const Launch& launch, Index block, uint64_t block_number, const Allocations& allocations, Failure& failure);

  // --- For the running thread ---
  static Thread* current();
  static BlockRunner& of_current();
  // Whether a kernel's own code runs, and not the simulator's for it: the linker may have given the simulator a kernel file's copy of an inline function, whose
  // loads and stores are none of the kernel's.
  static bool in_kernel();

  // The way from a kernel into the simulator and back.
  class Entry {
   public:
    Entry();
    ~Entry();
    BlockRunner* operator->() const { return &of_current(); }
  };

  void warp_meet(const char* name, uint32_t mask, void* operands, WarpBody body, const void* code);
  void meet_barrier(const char* name, int id, int threads, bool wait, const void* code);
  void memory_access(const void* address, size_t bytes, AccessKind kind, const void* code);
  void* shared_variable(const void* key, const char* name, size_t bytes, size_t alignment, const void* code);
  void* dynamic_shared() { return shared_begin(); }
  uint32_t shared_offset(const void* pointer, const void* code);
  char* shared_pointer(uint32_t offset) { return shared_begin() + offset; }
  void check_shared(const char* pointer, size_t bytes, AccessKind kind, const void* code);
  void check_global(const void* address, size_t bytes, const char* verb, const void* code);
  void start_copy(uint32_t shared, const void* global, int bytes, int source_bytes, const void* code);
  void commit_copies() { current()->group_ends.push_back(current()->copies.size()); }
  void wait_copies(int pending, const void* code);
  void warp_ordered(uint32_t mask);  // __syncwarp happened among these lanes of the current warp
  [[noreturn]] void fail(cudaError_t error, const std::string& what);
  // ' at ...', with the line.
  static std::string at(const void* code);

  Index block_index{}, block_size{}, grid_size{};

 private:
  struct SharedVariable {
    const void* key;
    const char* name;
    size_t offset, bytes;
  };
  struct Barrier {
    int expected = 0;
    std::vector<Thread*> arrived;  // those that wait, and those that only said so
    std::vector<Thread*> waiting;
    Shadow::Clock clock;
  };

  static void thread_main();
  char* shared_begin() { return shared_begin_; }
  void make_ready(Thread& thread);
  void wait(const char* name, const void* code);
  void go_on();           // to any thread that can run, or back to run()
  void exit_thread();
  Thread* next_thread();
  uint32_t random(uint32_t below);
  std::string deadlock() const;
  std::string thread_list(const std::vector<int>& numbers) const;
  std::string place_in_shared(size_t offset) const;
  void check_exited(const char* name, uint32_t mask, const void* code);

  static constexpr size_t shared_margin = 1024;

  Options options_;
  Stacks stacks_;
  std::vector<Thread> threads_;
  std::vector<char> shared_memory_;
  char* shared_begin_ = nullptr;
  Shadow shadow_;
  Context main_;
  const Launch* launch_ = nullptr;
  const Allocations* allocations_ = nullptr;
  Allocation last_found_{};
  Failure* failure_ = nullptr;
  int thread_count_ = 0, live_ = 0, last_warp_ = 0;
  uint64_t random_state_ = 1;
  std::array<uint32_t, max_threads / warp_lanes> ready_{};    // lanes that can run, by warp
  std::array<uint32_t, max_threads / warp_lanes> meeting_{};  // lanes that wait in a warp's meeting
  std::array<uint32_t, max_threads / warp_lanes> exited_{};
  uint32_t ready_warps_ = 0;
  std::array<Barrier, 16> barriers_;
  std::vector<SharedVariable> variables_;
  size_t shared_end_ = 0;  // bytes in use
};

}  // namespace chiasma::sim
