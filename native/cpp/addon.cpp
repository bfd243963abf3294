// The addon's entry: one Environment for each thread that loads it, and the functions of typings/addon.d.ts.
#include <napi.h>

#include "bridge/environment.h"
#include "bridge/errors.h"
#include "bridge/read.h"
#include "bridge/wraps.h"
#include "core/shared_library.h"
#include "cpu/cpu_device.h"
#include "cuda/devices.h"

namespace chiasma::bridge {

void init_image(Napi::Env env, Napi::Object exports);  // image_wrap.cpp

namespace {

Napi::Object describe_cpu(Napi::Env env) {
  const cpu::MemoryInfo memory = cpu::memory_info();
  const Napi::Object sizes = Napi::Object::New(env);
  sizes.Set("total", Napi::Number::New(env, static_cast<double>(memory.total)));
  sizes.Set("free", Napi::Number::New(env, static_cast<double>(memory.free)));
  const Napi::Array isas = Napi::Array::New(env);
  for (const cpu::Isa isa : cpu::available_isas()) isas.Set(isas.Length(), cpu::name_of(isa));
  const Napi::Object device = Napi::Object::New(env);
  device.Set("id", "cpu");
  device.Set("kind", "cpu");
  device.Set("name", cpu::processor_name());
  device.Set("memory", sizes);
  device.Set("isa", isas);
  device.Set("threads", Napi::Number::New(env, cpu::ThreadPool::available_threads()));
  device.Set("available", Napi::Boolean::New(env, true));
  return device;
}

Napi::Object describe_cuda(Napi::Env env, const cuda::DeviceInfo& info) {
  const Napi::Object sizes = Napi::Object::New(env);
  sizes.Set("total", Napi::Number::New(env, static_cast<double>(info.memory)));
  if (info.free) sizes.Set("free", Napi::Number::New(env, static_cast<double>(*info.free)));
  const Napi::Object device = Napi::Object::New(env);
  device.Set("id", info.id);
  device.Set("kind", info.kind);
  device.Set("name", info.name);
  device.Set("memory", sizes);
  if (!info.compute_capability.empty()) device.Set("computeCapability", info.compute_capability);
  device.Set("available", Napi::Boolean::New(env, info.reason.empty()));
  if (!info.reason.empty()) device.Set("reason", info.reason);
  return device;
}

// Starting the driver may take seconds, so that it is asked on another thread.
class ListWorker final : public Napi::AsyncWorker {
 public:
  explicit ListWorker(Napi::Env env) : AsyncWorker(env, "chiasma.listDevices"), deferred_(env) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override { gpus_ = cuda::list_devices(); }
  void OnOK() override {
    const Napi::Array devices = Napi::Array::New(Env());
    devices.Set(0u, describe_cpu(Env()));
    for (const cuda::DeviceInfo& info : gpus_) devices.Set(devices.Length(), describe_cuda(Env(), info));
    deferred_.Resolve(devices);
  }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  std::vector<cuda::DeviceInfo> gpus_;
};

Napi::Value list_devices(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    auto* worker = new ListWorker(info.Env());
    const Napi::Promise promise = worker->promise();
    worker->Queue();
    return promise;
  });
}

Napi::Value open_device(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&] {
    const Napi::Object options = read_object(info[0], "options");
    const std::string id = read_string(options.Get("id"), "options.id");
    const Napi::Value isa = options.Get("isa");
    const Napi::Value threads = options.Get("threads");
    int64_t count = 0;
    if (!threads.IsUndefined()) {
      count = read_integer(threads, "options.threads");
      if (count < 1) throw core::Error(core::ErrorCode::argument, "options.threads is " + std::to_string(count) + "; expected at least 1");
    }
    const std::string wanted_isa = isa.IsUndefined() ? "" : read_string(isa, "options.isa");
    const auto executor = std::make_shared<core::Executor>(
        id == "cpu" ? cpu::open_device(wanted_isa, static_cast<int>(std::min<int64_t>(count, 1 << 20))) : cuda::open_device(id));
    Environment& environment = Environment::of(env);
    environment.watch(executor);
    return construct(env, environment.device_class, std::make_shared<OpenDevice>(env, executor));
  });
}

Napi::Value create_task(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return construct(info.Env(), Environment::of(info.Env()).task_class, std::make_shared<core::Task>()); });
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  core::stay_loaded();
  auto* environment = new Environment(env);
  env.SetInstanceData(environment);
  environment->device_class = Napi::Persistent(DeviceWrap::define(env));
  environment->weights_class = Napi::Persistent(WeightsWrap::define(env));
  environment->program_class = Napi::Persistent(ProgramWrap::define(env));
  environment->task_class = Napi::Persistent(TaskWrap::define(env));
  exports.Set("version", CHIASMA_VERSION);
  exports.Set("listDevices", Napi::Function::New(env, list_devices, "listDevices"));
  exports.Set("openDevice", Napi::Function::New(env, open_device, "openDevice"));
  exports.Set("createTask", Napi::Function::New(env, create_task, "createTask"));
  init_image(env, exports);
  return exports;
}

}  // namespace

}  // namespace chiasma::bridge

static Napi::Object init_addon(Napi::Env env, Napi::Object exports) { return chiasma::bridge::init(env, exports); }

NODE_API_MODULE(chiasma, init_addon)
