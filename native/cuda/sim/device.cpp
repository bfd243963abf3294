// What kernels call: the intrinsics of simt.h, in terms of the running block, and the hooks that -fsanitize=thread puts before every load and store of a kernel.
// The thread sanitizer's own library is not linked.
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>

#include "cuda/sim/block.h"

#define HERE __builtin_return_address(0)

namespace chiasma::sim {

namespace {

using Entry = BlockRunner::Entry;

BlockRunner& block() { return BlockRunner::of_current(); }  // inside an entry

}  // namespace

Index thread_index() { return BlockRunner::current()->index; }
Index block_index() { return block().block_index; }
Index block_size() { return block().block_size; }
Index grid_size() { return block().grid_size; }

// --- Shared memory and asynchronous copies ---

void* shared_variable(const void* key, const char* name, size_t bytes, size_t alignment) { return Entry()->shared_variable(key, name, bytes, alignment, HERE); }
void* dynamic_shared() { return Entry()->dynamic_shared(); }
uint32_t shared_address(const void* pointer) { return Entry()->shared_offset(pointer, HERE); }
void cp_async(uint32_t shared, const void* global, int bytes, int source_bytes) { Entry()->start_copy(shared, global, bytes, source_bytes, HERE); }
void cp_async_commit() { Entry()->commit_copies(); }
void cp_async_wait(int pending) { Entry()->wait_copies(pending, HERE); }

// --- Barriers and votes ---

void barrier(int id, int threads, bool wait) {
  Entry()->meet_barrier(threads == 0 ? "__syncthreads" : wait ? "barrier_sync" : "barrier_arrive", id, threads, wait, HERE);
}

void warp_barrier(uint32_t mask) {
  Entry()->warp_meet("__syncwarp", mask, nullptr, [](void* const*, uint32_t lanes) { block().warp_ordered(lanes); }, HERE);
}

uint32_t ballot(uint32_t mask, bool predicate) {
  struct Vote {
    bool predicate;
    uint32_t result;
  } vote{predicate, 0};
  const WarpBody body = [](void* const* operands, uint32_t lanes) {
    uint32_t result = 0;
    for (int lane = 0; lane < warp_lanes; ++lane) {
      if ((lanes >> lane & 1) && static_cast<Vote*>(operands[lane])->predicate) result |= uint32_t{1} << lane;
    }
    for (int lane = 0; lane < warp_lanes; ++lane) {
      if (lanes >> lane & 1) static_cast<Vote*>(operands[lane])->result = result;
    }
  };
  Entry()->warp_meet("a vote", mask, &vote, body, HERE);
  return vote.result;
}

int64_t reduce(Reduction how, uint32_t mask, int64_t value) {
  struct Part {
    Reduction how;
    int64_t value;
  } part{how, value};
  const WarpBody body = [](void* const* operands, uint32_t lanes) {
    Part* first = nullptr;
    for (int lane = 0; lane < warp_lanes; ++lane) {
      if (!(lanes >> lane & 1)) continue;
      Part* const one = static_cast<Part*>(operands[lane]);
      if (!first) {
        first = one;
        continue;
      }
      int64_t& sum = first->value;
      switch (one->how) {
        case Reduction::add: sum += one->value; break;
        case Reduction::minimum: sum = std::min(sum, one->value); break;
        case Reduction::maximum: sum = std::max(sum, one->value); break;
        case Reduction::bit_and: sum &= one->value; break;
        case Reduction::bit_or: sum |= one->value; break;
        case Reduction::bit_xor: sum ^= one->value; break;
      }
    }
    for (int lane = 0; lane < warp_lanes; ++lane) {
      if (lanes >> lane & 1) static_cast<Part*>(operands[lane])->value = first->value;
    }
  };
  Entry()->warp_meet("__reduce_sync", mask, &part, body, HERE);
  return part.value;
}

uint64_t shuffle(Shuffle how, uint32_t mask, uint64_t value, int operand, int width) {
  struct Exchange {
    uint64_t value, result;
    int source;
    const void* code;
  };
  const int lane = BlockRunner::current()->lane;
  const void* const code = HERE;
  if (width < 1 || width > warp_lanes || !std::has_single_bit(static_cast<unsigned>(width))) {
    Entry()->fail(cudaErrorLaunchFailure, "a shuffle of width " + std::to_string(width) + BlockRunner::at(code));
  }
  const int segment = lane & ~(width - 1);
  int source = lane;
  switch (how) {
    case Shuffle::index: source = segment + (operand & (width - 1)); break;
    case Shuffle::up: source = lane - operand < segment ? lane : lane - operand; break;
    case Shuffle::down: source = lane + operand >= segment + width ? lane : lane + operand; break;
    case Shuffle::exclusive_or: source = (lane ^ operand) >= segment + width ? lane : lane ^ operand; break;
  }
  Exchange exchange{value, 0, source, code};
  const WarpBody body = [](void* const* operands, uint32_t lanes) {
    for (int lane = 0; lane < warp_lanes; ++lane) {
      if (!(lanes >> lane & 1)) continue;
      Exchange* const one = static_cast<Exchange*>(operands[lane]);
      if (one->source < 0 || one->source >= warp_lanes || !(lanes >> one->source & 1)) {
        block().fail(cudaErrorLaunchFailure, "lane " + std::to_string(lane) + " of a shuffle" + BlockRunner::at(one->code) + " reads from lane " +
                                                 std::to_string(one->source) + ", which is not in its mask");
      }
      one->result = static_cast<Exchange*>(operands[one->source])->value;
    }
  };
  Entry()->warp_meet("a shuffle", mask, &exchange, body, code);
  return exchange.result;
}

// --- Matrices ---

void ldmatrix(uint32_t* to, int count, bool transposed, uint32_t row_address) {
  struct Load {
    uint32_t* to;
    uint32_t row_address;
    int count;
    bool transposed;
    const void* code;
  } load{to, row_address, count, transposed, HERE};
  const WarpBody body = [](void* const* operands, uint32_t) {
    const Load& first = *static_cast<Load*>(operands[0]);
    for (int m = 0; m < first.count; ++m) {
      uint16_t matrix[8][8];
      for (int r = 0; r < 8; ++r) {
        const Load& row = *static_cast<Load*>(operands[8 * m + r]);
        if (row.row_address % 16 != 0) block().fail(cudaErrorIllegalAddress, "misaligned: a row of ldmatrix" + BlockRunner::at(row.code));
        char* const from = block().shared_pointer(row.row_address);
        block().check_shared(from, 16, AccessKind::read, row.code);
        std::memcpy(matrix[r], from, 16);
      }
      for (int lane = 0; lane < warp_lanes; ++lane) {
        const int g = lane / 4, t = lane % 4;
        const uint16_t low = first.transposed ? matrix[2 * t][g] : matrix[g][2 * t];
        const uint16_t high = first.transposed ? matrix[2 * t + 1][g] : matrix[g][2 * t + 1];
        static_cast<Load*>(operands[lane])->to[m] = low | static_cast<uint32_t>(high) << 16;
      }
    }
  };
  Entry()->warp_meet("ldmatrix", ~uint32_t{0}, &load, body, load.code);
}

// The numbers of a register and, in a row of K numbers, the first column they stand in; registers 0 and 2 (1 and 3) of an a fragment are row g (g + 8),
// 0 and 1 of a b fragment are column g of b.
namespace {

template <Product P>
struct Numbers;
template <>
struct Numbers<Product::bf16> {
  using Type = float;
  static constexpr int count = 2, k = 16;
  static void unpack(uint32_t word, float* to) {
    to[0] = bits_to_float(word << 16);
    to[1] = bits_to_float(word & 0xffff0000u);
  }
};
template <>
struct Numbers<Product::f16> {
  using Type = float;
  static constexpr int count = 2, k = 16;
  static void unpack(uint32_t word, float* to) {
    to[0] = f16_to_float(static_cast<uint16_t>(word));
    to[1] = f16_to_float(static_cast<uint16_t>(word >> 16));
  }
};
template <>
struct Numbers<Product::s8> {
  using Type = int;
  static constexpr int count = 4, k = 32;
  static void unpack(uint32_t word, int* to) {
    for (int i = 0; i < 4; ++i) to[i] = static_cast<int8_t>(word >> 8 * i);
  }
};
template <>
struct Numbers<Product::tf32> {
  using Type = float;
  static constexpr int count = 1, k = 8;
  static void unpack(uint32_t word, float* to) { to[0] = bits_to_float(word & 0xffffe000u); }
};

struct MatrixProduct {
  Product product;
  int m, n;
  void* c;
  const uint32_t* a;
  const uint32_t* b;
};

#if defined(__x86_64__) && defined(__GLIBC__)
#define CHIASMA_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define CHIASMA_CLONES
#endif

// c [16, 8] += a [16, K] · b [K, 8]
template <class T, int K>
inline __attribute__((always_inline)) void multiply_add_tile(T* __restrict c, const T* __restrict a, const T* __restrict b) {
  for (int r = 0; r < 16; ++r) {
    T sums[8];
    for (int j = 0; j < 8; ++j) sums[j] = c[r * 8 + j];
    for (int k = 0; k < K; ++k) {
      const T x = a[r * K + k];
      for (int j = 0; j < 8; ++j) sums[j] += x * b[k * 8 + j];
    }
    for (int j = 0; j < 8; ++j) c[r * 8 + j] = sums[j];
  }
}
CHIASMA_CLONES void multiply_add(float* c, const float* a, const float* b, std::integral_constant<int, 16>) { multiply_add_tile<float, 16>(c, a, b); }
CHIASMA_CLONES void multiply_add(float* c, const float* a, const float* b, std::integral_constant<int, 8>) { multiply_add_tile<float, 8>(c, a, b); }
CHIASMA_CLONES void multiply_add(int* c, const int* a, const int* b, std::integral_constant<int, 32>) { multiply_add_tile<int, 32>(c, a, b); }

template <Product P>
void multiply(void* const* operands) {
  using Number = Numbers<P>;
  using T = typename Number::Type;
  constexpr int K = Number::k;
  const MatrixProduct& first = *static_cast<const MatrixProduct*>(operands[0]);
  static thread_local std::vector<T> b_tiles;
  b_tiles.resize(static_cast<size_t>(first.n) * K * 8);
  for (int lane = 0; lane < warp_lanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    const uint32_t* const b = static_cast<const MatrixProduct*>(operands[lane])->b;
    for (int j = 0; j < first.n; ++j) {
      for (int half = 0; half < 2; ++half) {
        T numbers[4];
        Number::unpack(b[j * 2 + half], numbers);
        for (int i = 0; i < Number::count; ++i) b_tiles[static_cast<size_t>((j * K + half * K / 2 + t * Number::count + i) * 8 + g)] = numbers[i];
      }
    }
  }
  for (int m = 0; m < first.m; ++m) {
    T a_tile[16 * K];
    for (int lane = 0; lane < warp_lanes; ++lane) {
      const int g = lane / 4, t = lane % 4;
      const uint32_t* const a = static_cast<const MatrixProduct*>(operands[lane])->a + m * 4;
      for (int part = 0; part < 4; ++part) {
        Number::unpack(a[part], a_tile + (g + part % 2 * 8) * K + part / 2 * K / 2 + t * Number::count);
      }
    }
    for (int j = 0; j < first.n; ++j) {
      T c_tile[16 * 8];
      const auto each_c = [&](auto&& move) {
        for (int lane = 0; lane < warp_lanes; ++lane) {
          const int g = lane / 4, t = lane % 4;
          T* const c = static_cast<T*>(static_cast<const MatrixProduct*>(operands[lane])->c) + (m * first.n + j) * 4;
          for (int i = 0; i < 4; ++i) move(c[i], c_tile[(g + i / 2 * 8) * 8 + 2 * t + i % 2]);
        }
      };
      each_c([](T& c, T& tile) { tile = c; });
      multiply_add(c_tile, a_tile, b_tiles.data() + static_cast<size_t>(j) * K * 8, std::integral_constant<int, K>());
      each_c([](T& c, T& tile) { c = tile; });
    }
  }
}

}  // namespace

void mma(Product product, int m, int n, void* c, const uint32_t* a, const uint32_t* b) {
  MatrixProduct operands{product, m, n, c, a, b};
  const WarpBody body = [](void* const* lanes, uint32_t) {
    switch (static_cast<const MatrixProduct*>(lanes[0])->product) {
      case Product::bf16: multiply<Product::bf16>(lanes); break;
      case Product::f16: multiply<Product::f16>(lanes); break;
      case Product::s8: multiply<Product::s8>(lanes); break;
      case Product::tf32: multiply<Product::tf32>(lanes); break;
    }
  };
  Entry()->warp_meet("mma", ~uint32_t{0}, &operands, body, HERE);
}

// --- Atomics ---

namespace {

template <class T>
T change(Atomic how, T* at, T value, const void* code) {
  Entry()->memory_access(at, sizeof(T), AccessKind::atomic, code);
  std::atomic_ref<T> place(*at);
  T before = place.load();
  for (;;) {
    T after = before;
    switch (how) {
      case Atomic::add: after = before + value; break;
      case Atomic::minimum: after = std::min(before, value); break;
      case Atomic::maximum: after = std::max(before, value); break;
      case Atomic::exchange: after = value; break;
      default:
        if constexpr (std::is_integral_v<T>) {
          after = how == Atomic::bit_and ? before & value : how == Atomic::bit_or ? before | value : before ^ value;
        }
    }
    if (place.compare_exchange_weak(before, after)) return before;
  }
}

template <class T>
T compare_and_swap(T* at, T expected, T value, const void* code) {
  Entry()->memory_access(at, sizeof(T), AccessKind::atomic, code);
  std::atomic_ref<T>(*at).compare_exchange_strong(expected, value);
  return expected;
}

}  // namespace

int atomic(Atomic how, int* at, int value) { return change(how, at, value, HERE); }
unsigned atomic(Atomic how, unsigned* at, unsigned value) { return change(how, at, value, HERE); }
unsigned long long atomic(Atomic how, unsigned long long* at, unsigned long long value) { return change(how, at, value, HERE); }
float atomic(Atomic how, float* at, float value) { return change(how, at, value, HERE); }
unsigned atomic_compare_and_swap(unsigned* at, unsigned expected, unsigned value) { return compare_and_swap(at, expected, value, HERE); }
unsigned long long atomic_compare_and_swap(unsigned long long* at, unsigned long long expected, unsigned long long value) {
  return compare_and_swap(at, expected, value, HERE);
}

// --- Half-width numbers ---

float f16_to_float(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = bits >> 10 & 31, fraction = bits & 1023;
  if (exponent == 31) return bits_to_float(sign | 0x7f800000u | fraction << 13);
  if (exponent == 0) return bits_to_float(sign | float_to_bits(static_cast<float>(fraction) * 0x1p-24f));
  return bits_to_float(sign | (exponent + 112) << 23 | fraction << 13);
}

uint16_t float_to_f16(float x) {
  const uint32_t bits = float_to_bits(x);
  const auto sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const float size = std::fabs(x);
  if (x != x) return 0x7fff;
  if (size >= 65520.0f) return sign | 0x7c00;
  if (size < 0x1p-14f) return static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(size * 0x1p24f)));
  const uint32_t magnitude = bits & 0x7fffffffu;
  return static_cast<uint16_t>(sign | static_cast<uint16_t>((magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13));
}

}  // namespace chiasma::sim

// --- What -fsanitize=thread calls ---

namespace {

using chiasma::sim::AccessKind;
using chiasma::sim::BlockRunner;

inline void touch(const void* address, size_t bytes, AccessKind kind, const void* code) {
  if (BlockRunner::in_kernel()) BlockRunner::Entry()->memory_access(address, bytes, kind, code);
}

}  // namespace

extern "C" {

#define CHIASMA_HOOK(name) __attribute__((visibility("hidden"))) void name
#define CHIASMA_ACCESS(bytes)                                                                                              \
  CHIASMA_HOOK(__tsan_read##bytes)(void* at) { touch(at, bytes, AccessKind::read, HERE); }                                 \
  CHIASMA_HOOK(__tsan_write##bytes)(void* at) { touch(at, bytes, AccessKind::write, HERE); }                               \
  CHIASMA_HOOK(__tsan_unaligned_read##bytes)(void* at) { touch(at, bytes, AccessKind::read, HERE); }                       \
  CHIASMA_HOOK(__tsan_unaligned_write##bytes)(void* at) { touch(at, bytes, AccessKind::write, HERE); }                     \
  CHIASMA_HOOK(__tsan_volatile_read##bytes)(void* at) { touch(at, bytes, AccessKind::read, HERE); }                        \
  CHIASMA_HOOK(__tsan_volatile_write##bytes)(void* at) { touch(at, bytes, AccessKind::write, HERE); }
CHIASMA_ACCESS(1)
CHIASMA_ACCESS(2)
CHIASMA_ACCESS(4)
CHIASMA_ACCESS(8)
CHIASMA_ACCESS(16)
CHIASMA_HOOK(__tsan_read_range)(void* at, unsigned long bytes) { touch(at, bytes, AccessKind::read, HERE); }
CHIASMA_HOOK(__tsan_write_range)(void* at, unsigned long bytes) { touch(at, bytes, AccessKind::write, HERE); }
CHIASMA_HOOK(__tsan_func_entry)(void*) {}
CHIASMA_HOOK(__tsan_func_exit)() {}
CHIASMA_HOOK(__tsan_init)() {}
CHIASMA_HOOK(__tsan_vptr_update)(void**, void*) {}
CHIASMA_HOOK(__tsan_vptr_read)(void**) {}

// The host code of a kernel's file has atomics too: they are done, sequentially consistent, and not looked at.
#define CHIASMA_ATOMIC(bits, T)                                                                                                                \
  CHIASMA_HOOK(__tsan_atomic##bits##_store)(volatile T * at, T value, int) { __atomic_store_n(at, value, __ATOMIC_SEQ_CST); }                  \
  __attribute__((visibility("hidden"))) T __tsan_atomic##bits##_load(const volatile T* at, int) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); } \
  CHIASMA_ATOMIC_CHANGE(bits, T, exchange, __atomic_exchange_n)                                                                                \
  CHIASMA_ATOMIC_CHANGE(bits, T, fetch_add, __atomic_fetch_add)                                                                                \
  CHIASMA_ATOMIC_CHANGE(bits, T, fetch_sub, __atomic_fetch_sub)                                                                                \
  CHIASMA_ATOMIC_CHANGE(bits, T, fetch_and, __atomic_fetch_and)                                                                                \
  CHIASMA_ATOMIC_CHANGE(bits, T, fetch_or, __atomic_fetch_or)                                                                                  \
  CHIASMA_ATOMIC_CHANGE(bits, T, fetch_xor, __atomic_fetch_xor)                                                                                \
  CHIASMA_ATOMIC_COMPARE(bits, T, strong)                                                                                                      \
  CHIASMA_ATOMIC_COMPARE(bits, T, weak)
#define CHIASMA_ATOMIC_CHANGE(bits, T, name, builtin) \
  __attribute__((visibility("hidden"))) T __tsan_atomic##bits##_##name(volatile T* at, T value, int) { return builtin(at, value, __ATOMIC_SEQ_CST); }
#define CHIASMA_ATOMIC_COMPARE(bits, T, kind)                                                                                        \
  __attribute__((visibility("hidden"))) int __tsan_atomic##bits##_compare_exchange_##kind(volatile T* at, T* expected, T value, int, int) { \
    return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                              \
  }
CHIASMA_ATOMIC(8, uint8_t)
CHIASMA_ATOMIC(16, uint16_t)
CHIASMA_ATOMIC(32, uint32_t)
CHIASMA_ATOMIC(64, uint64_t)
CHIASMA_HOOK(__tsan_atomic_thread_fence)(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
CHIASMA_HOOK(__tsan_atomic_signal_fence)(int) {}

}  // extern "C"
