// The check that the library was built with the same interface.
#include "cuda/side_library.h"

#include <filesystem>
#include <map>
#include <mutex>

#include "core/error.h"
#include "core/shared_library.h"

namespace chiasma::cuda {

namespace {

const Library& open(const std::string& path) {
  const auto refuse = [&](const std::string& why) { throw core::Error(core::ErrorCode::device, "the library " + path + " cannot be used: " + why); };
  const core::SharedLibrary opened(path);
  if (!opened) refuse(opened.problem());
  const auto entry = opened.find<LibraryEntry>(library_entry);
  if (!entry) refuse(std::string("it has no ") + library_entry);
  const Library& library = *entry();
  if (library.version != library_version) {
    refuse("its interface is version " + std::to_string(library.version) + "; this addon needs version " + std::to_string(library_version) + ", build both again");
  }
  return library;
}

}  // namespace

std::string cuda_library_path() { return core::own_folder() + "/libchiasma_cuda.so"; }
std::string simulator_path() { return core::own_folder() + "/../sim/libchiasma_cuda_sim.so"; }

bool is_file(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(std::u8string(path.begin(), path.end()), ignored);
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
