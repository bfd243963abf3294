// The simulator: that it runs right kernels right, and that it reports planted bugs, whatever the order in which threads run.
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "cuda/number.cuh"
#include "cuda/sim/options.h"
#include "cuda/warp.cuh"
#include "device_array.h"
#include "test.h"

namespace chiasma::cuda {

namespace {

using test::DeviceArray;

constexpr int seeds = 20;

// Runs `launch` under each seed and expects a report that holds all `parts`.
void expect_report(const std::function<cudaError_t()>& launch, const std::vector<std::string>& parts) {
  const sim::Options before = sim::options();
  for (int seed = 0; seed < seeds; ++seed) {
    NOTE("seed " + std::to_string(seed));
    sim::Options options = before;
    options.seed = static_cast<uint64_t>(seed);
    sim::set_options(options);
    const cudaError_t error = launch();
    const std::string report = sim::take_report();
    cudaGetLastError();
    sim::set_options(before);
    NOTE("report: " + report);
    CHECK(error != cudaSuccess);
    for (const std::string& part : parts) {
      NOTE("expected: " + part);
      CHECK(report.find(part) != std::string::npos);
    }
  }
}

void expect_right(const std::function<cudaError_t()>& launch) {
  const sim::Options before = sim::options();
  for (int seed = 0; seed < seeds; ++seed) {
    sim::Options options = before;
    options.seed = static_cast<uint64_t>(seed);
    sim::set_options(options);
    const cudaError_t error = launch();
    sim::set_options(before);
    NOTE("report: " + sim::take_report());
    CHECK(error == cudaSuccess);
  }
}

// --- Right ---

__global__ void reverse_kernel(const float* x, float* y) {
  SHARED(row, float[64]);
  row[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
  __syncthreads();
  y[blockIdx.x * 64 + threadIdx.x] = row[63 - threadIdx.x];
}

__global__ void copy_pipeline_kernel(const float* x, float* y, int tiles) {
  SMEM_DYN(ring, float);  // [2, 32]
  const auto start = [&](int tile) {
    if (tile < tiles) ptx::cp_async<4>(ptx::shared_address(ring + tile % 2 * 32 + threadIdx.x), x + tile * 32 + threadIdx.x);
    ptx::cp_async_commit();
  };
  start(0);
  float sum = 0;
  for (int tile = 0; tile < tiles; ++tile) {
    start(tile + 1);
    ptx::cp_async_wait<1>();
    __syncthreads();
    sum += ring[tile % 2 * 32 + (threadIdx.x + 1) % 32];
    __syncthreads();
  }
  y[threadIdx.x] = sum;
}

// Warps hand over through shared memory and __syncwarp only; then two warps through a named barrier.
__global__ void partial_barriers_kernel(int* out) {
  SHARED(slots, int[128]);
  const int t = static_cast<int>(threadIdx.x), warp = t / 32, lane = t % 32;
  slots[t] = t;
  __syncwarp();
  int sum = slots[warp * 32 + (lane + 1) % 32];
  __syncwarp();
  slots[t] = sum;
  const int pair = warp / 2;
  ptx::barrier_sync(1 + pair, 64);
  sum += slots[t ^ 32];
  out[t] = sum;
}

// C [16, 8] = A [16, 16] · B [8, 16]ᵀ through shared memory and ldmatrix.
__global__ void product_kernel(const bf16* a, const bf16* b, float* c) {
  SHARED(as, bf16[256]);
  SHARED(bs, bf16[128]);
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) as[i] = a[i];
  for (int i = lane; i < 128; i += 32) bs[i] = b[i];
  __syncthreads();
  uint32_t a_fragment[1][4], b_fragment[1][2];
  ptx::poison(a_fragment);
  ptx::poison(b_fragment);
  ptx::ldmatrix(a_fragment[0], ptx::shared_address(as + lane % 16 * 16 + lane / 16 * 8));
  ptx::ldmatrix(b_fragment[0], ptx::shared_address(bs + lane % 8 * 16 + lane / 8 % 2 * 8));
  float sums[1][1][4] = {};
  ptx::mma<ptx::Product::bf16>(sums, a_fragment, b_fragment);
  const int g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; ++i) c[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = sums[0][0][i];
}

__global__ void collectives_kernel(int* out, unsigned* total) {
  SHARED(count, unsigned);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (threadIdx.x == 0) count = 0;
  __syncthreads();
  atomicAdd(&count, 1u);
  int value = __shfl_xor_sync(full_warp, lane, 1);
  if (lane < 16) value += __shfl_down_sync(0x0000ffffu, value, 4, 16);
  value += __reduce_add_sync(full_warp, 1);
  value += __popc(__ballot_sync(full_warp, lane % 2 == 0));
  out[threadIdx.x] = value;
  __syncthreads();
  if (threadIdx.x == 0) *total = count;
}

// --- Planted ---

__global__ void missing_barrier_kernel(float* y) {
  SHARED(row, float[64]);
  row[threadIdx.x] = static_cast<float>(threadIdx.x);
  y[threadIdx.x] = row[63 - threadIdx.x];  // __syncthreads is missing
}

__global__ void missing_second_barrier_kernel(float* y) {
  SHARED(row, float[64]);
  for (int i = 0; i < 3; ++i) {
    row[threadIdx.x] = static_cast<float>(i);
    __syncthreads();
    y[threadIdx.x] = row[63 - threadIdx.x];  // and is written again in the next turn
  }
}

__global__ void half_word_race_kernel(bf16* y) {
  SHARED(row, bf16[64]);
  row[threadIdx.x / 2] = bf16{1};
  __syncthreads();
  y[threadIdx.x] = row[threadIdx.x / 2];
}

__global__ void shuffle_is_no_barrier_kernel(int* y) {
  SHARED(row, int[32]);
  row[threadIdx.x] = 1;
  const int zero = __shfl_sync(full_warp, 0, 0);
  y[threadIdx.x] = row[31 - threadIdx.x] + zero;
}

__global__ void wrong_mask_kernel(int* y) {
  int value = static_cast<int>(threadIdx.x);
  if (threadIdx.x < 16) value = __shfl_xor_sync(full_warp, value, 1);  // lanes 16 to 31 are named, but elsewhere
  __syncthreads();
  y[threadIdx.x] = value;
}

__global__ void left_out_kernel(int* y) { y[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, static_cast<int>(threadIdx.x), 1); }

__global__ void source_outside_mask_kernel(int* y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(0x0000ffffu, static_cast<int>(threadIdx.x), 16);
}

template <bool Waits>
__global__ void early_read_kernel(const float* x, float* y) {
  SHARED(row, float[32]);
  ptx::cp_async<4>(ptx::shared_address(row + threadIdx.x), x + threadIdx.x);
  ptx::cp_async_commit();
  if (Waits) ptx::cp_async_wait<1>();  // the group itself may still be under way
  __syncthreads();
  y[threadIdx.x] = row[threadIdx.x];
}

__global__ void landed_for_others_kernel(const float* x, float* y) {
  SHARED(row, float[32]);
  ptx::cp_async<4>(ptx::shared_address(row + threadIdx.x), x + threadIdx.x);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();  // says nothing about the copies of other threads
  y[threadIdx.x] = row[31 - threadIdx.x];
}

__global__ void write_past_kernel(float* y, int n) { y[threadIdx.x == 5 ? static_cast<unsigned>(n) : threadIdx.x] = 1; }

__global__ void read_past_shared_kernel(float* y) {
  SHARED(row, float[32]);
  row[threadIdx.x] = 0;
  __syncthreads();
  y[threadIdx.x] = row[threadIdx.x + 1];
}

__global__ void host_memory_kernel(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x]; }

__global__ void unreached_barrier_kernel(float* y) {
  if (threadIdx.x < 40) __syncthreads();
  y[threadIdx.x] = 1;
}

__global__ void crossed_barriers_kernel(float* y) {
  ptx::barrier_sync(threadIdx.x < 32 ? 1 : 2, 64);
  y[threadIdx.x] = 1;
}

__global__ void diverged_product_kernel(float* y) {
  float sums[1][1][4] = {};
  uint32_t a[1][4] = {}, b[1][2] = {};
  if (threadIdx.x != 7) ptx::mma<ptx::Product::f16>(sums, a, b);
  y[threadIdx.x] = sums[0][0][0];
}

}  // namespace

TEST("sim: shared memory and a barrier") {
  std::vector<float> values(128);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  DeviceArray<float> x(values), y(128);
  expect_right([&] { return LAUNCH(reverse_kernel, 2, 64, 0, nullptr, x.get(), y.get()); });
  const std::vector<float> result = y.read();
  for (int i = 0; i < 128; ++i) CHECK(result[static_cast<size_t>(i)] == static_cast<float>(i / 64 * 64 + 63 - i % 64));
}

TEST("sim: asynchronous copies in a ring") {
  std::vector<float> values(160);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
  DeviceArray<float> x(values), y(32);
  expect_right([&] { return LAUNCH(copy_pipeline_kernel, 1, 32, 256, nullptr, x.get(), y.get(), 5); });
  const std::vector<float> result = y.read();
  for (int t = 0; t < 32; ++t) CHECK(result[static_cast<size_t>(t)] == static_cast<float>(5 * ((t + 1) % 32) + 320));
}

TEST("sim: barriers of a part of the block order what they should") {
  DeviceArray<int> out(128);
  expect_right([&] { return LAUNCH(partial_barriers_kernel, 1, 128, 0, nullptr, out.get()); });
  const std::vector<int> result = out.read();
  const auto next = [](int t) { return t / 32 * 32 + (t + 1) % 32; };
  for (int t = 0; t < 128; ++t) CHECK(result[static_cast<size_t>(t)] == next(t) + next(t ^ 32));
}

TEST("sim: ldmatrix and mma") {
  std::vector<bf16> a(256), b(128);
  std::vector<float> fa(256), fb(128);
  for (size_t i = 0; i < 256; ++i) fa[i] = static_cast<float>(static_cast<int>(i * 7 % 13) - 6);
  for (size_t i = 0; i < 128; ++i) fb[i] = static_cast<float>(static_cast<int>(i * 5 % 11) - 5);
  for (size_t i = 0; i < 256; ++i) a[i] = round_to<bf16>(fa[i]);
  for (size_t i = 0; i < 128; ++i) b[i] = round_to<bf16>(fb[i]);
  DeviceArray<bf16> da(a), db(b);
  DeviceArray<float> c(128);
  expect_right([&] { return LAUNCH(product_kernel, 1, 32, 0, nullptr, da.get(), db.get(), c.get()); });
  const std::vector<float> result = c.read();
  for (size_t i = 0; i < 16; ++i) {
    for (size_t j = 0; j < 8; ++j) {
      float sum = 0;
      for (size_t k = 0; k < 16; ++k) sum += fa[i * 16 + k] * fb[j * 16 + k];
      CHECK(result[i * 8 + j] == sum);
    }
  }
}

TEST("sim: collectives and atomics") {
  DeviceArray<int> out(64);
  DeviceArray<unsigned> total(1);
  expect_right([&] { return LAUNCH(collectives_kernel, 1, 64, 0, nullptr, out.get(), total.get()); });
  CHECK(total.read()[0] == 64);
  const std::vector<int> result = out.read();
  for (int t = 0; t < 64; ++t) {
    const int lane = t % 32;
    int value = lane ^ 1;
    if (lane < 16) value += lane + 4 < 16 ? (lane + 4) ^ 1 : lane ^ 1;
    CHECK(result[static_cast<size_t>(t)] == value + 32 + 16);
  }
}

TEST("sim: half-width numbers") {
  const float values[] = {0.0f, -0.0f, 1.0f, -2.5f, 65504.0f, 65519.0f, 65520.0f, 1e-8f, 6e-8f, 6.1e-5f, 3.0517578e-5f, 1.0009766f, 1.00048828125f, INFINITY};
  for (const float value : values) {
    NOTE("value " + std::to_string(value));
    _Float16 expected = static_cast<_Float16>(value);
    uint16_t bits;
    std::memcpy(&bits, &expected, 2);
    CHECK(round_to<f16>(value).bits == bits);
    CHECK(to_float(f16{bits}) == static_cast<float>(expected));
  }
  CHECK(std::isnan(to_float(round_to<f16>(NAN))) && std::isnan(to_float(round_to<bf16>(NAN))));
  CHECK(to_float(round_to<bf16>(1.00390625f)) == 1.0f && to_float(round_to<bf16>(1.01171875f)) == 1.015625f);
}

TEST("sim: a missing __syncthreads is reported with kernel, line and threads") {
  DeviceArray<float> y(64);
  expect_report([&] { return LAUNCH(missing_barrier_kernel, 1, 64, 0, nullptr, y.get()); },
                {"kernel missing_barrier_kernel", "race", "shared 'row'", "thread ", "missing_barrier_kernel at sim_test.cu:", "no barrier between"});
  expect_report([&] { return LAUNCH(missing_second_barrier_kernel, 1, 64, 0, nullptr, y.get()); }, {"race", "sim_test.cu:"});
  DeviceArray<bf16> halves(64);
  expect_report([&] { return LAUNCH(half_word_race_kernel, 1, 64, 0, nullptr, halves.get()); }, {"race", "wrote it"});
  DeviceArray<int> words(32);
  expect_report([&] { return LAUNCH(shuffle_is_no_barrier_kernel, 1, 32, 0, nullptr, words.get()); }, {"race"});
}

TEST("sim: a shuffle with a wrong mask is reported") {
  DeviceArray<int> y(32);
  expect_report([&] { return LAUNCH(wrong_mask_kernel, 1, 32, 0, nullptr, y.get()); }, {"kernel wrong_mask_kernel", "thread", "a shuffle", "0xffffffff", "wrong_mask_kernel at sim_test.cu:"});
  expect_report([&] { return LAUNCH(left_out_kernel, 1, 32, 0, nullptr, y.get()); },
                {"kernel left_out_kernel", "thread ", "a shuffle", "left_out_kernel at sim_test.cu:"});
  expect_report([&] { return LAUNCH(source_outside_mask_kernel, 1, 32, 0, nullptr, y.get()); }, {"kernel source_outside_mask_kernel", "lane ", "source_outside_mask_kernel at sim_test.cu:", "not in its mask"});
}

TEST("sim: a read of shared memory before its copy has landed is reported") {
  DeviceArray<float> x(std::vector<float>(32, 1.0f)), y(32);
  expect_report([&] { return LAUNCH(early_read_kernel<false>, 1, 32, 0, nullptr, x.get(), y.get()); }, {"early_read_kernel<false>", "not landed", "shared 'row'", "thread ", "early_read_kernel at sim_test.cu:"});
  expect_report([&] { return LAUNCH(early_read_kernel<true>, 1, 32, 0, nullptr, x.get(), y.get()); }, {"not landed"});
  expect_report([&] { return LAUNCH(landed_for_others_kernel, 1, 32, 0, nullptr, x.get(), y.get()); },
                {"kernel landed_for_others_kernel", "thread ", "landed_for_others_kernel at sim_test.cu:"});
}

TEST("sim: accesses out of bounds are reported") {
  DeviceArray<float> y(32);
  expect_report([&] { return LAUNCH(write_past_kernel, 1, 32, 0, nullptr, y.get(), 32); },
                {"kernel write_past_kernel", "out of bounds", "thread 5 writes 4 bytes", "128 bytes into an allocation of 128 bytes", "write_past_kernel at sim_test.cu:"});
  expect_report([&] { return LAUNCH(write_past_kernel, 1, 32, 0, nullptr, y.get(), -40); }, {"out of bounds"});
  expect_report([&] { return LAUNCH(write_past_kernel, 1, 32, 0, nullptr, y.get(), 1 << 20); }, {"out of bounds"});
  expect_report([&] { return LAUNCH(read_past_shared_kernel, 1, 32, 0, nullptr, y.get()); }, {"out of bounds", "past the end of shared 'row'"});
  const std::vector<float> host(32);
  expect_report([&] { return LAUNCH(host_memory_kernel, 1, 32, 0, nullptr, host.data(), y.get()); }, {"out of bounds", "memory of the host"});
  expect_report([&] { return LAUNCH(host_memory_kernel, 1, 32, 0, nullptr, static_cast<const float*>(nullptr), y.get()); }, {"a null pointer"});
  float* freed = nullptr;
  CHECK(cudaMalloc(&freed, 128) == cudaSuccess && cudaFree(freed) == cudaSuccess);
  expect_report([&] { return LAUNCH(host_memory_kernel, 1, 32, 0, nullptr, freed, y.get()); }, {"out of bounds"});
}

TEST("sim: a write of the host's into a red zone is found on synchronise and on free") {
  char* memory = nullptr;
  CHECK(cudaMalloc(&memory, 100) == cudaSuccess);
  memory[103] = 1;
  CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  CHECK(sim::take_report().find("3 bytes past the end of an allocation of 100 bytes") != std::string::npos);
  CHECK(cudaFree(memory) == cudaErrorIllegalAddress);
  CHECK(cudaFree(memory) == cudaErrorInvalidValue);
  sim::take_report();
  cudaGetLastError();
}

TEST("sim: barriers that not all threads reach are reported with who waits where") {
  DeviceArray<float> y(64);
  expect_report([&] { return LAUNCH(unreached_barrier_kernel, 1, 64, 0, nullptr, y.get()); },
                {"kernel unreached_barrier_kernel", "a barrier that not all threads reach", "thread", "wait at __syncthreads", "unreached_barrier_kernel at sim_test.cu:", "have ended"});
  expect_report([&] { return LAUNCH(crossed_barriers_kernel, 1, 64, 0, nullptr, y.get()); },
                {"deadlock", "threads 0-31 wait at barrier_sync of id 1", "threads 32-63 wait at barrier_sync of id 2"});
  expect_report([&] { return LAUNCH(diverged_product_kernel, 1, 32, 0, nullptr, y.get()); }, {"mma", "sim_test.cu:"});
}

TEST("sim: a launch that no device takes is refused") {
  DeviceArray<float> y(64);
  CHECK(LAUNCH(missing_barrier_kernel, 1, 2048, 0, nullptr, y.get()) == cudaErrorInvalidConfiguration);
  CHECK(LAUNCH(missing_barrier_kernel, dim3(1, 70000), 32, 0, nullptr, y.get()) == cudaErrorInvalidConfiguration);
  CHECK(LAUNCH(missing_barrier_kernel, grid_of(int64_t{1} << 40), 32, 0, nullptr, y.get()) == cudaErrorInvalidConfiguration);
  CHECK(LAUNCH(missing_barrier_kernel, 1, 32, 200 * 1024, nullptr, y.get()) == cudaErrorInvalidValue);
  CHECK(sim::take_report().find("204800 bytes of shared memory") != std::string::npos);
  // More than 48 KiB without having been asked for.
  CHECK(sim::launch("missing_barrier_kernel", missing_barrier_kernel, 1, 32, 50 * 1024, nullptr, y.get()) == cudaErrorInvalidConfiguration);
  CHECK(sim::take_report().find("51200 bytes of shared memory, above 49152") != std::string::npos);
  cudaGetLastError();
  CHECK(LAUNCH(missing_barrier_kernel, 0, 32, 0, nullptr, y.get()) == cudaSuccess);
}

}  // namespace chiasma::cuda
