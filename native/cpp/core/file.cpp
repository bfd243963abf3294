#include "core/file.h"

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "core/error.h"

#ifdef _WIN32
#define NOMINMAX
#include <windows.h>

#include <filesystem>
#else
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace chiasma::core {

namespace {

[[noreturn]] void fail(const std::string& path, const char* what, int code) {
  throw Error(ErrorCode::checkpoint, path + ": " + what + ": " + std::system_category().message(code), path);
}

[[noreturn]] void fail_short(const std::string& path, int64_t offset, size_t bytes, size_t got) {
  throw Error(ErrorCode::checkpoint,
              path + ": the file ends early: " + std::to_string(bytes) + " bytes expected at " + std::to_string(offset) + ", " +
                  std::to_string(got) + " are there", path);
}

}  // namespace

#ifdef _WIN32

File::File(std::string path) : path_(std::move(path)) {
  const std::u8string utf8(path_.begin(), path_.end());
  handle_ = CreateFileW(std::filesystem::path(utf8).c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
                        OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
  if (handle_ == INVALID_HANDLE_VALUE) fail(path_, "cannot be opened", static_cast<int>(GetLastError()));
}

File::~File() { CloseHandle(handle_); }

int64_t File::size() const {
  LARGE_INTEGER size;
  if (!GetFileSizeEx(handle_, &size)) fail(path_, "has no size", static_cast<int>(GetLastError()));
  return size.QuadPart;
}

void File::read(int64_t offset, void* target, size_t bytes) const {
  size_t done = 0;
  while (done < bytes) {
    const auto at = static_cast<uint64_t>(offset) + done;
    OVERLAPPED where = {};
    where.Offset = static_cast<DWORD>(at);
    where.OffsetHigh = static_cast<DWORD>(at >> 32);
    DWORD got = 0;
    const auto wanted = static_cast<DWORD>(std::min<size_t>(bytes - done, size_t{1} << 30));
    if (!ReadFile(handle_, static_cast<char*>(target) + done, wanted, &got, &where)) {
      const DWORD code = GetLastError();
      if (code != ERROR_HANDLE_EOF) fail(path_, "cannot be read", static_cast<int>(code));
    }
    if (got == 0) fail_short(path_, offset, bytes, done);
    done += got;
  }
}

#else

File::File(std::string path) : path_(std::move(path)) {
  do {
    handle_ = ::open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  } while (handle_ < 0 && errno == EINTR);
  if (handle_ < 0) fail(path_, "cannot be opened", errno);
}

File::~File() { ::close(handle_); }

int64_t File::size() const {
  struct stat status;
  if (::fstat(handle_, &status) != 0) fail(path_, "has no size", errno);
  if (!S_ISREG(status.st_mode)) throw Error(ErrorCode::checkpoint, path_ + ": not a file", path_);
  return static_cast<int64_t>(status.st_size);
}

void File::read(int64_t offset, void* target, size_t bytes) const {
  size_t done = 0;
  while (done < bytes) {
    const size_t wanted = std::min<size_t>(bytes - done, size_t{1} << 30);
    const ssize_t got = ::pread(handle_, static_cast<char*>(target) + done, wanted, static_cast<off_t>(offset + static_cast<int64_t>(done)));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail(path_, "cannot be read", errno);
    if (got == 0) fail_short(path_, offset, bytes, done);
    done += static_cast<size_t>(got);
  }
}

#endif

}  // namespace chiasma::core
