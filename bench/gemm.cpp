// Speed of `linear` as a share of what the processor can do, in one process: the shapes of ViT-B/32, ViT-Tiny and MiniLM in each dtype, and the
// peaks themselves: multiply-adds, dot products, tiles, reading memory.
//   cmake -S . -B build/native -DCHIASMA_BENCH=ON && cmake --build build/native --target chiasma_bench_gemm && build/native/chiasma_bench_gemm [isa] [part of a shape's name] [passes]
// A figure is the median of nine turns in each pass (default three). In a turn, products and the peak of as many threads take equal time by turns of a
// millisecond: clocks change, and what others on the machine take away falls on both alike.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/error.h"
#include "cpu/cpu_device.h"
#include "cpu/processor.h"

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define CHIASMA_BENCH_PEAK 1
#endif

namespace {

using namespace chiasma;
using core::DType;
using core::TensorView;

double seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

#ifdef CHIASMA_BENCH_PEAK
// A loop over 20 independent chains, 12 for AVX2, which has 16 registers. The empty asm keeps the chains apart.
constexpr int peak_loops = 100000;
#define CHIASMA_PEAK_LOOP(vector, chains, start, next, operations) \
  vector sums[chains];                                             \
  _Pragma("GCC unroll 20") for (auto& sum : sums) sum = start;     \
  for (int i = 0; i < peak_loops; ++i) {                           \
    _Pragma("GCC unroll 20") for (auto& sum : sums) {              \
      sum = next;                                                  \
      asm volatile("" : "+v"(sum));                                \
    }                                                              \
  }                                                                \
  return 1.0 * chains * operations * peak_loops

__attribute__((target("avx512f"))) double fma_512() {
  const __m512 factor = _mm512_set1_ps(0.5f);
  CHIASMA_PEAK_LOOP(__m512, 20, factor, _mm512_fmadd_ps(sum, factor, factor), 32);
}

__attribute__((target("avx512f,avx512bf16"))) double dot_512() {
  const __m512bh factor = (__m512bh)_mm512_set1_epi32(0x3f003f00);
  CHIASMA_PEAK_LOOP(__m512, 20, _mm512_set1_ps(1), _mm512_dpbf16_ps(sum, factor, factor), 64);
}

__attribute__((target("avx512f,avx512vnni"))) double byte_dot_512() {
  const __m512i factor = _mm512_set1_epi32(0x01010101);
  CHIASMA_PEAK_LOOP(__m512i, 20, factor, _mm512_dpbusd_epi32(sum, factor, factor), 128);
}

__attribute__((target("avx2,fma"))) double fma_256() {
  const __m256 factor = _mm256_set1_ps(0.5f);
  CHIASMA_PEAK_LOOP(__m256, 12, factor, _mm256_fmadd_ps(sum, factor, factor), 16);
}

// Pairs of int16: two products and two sums for each of eight lanes.
__attribute__((target("avx2"))) double pairs_256() {
  const __m256i factor = _mm256_set1_epi16(1);
  CHIASMA_PEAK_LOOP(__m256i, 12, factor, _mm256_add_epi32(factor, _mm256_madd_epi16(sum, factor)), 32);
}

// Four tiles of sums from four of factors. The process has to be allowed to use them: opening a device has done so.
template <bool bytes>
__attribute__((target("amx-tile,amx-bf16,amx-int8"))) double tiles() {
  struct alignas(64) {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } shape;
  asm volatile("" : : "r"(&shape) : "memory");  // GCC 12 does not know that the next instruction reads it
  _tile_loadconfig(&shape);
  alignas(64) static const char zeros[1024] = {};
  _tile_loadd(4, zeros, 64);
  _tile_loadd(5, zeros, 64);
  _tile_loadd(6, zeros, 64);
  _tile_loadd(7, zeros, 64);
  constexpr int loops = peak_loops / 16;  // each takes as long as sixteen of the others
  for (int i = 0; i < loops; ++i) {
    if constexpr (bytes) {
      _tile_dpbusd(0, 4, 6);
      _tile_dpbusd(1, 4, 7);
      _tile_dpbusd(2, 5, 6);
      _tile_dpbusd(3, 5, 7);
    } else {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_release();
  return 4.0 * 16 * 16 * (bytes ? 128 : 64) * loops;
}

// Reads 128 MiB, more than a core's share of most last-level caches; counts bytes.
__attribute__((target("avx512f"))) double read_512() {
  constexpr size_t size = size_t{128} << 20;
  static thread_local const std::vector<char> memory(size, 1);
  __m512i sums[8];
#pragma GCC unroll 8
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  for (size_t i = 0; i < size; i += sizeof sums) {
#pragma GCC unroll 8
    for (size_t j = 0; j < 8; ++j) sums[j] = _mm512_or_si512(sums[j], _mm512_loadu_si512(memory.data() + i + 64 * j));
  }
#pragma GCC unroll 8
  for (auto& sum : sums) asm volatile("" : : "v"(sum));
  return size;
}
#endif

// Does its work and gives the number of operations, a multiply and an add being two.
using PeakLoop = double (*)();

double quantile(std::vector<double> values, double part) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(part * static_cast<double>(values.size() - 1) + 0.5)];
}
double median(const std::vector<double>& values) { return quantile(values, 0.5); }

// Operations of each thread of a stream, and the seconds that it took for them.
struct Work {
  double operations = 0, time = 0;
};

// Every thread does the loop's work once, all at the same time; adds it to theirs. first: each does it once before that, for the memory that it needs.
void run_loop(PeakLoop loop, cpu::CpuStream& stream, std::vector<Work>& works, bool first = false) {
  const int threads = stream.threads();
  std::atomic<int> ready{0};
  stream.parallel_for(threads, [&](int64_t, int worker) {
    if (first) loop();
    for (++ready; ready < threads;) cpu::pause_processor();
    const double begin = seconds();
    Work& work = works[static_cast<size_t>(worker)];
    work.operations += loop();
    work.time += seconds() - begin;
  });
}

double mean_time(const std::vector<Work>& works) {
  double sum = 0;
  for (const Work& work : works) sum += work.time;
  return sum / static_cast<double>(works.size());
}

// Billions of operations a second of all threads together.
double rate_of(const std::vector<Work>& works) {
  double rate = 0;
  for (const Work& work : works) rate += work.operations / work.time / 1e9;
  return rate;
}

// Nanoseconds for a cache line that two threads write by turns, there and back: some dozens where their cores share a cache, hundreds where they do not.
double round_trip(cpu::CpuStream& stream) {
  constexpr int trips = 2000;
  alignas(64) std::atomic<int> ball{0};
  alignas(64) double time = 0;
  stream.parallel_for(2, [&](int64_t, int worker) {
    const double begin = seconds();
    for (int mine = worker; mine < 2 * trips; mine += 2) {
      while (ball.load(std::memory_order_acquire) != mine) {}
      ball.store(mine + 1, std::memory_order_release);
    }
    if (worker == 0) time = seconds() - begin;
  });
  return time / trips * 1e9;
}

struct NamedLoop {
  const char* name;
  PeakLoop loop;
};

// What the instruction set has for products in this dtype; the quickest of them is the peak.
std::vector<NamedLoop> loops_of(const std::string& isa, DType dtype) {
  std::vector<NamedLoop> loops;
#ifdef CHIASMA_BENCH_PEAK
  if (isa == "portable") return loops;
  if (isa == "avx2") {
    loops = {{"avx2 fma", fma_256}};
    if (dtype == DType::int8) loops.push_back({"avx2 pmaddwd", pairs_256});
    return loops;
  }
  loops = {{"avx512 fma", fma_512}};
  if (dtype == DType::bfloat16 && (isa == "avx512_bf16" || isa == "amx")) loops.push_back({"avx512 dpbf16ps", dot_512});
  if (dtype == DType::bfloat16 && isa == "amx") loops.push_back({"amx dpbf16ps", tiles<false>});
  if (dtype == DType::int8 && isa != "avx512") loops.push_back({"avx512 dpbusd", byte_dot_512});
  if (dtype == DType::int8 && isa == "amx") loops.push_back({"amx dpbusd", tiles<true>});
#endif
  return loops;
}

// Of seven tries.
double median_peak(PeakLoop loop, cpu::CpuStream& stream) {
  std::vector<double> rates;
  for (int i = 0; i < 7; ++i) {
    std::vector<Work> works(static_cast<size_t>(stream.threads()));
    run_loop(loop, stream, works, true);
    rates.push_back(rate_of(works));
  }
  return median(rates);
}

PeakLoop quickest(const std::string& isa, DType dtype, cpu::CpuStream& stream) {
  PeakLoop best = nullptr;
  double most = 0;
  for (const NamedLoop& candidate : loops_of(isa, dtype)) {
    const double rate = median_peak(candidate.loop, stream);
    if (rate > most) most = rate, best = candidate.loop;
  }
  return best;
}

class Ones final : public core::RowReader {
 public:
  explicit Ones(int64_t columns) : columns_(columns) {}
  void read(int64_t, int64_t count, void* dst) override { std::fill_n(static_cast<float*>(dst), count * columns_, 0.01f); }

 private:
  int64_t columns_;
};

TensorView matrix(void* data, DType dtype, int64_t rows, int64_t columns) {
  TensorView view;
  view.data = data, view.dtype = dtype, view.rank = 2, view.shape = {rows, columns}, view.row_stride = columns;
  return view;
}

struct Shape {
  const char* name;
  int64_t m, n, k;
  const char* activation;
};

struct Speeds {
  std::vector<double> rates;   // billions of operations a second
  std::vector<double> shares;  // of the peak, measured in turns with it
};

constexpr int turns = 9;
constexpr double slice_time = 1e-3, turn_time = 15e-3;  // of products, in seconds, at least

// Adds turns of one linear layer, from and to what models have beside weights of this type: bfloat16 where there are products of it, else float32.
void measure(core::Device& device, cpu::CpuStream& stream, DType dtype, const Shape& shape, PeakLoop top, Speeds& speeds) {
  const core::WeightShape weight{"w", core::Layout::linear, dtype, {shape.n, shape.k}};
  const auto memory = [&device](size_t bytes) {
    return std::unique_ptr<void, std::function<void(void*)>>(device.allocate(bytes), [&device, bytes](void* p) { device.release(p, bytes); });
  };
  const DType rows = dtype == DType::float32 || !device.has_bf16() ? DType::float32 : DType::bfloat16;
  const auto w = memory(device.weight_bytes(weight));
  const auto x = memory(static_cast<size_t>(shape.m * shape.k) * 4), out = memory(static_cast<size_t>(shape.m * shape.n) * 4);
  const auto bias = memory(static_cast<size_t>(shape.n) * 4);
  Ones reader(shape.k);
  device.prepare_weight(weight, reader, w.get());
  std::fill_n(static_cast<char*>(x.get()), shape.m * shape.k * 4, 0);
  std::fill_n(static_cast<char*>(bias.get()), shape.n * 4, 0);

  core::KernelSpec spec;
  spec.op = "linear";
  spec.threads = device.threads();
  spec.inputs = {matrix(x.get(), rows, shape.m, shape.k), matrix(w.get(), dtype, shape.n, shape.k), matrix(bias.get(), DType::float32, 1, shape.n), {}};
  spec.inputs[1].layout = core::Layout::linear;
  spec.inputs[2].rank = 1, spec.inputs[2].shape = {shape.n};
  spec.outputs = {matrix(out.get(), rows, shape.m, shape.n)};
  spec.attributes.set("activation", std::string(shape.activation));
  spec.attributes.set("dtype", std::string(core::name_of(rows)));
  const auto kernel = device.make_kernel(spec);
  const auto workspace = memory(kernel->workspace_bytes());
  const double operations = 2.0 * static_cast<double>(shape.m * shape.n) * static_cast<double>(shape.k);
  const auto run = [&](int count) {
    const double begin = seconds();
    for (int i = 0; i < count; ++i) kernel->run({spec.inputs, spec.outputs, workspace.get(), stream});
    return seconds() - begin;
  };
  run(1);
  const int inner = std::max(1, static_cast<int>(slice_time / run(1)));
  for (int turn = 0; turn < turns; ++turn) {
    double count = 0, time = 0;
    std::vector<Work> works(static_cast<size_t>(stream.threads()));
    while (time < turn_time) {
      time += run(inner);
      count += inner;
      while (top && mean_time(works) < time) run_loop(top, stream, works);
    }
    speeds.rates.push_back(operations * count / time / 1e9);
    speeds.shares.push_back(top ? speeds.rates.back() / rate_of(works) : 0);
  }
}

void report(const std::string& isa, const std::string& only, int passes) {
  const auto device = cpu::open_device(isa, 0);
  const Shape shapes[] = {{"ViT-B b32 q, k, v, out", 1600, 768, 768, "none"},
                          {"ViT-B b32 q+k+v", 1600, 2304, 768, "none"},
                          {"ViT-B b32 up", 1600, 3072, 768, "quick_gelu"},
                          {"ViT-B b32 down", 1600, 768, 3072, "none"},
                          {"ViT-B b32 patches", 1568, 768, 3072, "none"},
                          {"ViT-B b1 q, k, v, out", 50, 768, 768, "none"},
                          {"ViT-B b1 up", 50, 3072, 768, "quick_gelu"},
                          {"ViT-B b1 down", 50, 768, 3072, "none"},
                          {"ViT-Tiny b8 q, k, v, out", 1576, 192, 192, "none"},
                          {"ViT-Tiny b8 up", 1576, 768, 192, "gelu"},
                          {"ViT-Tiny b8 down", 1576, 192, 768, "none"},
                          {"ViT-Tiny b1 up", 197, 768, 192, "gelu"},
                          {"MiniLM b32 q, k, v, out", 448, 384, 384, "none"},
                          {"MiniLM b32 up", 448, 1536, 384, "gelu"},
                          {"MiniLM b32 down", 448, 384, 1536, "none"},
                          {"MiniLM b1 up", 14, 1536, 384, "gelu"}};
  const DType dtypes[] = {DType::float32, DType::bfloat16, DType::int8};
  // Of each number of threads, as within a program, whose workers wait awake.
  std::vector<std::unique_ptr<core::Stream>> streams;
  for (int threads = 1; threads <= device->threads(); ++threads) streams.push_back(device->make_stream(threads)), streams.back()->begin();
  const auto stream_of = [&streams](int threads) -> cpu::CpuStream& {
    return static_cast<cpu::CpuStream&>(*streams[static_cast<size_t>(threads - 1)]);
  };
  std::printf("%s, %s; median of %d turns, share of the peak, and the shares between which half of the turns lie\n", cpu::processor_name().c_str(), isa.c_str(),
              turns * passes);
#ifdef CHIASMA_BENCH_PEAK
  for (int threads = 1; threads <= device->threads(); ++threads) {
    std::printf("peak of %d threads:", threads);
    for (const NamedLoop& loop : loops_of(isa, DType::bfloat16)) std::printf(" %s %.0f,", loop.name, median_peak(loop.loop, stream_of(threads)));
    for (const NamedLoop& loop : loops_of(isa, DType::int8)) {
      if (loop.loop != fma_512 && loop.loop != fma_256) std::printf(" %s %.0f,", loop.name, median_peak(loop.loop, stream_of(threads)));
    }
    if (isa != "avx2" && isa != "portable") std::printf(" read %.1f GB/s", median_peak(read_512, stream_of(threads)));
    if (threads > 1) std::printf(", a cache line there and back %.0f ns", round_trip(stream_of(threads)));
    std::printf("\n");
  }
#endif
  std::vector<PeakLoop> top;
  for (const DType dtype : dtypes) top.push_back(quickest(isa, dtype, stream_of(1)));
  for (int threads = 1; threads <= device->threads(); ++threads) {
    struct Line {
      Shape shape;
      Speeds speeds[std::size(dtypes)];
    };
    std::vector<Line> lines;
    for (const Shape& shape : shapes) {
      if (std::string(shape.name).find(only) == std::string::npos) continue;
      lines.push_back({shape, {}});
      if (std::string(shape.activation) != "none") lines.push_back({{"  the product alone", shape.m, shape.n, shape.k, "none"}, {}});
    }
    // All shapes in turns, since what others leave of the machine changes by the minute.
    for (int pass = 0; pass < passes; ++pass) {
      std::fprintf(stderr, "%d threads, pass %d of %d\n", threads, pass + 1, passes);
      for (Line& line : lines) {
        for (size_t i = 0; i < std::size(dtypes); ++i) measure(*device, stream_of(threads), dtypes[i], line.shape, top[i], line.speeds[i]);
      }
    }
    std::printf("\n%-26s%-18s%-11s%24s%24s%24s\n", (std::to_string(threads) + " threads").c_str(), "M x N x K", "", "float32", "bfloat16", "int8");
    for (const auto& [shape, speeds] : lines) {
      const std::string size = std::to_string(shape.m) + " x " + std::to_string(shape.n) + " x " + std::to_string(shape.k);
      std::printf("%-26s%-18s%-11s", shape.name, size.c_str(), shape.activation);
      for (const auto& [rates, shares] : speeds) {
        const auto percent = [&shares = shares](double part) { return quantile(shares, part) * 100; };
        std::printf("%8.0f G (%3.0f%%, %2.0f-%3.0f)", median(rates), percent(0.5), percent(0.25), percent(0.75));
      }
      std::printf("\n");
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string isa = argc > 1 ? argv[1] : "";
    report(isa.empty() ? cpu::name_of(cpu::available_isas().back()) : isa, argc > 2 ? argv[2] : "", std::max(1, argc > 3 ? std::atoi(argv[3]) : 3));
    return 0;
  } catch (const core::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
