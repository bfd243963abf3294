// Where the sequences of packed rows begin: by cumulative lengths `cuSeqlens` int32 [S + 1], or all of one length.
#pragma once

#include <cstdint>

#include "core/kernel.h"

namespace chiasma::cpu {

class Sequences {
 public:
  // At a run. Throws Error(argument) if the lengths do not start at 0, decrease, or end behind `rows`.
  Sequences(const char* op, const core::TensorView& cumulative, int64_t length, int64_t rows);

  int64_t count() const noexcept { return count_; }
  int64_t begin(int64_t s) const noexcept { return cumulative_ ? cumulative_[s] : s * length_; }
  int64_t length(int64_t s) const noexcept { return cumulative_ ? cumulative_[s + 1] - cumulative_[s] : length_; }
  int64_t longest() const noexcept { return longest_; }

 private:
  const int32_t* cumulative_ = nullptr;
  int64_t length_;
  int64_t count_;
  int64_t longest_ = 0;
};

}  // namespace chiasma::cpu
