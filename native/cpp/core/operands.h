// Checks of a step's operands and attributes, made when its kernel is. They say op, operand, what came and what was expected.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"
#include "core/kernel.h"

namespace chiasma::core {

// A spec's operands by position. Each check throws Error that names op and operand.
class Operands {
 public:
  // Refuses another number of inputs than `names`, an absent one whose name does not end in '?', packed weights but where a name ends in '*' and asks for one
  // ([outputs, inputs]), and another number of outputs than `outputs`.
  Operands(const KernelSpec& spec, std::initializer_list<std::string_view> names, size_t outputs = 1);

  const std::string& name(size_t i) const { return names_[i]; }
  const TensorView& input(size_t i) const { return spec_.inputs[i]; }
  const TensorView& output(size_t i = 0) const { return spec_.outputs[i]; }

  void dtype(size_t i, const std::vector<DType>& allowed) const;  // absent is fine
  void floats(size_t i) const;  // a float type of the device
  void weight(size_t i) const;  // of role `linear`: a float type of the device, or int8
  void rank(size_t i, int rank, const char* expected) const;
  void row(size_t i, int64_t columns) const;  // absent, or float32 [columns]
  // The output has this shape and the dtype of the attribute `dtype`, a float type of the device.
  void result(const std::vector<int64_t>& shape) const;
  void result_like(size_t i) const;
  void result_rows(int64_t rows, int64_t columns) const;  // whatever its rank

  [[noreturn]] void refuse(ErrorCode code, const std::string& message) const;
  [[noreturn]] void refuse_shape(size_t i, const std::string& expected) const;

 private:
  std::vector<DType> float_types() const;
  void result_type() const;

  const KernelSpec& spec_;
  std::vector<std::string> names_;
};

// `name` as one of `names`' positions; throws Error naming op and attribute.
int parse_choice(const KernelSpec& spec, const char* attribute, std::initializer_list<std::string_view> names);

std::string shape_text(const TensorView& view);

// Sequences of the packed rows of input `of`: input `i` is int32 [sequences + 1], the attribute is positive where that is absent, and 0 else. Returns the attribute.
int64_t check_sequences(const Operands& operands, const KernelSpec& spec, size_t i, size_t of = 0, const char* attribute = "length");
// How many there are, at capacity or at a run.
int64_t sequence_count(const TensorView& cumulative, int64_t length, int64_t rows) noexcept;

// Throws Error(shape) if a run's counts do not fit together; check_same: if the input and the output have different rows or columns.
void check_run(bool right, std::string_view op, const char* message);
void check_same(std::string_view op, const KernelArguments& arguments);

}  // namespace chiasma::core
