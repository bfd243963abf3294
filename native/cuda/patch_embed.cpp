// patchEmbed: pixels to normalised patches, then the matrix multiply with bias, class token and positions in its epilogue.
#include "core/op_specs.h"
#include "cuda/gemm.h"

namespace chiasma::cuda {

namespace {

using core::PatchEmbedSpec;
using core::TensorView;

class PatchEmbedKernel final : public CudaKernel {
 public:
  PatchEmbedKernel(const core::KernelSpec& spec, CudaDevice& device)
      : CudaKernel(device, spec), spec_(spec), patches_(spec.outputs[0].rows(), spec_.depth, spec.inputs[PatchEmbedSpec::weight].dtype) {}

  size_t workspace_bytes() const override { return patches_.bytes(); }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& pixels = arguments.inputs[PatchEmbedSpec::pixels];
    const TensorView& weight = arguments.inputs[PatchEmbedSpec::weight];
    const TensorView& position = arguments.inputs[PatchEmbedSpec::position];
    const TensorView& out = arguments.outputs[0];
    core::check_run(out.rows() == pixels.shape[0] * spec_.tokens() && out.rows() <= patches_.rows(), op(), "pixels and the output have different counts");
    if (out.size() == 0) return;
    const Rows patches = patches_.in(arguments.workspace);
    Patchify patchify{};
    patchify.pixels = pixels.data;
    patchify.bytes = spec_.bytes;
    patchify.rescale = spec_.rescale;
    for (size_t c = 0; c < core::pixel_channels; ++c) {
      patchify.mean[c] = spec_.mean[c];
      patchify.std[c] = spec_.std[c];
    }
    patchify.out = patches;
    patchify.pictures = pixels.shape[0];
    patchify.height = spec_.height;
    patchify.width = spec_.width;
    patchify.side = spec_.patch;
    patchify.first = spec_.has_class_token ? 1 : 0;
    launch(library().patchify, patchify, arguments);

    Gemm gemm = product(patches, {weight.data, patches.stride, weight.dtype}, patches.stride, out);
    gemm.bias = floats_or_null(arguments.inputs[PatchEmbedSpec::bias]);
    gemm.first = floats_or_null(arguments.inputs[PatchEmbedSpec::class_token]);
    if (position.present()) gemm.residual = rows_of(position);
    gemm.period = spec_.tokens();
    launch(library().gemm, gemm, arguments);
  }

 private:
  PatchEmbedSpec spec_;
  WorkspaceRows patches_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_patch_embed(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<PatchEmbedKernel>(spec, device); }

}  // namespace chiasma::cuda
