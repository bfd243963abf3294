// The kernel table. One line per op; the names are those of docs/ops.md.
#include "cpu/kernels.h"

#include <vector>

#include "cpu/attention.h"
#include "cpu/linear.h"
#include "cpu/patch_embed.h"

namespace chiasma::cpu {

std::span<const KernelEntry> kernel_table() {
  static const std::vector<KernelEntry> table = {
      {"linear", make_linear},
      {"matmul", make_matmul},
      {"attention", make_attention},
      {"patchEmbed", make_patch_embed},
  };
  return table;
}

const WeightPacking* linear_packing() { return &gemm_weight_packing; }

}  // namespace chiasma::cpu
