// NativeTask: a flag to cancel work with.
#include "bridge/errors.h"
#include "bridge/wraps.h"

namespace chiasma::bridge {

namespace {
constexpr napi_type_tag tag = {0x6b1d1c8e7f2a4d05, 0x9c3b5e7a10f24681};
}

Napi::Function TaskWrap::define(Napi::Env env) { return DefineClass(env, "NativeTask", {InstanceMethod<&TaskWrap::cancel>("cancel")}); }

TaskWrap::TaskWrap(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  guarded(info.Env(), [&] { task_ = construction_of<core::Task>(info.Env(), "NativeTask"); });
  info.This().As<Napi::Object>().TypeTag(&tag);
}

std::shared_ptr<core::Task> TaskWrap::task_of(const Napi::Value& value) {
  if (value.IsUndefined() || value.IsNull()) return nullptr;
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&tag)) {
    throw core::Error(core::ErrorCode::argument, "task is not one that createTask made");
  }
  return Unwrap(value.As<Napi::Object>())->task_;
}

Napi::Value TaskWrap::cancel(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    task_->cancel();
    return info.Env().Undefined();
  });
}

}  // namespace chiasma::bridge
