#include "cuda/sim/options.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <thread>

namespace chiasma::sim {

namespace {

std::mutex mutex;

uint64_t environment(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  if (!text || !*text) return otherwise;
  char* end = nullptr;
  const unsigned long long value = std::strtoull(text, &end, 10);
  return *end ? otherwise : value;
}

Options& shared_options() {
  static Options options = [] {
    Options from;
    from.seed = environment("CHIASMA_SIM_SEED", from.seed);
    from.check_races = environment("CHIASMA_SIM_RACES", 1) != 0;
    from.workers = static_cast<int>(std::clamp<uint64_t>(environment("CHIASMA_SIM_WORKERS", std::thread::hardware_concurrency()), 1, 64));
    from.devices = static_cast<int>(std::clamp<uint64_t>(environment("CHIASMA_SIM_DEVICES", 1), 1, 8));
    from.memory_bytes = environment("CHIASMA_SIM_MEMORY", from.memory_bytes);
    from.shared_bytes = std::min<uint64_t>(environment("CHIASMA_SIM_SHARED", from.shared_bytes), 227 << 10);
    from.failing_launch = environment("CHIASMA_SIM_FAIL", 0);
    return from;
  }();
  return options;
}

}  // namespace

Options options() {
  std::lock_guard lock(mutex);
  return shared_options();
}

void set_options(const Options& options) {
  std::lock_guard lock(mutex);
  shared_options() = options;
}

}  // namespace chiasma::sim
