// The process's one pool of worker threads. It holds no Node-API value, so environments may share it; it lives while a device does.
#pragma once

#include <cstdint>
#include <memory>

#include "core/function_ref.h"

namespace chiasma::cpu {

class ThreadPool {
 public:
  // The shared pool, made on first use and freed with its last owner.
  static std::shared_ptr<ThreadPool> shared();
  // A pool of its own, for tests.
  static std::shared_ptr<ThreadPool> make(int threads);
  // The least of physical cores, CPU affinity and cgroup quota.
  static int available_threads();

  virtual ~ThreadPool() = default;
  virtual int threads() const noexcept = 0;

  // Between these, workers may spin for a moment when they have nothing to do.
  virtual void program_begins() noexcept = 0;
  virtual void program_ends() noexcept = 0;

  // Calls body(task, worker) for every task in [0, tasks), on at most max_threads threads, the caller's among them, and returns when all
  // have returned. Tasks are taken in any order; worker is in [0, max_threads) and no two run at once with the same one. The first
  // exception is rethrown. Calls from several threads share the workers.
  virtual void parallel_for(int64_t tasks, int max_threads, core::FunctionRef<void(int64_t task, int worker)> body) = 0;
};

}  // namespace chiasma::cpu
