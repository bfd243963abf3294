// The visible table of the CPU's kernels: op name -> factory, and how weights of role `linear` are packed. kernels.cpp holds it;
// absence from it means unsupported. Each family declares its factories in its own header (cpu/linear.h, cpu/attention.h, ...).
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string_view>

#include "core/device.h"
#include "core/kernel.h"
#include "cpu/simd_kernels.h"

namespace chiasma::cpu {

// Makes a kernel that calls the functions of `simd`, the instruction set the device was opened with (a constant: it may be kept by reference).
// Throws core::Error for operands or attributes it does not take.
using KernelFactory = std::unique_ptr<core::Kernel> (*)(const core::KernelSpec& spec, const SimdKernels& simd);

struct KernelEntry {
  std::string_view op;
  KernelFactory make;
};

std::span<const KernelEntry> kernel_table();

// How the gemm family stores the weight [N, K] of `linear` and `patchEmbed`.
struct WeightPacking {
  size_t (*bytes)(const core::WeightShape& weight, const SimdKernels& simd);
  // Reads rows in order, a few at a time, and fills `memory` (64-byte aligned, `bytes` of it, contents undefined).
  void (*prepare)(const core::WeightShape& weight, core::RowReader& reader, void* memory, const SimdKernels& simd);
};

// Null where there is none.
const WeightPacking* linear_packing();

}  // namespace chiasma::cpu
