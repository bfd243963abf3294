// The CPU device: host memory, the thread pool, and the kernel table of one instruction set.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "cpu/thread_pool.h"

namespace chiasma::cpu {

// Weakest first. `avx512` asks for F, BW, DQ and VL; `avx512_bf16` adds AVX512_BF16.
enum class Isa : uint8_t { portable, avx2, avx512, avx512_bf16 };
const char* name_of(Isa isa) noexcept;
// What this build has kernels for and this processor and system can run, weakest first.
std::vector<Isa> available_isas();

class CpuStream final : public core::Stream {
 public:
  CpuStream(std::shared_ptr<ThreadPool> pool, int threads) : pool_(std::move(pool)), threads_(threads) {}
  void synchronize() override {}
  int threads() const noexcept { return threads_; }
  // parallel_for with this stream's cap.
  void parallel_for(int64_t tasks, const std::function<void(int64_t, int)>& body) const { pool_->parallel_for(tasks, threads_, body); }

 private:
  std::shared_ptr<ThreadPool> pool_;
  int threads_;
};

// isa: a name to cap the instruction set with, or empty. Throws Error(device) if it is unknown or not available here.
std::unique_ptr<core::Device> open_device(const std::string& isa, int threads);

}  // namespace chiasma::cpu
