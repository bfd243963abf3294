// A kernel's blocks, on as many threads as the options say.
#include "cuda/sim/kernel_launch.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

namespace chiasma::sim {

namespace {

// Runners keep their stacks; one is made for each thread that runs blocks at the same time.
class Runners {
 public:
  std::unique_ptr<BlockRunner> take(const Options& options) {
    std::lock_guard lock(mutex_);
    if (idle_.empty()) return std::make_unique<BlockRunner>(options);
    auto runner = std::move(idle_.back());
    idle_.pop_back();
    runner->set_options(options);
    return runner;
  }
  void give(std::unique_ptr<BlockRunner> runner) {
    std::lock_guard lock(mutex_);
    idle_.push_back(std::move(runner));
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<BlockRunner>> idle_;
};

Runners& runners() {
  static Runners all;
  return all;
}

constexpr size_t default_dynamic_shared_limit = 48 * 1024;

std::mutex limits_mutex;
std::map<std::pair<int, const void*>, size_t> dynamic_shared_limits;  // guarded: by device and kernel

size_t dynamic_shared_limit(const Launch& launch) {
  std::lock_guard lock(limits_mutex);
  const auto found = dynamic_shared_limits.find({launch.device, launch.kernel});
  return found == dynamic_shared_limits.end() ? default_dynamic_shared_limit : found->second;
}

}  // namespace

void set_dynamic_shared_limit(int device, const void* kernel, size_t bytes) {
  std::lock_guard lock(limits_mutex);
  dynamic_shared_limits[{device, kernel}] = bytes;
}

Failure check_launch(const Launch& launch) {
  const dim3 grid = launch.grid, block = launch.block;
  const uint64_t threads = uint64_t{block.x} * block.y * block.z;
  std::string wrong;
  if (threads == 0 || threads > max_threads || block.z > 64) wrong = "a block of " + std::to_string(threads) + " threads";
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) wrong = "a grid whose y or z is above 65535";
  const size_t most = std::min(options().shared_bytes, dynamic_shared_limit(launch));
  if (launch.shared_bytes > most) wrong = std::to_string(launch.shared_bytes) + " bytes of shared memory, above " + std::to_string(most);
  if (wrong.empty()) return {};
  return {cudaErrorInvalidConfiguration, "[cuda-sim] kernel " + launch.name + " is launched with " + wrong};
}

Failure run_launch(const Launch& launch) {
  static std::atomic<uint64_t> launches{0};
  // Once more: of a graph's launches the limit may have been lowered meanwhile.
  if (Failure failure = check_launch(launch)) return failure;
  const Options chosen = options();
  if (++launches == chosen.failing_launch) {
    return {cudaErrorIllegalAddress, "[cuda-sim] kernel " + launch.name + ": an illegal address, as CHIASMA_SIM_FAIL asks"};
  }
  const auto allocations = DeviceMemory::instance().allocations();
  const uint64_t blocks = uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  std::atomic<uint64_t> next{0};
  std::atomic<bool> wrong{false};
  Failure first;
  std::mutex first_mutex;
  const auto work = [&] {
    auto runner = runners().take(chosen);
    for (uint64_t number; !wrong && (number = next++) < blocks;) {
      const Index index{static_cast<unsigned>(number % launch.grid.x), static_cast<unsigned>(number / launch.grid.x % launch.grid.y),
                        static_cast<unsigned>(number / (uint64_t{launch.grid.x} * launch.grid.y))};
      Failure failure;
      if (runner->run(launch, index, number, *allocations, failure)) continue;
      wrong = true;
      std::lock_guard lock(first_mutex);
      if (!first) first = std::move(failure);
    }
    runners().give(std::move(runner));
  };
  std::vector<std::thread> others;
  const uint64_t workers = std::min<uint64_t>(blocks, static_cast<uint64_t>(std::max(chosen.workers, 1)));
  for (uint64_t i = 1; i < workers; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  return first;
}

}  // namespace chiasma::sim
