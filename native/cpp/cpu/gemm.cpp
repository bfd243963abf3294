#include "cpu/gemm.h"

#include <algorithm>

#include "core/error.h"
#include "cpu/processor.h"

namespace chiasma::cpu {

namespace {

constexpr int64_t depth_bytes = 3072;        // of a row of x that a block multiplies before it goes on to the next part of the depth
constexpr int64_t min_block_rows = 64;       // fewer would read the weight too often
constexpr int64_t brief_packing = 16 << 10;  // elements of x that a thread packs sooner than threads have waited for each other
constexpr int64_t packing_columns = 768;     // of a product beside which one thread more that packs the same rows matters little
constexpr int64_t stolen_columns = 192;      // of a product beside which packing its rows once more matters little
constexpr int64_t tasks_per_thread = 4;      // evens out threads that are slowed down by others

constexpr size_t line_bytes = 64;

size_t aligned(size_t bytes) { return (bytes + line_bytes - 1) / line_bytes * line_bytes; }
int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// AMD's processors start a bf16 dot product every cycle, which doubles the rate of multiply-adds; Intel's at best every other cycle.
bool quick_dot() { return processor_vendor() == "AuthenticAMD"; }

}  // namespace

// Large blocks read the weight from memory less often, but leave less to even out threads with. Beside them the cache holds panels of the weight.
int64_t gemm_block_bytes() {
  static const int64_t bytes = std::clamp<int64_t>(second_cache_bytes() * 2 / 3, 64 << 10, 704 << 10);
  return bytes;
}

const GemmFunctions& choose_gemm(const SimdKernels& simd) {
  static const bool dot = quick_dot();
  return simd.gemm->widened && !dot ? *simd.gemm->widened : *simd.gemm;
}

GemmType gemm_type(core::DType dtype) noexcept {
  return dtype == core::DType::int8 ? GemmType::int8 : dtype == core::DType::bfloat16 ? GemmType::bfloat16 : GemmType::float32;
}

Gemm::Gemm(const GemmFunctions& functions, int64_t n, int64_t k, GemmType weight_type, int threads, int packing_cost)
    : functions_(functions), n_(n), k_(k), weight_type_(weight_type), threads_(std::max(threads, 1)), packing_cost_(packing_cost) {
  row_bytes_ = static_cast<int64_t>(functions.row_bytes(k, weight_type));
  block_rows_ = std::max(gemm_block_bytes() / std::min(row_bytes_, depth_bytes), min_block_rows);
  packed_bytes_ = static_cast<size_t>((block_rows_ + functions.row_unit) * row_bytes_);
  worker_bytes_ = packed_bytes_ + aligned(functions.scratch_bytes(block_rows_ + functions.row_unit, k, weight_type, gemm_block_bytes())) + line_bytes;
}

size_t Gemm::workspace_bytes() const { return static_cast<size_t>(threads_) * worker_bytes_; }

void Gemm::run(const CpuStream& stream, void* workspace, int64_t rows, const GemmBlock& all, PackRows pack) const {
  if (rows == 0 || n_ == 0) return;
  stream.check_threads(threads_);
  const int64_t panels = divide_up(n_, functions_.panel_columns(weight_type_));
  const int64_t wanted = stream.threads() > 1 ? tasks_per_thread * stream.threads() : 1;
  // As many blocks of rows as caches ask for, a multiple of the threads if that leaves enough rows in each.
  int64_t row_blocks = divide_up(rows, block_rows_);
  const int64_t even = divide_up(row_blocks, stream.threads()) * stream.threads();
  if (rows / even >= min_block_rows) row_blocks = even;
  const int64_t unit = functions_.row_unit;
  // The rows of a single block are packed by all threads together, unless it is quicker that each does it for itself: without waiting for the others,
  // and into its own caches.
  const bool brief = rows * k_ * packing_cost_ <= brief_packing || n_ >= packing_columns * packing_cost_ * (stream.threads() - 1);
  const bool together = pack && row_blocks == 1 && !brief;
  // Columns are cut where that gives too few tasks. Where each thread has rows to pack, another would have to pack them for itself: into as many as are worth that.
  int64_t column_blocks = std::min(divide_up(wanted, row_blocks), panels);
  if (pack && row_blocks > 1 && row_blocks >= stream.threads()) column_blocks = std::clamp<int64_t>(n_ / (stolen_columns * packing_cost_), 1, column_blocks);
  char* const memory = static_cast<char*>(workspace);
  if (together) {
    const int64_t parts = std::min<int64_t>(rows, wanted);
    stream.parallel_for(parts, [&](int64_t part, int worker) {
      const int64_t begin = part * rows / parts;
      pack(begin, (part + 1) * rows / parts - begin, memory + begin * row_bytes_, worker);
    });
  }
  // The block of rows that a thread has packed, in a cache line of its own.
  const auto packed_block = [&](int worker) -> int64_t& { return *reinterpret_cast<int64_t*>(memory + static_cast<size_t>(worker + 1) * worker_bytes_ - line_bytes); };
  for (int worker = 0; worker < stream.threads(); ++worker) packed_block(worker) = -1;
  // All columns of a block of rows come after each other: who has packed its rows mostly multiplies them.
  stream.parallel_for(row_blocks * column_blocks, [&](int64_t task, int worker) {
    const int64_t row_block = task / column_blocks, column_block = task % column_blocks;
    const auto block_begin = [&](int64_t b) { return b < row_blocks ? b * rows / row_blocks / unit * unit : rows; };
    GemmBlock block = all;
    block.first_row = block_begin(row_block);
    block.rows = block_begin(row_block + 1) - block.first_row;
    block.block_bytes = gemm_block_bytes();
    char* const own = memory + static_cast<size_t>(worker) * worker_bytes_;
    block.scratch = own + packed_bytes_;
    if (pack) {
      block.x = together ? memory : own;
      block.x_pitch = row_bytes_;
      if (!together && packed_block(worker) != row_block) {
        pack(block.first_row, block.rows, own, worker);
        packed_block(worker) = row_block;
      }
    } else {
      block.x = static_cast<const char*>(all.x) + block.first_row * all.x_pitch;
    }
    block.panel_begin = column_block * panels / column_blocks;
    block.panel_end = (column_block + 1) * panels / column_blocks;
    functions_.multiply(block);
  });
}

}  // namespace chiasma::cpu
