// Sizes that come from outside are multiplied and added only through these.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace chiasma::core {

// Elements and bytes stay below this, so that sums of a few of them cannot overflow either.
constexpr int64_t max_size = int64_t{1} << 48;

// a * b + c for non-negative numbers, or nothing where it passes max_size.
inline std::optional<int64_t> checked_size(int64_t a, int64_t b, int64_t c = 0) {
  if (a < 0 || b < 0 || c < 0 || a > max_size || b > max_size || c > max_size) return std::nullopt;
  if (b != 0 && a > max_size / b) return std::nullopt;
  const int64_t value = a * b + c;
  return value > max_size ? std::nullopt : std::optional(value);
}

// The product of the dimensions, 1 for a scalar.
inline std::optional<int64_t> checked_elements(const std::vector<int64_t>& shape) {
  std::optional<int64_t> n = 1;
  bool empty = false;
  for (const int64_t dim : shape) {
    if (dim < 0 || dim > max_size) return std::nullopt;
    empty = empty || dim == 0;
  }
  if (empty) return 0;
  for (const int64_t dim : shape) {
    if (n) n = checked_size(*n, dim);
  }
  return n;
}

inline std::string text_of(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace chiasma::core
