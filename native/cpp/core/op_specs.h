// What the ops with many operands take, read from a step and checked once for every device. Each throws Error naming op and operand.
#pragma once

#include <array>
#include <cstdint>

#include "core/operands.h"

namespace chiasma::core {

struct LinearSpec {
  enum Input : size_t { x, weight, bias, residual };

  explicit LinearSpec(const KernelSpec& spec);

  int64_t rows = 0, columns = 0, inner = 0;  // at capacity
  int activation = 0;  // of none, gelu, quick_gelu, gelu_tanh, relu, silu, tanh
};

struct MatmulSpec {
  enum Input : size_t { a, b };

  explicit MatmulSpec(const KernelSpec& spec);

  int64_t columns = 0, inner = 0;
  DType product = DType::float32;  // of the products: the inputs' type if they have the same
  float scale = 1;
};

struct AttentionSpec {
  enum Input : size_t { q, k, v, lengths_q, lengths_k, bias };

  explicit AttentionSpec(const KernelSpec& spec);

  int64_t heads = 1, kv_heads = 1, head_size = 1;
  int64_t query_length = 0, key_length = 0;  // 0: by cumulative lengths
  float scale = 1;
  bool causal = false;
  int64_t window = -1;  // -1: none

  // The head of keys and values that a head of queries sees.
  int64_t kv_head(int64_t head) const noexcept { return head / (heads / kv_heads); }
};

struct RotarySpec {
  enum Input : size_t { x, table, positions };

  explicit RotarySpec(const KernelSpec& spec);

  int64_t heads = 1, head_size = 1;
  int64_t rotated = 0;  // features of a head
  int64_t length = 0;   // of each sequence, whose last rows have those of the table; 0: by positions
};

constexpr int64_t pixel_channels = 3;

struct PatchEmbedSpec {
  enum Input : size_t { pixels, weight, bias, class_token, position };

  explicit PatchEmbedSpec(const KernelSpec& spec);

  bool bytes = false;  // pixels are uint8 [pictures, height, width, 3], else float32 [pictures, 3, height, width]
  int64_t height = 0, width = 0;
  int64_t patch = 0;     // side
  int64_t features = 0;  // [C]
  int64_t depth = 0;     // 3 · patch²
  int64_t down = 0, across = 0;  // patches of a picture
  bool has_class_token = false;
  double rescale = 1;
  std::array<float, pixel_channels> mean{}, std{};

  int64_t patches() const noexcept { return down * across; }
  int64_t tokens() const noexcept { return patches() + (has_class_token ? 1 : 0); }
  // As the reference computes: value · rescale in float64, rounded; then (value − mean) / std in float32.
  float normalised(int value, size_t channel) const noexcept {
    return (static_cast<float>(static_cast<double>(value) * rescale) - mean[channel]) / std[channel];
  }
};

// repeatRows and prependRows: the rows of a table for each sequence, alone or before the sequence's own.
struct PrefixSpec {
  enum Input : size_t { table, x, lengths };  // prependRows has no lengths

  explicit PrefixSpec(const KernelSpec& spec);
  // Throws Error(shape) unless the run's output has rows for its sequences.
  void check_run(const KernelArguments& arguments) const;

  bool alone = false;
  int64_t length = 0;            // of each sequence; 0: by cumulative lengths
  bool each = false;             // each sequence has rows of the table of its own
  int64_t head = 0, tail = 0;    // rows of the result for each sequence: of the table, and of x

 private:
  int64_t count(const TensorView& x, const TensorView& cumulative) const { return sequence_count(cumulative, length, x.rows()); }
  std::string op_;
};

// Windows over pictures of packed pixels, rows [pictures · height · width, channels].
struct WindowSpec {
  // `x`: the input that holds the pixels. Reads the attributes height, width, kernel, stride and padding.
  WindowSpec(const Operands& operands, const KernelSpec& spec, size_t x);

  int64_t height = 0, width = 0, channels = 0;
  int64_t kernel_y = 1, kernel_x = 1, stride_y = 1, stride_x = 1;
  int64_t top = 0, left = 0;     // pixels before the picture's first
  int64_t down = 0, across = 0;  // windows of a picture

  int64_t windows() const noexcept { return down * across; }
  int64_t area() const noexcept { return kernel_y * kernel_x; }
  // Windows of so many rows of pixels.
  int64_t rows_of(int64_t pixels) const noexcept { return pixels / (height * width) * windows(); }

  // The part of a window that lies within its picture: pixels (y, x) of the window in [y_begin, y_end) x [x_begin, x_end), and the row of the pixel (0, 0),
  // which itself may lie outside.
  struct Window {
    int64_t first, y_begin, y_end, x_begin, x_end;
  };
  Window window(int64_t row) const noexcept;
};

struct ConvolutionSpec {
  enum Input : size_t { x, weight, bias, residual };

  explicit ConvolutionSpec(const KernelSpec& spec);

  WindowSpec windows;
  int64_t features = 0, depth = 0;  // of the weight [features, depth]
  int activation = 0;               // as LinearSpec's
};

struct DepthwiseSpec {
  enum Input : size_t { x, weight, bias };

  explicit DepthwiseSpec(const KernelSpec& spec);

  WindowSpec windows;
  int activation = 0;
};

struct PoolWindowsSpec {
  explicit PoolWindowsSpec(const KernelSpec& spec);

  WindowSpec windows;
  bool max = false;
};

struct ScaleSequencesSpec {
  enum Input : size_t { x, scale, shift };

  explicit ScaleSequencesSpec(const KernelSpec& spec);

  int64_t length = 1;
};

struct TopKSpec {
  enum Input : size_t { queries, corpus, norms };
  enum Output : size_t { scores, indices };

  explicit TopKSpec(const KernelSpec& spec);

  int64_t k = 0, columns = 0;
};

}  // namespace chiasma::core
