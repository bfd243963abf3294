// Views for the loops of simd/, and the sizes of tasks.
#include "cpu/operands.h"

#include <algorithm>

namespace chiasma::cpu {

using core::DType;
using core::TensorView;

namespace {

constexpr int64_t task_elements = 1 << 15;  // work below this is not worth handing to another thread
constexpr int64_t line_elements = 64;       // pieces of a flat tensor begin at multiples of this: no cache line is written by two threads

RowType row_type(DType dtype) noexcept {
  switch (dtype) {
    case DType::bfloat16:
      return RowType::bfloat16;
    case DType::int32:
      return RowType::int32;
    case DType::uint8:
      return RowType::uint8;
    default:
      return RowType::float32;
  }
}

int64_t size_of(RowType type) noexcept {
  constexpr int64_t sizes[] = {4, 2, 4, 1};  // as RowType orders them
  return sizes[static_cast<size_t>(type)];
}

}  // namespace

InRows in_rows(const TensorView& view) noexcept { return {view.data, row_type(view.dtype), view.row_stride}; }
OutRows out_rows(const TensorView& view) noexcept { return {view.data, row_type(view.dtype), view.row_stride}; }

InRows at(InRows rows, int64_t row, int64_t column) noexcept {
  rows.data = static_cast<const char*>(rows.data) + (row * rows.stride + column) * size_of(rows.type);
  return rows;
}
OutRows at(OutRows rows, int64_t row, int64_t column) noexcept {
  rows.data = static_cast<char*>(rows.data) + (row * rows.stride + column) * size_of(rows.type);
  return rows;
}

void for_pieces(const core::KernelArguments& arguments, int64_t count, int64_t cost, core::FunctionRef<void(int64_t, int64_t, int)> body) {
  if (count <= 0) return;
  const int64_t items = std::max<int64_t>(task_elements / std::max<int64_t>(cost, 1), 1);  // of one task
  const int64_t tasks = (count + items - 1) / items;
  if (tasks == 1) return body(0, count, 0);
  static_cast<const CpuStream&>(arguments.stream).parallel_for(tasks, [&](int64_t task, int worker) {
    body(task * items, std::min((task + 1) * items, count), worker);
  });
}

void for_elements(const core::KernelArguments& arguments, bool flat, int64_t rows, int64_t columns, int64_t cost,
                  core::FunctionRef<void(int64_t, int64_t, int64_t, int64_t)> body) {
  if (!flat) {
    return for_pieces(arguments, rows, columns * cost, [&](int64_t begin, int64_t end, int) { body(begin, 0, end - begin, columns); });
  }
  const int64_t size = rows * columns;
  for_pieces(arguments, (size + line_elements - 1) / line_elements, line_elements * cost, [&](int64_t begin, int64_t end, int) {
    body(0, begin * line_elements, 1, std::min(end * line_elements, size) - begin * line_elements);
  });
}

}  // namespace chiasma::cpu
