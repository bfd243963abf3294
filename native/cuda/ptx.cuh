// Every line of inline PTX, each behind a small function with the simulator's body beside it. sm_80 and later.
// Fragment layouts are those of the PTX ISA's mma.m16n8k16, m16n8k32 and m16n8k8: lane = 4·g + t; an accumulator holds rows g and g + 8, columns 2t and 2t + 1.
#pragma once

#include "cuda/launch.cuh"

#define PTX __device__ __forceinline__

namespace chiasma::cuda::ptx {

#ifdef CHIASMA_SIM
namespace sim = ::chiasma::sim;
#endif

// --- Numbers ---

PTX float bits_to_float(uint32_t bits) {
#ifdef CHIASMA_SIM
  return sim::bits_to_float(bits);
#else
  return __uint_as_float(bits);
#endif
}

PTX uint32_t float_to_bits(float x) {
#ifdef CHIASMA_SIM
  return sim::float_to_bits(x);
#else
  return __float_as_uint(x);
#endif
}

PTX uint16_t float_to_bf16(float x) {
#ifdef CHIASMA_SIM
  return sim::float_to_bf16(x);
#else
  uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
#endif
}

PTX uint16_t float_to_f16(float x) {
#ifdef CHIASMA_SIM
  return sim::float_to_f16(x);
#else
  uint16_t bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
#endif
}

PTX float f16_to_float(uint16_t bits) {
#ifdef CHIASMA_SIM
  return sim::f16_to_float(bits);
#else
  float x;
  asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
  return x;
#endif
}

PTX uint32_t floats_to_bf16x2(float low, float high) {
#ifdef CHIASMA_SIM
  return sim::float_to_bf16(low) | static_cast<uint32_t>(sim::float_to_bf16(high)) << 16;
#else
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}

PTX uint32_t floats_to_f16x2(float low, float high) {
#ifdef CHIASMA_SIM
  return sim::float_to_f16(low) | static_cast<uint32_t>(sim::float_to_f16(high)) << 16;
#else
  uint32_t pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#endif
}

// 2^x to about 2 units in the last place; results under 2^-126 are 0.
PTX float ex2(float x) {
#ifdef CHIASMA_SIM
  return sim::ex2(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// 1/x to 1 unit in the last place.
PTX float rcp(float x) {
#ifdef CHIASMA_SIM
  return 1.0f / x;
#else
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

// --- Global memory ---

// A load through the read-only path, of 1, 2, 4, 8 or 16 aligned bytes that no thread writes while the kernel runs.
template <class T>
PTX T load_nc(const T* from) {
  static_assert(sizeof(T) == 1 || sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 16);
#ifdef CHIASMA_SIM
  return *from;
#else
  union {
    T value;
    uint8_t byte;
    uint16_t half;
    uint32_t word;
    uint2 two;
    uint4 four;
  } to;
  if constexpr (sizeof(T) == 1) {
    uint32_t word;
    asm("ld.global.nc.u8 %0, [%1];" : "=r"(word) : "l"(from));
    to.byte = static_cast<uint8_t>(word);
  }
  if constexpr (sizeof(T) == 2) asm("ld.global.nc.u16 %0, [%1];" : "=h"(to.half) : "l"(from));
  if constexpr (sizeof(T) == 4) asm("ld.global.nc.u32 %0, [%1];" : "=r"(to.word) : "l"(from));
  if constexpr (sizeof(T) == 8) asm("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(to.two.x), "=r"(to.two.y) : "l"(from));
  if constexpr (sizeof(T) == 16) {
    asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(to.four.x), "=r"(to.four.y), "=r"(to.four.z), "=r"(to.four.w) : "l"(from));
  }
  return to.value;
#endif
}

// Stores 16 aligned bytes at once. (Of an assignment of a uint4 the compiler may make four stores.)
PTX void store_16(void* to, uint4 value) {
#ifdef CHIASMA_SIM
  *static_cast<uint4*>(to) = value;
#else
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(value.x), "r"(value.y), "r"(value.z), "r"(value.w) : "memory");
#endif
}

// --- Shared memory ---

// The address that ldmatrix and cp.async take.
PTX uint32_t shared_address(const void* pointer) {
#ifdef CHIASMA_SIM
  return sim::shared_address(pointer);
#else
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
#endif
}

// Starts the copy of `source_bytes` (0 to Bytes) from global to shared memory; the rest of Bytes becomes zero. Both addresses are multiples of Bytes: 4, 8 or 16.
template <int Bytes>
PTX void cp_async(uint32_t shared, const void* global, int source_bytes = Bytes) {
  static_assert(Bytes == 4 || Bytes == 8 || Bytes == 16);
#ifdef CHIASMA_SIM
  sim::cp_async(shared, global, Bytes, source_bytes);
#else
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared), "l"(global), "r"(source_bytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared), "l"(global), "n"(Bytes), "r"(source_bytes) : "memory");
  }
#endif
}

// Makes a group of this thread's copies since the last one; the group may be empty.
PTX void cp_async_commit() {
#ifdef CHIASMA_SIM
  sim::cp_async_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Until at most `Pending` of this thread's latest groups are under way. Other threads see the bytes after a barrier.
template <int Pending>
PTX void cp_async_wait() {
#ifdef CHIASMA_SIM
  sim::cp_async_wait(Pending);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

// Count 8×8 matrices of 16-bit elements; lane 8·i + r gives the address of row r of matrix i. Register i of a lane holds columns 2t and 2t + 1 of row g,
// or, transposed, rows 2t and 2t + 1 of column g.
template <int Count, bool Transposed = false>
PTX void ldmatrix(uint32_t (&to)[Count], uint32_t row_address) {
  static_assert(Count == 1 || Count == 2 || Count == 4);
#ifdef CHIASMA_SIM
  sim::ldmatrix(to, Count, Transposed, row_address);
#else
  if constexpr (Count == 1 && !Transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(to[0]) : "r"(row_address) : "memory");
  } else if constexpr (Count == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(to[0]) : "r"(row_address) : "memory");
  } else if constexpr (Count == 2 && !Transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "r"(row_address) : "memory");
  } else if constexpr (Count == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "r"(row_address) : "memory");
  } else if constexpr (!Transposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row_address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(row_address)
                 : "memory");
  }
#endif
}

// --- Barriers ---

// Barrier `id`, 1 to 15 (0 is __syncthreads), among `threads` threads, a multiple of 32: wait for all, or only say that this thread is there.
PTX void barrier_sync(int id, int threads) {
#ifdef CHIASMA_SIM
  sim::barrier(id, threads, true);
#else
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

PTX void barrier_arrive(int id, int threads) {
#ifdef CHIASMA_SIM
  sim::barrier(id, threads, false);
#else
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

// --- Matrix products: c[i][j] += a[i] · b[j] for a warp's tile of fragments, in order of i, then j ---

enum class Product { bf16, f16, s8, tf32 };

#ifndef CHIASMA_SIM
template <Product P>
PTX void mma_one(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  if constexpr (P == Product::bf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else if constexpr (P == Product::f16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    static_assert(P == Product::tf32);
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

template <Product P>
PTX void mma_one(int (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  static_assert(P == Product::s8);
  asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// Accumulator is float, or int for s8. One k-step is 16 elements of 16 bits, 32 of 8 bits, 8 of tf32. (One call for the tile lets the simulator meet the warp once.)
template <Product P, class Accumulator, int M, int N>
PTX void mma(Accumulator (&c)[M][N][4], const uint32_t (&a)[M][4], const uint32_t (&b)[N][2]) {
#ifdef CHIASMA_SIM
  sim::mma(static_cast<sim::Product>(P), M, N, &c[0][0][0], &a[0][0], &b[0][0]);
#else
#pragma unroll
  for (int i = 0; i < M; ++i) {
#pragma unroll
    for (int j = 0; j < N; ++j) mma_one<P>(c[i][j], a[i], b[j]);
  }
#endif
}

// In the simulator, makes registers that nothing has written hold NaN; nothing on a GPU.
template <class T>
PTX void poison(T& registers) {
#ifdef CHIASMA_SIM
  sim::poison(&registers, sizeof registers);
#endif
}

}  // namespace chiasma::cuda::ptx

#undef PTX
