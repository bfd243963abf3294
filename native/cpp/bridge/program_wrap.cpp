// NativeProgram. A run copies its inputs before it returns; the submit thread writes the outputs straight into fresh array buffers that
// nobody else sees before the promise resolves. When the environment ends, its hook has waited for that thread before they are freed.
#include <cstdlib>
#include <cstring>
#include <new>

#include "bridge/environment.h"
#include "bridge/errors.h"
#include "bridge/read.h"
#include "bridge/wraps.h"

namespace chiasma::bridge {

using core::Error;
using core::ErrorCode;

namespace {

// The copies of a run's inputs, each aligned as the arena is.
class Staging {
 public:
  explicit Staging(size_t bytes) : memory_(static_cast<char*>(std::malloc(bytes > 0 ? bytes : 1))) {
    if (!memory_) throw std::bad_alloc();
  }
  ~Staging() { std::free(memory_); }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  const void* add(const Bytes& bytes) {
    char* at = memory_ + used_;
    if (bytes.size > 0) std::memcpy(at, bytes.data, bytes.size);
    used_ += rounded(bytes.size);
    return at;
  }
  static size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  char* memory_;
  size_t used_ = 0;
};

}  // namespace

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
    for (size_t i = 0; i < program.input_count(); ++i) staged += Staging::rounded(program.input_bytes(i, request.counts));
    const auto staging = std::make_shared<Staging>(staged);
    for (uint32_t i = 0; i < inputs.Length(); ++i) {
      const Bytes bytes = read_bytes(inputs.Get(i), "inputs[" + std::to_string(i) + "]");
      const size_t expected = program.input_bytes(i, request.counts);
      if (bytes.size != expected) {
        throw Error(ErrorCode::argument, "input " + std::to_string(i) + " (" + program.input_name(i) + ") has " + std::to_string(bytes.size) +
                                             " bytes; expected " + std::to_string(expected));
      }
      request.inputs.push_back(staging->add(bytes));
    }
    for (uint32_t i = 0; i < program.output_count(); ++i) {
      void* data = nullptr;
      napi_value buffer = nullptr;
      if (napi_create_arraybuffer(env, program.output_bytes(i, request.counts), &data, &buffer) != napi_ok) throw Napi::Error::New(env);
      results.Set(i, Napi::Value(env, buffer));
      request.outputs.push_back(data);
    }
    request.finished = [id, staging, &environment, mailbox = environment.mailbox()](std::exception_ptr error) {
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
