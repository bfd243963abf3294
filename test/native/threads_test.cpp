// The pool, the queue and the executor under many threads; these tests also run under the thread sanitizer.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <future>
#include <mutex>
#include <random>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/executor.h"
#include "cpu/processor.h"
#include "cpu/thread_pool.h"
#include "fake_device.h"
#include "test.h"

namespace {

using namespace chiasma::core;
using namespace std::chrono_literals;
using chiasma::cpu::ThreadPool;
using chiasma::test::FakeDevice;

TEST("threads: parallel_for calls every task once, each worker number held by one thread at a time") {
  const auto pool = ThreadPool::make(4);
  CHECK(pool->threads() == 4);
  for (const int limit : {1, 2, 3, 4, 100}) {
    for (const int64_t tasks : {0, 1, 2, 3, 1000}) {
      std::vector<std::atomic<int>> done(static_cast<size_t>(tasks));
      std::vector<std::atomic<int>> busy(100);
      std::atomic<bool> shared{false};
      pool->parallel_for(tasks, limit, [&](int64_t task, int worker) {
        if (worker < 0 || worker >= limit || busy[static_cast<size_t>(worker)].fetch_add(1) != 0) shared = true;
        ++done[static_cast<size_t>(task)];
        busy[static_cast<size_t>(worker)].fetch_sub(1);
      });
      CHECK(!shared);
      for (const auto& count : done) CHECK(count == 1);
    }
  }
}

TEST("threads: all threads take part") {
  const auto pool = ThreadPool::make(3);
  std::mutex mutex;
  std::condition_variable all_here;
  int here = 0;
  pool->parallel_for(3, 3, [&](int64_t, int) {
    std::unique_lock lock(mutex);
    if (++here == 3) all_here.notify_all();
    CHECK(all_here.wait_for(lock, 30s, [&] { return here == 3; }));
  });
}

TEST("threads: who has done its share takes tasks of the others'") {
  const auto pool = ThreadPool::make(2);
  for (const int64_t slow : {0, 9}) {  // the first task of one thread, the last of the other
    std::mutex mutex;
    std::condition_variable all_others;
    int others = 0;
    pool->parallel_for(10, 2, [&](int64_t task, int) {
      std::unique_lock lock(mutex);
      if (task == slow) {
        CHECK(all_others.wait_for(lock, 30s, [&] { return others == 9; }));
      } else if (++others == 9) {
        all_others.notify_all();
      }
    });
  }
}

TEST("threads: calls from many threads at once, nested ones too, all end") {
  const auto pool = ThreadPool::make(3);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 6; ++c) {
    callers.emplace_back([&, c] {
      if (c % 2) pool->program_begins();
      for (int round = 0; round < 200; ++round) {
        pool->parallel_for(5, 3, [&](int64_t task, int) {
          sum += task;
          if (task == 0 && round % 10 == 0) pool->parallel_for(4, 2, [&](int64_t, int) { ++sum; });
        });
      }
      if (c % 2) pool->program_ends();
    });
  }
  for (auto& caller : callers) caller.join();
  CHECK(sum == 6 * (200 * 10 + 20 * 4));
}

TEST("threads: a second call gets a worker while a long one runs") {
  const auto pool = ThreadPool::make(2);
  std::atomic<bool> stop{false};
  std::thread hog([&] { pool->parallel_for(1 << 20, 2, [&](int64_t, int) { if (!stop) std::this_thread::sleep_for(1ms); }); });
  std::set<int> workers;
  std::mutex mutex;
  for (int i = 0; i < 200 && workers.size() < 2; ++i) {
    pool->parallel_for(4, 2, [&](int64_t, int worker) {
      std::this_thread::sleep_for(2ms);
      std::lock_guard lock(mutex);
      workers.insert(worker);
    });
  }
  stop = true;
  hog.join();
  CHECK(workers.size() == 2);
}

TEST("threads: the first exception comes back, the pool goes on") {
  const auto pool = ThreadPool::make(3);
  for (const int limit : {1, 3}) {
    bool thrown = false;
    try {
      pool->parallel_for(1000, limit, [](int64_t task, int) { if (task >= 3) throw std::runtime_error("task"); });
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    CHECK(thrown);
    std::atomic<int> count{0};
    pool->parallel_for(100, limit, [&](int64_t, int) { ++count; });
    CHECK(count == 100);
  }
}

TEST("threads: the shared pool lives as long as an owner") {
  auto first = ThreadPool::shared();
  CHECK(first == ThreadPool::shared());
  CHECK(first->threads() == ThreadPool::available_threads());
  std::weak_ptr<ThreadPool> seen = first;
  first.reset();
  CHECK(seen.expired());
  CHECK(ThreadPool::shared()->threads() >= 1);
}

TEST("processor: quotas and cgroup paths") {
  using chiasma::cpu::cgroup_path;
  using chiasma::cpu::quota_of_cpu_max;
  CHECK(quota_of_cpu_max("max 100000\n") == 0);
  CHECK(quota_of_cpu_max("") == 0);
  CHECK(quota_of_cpu_max("-1 100000") == 0);
  CHECK(quota_of_cpu_max("50000 100000\n") == 1);
  CHECK(quota_of_cpu_max("250000 100000\n") == 2);
  CHECK(quota_of_cpu_max("400000 100000") == 4);
  const std::string both = "12:cpuset:/a\n4:cpu,cpuacct:/docker/12:34\n1:name=systemd:/b\n0::/user.slice/x\n";
  CHECK(cgroup_path(both, "cpu") == "/docker/12:34");
  CHECK(cgroup_path(both, "memory").empty());
  CHECK(cgroup_path(both, "") == "/user.slice/x");
  CHECK(chiasma::cpu::processor_budget() >= 1);
  CHECK(chiasma::cpu::processor_runs(chiasma::cpu::Isa::portable));
  CHECK(!chiasma::cpu::processor_name().empty());
  const auto memory = chiasma::cpu::memory_info();
  CHECK(memory.total > 0 && memory.free <= memory.total);
}

// A job that waits until it is let go.
class Gate {
 public:
  void open() {
    std::lock_guard lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void pass() {
    std::unique_lock lock(mutex_);
    reached_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] { return open_; });
  }
  void wait_until_reached() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return reached_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool open_ = false, reached_ = false;
};

Job job(std::promise<void>& end, std::function<void(const Stop&)> body, std::shared_ptr<Task> task = nullptr) {
  return {std::move(task), std::move(body), [&end](std::exception_ptr error) {
            if (error) {
              end.set_exception(std::move(error));  // libstdc++ counts its references where the thread sanitizer does not see it
            } else {
              end.set_value();
            }
          }};
}

TEST("threads: a queue does its jobs in order, and drops the cancelled at once") {
  const auto queue = WorkQueue::make();
  Gate gate;
  std::promise<void> first, second, third;
  const auto task = std::make_shared<Task>();
  std::vector<int> order;
  queue->submit(job(first, [&](const Stop&) { gate.pass(); order.push_back(1); }));
  queue->submit(job(second, [&](const Stop&) { order.push_back(2); }, task));
  queue->submit(job(third, [&](const Stop&) { order.push_back(3); }));
  gate.wait_until_reached();
  task->cancel();
  CHECK_THROWS(ErrorCode::aborted, second.get_future().get());  // while the first still runs
  gate.open();
  third.get_future().get();
  CHECK(order == std::vector<int>({1, 3}));
  std::promise<void> late;
  queue->submit(job(late, [&](const Stop&) { order.push_back(4); }, task));
  CHECK_THROWS(ErrorCode::aborted, late.get_future().get());
  CHECK(order.size() == 2);
}

TEST("threads: closing a queue ends what it took, abandoning stops it") {
  const auto queue = WorkQueue::make();
  std::promise<void> first, refused;
  Gate gate;
  queue->submit(job(first, [&](const Stop&) { gate.pass(); }));
  gate.wait_until_reached();
  queue->close();
  CHECK_THROWS(ErrorCode::disposed, queue->submit(job(refused, [](const Stop&) {})));
  gate.open();
  first.get_future().get();

  const auto other = WorkQueue::make();
  std::promise<void> running, waiting;
  std::atomic<bool> reached{false};
  other->submit(job(running, [&](const Stop& stop) {
    reached = true;
    for (;;) {
      stop.check();
      std::this_thread::sleep_for(1ms);
    }
  }));
  other->submit(job(waiting, [](const Stop&) {}));
  while (!reached) std::this_thread::sleep_for(1ms);
  other->abandon();
  CHECK_THROWS(ErrorCode::disposed, running.get_future().get());
  CHECK_THROWS(ErrorCode::disposed, waiting.get_future().get());
}

Plan one_step(int64_t columns) {
  Plan plan;
  PlanValue in, out;
  in.kind = ValueKind::input;
  in.shape = out.shape = {columns};
  out.kind = ValueKind::output;
  plan.values = {in, out};
  plan.steps = {{"copy", {0}, {1}, {}}};
  plan.inputs = {0};
  plan.outputs = {1};
  return plan;
}

std::unique_ptr<FakeDevice> copying_device() {
  auto device = std::make_unique<FakeDevice>();
  device->ops["copy"] = [](const KernelArguments& a) {
    std::memcpy(a.outputs[0].data, a.inputs[0].data, static_cast<size_t>(a.outputs[0].size()) * 4);
  };
  return device;
}

TEST("threads: programs on one executor, submitted from many threads") {
  Executor executor(copying_device());
  std::vector<std::thread> callers;
  std::atomic<int> wrong{0};
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&, c] {
      const int64_t n = 100 * (c + 1);
      const auto program = executor.make_program(one_step(n), nullptr, {});
      for (int round = 0; round < 50; ++round) {
        std::vector<float> in(static_cast<size_t>(n), static_cast<float>(round)), out(static_cast<size_t>(n));
        std::promise<void> end;
        const auto task = std::make_shared<Task>();
        executor.run({program, {}, {in.data()}, {out.data()}, task, [&end](std::exception_ptr error) {
                        if (error) {
                          end.set_exception(std::move(error));  // libstdc++ counts its references where the thread sanitizer does not see it
                        } else {
                          end.set_value();
                        }
                      }});
        if (round % 5 == 0) task->cancel();
        try {
          end.get_future().get();
          if (in != out) ++wrong;
        } catch (const Error& error) {
          if (error.code() != ErrorCode::aborted || round % 5 != 0) ++wrong;
        }
      }
    });
  }
  for (auto& caller : callers) caller.join();
  CHECK(wrong == 0);
}

TEST("threads: the arena is as large as the largest program in use, and is given back") {
  auto made = copying_device();
  FakeDevice& device = *made;
  Executor executor(std::move(made));
  const auto run = [&](const std::shared_ptr<ProgramHandle>& program, size_t n) {
    std::vector<float> in(n), out(n);
    std::promise<void> end;
    executor.run({program, {}, {in.data()}, {out.data()}, nullptr, [&end](std::exception_ptr) { end.set_value(); }});
    end.get_future().get();
  };
  auto small = executor.make_program(one_step(16), nullptr, {});
  auto large = executor.make_program(one_step(1600), nullptr, {});
  CHECK(executor.arena_bytes() == 0);
  run(small, 16);
  CHECK(executor.arena_bytes() == small->program().arena_bytes());
  run(large, 1600);
  CHECK(executor.arena_bytes() == large->program().arena_bytes());
  run(small, 16);
  CHECK(executor.arena_bytes() == large->program().arena_bytes());
  large.reset();
  executor.trim();
  run(small, 16);
  CHECK(executor.arena_bytes() == small->program().arena_bytes());
  std::promise<void> closed;
  executor.close([&] { closed.set_value(); });
  closed.get_future().get();
  CHECK(executor.arena_bytes() == 0 && device.allocated == 0);
  CHECK_THROWS(ErrorCode::disposed, executor.run({small, {}, {}, {}, nullptr, [](std::exception_ptr) {}}));
}

TEST("threads: loading beside running, and letting everything go at once") {
  for (int round = 0; round < 20; ++round) {
    auto made = copying_device();
    std::atomic<int> ended{0};
    std::vector<float> in(64), out(64);
    {
      Executor executor(std::move(made));
      const auto program = executor.make_program(one_step(64), nullptr, {});
      for (int i = 0; i < 10; ++i) {
        executor.run({program, {}, {in.data()}, {out.data()}, nullptr, [&](std::exception_ptr) { ++ended; }});
        HostSource host;
        host.data.resize(400);
        executor.load({{{{"w", Layout::plain, DType::float32, {100}}, host}}, nullptr, nullptr, [&](std::shared_ptr<Weights>, std::exception_ptr) { ++ended; }});
      }
    }
    CHECK(ended == 20);
  }
}

}  // namespace
