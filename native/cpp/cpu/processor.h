// What the process may use of the machine: instruction sets, cores, memory. The only place that asks the operating system about them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace chiasma::cpu {

// Weakest first. `avx512` asks for F, BW, DQ and VL; `avx512_vnni` adds AVX512_VNNI, `avx512_bf16` AVX512_BF16, `amx` AMX_TILE, AMX_BF16 and
// AMX_INT8 to that.
enum class Isa : uint8_t { portable, avx2, avx512, avx512_vnni, avx512_bf16, amx };
inline constexpr Isa all_isas[] = {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_vnni, Isa::avx512_bf16, Isa::amx};

// What the processor has and the operating system saves on a context switch; for AMX asks Linux to let the process use it.
bool processor_runs(Isa isa);

// Bytes of a core's second-level cache; 1 MiB where that is not known.
int64_t second_cache_bytes();

// What CPUID calls its maker ("GenuineIntel", "AuthenticAMD"); empty on other architectures.
std::string processor_vendor();

// The processor's brand string, or the architecture's name.
std::string processor_name();

// The least of physical cores, CPU affinity and cgroup quota, as far as the system has them; at least 1.
int processor_budget();

struct MemoryInfo {
  uint64_t total = 0;  // bytes the process may use: physical memory or its cgroup's limit
  uint64_t free = 0;   // of these, available now
};
MemoryInfo memory_info();

// The parts of processor_budget, for tests. Paths as in Linux.
// Whole processors of a cgroup v2 `cpu.max` line ("max 100000", "150000 100000"), at least 1; 0 for no limit.
int quota_of_cpu_max(const std::string& text);
// The path of this process in a cgroup hierarchy from /proc/self/cgroup; controller "" is v2. Empty if it is not there.
std::string cgroup_path(const std::string& proc_self_cgroup, const std::string& controller);

// Asks the system to keep [memory, memory + bytes) in pages of huge_page_bytes, where it has them: weights are read through from end to end.
inline constexpr size_t huge_page_bytes = size_t{2} << 20;
void advise_huge_pages(void* memory, size_t bytes) noexcept;

inline void pause_processor() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

}  // namespace chiasma::cpu
