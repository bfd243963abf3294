// A cudaStream_t and the host memory on its way to and from it. Used by one thread; that thread makes the CUDA stream with its first run.
#pragma once

#include <vector>

#include "cuda/cuda_device.h"

namespace chiasma::cuda {

class CudaStream final : public core::Stream {
 public:
  explicit CudaStream(CudaDevice& device) : device_(device) {}
  ~CudaStream() override;

  StreamHandle handle() const noexcept { return stream_; }
  Fault* fault() const noexcept { return fault_; }

  void begin() override;
  void synchronize() override;
  void end() noexcept override;
  bool can_record() const override { return true; }
  std::unique_ptr<core::Recording> record(const std::function<void()>& work) override;
  void replay(core::Recording& recording) override;

  void upload(void* device, const void* host, size_t bytes);
  void download(void* host, const void* device, size_t bytes);
  // Pinned memory for `bytes` that upload_staged() then copies to `device`.
  void* upload_to(void* device, size_t bytes);
  void upload_staged();

 private:
  struct Download {
    void* host;
    PinnedPool::Block block;
    size_t bytes;
  };

  PinnedPool::Block take(size_t bytes);
  PinnedPool::Block take_for_copy(size_t bytes);  // waits for the copies under way if they hold too much
  void wait(const std::string& what);
  void deliver() noexcept;
  void give_back() noexcept;

  CudaDevice& device_;
  StreamHandle stream_ = nullptr;
  EventHandle reached_ = nullptr;  // recorded where the stream is waited for
  Fault* fault_ = nullptr;         // on the device
  PinnedPool::Block seen_;         // the fault's copy
  std::vector<PinnedPool::Block> uploads_;
  std::vector<Download> downloads_;
  size_t under_way_ = 0;           // bytes of both's blocks
  void* staged_for_ = nullptr;
  size_t staged_bytes_ = 0;
};

}  // namespace chiasma::cuda
