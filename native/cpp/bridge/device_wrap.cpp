// NativeDevice: an opened device and what is made on it.
#include <chrono>

#include "bridge/environment.h"
#include "bridge/errors.h"
#include "bridge/read.h"
#include "bridge/wraps.h"

namespace chiasma::bridge {

using core::Error;
using core::ErrorCode;

namespace {

core::ProgramOptions read_options(const Napi::Value& value) {
  if (value.IsUndefined()) return {};
  return {.guard = read_object(value, "options").Get("guard").ToBoolean()};
}

// Reports of a load on their way to JavaScript: at most one at a time, with the newest numbers, and not more often than can be seen.
struct LoadReport {
  std::mutex mutex;
  uint64_t loaded = 0, total = 0;  // guarded
  bool posted = false;             // guarded
  std::chrono::steady_clock::time_point last{};  // guarded

  // Whether to post one now.
  bool update(uint64_t now_loaded, uint64_t now_total) {
    std::lock_guard lock(mutex);
    loaded = now_loaded;
    total = now_total;
    const auto now = std::chrono::steady_clock::now();
    if (posted || (loaded < total && now - last < std::chrono::milliseconds(50))) return false;
    last = now;
    return posted = true;
  }
  std::pair<uint64_t, uint64_t> take() {
    std::lock_guard lock(mutex);
    posted = false;
    return {loaded, total};
  }
};

void call_progress(napi_env env, napi_value callback, std::pair<uint64_t, uint64_t> numbers) {
  napi_value undefined = nullptr, arguments[2] = {};
  napi_get_undefined(env, &undefined);
  napi_create_double(env, static_cast<double>(numbers.first), &arguments[0]);
  napi_create_double(env, static_cast<double>(numbers.second), &arguments[1]);
  if (napi_call_function(env, undefined, callback, 2, arguments, nullptr) == napi_pending_exception) {
    napi_value error = nullptr;  // thrown by the callback: nobody but 'uncaughtException' can take it
    if (napi_get_and_clear_last_exception(env, &error) == napi_ok) napi_fatal_exception(env, error);
  }
}

}  // namespace

Napi::Function DeviceWrap::define(Napi::Env env) {
  return DefineClass(env, "NativeDevice",
                     {InstanceAccessor<&DeviceWrap::id>("id"), InstanceAccessor<&DeviceWrap::isa>("isa"),
                      InstanceAccessor<&DeviceWrap::bf16>("bf16"), InstanceAccessor<&DeviceWrap::threads>("threads"),
                      InstanceMethod<&DeviceWrap::has_op>("hasOp"), InstanceMethod<&DeviceWrap::load_weights>("loadWeights"),
                      InstanceMethod<&DeviceWrap::create_program>("createProgram"),
                      InstanceMethod<&DeviceWrap::memory_usage>("memoryUsage"), InstanceMethod<&DeviceWrap::dispose>("dispose")});
}

DeviceWrap::DeviceWrap(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  guarded(info.Env(), [&] { device_ = construction_of<OpenDevice>(info.Env(), "NativeDevice"); });
}

Napi::Value DeviceWrap::id(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), device_->executor->device().id()); }
Napi::Value DeviceWrap::isa(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), device_->executor->device().isa()); }
Napi::Value DeviceWrap::bf16(const Napi::CallbackInfo& info) { return Napi::Boolean::New(info.Env(), device_->executor->device().has_bf16()); }
Napi::Value DeviceWrap::threads(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), device_->executor->device().threads()); }

Napi::Value DeviceWrap::has_op(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return Napi::Boolean::New(info.Env(), device_->executor->device().has_kernel(read_string(info[0], "op"))); });
}

Napi::Value DeviceWrap::load_weights(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Environment& environment = Environment::of(env);
  Napi::Promise promise;
  const bool callback = info[2].IsFunction();
  const Napi::Array kept = Napi::Array::New(env);  // the callback, and what sources are held in
  if (callback) kept.Set(0u, info[2]);
  kept.Set(1u, info[0]);
  const uint64_t id = environment.begin(env, &promise, device_, kept);
  try {
    if (!callback && !info[2].IsUndefined() && !info[2].IsNull()) throw Error(ErrorCode::argument, "onProgress is not a function");
    core::LoadRequest request;
    request.task = TaskWrap::task_of(info[1]);
    request.weights = read_weights(info[0]);
    const auto mailbox = environment.mailbox();
    if (callback) {
      request.progress = [id, mailbox, &environment, report = std::make_shared<LoadReport>()](uint64_t loaded, uint64_t total) {
        if (!report->update(loaded, total)) return;
        mailbox->post([id, report, &environment](napi_env here) {
          const auto numbers = report->take();
          const napi_value values = environment.kept(here, id);
          napi_value callee = nullptr;  // not to be had where JavaScript is ending
          if (values && napi_get_element(here, values, 0, &callee) == napi_ok) call_progress(here, callee, numbers);
        });
      };
    }
    request.finished = [id, mailbox, &environment](std::shared_ptr<core::Weights> weights, std::exception_ptr error) {
      mailbox->post([id, weights = std::move(weights), error = std::move(error), &environment](napi_env here) {
        if (error) return environment.reject(here, id, to_core_error(error));
        try {
          environment.resolve(here, id, construct(here, environment.weights_class, weights));
        } catch (const Napi::Error&) {
          environment.drop(here, id);  // JavaScript is ending
        }
      });
    };
    device_->executor->load(std::move(request));
  } catch (const Napi::Error&) {
    environment.drop(env, id);
    throw;
  } catch (...) {
    environment.reject(env, id, to_core_error(std::current_exception()));
  }
  return promise;
}

Napi::Value DeviceWrap::create_program(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    if (!disposal_.IsEmpty()) throw Error(ErrorCode::disposed, "the device was disposed of");
    auto weights = WeightsWrap::weights_of(info[1]);
    auto state = std::make_shared<ProgramWrap::State>();
    state->device = device_;
    state->program = device_->executor->make_program(read_plan(info[0]), std::move(weights), read_options(info[2]));
    return construct(info.Env(), Environment::of(info.Env()).program_class, state);
  });
}

Napi::Value DeviceWrap::memory_usage(const Napi::CallbackInfo& info) {
  const auto number = [&](size_t bytes) { return Napi::Number::New(info.Env(), static_cast<double>(bytes)); };
  const size_t weights = device_->executor->weight_bytes();
  const size_t arena = device_->executor->arena_bytes();
  const Napi::Object usage = Napi::Object::New(info.Env());
  usage.Set("weights", number(weights));
  usage.Set("arena", number(arena));
  usage.Set("total", number(weights + arena));
  return usage;
}

Napi::Value DeviceWrap::dispose(const Napi::CallbackInfo& info) {
  if (!disposal_.IsEmpty()) return disposal_.Value();
  const Napi::Env env = info.Env();
  Environment& environment = Environment::of(env);
  Napi::Promise promise;
  const uint64_t id = environment.begin(env, &promise, device_, nullptr);
  disposal_ = Napi::Reference<Napi::Promise>::New(promise, 1);
  // A copy of the device here could be its last one, and would end its threads on one of them; the pending call holds one meanwhile.
  device_->executor->close([id, device = std::weak_ptr(device_), &environment, mailbox = environment.mailbox()] {
    mailbox->post([id, device, &environment](napi_env here) {
      if (const auto open = device.lock()) open->staging.clear();
      environment.resolve(here, id, nullptr);
    });
  });
  return promise;
}

}  // namespace chiasma::bridge
