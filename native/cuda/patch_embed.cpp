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
      : CudaKernel(device, spec), spec_(spec), type_(spec.inputs[PatchEmbedSpec::weight].dtype), rows_(spec.outputs[0].rows()) {}

  size_t workspace_bytes() const override { return static_cast<size_t>(rows_ * linear_stride(spec_.depth)) * core::size_of(type_); }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& pixels = arguments.inputs[PatchEmbedSpec::pixels];
    const TensorView& class_token = arguments.inputs[PatchEmbedSpec::class_token];
    const TensorView& position = arguments.inputs[PatchEmbedSpec::position];
    const TensorView& out = arguments.outputs[0];
    core::check_run(out.rows() == pixels.shape[0] * spec_.tokens() && out.rows() <= rows_, op(), "pixels and the output have different counts");
    if (out.size() == 0) return;
    // Padded with zeros, as the weight is.
    const Rows patches{arguments.workspace, linear_stride(spec_.depth), type_};
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

    Gemm gemm{};
    gemm.x = patches;
    gemm.weight = {arguments.inputs[PatchEmbedSpec::weight].data, patches.stride, type_};
    gemm.out = rows_of(out);
    gemm.rows = out.rows();
    gemm.columns = spec_.features;
    gemm.inner = patches.stride;
    gemm.scale = 1;
    const TensorView& bias = arguments.inputs[PatchEmbedSpec::bias];
    if (bias.present()) gemm.bias = bias.as<const float>();
    if (class_token.present()) gemm.first = class_token.as<const float>();
    if (position.present()) gemm.residual = rows_of(position);
    gemm.period = spec_.tokens();
    launch(library().gemm, gemm, arguments);
  }

 private:
  PatchEmbedSpec spec_;
  core::DType type_;  // of the products
  int64_t rows_;
};

}  // namespace

std::unique_ptr<core::Kernel> make_patch_embed(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<PatchEmbedKernel>(spec, device); }

}  // namespace chiasma::cuda
