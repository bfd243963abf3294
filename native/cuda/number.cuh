// bf16 and f16 as two plain bytes, and conversions that are the same on both compilers: to float exactly, from float to the nearest, ties to even.
#pragma once

#include "cuda/ptx.cuh"

namespace chiasma::cuda {

struct alignas(2) bf16 {
  uint16_t bits;
};
struct alignas(2) f16 {
  uint16_t bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(bf16 x) { return ptx::bits_to_float(static_cast<uint32_t>(x.bits) << 16); }
__device__ __forceinline__ float to_float(f16 x) { return ptx::f16_to_float(x.bits); }
__device__ __forceinline__ float to_float(int8_t x) { return static_cast<float>(x); }
__device__ __forceinline__ float to_float(uint8_t x) { return static_cast<float>(x); }
__device__ __forceinline__ float to_float(int32_t x) { return static_cast<float>(x); }

template <class T>
__device__ __forceinline__ T round_to(float x);
template <>
__device__ __forceinline__ float round_to<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ bf16 round_to<bf16>(float x) {
  return {ptx::float_to_bf16(x)};
}
template <>
__device__ __forceinline__ f16 round_to<f16>(float x) {
  return {ptx::float_to_f16(x)};
}

// Two numbers in one register, the first in the low half.
template <class T>
__device__ __forceinline__ uint32_t pack2(float low, float high);
template <>
__device__ __forceinline__ uint32_t pack2<bf16>(float low, float high) {
  return ptx::floats_to_bf16x2(low, high);
}
template <>
__device__ __forceinline__ uint32_t pack2<f16>(float low, float high) {
  return ptx::floats_to_f16x2(low, high);
}

template <class T>
__device__ __forceinline__ float2 unpack2(uint32_t pair);
template <>
__device__ __forceinline__ float2 unpack2<bf16>(uint32_t pair) {
  return make_float2(ptx::bits_to_float(pair << 16), ptx::bits_to_float(pair & 0xffff0000u));
}
template <>
__device__ __forceinline__ float2 unpack2<f16>(uint32_t pair) {
  return make_float2(ptx::f16_to_float(static_cast<uint16_t>(pair)), ptx::f16_to_float(static_cast<uint16_t>(pair >> 16)));
}

}  // namespace chiasma::cuda
