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

using core::DType;
using core::Error;
using core::ErrorCode;
using core::TensorView;

namespace {

enum Input { pixels_input, weight_input, bias_input, class_token_input, position_input };

constexpr int64_t channels = 3;

class PatchEmbedKernel final : public core::Kernel {
 public:
  PatchEmbedKernel(const core::KernelSpec& spec, const SimdKernels& simd)
      : PatchEmbedKernel(OperandCheck(spec, {"pixels", "weight", "bias", "classToken", "positionEmbedding"}), spec, choose_gemm(simd)) {}

  size_t workspace_bytes() const override { return gemm_.workspace_bytes() + static_cast<size_t>(threads_) * scratch_bytes(); }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& pixels = arguments.inputs[pixels_input];
    const TensorView& class_token = arguments.inputs[class_token_input];
    const TensorView& position = arguments.inputs[position_input];
    const TensorView& out = arguments.outputs[0];
    const int64_t pictures = pixels.shape[0];
    const float* positions = position.present() ? position.as<const float>() : nullptr;

    GemmBlock block{};
    block.weight = arguments.inputs[weight_input].data;
    block.weight_type = gemm_.weight_type();
    block.n = features_;
    block.k = depth_;
    block.scale = 1;
    block.bias = arguments.inputs[bias_input].present() ? arguments.inputs[bias_input].as<const float>() : nullptr;
    block.residual = positions;
    block.residual_type = GemmType::float32;
    block.residual_stride = position.row_stride;
    block.out = out.data;
    block.out_type = out_type_;
    block.out_stride = out.row_stride;
    if (class_token.present()) {
      write_class_tokens(pictures, class_token.as<const float>(), positions, out);
      block.out = out.as<char>() + out.row_stride * static_cast<int64_t>(core::size_of(out.dtype));
      if (positions) block.residual = positions + position.row_stride;
    }

    float* const scratch = reinterpret_cast<float*>(static_cast<char*>(arguments.workspace) + gemm_.workspace_bytes());
    const auto row_bytes = static_cast<int64_t>(gemm_.functions().row_bytes(depth_, gemm_.weight_type()));
    const auto pack = [&](int64_t picture, int64_t row, int64_t rows, void* packed, int worker) {
      float* const unpacked = scratch + static_cast<size_t>(worker) * (scratch_bytes() / sizeof(float));
      for (int64_t r = 0; r < rows; ++r) {
        if (bytes_) {
          read_bytes(pixels, picture, row + r, unpacked);
        } else {
          read_floats(pixels, picture, row + r, unpacked);
        }
        gemm_.functions().pack_rows(unpacked, GemmType::float32, depth_, 1, depth_, gemm_.weight_type(), static_cast<char*>(packed) + r * row_bytes);
      }
    };
    const CpuStream& stream = static_cast<const CpuStream&>(arguments.stream);
    gemm_.run(stream, arguments.workspace, pictures, patches_, block, tokens_ * out.row_stride, pack);
  }

 private:
  PatchEmbedKernel(const OperandCheck& check, const core::KernelSpec& spec, const GemmFunctions& functions)
      : patch_(spec.attributes.integer("patch")),
        features_(check.input(weight_input).shape[0]),
        depth_(check.input(weight_input).shape[1]),
        threads_(std::max(spec.threads, 1)),
        gemm_(functions, features_, depth_, check.weight(weight_input), threads_) {
    const TensorView& pixels = check.input(pixels_input);
    bytes_ = pixels.dtype == DType::uint8;
    if (!bytes_ && pixels.dtype != DType::float32) {
      throw Error(ErrorCode::dtype, std::string("[patchEmbed] pixels is ") + core::name_of(pixels.dtype) + "; expected uint8 or float32");
    }
    check.shape(pixels.rank == 4 && pixels.shape[bytes_ ? 3 : 1] == channels && pixels.contiguous(), pixels_input,
                bytes_ ? "[B, Y, X, 3], contiguous" : "[B, 3, Y, X], contiguous");
    if (patch_ < 1 || patch_ > 1 << 12) {
      throw Error(ErrorCode::argument, "[patchEmbed] patch is " + std::to_string(patch_) + "; expected 1 to 4096");
    }
    check.shape(depth_ == channels * patch_ * patch_, weight_input, "[C, " + std::to_string(channels * patch_ * patch_) + "]");
    const int64_t height = pixels.shape[bytes_ ? 1 : 2], width = pixels.shape[bytes_ ? 2 : 3];
    patch_columns_ = width / patch_;
    patches_ = height / patch_ * patch_columns_;
    tokens_ = patches_ + (check.input(class_token_input).present() ? 1 : 0);
    check.plain_row(bias_input, features_);
    check.plain_row(class_token_input, features_);
    const TensorView& position = check.input(position_input);
    if (position.present()) {
      check.shape(check.floats(position_input) == GemmType::float32 && position.rank == 2 && position.shape[0] == tokens_ && position.shape[1] == features_,
                  position_input, "float32 [" + std::to_string(tokens_) + ", " + std::to_string(features_) + "]");
    }
    check.result_shape(pixels.shape[0] * tokens_, features_);
    out_type_ = check.result();
    fill_table(spec.attributes);
    spec.attributes.expect_only({"patch", "rescale", "mean", "std", "dtype"});
  }

  // As the reference computes: pixel · rescale in float64, rounded; then (value − mean) / std in float32.
  void fill_table(const core::Attributes& attributes) {
    const double rescale = attributes.number("rescale");
    const std::vector<double> mean = attributes.numbers("mean"), std = attributes.numbers("std");
    if (mean.size() != channels || std.size() != channels) {
      throw Error(ErrorCode::argument, "[patchEmbed] mean and std have " + std::to_string(mean.size()) + " and " + std::to_string(std.size()) +
                                           " numbers; expected 3 each");
    }
    for (size_t c = 0; c < channels; ++c) {
      for (size_t value = 0; value < 256; ++value) {
        const auto scaled = static_cast<float>(static_cast<double>(value) * rescale);
        table_[c][value] = (scaled - static_cast<float>(mean[c])) / static_cast<float>(std[c]);
      }
    }
  }

  size_t scratch_bytes() const { return (static_cast<size_t>(depth_) * sizeof(float) + 63) / 64 * 64; }

  void read_bytes(const TensorView& pixels, int64_t picture, int64_t patch, float* row) const {
    const int64_t height = pixels.shape[1], width = pixels.shape[2];
    const int64_t top = patch / patch_columns_ * patch_, left = patch % patch_columns_ * patch_;
    const int64_t area = patch_ * patch_;
    for (int64_t y = 0; y < patch_; ++y) {
      const uint8_t* from = pixels.as<const uint8_t>() + ((picture * height + top + y) * width + left) * channels;
      for (int64_t x = 0; x < patch_; ++x, ++row, from += channels) {
        row[0] = table_[0][from[0]];
        row[area] = table_[1][from[1]];
        row[2 * area] = table_[2][from[2]];
      }
    }
  }

  void read_floats(const TensorView& pixels, int64_t picture, int64_t patch, float* row) const {
    const int64_t height = pixels.shape[2], width = pixels.shape[3];
    const int64_t top = patch / patch_columns_ * patch_, left = patch % patch_columns_ * patch_;
    for (int64_t c = 0; c < channels; ++c) {
      for (int64_t y = 0; y < patch_; ++y, row += patch_) {
        const float* from = pixels.as<const float>() + ((picture * channels + c) * height + top + y) * width + left;
        std::copy(from, from + patch_, row);
      }
    }
  }

  void write_class_tokens(int64_t pictures, const float* token, const float* positions, const TensorView& out) const {
    for (int64_t picture = 0; picture < pictures; ++picture) {
      const int64_t at = picture * tokens_ * out.row_stride;
      for (int64_t c = 0; c < features_; ++c) {
        const float value = positions ? token[c] + positions[c] : token[c];
        if (out_type_ == GemmType::float32) {
          out.as<float>()[at + c] = value;
        } else {
          out.as<uint16_t>()[at + c] = core::f32_to_bf16(value);
        }
      }
    }
  }

  int64_t patch_;           // side
  int64_t features_, depth_;
  int threads_;
  Gemm gemm_;
  bool bytes_ = false;
  int64_t patch_columns_ = 0, patches_ = 0, tokens_ = 0;
  GemmType out_type_ = GemmType::float32;
  std::array<std::array<float, 256>, channels> table_{};
};

}  // namespace

std::unique_ptr<core::Kernel> make_patch_embed(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<PatchEmbedKernel>(spec, simd);
}

}  // namespace chiasma::cpu
