// preprocessImage: lib's image plan to native/cpp/image, on a thread of libuv's pool (as sharp's decoding), a promise back.
// The pixels are pinned, not copied: a decoded photo has tens of megabytes, and copying them would hold up the event loop. A pinned array that
// somebody else detaches and frees would be read after its end, so lib/data passes only arrays that it alone holds (sharp's output, or its own
// copy of a caller's array). The result is an array of lib's, too: one that V8 cannot allocate here would end the process.
#include <napi.h>

#include <algorithm>
#include <optional>

#include "bridge/errors.h"
#include "bridge/read.h"
#include "core/error.h"
#include "image/resize.h"

namespace chiasma::bridge {
namespace {

using core::Error;
using core::ErrorCode;

image::ImagePlan read_image_plan(const Napi::Value& value) {
  const Napi::Object object = read_object(value, "[preprocessImage] plan");
  const auto integer = [&](const char* name) { return read_integer(object.Get(name), std::string("[preprocessImage] ") + name); };
  const auto small = [&](const char* name) { return static_cast<int>(std::clamp<int64_t>(integer(name), -1, 99)); };
  image::ImagePlan plan;
  plan.width = integer("width");
  plan.height = integer("height");
  plan.channels = small("channels");
  plan.cmyk = object.Get("cmyk").ToBoolean();
  plan.orientation = small("orientation");
  plan.resize_width = integer("resizeWidth");
  plan.resize_height = integer("resizeHeight");
  plan.filter = image::parse_filter(read_string(object.Get("filter"), "[preprocessImage] filter"));
  plan.crop_left = integer("cropLeft");
  plan.crop_top = integer("cropTop");
  plan.crop_width = integer("cropWidth");
  plan.crop_height = integer("cropHeight");
  return plan;
}

Napi::Uint8Array read_uint8_array(const Napi::Value& value, const char* name) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    throw Error(ErrorCode::argument, std::string("[preprocessImage] ") + name + " is no Uint8Array");
  }
  return value.As<Napi::Uint8Array>();
}

class PreprocessWorker final : public Napi::AsyncWorker {
 public:
  PreprocessWorker(Napi::Env env, const image::ImagePlan& plan, Napi::Uint8Array pixels, Napi::Uint8Array result)
      : AsyncWorker(env, "chiasma.preprocessImage"),
        deferred_(env),
        plan_(plan),
        pixels_(pixels.Data()),
        rgb_(result.Data()),
        kept_pixels_(Napi::Persistent(pixels)),
        kept_result_(Napi::Persistent(result)) {}

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    try {
      image::preprocess(plan_, pixels_, rgb_);
    } catch (...) {
      error_ = to_core_error(std::current_exception());
      SetError(error_->what());
    }
  }

  void OnOK() override { deferred_.Resolve(Env().Undefined()); }
  void OnError(const Napi::Error&) override { deferred_.Reject(make_error(Env(), *error_)); }

 private:
  Napi::Promise::Deferred deferred_;
  image::ImagePlan plan_;
  const uint8_t* pixels_;
  uint8_t* rgb_;
  Napi::Reference<Napi::Uint8Array> kept_pixels_;
  Napi::Reference<Napi::Uint8Array> kept_result_;
  std::optional<Error> error_;
};

Napi::Value preprocess_image(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  return guarded(env, [&]() -> Napi::Value {
    const image::ImagePlan plan = read_image_plan(info[1]);  // first: it may run code that detaches the arrays, whose length is then 0
    const Napi::Uint8Array pixels = read_uint8_array(info[0], "pixels");
    const Napi::Uint8Array result = read_uint8_array(info[2], "result");
    const size_t bytes = image::check_plan(plan, pixels.ByteLength());
    if (result.ByteLength() != bytes) {
      throw Error(ErrorCode::argument, "[preprocessImage] the result has " + std::to_string(result.ByteLength()) + " bytes; expected " + std::to_string(bytes));
    }
    auto* worker = new PreprocessWorker(env, plan, pixels, result);
    const Napi::Promise promise = worker->promise();
    worker->Queue();
    return promise;
  });
}

}  // namespace

void init_image(Napi::Env env, Napi::Object exports) {
  exports.Set("preprocessImage", Napi::Function::New(env, preprocess_image, "preprocessImage"));
}

}  // namespace chiasma::bridge
