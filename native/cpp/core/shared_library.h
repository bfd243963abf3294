// Shared libraries at run time, by dlopen or LoadLibrary. The only place that asks the system's loader.
#pragma once

#include <string>

namespace chiasma::core {

// A library that is opened once and stays for as long as the process lives: drivers and kernels have threads of their own.
class SharedLibrary {
 public:
  // `name` is UTF-8: an absolute path, or a plain name, which is looked for where the system keeps its libraries.
  explicit SharedLibrary(const std::string& name);

  explicit operator bool() const noexcept { return handle_ != nullptr; }
  // Why it could not be opened, in the system's words; empty if it was.
  const std::string& problem() const noexcept { return problem_; }

  // Null if the library is not open or has no such function.
  template <class Function>
  Function find(const char* name) const {
    return reinterpret_cast<Function>(address_of(name));
  }

 private:
  void* address_of(const char* name) const noexcept;

  void* handle_ = nullptr;
  std::string problem_;
};

// The folder of the library or program that this code is in, UTF-8; "." where the system cannot say.
std::string own_folder();

// Keeps the library that this code is in for as long as the process lives. Node unloads an addon with the last thread that has it, while
// threads of the addon may still run its code.
void stay_loaded() noexcept;

}  // namespace chiasma::core
