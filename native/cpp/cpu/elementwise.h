// The ops `add`, `sub`, `mul`, `div`, `unary` and `cast` on the CPU.
#pragma once

#include <memory>

#include "core/kernel.h"
#include "cpu/simd_kernels.h"

namespace chiasma::cpu {

// For add, sub, mul and div, by the spec's op.
std::unique_ptr<core::Kernel> make_binary(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_unary(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_cast(const core::KernelSpec& spec, const SimdKernels& simd);

}  // namespace chiasma::cpu
