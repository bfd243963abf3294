// Instruction sets by CPUID and XGETBV; cores, quota, caches and memory from the operating system: Linux' files, macOS' sysctl, Windows' calls. On
// other systems the answers are the C++ library's, or careful guesses.
#include "cpu/processor.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <mach/mach.h>
#include <sys/sysctl.h>
#elif defined(_WIN32)
#define NOMINMAX
#include <windows.h>
#endif

namespace chiasma::cpu {

namespace {

#if defined(__x86_64__)
struct Registers {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(uint32_t leaf, uint32_t subleaf = 0) {
  Registers r;
  __asm__ __volatile__("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(subleaf));
  return r;
}

uint32_t max_leaf(uint32_t base) { return cpuid(base).eax; }

// XCR0: the register state the system saves. Only where CPUID says OSXSAVE.
uint64_t saved_state() {
  uint32_t low, high;
  __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

constexpr bool bit(uint32_t value, int n) { return (value >> n) & 1; }

// Linux saves the contents of tiles only for processes that ask.
bool tiles_allowed() {
#if defined(__linux__) && defined(SYS_arch_prctl)
  constexpr int request_permission = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
  return false;
#endif
}

struct Features {
  bool avx2 = false, avx512 = false, avx512_vnni = false, avx512_bf16 = false, amx = false;

  Features() {
    if (max_leaf(0) < 7) return;
    const Registers one = cpuid(1);
    const Registers seven = cpuid(7);
    if (!bit(one.ecx, 27)) return;  // OSXSAVE
    const uint64_t state = saved_state();
    const bool ymm = (state & 0x6) == 0x6;    // SSE and AVX
    const bool zmm = (state & 0xe6) == 0xe6;  // and opmask, upper halves, upper registers
    const bool avx = bit(one.ecx, 28), fma = bit(one.ecx, 12), f16c = bit(one.ecx, 29);
    avx2 = ymm && avx && fma && f16c && bit(seven.ebx, 5) && bit(seven.ebx, 8);  // AVX2, BMI2
    avx512 = avx2 && zmm && bit(seven.ebx, 16) && bit(seven.ebx, 17) && bit(seven.ebx, 30) && bit(seven.ebx, 31);  // F DQ BW VL
    avx512_vnni = avx512 && bit(seven.ecx, 11);
    avx512_bf16 = avx512_vnni && seven.eax >= 1 && bit(cpuid(7, 1).eax, 5);
    const bool tiles = (state & 0x60000) == 0x60000;  // their configuration and their contents
    amx = avx512_bf16 && tiles && bit(seven.edx, 22) && bit(seven.edx, 24) && bit(seven.edx, 25) && tiles_allowed();
  }
};
#endif

#if defined(__linux__)
std::string read_text(const std::string& path) {
  std::ifstream file(path);
  if (!file) return {};
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

uint64_t read_number(const std::string& path, uint64_t otherwise) {
  std::istringstream text(read_text(path));
  uint64_t value = 0;
  return text >> value ? value : otherwise;
}

// The processors this process may run on.
std::vector<int> allowed_processors() {
  std::vector<int> allowed;
  for (int size = 1024; size <= (1 << 20); size *= 4) {
    cpu_set_t* set = CPU_ALLOC(size);
    if (!set) break;
    const size_t bytes = CPU_ALLOC_SIZE(size);
    CPU_ZERO_S(bytes, set);
    const bool known = sched_getaffinity(0, bytes, set) == 0;
    if (known) {
      for (int i = 0; i < size; ++i) {
        if (CPU_ISSET_S(static_cast<size_t>(i), bytes, set)) allowed.push_back(i);
      }
    }
    CPU_FREE(set);
    if (known) break;
  }
  return allowed;
}

// Distinct cores among the allowed processors: two hyperthreads of one count once.
int allowed_cores() {
  std::set<std::string> cores;
  for (const int processor : allowed_processors()) {
    const std::string topology = "/sys/devices/system/cpu/cpu" + std::to_string(processor) + "/topology/";
    const std::string siblings = read_text(topology + "thread_siblings_list");
    cores.insert(siblings.empty() ? "processor " + std::to_string(processor) : siblings);
  }
  return static_cast<int>(cores.size());
}

// `path` and its ancestors within `mount`, the innermost first.
std::vector<std::string> and_ancestors(const std::string& mount, std::string path) {
  std::vector<std::string> all;
  while (!path.empty() && path != "/") {
    all.push_back(mount + path);
    path.resize(path.find_last_of('/'));
  }
  all.push_back(mount);
  return all;
}

int cgroup_processors() {
  int least = 0;
  const auto take = [&](int quota) {
    if (quota > 0) least = least ? std::min(least, quota) : quota;
  };
  const std::string groups = read_text("/proc/self/cgroup");
  for (const auto& folder : and_ancestors("/sys/fs/cgroup", cgroup_path(groups, ""))) take(quota_of_cpu_max(read_text(folder + "/cpu.max")));
  for (const char* mount : {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"}) {
    for (const auto& folder : and_ancestors(mount, cgroup_path(groups, "cpu"))) {
      const std::string quota = read_text(folder + "/cpu.cfs_quota_us");
      if (!quota.empty() && quota[0] != '-') take(quota_of_cpu_max(quota + " " + read_text(folder + "/cpu.cfs_period_us")));
    }
  }
  return least;
}

// Bytes the memory cgroup allows and uses; total stays UINT64_MAX without a limit.
MemoryInfo cgroup_memory() {
  MemoryInfo least{UINT64_MAX, UINT64_MAX};
  const auto take = [&](uint64_t limit, uint64_t used) {
    least.total = std::min(least.total, limit);
    least.free = std::min(least.free, limit > used ? limit - used : 0);
  };
  const std::string groups = read_text("/proc/self/cgroup");
  for (const auto& folder : and_ancestors("/sys/fs/cgroup", cgroup_path(groups, ""))) {
    const uint64_t limit = read_number(folder + "/memory.max", UINT64_MAX);
    if (limit != UINT64_MAX) take(limit, read_number(folder + "/memory.current", 0));
  }
  for (const auto& folder : and_ancestors("/sys/fs/cgroup/memory", cgroup_path(groups, "memory"))) {
    const uint64_t limit = read_number(folder + "/memory.limit_in_bytes", UINT64_MAX);
    if (limit < (UINT64_C(1) << 60)) take(limit, read_number(folder + "/memory.usage_in_bytes", 0));
  }
  return least;
}

#elif defined(__APPLE__)
// A number of the system's, or `otherwise`.
int64_t system_number(const char* name, int64_t otherwise) {
  int64_t value = 0;  // of which the system may fill 4 or 8 bytes
  size_t size = sizeof value;
  return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value > 0 ? value : otherwise;
}
#elif defined(_WIN32)
// Calls `see` with each core (RelationProcessorCore) or cache (RelationCache) of the machine.
template <typename See>
void for_each_in_topology(LOGICAL_PROCESSOR_RELATIONSHIP kind, const See& see) {
  DWORD bytes = 0;
  GetLogicalProcessorInformationEx(kind, nullptr, &bytes);
  std::vector<std::max_align_t> memory(bytes / sizeof(std::max_align_t) + 1);
  char* const first = reinterpret_cast<char*>(memory.data());
  if (!GetLogicalProcessorInformationEx(kind, reinterpret_cast<SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX*>(first), &bytes)) return;
  for (DWORD at = 0; at < bytes;) {
    const auto* const entry = reinterpret_cast<const SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX*>(first + at);
    see(*entry);
    at += entry->Size;
  }
}

// Distinct cores among the processors that this process may run on. A process of several processor groups has no one mask: all cores count.
int allowed_cores() {
  DWORD_PTR allowed = 0, all = 0;
  USHORT group = 0, groups = 1;
  if (!GetProcessAffinityMask(GetCurrentProcess(), &allowed, &all) || !GetProcessGroupAffinity(GetCurrentProcess(), &groups, &group)) allowed = 0;
  int cores = 0;
  for_each_in_topology(RelationProcessorCore, [&](const SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX& entry) {
    const GROUP_AFFINITY& on = entry.Processor.GroupMask[0];
    if (allowed == 0 || (on.Group == group && (on.Mask & allowed) != 0)) ++cores;
  });
  return cores;
}
#endif

}  // namespace

bool processor_runs(Isa isa) {
  if (isa == Isa::portable) return true;
#if defined(__x86_64__)
  static const Features features;
  if (isa == Isa::avx2) return features.avx2;
  if (isa == Isa::avx512) return features.avx512;
  if (isa == Isa::avx512_vnni) return features.avx512_vnni;
  if (isa == Isa::avx512_bf16) return features.avx512_bf16;
  return features.amx;
#else
  return false;
#endif
}

int64_t second_cache_bytes() {
  constexpr int64_t unknown = 1 << 20;
#if defined(__linux__)
  // "2048K", of the first processor
  return static_cast<int64_t>(read_number("/sys/devices/system/cpu/cpu0/cache/index2/size", unknown >> 10)) << 10;
#elif defined(__APPLE__)
  return system_number("hw.perflevel0.l2cachesize", system_number("hw.l2cachesize", unknown));
#elif defined(_WIN32)
  int64_t bytes = 0;
  for_each_in_topology(RelationCache, [&](const SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX& entry) {
    if (entry.Cache.Level == 2 && bytes == 0) bytes = entry.Cache.CacheSize;
  });
  return bytes > 0 ? bytes : unknown;
#else
  return unknown;
#endif
}

std::string processor_vendor() {
#if defined(__x86_64__)
  const Registers r = cpuid(0);
  const uint32_t words[] = {r.ebx, r.edx, r.ecx};
  return {reinterpret_cast<const char*>(words), sizeof words};
#else
  return {};
#endif
}

std::string processor_name() {
#if defined(__x86_64__)
  if (max_leaf(0x80000000u) >= 0x80000004u) {
    char brand[49] = {};
    for (uint32_t i = 0; i < 3; ++i) {
      const Registers r = cpuid(0x80000002u + i);
      std::memcpy(brand + 16 * i, &r, 16);
    }
    std::string name(brand);
    const size_t begin = name.find_first_not_of(' ');
    const size_t end = name.find_last_not_of(' ');
    if (begin != std::string::npos) return name.substr(begin, end - begin + 1);
  }
  return "x86-64";
#elif defined(__APPLE__)
  char brand[256] = {};
  size_t size = sizeof brand - 1;
  if (sysctlbyname("machdep.cpu.brand_string", brand, &size, nullptr, 0) == 0) return brand;
  return "unknown";
#elif defined(__aarch64__)
  return "arm64";
#else
  return "unknown";
#endif
}

int quota_of_cpu_max(const std::string& text) {
  std::istringstream fields(text);
  double quota = 0, period = 0;
  if (!(fields >> quota >> period) || quota <= 0 || period <= 0) return 0;
  return std::max(1, static_cast<int>(std::min(quota / period, 1e6)));
}

std::string cgroup_path(const std::string& proc_self_cgroup, const std::string& controller) {
  std::istringstream lines(proc_self_cgroup);
  for (std::string line; std::getline(lines, line);) {  // "4:cpu,cpuacct:/docker/1234", v2 "0::/user.slice"
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::istringstream controllers(line.substr(first + 1, second - first - 1));
    if (controller.empty() && second == first + 1) return line.substr(second + 1);
    for (std::string name; std::getline(controllers, name, ',');) {
      if (!controller.empty() && name == controller) return line.substr(second + 1);
    }
  }
  return {};
}

int processor_budget() {
  int budget = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#if defined(__linux__)
  if (const int cores = allowed_cores(); cores > 0) budget = std::min(budget, cores);
  if (const int quota = cgroup_processors(); quota > 0) budget = std::min(budget, quota);
#elif defined(__APPLE__)
  budget = static_cast<int>(std::min<int64_t>(budget, system_number("hw.physicalcpu", budget)));
#elif defined(_WIN32)
  if (const int cores = allowed_cores(); cores > 0) budget = std::min(budget, cores);
#endif
  return budget;
}

void advise_huge_pages(void* memory, size_t bytes) noexcept {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: a failure changes nothing
#endif
}

MemoryInfo memory_info() {
  MemoryInfo info;
#if defined(__linux__)
  info.total = static_cast<uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  info.free = static_cast<uint64_t>(sysconf(_SC_AVPHYS_PAGES)) * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  std::istringstream lines(read_text("/proc/meminfo"));
  for (std::string line; std::getline(lines, line);) {
    if (line.rfind("MemAvailable:", 0) == 0) info.free = std::stoull(line.substr(13)) * 1024;
  }
  const MemoryInfo group = cgroup_memory();
  info.total = std::min(info.total, group.total);
  info.free = std::min(info.free, group.free);
#elif defined(__APPLE__)
  info.total = static_cast<uint64_t>(system_number("hw.memsize", 0));
  vm_statistics64 pages{};
  mach_msg_type_number_t count = HOST_VM_INFO64_COUNT;
  const mach_port_t host = mach_host_self();
  if (host_statistics64(host, HOST_VM_INFO64, reinterpret_cast<host_info64_t>(&pages), &count) == KERN_SUCCESS) {
    // What holds nothing, and what has not been used for long.
    info.free = (static_cast<uint64_t>(pages.free_count) + pages.inactive_count) * static_cast<uint64_t>(vm_kernel_page_size);
  }
  mach_port_deallocate(mach_task_self(), host);
#elif defined(_WIN32)
  MEMORYSTATUSEX status;
  status.dwLength = sizeof status;
  if (GlobalMemoryStatusEx(&status)) info = {status.ullTotalPhys, status.ullAvailPhys};
#endif
  return info;
}

}  // namespace chiasma::cpu
