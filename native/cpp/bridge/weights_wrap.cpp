// NativeWeights: parameters on a device.
#include "bridge/errors.h"
#include "bridge/wraps.h"

namespace chiasma::bridge {

namespace {
constexpr napi_type_tag tag = {0x2f64a0c1b8d94e37, 0x83e15f0a6c7d42b9};
}

Napi::Function WeightsWrap::define(Napi::Env env) {
  return DefineClass(env, "NativeWeights",
                     {InstanceAccessor<&WeightsWrap::bytes>("bytes"), InstanceMethod<&WeightsWrap::dispose>("dispose")});
}

WeightsWrap::WeightsWrap(const Napi::CallbackInfo& info) : ObjectWrap(info), memory_(info.Env()) {
  guarded(info.Env(), [&] { weights_ = construction_of<core::Weights>(info.Env(), "NativeWeights"); });
  bytes_ = weights_->bytes();
  memory_.set(bytes_);
  info.This().As<Napi::Object>().TypeTag(&tag);
}

std::shared_ptr<const core::Weights> WeightsWrap::weights_of(const Napi::Value& value) {
  if (value.IsUndefined() || value.IsNull()) return nullptr;
  if (!value.IsObject() || !value.As<Napi::Object>().CheckTypeTag(&tag)) {
    throw core::Error(core::ErrorCode::argument, "weights are not what loadWeights gave");
  }
  const auto weights = Unwrap(value.As<Napi::Object>())->weights_;
  if (!weights) throw core::Error(core::ErrorCode::disposed, "the weights were disposed of");
  return weights;
}

Napi::Value WeightsWrap::bytes(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), static_cast<double>(bytes_)); }

Napi::Value WeightsWrap::dispose(const Napi::CallbackInfo& info) {
  weights_.reset();
  memory_.set(0);
  return info.Env().Undefined();
}

}  // namespace chiasma::bridge
