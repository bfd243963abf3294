// What linear, matmul, convolution and patchEmbed share on the host: operands as the matrix multiply takes them, and int8 weights.
#pragma once

#include "cuda/kernels.h"

namespace chiasma::cuda {

// --- Operands ---

// gemm takes rows of its weight's type that begin at multiples of 16 bytes. An operand that is otherwise, or may be where it lies, is copied first.
class GemmOperand {
 public:
  GemmOperand() = default;
  // `view` at capacity, of a float type; `type`: of the products.
  GemmOperand(const core::TensorView& view, core::DType type);

  size_t workspace_bytes() const noexcept { return bytes_; }
  // The operand for a run: `view` itself, or its copy in `workspace`, which `cast` is to make.
  struct Ready {
    Rows rows;
    bool copied;
  };
  Ready ready(const core::TensorView& view, void* workspace) const;

 private:
  core::DType type_ = core::DType::float32;
  size_t bytes_ = 0;
};

// Rows of numbers that another kernel writes into the workspace for a product: of the weight's type, padded with zeros as the weight is.
class WorkspaceRows {
 public:
  WorkspaceRows(int64_t rows, int64_t columns, core::DType type) : stride_(linear_stride(columns)), rows_(rows), type_(type) {}
  size_t bytes() const { return static_cast<size_t>(rows_ * stride_) * core::size_of(type_); }
  Rows in(void* workspace) const { return {workspace, stride_, type_}; }
  int64_t rows() const noexcept { return rows_; }

 private:
  int64_t stride_, rows_;
  core::DType type_;
};

// out = x · weightᵀ, whose rows have `inner` numbers; the rest of the epilogue is the caller's.
inline Gemm product(const Rows& x, const Rows& weight, int64_t inner, const core::TensorView& out) {
  Gemm gemm{};
  gemm.x = x;
  gemm.weight = weight;
  gemm.out = rows_of(out);
  gemm.rows = gemm.period = out.rows();
  gemm.columns = out.columns();
  gemm.inner = inner;
  gemm.scale = 1;
  return gemm;
}

// --- int8 weights ---

// Their sums of products fit in an int32.
constexpr int64_t max_int8_columns = 65536;

// In memory: rows of linear_stride(columns) bytes, then a scale and a sum of bytes for each row.
struct Int8Layout {
  Int8Layout(int64_t rows, int64_t columns) noexcept;
  size_t row_bytes, scales, sums, bytes;  // scales, sums: where they begin
};

// Row [columns] to bytes of [−127, 127], with zeros up to `stride`. A row that is not finite gets the scale NaN.
void quantize_weight_row(const float* row, int64_t columns, int64_t stride, int8_t* bytes, float* scale, int32_t* sum) noexcept;

}  // namespace chiasma::cuda
