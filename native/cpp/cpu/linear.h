// The ops `linear` and `matmul` on the CPU: operands checked once, work cut into blocks for the pool, epilogue fused.
#pragma once

#include <memory>

#include "core/kernel.h"
#include "cpu/simd_kernels.h"

namespace chiasma::cpu {

// threads: the most the stream that runs the kernel will have; sizes the workspace.
std::unique_ptr<core::Kernel> make_linear(const core::KernelSpec& spec, const SimdKernels& simd, int threads);
std::unique_ptr<core::Kernel> make_matmul(const core::KernelSpec& spec, const SimdKernels& simd, int threads);

}  // namespace chiasma::cpu
