// Packed-panel matrix multiply, C = act(x·Wᵀ · scale + bias) + residual: the seam between `linear`, `matmul`, `patchEmbed` and the kernels.
// W [N, K] is packed into panels of `panel_columns` of its rows (columns of C); x [M, K] stays in rows, which are packed only where they are not
// of the product's type or their places are bad for caches. K is padded with zeros in both, N in W. Each element of C is one chain of additions
// over k in ascending order, from 0 to K, whatever the panel or block it stands in: where K is cut, the sums so far wait in memory, exact.
// Products are in the weight's type: x is rounded to it when packed.
//
// int8: a row of W is q·s with q in [-127, 127] and one scale s; a row of x, measured when it is packed, is (p − zero)·t with p in [0, 255]
// and t its range, zero included, over 255. A row of x with a number that is not finite makes a row of NaN. Where x is int8, its numbers are taken
// as they are: t is 1.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chiasma::cpu {

enum class GemmType : uint8_t { float32, bfloat16, int8 };
constexpr int64_t max_int8_depth = 1 << 16;  // K up to which the sums of products fit their 32 bits
enum class Activation : uint8_t { none, gelu, quick_gelu, gelu_tanh, relu, silu, tanh };

// An element of C that is not below or equal to its column's threshold.
struct GemmHit {
  float value;
  int32_t row, column;
};

// One block of C: `rows` packed rows against the weight's panels [panel_begin, panel_end). Pointers of the epilogue are those of C's
// first row and column; strides are in elements.
struct GemmBlock {
  const void* x;       // packed rows, or rows that are taken `as_is`
  int64_t x_pitch;     // bytes from one to the next
  int64_t first_row, rows;  // of C
  const void* weight;  // as pack_weight leaves it
  GemmType weight_type;
  int64_t n, k;
  int64_t panel_begin, panel_end;
  int64_t block_bytes;  // of x and of sums that are to stay in the second-level cache, each
  void* scratch;        // scratch_bytes(rows, k, weight_type, block_bytes) of it, 64-byte aligned

  float scale;
  const float* bias;  // [n] or null
  Activation activation;
  const void* residual;  // [C's rows, n] or null
  GemmType residual_type;
  int64_t residual_stride;
  void* out;  // [C's rows, n]
  GemmType out_type;
  int64_t out_stride;
  // What is wanted next, to be fetched into the second-level cache meanwhile, in place of the weight; null if nothing.
  const void* upcoming;
  int64_t upcoming_bytes;
  // If not 0: rows come in groups of so many, whose outputs begin out_group elements apart and which have one residual [group_rows, n].
  int64_t group_rows, out_group;
  // If `hits` is set, nothing is written to `out`: products, times `factors` of their rows, are compared with `thresholds` of their columns, and what
  // is above is listed, with its row in the block, and counted. There is room for all. `x` is of the weight's type, and there is nothing else to do.
  GemmHit* hits;
  int64_t* hit_count;
  const float *factors, *thresholds;
};

struct GemmFunctions {
  int64_t (*panel_columns)(GemmType weight_type);
  int64_t row_unit;  // blocks of rows begin at multiples of it, where smaller tiles would cost as much as whole ones
  bool dot;  // bf16 products by the processor's dot-product instruction, two k a step
  // Where `dot` is set: the same with bf16 widened to float, over the same packed weights. Quicker on processors that start few dot products.
  const GemmFunctions* widened;

  // Bytes of a packed weight [n, k].
  size_t (*weight_bytes)(int64_t n, int64_t k, GemmType type);
  // Packs rows [begin, begin + count) of a weight [n, k] into `packed`, weight_bytes(n, k, type) of it, 64-byte aligned. `rows` points at
  // row `begin`; `stride` is in elements. Rows may come in any pieces (32 or more at once are quickest); the last row's call fills the padding.
  void (*pack_weight)(const void* rows, GemmType rows_type, int64_t stride, int64_t begin, int64_t count, int64_t n, int64_t k, GemmType type,
                      void* packed);

  // Bytes of one packed row of x for a weight of this type: a multiple of 64, odd so that rows fall on different sets of a cache.
  size_t (*row_bytes)(int64_t k, GemmType weight_type);
  // Whether rows of x, `pitch` bytes apart, serve without packing.
  bool (*as_is)(GemmType x_type, int64_t pitch, int64_t k, GemmType weight_type);
  // Packs `rows` rows of x, row_bytes of each, 64-byte aligned.
  void (*pack_rows)(const void* x, GemmType x_type, int64_t stride, int64_t rows, int64_t k, GemmType weight_type, void* packed);

  // What a block of so many rows needs beside its operands.
  size_t (*scratch_bytes)(int64_t rows, int64_t k, GemmType weight_type, int64_t block_bytes);
  void (*multiply)(const GemmBlock& block);
};

#ifdef CHIASMA_ISA
namespace CHIASMA_ISA {
extern const GemmFunctions gemm_functions;
}
#endif

}  // namespace chiasma::cpu
