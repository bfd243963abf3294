// Cosine scores of queries against corpus rows: the seam between `cosineTopK` and the kernels. A score is (q · row) · inverse norm with q
// of length 1: `lanes` chains of fused multiply-adds over every lanes-th feature, added up as a tree. It is the same sequence of
// operations whatever the tile, so scores do not depend on how many queries there are.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/simd/gemm.h"

namespace chiasma::cpu {

struct SearchFunctions {
  int64_t lanes;  // queries are padded with zeros to a multiple of it

  // out[j] = 1 / ‖row j‖ of `count` rows [count, d] with `stride` elements from one to the next; infinite for a row of zeros.
  void (*inverse_norms)(const void* rows, GemmType type, int64_t stride, int64_t count, int64_t d, float* out);
  // scores[i · scores_stride + j] = cosine of query i, at queries + i · query_stride, and row j. A row whose inverse norm is infinite scores 0.
  void (*scores)(const float* queries, int64_t query_stride, int64_t query_count, const void* rows, GemmType type, int64_t stride, int64_t count, int64_t d,
                 const float* norms, float* scores, int64_t scores_stride);
  // The first of scores[begin, end) that is not below or equal to `threshold` (NaN is not), or end.
  int64_t (*next_above)(const float* scores, int64_t begin, int64_t end, float threshold);
};

#ifdef CHIASMA_ISA
namespace CHIASMA_ISA {
extern const SearchFunctions search_functions;
}
#endif

}  // namespace chiasma::cpu
