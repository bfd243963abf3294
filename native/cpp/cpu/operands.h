// What kernels that work row by row share: checks of their operands, views as InRows and OutRows, work cut into tasks.
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/kernel.h"
#include "cpu/cpu_device.h"
#include "cpu/simd/rows.h"

namespace chiasma::cpu {

// A spec's operands by position. Each check throws Error that names op and operand.
class Operands {
 public:
  // Refuses another number of inputs than `names`, an absent one whose name does not end in '?', and another number of outputs than one.
  Operands(const core::KernelSpec& spec, std::initializer_list<std::string_view> names);

  const core::TensorView& input(size_t i) const { return spec_.inputs[i]; }
  const core::TensorView& output() const { return spec_.outputs[0]; }

  void dtype(size_t i, std::initializer_list<core::DType> allowed) const;  // absent is fine
  void floats(size_t i) const { dtype(i, {core::DType::float32, core::DType::bfloat16}); }
  void rank(size_t i, int rank, const char* expected) const;
  void row(size_t i, int64_t columns) const;  // absent, or float32 [columns]
  // The output has this shape and the dtype of the attribute `dtype`, float32 or bfloat16.
  void result(const std::vector<int64_t>& shape) const;
  void result_like(size_t i) const;

  [[noreturn]] void refuse(core::ErrorCode code, const std::string& message) const;
  [[noreturn]] void refuse_shape(size_t i, const std::string& expected) const;

 private:
  std::string name(size_t i) const;

  const core::KernelSpec& spec_;
  std::vector<std::string> names_;
};

// `name` as one of `names`' positions; throws Error naming op and attribute.
int parse_choice(const core::KernelSpec& spec, const char* attribute, std::initializer_list<std::string_view> names);

std::string shape_text(const core::TensorView& view);

InRows in_rows(const core::TensorView& view) noexcept;
OutRows out_rows(const core::TensorView& view) noexcept;
// The same, from row `row` and column `column` on.
InRows at(InRows rows, int64_t row, int64_t column = 0) noexcept;
OutRows at(OutRows rows, int64_t row, int64_t column = 0) noexcept;

// Throws Error(shape) if a run's counts do not fit together; check_same: if the input and the output have different rows or columns.
void check_run(bool right, const std::string& op, const char* message);
void check_same(const std::string& op, const core::KernelArguments& arguments);

// Calls body(begin, end) for pieces of [0, count), on the caller's thread alone where `count * cost` is little. cost: elements moved by
// one item, or as many as take its time.
void for_pieces(const core::KernelArguments& arguments, int64_t count, int64_t cost, const std::function<void(int64_t begin, int64_t end)>& body);

// for_pieces over an elementwise op: body(first row, first column, rows, columns). Tensors without gaps are one row, cut by columns.
void for_elements(const core::KernelArguments& arguments, bool flat, int64_t rows, int64_t columns, int64_t cost,
                  const std::function<void(int64_t row, int64_t column, int64_t rows, int64_t columns)>& body);

}  // namespace chiasma::cpu
