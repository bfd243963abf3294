// Checks of cumulative lengths.
#include "cpu/sequences.h"

#include <algorithm>
#include <string>

#include "cpu/operands.h"

namespace chiasma::cpu {

using core::Error;
using core::ErrorCode;
using core::TensorView;

int64_t Sequences::check(const Operands& operands, const core::KernelSpec& spec, size_t i, int64_t rows) {
  const TensorView& cumulative = operands.input(i);
  const int64_t length = spec.attributes.integer("length", 0);
  operands.dtype(i, {core::DType::int32});
  operands.rank(i, 1, "[sequences + 1]");
  if (cumulative.present()) {
    if (cumulative.shape[0] < 1) operands.refuse_shape(i, "[sequences + 1]");
    if (length != 0) operands.refuse(ErrorCode::argument, "cuSeqlens and length are both given; expected one of them");
  } else {
    if (length <= 0) operands.refuse(ErrorCode::argument, "length is " + std::to_string(length) + " and cuSeqlens is absent; expected one of them");
    if (rows % length != 0) operands.refuse_shape(0, "a multiple of " + std::to_string(length) + " rows");
  }
  return length;
}

int64_t Sequences::count(const TensorView& cumulative, int64_t length, int64_t rows) noexcept {
  return cumulative.present() ? cumulative.shape[0] - 1 : rows / length;
}

Sequences::Sequences(const char* op, const TensorView& cumulative, int64_t length, int64_t rows)
    : length_(length), count_(count(cumulative, length, rows)), longest_(length) {
  if (!cumulative.present()) {
    check_run(rows % length == 0, op, "the rows of x are no multiple of length");
    return;
  }
  cumulative_ = cumulative.as<const int32_t>();
  const auto refuse = [&](int64_t s, const std::string& expected) {
    throw Error(ErrorCode::argument, std::string("[") + op + "] cuSeqlens[" + std::to_string(s) + "] is " + std::to_string(cumulative_[s]) +
                                         "; expected " + expected);
  };
  check_run(count_ >= 0, op, "cuSeqlens is empty");
  if (cumulative_[0] != 0) refuse(0, "0");
  for (int64_t s = 0; s < count_; ++s) {
    const int64_t rows_of_s = int64_t{cumulative_[s + 1]} - cumulative_[s];
    if (rows_of_s < 0) refuse(s + 1, "at least " + std::to_string(cumulative_[s]) + ", as before it");
    longest_ = std::max(longest_, rows_of_s);
  }
  if (cumulative_[count_] > rows) refuse(count_, "at most " + std::to_string(rows) + ", the rows of x");
}

}  // namespace chiasma::cpu
