// Sentences of refusals.
#include "core/operands.h"

#include <algorithm>

#include "core/checked.h"

namespace chiasma::core {

namespace {

bool contains(const std::vector<DType>& types, DType dtype) { return std::find(types.begin(), types.end(), dtype) != types.end(); }

std::string texts(const std::vector<DType>& types) {
  std::string text;
  for (const DType dtype : types) text += (text.empty() ? "" : " or ") + std::string(name_of(dtype));
  return text;
}

}  // namespace

Operands::Operands(const KernelSpec& spec, std::initializer_list<std::string_view> names, size_t outputs) : spec_(spec), names_(names.begin(), names.end()) {
  if (spec.inputs.size() != names_.size() || spec.outputs.size() != outputs) {
    refuse(ErrorCode::argument, std::to_string(spec.inputs.size()) + " inputs and " + std::to_string(spec.outputs.size()) + " outputs; expected " +
                                    std::to_string(names_.size()) + " and " + std::to_string(outputs));
  }
  for (size_t i = 0; i < names_.size(); ++i) {
    const bool optional = names_[i].back() == '?', packed = names_[i].back() == '*';
    if (optional || packed) names_[i].pop_back();
    if (!optional && !input(i).present()) refuse(ErrorCode::argument, names_[i] + " is missing");
    if (packed && input(i).layout != Layout::linear) refuse(ErrorCode::unsupported, names_[i] + " is not a weight of role 'linear'");
    if (packed) rank(i, 2, "[outputs, inputs]");
    if (!packed && input(i).layout != Layout::plain) refuse(ErrorCode::argument, names_[i] + " is a packed weight; expected a plain one");
  }
  for (const TensorView& output : spec.outputs) {
    if (!output.present()) refuse(ErrorCode::argument, "the output is missing");
  }
}

void Operands::refuse(ErrorCode code, const std::string& message) const { throw Error(code, "[" + spec_.op + "] " + message); }

void Operands::refuse_shape(size_t i, const std::string& expected) const {
  refuse(ErrorCode::shape, names_[i] + " is " + shape_text(input(i)) + "; expected " + expected);
}

void Operands::dtype(size_t i, const std::vector<DType>& allowed) const {
  if (!input(i).present() || contains(allowed, input(i).dtype)) return;
  refuse(ErrorCode::dtype, names_[i] + " is " + name_of(input(i).dtype) + "; expected " + texts(allowed));
}

std::vector<DType> Operands::float_types() const {
  std::vector<DType> types = {DType::float32, DType::bfloat16};
  if (spec_.f16) types.push_back(DType::float16);
  return types;
}

void Operands::floats(size_t i) const { dtype(i, float_types()); }

void Operands::weight(size_t i) const {
  std::vector<DType> types = float_types();
  types.push_back(DType::int8);
  dtype(i, types);
}

void Operands::rank(size_t i, int rank, const char* expected) const {
  if (input(i).present() && input(i).rank != rank) refuse_shape(i, expected);
}

void Operands::row(size_t i, int64_t columns) const {
  dtype(i, {DType::float32});
  if (input(i).present() && (input(i).rank != 1 || input(i).shape[0] != columns)) refuse_shape(i, text_of({columns}));
}

void Operands::result_type() const {
  const DType dtype = parse_dtype(spec_.attributes.string("dtype"));
  if (!contains(float_types(), dtype)) {
    refuse(ErrorCode::dtype, std::string("dtype is ") + name_of(dtype) + "; expected " + texts(float_types()));
  }
  if (output().dtype != dtype) {
    refuse(ErrorCode::dtype, std::string("the output is ") + name_of(output().dtype) + "; expected " + name_of(dtype));
  }
}

void Operands::result(const std::vector<int64_t>& shape) const {
  result_type();
  if (output().rank != static_cast<int>(shape.size()) || !std::equal(shape.begin(), shape.end(), output().shape.begin())) {
    refuse(ErrorCode::shape, "the output is " + shape_text(output()) + "; expected " + text_of(shape));
  }
}

void Operands::result_rows(int64_t rows, int64_t columns) const {
  result_type();
  if (output().rank < 1 || output().columns() != columns || output().rows() != rows) {
    refuse(ErrorCode::shape, "the output has " + std::to_string(output().rows()) + " rows of " + std::to_string(output().columns()) + "; expected " +
                                 std::to_string(rows) + " of " + std::to_string(columns));
  }
}

void Operands::result_like(size_t i) const { result({input(i).shape.begin(), input(i).shape.begin() + input(i).rank}); }

int parse_choice(const KernelSpec& spec, const char* attribute, std::initializer_list<std::string_view> names) {
  const std::string& value = spec.attributes.string(attribute);
  const auto found = std::find(names.begin(), names.end(), value);
  if (found != names.end()) return static_cast<int>(found - names.begin());
  std::string expected;
  for (const std::string_view name : names) expected += (expected.empty() ? "'" : ", '") + std::string(name) + "'";
  throw Error(ErrorCode::argument, "[" + spec.op + "] " + attribute + " is '" + value + "'; expected one of " + expected);
}

std::string shape_text(const TensorView& view) { return text_of({view.shape.begin(), view.shape.begin() + std::max(view.rank, 0)}); }

int64_t check_sequences(const Operands& operands, const KernelSpec& spec, size_t i, size_t of, const char* attribute) {
  const TensorView& cumulative = operands.input(i);
  const int64_t length = spec.attributes.integer(attribute, 0);
  operands.dtype(i, {DType::int32});
  operands.rank(i, 1, "[sequences + 1]");
  if (cumulative.present()) {
    if (cumulative.shape[0] < 1) operands.refuse_shape(i, "[sequences + 1]");
    if (length != 0) operands.refuse(ErrorCode::argument, operands.name(i) + " and " + attribute + " are both given; expected one of them");
  } else {
    if (length <= 0) {
      operands.refuse(ErrorCode::argument, std::string(attribute) + " is " + std::to_string(length) + " and " + operands.name(i) + " is absent; expected one of them");
    }
    if (operands.input(of).rows() % length != 0) operands.refuse_shape(of, "a multiple of " + std::to_string(length) + " rows");
  }
  return length;
}

int64_t sequence_count(const TensorView& cumulative, int64_t length, int64_t rows) noexcept {
  return cumulative.present() ? cumulative.shape[0] - 1 : rows / length;
}

void check_run(bool right, std::string_view op, const char* message) {
  if (!right) throw Error(ErrorCode::shape, "[" + std::string(op) + "] " + message);
}

void check_same(std::string_view op, const KernelArguments& arguments) {
  const TensorView& x = arguments.inputs[0];
  const TensorView& out = arguments.outputs[0];
  check_run(x.rows() == out.rows() && x.columns() == out.columns(), op, "the input and the output have different counts");
}

}  // namespace chiasma::core
