// Where the sequences of packed rows begin: by cumulative lengths `cuSeqlens` int32 [S + 1], or all of one length.
#pragma once

#include <cstdint>

#include "core/kernel.h"

namespace chiasma::cpu {

class Sequences {
 public:
  // At a run, of `rows` rows of the operand `of`. Throws Error(argument) if the lengths, of the operand `name`, do not start at 0, decrease, or end behind them.
  Sequences(const char* op, const core::TensorView& cumulative, int64_t length, int64_t rows, const char* name = "cuSeqlens", const char* of = "x");

  int64_t count() const noexcept { return count_; }
  int64_t begin(int64_t s) const noexcept { return cumulative_ ? cumulative_[s] : s * length_; }
  int64_t length(int64_t s) const noexcept { return cumulative_ ? cumulative_[s + 1] - cumulative_[s] : length_; }
  int64_t end() const noexcept { return begin(count_); }
  int64_t longest() const noexcept { return longest_; }

 private:
  const int32_t* cumulative_ = nullptr;
  int64_t length_;
  int64_t count_;
  int64_t longest_ = 0;
};

}  // namespace chiasma::cpu
