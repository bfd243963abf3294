// The op `cosineTopK` on the CPU: exact search, the corpus read once for few queries and in cache-sized tiles for many.
#pragma once

#include <memory>

#include "core/kernel.h"
#include "cpu/simd_kernels.h"

namespace chiasma::cpu {

std::unique_ptr<core::Kernel> make_cosine_top_k(const core::KernelSpec& spec, const SimdKernels& simd);

}  // namespace chiasma::cpu
