#include "cpu/gemm.h"

#include <algorithm>
#include <vector>

#include "core/error.h"

namespace chiasma::cpu {

namespace {

constexpr int64_t block_bytes = 512 << 10;  // of packed rows: they stay in the second-level cache beside two panels of the weight
constexpr int64_t max_block_rows = 192;
constexpr int64_t tasks_per_thread = 4;  // evens out threads that are slowed down by others

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }
int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// AMD's processors start a bf16 dot product every cycle, which doubles the rate of multiply-adds; Intel's at best every other cycle.
bool quick_dot() {
#if defined(__x86_64__) && defined(__GNUC__)
  __builtin_cpu_init();
  return __builtin_cpu_is("amd");
#else
  return false;
#endif
}

}  // namespace

const GemmFunctions& choose_gemm(const SimdKernels& simd) {
  static const bool dot = quick_dot();
  return simd.gemm->dot && !dot ? *simd.gemm->widened : *simd.gemm;
}

GemmType gemm_type(core::DType dtype) noexcept {
  return dtype == core::DType::int8 ? GemmType::int8 : dtype == core::DType::bfloat16 ? GemmType::bfloat16 : GemmType::float32;
}

Gemm::Gemm(const GemmFunctions& functions, int64_t n, int64_t k, GemmType weight_type, int threads)
    : functions_(functions), n_(n), k_(k), weight_type_(weight_type), threads_(std::max(threads, 1)) {
  row_bytes_ = static_cast<int64_t>(functions.row_bytes(k, weight_type));
  const int64_t fitting = std::min(block_bytes / std::max<int64_t>(row_bytes_, 1), max_block_rows);
  block_rows_ = functions.panel_rows * std::max<int64_t>(fitting / functions.panel_rows, 1);
  block_bytes_ = aligned(static_cast<size_t>(block_rows_ * row_bytes_));
  worker_bytes_ = block_bytes_ + aligned(functions.scratch_bytes(block_rows_));
}

void Gemm::run(const CpuStream& stream, void* workspace, int64_t groups, int64_t rows, const GemmBlock& first, int64_t out_group,
               const PackRows& pack) const {
  if (groups == 0 || rows == 0 || n_ == 0) return;
  if (stream.threads() > threads_) throw core::Error(core::ErrorCode::internal, "the stream has more threads than the kernel was made for");
  const int64_t panels = divide_up(n_, functions_.panel_columns);
  const int64_t row_blocks = divide_up(rows, block_rows_);
  // Columns are cut only where the rows give too few tasks, for each task packs its rows anew unless its thread has just done so.
  const int64_t wanted = stream.threads() > 1 ? tasks_per_thread * stream.threads() : 1;
  const int64_t column_blocks = std::min(divide_up(wanted, groups * row_blocks), panels);
  const int64_t out_size = first.out_type == GemmType::float32 ? 4 : 2;
  const int64_t residual_size = first.residual_type == GemmType::float32 ? 4 : 2;
  std::vector<int64_t> packed(static_cast<size_t>(stream.threads()), -1);  // the rows each thread holds, as group * row_blocks + block

  stream.parallel_for(groups * row_blocks * column_blocks, [&](int64_t task, int worker) {
    const int64_t row_block = task / column_blocks;
    const int64_t column_block = task % column_blocks;
    const int64_t group = row_block / row_blocks;
    const int64_t begin = row_block % row_blocks * rows / row_blocks;
    const int64_t count = (row_block % row_blocks + 1) * rows / row_blocks - begin;
    char* const x = static_cast<char*>(workspace) + static_cast<size_t>(worker) * worker_bytes_;
    if (packed[static_cast<size_t>(worker)] != row_block) {
      const int64_t row_panels = divide_up(count, functions_.panel_rows);
      for (int64_t i = 0; i < row_panels; ++i) {
        const int64_t row = i * count / row_panels;
        pack(group, begin + row, (i + 1) * count / row_panels - row, x + row * row_bytes_, worker);
      }
      packed[static_cast<size_t>(worker)] = row_block;
    }
    GemmBlock block = first;
    block.x = x;
    block.rows = count;
    block.scratch = x + block_bytes_;
    block.panel_begin = column_block * panels / column_blocks;
    block.panel_end = (column_block + 1) * panels / column_blocks;
    if (block.residual) block.residual = static_cast<const char*>(first.residual) + begin * first.residual_stride * residual_size;
    block.out = static_cast<char*>(first.out) + (group * out_group + begin * first.out_stride) * out_size;
    functions_.multiply(block);
  });
}

}  // namespace chiasma::cpu
