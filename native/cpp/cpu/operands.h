// What kernels that work row by row share: views as InRows and OutRows, work cut into tasks.
#pragma once

#include <cstdint>

#include "core/function_ref.h"
#include "core/operands.h"
#include "cpu/cpu_device.h"
#include "cpu/simd/rows.h"

namespace chiasma::cpu {

using core::check_run;
using core::check_same;
using core::Operands;
using core::parse_choice;

InRows in_rows(const core::TensorView& view) noexcept;
OutRows out_rows(const core::TensorView& view) noexcept;
// The same, from row `row` and column `column` on.
InRows at(InRows rows, int64_t row, int64_t column = 0) noexcept;
OutRows at(OutRows rows, int64_t row, int64_t column = 0) noexcept;

// Calls body(begin, end, worker) for pieces of [0, count), on the caller's thread alone where `count * cost` is little. cost: elements moved by
// one item, or as many as take its time.
void for_pieces(const core::KernelArguments& arguments, int64_t count, int64_t cost, core::FunctionRef<void(int64_t begin, int64_t end, int worker)> body);

// for_pieces over an elementwise op: body(first row, first column, rows, columns). Tensors without gaps are one row, cut by columns.
void for_elements(const core::KernelArguments& arguments, bool flat, int64_t rows, int64_t columns, int64_t cost,
                  core::FunctionRef<void(int64_t row, int64_t column, int64_t rows, int64_t columns)> body);

}  // namespace chiasma::cpu
