// The ops `linear` and `matmul` on the CPU, and how weights of role `linear` are stored.
#pragma once

#include <memory>

#include "core/kernel.h"
#include "cpu/kernels.h"
#include "cpu/simd_kernels.h"

namespace chiasma::cpu {

std::unique_ptr<core::Kernel> make_linear(const core::KernelSpec& spec, const SimdKernels& simd);
std::unique_ptr<core::Kernel> make_matmul(const core::KernelSpec& spec, const SimdKernels& simd);

extern const WeightPacking gemm_weight_packing;

}  // namespace chiasma::cpu
