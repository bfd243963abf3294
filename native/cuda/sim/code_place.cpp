#include "cuda/sim/code_place.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <link.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

namespace chiasma::sim {

namespace {

std::string hex(uintptr_t value) {
  char text[32];
  std::snprintf(text, sizeof text, "0x%zx", static_cast<size_t>(value));
  return text;
}

std::string base_name(std::string_view path) { return std::string(path.substr(path.rfind('/') + 1)); }

// 'name(arguments)' and template arguments in between, cut to the name: 'f<T>(int)' and 'void n::f<T>(int)' are both 'f'.
std::string short_name(std::string_view function) {
  int depth = 0;
  size_t begin = 0, end = function.size();
  for (size_t i = 0; i < function.size(); ++i) {
    const char c = function[i];
    if (c == '<') {
      if (depth++ == 0) end = i;
    } else if (c == '>') {
      --depth;
    } else if (depth == 0 && c == '(' && function.substr(i, 21) != "(anonymous namespace)") {
      if (end > i) end = i;
      break;
    } else if (depth == 0 && (c == ' ' || c == ':')) {
      begin = i + 1;
      end = function.size();
    }
  }
  return std::string(function.substr(begin, end - begin));
}

// One inlined frame of addr2line's answer.
struct Frame {
  std::string function, file_line;
};

std::vector<Frame> frames_of(const char* module, uintptr_t offset) {
  std::string quoted = "'";
  for (const char* c = module; *c; ++c) quoted += *c == '\'' ? std::string("'\\''") : std::string(1, *c);
  const std::string command = "addr2line -C -f -i -e " + quoted + "' " + hex(offset) + " 2>/dev/null";
  std::vector<Frame> frames;
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(popen(command.c_str(), "r"), pclose);
  if (!pipe) return frames;
  char line[4096];
  bool is_function = true;
  while (std::fgets(line, sizeof line, pipe.get())) {
    std::string_view text(line);
    if (!text.empty() && text.back() == '\n') text.remove_suffix(1);
    if (is_function) {
      frames.push_back({short_name(text), {}});
    } else {
      std::string place = base_name(text.substr(0, text.find(" (")));
      frames.back().file_line = place;
    }
    is_function = !is_function;
  }
  return frames;
}

std::string find_place(const void* return_address) {
  const uintptr_t code = reinterpret_cast<uintptr_t>(return_address) - 1;  // inside the call
  Dl_info info;
  if (!return_address || dladdr(reinterpret_cast<void*>(code), &info) == 0 || !info.dli_fname) return "unknown code";
  const uintptr_t offset = code - reinterpret_cast<uintptr_t>(info.dli_fbase);
  for (const Frame& frame : frames_of(info.dli_fname, offset)) {
    const std::string& place = frame.file_line;
    if (place.empty() || place.find('?') != std::string::npos) continue;
    if (place.starts_with("ptx.cuh:") || place.starts_with("simt.h:") || place.starts_with("number.cuh:") || place.starts_with("warp.cuh:")) continue;
    return frame.function + " at " + place;
  }
  if (info.dli_sname) {
    int status = 0;
    const std::unique_ptr<char, void (*)(void*)> name(abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status), std::free);
    return short_name(name ? name.get() : info.dli_sname) + " + " + hex(code - reinterpret_cast<uintptr_t>(info.dli_saddr));
  }
  return base_name(info.dli_fname) + " + " + hex(offset);
}

}  // namespace

bool is_program_constant(const void* address) {
  const auto visit = [](dl_phdr_info* module, size_t, void* data) {
    const auto wanted = *static_cast<const uintptr_t*>(data);
    for (int i = 0; i < module->dlpi_phnum; ++i) {
      const auto& part = module->dlpi_phdr[i];
      if (part.p_type != PT_LOAD) continue;
      const uintptr_t begin = module->dlpi_addr + part.p_vaddr;
      if (wanted >= begin && wanted < begin + part.p_memsz) return 1;
    }
    return 0;
  };
  uintptr_t wanted = reinterpret_cast<uintptr_t>(address);
  return dl_iterate_phdr(visit, &wanted) != 0;
}

// Asking takes a process of its own, so that answers are kept.
std::string code_place(const void* return_address) {
  static std::mutex mutex;
  static std::map<const void*, std::string> known;
  std::lock_guard lock(mutex);
  const auto found = known.find(return_address);
  if (found != known.end()) return found->second;
  return known[return_address] = find_place(return_address);
}

}  // namespace chiasma::sim
