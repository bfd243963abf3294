// What the row tests share: matrices between guards, calls of one kernel on every instruction set, comparison with float64.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/error.h"
#include "cpu/cpu_device.h"
#include "test.h"

namespace chiasma::test {

using core::DType;
using core::ErrorCode;
using core::TensorView;

inline constexpr double infinity = std::numeric_limits<double>::infinity();
inline constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
inline constexpr double f32_tolerance = 1e-6;   // · max(1, |expected|)
inline constexpr double bf16_step = 1.0 / 256;  // half a unit in the last place, relative
inline constexpr unsigned char filler = 0xa5;

inline const std::vector<int64_t> widths = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 384, 768, 1000, 5003};

// Rows inside a wider matrix, `gap` elements before each and after the last, which have to stay as they are.
class Matrix {
 public:
  Matrix(std::vector<int64_t> shape, DType dtype, int64_t gap = 0) : shape_(std::move(shape)), dtype_(dtype), gap_(gap) {
    columns_ = shape_.empty() ? 1 : shape_.back();
    rows_ = 1;
    for (size_t i = 0; i + 1 < shape_.size(); ++i) rows_ *= shape_[i];
    bytes_.assign(static_cast<size_t>(place(rows_, 0)) * size(), filler);
  }

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

  void set(int64_t r, int64_t c, double value) {
    void* const at = bytes_.data() + static_cast<size_t>(place(r, c)) * size();
    const auto put = [at](auto number) { std::memcpy(at, &number, sizeof number); };
    if (dtype_ == DType::float32) put(static_cast<float>(value));
    if (dtype_ == DType::bfloat16) put(core::f32_to_bf16(static_cast<float>(value)));
    if (dtype_ == DType::int32) put(static_cast<int32_t>(value));
    if (dtype_ == DType::uint8) put(static_cast<uint8_t>(value));
  }
  double at(int64_t r, int64_t c) const {
    const void* const from = bytes_.data() + static_cast<size_t>(place(r, c)) * size();
    const auto get = [from](auto number) {
      std::memcpy(&number, from, sizeof number);
      return number;
    };
    if (dtype_ == DType::float32) return get(0.0f);
    if (dtype_ == DType::bfloat16) return core::bf16_to_f32(get(uint16_t{}));
    if (dtype_ == DType::int32) return get(int32_t{});
    return get(uint8_t{});
  }
  std::vector<double> row(int64_t r) const {
    std::vector<double> values;
    for (int64_t c = 0; c < columns_; ++c) values.push_back(at(r, c));
    return values;
  }
  Matrix& fill(const std::function<double()>& next) {
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < columns_; ++c) set(r, c, next());
    }
    return *this;
  }
  void copy_row(int64_t r, const Matrix& other, int64_t from) {
    for (int64_t c = 0; c < columns_; ++c) set(r, c, other.at(from, c));
  }

  TensorView view() {
    TensorView view;
    view.data = bytes_.data() + static_cast<size_t>(gap_) * size();
    view.dtype = dtype_;
    view.rank = static_cast<int>(shape_.size());
    std::copy(shape_.begin(), shape_.end(), view.shape.begin());
    view.row_stride = columns_ + gap_;
    return view;
  }
  bool gaps_untouched() const {
    for (int64_t r = 0; r <= rows_; ++r) {
      const auto* gap = bytes_.data() + static_cast<size_t>(r * (columns_ + gap_)) * size();
      if (!std::all_of(gap, gap + static_cast<size_t>(gap_) * size(), [](unsigned char byte) { return byte == filler; })) return false;
    }
    return true;
  }
  bool same_row(int64_t r, const Matrix& other, int64_t other_row) const {
    const size_t bytes = static_cast<size_t>(columns_) * size();
    return bytes == 0 || std::memcmp(bytes_.data() + static_cast<size_t>(place(r, 0)) * size(),
                                     other.bytes_.data() + static_cast<size_t>(other.place(other_row, 0)) * size(), bytes) == 0;
  }

 private:
  size_t size() const { return core::size_of(dtype_); }
  int64_t place(int64_t r, int64_t c) const { return gap_ + r * (columns_ + gap_) + c; }

  std::vector<int64_t> shape_;
  DType dtype_;
  int64_t gap_, rows_, columns_;
  std::vector<unsigned char> bytes_;
};

using Inputs = std::vector<Matrix*>;
using Set = std::vector<std::pair<std::string, core::Attributes::Value>>;

inline core::KernelSpec spec_of(const std::string& op, const Inputs& inputs, Matrix& out, const Set& attributes) {
  core::KernelSpec spec;
  spec.op = op;
  for (Matrix* input : inputs) {
    spec.inputs.push_back(input ? input->view() : TensorView{});
    spec.inputs.back().data = nullptr;
  }
  spec.outputs.push_back(out.view());
  for (const auto& [name, value] : attributes) spec.attributes.set(name, value);
  spec.attributes.set("dtype", std::string(core::name_of(spec.outputs[0].dtype)));
  spec.threads = 2;
  return spec;
}

inline void run_views(core::Device& device, core::Kernel& kernel, const std::vector<TensorView>& inputs, const TensorView& out, int threads = 2) {
  const auto stream = device.make_stream(threads);
  std::vector<char> workspace(kernel.workspace_bytes() + 64);
  void* aligned = workspace.data();
  size_t space = workspace.size();
  std::align(64, kernel.workspace_bytes(), aligned, space);
  kernel.run({inputs, {&out, 1}, aligned, *stream});
}

inline void run(core::Device& device, const std::string& op, const Inputs& inputs, Matrix& out, const Set& attributes, int threads = 2) {
  const auto kernel = device.make_kernel(spec_of(op, inputs, out, attributes));
  std::vector<TensorView> views;
  for (Matrix* input : inputs) views.push_back(input ? input->view() : TensorView{});
  run_views(device, *kernel, views, out.view(), threads);
}

// The error of making or running, or nothing.
inline std::string error_of(core::Device& device, ErrorCode code, const std::string& op, const Inputs& inputs, Matrix& out, const Set& attributes) {
  try {
    run(device, op, inputs, out, attributes);
  } catch (const core::Error& error) {
    return error.code() == code ? error.what() : std::string("another code: ") + error.what();
  }
  return {};
}

inline bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

template <typename F>
void on_each_isa(F&& body) {
  for (const cpu::Isa isa : cpu::available_isas()) {
    NOTE(cpu::name_of(isa));
    body(*cpu::open_device(cpu::name_of(isa), 2));
  }
}

// float32 results within `tolerance` · max(1, |expected|), bfloat16 ones also within half a step; NaN and infinity where expected.
inline bool close(double got, double expected, DType dtype, double tolerance = f32_tolerance) {
  if (std::isnan(expected) || std::isnan(got)) return std::isnan(expected) && std::isnan(got);
  if (std::isinf(expected) || std::isinf(got)) return expected == got;
  double allowed = tolerance * std::max(1.0, std::fabs(expected));
  if (dtype == DType::bfloat16) allowed += bf16_step * std::fabs(expected);
  return std::fabs(got - expected) <= allowed;
}

using Reference = std::function<std::vector<double>(const std::vector<double>&)>;

inline bool rows_close(const Matrix& x, Matrix& out, const Reference& reference, double tolerance = f32_tolerance) {
  const DType dtype = out.view().dtype;
  for (int64_t r = 0; r < x.rows(); ++r) {
    const std::vector<double> expected = reference(x.row(r));
    for (int64_t c = 0; c < x.columns(); ++c) {
      if (!close(out.at(r, c), expected[static_cast<size_t>(c)], dtype, tolerance)) return false;
    }
  }
  return true;
}

}  // namespace chiasma::test
