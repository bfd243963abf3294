// Sentences of refusals, and the sizes of tasks.
#include "cpu/operands.h"

#include <algorithm>

#include "core/checked.h"

namespace chiasma::cpu {

using core::DType;
using core::Error;
using core::ErrorCode;
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

Operands::Operands(const core::KernelSpec& spec, std::initializer_list<std::string_view> names) : spec_(spec), names_(names.begin(), names.end()) {
  if (spec.inputs.size() != names_.size() || spec.outputs.size() != 1) {
    refuse(ErrorCode::argument, "expected " + std::to_string(names_.size()) + " inputs and 1 output; there are " +
                                    std::to_string(spec.inputs.size()) + " and " + std::to_string(spec.outputs.size()));
  }
  for (size_t i = 0; i < names_.size(); ++i) {
    const bool optional = names_[i].back() == '?';
    if (optional) names_[i].pop_back();
    if (!optional && !input(i).present()) refuse(ErrorCode::argument, names_[i] + " is missing");
    if (input(i).layout != core::Layout::plain) refuse(ErrorCode::argument, names_[i] + " is a packed weight; expected a plain one");
  }
  if (!output().present()) refuse(ErrorCode::argument, "the output is missing");
}

void Operands::refuse(ErrorCode code, const std::string& message) const { throw Error(code, "[" + spec_.op + "] " + message); }

void Operands::refuse_shape(size_t i, const std::string& expected) const {
  refuse(ErrorCode::shape, names_[i] + " is " + shape_text(input(i)) + "; expected " + expected);
}

void Operands::dtype(size_t i, std::initializer_list<DType> allowed) const {
  if (!input(i).present() || std::find(allowed.begin(), allowed.end(), input(i).dtype) != allowed.end()) return;
  std::string expected;
  for (const DType dtype : allowed) expected += (expected.empty() ? "" : " or ") + std::string(core::name_of(dtype));
  refuse(ErrorCode::dtype, names_[i] + " is " + core::name_of(input(i).dtype) + "; expected " + expected);
}

void Operands::rank(size_t i, int rank, const char* expected) const {
  if (input(i).present() && input(i).rank != rank) refuse_shape(i, expected);
}

void Operands::row(size_t i, int64_t columns) const {
  dtype(i, {DType::float32});
  if (input(i).present() && (input(i).rank != 1 || input(i).shape[0] != columns)) refuse_shape(i, core::text_of({columns}));
}

void Operands::result(const std::vector<int64_t>& shape) const {
  const DType dtype = core::parse_dtype(spec_.attributes.string("dtype"));
  if (dtype != DType::float32 && dtype != DType::bfloat16) {
    refuse(ErrorCode::dtype, std::string("dtype is ") + core::name_of(dtype) + "; expected float32 or bfloat16");
  }
  if (output().dtype != dtype) {
    refuse(ErrorCode::dtype, std::string("the output is ") + core::name_of(output().dtype) + "; expected " + core::name_of(dtype));
  }
  if (output().rank != static_cast<int>(shape.size()) || !std::equal(shape.begin(), shape.end(), output().shape.begin())) {
    refuse(ErrorCode::shape, "the output is " + shape_text(output()) + "; expected " + core::text_of(shape));
  }
}

void Operands::result_like(size_t i) const { result({input(i).shape.begin(), input(i).shape.begin() + input(i).rank}); }

int parse_choice(const core::KernelSpec& spec, const char* attribute, std::initializer_list<std::string_view> names) {
  const std::string& value = spec.attributes.string(attribute);
  const auto found = std::find(names.begin(), names.end(), value);
  if (found != names.end()) return static_cast<int>(found - names.begin());
  std::string expected;
  for (const std::string_view name : names) expected += (expected.empty() ? "'" : ", '") + std::string(name) + "'";
  throw Error(ErrorCode::argument, "[" + spec.op + "] " + attribute + " is '" + value + "'; expected one of " + expected);
}

std::string shape_text(const TensorView& view) { return core::text_of({view.shape.begin(), view.shape.begin() + std::max(view.rank, 0)}); }

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

void check_run(bool right, const std::string& op, const char* message) {
  if (!right) throw Error(ErrorCode::shape, "[" + op + "] " + message);
}

void check_same(const std::string& op, const core::KernelArguments& arguments) {
  const TensorView& x = arguments.inputs[0];
  const TensorView& out = arguments.outputs[0];
  check_run(x.rows() == out.rows() && x.columns() == out.columns(), op, "the input and the output have different counts");
}

void for_pieces(const core::KernelArguments& arguments, int64_t count, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
  if (count <= 0) return;
  const int64_t items = std::max<int64_t>(task_elements / std::max<int64_t>(cost, 1), 1);  // of one task
  const int64_t tasks = (count + items - 1) / items;
  if (tasks == 1) return body(0, count);
  static_cast<const CpuStream&>(arguments.stream).parallel_for(tasks, [&](int64_t task, int) {
    body(task * items, std::min((task + 1) * items, count));
  });
}

void for_elements(const core::KernelArguments& arguments, bool flat, int64_t rows, int64_t columns, int64_t cost,
                  const std::function<void(int64_t, int64_t, int64_t, int64_t)>& body) {
  if (!flat) {
    return for_pieces(arguments, rows, columns * cost, [&](int64_t begin, int64_t end) { body(begin, 0, end - begin, columns); });
  }
  const int64_t size = rows * columns;
  for_pieces(arguments, (size + line_elements - 1) / line_elements, line_elements * cost, [&](int64_t begin, int64_t end) {
    body(0, begin * line_elements, 1, std::min(end * line_elements, size) - begin * line_elements);
  });
}

}  // namespace chiasma::cpu
