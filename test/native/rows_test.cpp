// The ops that work row by row against float64 references, on every instruction set this processor runs: odd sizes, one element, nothing,
// large rows, strided operands between guard bytes, both float types, NaN and infinity, refusals; and the same bits wherever a row stands.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/error.h"
#include "cpu/cpu_device.h"
#include "test.h"

namespace {

using namespace chiasma;
using core::DType;
using core::ErrorCode;
using core::TensorView;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double f32_tolerance = 1e-6;      // · max(1, |expected|)
constexpr double bf16_step = 1.0 / 256;     // half a unit in the last place, relative
constexpr unsigned char filler = 0xa5;

const std::vector<int64_t> widths = {1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 384, 768, 1000, 5003};

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

core::KernelSpec spec_of(const std::string& op, const Inputs& inputs, Matrix& out, const Set& attributes, bool with_dtype = true) {
  core::KernelSpec spec;
  spec.op = op;
  for (Matrix* input : inputs) {
    spec.inputs.push_back(input ? input->view() : TensorView{});
    spec.inputs.back().data = nullptr;
  }
  spec.outputs.push_back(out.view());
  for (const auto& [name, value] : attributes) spec.attributes.set(name, value);
  if (with_dtype) spec.attributes.set("dtype", std::string(core::name_of(spec.outputs[0].dtype)));
  spec.threads = 2;
  return spec;
}

void run_views(core::Device& device, core::Kernel& kernel, const std::vector<TensorView>& inputs, const TensorView& out, int threads = 2) {
  const auto stream = device.make_stream(threads);
  std::vector<char> workspace(kernel.workspace_bytes() + 64);
  void* aligned = workspace.data();
  size_t space = workspace.size();
  std::align(64, kernel.workspace_bytes(), aligned, space);
  kernel.run({inputs, {&out, 1}, aligned, *stream});
}

void run(core::Device& device, const std::string& op, const Inputs& inputs, Matrix& out, const Set& attributes, int threads = 2) {
  const auto kernel = device.make_kernel(spec_of(op, inputs, out, attributes));
  std::vector<TensorView> views;
  for (Matrix* input : inputs) views.push_back(input ? input->view() : TensorView{});
  run_views(device, *kernel, views, out.view(), threads);
}

// The error of making or running, or nothing.
std::string error_of(core::Device& device, ErrorCode code, const std::string& op, const Inputs& inputs, Matrix& out, const Set& attributes) {
  try {
    run(device, op, inputs, out, attributes);
  } catch (const core::Error& error) {
    return error.code() == code ? error.what() : std::string("another code: ") + error.what();
  }
  return {};
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

template <typename F>
void on_each_isa(F&& body) {
  for (const cpu::Isa isa : cpu::available_isas()) {
    NOTE(cpu::name_of(isa));
    body(*cpu::open_device(cpu::name_of(isa), 2));
  }
}

// float32 results within `tolerance` · max(1, |expected|), bfloat16 ones also within half a step; NaN and infinity where expected.
bool close(double got, double expected, DType dtype, double tolerance = f32_tolerance) {
  if (std::isnan(expected) || std::isnan(got)) return std::isnan(expected) && std::isnan(got);
  if (std::isinf(expected) || std::isinf(got)) return expected == got;
  double allowed = tolerance * std::max(1.0, std::fabs(expected));
  if (dtype == DType::bfloat16) allowed += bf16_step * std::fabs(expected);
  return std::fabs(got - expected) <= allowed;
}

using Reference = std::function<std::vector<double>(const std::vector<double>&)>;

bool rows_close(const Matrix& x, Matrix& out, const Reference& reference, double tolerance = f32_tolerance) {
  const DType dtype = out.view().dtype;
  for (int64_t r = 0; r < x.rows(); ++r) {
    const std::vector<double> expected = reference(x.row(r));
    for (int64_t c = 0; c < x.columns(); ++c) {
      if (!close(out.at(r, c), expected[static_cast<size_t>(c)], dtype, tolerance)) return false;
    }
  }
  return true;
}

std::vector<double> layer_norm(const std::vector<double>& x, Matrix* weight, Matrix* bias, double eps) {
  const double n = static_cast<double>(x.size());
  const double mean = std::accumulate(x.begin(), x.end(), 0.0) / n;
  double variance = 0;
  for (const double v : x) variance += (v - mean) * (v - mean) / n;
  std::vector<double> y;
  for (size_t c = 0; c < x.size(); ++c) {
    const auto column = static_cast<int64_t>(c);
    y.push_back((x[c] - mean) / std::sqrt(variance + eps) * (weight ? weight->at(0, column) : 1) + (bias ? bias->at(0, column) : 0));
  }
  return y;
}

std::vector<double> l2_normalize(std::vector<double> x, double eps) {
  double squares = 0;
  for (const double v : x) squares += v * v;
  const double norm = std::isnan(squares) ? squares : std::max(std::sqrt(squares), eps);
  for (double& v : x) v /= norm;
  return x;
}

std::vector<double> softmax(std::vector<double> x) {
  double highest = -infinity, total = 0;
  for (const double v : x) highest = std::max(highest, v);
  for (double& v : x) total += v = std::exp(v - highest);
  for (double& v : x) v /= total;
  return x;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct UnaryCase {
  const char* kind;
  double (*reference)(double);
  double tolerance;  // · max(1, |expected|)
};
const std::vector<UnaryCase> unary_cases = {
    {"gelu", [](double x) { return x * 0.5 * (1 + std::erf(x * std::sqrt(0.5))); }, 3e-7},
    {"quick_gelu", [](double x) { return x * sigmoid(1.702 * x); }, 3e-7},
    {"gelu_tanh", [](double x) { return x * 0.5 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }, 3e-7},
    {"relu", [](double x) { return x < 0 ? 0 : x; }, 0},
    {"silu", [](double x) { return x * sigmoid(x); }, 3e-7},
    {"tanh", [](double x) { return std::tanh(x); }, 4e-7},
    {"sigmoid", sigmoid, 3e-7},
    {"exp", [](double x) { return std::exp(x); }, 1.3e-7},
    {"neg", [](double x) { return -x; }, 0},
    {"sqrt", [](double x) { return std::sqrt(x); }, 6e-8},
    {"abs", [](double x) { return std::fabs(x); }, 0},
};

// What the row ops compute for a row [C], one call for all of them.
struct RowOp {
  const char* op;
  Set attributes;
};
const std::vector<RowOp> row_ops = {
    {"layerNorm", {{"eps", 1e-5}}},
    {"l2Normalize", {{"eps", 1e-12}}},
    {"softmax", {}},
    {"unary", {{"kind", std::string("gelu")}}},
    {"cast", {}},
};

Inputs operands_of(const RowOp& op, Matrix& x) { return std::string(op.op) == "layerNorm" ? Inputs{&x, nullptr, nullptr} : Inputs{&x}; }

}  // namespace

TEST("rows: layerNorm, l2Normalize and softmax equal the reference") {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  on_each_isa([&](core::Device& device) {
    for (const int64_t columns : widths) {
      for (const DType in : {DType::float32, DType::bfloat16}) {
        for (const DType to : {DType::float32, DType::bfloat16}) {
          NOTE(std::to_string(columns) + " columns, " + core::name_of(in) + " to " + core::name_of(to));
          const int64_t gap = columns % 3;
          Matrix x({2, 2, columns}, in, gap), out({2, 2, columns}, to, gap);
          Matrix weight({columns}, DType::float32), bias({columns}, DType::float32);
          x.fill([&] { return 2 + 3 * normal(random); });
          weight.fill([&] { return normal(random); });
          bias.fill([&] { return normal(random); });

          run(device, "layerNorm", {&x, &weight, &bias}, out, {{"eps", 1e-5}});
          CHECK(rows_close(x, out, [&](const auto& row) { return layer_norm(row, &weight, &bias, 1e-5); }, 4e-6));
          run(device, "layerNorm", {&x, nullptr, nullptr}, out, {{"eps", 1e-5}});
          CHECK(rows_close(x, out, [&](const auto& row) { return layer_norm(row, nullptr, nullptr, 1e-5); }, 4e-6));
          run(device, "l2Normalize", {&x}, out, {{"eps", 1e-12}});
          CHECK(rows_close(x, out, [](const auto& row) { return l2_normalize(row, 1e-12); }));
          run(device, "softmax", {&x}, out, {});
          CHECK(rows_close(x, out, softmax));
          CHECK(out.gaps_untouched());
        }
      }
    }
  });
}

TEST("rows: norms of hard rows") {
  on_each_isa([](core::Device& device) {
    Matrix x({4, 37}, DType::float32), out({4, 37}, DType::float32);
    std::mt19937 random(2);
    std::normal_distribution<double> normal;
    // A mean a thousand times the deviation; one value; zeros; values of very different size.
    for (int64_t c = 0; c < 37; ++c) {
      x.set(0, c, 1000 + normal(random));
      x.set(1, c, -3.25);
      x.set(2, c, 0);
      x.set(3, c, std::pow(10.0, static_cast<double>(c % 9) - 4) * normal(random));
    }
    run(device, "layerNorm", {&x, nullptr, nullptr}, out, {{"eps", 1e-6}});
    CHECK(rows_close(x, out, [](const auto& row) { return layer_norm(row, nullptr, nullptr, 1e-6); }, 1e-4));
    for (int64_t c = 0; c < 37; ++c) CHECK(out.at(1, c) == 0 && out.at(2, c) == 0);
    run(device, "l2Normalize", {&x}, out, {{"eps", 1e-12}});
    CHECK(rows_close(x, out, [](const auto& row) { return l2_normalize(row, 1e-12); }));
    run(device, "softmax", {&x}, out, {});
    CHECK(rows_close(x, out, softmax));
    // A norm below eps.
    x.fill([] { return 1e-14; });
    run(device, "l2Normalize", {&x}, out, {{"eps", 1e-12}});
    CHECK(rows_close(x, out, [](const auto& row) { return l2_normalize(row, 1e-12); }));
  });
}

TEST("rows: a NaN or an infinity reaches its row only") {
  on_each_isa([](core::Device& device) {
    for (const int64_t columns : {1, 9, 40, 200}) {
      for (const double special : {nan_value, infinity, -infinity}) {
        for (const int64_t place : {int64_t{0}, columns / 2, columns - 1}) {
          for (const RowOp& op : row_ops) {
            NOTE(std::string(op.op) + ", " + std::to_string(columns) + " columns, " + std::to_string(special) + " at " + std::to_string(place));
            Matrix x({3, columns}, DType::float32), out({3, columns}, DType::float32), clean({3, columns}, DType::float32);
            double next = -1;
            x.fill([&] { return next += 0.01; });
            run(device, op.op, operands_of(op, x), clean, op.attributes);
            x.set(1, place, special);
            run(device, op.op, operands_of(op, x), out, op.attributes);
            CHECK(out.same_row(0, clean, 0) && out.same_row(2, clean, 2));
            const std::string name = op.op;
            for (int64_t c = 0; c < columns; ++c) {
              const double got = out.at(1, c);
              if (name == "layerNorm") CHECK(std::isnan(got));
              if (name == "l2Normalize") CHECK(std::isnan(special) || c == place ? std::isnan(got) : got == 0);
              if (name == "softmax" && special == -infinity && columns > 1) CHECK(c == place ? got == 0 : got > 0);
              if (name == "softmax" && (special != -infinity || columns == 1)) CHECK(std::isnan(got));
              if (name == "unary" || name == "cast") CHECK(c == place || got == clean.at(1, c));
            }
          }
        }
      }
    }
  });
}

TEST("rows: unary equals the reference over all of float32") {
  on_each_isa([](core::Device& device) {
    constexpr uint64_t step = 19997;  // a prime: all low bits occur
    constexpr auto count = static_cast<int64_t>((uint64_t{1} << 32) / step);
    Matrix x({count}, DType::float32), out({count}, DType::float32);
    uint64_t bits = 0;
    x.fill([&] {
      const auto low = static_cast<uint32_t>(bits += step);
      float value;
      std::memcpy(&value, &low, sizeof value);
      return value;
    });
    for (const UnaryCase& unary : unary_cases) {
      NOTE(unary.kind);
      run(device, "unary", {&x}, out, {{"kind", std::string(unary.kind)}});
      int64_t wrong = 0;
      for (int64_t i = 0; i < count; ++i) {
        const auto expected = static_cast<float>(unary.reference(x.at(0, i)));
        // At the overflow's edge the neighbour is right as well.
        const double got = out.at(0, i);
        const bool edge = std::fabs(got) > 3.4028e38 && std::fabs(expected) > 3.4028e38 && std::signbit(got) == std::signbit(expected);
        if (!edge && !close(got, expected, DType::float32, std::max(unary.tolerance, 6e-8))) ++wrong;
        if (unary.tolerance == 0 && got != expected && !std::isnan(expected)) ++wrong;
      }
      CHECK(wrong == 0);
    }
  });
}

TEST("rows: unary at infinity, NaN, zero and the ends of exp") {
  on_each_isa([](core::Device& device) {
    const std::vector<double> values = {infinity, -infinity, nan_value, 0.0, -0.0, 88.7, 89.5, -87.4, -100.0, -104.5, 1e-40, 1e38, -1e38};
    const auto n = static_cast<int64_t>(values.size());
    Matrix x({n}, DType::float32), out({n}, DType::float32);
    for (int64_t i = 0; i < n; ++i) x.set(0, i, values[static_cast<size_t>(i)]);
    for (const UnaryCase& unary : unary_cases) {
      NOTE(unary.kind);
      run(device, "unary", {&x}, out, {{"kind", std::string(unary.kind)}});
      for (int64_t i = 0; i < n; ++i) {
        CHECK(close(out.at(0, i), static_cast<float>(unary.reference(x.at(0, i))), DType::float32, std::max(unary.tolerance, 6e-8)));
      }
    }
    // exp falls gradually to zero.
    run(device, "unary", {&x}, out, {{"kind", std::string("exp")}});
    CHECK(std::fabs(out.at(0, 8) - std::exp(-100.0)) <= 1.5e-45 && out.at(0, 8) > 0);
    CHECK(out.at(0, 9) == 0);
  });
}

TEST("rows: unary and cast of all types, widths and strides") {
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  on_each_isa([&](core::Device& device) {
    for (const int64_t columns : widths) {
      for (const DType to : {DType::float32, DType::bfloat16}) {
        for (const int64_t gap : {0, 3}) {
          for (const DType in : {DType::float32, DType::bfloat16}) {
            Matrix x({3, columns}, in, gap), out({3, columns}, to, gap);
            x.fill([&] { return 3 * normal(random); });
            for (const UnaryCase& unary : unary_cases) {
              NOTE(std::string(unary.kind) + ", " + std::to_string(columns) + " columns, " + core::name_of(in) + " to " + core::name_of(to));
              run(device, "unary", {&x}, out, {{"kind", std::string(unary.kind)}});
              CHECK(rows_close(x, out, [&](std::vector<double> row) {
                for (double& v : row) v = unary.reference(v);
                return row;
              }));
              CHECK(out.gaps_untouched());
            }
          }
          for (const DType in : {DType::float32, DType::bfloat16, DType::int32, DType::uint8}) {
            Matrix x({3, columns}, in, gap), out({3, columns}, to, gap);
            x.fill([&] { return std::trunc(std::fabs(60 * normal(random))); });
            run(device, "cast", {&x}, out, {});
            for (int64_t r = 0; r < 3; ++r) {
              for (int64_t c = 0; c < columns; ++c) {
                const auto value = static_cast<float>(x.at(r, c));
                CHECK(out.at(r, c) == (to == DType::float32 ? value : core::bf16_to_f32(core::f32_to_bf16(value))));
              }
            }
            CHECK(out.gaps_untouched());
          }
        }
      }
    }
  });
}

TEST("rows: rounding to bfloat16 is core's, to the bit") {
  on_each_isa([](core::Device& device) {
    // All high halves with the low halves at and about the tie, in lengths that end in a partial register too.
    constexpr int64_t columns = 8191;
    for (const uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      std::vector<float> values(65536);
      for (uint32_t i = 0; i < 65536; ++i) {
        const uint32_t bits = i << 16 | low;
        std::memcpy(&values[i], &bits, sizeof bits);
      }
      std::vector<uint16_t> rounded(values.size(), 0xa5a5);
      std::vector<float> back(values.size());
      for (size_t begin = 0; begin < values.size(); begin += columns) {
        const int64_t n = std::min<int64_t>(columns, static_cast<int64_t>(values.size() - begin));
        Matrix x({n}, DType::float32), out({n}, DType::bfloat16);
        const auto kernel = device.make_kernel(spec_of("cast", {&x}, out, {}));
        const auto back_kernel = device.make_kernel(spec_of("cast", {&out}, x, {}));
        TensorView from = x.view(), to = out.view(), again = x.view();
        from.data = values.data() + begin;
        to.data = rounded.data() + begin;
        again.data = back.data() + begin;
        run_views(device, *kernel, {from}, to);
        run_views(device, *back_kernel, {to}, again);
      }
      int64_t wrong = 0;
      for (size_t i = 0; i < values.size(); ++i) {
        const float expected = core::bf16_to_f32(rounded[i]);
        if (rounded[i] != core::f32_to_bf16(values[i]) || std::memcmp(&back[i], &expected, sizeof expected) != 0) ++wrong;
      }
      CHECK(wrong == 0);
    }
  });
}

TEST("rows: arithmetic with whole, trailing and scalar operands") {
  std::mt19937 random(4);
  std::uniform_real_distribution<double> uniform(0.5, 2);
  const std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>> shapes = {
      {{3, 5, 17}, {3, 5, 17}}, {{3, 5, 17}, {5, 17}}, {{3, 5, 17}, {17}}, {{3, 5, 17}, {}}, {{40}, {40}},     {{40}, {}},
      {{}, {}},                 {{1, 1}, {1}},         {{4, 1}, {1}},      {{7, 5003}, {5003}}, {{2, 3, 1}, {3, 1}}, {{129, 600}, {129, 600}}};
  on_each_isa([&](core::Device& device) {
    for (const auto& [a_shape, b_shape] : shapes) {
      for (const int64_t gap : {0, 2}) {
        for (const DType a_type : {DType::float32, DType::bfloat16}) {
          for (const DType b_type : {DType::float32, DType::bfloat16}) {
            for (const DType to : {DType::float32, DType::bfloat16}) {
              Matrix a(a_shape, a_type, gap), b(b_shape, b_type, gap), out(a_shape, to, gap);
              a.fill([&] { return uniform(random); });
              b.fill([&] { return uniform(random); });
              for (const char* op : {"add", "sub", "mul", "div"}) {
                NOTE(std::string(op) + ", " + std::to_string(a.rows()) + " rows of " + std::to_string(a.columns()) + ", b of " + std::to_string(b.rows()));
                run(device, op, {&a, &b}, out, {});
                int64_t wrong = 0;
                for (int64_t r = 0; r < a.rows(); ++r) {
                  for (int64_t c = 0; c < a.columns(); ++c) {
                    const auto x = static_cast<float>(a.at(r, c)), y = static_cast<float>(b.at(r % b.rows(), b_shape.empty() ? 0 : c));
                    const float z = *op == 'a' ? x + y : *op == 's' ? x - y : *op == 'm' ? x * y : x / y;
                    if (out.at(r, c) != (to == DType::float32 ? z : core::bf16_to_f32(core::f32_to_bf16(z)))) ++wrong;
                  }
                }
                CHECK(wrong == 0);
                CHECK(out.gaps_untouched());
              }
            }
          }
        }
      }
    }
  });
}

TEST("rows: gather, scatter and pickToken move rows") {
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  on_each_isa([&](core::Device& device) {
    for (const int64_t columns : {int64_t{1}, int64_t{7}, int64_t{64}, int64_t{771}}) {
      for (const DType in : {DType::float32, DType::bfloat16}) {
        for (const DType to : {DType::float32, DType::bfloat16}) {
          const int64_t gap = columns % 2;
          Matrix x({9, columns}, in, gap), indices({4}, DType::int32), taken({4, columns}, to, gap), put({6, columns}, to, gap);
          Matrix narrow({4, columns}, in, gap);
          x.fill([&] { return normal(random); });
          const int64_t rows[] = {8, 0, 3, 3};
          for (int64_t i = 0; i < 4; ++i) indices.set(0, i, static_cast<double>(rows[i]));
          run(device, "gather", {&x, &indices}, taken, {});
          const auto rounded = [&](const Matrix& from, int64_t r, int64_t c) {
            const auto value = static_cast<float>(from.at(r, c));
            return to == DType::float32 ? value : core::bf16_to_f32(core::f32_to_bf16(value));
          };
          for (int64_t i = 0; i < 4; ++i) {
            for (int64_t c = 0; c < columns; ++c) CHECK(taken.at(i, c) == rounded(x, rows[i], c));
          }

          narrow.fill([&] { return normal(random); });
          const int64_t places[] = {5, 0, 3, 1};
          for (int64_t i = 0; i < 4; ++i) indices.set(0, i, static_cast<double>(places[i]));
          run(device, "scatter", {&narrow, &indices}, put, {{"rows", 6.0}});
          for (int64_t c = 0; c < columns; ++c) {
            for (int64_t i = 0; i < 4; ++i) CHECK(put.at(places[i], c) == rounded(narrow, i, c));
            CHECK(put.at(2, c) == 0 && put.at(4, c) == 0);
          }

          Matrix lengths({5}, DType::int32);
          const int64_t ends[] = {0, 3, 3, 4, 8};  // the second is empty, a row is left over
          for (int64_t i = 0; i < 5; ++i) lengths.set(0, i, static_cast<double>(ends[i]));
          for (const char* which : {"first", "last"}) {
            run(device, "pickToken", {&x, &lengths}, taken, {{"which", std::string(which)}});
            for (int64_t s = 0; s < 4; ++s) {
              const int64_t row = *which == 'f' ? ends[s] : ends[s + 1] - 1;
              for (int64_t c = 0; c < columns; ++c) CHECK(taken.at(s, c) == (s == 1 ? 0 : rounded(x, row, c)));
            }
          }
          Matrix thirds({3, columns}, to, gap);
          run(device, "pickToken", {&x, nullptr}, thirds, {{"which", std::string("last")}, {"length", 3.0}});
          for (int64_t c = 0; c < columns; ++c) CHECK(thirds.at(1, c) == rounded(x, 5, c));
          CHECK(taken.gaps_untouched() && put.gaps_untouched() && thirds.gaps_untouched());
        }
      }
    }
  });
}

TEST("rows: pool equals the reference") {
  std::mt19937 random(6);
  std::normal_distribution<double> normal;
  const std::vector<int64_t> lengths = {1, 0, 33, 2, 300, 64};
  on_each_isa([&](core::Device& device) {
    for (const int64_t columns : {1, 7, 16, 65, 257, 777}) {
      for (const DType in : {DType::float32, DType::bfloat16}) {
        for (const DType to : {DType::float32, DType::bfloat16}) {
          Matrix x({405, columns}, in, columns % 3), out({6, columns}, to, columns % 3), cumulative({7}, DType::int32);
          x.fill([&] { return 1 + normal(random); });
          cumulative.set(0, 0, 0);
          for (int64_t s = 0; s < 6; ++s) cumulative.set(0, s + 1, cumulative.at(0, s) + static_cast<double>(lengths[static_cast<size_t>(s)]));
          for (const char* mode : {"mean", "max", "mean_sqrt_len"}) {
            const std::string name = mode;
            NOTE(name + ", " + std::to_string(columns) + " columns, " + core::name_of(in) + " to " + core::name_of(to));
            run(device, "pool", {&x, &cumulative}, out, {{"mode", name}});
            for (int64_t s = 0; s < 6; ++s) {
              const auto begin = static_cast<int64_t>(cumulative.at(0, s)), end = static_cast<int64_t>(cumulative.at(0, s + 1));
              const auto length = static_cast<double>(end - begin);
              for (int64_t c = 0; c < columns; ++c) {
                double expected = name == "max" ? -infinity : 0;
                for (int64_t r = begin; r < end; ++r) expected = name == "max" ? std::max(expected, x.at(r, c)) : expected + x.at(r, c);
                if (name == "mean") expected /= length;
                if (name == "mean_sqrt_len") expected /= std::sqrt(length);
                CHECK(close(out.at(s, c), begin == end ? 0 : expected, to, 2e-6));
              }
            }
          }
          Matrix fifths({81, columns}, to);
          run(device, "pool", {&x, nullptr}, fifths, {{"mode", std::string("mean")}, {"length", 5.0}});
          for (int64_t c = 0; c < columns; ++c) {
            double sum = 0;
            for (int64_t r = 10; r < 15; ++r) sum += x.at(r, c);
            CHECK(close(fifths.at(2, c), sum / 5, to, 2e-6));
          }
          CHECK(out.gaps_untouched());
        }
      }
    }
    // A NaN anywhere in a sequence's column makes its results NaN, no other's.
    for (int64_t row = 0; row < 4; ++row) {
      Matrix x({6, 40}, DType::float32), out({2, 40}, DType::float32), cumulative({3}, DType::int32);
      x.fill([&] { return normal(random); });
      x.set(row, 38, nan_value);
      cumulative.set(0, 0, 0);
      cumulative.set(0, 1, 4);
      cumulative.set(0, 2, 6);
      for (const char* mode : {"mean", "max", "mean_sqrt_len"}) {
        run(device, "pool", {&x, &cumulative}, out, {{"mode", std::string(mode)}});
        for (int64_t c = 0; c < 40; ++c) CHECK(std::isnan(out.at(0, c)) == (c == 38) && !std::isnan(out.at(1, c)));
      }
    }
  });
}

TEST("rows: the same bits in any place, batch and number of threads") {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  on_each_isa([&](core::Device& device) {
    for (const int64_t columns : {3, 50, 384, 1001}) {
      for (const DType in : {DType::float32, DType::bfloat16}) {
        constexpr int64_t rows = 301;
        Matrix x({rows, columns}, in), y({rows, columns}, in, 5);
        std::vector<int64_t> order(rows);
        std::iota(order.begin(), order.end(), 0);
        std::shuffle(order.begin(), order.end(), random);
        x.fill([&] { return normal(random); });
        for (int64_t r = 0; r < rows; ++r) y.copy_row(r, x, order[static_cast<size_t>(r)]);
        for (const RowOp& op : row_ops) {
          NOTE(std::string(op.op) + ", " + std::to_string(columns) + " columns, " + core::name_of(in));
          Matrix one_thread({rows, columns}, DType::float32), out({rows, columns}, DType::float32, 1), alone({1, columns}, DType::float32);
          run(device, op.op, operands_of(op, x), one_thread, op.attributes, 1);
          run(device, op.op, operands_of(op, y), out, op.attributes, 2);
          for (int64_t r = 0; r < rows; ++r) CHECK(out.same_row(r, one_thread, order[static_cast<size_t>(r)]));
          Matrix single({1, columns}, in);
          single.copy_row(0, x, 17);
          run(device, op.op, operands_of(op, single), alone, op.attributes);
          CHECK(alone.same_row(0, one_thread, 17));
        }
        // A sequence pooled alone and among others.
        Matrix all({7, columns}, DType::float32), alone({1, columns}, DType::float32), sequence({43, columns}, in);
        for (int64_t r = 0; r < 43; ++r) sequence.copy_row(r, x, 2 * 43 + r);
        for (const char* mode : {"mean", "max", "mean_sqrt_len"}) {
          run(device, "pool", {&x, nullptr}, all, {{"mode", std::string(mode)}, {"length", 43.0}});
          run(device, "pool", {&sequence, nullptr}, alone, {{"mode", std::string(mode)}, {"length", 43.0}}, 1);
          CHECK(alone.same_row(0, all, 2));
        }
      }
    }
  });
}

TEST("rows: nothing to do") {
  on_each_isa([](core::Device& device) {
    for (const auto& shape : std::vector<std::vector<int64_t>>{{0, 5}, {5, 0}, {0}, {0, 0}}) {
      Matrix x(shape, DType::float32), out(shape, DType::bfloat16);
      for (const RowOp& op : row_ops) run(device, op.op, operands_of(op, x), out, op.attributes);
      run(device, "add", {&x, &x}, out, {});
    }
    Matrix table({4, 3}, DType::float32), none({0}, DType::int32), nothing({0, 3}, DType::float32), zeros({4, 3}, DType::float32);
    table.fill([] { return 1; });
    run(device, "gather", {&table, &none}, nothing, {});
    run(device, "scatter", {&nothing, &none}, zeros, {{"rows", 4.0}});
    for (int64_t r = 0; r < 4; ++r) CHECK(zeros.at(r, 0) == 0 && zeros.at(r, 2) == 0);
    Matrix lengths({1}, DType::int32);
    lengths.set(0, 0, 0);
    run(device, "pool", {&table, &lengths}, nothing, {{"mode", std::string("max")}});
    run(device, "pickToken", {&table, &lengths}, nothing, {{"which", std::string("last")}});
  });
}

TEST("rows: refusals name op and operand") {
  const auto device = cpu::open_device("", 2);
  const auto error = [&](ErrorCode code, const char* op, const Inputs& inputs, Matrix& out, const Set& attributes) {
    return error_of(*device, code, op, inputs, out, attributes);
  };
  Matrix x({4, 8}, DType::float32), half({4, 8}, DType::float16), whole({4, 8}, DType::int32), out({4, 8}, DType::float32);
  Matrix other({4, 7}, DType::float32), scalar({}, DType::float32), narrow({7}, DType::float32), indices({3}, DType::int32);
  Matrix picked({3, 8}, DType::float32);
  x.fill([] { return 1; });

  CHECK(contains(error(ErrorCode::dtype, "softmax", {&whole}, out, {}), "[softmax] x is int32; expected float32 or bfloat16"));
  CHECK(contains(error(ErrorCode::dtype, "cast", {&half}, out, {}), "[cast] x is float16"));
  CHECK(contains(error(ErrorCode::dtype, "softmax", {&x}, whole, {}), "[softmax] dtype is int32"));
  CHECK(contains(error(ErrorCode::shape, "softmax", {&x}, other, {}), "[softmax] the output is [4, 7]; expected [4, 8]"));
  CHECK(contains(error(ErrorCode::shape, "softmax", {&scalar}, scalar, {}), "[softmax] x is []; expected [..., C]"));
  CHECK(contains(error(ErrorCode::shape, "layerNorm", {&x, &narrow, nullptr}, out, {{"eps", 0.0}}), "[layerNorm] weight is [7]; expected [8]"));
  CHECK(contains(error(ErrorCode::argument, "layerNorm", {&x, nullptr, nullptr}, out, {{"eps", -1.0}}), "[layerNorm] eps is -1"));
  CHECK(contains(error(ErrorCode::argument, "layerNorm", {&x, nullptr, nullptr}, out, {}), "eps"));
  CHECK(contains(error(ErrorCode::argument, "layerNorm", {&x}, out, {{"eps", 0.0}}), "[layerNorm] expected 3 inputs and 1 output"));
  CHECK(contains(error(ErrorCode::argument, "softmax", {nullptr}, out, {}), "[softmax] x is missing"));
  CHECK(contains(error(ErrorCode::argument, "softmax", {&x}, out, {{"axis", 1.0}}), "axis"));
  CHECK(contains(error(ErrorCode::argument, "unary", {&x}, out, {{"kind", std::string("cosh")}}), "[unary] kind is 'cosh'"));
  CHECK(contains(error(ErrorCode::shape, "add", {&x, &narrow}, out, {}), "[add] b is [7]; expected [4, 8] or trailing dimensions of it"));
  CHECK(contains(error(ErrorCode::dtype, "mul", {&x, &whole}, out, {}), "[mul] b is int32"));

  for (int64_t i = 0; i < 3; ++i) indices.set(0, i, static_cast<double>(i));
  CHECK(error(ErrorCode::argument, "gather", {&x, &indices}, picked, {}).empty());
  indices.set(0, 1, 4);
  CHECK(contains(error(ErrorCode::argument, "gather", {&x, &indices}, picked, {}), "[gather] indices[1] is 4; expected at least 0 and less than 4"));
  indices.set(0, 1, -1);
  CHECK(contains(error(ErrorCode::argument, "gather", {&x, &indices}, picked, {}), "[gather] indices[1] is -1"));
  CHECK(contains(error(ErrorCode::argument, "scatter", {&picked, &indices}, out, {{"rows", 4.0}}), "[scatter] indices[1] is -1"));
  indices.set(0, 1, 2);
  CHECK(contains(error(ErrorCode::argument, "scatter", {&picked, &indices}, out, {{"rows", 4.0}}),
                 "[scatter] indices[2] is 2; expected distinct indices, but indices[1] is the same"));
  CHECK(contains(error(ErrorCode::shape, "scatter", {&x, &indices}, out, {{"rows", 4.0}}), "[scatter] indices is [3]"));

  Matrix lengths({4}, DType::int32);
  const auto pooled = [&](std::vector<double> ends, ErrorCode code) {
    for (int64_t i = 0; i < 4; ++i) lengths.set(0, i, ends[static_cast<size_t>(i)]);
    return error(code, "pool", {&x, &lengths}, picked, {{"mode", std::string("mean")}});
  };
  CHECK(pooled({0, 1, 1, 4}, ErrorCode::argument).empty());
  CHECK(contains(pooled({1, 1, 1, 4}, ErrorCode::argument), "[pool] cuSeqlens[0] is 1; expected 0"));
  CHECK(contains(pooled({0, 2, 1, 4}, ErrorCode::argument), "[pool] cuSeqlens[2] is 1; expected at least 2"));
  CHECK(contains(pooled({0, 2, 2, 5}, ErrorCode::argument), "[pool] cuSeqlens[3] is 5; expected at most 4"));
  CHECK(contains(pooled({0, -2147483648.0, 2147483647.0, 4}, ErrorCode::argument), "[pool] cuSeqlens[1]"));
  CHECK(contains(error(ErrorCode::argument, "pool", {&x, nullptr}, picked, {{"mode", std::string("mean")}}), "[pool] length is 0"));
  CHECK(contains(error(ErrorCode::shape, "pool", {&x, nullptr}, picked, {{"mode", std::string("mean")}, {"length", 3.0}}), "[pool] x is [4, 8]"));
  CHECK(contains(error(ErrorCode::argument, "pool", {&x, &lengths}, picked, {{"mode", std::string("sum")}}), "[pool] mode is 'sum'"));
}
