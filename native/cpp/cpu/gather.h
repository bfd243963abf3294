// The ops that move whole rows on the CPU: `gather`, `scatter`, `pickToken`.
#pragma once

#include <memory>

#include "core/kernel.h"
#include "cpu/simd_kernels.h"

namespace chiasma::cpu {

std::unique_ptr<core::Kernel> make_gather(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_scatter(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_pick_token(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_repeat_rows(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_prepend_rows(const core::KernelSpec& spec, const SimdKernels& simd);

}  // namespace chiasma::cpu
