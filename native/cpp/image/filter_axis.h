// The weights of one resampling pass, as Pillow's precompute_coeffs makes them: for each output position a window of source positions and
// their weights in fixed point with 22 fractional bits. A weight is kept as low + high * 2^15, two 16-bit numbers, so that 16-bit
// multiply-add instructions give exact 32-bit sums.
#pragma once

#include <cstdint>
#include <vector>

#include "image/resize.h"

namespace chiasma::image {

constexpr int precision_bits = 22;
constexpr int low_bits = 15;
// Zeros after a window's last weight, so that vectors may reach over its end.
constexpr int weight_padding = 8;

// Source positions [first, first + count) and their weights.
struct Taps {
  int64_t first;
  int64_t count;
  const int16_t* low;
  const int16_t* high;
};

class FilterAxis {
 public:
  // Output positions [begin, end) of `out_size` over `in_size` source positions. `filter` is not nearest.
  FilterAxis(Filter filter, int64_t in_size, int64_t out_size, int64_t begin, int64_t end);

  int64_t first(int64_t out) const { return windows_[out - begin_].first; }
  int64_t end(int64_t out) const { return windows_[out - begin_].first + windows_[out - begin_].count; }

  // How many outputs' taps live at once: all of them, or one where a table would take too much memory.
  int64_t batch() const { return tabulated_ ? static_cast<int64_t>(windows_.size()) : 1; }
  // The taps of outputs out, out + 1, ..., batch() of them at most.
  const Taps* taps(int64_t out);
  // The taps of `out` at source positions [from, to) only, a part of its window.
  Taps taps_within(int64_t out, int64_t from, int64_t to);

 private:
  double weight(int64_t out, int64_t position) const;
  void fill(int64_t out, int64_t from, int64_t to, int16_t* low, int16_t* high) const;

  Filter filter_;
  int64_t begin_;
  double scale_;  // source positions for one output position
  double support_;
  double inverse_filter_scale_;  // 1 / max(scale, 1)
  std::vector<Taps> windows_;    // with weights where tabulated
  std::vector<double> sums_;     // of each window's weights before they are normalised
  bool tabulated_;
  Taps single_{};
  std::vector<int16_t> low_, high_;
};

}  // namespace chiasma::image
