// The table of one instruction set. Compiled once for each: CHIASMA_ISA is its name and the name of its namespace. A family defines its
// functions `static` (or in an unnamed namespace) and one table with external linkage in that namespace:
//   namespace chiasma::cpu::CHIASMA_ISA { extern const GemmFunctions gemm_functions; const GemmFunctions gemm_functions = {...}; }
// CHIASMA_ISA_portable, CHIASMA_ISA_avx2, CHIASMA_ISA_avx512, CHIASMA_ISA_avx512_vnni, CHIASMA_ISA_avx512_bf16 or CHIASMA_ISA_amx is defined as 1
// for #if.
// A set that adds to another for the matrix multiply, AMX for attention too, takes all else from it: CHIASMA_BASE_ISA.
#include "cpu/simd_kernels.h"

#include "cpu/simd/attention.h"
#include "cpu/simd/gemm.h"
#include "cpu/simd/rows.h"
#include "cpu/simd/search.h"

#ifdef CHIASMA_BASE_ISA
namespace chiasma::cpu::CHIASMA_BASE_ISA {
extern const AttentionFunctions attention_functions;
extern const RowFunctions row_functions;
extern const SearchFunctions search_functions;
}
namespace base = chiasma::cpu::CHIASMA_BASE_ISA;
#else
namespace base = chiasma::cpu::CHIASMA_ISA;
#endif

namespace chiasma::cpu::CHIASMA_ISA {

#if defined(CHIASMA_ISA_avx512_bf16) || defined(CHIASMA_ISA_amx)
constexpr const AttentionFunctions* attention = &attention_functions;
#else
constexpr const AttentionFunctions* attention = &base::attention_functions;
#endif

extern const SimdKernels kernels;
const SimdKernels kernels = {
    .gemm = &gemm_functions,
    .attention = attention,
    .rows = &base::row_functions,
    .search = &base::search_functions,
};

}  // namespace chiasma::cpu::CHIASMA_ISA
