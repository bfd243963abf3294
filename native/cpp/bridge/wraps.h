// The classes JavaScript sees (typings/addon.d.ts). Each holds a share of a core object; dispose() lets go of it, and so does the collector.
#pragma once

#include <napi.h>

#include <memory>
#include <string>

#include "bridge/environment.h"
#include "core/executor.h"

namespace chiasma::bridge {

class TaskWrap final : public Napi::ObjectWrap<TaskWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit TaskWrap(const Napi::CallbackInfo& info);
  // The task in `value`: null for undefined or null. Throws Error(argument) for anything else.
  static std::shared_ptr<core::Task> task_of(const Napi::Value& value);

 private:
  Napi::Value cancel(const Napi::CallbackInfo& info);
  std::shared_ptr<core::Task> task_;
};

class WeightsWrap final : public Napi::ObjectWrap<WeightsWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit WeightsWrap(const Napi::CallbackInfo& info);
  // As task_of; Error(disposed) after dispose().
  static std::shared_ptr<const core::Weights> weights_of(const Napi::Value& value);

 private:
  Napi::Value bytes(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  std::shared_ptr<const core::Weights> weights_;
  size_t bytes_;
  ExternalMemory memory_;
};

class ProgramWrap final : public Napi::ObjectWrap<ProgramWrap> {
 public:
  struct State {
    std::shared_ptr<OpenDevice> device;
    std::shared_ptr<core::ProgramHandle> program;
  };
  static Napi::Function define(Napi::Env env);
  explicit ProgramWrap(const Napi::CallbackInfo& info);
  ~ProgramWrap() override;

 private:
  Napi::Value arena_bytes(const Napi::CallbackInfo& info);
  Napi::Value run(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  void release();

  std::shared_ptr<OpenDevice> device_;
  std::shared_ptr<core::ProgramHandle> program_;
  size_t arena_bytes_;
};

class DeviceWrap final : public Napi::ObjectWrap<DeviceWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit DeviceWrap(const Napi::CallbackInfo& info);

 private:
  Napi::Value id(const Napi::CallbackInfo& info);
  Napi::Value isa(const Napi::CallbackInfo& info);
  Napi::Value bf16(const Napi::CallbackInfo& info);
  Napi::Value threads(const Napi::CallbackInfo& info);
  Napi::Value has_op(const Napi::CallbackInfo& info);
  Napi::Value load_weights(const Napi::CallbackInfo& info);
  Napi::Value create_program(const Napi::CallbackInfo& info);
  Napi::Value memory_usage(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  std::shared_ptr<OpenDevice> device_;
  Napi::Reference<Napi::Promise> disposal_;
};

}  // namespace chiasma::bridge
