// The launchers that library.cu puts into the table, one for each struct of library.h; each family's file defines its own.
#pragma once

#include "cuda/launch.cuh"
#include "cuda/library.h"

namespace chiasma::cuda {

cudaError_t launch_layer_norm(const LayerNorm& arguments, cudaStream_t stream);
cudaError_t launch_rms_norm(const RmsNorm& arguments, cudaStream_t stream);
cudaError_t launch_rotary(const Rotary& arguments, cudaStream_t stream);
cudaError_t launch_l2_normalize(const L2Normalize& arguments, cudaStream_t stream);
cudaError_t launch_softmax(const Softmax& arguments, cudaStream_t stream);
cudaError_t launch_gather(const Gather& arguments, cudaStream_t stream);
cudaError_t launch_scatter(const Scatter& arguments, cudaStream_t stream);
cudaError_t launch_pick_token(const PickToken& arguments, cudaStream_t stream);
cudaError_t launch_prefix(const Prefix& arguments, cudaStream_t stream);
cudaError_t launch_pool(const Pool& arguments, cudaStream_t stream);
cudaError_t launch_binary(const Binary& arguments, cudaStream_t stream);
cudaError_t launch_unary(const Unary& arguments, cudaStream_t stream);
cudaError_t launch_cast(const Cast& arguments, cudaStream_t stream);
cudaError_t launch_unfold(const Unfold& arguments, cudaStream_t stream);
cudaError_t launch_depthwise(const Depthwise& arguments, cudaStream_t stream);
cudaError_t launch_pool_windows(const PoolWindows& arguments, cudaStream_t stream);
cudaError_t launch_scale_sequences(const ScaleSequences& arguments, cudaStream_t stream);
cudaError_t launch_patchify(const Patchify& arguments, cudaStream_t stream);
cudaError_t launch_gemm(const Gemm& arguments, cudaStream_t stream);
cudaError_t launch_quantize(const Quantize& arguments, cudaStream_t stream);
cudaError_t launch_attention(const Attention& arguments, cudaStream_t stream);
cudaError_t launch_top_k(const TopK& arguments, cudaStream_t stream);
int64_t top_k_bytes(const TopK& arguments);

}  // namespace chiasma::cuda
