#include "bridge/errors.h"

#include <new>

namespace chiasma::bridge {

namespace {

napi_value text(napi_env env, const std::string& value) {
  napi_value result = nullptr;
  return napi_create_string_utf8(env, value.data(), value.size(), &result) == napi_ok ? result : nullptr;
}

}  // namespace

napi_value make_error(napi_env env, const core::Error& error) {
  napi_value result = nullptr;
  const napi_value code = text(env, core::code_name(error.code()));
  const napi_value message = text(env, error.what());
  if (!code || !message || napi_create_error(env, code, message, &result) != napi_ok) return nullptr;
  if (!error.file().empty()) {
    if (const napi_value file = text(env, error.file())) napi_set_named_property(env, result, "file", file);
  }
  return result;
}

core::Error to_core_error(std::exception_ptr error) {
  try {
    std::rethrow_exception(std::move(error));
  } catch (const core::Error& known) {
    return known;
  } catch (const std::bad_alloc&) {
    return {core::ErrorCode::out_of_memory, "the host has no memory left"};
  } catch (const std::exception& other) {
    return {core::ErrorCode::internal, other.what()};
  } catch (...) {
    return {core::ErrorCode::internal, "an unknown exception"};
  }
}

}  // namespace chiasma::bridge
