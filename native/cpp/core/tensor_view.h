// What a kernel sees of a tensor: memory, shape and dtype. Row-major. Only the step between consecutive rows of the last
// dimension may differ from the row's length (a view of some columns); kernels that cannot take that refuse it when made.
#pragma once

#include <array>
#include <cstdint>

#include "core/dtype.h"

namespace chiasma::core {

constexpr int max_rank = 6;

// plain: as the shape says. linear: packed by the device as a weight of `linear`; only the kernels that asked for it know how.
enum class Layout : uint8_t { plain, linear };

struct TensorView {
  void* data = nullptr;
  DType dtype = DType::float32;
  Layout layout = Layout::plain;
  int rank = -1;  // -1: an optional input that is absent
  std::array<int64_t, max_rank> shape{};
  int64_t row_stride = 0;  // elements from one row of the last dimension to the next

  bool present() const noexcept { return rank >= 0; }
  int64_t columns() const noexcept { return rank > 0 ? shape[rank - 1] : 1; }
  int64_t rows() const noexcept {
    int64_t n = 1;
    for (int i = 0; i + 1 < rank; ++i) n *= shape[i];
    return n;
  }
  int64_t size() const noexcept { return rows() * columns(); }
  bool contiguous() const noexcept { return rows() <= 1 || row_stride == columns(); }

  template <typename T>
  T* as() const noexcept {
    return static_cast<T*>(data);
  }
};

}  // namespace chiasma::core
