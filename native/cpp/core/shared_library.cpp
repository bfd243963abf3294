#include "core/shared_library.h"

#ifdef _WIN32
#define NOMINMAX
#include <windows.h>

#include <filesystem>
#include <system_error>
#else
#include <dlfcn.h>
#endif

namespace chiasma::core {

#ifdef _WIN32

namespace {

// The module that this code is in, which Windows counts once more or keeps, as `flags` say.
HMODULE own_module(DWORD flags) noexcept {
  HMODULE module = nullptr;
  const auto here = reinterpret_cast<LPCWSTR>(&stay_loaded);
  return GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | flags, here, &module) ? module : nullptr;
}

}  // namespace

SharedLibrary::SharedLibrary(const std::string& name) {
  const std::filesystem::path path(std::u8string(name.begin(), name.end()));
  // Never from the current folder, where anybody may have put a library of that name.
  const DWORD places = path.is_absolute() ? LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | LOAD_LIBRARY_SEARCH_SYSTEM32 : LOAD_LIBRARY_SEARCH_SYSTEM32;
  handle_ = LoadLibraryExW(path.c_str(), nullptr, places);
  if (!handle_) problem_ = std::system_category().message(static_cast<int>(GetLastError()));
}

void* SharedLibrary::address_of(const char* name) const noexcept {
  return handle_ ? reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(handle_), name)) : nullptr;
}

std::string own_folder() {
  const HMODULE module = own_module(GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT);
  for (std::wstring path(MAX_PATH, L'\0'); module; path.resize(path.size() * 2)) {
    const DWORD size = GetModuleFileNameW(module, path.data(), static_cast<DWORD>(path.size()));
    if (size == 0) break;
    if (size == path.size()) continue;  // cut off
    path.resize(size);
    const std::u8string folder = std::filesystem::path(path).parent_path().u8string();
    return {folder.begin(), folder.end()};
  }
  return ".";
}

void stay_loaded() noexcept { own_module(GET_MODULE_HANDLE_EX_FLAG_PIN); }

#else

SharedLibrary::SharedLibrary(const std::string& name) : handle_(dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) {
  if (handle_) return;
  const char* const why = dlerror();
  problem_ = why ? why : "the system does not say why";
}

void* SharedLibrary::address_of(const char* name) const noexcept { return handle_ ? dlsym(handle_, name) : nullptr; }

namespace {

const char* own_path() noexcept {
  Dl_info info{};
  return dladdr(reinterpret_cast<const void*>(&stay_loaded), &info) != 0 ? info.dli_fname : nullptr;
}

}  // namespace

std::string own_folder() {
  const std::string path = own_path() ? own_path() : "";
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

void stay_loaded() noexcept {
  // Not closed again: the handle alone would keep it.
  if (const char* const path = own_path()) dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
}

#endif

}  // namespace chiasma::core
