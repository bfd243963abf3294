// The kernel table. One line per op; the names are those of docs/ops.md.
#include "cpu/kernels.h"

#include <vector>

namespace chiasma::cpu {

std::span<const KernelEntry> kernel_table() {
  static const std::vector<KernelEntry> table = {
      // {"linear", make_linear},
  };
  return table;
}

const WeightPacking* linear_packing() { return nullptr; }

}  // namespace chiasma::cpu
