// The tiles of gemm, for what chooses one itself.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/library.h"

namespace chiasma::cuda {

// 128 × 128, with a ring of four stages or of three, of which two blocks fit into the 100 KiB of sm_86, 89 and 120; 64 × 64; 16 × 64. float32 has one of its own.
enum class GemmTile { large, large_three, middle, small };

cudaError_t launch_gemm_tile(const Gemm& arguments, GemmTile tile, cudaStream_t stream);

}  // namespace chiasma::cuda
