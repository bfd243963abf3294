// The ops `layerNorm`, `rmsNorm`, `l2Normalize` and `softmax` on the CPU.
#pragma once

#include <memory>

#include "core/kernel.h"
#include "cpu/simd_kernels.h"

namespace chiasma::cpu {

std::unique_ptr<core::Kernel> make_layer_norm(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_rms_norm(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_l2_normalize(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_softmax(const core::KernelSpec& spec, const SimdKernels& simd);

}  // namespace chiasma::cpu
