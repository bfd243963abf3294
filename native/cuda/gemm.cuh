// The tiles of gemm, for what chooses one itself.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/library.h"

namespace chiasma::cuda {

enum class GemmTile { large, middle, small };  // 128 × 128, 64 × 64, 16 × 64; float32 has one of its own

cudaError_t launch_gemm_tile(const Gemm& arguments, GemmTile tile, cudaStream_t stream);

}  // namespace chiasma::cuda
