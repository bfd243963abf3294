// Loops over rows [rows, columns]: norms, softmax, element by element, rotary positions, pooling. Elements are read as float32 and rounded once to the
// output's type. What is computed of an element depends on its own row (pool: its own column and sequence) and the number of columns
// only. Sums over a row run over 4 · Vec::lanes columns at a time and are joined in one fixed order.
// Nothing outside the rows' columns is read or written. Input and output do not overlap.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chiasma::cpu {

enum class RowType : uint8_t { float32, bfloat16, int32, uint8 };
enum class UnaryKind : uint8_t { gelu, quick_gelu, gelu_tanh, relu, silu, tanh, sigmoid, exp, neg, sqrt, abs };
enum class BinaryKind : uint8_t { add, sub, mul, div };
enum class PoolMode : uint8_t { mean, max, mean_sqrt_len };

// Strides are in elements. A stride of 0 gives the same row again.
struct InRows {
  const void* data;
  RowType type;
  int64_t stride;
};
struct OutRows {
  void* data;
  RowType type;  // float32 or bfloat16
  int64_t stride;
};

// Rows of x that make one row of out: `rows` of them, by their numbers, and of each the row of weights that it meets.
struct WindowRows {
  const int64_t* rows;
  const int64_t* places;
  int64_t count;
};

struct RowFunctions {
  // weight, bias: [columns] or null.
  void (*layer_norm)(InRows x, OutRows out, int64_t rows, int64_t columns, const float* weight, const float* bias, float eps);
  void (*rms_norm)(InRows x, OutRows out, int64_t rows, int64_t columns, const float* weight, float eps);
  void (*l2_normalize)(InRows x, OutRows out, int64_t rows, int64_t columns, float eps);
  void (*softmax)(InRows x, OutRows out, int64_t rows, int64_t columns);

  void (*unary)(UnaryKind kind, InRows x, OutRows out, int64_t rows, int64_t columns);
  // b_scalar: a row of b has one element, which goes with all columns of a.
  void (*binary)(BinaryKind kind, InRows a, InRows b, bool b_scalar, OutRows out, int64_t rows, int64_t columns);
  // The only one that takes int32 and uint8. int32 goes through float32.
  void (*convert)(InRows x, OutRows out, int64_t rows, int64_t columns);

  // One row of heads [heads, head_size]: of each the first `rotated` columns by the angles [rotated / 2 cosines, then sines]; the others stay.
  void (*rotate)(InRows x, OutRows out, int64_t heads, int64_t head_size, int64_t rotated, const float* angles);

  // One sequence of `rows` rows into one row of out. Max: NaN where the column has one. Without rows: zeros.
  void (*pool)(PoolMode mode, InRows x, OutRows out, int64_t rows, int64_t columns);

  // One window each into one row of out. Sum of x · weights + bias, then the activation, where there is one; the mean, or the maximum as pool's.
  void (*depthwise)(InRows x, WindowRows window, const float* weights, int64_t weight_stride, const float* bias, const UnaryKind* activation, OutRows out,
                    int64_t columns);
  void (*pool_window)(bool max, InRows x, WindowRows window, OutRows out, int64_t columns);
  // x · scale + shift, with one row of scale and shift [columns] for all; shift may be null.
  void (*scale)(InRows x, const float* scale, const float* shift, OutRows out, int64_t rows, int64_t columns);
};

#ifdef CHIASMA_ISA
namespace CHIASMA_ISA {

extern const RowFunctions row_functions;

// rows_norm.cpp, rows_elementwise.cpp, rows_rotary.cpp, rows_pool.cpp, rows_window.cpp.
void layer_norm_rows(InRows x, OutRows out, int64_t rows, int64_t columns, const float* weight, const float* bias, float eps);
void rms_norm_rows(InRows x, OutRows out, int64_t rows, int64_t columns, const float* weight, float eps);
void l2_normalize_rows(InRows x, OutRows out, int64_t rows, int64_t columns, float eps);
void softmax_rows(InRows x, OutRows out, int64_t rows, int64_t columns);
void unary_rows(UnaryKind kind, InRows x, OutRows out, int64_t rows, int64_t columns);
void binary_rows(BinaryKind kind, InRows a, InRows b, bool b_scalar, OutRows out, int64_t rows, int64_t columns);
void convert_rows(InRows x, OutRows out, int64_t rows, int64_t columns);
void rotate_row(InRows x, OutRows out, int64_t heads, int64_t head_size, int64_t rotated, const float* angles);
void pool_rows(PoolMode mode, InRows x, OutRows out, int64_t rows, int64_t columns);
void depthwise_row(InRows x, WindowRows window, const float* weights, int64_t weight_stride, const float* bias, const UnaryKind* activation, OutRows out,
                   int64_t columns);
void pool_window_row(bool max, InRows x, WindowRows window, OutRows out, int64_t columns);
void scale_rows(InRows x, const float* scale, const float* shift, OutRows out, int64_t rows, int64_t columns);

}  // namespace CHIASMA_ISA
#endif

}  // namespace chiasma::cpu
