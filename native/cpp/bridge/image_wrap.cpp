// preprocessImage: lib's image plan to native/cpp/image, on a thread of libuv's pool (as sharp's decoding), a promise back.
// The pixels are pinned, not copied: a decoded photo has tens of megabytes, and copying them would hold up the event loop. A pinned array that
// somebody else detaches and frees would be read after its end, so lib/data passes only arrays that it alone holds (sharp's output, or its own
// copy of a caller's array). The result is written straight into the array that the promise resolves with.
#include <napi.h>

#include <cmath>
#include <exception>
#include <new>
#include <string>

#include "core/error.h"
#include "image/resize.h"

namespace chiasma::bridge {
namespace {

using core::Error;
using core::ErrorCode;

int64_t integer_field(const Napi::Object& plan, const char* name) {
  const Napi::Value value = plan.Get(name);
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  if (std::trunc(number) != number || std::abs(number) > 9007199254740991.0) {
    throw Error(ErrorCode::argument, std::string("[preprocessImage] ") + name + " is " + value.ToString().Utf8Value() + "; expected an integer");
  }
  return static_cast<int64_t>(number);
}

image::ImagePlan read_plan(const Napi::Value& value) {
  if (!value.IsObject()) throw Error(ErrorCode::argument, "[preprocessImage] the plan is no object");
  const Napi::Object object = value.As<Napi::Object>();
  image::ImagePlan plan;
  plan.width = integer_field(object, "width");
  plan.height = integer_field(object, "height");
  plan.channels = static_cast<int>(std::clamp<int64_t>(integer_field(object, "channels"), -1, 99));
  plan.orientation = static_cast<int>(std::clamp<int64_t>(integer_field(object, "orientation"), -1, 99));
  plan.resize_width = integer_field(object, "resizeWidth");
  plan.resize_height = integer_field(object, "resizeHeight");
  plan.filter = image::parse_filter(object.Get("filter").ToString().Utf8Value());
  plan.crop_left = integer_field(object, "cropLeft");
  plan.crop_top = integer_field(object, "cropTop");
  plan.crop_width = integer_field(object, "cropWidth");
  plan.crop_height = integer_field(object, "cropHeight");
  return plan;
}

Napi::Value to_javascript(Napi::Env env, ErrorCode code, const std::string& message) {
  const Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", core::code_name(code));
  return error.Value();
}

class PreprocessWorker final : public Napi::AsyncWorker {
 public:
  PreprocessWorker(Napi::Env env, const image::ImagePlan& plan, const Napi::Uint8Array& pixels, size_t result_bytes)
      : AsyncWorker(env, "chiasma.preprocessImage"), deferred_(env), plan_(plan), pixels_(pixels.Data()) {
    const Napi::Uint8Array result = Napi::Uint8Array::New(env, result_bytes);
    rgb_ = result.Data();
    Receiver().Set("pixels", pixels);
    Receiver().Set("result", result);
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      image::preprocess(plan_, pixels_, rgb_);
    } catch (const Error& error) {
      fail(error.code(), error.what());
    } catch (const std::bad_alloc&) {
      fail(ErrorCode::out_of_memory, "[preprocessImage] no memory for the working rows");
    } catch (const std::exception& error) {
      fail(ErrorCode::internal, error.what());
    }
  }

  void OnOK() override { deferred_.Resolve(Receiver().Get("result")); }
  void OnError(const Napi::Error&) override { deferred_.Reject(to_javascript(Env(), code_, message_)); }

 private:
  void fail(ErrorCode code, std::string message) {
    code_ = code;
    message_ = std::move(message);
    SetError(message_);
  }

  Napi::Promise::Deferred deferred_;
  image::ImagePlan plan_;
  const uint8_t* pixels_;
  uint8_t* rgb_;
  ErrorCode code_ = ErrorCode::internal;
  std::string message_;
};

Napi::Value preprocess_image(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  ErrorCode code;
  std::string message;
  try {
    if (!info[0].IsTypedArray() || info[0].As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
      throw Error(ErrorCode::argument, "[preprocessImage] the pixels are no Uint8Array");
    }
    const auto pixels = info[0].As<Napi::Uint8Array>();
    const image::ImagePlan plan = read_plan(info[1]);
    const size_t bytes = image::check_plan(plan, pixels.ByteLength());  // a detached array has length 0
    auto* worker = new PreprocessWorker(env, plan, pixels, bytes);
    const Napi::Promise promise = worker->promise();
    worker->Queue();
    return promise;
  } catch (const Error& error) {
    code = error.code();
    message = error.what();
  }
  const auto deferred = Napi::Promise::Deferred::New(env);
  deferred.Reject(to_javascript(env, code, message));
  return deferred.Promise();
}

}  // namespace

void init_image(Napi::Env env, Napi::Object exports) {
  exports.Set("preprocessImage", Napi::Function::New(env, preprocess_image, "preprocessImage"));
}

}  // namespace chiasma::bridge
