// The kernel table. One line per op; the names are those of docs/ops.md.
#include "cuda/kernels.h"

namespace chiasma::cuda {

namespace {

struct KernelEntry {
  std::string_view op;
  KernelFactory make;
};

constexpr KernelEntry kernel_table[] = {
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

}  // namespace

KernelFactory find_kernel(std::string_view op) {
  for (const KernelEntry& entry : kernel_table) {
    if (entry.op == op) return entry.make;
  }
  return nullptr;
}

Sequences sequences_of(const core::TensorView& cumulative, int64_t length, int64_t rows) {
  return {cumulative.present() ? cumulative.as<const int32_t>() : nullptr, length, core::sequence_count(cumulative, length, rows), rows};
}

CudaDevice::Explain explain_lengths(const std::string& op) {
  return [op](int64_t position, int32_t value) {
    return "[" + op + "] cuSeqlens[" + std::to_string(position) + "] is " + std::to_string(value) + "; expected " +
           (position == 0 ? "0" : "at least what is before it, and at most the rows of x");
  };
}

}  // namespace chiasma::cuda
