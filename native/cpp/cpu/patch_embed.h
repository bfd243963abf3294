// The op `patchEmbed` on the CPU: pixels to patch tokens in one step, normalisation and im2col done while packing.
#pragma once

#include <memory>

#include "core/kernel.h"
#include "cpu/simd_kernels.h"

namespace chiasma::cpu {

std::unique_ptr<core::Kernel> make_patch_embed(const core::KernelSpec& spec, const SimdKernels& simd);

}  // namespace chiasma::cpu
