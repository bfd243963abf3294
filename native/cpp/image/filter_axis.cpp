#include "image/filter_axis.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace chiasma::image {
namespace {

// Weights that one axis may tabulate: 4 bytes each, 16 MiB.
constexpr int64_t max_tabulated = int64_t{1} << 22;

double sinc(double x) {
  if (x == 0) return 1;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double support_of(Filter filter) {
  switch (filter) {
    case Filter::box:
      return 0.5;
    case Filter::bicubic:
      return 2;
    case Filter::lanczos:
      return 3;
    default:
      return 1;
  }
}

double evaluate(Filter filter, double x) {
  constexpr double a = -0.5;  // Keys' bicubic
  switch (filter) {
    case Filter::box:
      return x > -0.5 && x <= 0.5 ? 1 : 0;
    case Filter::hamming:
      x = std::abs(x);
      if (x == 0) return 1;
      if (x >= 1) return 0;
      x *= std::numbers::pi;
      // The window's constants are single precision in Pillow.
      return std::sin(x) / x * (0.54f + 0.46f * std::cos(x));
    case Filter::bicubic:
      x = std::abs(x);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
      return 0;
    case Filter::lanczos:
      return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
    default:
      x = std::abs(x);
      return x < 1 ? 1 - x : 0;
  }
}

}  // namespace

FilterAxis::FilterAxis(Filter filter, int64_t in_size, int64_t out_size, int64_t begin, int64_t end)
    : filter_(filter),
      begin_(begin),
      // The size goes through single precision in Pillow, which matters beyond 2^24.
      scale_(static_cast<double>(static_cast<float>(in_size)) / static_cast<double>(out_size)),
      support_(support_of(filter) * std::max(scale_, 1.0)),
      inverse_filter_scale_(1.0 / std::max(scale_, 1.0)) {
  int64_t total = 0;
  windows_.reserve(end - begin);
  for (int64_t out = begin; out < end; ++out) {
    const double center = (static_cast<double>(out) + 0.5) * scale_;
    // Truncation towards zero, as a C cast does it.
    const int64_t first = std::max<int64_t>(static_cast<int64_t>(center - support_ + 0.5), 0);
    const int64_t last = std::min<int64_t>(static_cast<int64_t>(center + support_ + 0.5), in_size);
    windows_.push_back({first, std::max<int64_t>(last - first, 0), nullptr, nullptr});
    total += windows_.back().count + weight_padding;
  }

  sums_.reserve(end - begin);
  for (int64_t out = begin; out < end; ++out) {
    double sum = 0;
    for (int64_t position = this->first(out); position < this->end(out); ++position) sum += weight(out, position);
    sums_.push_back(sum);
  }

  tabulated_ = total <= max_tabulated;
  if (!tabulated_) return;
  low_.resize(total);
  high_.resize(total);
  int64_t offset = 0;
  for (int64_t out = begin; out < end; ++out) {
    Taps& taps = windows_[out - begin];
    taps.low = low_.data() + offset;
    taps.high = high_.data() + offset;
    fill(out, taps.first, taps.first + taps.count, low_.data() + offset, high_.data() + offset);
    offset += taps.count + weight_padding;
  }
}

double FilterAxis::weight(int64_t out, int64_t position) const {
  const double center = (static_cast<double>(out) + 0.5) * scale_;
  return evaluate(filter_, (static_cast<double>(position) - center + 0.5) * inverse_filter_scale_);
}

void FilterAxis::fill(int64_t out, int64_t from, int64_t to, int16_t* low, int16_t* high) const {
  const double sum = sums_[out - begin_];
  for (int64_t position = from; position < to; ++position) {
    double w = weight(out, position);
    if (sum != 0) w /= sum;
    // Rounded half away from zero; a normalised weight is far below 2^9, so it fits.
    const auto fixed = static_cast<int32_t>((w < 0 ? -0.5 : 0.5) + w * (1 << precision_bits));
    low[position - from] = static_cast<int16_t>(fixed & ((1 << low_bits) - 1));
    high[position - from] = static_cast<int16_t>(fixed >> low_bits);
  }
}

const Taps* FilterAxis::taps(int64_t out) {
  if (tabulated_) return &windows_[out - begin_];
  single_ = taps_within(out, first(out), end(out));
  return &single_;
}

Taps FilterAxis::taps_within(int64_t out, int64_t from, int64_t to) {
  if (tabulated_) {
    const Taps& taps = windows_[out - begin_];
    return {from, to - from, taps.low + (from - taps.first), taps.high + (from - taps.first)};
  }
  low_.assign(to - from + weight_padding, 0);
  high_.assign(to - from + weight_padding, 0);
  fill(out, from, to, low_.data(), high_.data());
  return {from, to - from, low_.data(), high_.data()};
}

}  // namespace chiasma::image
