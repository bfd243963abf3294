// A caller's wish to stop: a flag that runs and loads read, and a word to the queues that hold work of it.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

namespace chiasma::core {

// What holds work that has not begun.
class Stoppable {
 public:
  virtual ~Stoppable() = default;
  // Takes off the work whose task is cancelled.
  virtual void drop_cancelled() = 0;
};

class Task {
 public:
  bool cancelled() const noexcept { return cancelled_.load(std::memory_order_acquire); }

  // Returns when queued work of this task has been taken off.
  void cancel() {
    cancelled_.store(true, std::memory_order_release);
    std::vector<std::weak_ptr<Stoppable>> holders;
    {
      std::lock_guard lock(mutex_);
      holders.swap(holders_);
    }
    for (const auto& holder : holders) {
      if (const auto alive = holder.lock()) alive->drop_cancelled();
    }
  }

  // `holder` has work of this task.
  void held_by(const std::shared_ptr<Stoppable>& holder) {
    std::lock_guard lock(mutex_);
    std::erase_if(holders_, [](const auto& known) { return known.expired(); });
    const bool known = std::any_of(holders_.begin(), holders_.end(), [&](const auto& other) { return other.lock() == holder; });
    if (!known) holders_.push_back(holder);
  }

 private:
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  std::vector<std::weak_ptr<Stoppable>> holders_;
};

}  // namespace chiasma::core
