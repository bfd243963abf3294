// Worker threads that share out the tasks of any number of parallel_for calls. The caller always works on its own call, so a call ends even
// if no worker is free. Workers join the open call with the fewest helpers; while several are open they change after every task.
// Each seat of a call has a share of its tasks, and a worker takes the same seat whenever it can: what a thread wrote in one call it mostly reads in the
// next one, from its own caches, and counts its tasks in them. Who has done its share takes tasks of the largest rest of the others'.
// Between the calls of a running program they spin for a moment, then offer the processor to others for as long as waking them would cost more, and
// sleep otherwise.
#include "cpu/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <bitset>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#include "cpu/processor.h"

namespace chiasma::cpu {

namespace {

using Clock = std::chrono::steady_clock;
constexpr auto spin_time = std::chrono::microseconds(40);
constexpr auto wait_time = std::chrono::milliseconds(2);  // awake, spinning included: threads are held up that long where others want the cores too
constexpr int max_participants = 256;

// Tasks of one seat, in a cache line of their own.
struct alignas(64) Share {
  std::atomic<int64_t> next;
  int64_t end;

  int64_t left() const noexcept { return end - next.load(std::memory_order_relaxed); }
  // The next task, or -1.
  int64_t take() noexcept {
    if (left() <= 0) return -1;
    const int64_t task = next.fetch_add(1, std::memory_order_relaxed);
    return task < end ? task : -1;
  }
};

// One parallel_for. Lives on its caller's stack; written under the pool's mutex, except the shares.
class Call {
 public:
  Call(core::FunctionRef<void(int64_t, int)> body, int64_t tasks, int limit) : body(body), limit(limit) {
    for (int seat = 0; seat < limit; ++seat) new (&share(seat)) Share{seat * tasks / limit, (seat + 1) * tasks / limit};
  }

  const core::FunctionRef<void(int64_t, int)> body;
  const int limit;  // threads that may work on it at once
  std::atomic<int> helpers{0};
  std::bitset<max_participants> seats;  // worker numbers in use; the caller sits at 0
  std::exception_ptr error;
  std::condition_variable done;

  bool open() noexcept { return share(fullest(0)).left() > 0; }
  // A task of the seat's share, else of another's; -1 if none is left.
  int64_t take(int seat) noexcept {
    for (;;) {
      const int64_t task = share(seat).take();
      if (task >= 0) return task;
      seat = fullest(seat);
      if (share(seat).left() <= 0) return -1;
    }
  }
  void drop_tasks() noexcept {
    for (int seat = 0; seat < limit; ++seat) share(seat).next.store(share(seat).end, std::memory_order_relaxed);
  }

 private:
  Share& share(int seat) noexcept { return reinterpret_cast<Share*>(shares_)[seat]; }
  int fullest(int seat) noexcept {
    for (int other = 0; other < limit; ++other) {
      if (share(other).left() > share(seat).left()) seat = other;
    }
    return seat;
  }

  alignas(Share) std::byte shares_[max_participants * sizeof(Share)];  // `limit` of them
};

class Pool final : public ThreadPool {
 public:
  explicit Pool(int threads) : threads_(std::clamp(threads, 1, max_participants)) {
    try {
      for (int i = 1; i < threads_; ++i) workers_.emplace_back([this, i] { work(i); });
    } catch (const std::exception&) {
      // The system gives no more threads: the pool is as large as it got.
      threads_ = static_cast<int>(workers_.size()) + 1;
    }
  }

  ~Pool() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
      wanted_.fetch_add(1);
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }

  int threads() const noexcept override { return threads_; }

  void program_begins() noexcept override { programs_.fetch_add(1, std::memory_order_relaxed); }
  void program_ends() noexcept override { programs_.fetch_sub(1, std::memory_order_relaxed); }

  void parallel_for(int64_t tasks, int max_threads, core::FunctionRef<void(int64_t, int)> body) override {
    if (tasks <= 0) return;
    const int limit = static_cast<int>(std::min<int64_t>({tasks, max_threads, threads_}));
    if (limit <= 1) {
      for (int64_t task = 0; task < tasks; ++task) body(task, 0);
      return;
    }
    Call call(body, tasks, limit);
    call.seats.set(0);
    int sleepers = 0;
    {
      std::lock_guard lock(mutex_);
      calls_.push_back(&call);
      open_calls_.store(static_cast<int>(calls_.size()), std::memory_order_relaxed);
      wanted_.fetch_add(1, std::memory_order_release);
      sleepers = std::min(limit - 1, sleeping_);
    }
    for (int i = 0; i < sleepers; ++i) wake_.notify_one();

    run_tasks(call, 0, false);
    spin_while([&] { return call.helpers.load(std::memory_order_acquire) > 0; });
    std::unique_lock lock(mutex_);
    calls_.erase(std::find(calls_.begin(), calls_.end(), &call));
    open_calls_.store(static_cast<int>(calls_.size()), std::memory_order_relaxed);
    call.done.wait(lock, [&] { return call.helpers == 0; });
    if (call.error) std::rethrow_exception(call.error);
  }

 private:
  template <typename Condition>
  static void spin_while(const Condition& condition) {
    if (!condition()) return;
    const auto begin = Clock::now();
    for (Clock::duration waited{}; condition() && waited < wait_time; waited = Clock::now() - begin) {
      for (int i = 0; i < 32 && condition(); ++i) pause_processor();
      if (waited > spin_time) std::this_thread::yield();
    }
  }

  // Takes tasks until none is left or, for a helper, until another call wants a turn.
  void run_tasks(Call& call, int seat, bool helper) noexcept {
    for (;;) {
      const int64_t task = call.take(seat);
      if (task < 0) return;
      try {
        call.body(task, seat);
      } catch (...) {
        std::lock_guard lock(mutex_);
        if (!call.error) call.error = std::current_exception();
        call.drop_tasks();
      }
      if (helper && open_calls_.load(std::memory_order_relaxed) > 1) return;
    }
  }

  // The open call with a free seat and the fewest helpers; among equals the one after the last served. Holds mutex_.
  Call* choose() {
    Call* best = nullptr;
    const size_t n = calls_.size();
    for (size_t i = 0; i < n; ++i) {
      Call* call = calls_[(turn_ + i) % n];
      if (!call->open() || call->helpers + 1 >= call->limit) continue;
      if (!best || call->helpers < best->helpers) best = call;
    }
    if (n > 0) turn_ = (turn_ + 1) % n;
    return best;
  }

  void work(int own) {
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      Call* call = choose();
      if (!call) {
        wait_for_calls(lock);
        continue;
      }
      int seat = own;
      if (seat >= call->limit || call->seats.test(static_cast<size_t>(seat))) {
        for (seat = 1; call->seats.test(static_cast<size_t>(seat));) ++seat;
      }
      call->seats.set(static_cast<size_t>(seat));
      ++call->helpers;
      lock.unlock();
      run_tasks(*call, seat, true);
      lock.lock();
      call->seats.reset(static_cast<size_t>(seat));
      if (call->helpers.fetch_sub(1, std::memory_order_release) == 1) call->done.notify_one();
    }
  }

  void wait_for_calls(std::unique_lock<std::mutex>& lock) {
    const uint64_t seen = wanted_.load(std::memory_order_relaxed);
    if (programs_.load(std::memory_order_relaxed) > 0) {
      lock.unlock();
      spin_while([&] { return wanted_.load(std::memory_order_acquire) == seen && programs_.load(std::memory_order_relaxed) > 0; });
      lock.lock();
    }
    ++sleeping_;
    wake_.wait(lock, [&] { return stopping_ || wanted_.load(std::memory_order_relaxed) != seen; });
    --sleeping_;
  }

  int threads_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Call*> calls_;           // guarded
  size_t turn_ = 0;                    // guarded
  int sleeping_ = 0;                   // guarded
  bool stopping_ = false;              // guarded
  alignas(64) std::atomic<uint64_t> wanted_{0};  // counts the calls made; changed under the mutex, watched by spinning workers: not in the mutex's cache line
  std::atomic<int> open_calls_{0};
  std::atomic<int> programs_{0};
};

struct Shared {
  std::mutex mutex;
  std::weak_ptr<ThreadPool> pool;
};

}  // namespace

std::shared_ptr<ThreadPool> ThreadPool::shared() {
  // Never destroyed: threads may still hold the pool while the process ends.
  static Shared& shared = *new Shared;
  std::lock_guard lock(shared.mutex);
  auto pool = shared.pool.lock();
  if (!pool) shared.pool = pool = make(available_threads());
  return pool;
}

std::shared_ptr<ThreadPool> ThreadPool::make(int threads) { return std::make_shared<Pool>(threads); }

int ThreadPool::available_threads() { return processor_budget(); }

}  // namespace chiasma::cpu
