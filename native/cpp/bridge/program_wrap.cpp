// NativeProgram. A run copies its inputs before it returns; the submit thread writes the outputs straight into the arrays given for them, or
// into fresh buffers, which nobody else touches before the promise settles. When the environment ends, its hook has waited for that thread
// before they are freed.
#include <cstring>

#include "bridge/environment.h"
#include "bridge/errors.h"
#include "bridge/read.h"
#include "bridge/wraps.h"

namespace chiasma::bridge {

using core::Error;
using core::ErrorCode;

Napi::Function ProgramWrap::define(Napi::Env env) {
  return DefineClass(env, "NativeProgram",
                     {InstanceAccessor<&ProgramWrap::arena_bytes>("arenaBytes"), InstanceMethod<&ProgramWrap::run>("run"),
                      InstanceMethod<&ProgramWrap::dispose>("dispose")});
}

ProgramWrap::ProgramWrap(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  guarded(info.Env(), [&] {
    const auto state = construction_of<State>(info.Env(), "NativeProgram");
    device_ = state->device;
    program_ = state->program;
  });
  arena_bytes_ = program_->program().arena_bytes();
}

ProgramWrap::~ProgramWrap() { release(); }

void ProgramWrap::release() {
  if (!program_) return;
  program_.reset();
  device_->executor->trim();
}

Napi::Value ProgramWrap::arena_bytes(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), static_cast<double>(arena_bytes_)); }

Napi::Value ProgramWrap::dispose(const Napi::CallbackInfo& info) {
  release();
  return info.Env().Undefined();
}

// Where the run writes: fresh buffers, or the arrays `given`. `results` keeps them alive.
static std::vector<void*> prepare_outputs(const core::Program& program, const std::vector<int64_t>& counts, const Napi::Value& given, Napi::Array results) {
  const Napi::Env env = results.Env();
  const auto count = static_cast<uint32_t>(program.output_count());
  std::vector<void*> places(count);
  if (given.IsUndefined()) {
    for (uint32_t i = 0; i < count; ++i) {
      napi_value buffer = nullptr;
      if (napi_create_arraybuffer(env, program.output_bytes(i, counts), &places[i], &buffer) != napi_ok) throw Napi::Error::New(env);
      results.Set(i, Napi::Value(env, buffer));
    }
    return places;
  }
  const Napi::Array arrays = read_array(given, "outputs");
  if (arrays.Length() != count) {
    throw Error(ErrorCode::argument, std::to_string(arrays.Length()) + " outputs given; the program has " + std::to_string(count));
  }
  for (uint32_t i = 0; i < count; ++i) results.Set(i, arrays.Get(i));
  // Only now, when no getter can take memory away any more.
  for (uint32_t i = 0; i < count; ++i) {
    const Bytes bytes = read_bytes(results.Get(i), "outputs[" + std::to_string(i) + "]");
    const size_t expected = program.output_bytes(i, counts);
    if (bytes.size != expected) {
      throw Error(ErrorCode::argument, "outputs[" + std::to_string(i) + "] has " + std::to_string(bytes.size) + " bytes; expected " + std::to_string(expected));
    }
    places[i] = bytes.data;
  }
  return places;
}

Napi::Value ProgramWrap::run(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Environment& environment = Environment::of(env);
  const std::shared_ptr<OpenDevice> device = device_;
  const Napi::Array results = Napi::Array::New(env);
  Napi::Promise promise;
  const uint64_t id = environment.begin(env, &promise, device, results);
  try {
    core::RunRequest request;
    request.program = program_;
    if (!request.program) throw Error(ErrorCode::disposed, "the program was disposed of");
    const core::Program& program = request.program->program();

    request.task = TaskWrap::task_of(info[2]);
    request.counts = read_integers(info[1], "counts");
    program.check_counts(request.counts);

    const Napi::Array inputs = read_array(info[0], "inputs");
    if (inputs.Length() != program.input_count()) {
      throw Error(ErrorCode::argument, std::to_string(inputs.Length()) + " inputs given; the program takes " + std::to_string(program.input_count()));
    }
    size_t staged = 0;
    for (size_t i = 0; i < program.input_count(); ++i) staged += staged_bytes(program.input_bytes(i, request.counts));
    char* staging = environment.stage(id, staged);
    for (uint32_t i = 0; i < program.input_count(); ++i) {  // not what the array says by now: reading it may run the caller's code
      const Bytes bytes = read_bytes(inputs.Get(i), "inputs[" + std::to_string(i) + "]");
      const size_t expected = program.input_bytes(i, request.counts);
      if (bytes.size != expected) {
        throw Error(ErrorCode::argument, "input " + std::to_string(i) + " (" + program.input_name(i) + ") has " + std::to_string(bytes.size) +
                                             " bytes; expected " + std::to_string(expected));
      }
      if (expected > 0) std::memcpy(staging, bytes.data, expected);
      request.inputs.push_back(staging);
      staging += staged_bytes(expected);
    }
    request.outputs = prepare_outputs(program, request.counts, info[3], results);
    request.finished = [id, &environment, mailbox = environment.mailbox()](std::exception_ptr error) {
      mailbox->post([id, error = std::move(error), &environment](napi_env here) {
        if (error) {
          environment.reject(here, id, to_core_error(error));
        } else {
          environment.resolve(here, id, environment.kept(here, id));
        }
      });
    };
    device->executor->run(std::move(request));
  } catch (const Napi::Error&) {
    environment.drop(env, id);
    throw;
  } catch (...) {
    environment.reject(env, id, to_core_error(std::current_exception()));
  }
  return promise;
}

}  // namespace chiasma::bridge
