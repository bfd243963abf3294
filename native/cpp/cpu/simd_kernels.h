// The seam between kernels and instruction sets. Everything in `simd/` is compiled once for each instruction set and reached only through
// this table, so that code for one set is never called on a processor without it. Those files may use intrinsics, plain C functions and
// this header; no standard containers, no inline functions with external linkage: an object compiled for AVX-512 must hold no weak symbol.
// Every function computes one element by the same sequence of operations wherever in a batch it stands.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chiasma::cpu {

struct GemmFunctions;
struct AttentionFunctions;
struct RowFunctions;
struct SearchFunctions;

// Filled by simd/simd_kernels.cpp for its instruction set; one constant per set. Each family's struct of plain function pointers is
// declared in its own header (simd/gemm.h, simd/attention.h, simd/rows.h, simd/search.h).
struct SimdKernels {
  const GemmFunctions* gemm;            // packed-panel matrix multiply: `linear`, `matmul`, `patchEmbed`
  const AttentionFunctions* attention;  // fused attention
  const RowFunctions* rows;             // everything that works row by row: norms, softmax, elementwise, casts, pooling
  const SearchFunctions* search;        // cosine similarity with top-k
};

}  // namespace chiasma::cpu
