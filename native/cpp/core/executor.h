// An opened device: its submit thread, its loader, and the one arena its programs share.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "core/device.h"
#include "core/program.h"
#include "core/weight_loader.h"
#include "core/work_queue.h"

namespace chiasma::core {

// As large as the largest program in use asks. Programs run one after another, so that all can have the same memory.
class Arena {
 public:
  explicit Arena(std::shared_ptr<Device> device) : device_(std::move(device)) {}
  ~Arena() { clear(); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // On the submit thread. Throws Error(out_of_memory).
  void* reserve(size_t bytes);
  // On the submit thread: gives memory back that no program in use needs.
  void trim();
  void clear();
  // A program of this size comes into use, and goes out of it. On any thread.
  void enter(size_t bytes);
  void leave(size_t bytes);
  size_t bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }

 private:
  std::shared_ptr<Device> device_;
  void* memory_ = nullptr;
  std::atomic<size_t> bytes_{0};
  std::mutex mutex_;
  std::multiset<size_t> sizes_;  // guarded
};

// A program in use on an executor; the arena is held while it lives.
class ProgramHandle {
 public:
  ProgramHandle(std::shared_ptr<Arena> arena, std::unique_ptr<Program> program) : arena_(std::move(arena)), program_(std::move(program)) {
    arena_->enter(program_->arena_bytes());
  }
  ~ProgramHandle() { arena_->leave(program_->arena_bytes()); }
  ProgramHandle(const ProgramHandle&) = delete;
  ProgramHandle& operator=(const ProgramHandle&) = delete;
  Program& program() const noexcept { return *program_; }

 private:
  std::shared_ptr<Arena> arena_;
  std::unique_ptr<Program> program_;
};

// Memory of the caller must stay until `finished` is called.
struct RunRequest {
  std::shared_ptr<ProgramHandle> program;
  std::vector<int64_t> counts;
  std::vector<const void*> inputs;
  std::vector<void*> outputs;
  std::shared_ptr<Task> task;
  std::function<void(std::exception_ptr)> finished;
};

struct LoadRequest {
  std::vector<WeightRequest> weights;
  std::shared_ptr<Task> task;
  Progress progress;
  std::function<void(std::shared_ptr<Weights>, std::exception_ptr)> finished;
};

class Executor {
 public:
  explicit Executor(std::unique_ptr<Device> device);
  ~Executor();  // abandon()

  Device& device() const noexcept { return *device_; }
  size_t arena_bytes() const noexcept { return arena_->bytes(); }
  size_t weight_bytes() const noexcept { return weight_bytes_->load(std::memory_order_relaxed); }

  std::shared_ptr<ProgramHandle> make_program(Plan plan, std::shared_ptr<const Weights> weights, ProgramOptions options);
  // Both throw Error(disposed) after close; else `finished` is called once, on a thread of the executor or, for cancelled work, the caller's.
  void run(RunRequest request);
  void load(LoadRequest request);
  // After a program was let go: gives back arena memory.
  void trim();

  // Accepts no more work; `finished` is called when what was accepted is done and the arena given back.
  void close(std::function<void()> finished);
  // Stops everything, between two steps where it has begun; abandon() also waits for the threads.
  void stop();
  void abandon();

 private:
  std::shared_ptr<Device> device_;
  std::unique_ptr<Stream> stream_;
  std::shared_ptr<Arena> arena_;
  std::shared_ptr<std::atomic<size_t>> weight_bytes_ = std::make_shared<std::atomic<size_t>>(0);
  std::shared_ptr<WorkQueue> runs_;
  std::shared_ptr<WorkQueue> loads_;
};

}  // namespace chiasma::core
