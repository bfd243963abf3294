// The kernel table. One line per op; the names are those of docs/ops.md.
#include "cpu/kernels.h"

#include <vector>

#include "cpu/attention.h"
#include "cpu/convolution.h"
#include "cpu/elementwise.h"
#include "cpu/gather.h"
#include "cpu/linear.h"
#include "cpu/norm.h"
#include "cpu/patch_embed.h"
#include "cpu/pool.h"
#include "cpu/rotary.h"
#include "cpu/search.h"

namespace chiasma::cpu {

std::span<const KernelEntry> kernel_table() {
  static const std::vector<KernelEntry> table = {
      {"linear", make_linear},
      {"matmul", make_matmul},
      {"attention", make_attention},
      {"patchEmbed", make_patch_embed},
      {"convolution", make_convolution},
      {"depthwiseConvolution", make_depthwise_convolution},
      {"poolWindows", make_pool_windows},
      {"layerNorm", make_layer_norm},
      {"rmsNorm", make_rms_norm},
      {"rotary", make_rotary},
      {"l2Normalize", make_l2_normalize},
      {"softmax", make_softmax},
      {"gather", make_gather},
      {"scatter", make_scatter},
      {"pickToken", make_pick_token},
      {"pool", make_pool},
      {"repeatRows", make_repeat_rows},
      {"prependRows", make_prepend_rows},
      {"scaleSequences", make_scale_sequences},
      {"add", make_binary},
      {"sub", make_binary},
      {"mul", make_binary},
      {"div", make_binary},
      {"unary", make_unary},
      {"cast", make_cast},
      {"cosineTopK", make_cosine_top_k},
  };
  return table;
}

const WeightPacking* linear_packing() { return &gemm_weight_packing; }

}  // namespace chiasma::cpu
