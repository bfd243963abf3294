// The CPU device: host memory, the thread pool, and the kernel table of one instruction set.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/device.h"
#include "cpu/processor.h"
#include "cpu/thread_pool.h"

namespace chiasma::cpu {

const char* name_of(Isa isa) noexcept;
// What this build has kernels for and this processor and system can run, weakest first.
std::vector<Isa> available_isas();

class CpuStream final : public core::Stream {
 public:
  CpuStream(std::shared_ptr<ThreadPool> pool, int threads) : pool_(std::move(pool)), threads_(threads) {}
  ~CpuStream() override { end(); }
  void begin() override {
    if (!running_) pool_->program_begins();
    running_ = true;
  }
  void synchronize() override {}  // work is done when it is given
  void end() noexcept override {
    if (running_) pool_->program_ends();
    running_ = false;
  }
  int threads() const noexcept { return threads_; }
  // Throws Error(internal) if there are more than a kernel has memory for.
  void check_threads(int most) const;
  // parallel_for with this stream's cap.
  void parallel_for(int64_t tasks, core::FunctionRef<void(int64_t, int)> body) const { pool_->parallel_for(tasks, threads_, body); }

 private:
  std::shared_ptr<ThreadPool> pool_;
  int threads_;
  bool running_ = false;
};

// isa: a name to cap the instruction set with, or empty; the environment variable CHIASMA_ISA caps it too. threads: a cap, 0 for none.
// Throws Error(device) if the name is unknown or this machine cannot run it.
std::unique_ptr<core::Device> open_device(const std::string& isa, int threads);

}  // namespace chiasma::cpu
