// A thread that does jobs one after another: a device's submit thread and its loader. Started by its first job.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "core/error.h"
#include "core/task.h"

namespace chiasma::core {

// Why a job that has begun should stop; asked between steps.
class Stop {
 public:
  Stop() = default;
  Stop(const Task* task, const std::atomic<bool>* closing) : task_(task), closing_(closing) {}
  // Throws Error(aborted | disposed).
  void check() const {
    if (task_ && task_->cancelled()) throw Error(ErrorCode::aborted, "the task was cancelled");
    if (closing_ && closing_->load(std::memory_order_relaxed)) throw Error(ErrorCode::disposed, "the device was closed");
  }

 private:
  const Task* task_ = nullptr;
  const std::atomic<bool>* closing_ = nullptr;
};

struct Job {
  std::shared_ptr<Task> task;                         // may be null
  std::function<void(const Stop&)> run;               // on the queue's thread
  std::function<void(std::exception_ptr)> finished;   // exactly once, null for success; must not throw. On any thread.
};

class WorkQueue final : public Stoppable, public std::enable_shared_from_this<WorkQueue> {
 public:
  static std::shared_ptr<WorkQueue> make() { return std::shared_ptr<WorkQueue>(new WorkQueue); }
  ~WorkQueue() override;

  // Throws Error(disposed) after close; else `finished` will be called, at once if the task is cancelled already.
  void submit(Job job);
  // Accepts no more jobs; those accepted are done.
  void close();
  // Stops the running job between two of its steps and takes off the others with Error(disposed); abandon() also waits for the thread.
  void stop();
  void abandon();
  void drop_cancelled() override;

 private:
  WorkQueue() = default;
  void work();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Job> jobs_;            // guarded
  bool closed_ = false;             // guarded
  std::thread thread_;              // guarded
  std::atomic<bool> abandoned_{false};
};

}  // namespace chiasma::core
