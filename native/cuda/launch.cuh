// What every kernel file includes first: the same source is compiled by nvcc for a GPU and, with CHIASMA_SIM defined, by g++ for the simulator
// (native/cuda/sim), which needs no CUDA header. Rules for kernel authors:
//
// - Launch with LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...), never <<<>>>; a template's name goes in parentheses:
//   LAUNCH((row_kernel<bf16, 4>), ...). It gives a cudaError_t, and asks for more than 48 KiB of shared memory itself. Grids come from grid_of.
// - Static shared memory is SHARED(name, type), e.g. SHARED(sums, float[32]); dynamic shared memory is SMEM_DYN(name, type), once in a kernel,
//   128-byte aligned. Neither is initialised; in the simulator both start as NaN.
// - Every instruction without a CUDA C++ name is a function of ptx.cuh: write no asm elsewhere. Half-width numbers are bf16 and f16 of number.cuh, not those of
//   cuda_bf16.h. The usual names exist: threadIdx, __syncthreads, __syncwarp, __shfl_*_sync, __ballot_sync, __any_sync, __all_sync, __reduce_*_sync
//   (32-bit integers), atomicAdd/Max/Min/CAS/Exch/Or/And, __threadfence, rsqrtf, __expf, erff, fmaf, __popc, __ffs, __clz, min, max.
// - A warp's lanes must all reach a collective that names them, and no thread may return while another of its block will still meet a barrier or a collective
//   with it: guard the work, not the way to the barrier. The simulator reports both.
// - What one lane writes to shared memory and another reads needs __syncthreads, __syncwarp or a named barrier between; shuffles and mma are none.
// - Loops that wait for another thread's write do not end in the simulator. Blocks do not wait for each other.
// - Grid dimensions y and z end at 65535: put what may be long into x. Offsets that can pass 2^31 are int64_t.
// - Kernel arguments are copied by value: pointers, numbers and small plain structs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "cuda/runtime.h"

#ifdef CHIASMA_SIM

#include "cuda/sim/simt.h"

#define SHARED(name, ...)               \
  static char name##_shared_key;           \
  auto& name = ::chiasma::sim::shared_variable<__VA_ARGS__>(&name##_shared_key, #name)
#define SMEM_DYN(name, ...) __VA_ARGS__* const name = static_cast<__VA_ARGS__*>(::chiasma::sim::dynamic_shared())

#else

#define SHARED(name, ...) __shared__ ::chiasma::cuda::Same<__VA_ARGS__> name
#define SMEM_DYN(name, ...)                                                \
  extern __shared__ __align__(128) unsigned char chiasma_dynamic_shared[]; \
  __VA_ARGS__* const name = reinterpret_cast<__VA_ARGS__*>(chiasma_dynamic_shared)

namespace chiasma::cuda {

template <class T>
struct SameType {
  using type = T;
};
template <class T>
using Same = typename SameType<T>::type;

}  // namespace chiasma::cuda

#endif

#define LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::chiasma::cuda::launch(#kernel, kernel, grid, block, shared_bytes, stream __VA_OPT__(, ) __VA_ARGS__)

namespace chiasma::cuda {

constexpr size_t unasked_shared_bytes = 48 * 1024;  // of dynamic shared memory, that every kernel may have

// Lets a kernel have so much dynamic shared memory on the current device. Never less than before: a graph that was captured, or another thread's launch, may
// need more than this one.
cudaError_t allow_shared_bytes(const void* kernel, size_t bytes);

template <class... Parameters, class... Arguments>
cudaError_t launch([[maybe_unused]] const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream,
                   Arguments&&... arguments) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  if (shared_bytes > unasked_shared_bytes) {
    const cudaError_t error = allow_shared_bytes(reinterpret_cast<const void*>(kernel), shared_bytes);
    if (error != cudaSuccess) return error;
  }
#ifdef CHIASMA_SIM
  return sim::launch(name, kernel, grid, block, shared_bytes, stream, std::forward<Arguments>(arguments)...);
#else
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
#endif
}

// A grid of so many blocks. No device takes more than 2^31 - 1, and none is launched in place of more.
inline dim3 grid_of(int64_t blocks) { return dim3(blocks > 0x7fffffff ? ~0u : static_cast<unsigned>(blocks)); }

// What is compiled for, 900 for compute capability 9.0; 0 for the host. For launch bounds alone: of results every architecture gives the same bits.
#ifdef __CUDA_ARCH__
constexpr int architecture = __CUDA_ARCH__;
#else
constexpr int architecture = 0;
#endif

constexpr int warp_size = 32;
constexpr unsigned full_warp = 0xffffffffu;

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
__host__ __device__ constexpr int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }

}  // namespace chiasma::cuda
