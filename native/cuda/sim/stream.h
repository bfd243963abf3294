// Streams that do their work late. A GPU does it while the host goes on; here it is done when the host waits for it, or - drawn from the seed -
// now and then sooner, so that host code that takes a copy for done, or gives memory away too early, is found out.
// An error in the work loses the device: everything asked of it later gives the same error, as a CUDA context's sticky errors do.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/sim/failure.h"

namespace chiasma::sim {

using Work = std::function<Failure()>;

class Stream {
 public:
  explicit Stream(int device) : device_(device) {}
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  int device() const { return device_; }
  void submit(Work work);
  // How much was submitted so far: a position that finish() takes.
  uint64_t submitted() const;
  bool done(uint64_t position) const { return done_ >= position; }
  // Does the work up to a position, unless another thread does; why the device is lost, if it is.
  Failure finish(uint64_t position);
  Failure finish() { return finish(submitted()); }

 private:
  const int device_;
  mutable std::mutex mutex_;
  std::deque<Work> queue_;  // guarded
  uint64_t submitted_ = 0;  // guarded
  std::mutex doing_;        // held by the thread that does the work
  std::atomic<uint64_t> done_{0};
};

// The streams there are, so that one can wait for all of a device's.
std::shared_ptr<Stream> make_stream(int device);
Failure finish_device(int device);

// Why the device is lost; success if it is not.
Failure loss_of(int device);
void lose(int device, const Failure& failure);
// For tests: all devices work again.
void repair_devices();

// One time in `of`, drawn from the seed.
bool now_and_then(uint32_t of);

}  // namespace chiasma::sim
