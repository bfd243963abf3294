// The table of one instruction set. Compiled once for each: CHIASMA_ISA is its name and the name of its namespace. A family defines its
// functions `static` (or in an unnamed namespace) and one table with external linkage in that namespace:
//   namespace chiasma::cpu::CHIASMA_ISA { extern const GemmFunctions gemm_functions; const GemmFunctions gemm_functions = {...}; }
// CHIASMA_ISA_portable, CHIASMA_ISA_avx2, CHIASMA_ISA_avx512 or CHIASMA_ISA_avx512_bf16 is defined as 1 for #if.
#include "cpu/simd_kernels.h"

#include "cpu/simd/attention.h"
#include "cpu/simd/gemm.h"
#include "cpu/simd/rows.h"
#include "cpu/simd/search.h"

namespace chiasma::cpu::CHIASMA_ISA {

extern const SimdKernels kernels;
const SimdKernels kernels = {
    .gemm = &gemm_functions,
    .attention = &attention_functions,
    .rows = &row_functions,
    .search = &search_functions,
};

}  // namespace chiasma::cpu::CHIASMA_ISA
