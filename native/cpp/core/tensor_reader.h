// Elements of a tensor in a file or in memory, in row-major order whatever its strides, in bounded memory.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/dtype.h"

namespace chiasma::core {

// Reads `bytes` at `offset` of the tensor's storage.
using StorageReader = std::function<void(int64_t offset, void* target, size_t bytes)>;

class TensorReader {
 public:
  // strides: elements, non-negative; empty for row-major. Throws Error(argument) if they do not fit the shape.
  TensorReader(DType dtype, std::vector<int64_t> shape, std::vector<int64_t> strides, StorageReader read);

  DType dtype() const noexcept { return dtype_; }
  int64_t size() const noexcept { return size_; }
  // Elements of storage the tensor reaches over, from its first on.
  int64_t span() const noexcept { return span_; }

  // Elements [begin, begin + count) of the row-major order into target, in the tensor's dtype.
  void read(int64_t begin, int64_t count, void* target);

 private:
  struct Dim {
    int64_t size, stride, target;  // target: stride in the order read
  };
  void read_strided(int64_t begin, int64_t count, char* target);
  void gather(const Dim* dims, size_t rank, int64_t offset, char* target);
  void scatter(const Dim* dims, size_t rank, const char* source, char* target) const;
  void scatter_row(const Dim& dim, const char* source, char* target) const;

  DType dtype_;
  size_t element_;
  std::vector<int64_t> shape_;
  std::vector<int64_t> strides_;  // empty for row-major
  int64_t size_ = 1;
  int64_t span_ = 1;
  StorageReader read_;
  std::vector<char> piece_;  // of storage
};

}  // namespace chiasma::core
