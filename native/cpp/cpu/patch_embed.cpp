// patchEmbed: while a panel of rows is packed, each patch of P x P pixels is normalised into a row [3·P·P] in the order channel, y, x; the
// projection's epilogue adds bias and position and writes behind the picture's class token. Bytes are normalised by a table.
// B pictures of Y x X pixels, C features, `tokens` rows of C for each picture.
#include "cpu/patch_embed.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "core/error.h"
#include "cpu/cpu_device.h"
#include "cpu/gemm.h"

namespace chiasma::cpu {

using core::PatchEmbedSpec;
using core::TensorView;

namespace {

constexpr int pixel_cost = 8;  // about: of turning a pixel's channel into an element of x, beside packing one that is there

class PatchEmbedKernel final : public core::Kernel {
 public:
  PatchEmbedKernel(const core::KernelSpec& spec, const SimdKernels& simd)
      : PatchEmbedKernel(PatchEmbedSpec(spec), spec, choose_gemm(simd)) {}

  size_t workspace_bytes() const override { return gemm_.workspace_bytes() + static_cast<size_t>(threads_) * scratch_bytes(); }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& pixels = arguments.inputs[PatchEmbedSpec::pixels];
    const TensorView& class_token = arguments.inputs[PatchEmbedSpec::class_token];
    const TensorView& position = arguments.inputs[PatchEmbedSpec::position];
    const TensorView& out = arguments.outputs[0];
    const int64_t pictures = pixels.shape[0];
    const float* positions = position.present() ? position.as<const float>() : nullptr;

    GemmBlock block{};
    block.weight = arguments.inputs[PatchEmbedSpec::weight].data;
    block.weight_type = gemm_.weight_type();
    block.n = spec_.features;
    block.k = spec_.depth;
    block.scale = 1;
    block.bias = arguments.inputs[PatchEmbedSpec::bias].present() ? arguments.inputs[PatchEmbedSpec::bias].as<const float>() : nullptr;
    block.residual = positions;
    block.residual_type = GemmType::float32;
    block.residual_stride = position.row_stride;
    block.out = out.data;
    block.out_type = out_type_;
    block.out_stride = out.row_stride;
    block.group_rows = spec_.patches();
    block.out_group = spec_.tokens() * out.row_stride;
    if (class_token.present()) {
      write_class_tokens(pictures, class_token.as<const float>(), positions, out);
      block.out = out.as<char>() + out.row_stride * static_cast<int64_t>(core::size_of(out.dtype));
      if (positions) block.residual = positions + position.row_stride;
    }

    float* const scratch = reinterpret_cast<float*>(static_cast<char*>(arguments.workspace) + gemm_.workspace_bytes());
    const auto row_bytes = static_cast<int64_t>(gemm_.functions().row_bytes(spec_.depth, gemm_.weight_type()));
    const auto pack = [&](int64_t row, int64_t rows, void* packed, int worker) {
      float* const unpacked = scratch + static_cast<size_t>(worker) * (scratch_bytes() / sizeof(float));
      for (int64_t r = 0; r < rows; ++r) {
        const int64_t picture = (row + r) / spec_.patches(), patch = (row + r) % spec_.patches();
        if (spec_.bytes) {
          read_bytes(pixels, picture, patch, unpacked);
        } else {
          read_floats(pixels, picture, patch, unpacked);
        }
        gemm_.functions().pack_rows(unpacked, GemmType::float32, spec_.depth, 1, spec_.depth, gemm_.weight_type(), static_cast<char*>(packed) + r * row_bytes);
      }
    };
    const CpuStream& stream = static_cast<const CpuStream&>(arguments.stream);
    gemm_.run(stream, arguments.workspace, pictures * spec_.patches(), block, pack);
  }

 private:
  PatchEmbedKernel(const PatchEmbedSpec& checked, const core::KernelSpec& spec, const GemmFunctions& functions)
      : spec_(checked),
        threads_(std::max(spec.threads, 1)),
        gemm_(functions, checked.features, checked.depth, gemm_type(spec.inputs[PatchEmbedSpec::weight].dtype), threads_, pixel_cost),
        out_type_(gemm_type(spec.outputs[0].dtype)) {
    for (size_t c = 0; c < core::pixel_channels; ++c) {
      for (size_t value = 0; value < 256; ++value) table_[c][value] = checked.normalised(static_cast<int>(value), c);
    }
  }

  size_t scratch_bytes() const { return (static_cast<size_t>(spec_.depth) * sizeof(float) + 63) / 64 * 64; }

  void read_bytes(const TensorView& pixels, int64_t picture, int64_t patch, float* row) const {
    const int64_t height = pixels.shape[1], width = pixels.shape[2];
    const int64_t top = patch / spec_.across * spec_.patch, left = patch % spec_.across * spec_.patch;
    const int64_t area = spec_.patch * spec_.patch;
    for (int64_t y = 0; y < spec_.patch; ++y) {
      const uint8_t* from = pixels.as<const uint8_t>() + ((picture * height + top + y) * width + left) * core::pixel_channels;
      for (int64_t x = 0; x < spec_.patch; ++x, ++row, from += core::pixel_channels) {
        row[0] = table_[0][from[0]];
        row[area] = table_[1][from[1]];
        row[2 * area] = table_[2][from[2]];
      }
    }
  }

  void read_floats(const TensorView& pixels, int64_t picture, int64_t patch, float* row) const {
    const int64_t height = pixels.shape[2], width = pixels.shape[3];
    const int64_t top = patch / spec_.across * spec_.patch, left = patch % spec_.across * spec_.patch;
    for (int64_t c = 0; c < core::pixel_channels; ++c) {
      for (int64_t y = 0; y < spec_.patch; ++y, row += spec_.patch) {
        const float* from = pixels.as<const float>() + ((picture * core::pixel_channels + c) * height + top + y) * width + left;
        std::copy(from, from + spec_.patch, row);
      }
    }
  }

  void write_class_tokens(int64_t pictures, const float* token, const float* positions, const TensorView& out) const {
    for (int64_t picture = 0; picture < pictures; ++picture) {
      const int64_t at = picture * spec_.tokens() * out.row_stride;
      for (int64_t c = 0; c < spec_.features; ++c) {
        const float value = positions ? token[c] + positions[c] : token[c];
        if (out_type_ == GemmType::float32) {
          out.as<float>()[at + c] = value;
        } else {
          out.as<uint16_t>()[at + c] = core::f32_to_bf16(value);
        }
      }
    }
  }

  PatchEmbedSpec spec_;
  int threads_;
  Gemm gemm_;
  GemmType out_type_;
  std::array<std::array<float, 256>, core::pixel_channels> table_{};
};

}  // namespace

std::unique_ptr<core::Kernel> make_patch_embed(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<PatchEmbedKernel>(spec, simd);
}

}  // namespace chiasma::cpu
