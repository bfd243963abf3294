// The ops `convolution`, `depthwiseConvolution`, `poolWindows` and `scaleSequences` on the CPU.
#pragma once

#include <memory>

#include "core/kernel.h"
#include "cpu/simd_kernels.h"

namespace chiasma::cpu {

std::unique_ptr<core::Kernel> make_convolution(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_depthwise_convolution(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_pool_windows(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_scale_sequences(const core::KernelSpec& spec, const SimdKernels& simd);

}  // namespace chiasma::cpu
