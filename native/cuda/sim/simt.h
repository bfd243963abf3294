// What a kernel compiled for the simulator sees: CUDA's keywords and intrinsics, the instructions behind ptx.cuh, and the launch.
// Device code runs as one fiber for each CUDA thread; every function here may switch to another one.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#include "cuda/sim/cudart.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) alignas(bytes)
#define __restrict__ __restrict

namespace chiasma::sim {

// --- Launch ---

// A kernel with its arguments, called once by each thread.
class KernelCall {
 public:
  virtual ~KernelCall() = default;
  virtual void operator()() const = 0;
  virtual size_t bytes() const = 0;  // of this object: the only host memory that a kernel may read
};

template <class... Parameters>
class KernelCallOf final : public KernelCall {
 public:
  template <class... Arguments>
  KernelCallOf(void (*kernel)(Parameters...), Arguments&&... arguments) : kernel_(kernel), arguments_(static_cast<Parameters>(arguments)...) {}
  void operator()() const override { std::apply(kernel_, arguments_); }
  size_t bytes() const override { return sizeof *this; }

 private:
  void (*kernel_)(Parameters...);
  std::tuple<std::remove_cv_t<Parameters>...> arguments_;
};

cudaError_t enqueue(const char* name, const void* kernel, dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, std::shared_ptr<const KernelCall> call);

template <class... Parameters, class... Arguments>
cudaError_t launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, cudaStream_t stream, Arguments&&... arguments) {
  static_assert((std::is_trivially_copyable_v<Parameters> && ...), "kernel arguments are copied to the device byte by byte");
  return enqueue(name, reinterpret_cast<const void*>(kernel), grid, block, shared_bytes, stream,
                 std::make_shared<KernelCallOf<Parameters...>>(kernel, std::forward<Arguments>(arguments)...));
}

// --- The thread that runs; each is constant for the life of its fiber ---

struct Index {
  unsigned x, y, z;
};
__attribute__((const)) Index thread_index();
__attribute__((const)) Index block_index();
__attribute__((const)) Index block_size();
__attribute__((const)) Index grid_size();

// --- Shared memory ---

void* shared_variable(const void* key, const char* name, size_t bytes, size_t alignment);
template <class T>
T& shared_variable(const void* key, const char* name) {
  return *static_cast<T*>(shared_variable(key, name, sizeof(T), alignof(T) > 16 ? alignof(T) : 16));
}
void* dynamic_shared();
uint32_t shared_address(const void* pointer);
void cp_async(uint32_t shared, const void* global, int bytes, int source_bytes);
void cp_async_commit();
void cp_async_wait(int pending);
void ldmatrix(uint32_t* to, int count, bool transposed, uint32_t row_address);

// --- Barriers and warp collectives ---

void barrier(int id, int threads, bool wait);  // threads 0: all of the block
void warp_barrier(uint32_t mask);
enum class Shuffle { index, up, down, exclusive_or };
uint64_t shuffle(Shuffle how, uint32_t mask, uint64_t value, int operand, int width);
uint32_t ballot(uint32_t mask, bool predicate);
enum class Reduction { add, minimum, maximum, bit_and, bit_or, bit_xor };
int64_t reduce(Reduction how, uint32_t mask, int64_t value);
enum class Product { bf16, f16, s8, tf32 };
void mma(Product product, int m, int n, void* c, const uint32_t* a, const uint32_t* b);

// --- Atomics, on shared and global memory; each returns the value before ---

enum class Atomic { add, minimum, maximum, exchange, bit_and, bit_or, bit_xor };
int atomic(Atomic how, int* at, int value);
unsigned atomic(Atomic how, unsigned* at, unsigned value);
unsigned long long atomic(Atomic how, unsigned long long* at, unsigned long long value);
float atomic(Atomic how, float* at, float value);
unsigned atomic_compare_and_swap(unsigned* at, unsigned expected, unsigned value);
unsigned long long atomic_compare_and_swap(unsigned long long* at, unsigned long long expected, unsigned long long value);

// --- Numbers ---

inline float bits_to_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}
inline uint32_t float_to_bits(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}
inline uint16_t float_to_bf16(float x) {
  const uint32_t bits = float_to_bits(x);
  if (x != x) return 0x7fff;
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
uint16_t float_to_f16(float x);
float f16_to_float(uint16_t bits);
inline float ex2(float x) {
  const float y = std::exp2(x);
  return y < 0x1p-126f ? 0.0f : y;
}
inline void poison(void* at, size_t bytes) { std::memset(at, 0xff, bytes); }

template <class To, class From>
To bit_copy(From from) {
  static_assert(std::is_trivially_copyable_v<From> && std::is_trivially_copyable_v<To>);
  To to{};
  std::memcpy(&to, &from, sizeof(To) < sizeof(From) ? sizeof(To) : sizeof(From));
  return to;
}

}  // namespace chiasma::sim

// --- CUDA's own names ---

#define threadIdx (::chiasma::sim::thread_index())
#define blockIdx (::chiasma::sim::block_index())
#define blockDim (::chiasma::sim::block_size())
#define gridDim (::chiasma::sim::grid_size())

inline void __syncthreads() { chiasma::sim::barrier(0, 0, true); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { chiasma::sim::warp_barrier(mask); }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  return chiasma::sim::bit_copy<T>(chiasma::sim::shuffle(chiasma::sim::Shuffle::index, mask, chiasma::sim::bit_copy<uint64_t>(value), lane, width));
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  return chiasma::sim::bit_copy<T>(
      chiasma::sim::shuffle(chiasma::sim::Shuffle::up, mask, chiasma::sim::bit_copy<uint64_t>(value), static_cast<int>(lanes), width));
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  return chiasma::sim::bit_copy<T>(
      chiasma::sim::shuffle(chiasma::sim::Shuffle::down, mask, chiasma::sim::bit_copy<uint64_t>(value), static_cast<int>(lanes), width));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  return chiasma::sim::bit_copy<T>(
      chiasma::sim::shuffle(chiasma::sim::Shuffle::exclusive_or, mask, chiasma::sim::bit_copy<uint64_t>(value), lanes, width));
}
inline unsigned __ballot_sync(unsigned mask, int predicate) { return chiasma::sim::ballot(mask, predicate != 0); }
inline int __any_sync(unsigned mask, int predicate) { return chiasma::sim::ballot(mask, predicate != 0) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return chiasma::sim::ballot(mask, predicate == 0) == 0; }

template <class T>
T __reduce_add_sync(unsigned mask, T value) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return static_cast<T>(chiasma::sim::reduce(chiasma::sim::Reduction::add, mask, value));
}
template <class T>
T __reduce_min_sync(unsigned mask, T value) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return static_cast<T>(chiasma::sim::reduce(chiasma::sim::Reduction::minimum, mask, value));
}
template <class T>
T __reduce_max_sync(unsigned mask, T value) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4);
  return static_cast<T>(chiasma::sim::reduce(chiasma::sim::Reduction::maximum, mask, value));
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned value) {
  return static_cast<unsigned>(chiasma::sim::reduce(chiasma::sim::Reduction::bit_and, mask, value));
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned value) {
  return static_cast<unsigned>(chiasma::sim::reduce(chiasma::sim::Reduction::bit_or, mask, value));
}

template <class T>
T atomicAdd(T* at, std::type_identity_t<T> value) {
  return chiasma::sim::atomic(chiasma::sim::Atomic::add, at, value);
}
template <class T>
T atomicMin(T* at, std::type_identity_t<T> value) {
  return chiasma::sim::atomic(chiasma::sim::Atomic::minimum, at, value);
}
template <class T>
T atomicMax(T* at, std::type_identity_t<T> value) {
  return chiasma::sim::atomic(chiasma::sim::Atomic::maximum, at, value);
}
template <class T>
T atomicExch(T* at, std::type_identity_t<T> value) {
  return chiasma::sim::atomic(chiasma::sim::Atomic::exchange, at, value);
}
template <class T>
T atomicAnd(T* at, std::type_identity_t<T> value) {
  return chiasma::sim::atomic(chiasma::sim::Atomic::bit_and, at, value);
}
template <class T>
T atomicOr(T* at, std::type_identity_t<T> value) {
  return chiasma::sim::atomic(chiasma::sim::Atomic::bit_or, at, value);
}
template <class T>
T atomicCAS(T* at, std::type_identity_t<T> expected, std::type_identity_t<T> value) {
  using Word = std::conditional_t<sizeof(T) == 8, unsigned long long, unsigned>;
  return chiasma::sim::bit_copy<T>(chiasma::sim::atomic_compare_and_swap(reinterpret_cast<Word*>(at), chiasma::sim::bit_copy<Word>(expected),
                                                                       chiasma::sim::bit_copy<Word>(value)));
}

inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __uint_as_float(unsigned bits) { return chiasma::sim::bits_to_float(bits); }
inline unsigned __float_as_uint(float x) { return chiasma::sim::float_to_bits(x); }
inline float __int_as_float(int bits) { return chiasma::sim::bits_to_float(static_cast<unsigned>(bits)); }
inline int __float_as_int(float x) { return static_cast<int>(chiasma::sim::float_to_bits(x)); }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
template <class T, class U>
constexpr std::common_type_t<T, U> min(T a, U b) {
  return b < a ? static_cast<std::common_type_t<T, U>>(b) : static_cast<std::common_type_t<T, U>>(a);
}
template <class T, class U>
constexpr std::common_type_t<T, U> max(T a, U b) {
  return a < b ? static_cast<std::common_type_t<T, U>>(b) : static_cast<std::common_type_t<T, U>>(a);
}
