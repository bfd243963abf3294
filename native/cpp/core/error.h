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
  // file: what the error is about, for a caller that wants it apart from the message; may be empty.
  Error(ErrorCode code, std::string message, std::string file = {}) : code_(code), message_(std::move(message)), file_(std::move(file)) {}
  ErrorCode code() const noexcept { return code_; }
  const char* what() const noexcept override { return message_.c_str(); }
  const std::string& file() const noexcept { return file_; }

 private:
  ErrorCode code_;
  std::string message_;
  std::string file_;
};

}  // namespace chiasma::core
