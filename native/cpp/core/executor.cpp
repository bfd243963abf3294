#include "core/executor.h"

#include <algorithm>
#include <system_error>
#include <utility>

namespace chiasma::core {

void* Arena::reserve(size_t bytes) {
  if (bytes > this->bytes() || !memory_) {
    clear();
    memory_ = device_->allocate(bytes);
    bytes_.store(bytes, std::memory_order_relaxed);
  }
  return memory_;
}

void Arena::trim() {
  size_t largest = 0;
  {
    std::lock_guard lock(mutex_);
    if (!sizes_.empty()) largest = *sizes_.rbegin();
  }
  if (bytes() > largest) clear();
}

void Arena::enter(size_t bytes) {
  std::lock_guard lock(mutex_);
  sizes_.insert(bytes);
}

void Arena::leave(size_t bytes) {
  std::lock_guard lock(mutex_);
  sizes_.erase(sizes_.find(bytes));
}

void Arena::clear() {
  if (memory_) device_->release(memory_, bytes());
  memory_ = nullptr;
  bytes_.store(0, std::memory_order_relaxed);
}

Executor::Executor(std::unique_ptr<Device> device)
    : device_(std::move(device)),
      stream_(device_->make_stream(device_->threads())),
      arena_(std::make_shared<Arena>(device_)),
      runs_(WorkQueue::make()),
      loads_(WorkQueue::make()) {}

Executor::~Executor() { abandon(); }

std::shared_ptr<ProgramHandle> Executor::make_program(Plan plan, std::shared_ptr<const Weights> weights, ProgramOptions options) {
  return std::make_shared<ProgramHandle>(arena_, std::make_unique<Program>(device_, std::move(plan), std::move(weights), options));
}

void Executor::run(RunRequest request) {
  auto finished = std::move(request.finished);
  auto task = request.task;
  const auto shared = std::make_shared<RunRequest>(std::move(request));
  runs_->submit({std::move(task),
                 [this, shared](const Stop& stop) {
                   Program& program = shared->program->program();
                   void* arena = arena_->reserve(program.arena_bytes());
                   program.run(*stream_, arena, shared->counts, shared->inputs, shared->outputs, stop);
                 },
                 std::move(finished)});
}

void Executor::load(LoadRequest request) {
  const auto shared = std::make_shared<LoadRequest>(std::move(request));
  const auto loaded = std::make_shared<std::shared_ptr<Weights>>();
  loads_->submit({shared->task, [this, shared, loaded](const Stop& stop) { *loaded = load_weights(device_, weight_bytes_, shared->weights, stop, shared->progress); },
                  [shared, loaded](std::exception_ptr error) { shared->finished(std::move(*loaded), std::move(error)); }});
}

void Executor::trim() {
  try {
    runs_->submit({nullptr, [arena = arena_, device = device_](const Stop&) {
                      arena->trim();
                      device->settle();
                    }, [](std::exception_ptr) {}});
  } catch (const std::exception&) {
    // Closed, and the arena goes with the executor; or the system gives no thread, and it stays as it is.
  }
}

void Executor::close(std::function<void()> finished) {
  const auto left = std::make_shared<std::atomic<int>>(2);
  const auto one_done = [left, finished = std::move(finished)](std::exception_ptr) {
    if (left->fetch_sub(1) == 1) finished();
  };
  for (const auto& queue : {loads_, runs_}) {
    const auto last = [arena = queue == runs_ ? arena_ : nullptr, device = device_](const Stop&) {
      if (arena) arena->clear();
      device->settle();
    };
    try {
      queue->submit({nullptr, last, one_done});
    } catch (const Error&) {
      one_done(nullptr);
    } catch (const std::system_error&) {
      // The system gives no thread: the queue had none, so that nothing is under way.
      try {
        last({});
      } catch (...) {
      }
      one_done(nullptr);
    } catch (const std::exception&) {
      one_done(nullptr);  // no memory; the arena goes with the executor
    }
    queue->close();
  }
}

void Executor::stop() {
  loads_->stop();
  runs_->stop();
}

void Executor::abandon() {
  stop();
  loads_->abandon();
  runs_->abandon();
}

}  // namespace chiasma::core
