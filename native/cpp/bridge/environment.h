// What one environment (the main thread or a worker thread) holds: its classes, the work it waits for, and the way back from native threads.
// Nothing here is shared with other environments.
#pragma once

#include <napi.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "bridge/staging.h"
#include "core/executor.h"

namespace chiasma::bridge {

// Brings functions from any thread to the environment's. After close() they are dropped, so that no native thread ever touches an
// environment that is gone.
class Mailbox {
 public:
  using Delivery = std::function<void(napi_env)>;  // must not throw

  explicit Mailbox(Napi::Env env);
  void post(Delivery delivery);
  void close();
  // Whether waiting for deliveries keeps the process alive. On the environment's thread.
  void keep_alive(bool wanted);

 private:
  static void drain(napi_env env, napi_value callback, void* context, void* data);

  // Kept by the thread-safe function until its end.
  struct State {
    std::mutex mutex;
    std::vector<Delivery> deliveries;  // guarded
    bool open = true;                  // guarded
    napi_threadsafe_function function = nullptr;
  };
  napi_env env_;
  std::shared_ptr<State> state_;
};

// Tells the collector of memory it does not see, and takes it back when it ends.
class ExternalMemory {
 public:
  explicit ExternalMemory(napi_env env) : env_(env) {}
  ~ExternalMemory() { set(0); }
  ExternalMemory(const ExternalMemory&) = delete;
  ExternalMemory& operator=(const ExternalMemory&) = delete;
  void set(size_t bytes) {
    const auto change = static_cast<int64_t>(bytes) - known_;
    int64_t sum = 0;
    if (change != 0) napi_adjust_external_memory(env_, change, &sum);
    known_ += change;
  }

 private:
  napi_env env_;
  int64_t known_ = 0;
};

// An opened device, shared by the JavaScript objects that belong to it. On the environment's thread only.
struct OpenDevice {
  OpenDevice(napi_env env, std::shared_ptr<core::Executor> executor) : executor(std::move(executor)), memory(env) {}
  // After a run or a disposal, which may have changed the arena.
  void memory_changed() { memory.set(executor->arena_bytes() + staging.bytes()); }

  std::shared_ptr<core::Executor> executor;
  StagingPool staging;
  ExternalMemory memory;
};

// A promise that native work will settle. It keeps the process alive.
struct Pending {
  napi_deferred deferred = nullptr;
  napi_ref kept = nullptr;             // a JavaScript value kept meanwhile: the result's buffers, or a callback
  std::shared_ptr<OpenDevice> device;  // outlives its work
  Staging staging;                     // a run's copies of its inputs; or they are in
  void* device_staging = nullptr;      // the device's own memory for them
};

class Environment {
 public:
  explicit Environment(Napi::Env env);
  ~Environment();
  static Environment& of(Napi::Env env);

  const std::shared_ptr<Mailbox>& mailbox() const noexcept { return mailbox_; }
  // Its work is stopped when the environment ends.
  void watch(const std::shared_ptr<core::Executor>& executor);

  // Makes a promise and returns its number.
  uint64_t begin(Napi::Env env, Napi::Promise* promise, std::shared_ptr<OpenDevice> device, napi_value kept);
  // Memory for `bytes` of copies, of the promise's device or its pool; theirs again when the promise is settled.
  char* stage(uint64_t id, size_t bytes);
  // The value kept, or null.
  napi_value kept(napi_env env, uint64_t id) const;
  void resolve(napi_env env, uint64_t id, napi_value value);
  void reject(napi_env env, uint64_t id, const core::Error& error);
  // Forgets a promise nobody will see.
  void drop(napi_env env, uint64_t id);

  Napi::FunctionReference device_class, weights_class, program_class, task_class;
  // Only this side makes instances: an argument for the constructor, set while one is being made.
  std::shared_ptr<void> construction;

 private:
  static void end(void* self);
  Pending take(napi_env env, uint64_t id);

  std::shared_ptr<Mailbox> mailbox_;
  std::vector<std::weak_ptr<core::Executor>> executors_;
  std::unordered_map<uint64_t, Pending> pending_;
  uint64_t next_id_ = 1;
};

// A new instance of a class of ours, made from `state`.
Napi::Object construct(Napi::Env env, Napi::FunctionReference& constructor, std::shared_ptr<void> state);

// The state given to `construct`; throws Error(argument) if JavaScript called the constructor.
template <typename State>
std::shared_ptr<State> construction_of(Napi::Env env, const char* name) {
  auto state = std::static_pointer_cast<State>(std::exchange(Environment::of(env).construction, nullptr));
  if (!state) throw core::Error(core::ErrorCode::argument, std::string(name) + " cannot be constructed; the device makes it");
  return state;
}

}  // namespace chiasma::bridge
