// The op `rotary` on the CPU.
#pragma once

#include <memory>

#include "core/kernel.h"
#include "cpu/simd_kernels.h"

namespace chiasma::cpu {

std::unique_ptr<core::Kernel> make_rotary(const core::KernelSpec& spec, const SimdKernels& simd);

}  // namespace chiasma::cpu
