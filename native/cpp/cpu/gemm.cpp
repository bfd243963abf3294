#include "cpu/gemm.h"

#include <algorithm>
#include <string>
#include <vector>

#include "core/error.h"
#include "cpu/processor.h"

namespace chiasma::cpu {

namespace {

constexpr int64_t depth_bytes = 3072;    // of a row of x that a block multiplies before it goes on to the next part of the depth
constexpr int64_t min_block_rows = 64;   // fewer would read the weight too often
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

// Of x, and of sums: a third of the second-level cache each, beside panels of the weight.
int64_t block_bytes() {
  static const int64_t bytes = second_cache_bytes() / 3;
  return bytes;
}

}  // namespace

const GemmFunctions& choose_gemm(const SimdKernels& simd) {
  static const bool dot = quick_dot();
  return simd.gemm->widened && !dot ? *simd.gemm->widened : *simd.gemm;
}

using core::DType;
using core::ErrorCode;
using core::TensorView;

OperandCheck::OperandCheck(const core::KernelSpec& spec, std::initializer_list<const char*> names) : spec_(spec), names_(names) {
  if (spec.inputs.size() != names.size() || spec.outputs.size() != 1) {
    refuse(ErrorCode::argument, std::to_string(spec.inputs.size()) + " inputs and " + std::to_string(spec.outputs.size()) +
                                    " outputs; expected " + std::to_string(names.size()) + " and 1");
  }
}

void OperandCheck::refuse(ErrorCode code, const std::string& message) const { throw core::Error(code, "[" + spec_.op + "] " + message); }

GemmType OperandCheck::floats(int i) const {
  const TensorView& view = input(i);
  const std::string name = names_[static_cast<size_t>(i)];
  if (!view.present()) refuse(ErrorCode::argument, name + " is absent");
  if (view.dtype == DType::float32) return GemmType::float32;
  if (view.dtype == DType::bfloat16) return GemmType::bfloat16;
  refuse(ErrorCode::dtype, name + " is " + core::name_of(view.dtype) + "; expected float32 or bfloat16");
}

GemmType OperandCheck::weight(int i) const {
  const GemmType type = input(i).dtype == DType::int8 ? GemmType::int8 : floats(i);
  if (input(i).layout != core::Layout::linear) refuse(ErrorCode::unsupported, std::string(names_[static_cast<size_t>(i)]) + " is not a weight of role 'linear'");
  shape(input(i).rank == 2, i, "[outputs, inputs]");
  return type;
}

void OperandCheck::plain_row(int i, int64_t n) const {
  const TensorView& view = input(i);
  if (!view.present()) return;
  if (view.dtype != DType::float32) {
    refuse(ErrorCode::dtype, std::string(names_[static_cast<size_t>(i)]) + " is " + core::name_of(view.dtype) + "; expected float32");
  }
  shape(view.rank == 1 && view.shape[0] == n, i, "[" + std::to_string(n) + "]");
}

GemmType OperandCheck::result() const {
  const DType dtype = output().dtype;
  const std::string& wanted = spec_.attributes.string("dtype");
  if (wanted != core::name_of(dtype)) refuse(ErrorCode::dtype, "the output is " + std::string(core::name_of(dtype)) + ", but the attribute dtype is " + wanted);
  if (dtype == DType::float32) return GemmType::float32;
  if (dtype == DType::bfloat16) return GemmType::bfloat16;
  refuse(ErrorCode::dtype, "the output is " + wanted + "; expected float32 or bfloat16");
}

void OperandCheck::shape(bool right, int i, const std::string& expected) const {
  if (right) return;
  std::string text = "[";
  for (int d = 0; d < input(i).rank; ++d) text += (d ? ", " : "") + std::to_string(input(i).shape[static_cast<size_t>(d)]);
  refuse(ErrorCode::shape, std::string(names_[static_cast<size_t>(i)]) + " is " + text + "]; expected " + expected);
}

void OperandCheck::result_shape(int64_t rows, int64_t n) const {
  if (output().rank < 1 || output().columns() != n || output().rows() != rows) {
    refuse(ErrorCode::shape, "the output has " + std::to_string(output().rows()) + " rows of " + std::to_string(output().columns()) + "; expected " +
                                 std::to_string(rows) + " of " + std::to_string(n));
  }
}

Gemm::Gemm(const GemmFunctions& functions, int64_t n, int64_t k, GemmType weight_type, int threads)
    : functions_(functions), n_(n), k_(k), weight_type_(weight_type), threads_(std::max(threads, 1)) {
  row_bytes_ = static_cast<int64_t>(functions.row_bytes(k, weight_type));
  block_rows_ = std::max(block_bytes() / std::min(row_bytes_, depth_bytes), min_block_rows);
  packed_bytes_ = static_cast<size_t>(block_rows_ * row_bytes_);
  worker_bytes_ = packed_bytes_ + aligned(functions.scratch_bytes(block_rows_, k, weight_type, block_bytes()));
}

void Gemm::run(const CpuStream& stream, void* workspace, int64_t groups, int64_t rows, const GemmBlock& first, int64_t out_group,
               const PackRows& pack) const {
  if (groups == 0 || rows == 0 || n_ == 0) return;
  if (stream.threads() > threads_) throw core::Error(core::ErrorCode::internal, "the stream has more threads than the kernel was made for");
  const int64_t panels = divide_up(n_, functions_.panel_columns(weight_type_));
  const int64_t wanted = stream.threads() > 1 ? tasks_per_thread * stream.threads() : 1;
  // As many blocks of rows as caches ask for, a multiple of the threads if that leaves enough rows in each.
  int64_t row_blocks = divide_up(rows, block_rows_);
  const int64_t even = divide_up(groups * row_blocks, stream.threads()) * stream.threads();
  if (groups == 1 && rows / even >= min_block_rows) row_blocks = even;
  // Columns are cut where that gives too few tasks; not if each task had to pack its rows again.
  const bool alone = groups * row_blocks == 1;
  const int64_t column_blocks = pack && !alone && groups * row_blocks >= stream.threads() ? 1 : std::min(divide_up(wanted, groups * row_blocks), panels);
  const int64_t out_size = first.out_type == GemmType::float32 ? 4 : 2;
  const int64_t residual_size = first.residual_type == GemmType::float32 ? 4 : 2;
  char* const memory = static_cast<char*>(workspace);
  if (pack && alone) {
    const int64_t parts = std::min<int64_t>(rows, wanted);
    stream.parallel_for(parts, [&](int64_t part, int worker) {
      const int64_t begin = part * rows / parts;
      pack(0, begin, (part + 1) * rows / parts - begin, memory + begin * row_bytes_, worker);
    });
  }
  std::vector<int64_t> packed(static_cast<size_t>(stream.threads()), -1);  // the rows each thread holds, as group * row_blocks + block

  stream.parallel_for(groups * row_blocks * column_blocks, [&](int64_t task, int worker) {
    const int64_t row_block = task / column_blocks;
    const int64_t column_block = task % column_blocks;
    const int64_t group = row_block / row_blocks;
    const int64_t begin = row_block % row_blocks * rows / row_blocks;
    GemmBlock block = first;
    block.rows = (row_block % row_blocks + 1) * rows / row_blocks - begin;
    block.block_bytes = block_bytes();
    char* const own = memory + static_cast<size_t>(worker) * worker_bytes_;
    block.scratch = own + packed_bytes_;
    if (pack) {
      block.x = alone ? memory : own;
      block.x_pitch = row_bytes_;
      if (!alone && packed[static_cast<size_t>(worker)] != row_block) {
        pack(group, begin, block.rows, own, worker);
        packed[static_cast<size_t>(worker)] = row_block;
      }
    } else {
      block.x = static_cast<const char*>(first.x) + begin * first.x_pitch;
    }
    block.panel_begin = column_block * panels / column_blocks;
    block.panel_end = (column_block + 1) * panels / column_blocks;
    if (block.residual) block.residual = static_cast<const char*>(first.residual) + begin * first.residual_stride * residual_size;
    block.out = static_cast<char*>(first.out) + (group * out_group + begin * first.out_stride) * out_size;
    functions_.multiply(block);
  });
}

}  // namespace chiasma::cpu
