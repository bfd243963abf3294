// Names of the error codes, as lib/core/errors.ts has them.
#include "core/error.h"

namespace chiasma::core {

const char* code_name(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::argument:
      return "ERR_ARGUMENT";
    case ErrorCode::shape:
      return "ERR_SHAPE";
    case ErrorCode::dtype:
      return "ERR_DTYPE";
    case ErrorCode::unsupported:
      return "ERR_UNSUPPORTED";
    case ErrorCode::checkpoint:
      return "ERR_CHECKPOINT";
    case ErrorCode::image:
      return "ERR_IMAGE";
    case ErrorCode::device:
      return "ERR_DEVICE";
    case ErrorCode::out_of_memory:
      return "ERR_OUT_OF_MEMORY";
    case ErrorCode::aborted:
      return "ERR_ABORTED";
    case ErrorCode::disposed:
      return "ERR_DISPOSED";
    case ErrorCode::internal:
      break;
  }
  return "ERR_INTERNAL";
}

}  // namespace chiasma::core
