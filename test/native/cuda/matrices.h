// Matrices for tests of kernels: random numbers in a type, with a row stride, in device memory, and as float64 beside it.
#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <type_traits>
#include <vector>

#include "cuda/number.cuh"
#include "cuda/rows.cuh"
#include "device_array.h"

namespace chiasma::test {

template <class T>
constexpr core::DType dtype_of = std::is_same_v<T, float>        ? core::DType::float32
                                 : std::is_same_v<T, cuda::bf16> ? core::DType::bfloat16
                                 : std::is_same_v<T, cuda::f16>  ? core::DType::float16
                                                                 : core::DType::int8;

template <class T>
T rounded(float x) {
  if constexpr (std::is_same_v<T, int8_t>) {
    return static_cast<int8_t>(std::lround(x));
  } else {
    return cuda::round_to<T>(x);
  }
}

// [rows, columns], standard normal times `size`; what lies between rows is NaN.
template <class T>
class Matrix {
 public:
  Matrix(int64_t rows, int64_t columns, int64_t stride, uint32_t seed, float size = 1, int64_t offset = 0)
      : rows(rows), columns(columns), stride(stride), offset(offset), values(static_cast<size_t>(rows * columns)), memory_(fill(seed, size)) {}

  double at(int64_t row, int64_t column) const { return values[static_cast<size_t>(row * columns + column)]; }
  cuda::Rows view() const { return {memory_.get() + offset, stride, dtype_of<T>}; }
  T* data() const { return memory_.get() + offset; }
  // What is in device memory now.
  std::vector<T> read() const {
    const std::vector<T> all = memory_.read();
    std::vector<T> result;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) result.push_back(all[static_cast<size_t>(offset + r * stride + c)]);
    }
    return result;
  }

  const int64_t rows, columns, stride, offset;
  std::vector<double> values;

 private:
  std::vector<T> fill(uint32_t seed, float size) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<T> all(static_cast<size_t>(offset + rows * stride));
    for (T& value : all) value = std::is_same_v<T, int8_t> ? T{} : rounded<T>(std::is_same_v<T, int8_t> ? 0.0f : NAN);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) {
        const T value = rounded<T>(normal(random) * size);
        all[static_cast<size_t>(offset + r * stride + c)] = value;
        values[static_cast<size_t>(r * columns + c)] = static_cast<double>(cuda::to_float(value));
      }
    }
    return all;
  }

  DeviceArray<T> memory_;
};

}  // namespace chiasma::test
