// Cuts a matrix multiply into blocks for the pool: what `linear`, `matmul` and `patchEmbed` share.
// A block is some rows of x against some or all of the weight's panels. Rows that are not taken as they lie are packed by each thread that takes them,
// or first by all threads together where that is quicker.
#pragma once

#include "core/function_ref.h"
#include "core/op_specs.h"
#include "cpu/cpu_device.h"
#include "cpu/simd/gemm.h"
#include "cpu/simd_kernels.h"

namespace chiasma::cpu {

// The matrix multiply for this processor: with the widened products where they are the quicker ones.
const GemmFunctions& choose_gemm(const SimdKernels& simd);

// Of x, and of sums, that are to stay in the second-level cache: GemmBlock::block_bytes.
int64_t gemm_block_bytes();

// float32, bfloat16 or int8.
GemmType gemm_type(core::DType dtype) noexcept;

class Gemm {
 public:
  // For weights [n, k] and at most `threads` threads. packing_cost: of an element of x, as a multiple of what GemmFunctions::pack_rows takes.
  Gemm(const GemmFunctions& functions, int64_t n, int64_t k, GemmType weight_type, int threads, int packing_cost = 1);

  const GemmFunctions& functions() const { return functions_; }
  GemmType weight_type() const { return weight_type_; }
  size_t workspace_bytes() const;

  // Packs rows [row, row + rows) of x.
  using PackRows = core::FunctionRef<void(int64_t row, int64_t rows, void* packed, int worker)>;

  // `rows` rows of x with the weight, epilogue and output that `all` has; without `pack` x and x_pitch too.
  void run(const CpuStream& stream, void* workspace, int64_t rows, const GemmBlock& all, PackRows pack) const;

 private:
  const GemmFunctions& functions_;
  int64_t n_, k_;
  GemmType weight_type_;
  int threads_, packing_cost_;
  int64_t row_bytes_;   // of a packed row of x
  int64_t block_rows_;  // at most
  size_t packed_bytes_, worker_bytes_;  // a packed block; the workspace of one thread: that and scratch
};

}  // namespace chiasma::cpu
