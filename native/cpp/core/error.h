// The one exception type of the native side. The bridge turns it into a JavaScript error with the same code.
#pragma once

#include <exception>
#include <string>
#include <utility>

namespace chiasma::core {

enum class ErrorCode { argument, shape, dtype, unsupported, checkpoint, image, device, out_of_memory, aborted, disposed, internal };

// The `code` a JavaScript caller sees: ERR_ARGUMENT, ERR_SHAPE, ...
const char* code_name(ErrorCode code) noexcept;

class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}
  ErrorCode code() const noexcept { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  ErrorCode code_;
  std::string message_;
};

}  // namespace chiasma::core
