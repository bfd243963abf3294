// The matrix multiply against float64: every instruction set this processor runs, both weight types, odd sizes, strided operands between
// guard bytes, epilogues, NaN and infinity; and the same bits whatever the rows' place, their number and the threads.
// Over 500 lines, as linear, matmul and patchEmbed are one product, and are tested with one set of operands and comparisons.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <numbers>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/error.h"
#include "cpu/cpu_device.h"
#include "cpu/gemm.h"
#include "cpu/kernels.h"
#include "cpu/processor.h"
#include "test.h"

namespace chiasma::cpu::portable {
extern const SimdKernels kernels;
}
#ifdef CHIASMA_HAS_avx512_bf16
namespace chiasma::cpu::avx512_bf16 {
extern const SimdKernels kernels;
}
#endif

namespace {

using namespace chiasma;
using core::DType;
using core::TensorView;

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

std::string shape_text(int64_t m, int64_t n, int64_t k) { return std::to_string(m) + "x" + std::to_string(n) + "x" + std::to_string(k); }

// A matrix in a buffer of its own, with `gap` elements between rows and guards around, all of one pattern that must survive.
class Matrix {
 public:
  Matrix(DType dtype, int64_t rows, int64_t columns, int64_t gap = 0) : dtype_(dtype), rows_(rows), columns_(columns), stride_(columns + gap) {
    bytes_.assign(static_cast<size_t>(rows * stride_) * core::size_of(dtype) + 2 * guard, pattern);
  }

  float at(int64_t r, int64_t c) const {
    if (dtype_ == DType::bfloat16) {
      uint16_t bits;
      std::memcpy(&bits, element(r, c), 2);
      return core::bf16_to_f32(bits);
    }
    float value;
    std::memcpy(&value, element(r, c), 4);
    return value;
  }
  void set(int64_t r, int64_t c, float value) {
    if (dtype_ == DType::bfloat16) {
      const uint16_t bits = core::f32_to_bf16(value);
      std::memcpy(element(r, c), &bits, 2);
    } else {
      std::memcpy(element(r, c), &value, 4);
    }
  }
  Matrix& fill(std::mt19937& random, float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    for (int64_t r = 0; r < rows_; ++r) {
      for (int64_t c = 0; c < columns_; ++c) set(r, c, normal(random));
    }
    return *this;
  }

  // The same bits in all elements of the row?
  bool same_row(int64_t r, const Matrix& other, int64_t other_row) const {
    return columns_ == 0 || std::memcmp(element(r, 0), other.element(other_row, 0), static_cast<size_t>(columns_) * core::size_of(dtype_)) == 0;
  }
  bool guards_hold() const {
    const size_t size = core::size_of(dtype_);
    std::vector<bool> used(bytes_.size(), false);
    for (int64_t r = 0; r < rows_; ++r) {
      std::fill_n(used.begin() + static_cast<std::ptrdiff_t>(guard + static_cast<size_t>(r * stride_) * size), static_cast<size_t>(columns_) * size, true);
    }
    for (size_t i = 0; i < bytes_.size(); ++i) {
      if (!used[i] && bytes_[i] != pattern) return false;
    }
    return true;
  }

  TensorView view() const {
    TensorView view;
    view.data = const_cast<unsigned char*>(bytes_.data()) + guard;
    view.dtype = dtype_;
    view.rank = 2;
    view.shape = {rows_, columns_};
    view.row_stride = stride_;
    return view;
  }
  // As one row without its leading dimension.
  TensorView row_view() const {
    TensorView flat = view();
    flat.rank = 1;
    flat.shape = {columns_};
    return flat;
  }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

 private:
  static constexpr size_t guard = 64;
  static constexpr unsigned char pattern = 0xa5;
  unsigned char* element(int64_t r, int64_t c) { return bytes_.data() + guard + static_cast<size_t>(r * stride_ + c) * core::size_of(dtype_); }
  const unsigned char* element(int64_t r, int64_t c) const { return const_cast<Matrix*>(this)->element(r, c); }

  DType dtype_;
  int64_t rows_, columns_, stride_;
  std::vector<unsigned char> bytes_;
};

// Memory of exactly so many bytes, 64-byte aligned, with guards.
class Guarded {
 public:
  explicit Guarded(size_t bytes) : bytes_(bytes), memory_(bytes + 192, 0x5a) {
    data_ = memory_.data() + 64;
    data_ += (64 - reinterpret_cast<uintptr_t>(data_) % 64) % 64;
  }
  void* data() { return data_; }
  bool guards_hold() const {
    for (int i = 1; i <= 64; ++i) {
      if (data_[-i] != 0x5a || data_[bytes_ + static_cast<size_t>(i) - 1] != 0x5a) return false;
    }
    return true;
  }

 private:
  size_t bytes_;
  std::vector<unsigned char> memory_;
  unsigned char* data_;
};

class MatrixReader final : public core::RowReader {
 public:
  explicit MatrixReader(const Matrix& matrix) : matrix_(matrix) {}
  void read(int64_t begin, int64_t count, void* dst) override {
    float* to = static_cast<float*>(dst);
    for (int64_t r = begin; r < begin + count; ++r) {
      for (int64_t c = 0; c < matrix_.columns(); ++c) *to++ = matrix_.at(r, c);
    }
  }

 private:
  const Matrix& matrix_;
};

struct Packed {
  Guarded memory;
  TensorView view;

  Packed(core::Device& device, const Matrix& weight, DType dtype) : memory(device.weight_bytes(shape_of(weight, dtype))) {
    MatrixReader reader(weight);
    device.prepare_weight(shape_of(weight, dtype), reader, memory.data());
    CHECK(memory.guards_hold());
    view = weight.view();
    view.data = memory.data();
    view.dtype = dtype;
    view.layout = core::Layout::linear;
    view.row_stride = weight.columns();
  }
  static core::WeightShape shape_of(const Matrix& weight, DType dtype) {
    return {"w", core::Layout::linear, dtype, {weight.rows(), weight.columns()}};
  }
};

core::KernelSpec spec_of(const char* op, std::vector<TensorView> inputs, const TensorView& output, const core::Device& device) {
  core::KernelSpec spec;
  spec.op = op;
  spec.inputs = std::move(inputs);
  spec.outputs = {output};
  spec.threads = device.threads();
  spec.attributes.set("dtype", std::string(core::name_of(output.dtype)));
  return spec;
}

// Makes the kernel and runs it once.
void run(core::Device& device, const core::KernelSpec& spec, core::Stream& stream) {
  const auto kernel = device.make_kernel(spec);
  Guarded workspace(kernel->workspace_bytes());
  kernel->run({spec.inputs, spec.outputs, workspace.data(), stream});
  CHECK(workspace.guards_hold());
}

const TensorView absent;

void linear(core::Device& device, core::Stream& stream, const TensorView& x, const TensorView& w, const TensorView& bias, const TensorView& residual,
            const TensorView& out, const char* activation = "none") {
  core::KernelSpec spec = spec_of("linear", {x, w, bias, residual}, out, device);
  spec.attributes.set("activation", std::string(activation));
  run(device, spec, stream);
}

double activate(const std::string& name, double x) {
  if (name == "gelu") return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
  if (name == "quick_gelu") return x / (1 + std::exp(-1.702 * x));
  if (name == "gelu_tanh") return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
  if (name == "relu") return x > 0 ? x : 0;
  if (name == "silu") return x / (1 + std::exp(-x));
  if (name == "tanh") return std::tanh(x);
  return x;
}

float rounded(float value, DType dtype) { return dtype == DType::bfloat16 ? core::bf16_to_f32(core::f32_to_bf16(value)) : value; }

// All elements, rounded to `products`, in float64.
std::vector<double> values_of(const Matrix& matrix, DType products) {
  std::vector<double> values;
  values.reserve(static_cast<size_t>(matrix.rows() * matrix.columns()));
  for (int64_t r = 0; r < matrix.rows(); ++r) {
    for (int64_t c = 0; c < matrix.columns(); ++c) values.push_back(rounded(matrix.at(r, c), products));
  }
  return values;
}

// Compares with float64: the sum's error is bounded by its terms' magnitudes, the output's rounding by its own.
void check_product(const Matrix& x, const Matrix& w, DType products, const Matrix* bias, const Matrix* residual, const Matrix& out,
                   const std::string& activation, double scale, const std::string& label) {
  const std::vector<double> xs = values_of(x, products), ws = values_of(w, products);
  const int64_t k = x.columns();
  for (int64_t r = 0; r < x.rows(); ++r) {
    for (int64_t c = 0; c < w.rows(); ++c) {
      const double* const x_row = xs.data() + r * k;
      const double* const w_row = ws.data() + c * k;
      double sum = 0, magnitude = 0;
      for (int64_t i = 0; i < k; ++i) {
        const double term = x_row[i] * w_row[i];
        sum += term, magnitude += std::abs(term);
      }
      const double inner = sum * scale + (bias ? bias->at(0, c) : 0);
      const double expected = activate(activation, inner) + (residual ? residual->at(r, c) : 0);
      double tolerance = (magnitude * std::abs(scale) * (2 + std::sqrt(static_cast<double>(k))) + std::abs(inner) + std::abs(expected) + 1) * 3e-7;
      if (out.view().dtype == DType::bfloat16) {
        tolerance += std::abs(expected) / 256;
        if (!residual && activation.find("gelu") != std::string::npos) tolerance += std::max(std::abs(expected), 0x1p-7) * 0x1p-12;  // docs/ops.md
      }
      if (!(std::abs(out.at(r, c) - expected) <= tolerance)) {
        FAIL(label + " at [" + std::to_string(r) + ", " + std::to_string(c) + "]: " + std::to_string(out.at(r, c)) + ", expected " + std::to_string(expected));
        return;
      }
    }
  }
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const cpu::Isa isa : cpu::available_isas()) names.push_back(cpu::name_of(isa));
  return names;
}

}  // namespace

TEST("linear: odd sizes against float64") {
  const int64_t sizes[][3] = {{0, 5, 3},    {3, 0, 4},    {2, 3, 0},     {1, 1, 1},     {2, 2, 7},   {1, 33, 2},    {7, 17, 13},   {13, 64, 33},
                              {14, 32, 64}, {15, 31, 65}, {29, 65, 129}, {33, 129, 17}, {64, 1, 64}, {129, 33, 7},  {17, 100, 257}, {50, 96, 384},
                              {1, 500, 300}, {197, 40, 96}};
  for (const std::string& isa : isas()) {
    const auto device = cpu::open_device(isa, 2);
    const auto stream = device->make_stream(2);
    for (const auto& [m, n, k] : sizes) {
      for (const DType weight_type : {DType::float32, DType::bfloat16}) {
        for (const DType type : {DType::float32, DType::bfloat16}) {
          std::mt19937 random(7);
          const Matrix x = Matrix(type, m, k, 3).fill(random), w = Matrix(weight_type, n, k).fill(random, 0.2f);
          const Matrix bias = Matrix(DType::float32, 1, n).fill(random), residual = Matrix(type, m, n, 1).fill(random);
          Matrix out(type, m, n, 5);
          Packed packed(*device, w, weight_type);
          const std::string label = "linear " + isa + " " + core::name_of(weight_type) + " x " + core::name_of(type) + " " + shape_text(m, n, k);
          linear(*device, *stream, x.view(), packed.view, bias.row_view(), residual.view(), out.view());
          check_product(x, w, weight_type, &bias, &residual, out, "none", 1, label);
          CHECK(out.guards_hold());
          linear(*device, *stream, x.view(), packed.view, absent, absent, out.view(), "gelu");
          check_product(x, w, weight_type, nullptr, nullptr, out, "gelu", 1, label + " gelu");
          CHECK(out.guards_hold());
        }
      }
    }
  }
}

TEST("linear: activations against float64") {
  for (const std::string& isa : isas()) {
    const auto device = cpu::open_device(isa, 1);
    const auto stream = device->make_stream(1);
    for (const char* activation : {"none", "gelu", "quick_gelu", "gelu_tanh", "relu", "silu", "tanh"}) {
      std::mt19937 random(11);
      const Matrix x = Matrix(DType::float32, 40, 3).fill(random, 3), w = Matrix(DType::float32, 37, 3).fill(random);
      const Matrix bias = Matrix(DType::float32, 1, 37).fill(random);
      Matrix out(DType::float32, 40, 37);
      Packed packed(*device, w, DType::float32);
      linear(*device, *stream, x.view(), packed.view, bias.row_view(), absent, out.view(), activation);
      check_product(x, w, DType::float32, &bias, nullptr, out, activation, 1, "linear " + isa + " " + activation);
    }
  }
}

// Each row of a big product again: alone, among others in another order, and by other numbers of threads. Of few and of many K.
TEST("linear: the same bits in any company") {
  const int64_t m = 137, n = 203;
  for (const std::string& isa : isas()) {
    const auto device = cpu::open_device(isa, 0);
    const auto one = device->make_stream(1), all = device->make_stream(0);
    const std::pair<DType, DType> types[] = {{DType::float32, DType::float32}, {DType::bfloat16, DType::float32}, {DType::bfloat16, DType::bfloat16},
                                             {DType::int8, DType::float32},    {DType::int8, DType::bfloat16}};
    for (const auto& [weight_type, out_type] : types) {
      for (const int64_t k : {90, 331, 510}) {
        for (const auto& [activation, added] : {std::pair{"gelu", false}, std::pair{"none", false}, std::pair{"none", true}}) {
          std::mt19937 random(3);
          const Matrix x = Matrix(DType::float32, m, k).fill(random), w = Matrix(DType::float32, n, k).fill(random);
          const Matrix bias = Matrix(DType::float32, 1, n).fill(random), residual = Matrix(out_type, m, n).fill(random);
          const auto residual_of = [&, adds = added](const Matrix& rows) { return adds ? rows.view() : absent; };
          Packed packed(*device, w, weight_type);
          Matrix reference(out_type, m, n);
          linear(*device, *one, x.view(), packed.view, bias.row_view(), residual_of(residual), reference.view(), activation);

          Matrix threaded(out_type, m, n);
          linear(*device, *all, x.view(), packed.view, bias.row_view(), residual_of(residual), threaded.view(), activation);
          for (int64_t r = 0; r < m; ++r) CHECK(threaded.same_row(r, reference, r));

          std::vector<int64_t> order(static_cast<size_t>(m));
          std::iota(order.begin(), order.end(), 0);
          std::shuffle(order.begin(), order.end(), random);
          for (const int64_t count : {int64_t{1}, int64_t{2}, int64_t{5}, int64_t{14}, int64_t{15}, int64_t{60}, m}) {
            for (int64_t begin = 0; begin < m; begin += count) {
              const int64_t rows = std::min(count, m - begin);
              Matrix some(DType::float32, rows, k), rest(out_type, rows, n), out(out_type, rows, n);
              for (int64_t r = 0; r < rows; ++r) {
                const int64_t from = order[static_cast<size_t>(begin + r)];
                for (int64_t c = 0; c < k; ++c) some.set(r, c, x.at(from, c));
                for (int64_t c = 0; c < n; ++c) rest.set(r, c, residual.at(from, c));
              }
              linear(*device, *all, some.view(), packed.view, bias.row_view(), residual_of(rest), out.view(), activation);
              for (int64_t r = 0; r < rows; ++r) CHECK(out.same_row(r, reference, order[static_cast<size_t>(begin + r)]));
            }
          }
        }
      }
    }
  }
}

// Rows of bfloat16 are measured and turned into bytes by other instructions than rows of float32.
TEST("linear: int8 of bfloat16 rows is int8 of the same float32 rows") {
  const int64_t m = 11, n = 100;
  for (const std::string& isa : isas()) {
    const auto device = cpu::open_device(isa, 1);
    const auto stream = device->make_stream(1);
    for (const int64_t k : {1, 31, 64, 100, 331}) {
      std::mt19937 random(9);
      Matrix x = Matrix(DType::bfloat16, m, k).fill(random), floats(DType::float32, m, k);
      const float specials[] = {nan_value, -nan_value, infinity, -infinity, 1e-38f};
      for (int64_t r = 0; r < 5; ++r) x.set(r, k / 2, specials[r]);
      for (int64_t c = 0; c < k; ++c) {
        x.set(5, c, 0), x.set(6, c, -0.0f);
        x.set(7, c, std::abs(x.at(7, c))), x.set(8, c, -std::abs(x.at(8, c)));  // the zero at either end
      }
      for (int64_t r = 0; r < m; ++r) {
        for (int64_t c = 0; c < k; ++c) floats.set(r, c, x.at(r, c));
      }
      const Matrix w = Matrix(DType::float32, n, k).fill(random);
      Packed packed(*device, w, DType::int8);
      Matrix out(DType::float32, m, n), expected(DType::float32, m, n);
      linear(*device, *stream, x.view(), packed.view, absent, absent, out.view());
      linear(*device, *stream, floats.view(), packed.view, absent, absent, expected.view());
      for (int64_t r = 0; r < m; ++r) {
        for (int64_t c = 0; c < n; ++c) {
          const float got = out.at(r, c), wanted = expected.at(r, c);
          if (got == wanted || (std::isnan(got) && std::isnan(wanted))) continue;
          FAIL(isa + " " + shape_text(m, n, k) + " at [" + std::to_string(r) + ", " + std::to_string(c) + "]: " + std::to_string(got) + ", expected " + std::to_string(wanted));
          return;
        }
      }
    }
  }
}

// The processor's own rounding to bfloat16 would make them zero. 96: tiles finish themselves; 600: tiles finish those before.
TEST("linear: results too small for normal numbers are rounded all the same") {
  const int64_t m = 15, n = 96;
  for (const std::string& isa : isas()) {
    const auto device = cpu::open_device(isa, 1);
    const auto stream = device->make_stream(1);
    for (const int64_t k : {96, 600}) {
      for (const char* activation : {"none", "gelu", "gelu_tanh", "quick_gelu"}) {
        NOTE(isa + ", " + activation + ", K " + std::to_string(k));
        std::mt19937 random(5);
        const float size = 1e-19f / std::sqrt(static_cast<float>(k) / 96);
        const Matrix x = Matrix(DType::float32, m, k).fill(random, 1e-20f), w = Matrix(DType::float32, n, k).fill(random, size);
        Packed packed(*device, w, DType::int8);
        Matrix exact(DType::float32, m, n), rounded(DType::bfloat16, m, n), expected(DType::bfloat16, m, n);
        linear(*device, *stream, x.view(), packed.view, absent, absent, exact.view(), activation);
        linear(*device, *stream, x.view(), packed.view, absent, absent, rounded.view(), activation);
        int64_t small = 0;
        for (int64_t r = 0; r < m; ++r) {
          for (int64_t c = 0; c < n; ++c) {
            expected.set(r, c, exact.at(r, c));
            small += std::fpclassify(exact.at(r, c)) == FP_SUBNORMAL;
            // Gelus of bfloat16 results may have another last bit.
            CHECK(std::abs(rounded.at(r, c) - expected.at(r, c)) <= std::abs(expected.at(r, c)) / 128 + 0x1p-133);
          }
          if (std::string(activation) == "none") CHECK(rounded.same_row(r, expected, r));
        }
        CHECK(small > m * n / 2);
      }
    }
  }
}

// Blocks so large that K is cut: their rows equal those of the same rows alone, and of rows that have to be packed for their odd distance.
TEST("linear: the same bits where K is cut") {
  const int64_t m = 330, n = 70, k = 3072 + 64;
  for (const std::string& isa : isas()) {
    const auto device = cpu::open_device(isa, 0);
    const auto one = device->make_stream(1), all = device->make_stream(0);
    for (const DType weight_type : {DType::float32, DType::bfloat16, DType::int8}) {
      std::mt19937 random(4);
      const DType rows_type = weight_type == DType::bfloat16 ? DType::bfloat16 : DType::float32;
      const Matrix x = Matrix(rows_type, m, k).fill(random), w = Matrix(DType::float32, n, k).fill(random);
      Packed packed(*device, w, weight_type);
      Matrix reference(DType::float32, m, n), threaded(DType::float32, m, n);
      linear(*device, *one, x.view(), packed.view, absent, absent, reference.view());
      linear(*device, *all, x.view(), packed.view, absent, absent, threaded.view());
      for (int64_t r = 0; r < m; ++r) CHECK(threaded.same_row(r, reference, r));
      if (weight_type != DType::int8) check_product(x, w, weight_type, nullptr, nullptr, reference, "none", 1, "cut " + isa);
      for (int64_t begin = 0; begin < m; begin += 41) {
        const int64_t rows = std::min<int64_t>(begin % 3 == 0 ? 1 : 41, m - begin);
        Matrix some(rows_type, rows, k, 1), out(DType::float32, rows, n);
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < k; ++c) some.set(r, c, x.at(begin + r, c));
        }
        linear(*device, *all, some.view(), packed.view, absent, absent, out.view());
        for (int64_t r = 0; r < rows; ++r) CHECK(out.same_row(r, reference, begin + r));
      }
    }
  }
}

#ifdef CHIASMA_HAS_avx512_bf16
// The device uses one of the two ways, as the processor has it; here both are tested.
TEST("linear: bf16 by dot products and widened") {
  if (!cpu::processor_runs(cpu::Isa::avx512_bf16)) SKIP("no AVX512_BF16 here");
  for (const cpu::GemmFunctions* functions = cpu::avx512_bf16::kernels.gemm; functions; functions = functions->widened) {
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{1, 40, 31}, {9, 70, 100}, {29, 33, 129}}) {
      std::mt19937 random(5);
      const Matrix x = Matrix(DType::float32, m, k).fill(random), w = Matrix(DType::bfloat16, n, k).fill(random);
      Matrix out(DType::float32, m, n);
      Guarded packed(functions->weight_bytes(n, k, cpu::GemmType::bfloat16));
      for (int64_t row = 0; row < n; row += 7) {  // in pieces that do not fit the panels
        functions->pack_weight(w.view().as<uint16_t>() + row * k, cpu::GemmType::bfloat16, k, row, std::min<int64_t>(7, n - row), n, k,
                               cpu::GemmType::bfloat16, packed.data());
      }
      CHECK(packed.guards_hold());
      constexpr int64_t block_rows = 9, block_bytes = 1 << 20;
      for (int64_t row = 0; row < m; row += block_rows) {
        const int64_t rows = std::min<int64_t>(block_rows, m - row);
        Guarded panel(static_cast<size_t>(rows) * functions->row_bytes(k, cpu::GemmType::bfloat16));
        functions->pack_rows(x.view().as<float>() + row * k, cpu::GemmType::float32, k, rows, k, cpu::GemmType::bfloat16, panel.data());
        CHECK(panel.guards_hold());
        Guarded scratch(functions->scratch_bytes(rows, k, cpu::GemmType::bfloat16, block_bytes));
        cpu::GemmBlock block{};
        block.scratch = scratch.data();
        block.block_bytes = block_bytes;
        block.x = panel.data(), block.rows = rows, block.x_pitch = static_cast<int64_t>(functions->row_bytes(k, cpu::GemmType::bfloat16));
        block.weight = packed.data(), block.weight_type = cpu::GemmType::bfloat16, block.n = n, block.k = k;
        block.panel_end = (n + functions->panel_columns(cpu::GemmType::bfloat16) - 1) / functions->panel_columns(cpu::GemmType::bfloat16);
        block.scale = 1;
        block.out = out.view().as<float>() + row * n, block.out_stride = n;
        functions->multiply(block);
        CHECK(scratch.guards_hold());
      }
      check_product(x, w, DType::bfloat16, nullptr, nullptr, out, "none", 1, (functions->dot ? "dot " : "widened ") + shape_text(m, n, k));
    }
  }
}
#endif

TEST("linear: NaN and infinity stay in their rows and columns") {
  const int64_t m = 17, n = 35, k = 13;
  for (const std::string& isa : isas()) {
    const auto device = cpu::open_device(isa, 1);
    const auto stream = device->make_stream(1);
    for (const DType weight_type : {DType::float32, DType::bfloat16}) {
      std::mt19937 random(9);
      Matrix x = Matrix(DType::float32, m, k).fill(random), w = Matrix(DType::float32, n, k).fill(random);
      x.set(3, k - 1, nan_value);
      x.set(5, 0, infinity);
      x.set(6, 0, -infinity), x.set(6, 1, infinity);
      w.set(34, k - 1, nan_value);
      for (int64_t c = 0; c < n; ++c) w.set(c, 0, 1), w.set(c, 1, 2);
      Matrix out(DType::float32, m, n);
      Packed packed(*device, w, weight_type);
      linear(*device, *stream, x.view(), packed.view, absent, absent, out.view());
      for (int64_t r = 0; r < m; ++r) {
        for (int64_t c = 0; c < n; ++c) {
          const float value = out.at(r, c);
          if (r == 3 || r == 6 || c == 34) {
            CHECK(std::isnan(value));
          } else if (r == 5) {
            CHECK(value == infinity);
          } else {
            CHECK(std::isfinite(value));
          }
        }
      }
    }
  }
}

TEST("matmul: odd sizes, all types, scaled, against float64") {
  const int64_t sizes[][3] = {{0, 5, 3}, {3, 0, 4}, {2, 3, 0}, {1, 1, 1}, {7, 17, 13}, {33, 129, 65}, {5, 1000, 64}};
  for (const std::string& isa : isas()) {
    const auto device = cpu::open_device(isa, 2);
    const auto stream = device->make_stream(2);
    for (const auto& [m, n, k] : sizes) {
      for (const DType a_type : {DType::float32, DType::bfloat16}) {
        for (const DType b_type : {DType::float32, DType::bfloat16}) {
          std::mt19937 random(13);
          const Matrix a = Matrix(a_type, m, k, 2).fill(random), b = Matrix(b_type, n, k, 1).fill(random);
          Matrix out(DType::float32, m, n, 4);
          core::KernelSpec spec = spec_of("matmul", {a.view(), b.view()}, out.view(), *device);
          spec.attributes.set("scale", -0.37);
          run(*device, spec, *stream);
          const DType products = a_type == DType::bfloat16 ? b_type : DType::float32;
          check_product(a, b, products, nullptr, nullptr, out, "none", -0.37,
                        "matmul " + isa + " " + core::name_of(a_type) + " x " + core::name_of(b_type) + " " + shape_text(m, n, k));
          CHECK(out.guards_hold());
        }
      }
    }
  }
}

namespace {

struct PatchCase {
  DType pixels, weight, result;
  int64_t pictures, height, width, patch, features;
  bool bias, class_token, positions;
};

// pixels[b, c, y, x] after normalisation, by the reference's steps.
float normalised(const std::vector<uint8_t>& bytes, const std::vector<float>& floats, const PatchCase& of, int64_t b, int64_t c, int64_t y, int64_t x) {
  constexpr float mean[] = {0.48145466f, 0.4578275f, 0.40821073f}, deviation[] = {0.26862954f, 0.26130258f, 0.27577711f};
  if (of.pixels == DType::float32) return floats[static_cast<size_t>(((b * 3 + c) * of.height + y) * of.width + x)];
  const double pixel = bytes[static_cast<size_t>(((b * of.height + y) * of.width + x) * 3 + c)];
  return (static_cast<float>(pixel * (1.0 / 255)) - mean[c]) / deviation[c];
}

void check_patch_embed(core::Device& device, core::Stream& stream, const PatchCase& of, const std::string& label) {
  std::mt19937 random(17);
  const int64_t depth = 3 * of.patch * of.patch, columns = of.width / of.patch, patches = of.height / of.patch * columns;
  const int64_t first = of.class_token ? 1 : 0, tokens = patches + first;
  std::vector<uint8_t> bytes(static_cast<size_t>(of.pictures * of.height * of.width * 3));
  std::vector<float> floats(bytes.size());
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(random()), floats[i] = static_cast<float>(bytes[i]) / 100 - 1;
  const Matrix weight = Matrix(of.weight, of.features, depth).fill(random, 0.1f);
  const Matrix bias = Matrix(DType::float32, 1, of.features).fill(random), token = Matrix(DType::float32, 1, of.features).fill(random);
  const Matrix positions = Matrix(DType::float32, tokens, of.features, 2).fill(random);
  Matrix out(of.result, of.pictures * tokens, of.features, 3);
  Packed packed(device, weight, of.weight);

  TensorView pixels;
  pixels.dtype = of.pixels;
  pixels.rank = 4;
  if (of.pixels == DType::uint8) {
    pixels.data = bytes.data(), pixels.shape = {of.pictures, of.height, of.width, 3}, pixels.row_stride = 3;
  } else {
    pixels.data = floats.data(), pixels.shape = {of.pictures, 3, of.height, of.width}, pixels.row_stride = of.width;
  }
  core::KernelSpec spec = spec_of("patchEmbed",
                                  {pixels, packed.view, of.bias ? bias.row_view() : absent, of.class_token ? token.row_view() : absent,
                                   of.positions ? positions.view() : absent},
                                  out.view(), device);
  spec.attributes.set("patch", static_cast<double>(of.patch));
  spec.attributes.set("rescale", 1.0 / 255);
  spec.attributes.set("mean", std::vector<double>{0.48145466, 0.4578275, 0.40821073});
  spec.attributes.set("std", std::vector<double>{0.26862954, 0.26130258, 0.27577711});
  run(device, spec, stream);
  CHECK(out.guards_hold());

  for (int64_t b = 0; b < of.pictures; ++b) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t f = 0; f < of.features; ++f) {
        double expected = of.bias ? bias.at(0, f) : 0, magnitude = 1;
        if (t < first) {
          expected = token.at(0, f);
        } else {
          for (int64_t i = 0; i < depth; ++i) {
            const int64_t area = of.patch * of.patch, inside = i % area, p = t - first;
            const float pixel = normalised(bytes, floats, of, b, i / area, p / columns * of.patch + inside / of.patch, p % columns * of.patch + inside % of.patch);
            const double term = static_cast<double>(rounded(pixel, of.weight)) * weight.at(f, i);
            expected += term, magnitude += std::abs(term);
          }
        }
        if (of.positions) expected += positions.at(t, f);
        const double tolerance = magnitude * 3e-6 + (of.result == DType::bfloat16 ? std::abs(expected) / 256 : 0);
        if (!(std::abs(out.at(b * tokens + t, f) - expected) <= tolerance)) {
          FAIL(label + " picture " + std::to_string(b) + " token " + std::to_string(t) + " feature " + std::to_string(f) + ": " +
               std::to_string(out.at(b * tokens + t, f)) + ", expected " + std::to_string(expected));
          return;
        }
      }
    }
  }
}

// Runs `make`, which must throw core::Error with this code and these words.
template <typename F>
void check_refused(F&& make, core::ErrorCode code, const std::string& words) {
  try {
    make();
    FAIL("not refused: " + words);
  } catch (const core::Error& error) {
    CHECK(error.code() == code);
    if (std::string(error.what()).find(words) == std::string::npos) FAIL(std::string("refused with '") + error.what() + "', expected '" + words + "'");
  }
}

}  // namespace

TEST("patchEmbed: pixels of both kinds against float64") {
  const PatchCase cases[] = {
      {DType::uint8, DType::float32, DType::float32, 3, 32, 32, 8, 40, true, true, true},
      {DType::uint8, DType::bfloat16, DType::float32, 2, 37, 50, 7, 33, false, true, false},
      {DType::float32, DType::float32, DType::bfloat16, 2, 33, 20, 5, 17, true, false, true},
      {DType::float32, DType::bfloat16, DType::float32, 1, 16, 31, 16, 65, false, false, false},
      {DType::uint8, DType::float32, DType::bfloat16, 5, 3, 4, 1, 3, true, true, true},
      {DType::uint8, DType::float32, DType::float32, 0, 16, 16, 8, 4, true, true, true},
      {DType::uint8, DType::float32, DType::float32, 3, 24, 24, 8, 100, true, true, true},  // tiles across the pictures
      {DType::uint8, DType::bfloat16, DType::float32, 3, 24, 24, 8, 100, true, true, true},
      {DType::uint8, DType::bfloat16, DType::bfloat16, 3, 24, 24, 8, 100, true, true, false},
  };
  for (const std::string& isa : isas()) {
    const auto device = cpu::open_device(isa, 2);
    const auto stream = device->make_stream(2);
    for (const PatchCase& of : cases) {
      check_patch_embed(*device, *stream, of, "patchEmbed " + isa + " " + core::name_of(of.pixels) + " patch " + std::to_string(of.patch));
    }
  }
}

namespace {

// What a matrix multiply was cut into: how often each row met each panel, and whether rows were packed before.
struct {
  std::vector<std::atomic<int>> met;
  int64_t panels;
  std::atomic<int> tasks;
  std::atomic<bool> right;
} cut;

void note_block(const cpu::GemmBlock& block) {
  ++cut.tasks;
  for (int64_t r = 0; r < block.rows; ++r) {
    int64_t row;
    std::memcpy(&row, static_cast<const char*>(block.x) + r * block.x_pitch, sizeof row);
    if (row != block.first_row + r) cut.right = false;
    for (int64_t p = block.panel_begin; p < block.panel_end; ++p) ++cut.met[static_cast<size_t>((block.first_row + r) * cut.panels + p)];
  }
}

}  // namespace

TEST("linear: however a product is cut, each row meets each panel once, and all threads have work") {
  cpu::GemmFunctions functions = *cpu::portable::kernels.gemm;
  functions.multiply = note_block;
  for (const int threads : {1, 2, 3, 8, 20}) {
    const cpu::CpuStream stream(cpu::ThreadPool::make(threads), threads);
    for (const int64_t rows : {1, 7, 64, 129, 392, 480, 1000, 3000}) {
      for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 2}, {200, 64}, {768, 3072}}) {
        for (const int cost : {1, 8}) {
          NOTE(std::to_string(threads) + " threads, " + shape_text(rows, n, k) + ", rows packed at " + std::to_string(cost));
          for (const bool packs : {true, false}) {
            const cpu::Gemm gemm(functions, n, k, cpu::GemmType::float32, threads, cost);
            Guarded workspace(gemm.workspace_bytes());
            const auto pitch = static_cast<int64_t>(functions.row_bytes(k, cpu::GemmType::float32));
            const auto pack = [&](int64_t row, int64_t count, void* packed, int) {
              for (int64_t r = row; r < row + count; ++r) std::memcpy(static_cast<char*>(packed) + (r - row) * pitch, &r, sizeof r);
            };
            std::vector<int64_t> as_is(static_cast<size_t>(rows));
            std::iota(as_is.begin(), as_is.end(), 0);
            cpu::GemmBlock block{};
            block.weight_type = cpu::GemmType::float32;
            block.n = n, block.k = k;
            block.x = as_is.data(), block.x_pitch = sizeof(int64_t);
            cut.panels = (n + functions.panel_columns(block.weight_type) - 1) / functions.panel_columns(block.weight_type);
            cut.met = std::vector<std::atomic<int>>(static_cast<size_t>(rows * cut.panels));
            cut.tasks = 0, cut.right = true;
            gemm.run(stream, workspace.data(), rows, block, packs ? cpu::Gemm::PackRows(pack) : cpu::Gemm::PackRows());
            CHECK(workspace.guards_hold());
            CHECK(cut.right);
            CHECK(std::all_of(cut.met.begin(), cut.met.end(), [](const auto& count) { return count == 1; }));
            CHECK(cut.tasks >= std::min<int64_t>(threads, cut.panels));
          }
        }
      }
    }
  }
}

TEST("linear: columns of a thread that is held up are taken over") {
  const cpu::GemmFunctions& functions = *cpu::portable::kernels.gemm;
  constexpr int64_t rows = 256, n = 800, k = 16;  // two blocks of rows, each with four of columns
  std::vector<float> x(rows * k), w(n * k);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7 % 23) - 11;
  for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(i * 5 % 19) - 9;
  Guarded weight(functions.weight_bytes(n, k, cpu::GemmType::int8));
  functions.pack_weight(w.data(), cpu::GemmType::float32, k, 0, n, n, k, cpu::GemmType::int8, weight.data());
  const cpu::Gemm gemm(functions, n, k, cpu::GemmType::int8, 2);
  Guarded workspace(gemm.workspace_bytes());

  std::mutex mutex;
  std::condition_variable packed_again;
  int packs = 0;  // of the first rows
  const auto multiply = [&](int threads, std::vector<float>& out) {
    const cpu::CpuStream stream(cpu::ThreadPool::make(threads), threads);
    cpu::GemmBlock block{};
    block.weight = weight.data();
    block.weight_type = cpu::GemmType::int8;
    block.n = n, block.k = k, block.scale = 1;
    block.out = out.data(), block.out_stride = n;
    gemm.run(stream, workspace.data(), rows, block, [&](int64_t row, int64_t count, void* packed, int) {
      functions.pack_rows(x.data() + row * k, cpu::GemmType::float32, k, count, k, cpu::GemmType::int8, packed);
      if (threads == 1 || row > 0) return;
      std::unique_lock lock(mutex);
      if (++packs == 2) packed_again.notify_all();
      CHECK(packed_again.wait_for(lock, std::chrono::seconds(30), [&] { return packs == 2; }));
    });
    CHECK(workspace.guards_hold());
  };
  std::vector<float> alone(rows * n), shared(rows * n);
  multiply(1, alone);
  multiply(2, shared);
  CHECK(packs == 2);
  CHECK(alone == shared);
}

TEST("linear, matmul, patchEmbed: operands refused") {
  const auto device = cpu::open_device("", 1);
  const Matrix x(DType::float32, 4, 8), w(DType::float32, 6, 8), out(DType::float32, 4, 6), short_row(DType::float32, 1, 5), wide(DType::float32, 4, 7);
  TensorView weight = w.view();
  weight.layout = core::Layout::linear;
  const auto make = [&](const TensorView& a, const TensorView& b, const TensorView& bias, const TensorView& residual, const TensorView& result,
                        const char* activation = "none") {
    core::KernelSpec spec = spec_of("linear", {a, b, bias, residual}, result, *device);
    spec.attributes.set("activation", std::string(activation));
    device->make_kernel(spec);
  };
  using core::ErrorCode;
  make(x.view(), weight, absent, absent, out.view());
  TensorView whole = x.view();
  whole.dtype = DType::int32;
  check_refused([&] { make(whole, weight, absent, absent, out.view()); }, ErrorCode::dtype, "[linear] x is int32; expected float32 or bfloat16");
  check_refused([&] { make(x.view(), w.view(), absent, absent, out.view()); }, ErrorCode::unsupported, "weight is not a weight of role 'linear'");
  check_refused([&] { make(wide.view(), weight, absent, absent, out.view()); }, ErrorCode::shape, "x is [4, 7]; expected [..., 8]");
  check_refused([&] { make(x.view(), weight, short_row.row_view(), absent, out.view()); }, ErrorCode::shape, "bias is [5]; expected [6]");
  check_refused([&] { make(x.view(), weight, absent, wide.view(), out.view()); }, ErrorCode::shape, "residual is [4, 7]");
  check_refused([&] { make(x.view(), weight, absent, absent, wide.view()); }, ErrorCode::shape, "the output has 4 rows of 7; expected 4 of 6");
  check_refused([&] { make(x.view(), weight, absent, absent, out.view(), "swish"); }, ErrorCode::argument, "activation is 'swish'");
  check_refused([&] { device->make_kernel(spec_of("linear", {x.view()}, out.view(), *device)); }, ErrorCode::argument, "1 inputs");
  check_refused([&] { device->weight_bytes({"w", core::Layout::linear, DType::int32, {4, 4}}); }, ErrorCode::dtype, "weight 'w'");
  check_refused([&] { device->weight_bytes({"w", core::Layout::linear, DType::int8, {4, cpu::max_int8_depth + 1}}); }, ErrorCode::unsupported, "weight 'w'");
  check_refused([&] { device->weight_bytes({"w", core::Layout::linear, DType::float32, {4}}); }, ErrorCode::shape, "weight 'w'");

  core::KernelSpec product = spec_of("matmul", {x.view(), wide.view()}, out.view(), *device);
  product.attributes.set("scale", 1.0);
  check_refused([&] { device->make_kernel(product); }, ErrorCode::shape, "a is [4, 8]; expected [M, 7]");

  TensorView pixels;
  pixels.dtype = DType::uint8, pixels.rank = 4, pixels.shape = {1, 4, 4, 4}, pixels.row_stride = 4;
  core::KernelSpec embed = spec_of("patchEmbed", {pixels, weight, absent, absent, absent}, out.view(), *device);
  embed.attributes.set("patch", 2.0);
  check_refused([&] { device->make_kernel(embed); }, ErrorCode::shape, "pixels is [1, 4, 4, 4]; expected [B, Y, X, 3]");
  embed.inputs[0].shape[3] = 3, embed.inputs[0].row_stride = 3;
  check_refused([&] { device->make_kernel(embed); }, ErrorCode::shape, "weight is [6, 8]; expected [C, 12]");
  // Sizes whose product is 2^64, which would be taken for none.
  const Matrix pixel(DType::float32, 1, 65536), no_weight(DType::float32, 6, 0), features(DType::float32, 1, 6);
  TensorView none = no_weight.view();
  none.layout = core::Layout::linear;
  check_refused([&] {
    core::KernelSpec spec = spec_of("convolution", {pixel.view(), none, absent, absent}, features.view(), *device);
    const double side = 1 << 24;
    using Numbers = std::vector<double>;
    spec.attributes.set("height", 1.0), spec.attributes.set("width", 1.0), spec.attributes.set("activation", std::string("none"));
    spec.attributes.set("kernel", Numbers{side, side}), spec.attributes.set("stride", Numbers{side, side}), spec.attributes.set("padding", Numbers(4, side - 1));
    device->make_kernel(spec);
  }, ErrorCode::shape, "weight is [6, 0]; expected [N, more than fits]");
}
