// The op `attention` on the CPU: operands and cumulative lengths checked, work cut into (sequence, head, run of queries) for the pool.
#pragma once

#include <memory>

#include "core/kernel.h"
#include "cpu/simd_kernels.h"

namespace chiasma::cpu {

std::unique_ptr<core::Kernel> make_attention(const core::KernelSpec& spec, const SimdKernels& simd);

}  // namespace chiasma::cpu
