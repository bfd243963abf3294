// unary, cast and arithmetic against float64 references, to the bit where the result is exact: all types, widths, strides and broadcasts, samples
// of all of float32, NaN and infinity.
#include <numbers>
#include <random>

#include "rows.h"

using namespace chiasma;
using namespace chiasma::test;

namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

struct UnaryCase {
  const char* kind;
  double (*reference)(double);
  double tolerance;  // · max(1, |expected|)
};
const std::vector<UnaryCase> unary_cases = {
    {"gelu", [](double x) { return x * 0.5 * (1 + std::erf(x * std::sqrt(0.5))); }, 3e-7},
    {"quick_gelu", [](double x) { return x * sigmoid(1.702 * x); }, 3e-7},
    {"gelu_tanh", [](double x) { return x * 0.5 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x))); }, 3e-7},
    {"relu", [](double x) { return x < 0 ? 0 : x; }, 0},
    {"silu", [](double x) { return x * sigmoid(x); }, 3e-7},
    {"tanh", [](double x) { return std::tanh(x); }, 4e-7},
    {"sigmoid", sigmoid, 3e-7},
    {"exp", [](double x) { return std::exp(x); }, 1.3e-7},
    {"neg", [](double x) { return -x; }, 0},
    {"sqrt", [](double x) { return std::sqrt(x); }, 6e-8},
    {"abs", [](double x) { return std::fabs(x); }, 0},
};

// What a result of `size` may be wrong by before it is rounded to bfloat16; gelus: 2^-12 of what is not small.
double lost(const UnaryCase& unary, double size) {
  const bool gelu = std::string(unary.kind).find("gelu") != std::string::npos;
  return gelu ? std::max(size, 0x1p-7) * 0x1p-12 : unary.tolerance * std::max(1.0, size);
}

}  // namespace

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

TEST("rows: gelus that go by tables are right in each of their ranges, small as results get") {
  const std::pair<const char*, double (*)(double)> gelus[] = {  // exact where they are small, too
      {"gelu", [](double x) { return x * 0.5 * std::erfc(-x * std::sqrt(0.5)); }},
      {"gelu_tanh", [](double x) { return x * sigmoid(2 * std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)); }},
  };
  constexpr int64_t count = 1 << 16;
  constexpr double end = -7.12;  // in the last range of the tables
  for (const cpu::Isa isa : cpu::available_isas()) {
    if (isa == cpu::Isa::portable || isa == cpu::Isa::avx2) continue;  // no tables
    NOTE(cpu::name_of(isa));
    const auto device = cpu::open_device(cpu::name_of(isa), 1);
    Matrix x({count}, DType::float32), out({count}, DType::float32);
    for (int64_t i = 0; i < count; ++i) x.set(0, i, end * static_cast<double>(i) / count);
    for (const auto& [kind, reference] : gelus) {
      NOTE(kind);
      run(*device, "unary", {&x}, out, {{"kind", std::string(kind)}});
      int64_t wrong = 0;
      for (int64_t i = 1; i < count; ++i) {
        const double expected = reference(x.at(0, i)), share = x.at(0, i) > -4 ? 1e-6 : x.at(0, i) > -5 ? 4e-5 : 5e-3;
        if (!(std::fabs(out.at(0, i) - expected) <= share * std::fabs(expected))) ++wrong;
      }
      CHECK(wrong == 0);
    }
  }
}

TEST("rows: unary to bfloat16") {
  on_each_isa([](core::Device& device) {
    constexpr int64_t count = 40001;
    Matrix x({count}, DType::float32), out({count}, DType::bfloat16);
    for (int64_t i = 0; i < count; ++i) x.set(0, i, static_cast<double>(i - count / 2) / 2000);  // -10 to 10
    for (const UnaryCase& unary : unary_cases) {
      if (std::string(unary.kind) == "sqrt") continue;
      NOTE(unary.kind);
      run(device, "unary", {&x}, out, {{"kind", std::string(unary.kind)}});
      int64_t wrong = 0;
      for (int64_t i = 0; i < count; ++i) {
        const double expected = unary.reference(x.at(0, i)), size = std::fabs(expected);
        const double before = lost(unary, size), half_step = std::exp2(std::floor(std::log2(std::max(size + before, 0x1p-126))) - 8);
        if (!(std::fabs(out.at(0, i) - expected) <= before + half_step)) ++wrong;
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
              const double tolerance = to == DType::bfloat16 ? lost(unary, 1) : f32_tolerance;
              CHECK(rows_close(x, out, [&](std::vector<double> row) {
                for (double& v : row) v = unary.reference(v);
                return row;
              }, std::max(tolerance, f32_tolerance)));
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
