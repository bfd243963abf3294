// Speed of `linear` beside the processor's measured peak of fused multiply-adds, in one process: shapes of ViT-B/32, MiniLM and single rows.
//   cmake -S . -B build/native -DCHIASMA_BENCH=ON && cmake --build build/native --target chiasma_bench_gemm && build/native/chiasma_bench_gemm [isa]
// Each figure is the best of several runs, for other processes disturb. "of peak" is beside the peak of all threads measured next to it.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/device.h"
#include "core/error.h"
#include "cpu/cpu_device.h"

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
// Multiply-adds of a loop over 20 independent chains, 12 for AVX2, which has 16 registers. The empty asm keeps the chains apart.
constexpr int peak_loops = 400000;

__attribute__((target("avx512f"))) double fma_512() {
  __m512 sums[20];
  for (auto& sum : sums) sum = _mm512_set1_ps(1);
  __m512 factor = _mm512_set1_ps(0.5f);
  for (int i = 0; i < peak_loops; ++i) {
#pragma GCC unroll 20
    for (auto& sum : sums) {
      sum = _mm512_fmadd_ps(sum, factor, factor);
      asm volatile("" : "+v"(sum));
    }
  }
  return 20.0 * 32 * peak_loops;
}

__attribute__((target("avx512f,avx512bf16"))) double dot_512() {
  __m512 sums[20];
  for (auto& sum : sums) sum = _mm512_set1_ps(1);
  __m512bh factor = (__m512bh)_mm512_set1_epi32(0x3f003f00);
  for (int i = 0; i < peak_loops; ++i) {
#pragma GCC unroll 20
    for (auto& sum : sums) {
      sum = _mm512_dpbf16_ps(sum, factor, factor);
      asm volatile("" : "+v"(sum));
    }
  }
  return 20.0 * 64 * peak_loops;
}

__attribute__((target("avx2,fma"))) double fma_256() {
  __m256 sums[12];
  for (auto& sum : sums) sum = _mm256_set1_ps(1);
  __m256 factor = _mm256_set1_ps(0.5f);
  for (int i = 0; i < peak_loops; ++i) {
#pragma GCC unroll 12
    for (auto& sum : sums) {
      sum = _mm256_fmadd_ps(sum, factor, factor);
      asm volatile("" : "+x"(sum));
    }
  }
  return 12.0 * 16 * peak_loops;
}
#endif

using PeakLoop = double (*)();

// GFLOP/s of `threads` threads together.
double peak(PeakLoop loop, int threads) {
  if (!loop) return 0;
  double best = 0;
  for (int repeat = 0; repeat < 5; ++repeat) {
    std::vector<std::thread> workers;
    std::vector<double> rates(static_cast<size_t>(threads));
    for (int t = 0; t < threads; ++t) {
      workers.emplace_back([&rates, t, loop] {
        const double begin = seconds();
        const double operations = loop();
        rates[static_cast<size_t>(t)] = operations / (seconds() - begin) / 1e9;
      });
    }
    for (auto& worker : workers) worker.join();
    double sum = 0;
    for (const double rate : rates) sum += rate;
    best = std::max(best, sum);
  }
  return best;
}

PeakLoop fma_loop(const std::string& isa) {
#ifdef CHIASMA_BENCH_PEAK
  if (isa == "avx2") return fma_256;
  if (isa != "portable") return fma_512;
#endif
  return nullptr;
}

PeakLoop dot_loop(const std::string& isa) {
#ifdef CHIASMA_BENCH_PEAK
  if (isa == "avx512_bf16") return dot_512;
#endif
  return nullptr;
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
  int64_t m, n, k;
  const char* activation;
};

// GFLOP/s of one linear layer in one dtype: input, weight and output alike, as the MLP's middle has it.
double measure(core::Device& device, int threads, DType dtype, const Shape& shape) {
  const auto stream = device.make_stream(threads);
  const core::WeightShape weight{"w", core::Layout::linear, dtype, {shape.n, shape.k}};
  const auto memory = [&device](size_t bytes) {
    return std::unique_ptr<void, std::function<void(void*)>>(device.allocate(bytes), [&device, bytes](void* p) { device.release(p, bytes); });
  };
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
  spec.inputs = {matrix(x.get(), dtype, shape.m, shape.k), matrix(w.get(), dtype, shape.n, shape.k), matrix(bias.get(), DType::float32, 1, shape.n), {}};
  spec.inputs[1].layout = core::Layout::linear;
  spec.inputs[2].rank = 1, spec.inputs[2].shape = {shape.n};
  spec.outputs = {matrix(out.get(), dtype, shape.m, shape.n)};
  spec.attributes.set("activation", std::string(shape.activation));
  spec.attributes.set("dtype", std::string(core::name_of(dtype)));
  const auto kernel = device.make_kernel(spec);
  const auto workspace = memory(kernel->workspace_bytes());

  const double operations = 2.0 * static_cast<double>(shape.m * shape.n) * static_cast<double>(shape.k);
  const int inner = std::max(1, static_cast<int>(2e9 / operations));
  double best = 0;
  for (int repeat = 0; repeat < 12; ++repeat) {
    const double begin = seconds();
    for (int i = 0; i < inner; ++i) kernel->run({spec.inputs, spec.outputs, workspace.get(), *stream});
    best = std::max(best, operations * inner / (seconds() - begin) / 1e9);
  }
  return best;
}

void report(const std::string& isa) {
  const auto device = cpu::open_device(isa, 0);
  const Shape shapes[] = {{1600, 768, 768, "none"},  {1600, 2304, 768, "none"},     {1600, 3072, 768, "none"}, {1600, 3072, 768, "quick_gelu"},
                          {1600, 768, 3072, "none"}, {1568, 768, 3072, "none"},     {50, 3072, 768, "none"},   {50, 768, 3072, "none"},
                          {512, 384, 384, "none"},   {512, 1536, 384, "none"},      {512, 1536, 384, "gelu"},  {512, 384, 1536, "none"},
                          {197, 192, 192, "none"},   {1, 3072, 768, "none"},        {4, 3072, 768, "none"},    {16, 768, 3072, "none"}};
  for (int threads = 1; threads <= device->threads(); ++threads) {
    std::printf("%s, %d threads\n%-28s%22s%22s\n", isa.c_str(), threads, "M x N x K", "float32", "bfloat16");
    for (const Shape& shape : shapes) {
      std::printf("%5lld x %4lld x %4lld %-10s", static_cast<long long>(shape.m), static_cast<long long>(shape.n), static_cast<long long>(shape.k),
                  shape.activation);
      for (const DType dtype : {DType::float32, DType::bfloat16}) {
        const double top = peak(fma_loop(isa), threads);
        const double rate = measure(*device, threads, dtype, shape);
        const double share = rate / std::max(top, peak(fma_loop(isa), threads));
        std::printf("%9.1f GF (%3.0f%%)   ", rate, top > 0 ? share * 100 : 0);
        std::fflush(stdout);
      }
      std::printf("\n");
    }
    std::printf("peak: %.1f GF of multiply-adds, %.1f GF of bf16 dot products\n\n", peak(fma_loop(isa), threads), peak(dot_loop(isa), threads));
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    report(argc > 1 ? argv[1] : cpu::name_of(cpu::available_isas().back()));
    return 0;
  } catch (const core::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
