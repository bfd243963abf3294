// A file read by ranges. Never mapped: a file that shrinks meanwhile is an error, not a signal.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace chiasma::core {

class File {
 public:
  // Throws Error(checkpoint) naming the file.
  explicit File(std::string path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const noexcept { return path_; }
  int64_t size() const;
  // All `bytes`, or Error(checkpoint).
  void read(int64_t offset, void* target, size_t bytes) const;

 private:
  std::string path_;
#ifdef _WIN32
  void* handle_;
#else
  int handle_;
#endif
};

}  // namespace chiasma::core
