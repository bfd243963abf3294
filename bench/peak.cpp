// What the processor can do at most, with all its cores: multiply-adds of each kind from registers or tiles, and reading memory. JSON on stdout.
//   cmake -S . -B build/native -DCHIASMA_ADDON=OFF -DCHIASMA_BENCH=ON && cmake --build build/native --target chiasma_bench_peak && build/native/chiasma_bench_peak
// Rates are G operations a second (a multiply-add is two) and GB/s; each is the best of many short runs, for other processes disturb.
// Kinds: f32, bf16 and int8 with vectors; bf16_amx and int8_amx with tiles. Only x86-64 is measured; elsewhere just the memory is.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <string>
#include <thread>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define CHIASMA_BENCH_X86 1
#endif
#ifdef __linux__
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int cores() {
#ifdef __linux__
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
#endif
  return static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
}

// What `threads` threads do together that each call `work`, which gives the operations it did: from the first one's beginning to the last one's end, as
// threads that do not meet would each have all of the memory's rate.
double rate_of(const std::function<double(int)>& work, int threads, int repeats = 100) {
  double best = 0;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    struct Run {
      double operations, begin, end;
    };
    std::vector<std::thread> workers;
    std::vector<Run> runs(static_cast<size_t>(threads));
    std::atomic<int> ready{0};
    for (int t = 0; t < threads; ++t) {
      workers.emplace_back([&, t] {
        for (++ready; ready < threads;) std::this_thread::yield();
        const double begin = seconds();
        const double operations = work(t);
        runs[static_cast<size_t>(t)] = {operations, begin, seconds()};
      });
    }
    for (auto& worker : workers) worker.join();
    double operations = 0, begin = runs[0].begin, end = runs[0].end;
    for (const Run& run : runs) {
      operations += run.operations;
      begin = std::min(begin, run.begin);
      end = std::max(end, run.end);
    }
    best = std::max(best, operations / (end - begin) / 1e9);
  }
  return best;
}

#ifdef CHIASMA_BENCH_X86
// Independent chains hide the latency: 20 of 512 bits, 12 of 256, as AVX2 has 16 registers. The empty asm keeps the chains apart.
constexpr int loops = 100'000;

__attribute__((target("avx512f"))) double f32_512(int) {
  __m512 sums[20];
  for (auto& sum : sums) sum = _mm512_set1_ps(1);
  const __m512 factor = _mm512_set1_ps(0.5f);
  for (int i = 0; i < loops; ++i) {
#pragma GCC unroll 20
    for (auto& sum : sums) {
      sum = _mm512_fmadd_ps(sum, factor, factor);
      asm volatile("" : "+v"(sum));
    }
  }
  return 20.0 * 32 * loops;
}

__attribute__((target("avx2,fma"))) double f32_256(int) {
  __m256 sums[12];
  for (auto& sum : sums) sum = _mm256_set1_ps(1);
  const __m256 factor = _mm256_set1_ps(0.5f);
  for (int i = 0; i < loops; ++i) {
#pragma GCC unroll 12
    for (auto& sum : sums) {
      sum = _mm256_fmadd_ps(sum, factor, factor);
      asm volatile("" : "+x"(sum));
    }
  }
  return 12.0 * 16 * loops;
}

// Pairs of int16, by which int8 is multiplied where there is no instruction for bytes.
__attribute__((target("avx2"))) double int8_256(int) {
  __m256i sums[12];
#pragma GCC unroll 12
  for (auto& sum : sums) sum = _mm256_set1_epi16(1);
  const __m256i factor = _mm256_set1_epi16(1);
  for (int i = 0; i < loops; ++i) {
#pragma GCC unroll 12
    for (auto& sum : sums) {
      sum = _mm256_add_epi32(factor, _mm256_madd_epi16(sum, factor));
      asm volatile("" : "+x"(sum));
    }
  }
  return 12.0 * 32 * loops;
}

__attribute__((target("avx512f,avx512bf16"))) double bf16_512(int) {
  __m512 sums[20];
  for (auto& sum : sums) sum = _mm512_set1_ps(1);
  const __m512bh factor = (__m512bh)_mm512_set1_epi32(0x3f003f00);
  for (int i = 0; i < loops; ++i) {
#pragma GCC unroll 20
    for (auto& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, factor, factor);
      asm volatile("" : "+v"(sum));
    }
  }
  return 20.0 * 64 * loops;
}

// Written out: the compiler would keep these sums in memory.
__attribute__((target("avx512f,avx512vnni"))) double int8_512(int) {
  for (int i = 0; i < loops; ++i) {
    asm volatile(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19\n\tvpdpbusd %%zmm20, %%zmm20, %%zmm\\n\n\t.endr" ::
                     : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
                       "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20");
  }
  return 20.0 * 128 * loops;
}

#if defined(__linux__) && (__GNUC__ >= 11 || defined(__clang__))
#define CHIASMA_BENCH_AMX 1
constexpr int tile_loops = 10'000;

struct TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Six chains of tiles that are 16 rows of 64 bytes.
__attribute__((target("amx-tile"))) void load_tiles() {
  alignas(64) TileConfig config;
  for (int i = 0; i < 8; ++i) config.row_bytes[i] = 64, config.rows[i] = 16;
  asm volatile("" ::"r"(&config) : "memory");  // compilers take only the first bytes as read
  _tile_loadconfig(&config);
  _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); _tile_zero(4); _tile_zero(5); _tile_zero(6); _tile_zero(7);
}

__attribute__((target("amx-tile,amx-bf16"))) double bf16_tiles(int) {
  load_tiles();
  for (int i = 0; i < tile_loops; ++i) {
    _tile_dpbf16ps(0, 6, 7); _tile_dpbf16ps(1, 6, 7); _tile_dpbf16ps(2, 6, 7);
    _tile_dpbf16ps(3, 6, 7); _tile_dpbf16ps(4, 6, 7); _tile_dpbf16ps(5, 6, 7);
  }
  _tile_release();
  return 6.0 * 2 * 16 * 16 * 32 * tile_loops;
}

__attribute__((target("amx-tile,amx-int8"))) double int8_tiles(int) {
  load_tiles();
  for (int i = 0; i < tile_loops; ++i) {
    _tile_dpbssd(0, 6, 7); _tile_dpbssd(1, 6, 7); _tile_dpbssd(2, 6, 7);
    _tile_dpbssd(3, 6, 7); _tile_dpbssd(4, 6, 7); _tile_dpbssd(5, 6, 7);
  }
  _tile_release();
  return 6.0 * 2 * 16 * 16 * 64 * tile_loops;
}

// CPUID 7, EDX: 24 AMX-TILE, 22 AMX-BF16, 25 AMX-INT8; the kernel grants the use of tiles on request.
bool has_tiles(int bit) {
  unsigned a = 7, b, c = 0, d;
  asm("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
  constexpr int request_permission = 0x1023, tile_data = 18;
  return (d >> 24 & 1) && (d >> bit & 1) && syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}
#endif
#endif

// Each thread reads its part of `bytes` again and again: every line once a pass. In huge pages where there are some, as the library's weights lie.
double read_rate(size_t bytes, int threads) {
  constexpr size_t page = size_t{2} << 20;
  const size_t part = bytes / static_cast<size_t>(threads) / 4096 * 4096, room = (part + page - 1) / page * page;
  std::vector<uint64_t*> memory(static_cast<size_t>(threads));
  std::vector<std::thread> fillers;
  for (auto& own : memory) {
    own = static_cast<uint64_t*>(::operator new(room, std::align_val_t(page)));
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    madvise(own, room, MADV_HUGEPAGE);
#endif
    fillers.emplace_back([own, part] { std::fill_n(own, part / 8, 1); });
  }
  for (auto& filler : fillers) filler.join();
  const auto passes = static_cast<int>(std::max<size_t>(1, (size_t{1} << 27) / part));
  const double rate = rate_of(
      [&](int t) {
        const uint64_t* const own = memory[static_cast<size_t>(t)];
        for (int pass = 0; pass < passes; ++pass) {
          uint64_t sums[32] = {};
          for (size_t i = 0; i + 32 <= part / 8; i += 32)
            for (size_t lane = 0; lane < 32; ++lane) sums[lane] += own[i + lane];
          for (auto& sum : sums) asm volatile("" : "+r"(sum));
        }
        return static_cast<double>(part) * passes;
      },
      threads, 12);
  for (auto* const own : memory) ::operator delete(own, std::align_val_t(page));
  return rate;
}

}  // namespace

// Arguments: megabytes to read, one figure for each; default 1024.
int main(int argc, char** argv) {
  const int threads = cores();
  std::printf("{\"threads\":%d", threads);
#ifdef CHIASMA_BENCH_X86
  __builtin_cpu_init();
  const auto report = [threads](const char* kind, double (*work)(int)) {
    std::printf(",\"%s\":%.1f", kind, rate_of(work, threads));
    std::fflush(stdout);
  };
  if (__builtin_cpu_supports("avx512f")) report("f32", f32_512);
  else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) report("f32", f32_256);
  if (__builtin_cpu_supports("avx512bf16")) report("bf16", bf16_512);
  if (__builtin_cpu_supports("avx512vnni")) report("int8", int8_512);
  else if (!__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx2")) report("int8", int8_256);
#ifdef CHIASMA_BENCH_AMX
  if (has_tiles(22)) report("bf16_amx", bf16_tiles);
  if (has_tiles(25)) report("int8_amx", int8_tiles);
#endif
#endif
  std::printf(",\"read\":{");
  std::vector<std::string> sizes(argv + 1, argv + argc);
  if (sizes.empty()) sizes = {"1024"};
  for (size_t i = 0; i < sizes.size(); ++i) {
    const long megabytes = std::atol(sizes[i].c_str());
    if (megabytes <= 0) continue;
    std::printf("%s\"%ld\":%.1f", i > 0 ? "," : "", megabytes, read_rate(static_cast<size_t>(megabytes) * 1'000'000, threads));
  }
  std::printf("}}\n");
  return 0;
}
