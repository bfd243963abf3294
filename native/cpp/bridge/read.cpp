#include "bridge/read.h"

#include <cmath>
#include <iterator>
#include <limits>

#include "core/error.h"

namespace chiasma::bridge {

using core::Error;
using core::ErrorCode;

namespace {

[[noreturn]] void refuse(const std::string& what, const std::string& expected) {
  throw Error(ErrorCode::argument, what + " is not " + expected);
}

bool absent(const Napi::Value& value) { return value.IsUndefined() || value.IsNull(); }

int read_index(const Napi::Value& value, const std::string& what) {
  const int64_t index = read_integer(value, what);
  if (index < std::numeric_limits<int>::min() || index > std::numeric_limits<int>::max()) refuse(what, "an index");
  return static_cast<int>(index);
}

std::vector<int> read_indices(const Napi::Value& value, const std::string& what) {
  const Napi::Array array = read_array(value, what);
  std::vector<int> indices;
  for (uint32_t i = 0; i < array.Length(); ++i) indices.push_back(read_index(array.Get(i), what + "[" + std::to_string(i) + "]"));
  return indices;
}

core::ValueKind read_kind(const Napi::Value& value, const std::string& what) {
  const std::string kind = read_string(value, what);
  if (kind == "input") return core::ValueKind::input;
  if (kind == "weight") return core::ValueKind::weight;
  if (kind == "temporary") return core::ValueKind::temporary;
  if (kind == "output") return core::ValueKind::output;
  refuse(what, "'input', 'weight', 'temporary' or 'output'");
}

core::PlanValue read_value(const Napi::Object& object, const std::string& what) {
  core::PlanValue value;
  value.dtype = core::parse_dtype(read_string(object.Get("dtype"), what + ".dtype"));
  value.shape = read_integers(object.Get("shape"), what + ".shape");
  value.kind = read_kind(object.Get("kind"), what + ".kind");
  if (const Napi::Value name = object.Get("name"); !absent(name)) value.name = read_string(name, what + ".name");
  if (const Napi::Value extent = object.Get("extent"); !absent(extent)) {
    value.extent = read_index(extent, what + ".extent");
    if (value.extent < 0) refuse(what + ".extent", "an index");
    const Napi::Value per = object.Get("per");
    const Napi::Value extra = object.Get("extra");
    value.per = absent(per) ? 1 : read_integer(per, what + ".per");
    value.extra = absent(extra) ? 0 : read_integer(extra, what + ".extra");
  }
  if (const Napi::Value weight = object.Get("weight"); !absent(weight)) value.weight = read_index(weight, what + ".weight");
  if (const Napi::Value given = object.Get("alias"); !absent(given)) {
    const Napi::Object alias = read_object(given, what + ".alias");
    value.alias = core::Alias{read_index(alias.Get("of"), what + ".alias.of"), read_integer(alias.Get("offset"), what + ".alias.offset"),
                              read_integer(alias.Get("rowStride"), what + ".alias.rowStride")};
  }
  return value;
}

core::Attributes read_attributes(const Napi::Value& value, const std::string& what) {
  const Napi::Object object = read_object(value, what);
  const Napi::Array names = object.GetPropertyNames();
  core::Attributes attributes;
  for (uint32_t i = 0; i < names.Length(); ++i) {
    const std::string name = names.Get(i).ToString().Utf8Value();
    const Napi::Value given = object.Get(name);
    const std::string which = what + "." + name;
    if (given.IsNumber()) {
      attributes.set(name, given.As<Napi::Number>().DoubleValue());
    } else if (given.IsBoolean()) {
      attributes.set(name, given.As<Napi::Boolean>().Value());
    } else if (given.IsString()) {
      attributes.set(name, given.As<Napi::String>().Utf8Value());
    } else if (given.IsArray()) {
      const auto array = given.As<Napi::Array>();
      std::vector<double> numbers;
      for (uint32_t k = 0; k < array.Length(); ++k) {
        const Napi::Value number = array.Get(k);
        if (!number.IsNumber()) refuse(which, "a list of numbers");
        numbers.push_back(number.As<Napi::Number>().DoubleValue());
      }
      attributes.set(name, std::move(numbers));
    } else {
      refuse(which, "a number, a string, a boolean or a list of numbers");
    }
  }
  return attributes;
}

core::FileSource read_file_source(const Napi::Object& object, const std::string& what) {
  core::FileSource source;
  source.file = read_string(object.Get("file"), what + ".file");
  source.offset = read_integer(object.Get("offset"), what + ".offset");
  source.dtype = core::parse_dtype(read_string(object.Get("dtype"), what + ".dtype"));
  source.shape = read_integers(object.Get("shape"), what + ".shape");
  if (const Napi::Value strides = object.Get("strides"); !absent(strides)) {
    source.strides = read_integers(strides, what + ".strides");
    if (source.strides.size() != source.shape.size()) refuse(what + ".strides", "a list with one number for each dimension");
  }
  return source;
}

}  // namespace

std::string read_string(const Napi::Value& value, const std::string& what) {
  if (!value.IsString()) refuse(what, "a string");
  return value.As<Napi::String>().Utf8Value();
}

int64_t read_integer(const Napi::Value& value, const std::string& what) {
  if (!value.IsNumber()) refuse(what, "a number");
  const double number = value.As<Napi::Number>().DoubleValue();
  if (!(std::abs(number) <= 9007199254740991.0) || std::trunc(number) != number) refuse(what + " = " + std::to_string(number), "an integer");
  return static_cast<int64_t>(number);
}

Napi::Array read_array(const Napi::Value& value, const std::string& what) {
  if (!value.IsArray()) refuse(what, "an array");
  return value.As<Napi::Array>();
}

Napi::Object read_object(const Napi::Value& value, const std::string& what) {
  if (!value.IsObject()) refuse(what, "an object");
  return value.As<Napi::Object>();
}

std::vector<int64_t> read_integers(const Napi::Value& value, const std::string& what) {
  const Napi::Array array = read_array(value, what);
  std::vector<int64_t> integers;
  for (uint32_t i = 0; i < array.Length(); ++i) integers.push_back(read_integer(array.Get(i), what + "[" + std::to_string(i) + "]"));
  return integers;
}

Bytes read_bytes(const Napi::Value& value, const std::string& what) {
  if (value.IsTypedArray()) {
    // As napi_typedarray_type orders them; the last is Float16Array's, which Napi::TypedArray gives no size.
    constexpr size_t element_bytes[] = {1, 1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 2};
    auto type = static_cast<napi_typedarray_type>(-1);  // a Node that knows the array no better leaves it
    void* data = nullptr;
    size_t length = 0;
    if (napi_get_typedarray_info(value.Env(), value, &type, &length, &data, nullptr, nullptr) != napi_ok) refuse(what, "readable");
    if (static_cast<size_t>(type) >= std::size(element_bytes)) refuse(what, "of a known class of typed arrays");
    return {data, length * element_bytes[static_cast<size_t>(type)]};
  }
  if (value.IsDataView()) {
    void* data = nullptr;
    size_t size = 0;
    if (napi_get_dataview_info(value.Env(), value, &size, &data, nullptr, nullptr) != napi_ok) refuse(what, "readable");
    return {data, size};
  }
  refuse(what, "a typed array or DataView");
}

core::Plan read_plan(const Napi::Value& value) {
  const Napi::Object object = read_object(value, "plan");
  core::Plan plan;
  const Napi::Array extents = read_array(object.Get("extents"), "plan.extents");
  for (uint32_t i = 0; i < extents.Length(); ++i) {
    const std::string what = "plan.extents[" + std::to_string(i) + "]";
    const Napi::Object extent = read_object(extents.Get(i), what);
    plan.extents.push_back({read_string(extent.Get("name"), what + ".name"), read_integer(extent.Get("capacity"), what + ".capacity")});
  }
  const Napi::Array values = read_array(object.Get("values"), "plan.values");
  for (uint32_t i = 0; i < values.Length(); ++i) {
    const std::string what = "plan.values[" + std::to_string(i) + "]";
    plan.values.push_back(read_value(read_object(values.Get(i), what), what));
  }
  const Napi::Array steps = read_array(object.Get("steps"), "plan.steps");
  for (uint32_t i = 0; i < steps.Length(); ++i) {
    const std::string what = "plan.steps[" + std::to_string(i) + "]";
    const Napi::Object step = read_object(steps.Get(i), what);
    plan.steps.push_back({read_string(step.Get("op"), what + ".op"), read_indices(step.Get("inputs"), what + ".inputs"),
                          read_indices(step.Get("outputs"), what + ".outputs"), read_attributes(step.Get("attributes"), what + ".attributes")});
  }
  plan.inputs = read_indices(object.Get("inputs"), "plan.inputs");
  plan.outputs = read_indices(object.Get("outputs"), "plan.outputs");
  return plan;
}

std::vector<core::WeightRequest> read_weights(const Napi::Value& value) {
  const Napi::Array array = read_array(value, "specs");
  std::vector<core::WeightRequest> requests;
  for (uint32_t i = 0; i < array.Length(); ++i) {
    const std::string what = "specs[" + std::to_string(i) + "]";
    const Napi::Object spec = read_object(array.Get(i), what);
    core::WeightRequest request;
    request.shape.name = read_string(spec.Get("name"), what + ".name");
    const std::string role = read_string(spec.Get("role"), what + ".role");
    if (role != "plain" && role != "linear") refuse(what + ".role", "'plain' or 'linear'");
    request.shape.layout = role == "linear" ? core::Layout::linear : core::Layout::plain;
    request.shape.dtype = core::parse_dtype(read_string(spec.Get("dtype"), what + ".dtype"));
    request.shape.shape = read_integers(spec.Get("shape"), what + ".shape");
    const Napi::Object source = read_object(spec.Get("source"), what + ".source");
    if (source.Has("file")) {
      request.source = read_file_source(source, what + ".source");
    } else {
      core::HostSource host;
      host.dtype = core::parse_dtype(read_string(source.Get("dtype"), what + ".source.dtype"));
      const Bytes bytes = read_bytes(source.Get("data"), what + ".source.data");
      const auto* begin = static_cast<const char*>(bytes.data);
      if (source.Get("held").ToBoolean()) host.held = {begin, bytes.size};
      else if (bytes.size > 0) host.data.assign(begin, begin + bytes.size);
      request.source = std::move(host);
    }
    const Napi::Value scale = spec.Get("rowScale");
    if (!scale.IsUndefined()) {
      if (!scale.IsTypedArray() || scale.As<Napi::TypedArray>().TypedArrayType() != napi_float32_array) refuse(what + ".rowScale", "a Float32Array");
      const Bytes bytes = read_bytes(scale, what + ".rowScale");
      const auto* begin = static_cast<const float*>(bytes.data);
      if (bytes.size > 0) request.row_scale.assign(begin, begin + bytes.size / sizeof(float));
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace chiasma::bridge
