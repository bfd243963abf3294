// dlopen, and the check that the library was built with the same interface.
#include "cuda/side_library.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include <map>
#include <mutex>

#include "core/error.h"

namespace chiasma::cuda {

namespace {

// The folder of the shared object (or program) that this code is in.
std::string own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&own_folder), &info) == 0 || !info.dli_fname) return ".";
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

const Library& open(const std::string& path) {
  const auto refuse = [&](const std::string& why) { throw core::Error(core::ErrorCode::device, "the library " + path + " cannot be used: " + why); };
  void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (!handle) {
    const char* const why = dlerror();
    refuse(why ? why : "it cannot be opened");
  }
  const auto entry = reinterpret_cast<LibraryEntry>(dlsym(handle, library_entry));
  if (!entry) refuse(std::string("it has no ") + library_entry);
  const Library& library = *entry();
  if (library.version != library_version) {
    refuse("its interface is version " + std::to_string(library.version) + "; this addon needs version " + std::to_string(library_version) + ", build both again");
  }
  return library;
}

}  // namespace

std::string cuda_library_path() { return own_folder() + "/libchiasma_cuda.so"; }
std::string simulator_path() { return own_folder() + "/../sim/libchiasma_cuda_sim.so"; }

bool is_file(const std::string& path) {
  struct stat status{};
  return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

const Library& load_library(const std::string& path) {
  static std::mutex mutex;
  static std::map<std::string, const Library*> open_libraries;
  std::lock_guard lock(mutex);
  const Library*& library = open_libraries[path];
  if (!library) library = &open(path);
  return *library;
}

}  // namespace chiasma::cuda
