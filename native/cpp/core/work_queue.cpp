// The queue's thread, and the ways a job leaves it: done, failed, cancelled before it began, or given up with the queue.
#include "core/work_queue.h"

#include <utility>
#include <vector>

namespace chiasma::core {

WorkQueue::~WorkQueue() { abandon(); }

void WorkQueue::submit(Job job) {
  const std::shared_ptr<Task> task = job.task;
  {
    std::lock_guard lock(mutex_);
    if (closed_) throw Error(ErrorCode::disposed, "the device was disposed of");
    if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
  if (task) {
    task->held_by(shared_from_this());
    if (task->cancelled()) drop_cancelled();
  }
}

void WorkQueue::close() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  wake_.notify_one();
}

void WorkQueue::stop() {
  abandoned_.store(true, std::memory_order_relaxed);
  std::deque<Job> left;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    left.swap(jobs_);
  }
  wake_.notify_one();
  for (auto& job : left) job.finished(std::make_exception_ptr(Error(ErrorCode::disposed, "the device was closed")));
}

void WorkQueue::abandon() {
  stop();
  std::thread thread;
  {
    std::lock_guard lock(mutex_);
    thread.swap(thread_);
  }
  if (thread.joinable()) thread.join();
}

void WorkQueue::drop_cancelled() {
  std::vector<Job> dropped;
  {
    std::lock_guard lock(mutex_);
    std::deque<Job> kept;
    for (auto& job : jobs_) {
      if (job.task && job.task->cancelled()) {
        dropped.push_back(std::move(job));
      } else {
        kept.push_back(std::move(job));
      }
    }
    jobs_.swap(kept);
  }
  for (auto& job : dropped) job.finished(std::make_exception_ptr(Error(ErrorCode::aborted, "the task was cancelled before it began")));
}

void WorkQueue::work() {
  for (;;) {
    Job job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return closed_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    std::exception_ptr error;
    try {
      const Stop stop(job.task.get(), &abandoned_);
      stop.check();
      job.run(stop);
    } catch (...) {
      error = std::current_exception();
    }
    job.run = nullptr;  // lets go of what the job used before its caller hears of the end
    job.finished(std::move(error));
  }
}

}  // namespace chiasma::core
