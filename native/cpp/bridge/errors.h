// core::Error -> a JavaScript error with the same code (and `file`, where one is known).
#pragma once

#include <napi.h>

#include <exception>

#include "core/error.h"

namespace chiasma::bridge {

// Raw Node-API, so that it also serves where JavaScript may be about to end; null if even that fails.
napi_value make_error(napi_env env, const core::Error& error);
// Any exception as a core::Error: memory that ran out as out_of_memory, what is unknown as internal.
core::Error to_core_error(std::exception_ptr error);

// Calls f; throws what it throws as a JavaScript error.
template <typename F>
auto guarded(Napi::Env env, const F& f) -> decltype(f()) {
  try {
    return f();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    const core::Error error = to_core_error(std::current_exception());
    throw Napi::Error(env, make_error(env, error));
  }
}

}  // namespace chiasma::bridge
