// Checks of cumulative lengths.
#include "cpu/sequences.h"

#include <algorithm>
#include <string>

#include "cpu/operands.h"

namespace chiasma::cpu {

using core::Error;
using core::ErrorCode;
using core::TensorView;

Sequences::Sequences(const char* op, const TensorView& cumulative, int64_t length, int64_t rows, const char* name, const char* of)
    : length_(length), count_(core::sequence_count(cumulative, length, rows)), longest_(length) {
  if (!cumulative.present()) {
    if (rows % length != 0) {
      throw Error(ErrorCode::shape, std::string("[") + op + "] " + std::to_string(rows) + " rows of " + of + " are no whole number of sequences of " + std::to_string(length));
    }
    return;
  }
  cumulative_ = cumulative.as<const int32_t>();
  const auto refuse = [&](int64_t s, const std::string& expected) {
    throw Error(ErrorCode::argument, std::string("[") + op + "] " + name + "[" + std::to_string(s) + "] is " + std::to_string(cumulative_[s]) +
                                         "; expected " + expected);
  };
  check_run(count_ >= 0, op, "cuSeqlens is empty");
  if (cumulative_[0] != 0) refuse(0, "0");
  for (int64_t s = 0; s < count_; ++s) {
    const int64_t rows_of_s = int64_t{cumulative_[s + 1]} - cumulative_[s];
    if (rows_of_s < 0) refuse(s + 1, "at least " + std::to_string(cumulative_[s]) + ", as before it");
    longest_ = std::max(longest_, rows_of_s);
  }
  if (cumulative_[count_] > rows) refuse(count_, "at most " + std::to_string(rows) + ", the rows of " + of);
}

}  // namespace chiasma::cpu
