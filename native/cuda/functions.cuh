// The functions of numbers that several kernels share: those of `unary` and the activations of `linear`, as docs/ops.md names them, and the maximum of pools.
// Float32.
#pragma once

#include "cuda/library.h"
#include "cuda/launch.cuh"

namespace chiasma::cuda {

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// NaN stays.
__device__ __forceinline__ float greater(float a, float b) { return b > a || b != b ? b : a; }

template <int N, class F>
__device__ __forceinline__ void replace_each(float (&x)[N], F&& f) {
#pragma unroll
  for (int i = 0; i < N; ++i) x[i] = f(x[i]);
}

template <int N>
__device__ __forceinline__ void apply(UnaryKind kind, float (&values)[N]) {
  switch (kind) {
    case UnaryKind::gelu:
      return replace_each(values, [](float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); });
    case UnaryKind::quick_gelu:
      return replace_each(values, [](float x) { return x * sigmoid(1.702f * x); });
    case UnaryKind::gelu_tanh:
      return replace_each(values, [](float x) { return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x))); });
    case UnaryKind::relu:
      return replace_each(values, [](float x) { return x < 0.0f ? 0.0f : x; });  // NaN stays
    case UnaryKind::silu:
      return replace_each(values, [](float x) { return x * sigmoid(x); });
    case UnaryKind::tanh:
      return replace_each(values, [](float x) { return tanhf(x); });
    case UnaryKind::sigmoid:
      return replace_each(values, [](float x) { return sigmoid(x); });
    case UnaryKind::exp:
      return replace_each(values, [](float x) { return expf(x); });
    case UnaryKind::neg:
      return replace_each(values, [](float x) { return -x; });
    case UnaryKind::sqrt:
      return replace_each(values, [](float x) { return sqrtf(x); });
    case UnaryKind::abs:
      return replace_each(values, [](float x) { return fabsf(x); });
  }
}

}  // namespace chiasma::cuda
