// Sums and maxima over a warp and over a block, in a fixed order: the same bits on every run. All lanes (threads) take part and all get the result.
#pragma once

#include "cuda/launch.cuh"

namespace chiasma::cuda {

template <class T>
__device__ __forceinline__ T warp_sum(T x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(full_warp, x, lanes);
  return x;
}

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(full_warp, x, lanes));
  return x;
}

}  // namespace chiasma::cuda
