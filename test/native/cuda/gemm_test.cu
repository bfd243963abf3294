// gemm against float64: types, tiles, ragged sizes, epilogues, and the same bits whatever the tile and the batch.
#include <cmath>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include "cuda/gemm.cuh"
#include "cuda/kernels.cuh"
#include "cuda/sim/options.h"
#include "matrices.h"
#include "test.h"

namespace chiasma::cuda {

namespace {

using test::DeviceArray;
using test::Matrix;

struct Case {
  int64_t rows, columns, inner;
  GemmTile tile = GemmTile::middle;
  std::optional<UnaryKind> activation = std::nullopt;
  bool bias = false, residual = false;
  int64_t period = 0;  // 0: rows
  bool first = false;
  float scale = 1;
  int64_t out_gap = 0;  // elements between rows of out
};

void check_launch(cudaError_t error) {
  const std::string report = sim::take_report();
  NOTE("report: " + report);
  CHECK(error == cudaSuccess);
}

double activate(std::optional<UnaryKind> kind, double x) {
  if (!kind) return x;
  switch (*kind) {
    case UnaryKind::gelu:
      return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case UnaryKind::quick_gelu:
      return x / (1 + std::exp(-1.702 * x));
    case UnaryKind::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case UnaryKind::relu:
      return x < 0 ? 0 : x;
    case UnaryKind::silu:
      return x / (1 + std::exp(-x));
    default:
      return std::tanh(x);
  }
}

// Runs a case and compares; `tolerance` is relative to what the sums are made of.
template <class T, class Out>
std::vector<Out> run_case(const Case& c, double tolerance) {
  constexpr bool bytes = std::is_same_v<T, int8_t>;
  NOTE("rows " + std::to_string(c.rows) + ", columns " + std::to_string(c.columns) + ", inner " + std::to_string(c.inner) + ", tile " +
       std::to_string(static_cast<int>(c.tile)));
  const int64_t stride = round_up(c.inner, 16 / static_cast<int64_t>(sizeof(T)));
  const Matrix<T> x(c.rows, c.inner, stride, 1, bytes ? 30 : 1);
  const Matrix<T> weight(c.columns, c.inner, stride + 16, 2, bytes ? 30 : 1);
  const Matrix<float> bias(1, c.columns, c.columns, 3), x_scales(1, c.rows, c.rows, 4), weight_scales(1, c.columns, c.columns, 5);
  std::vector<int32_t> offsets, sums;
  for (int64_t r = 0; r < c.rows; ++r) offsets.push_back(static_cast<int32_t>(r * 37 % 255 - 127));
  for (int64_t n = 0; n < c.columns; ++n) {
    int64_t sum = 0;
    for (int64_t k = 0; k < c.inner; ++k) sum += static_cast<int64_t>(weight.at(n, k));
    sums.push_back(static_cast<int32_t>(sum));
  }
  const DeviceArray<int32_t> x_offsets(offsets), weight_sums(sums);
  const int64_t period = c.period > 0 ? c.period : c.rows;
  const Matrix<Out> residual(period, c.columns, c.columns + 3, 6);
  const Matrix<Out> out(c.rows, c.columns, c.columns + c.out_gap, 7);

  Gemm a{};
  a.x = x.view();
  a.weight = weight.view();
  a.out = out.view();
  a.rows = c.rows;
  a.columns = c.columns;
  a.inner = c.inner;
  a.scale = c.scale;
  if (bytes) {
    a.x_scales = x_scales.data();
    a.x_offsets = x_offsets.get();
    a.weight_scales = weight_scales.data();
    a.weight_sums = weight_sums.get();
  }
  if (c.bias) a.bias = bias.data();
  const Matrix<float> first(1, c.columns, c.columns, 8);
  if (c.first) a.first = first.data();
  a.activated = c.activation.has_value();
  if (c.activation) a.activation = *c.activation;
  if (c.residual) a.residual = residual.view();
  a.period = period;
  check_launch(launch_gemm_tile(a, c.tile, nullptr));

  const std::vector<Out> result = out.read();
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t n = 0; n < c.columns; ++n) {
      double sum = 0, size = 0;
      for (int64_t k = 0; k < c.inner; ++k) {
        const double product = (x.at(r, k) + (bytes ? offsets[static_cast<size_t>(r)] : 0)) * weight.at(n, k);
        sum += product;
        size += std::fabs(product);
      }
      double factor = c.scale;
      if (bytes) factor *= x_scales.at(0, r) * weight_scales.at(0, n);
      const bool is_first = c.first && r % period == 0;
      double expected = activate(c.activation, is_first ? first.at(0, n) : sum * factor + (c.bias ? bias.at(0, n) : 0));
      if (c.residual) expected += residual.at(r % period, n);
      const double got = static_cast<double>(to_float(result[static_cast<size_t>(r * c.columns + n)]));
      const double one_rounding = std::is_same_v<Out, float> ? 1e-6 : std::is_same_v<Out, f16> ? 1e-3 : 8e-3;
      if (!(std::fabs(got - expected) <= tolerance * (size * std::fabs(factor) + 1) + one_rounding * std::fabs(expected))) {
        FAIL("row " + std::to_string(r) + ", column " + std::to_string(n) + ": " + std::to_string(got) + ", expected " + std::to_string(expected));
      }
    }
  }
  return result;
}

constexpr GemmTile all_tiles[] = {GemmTile::large, GemmTile::large_three, GemmTile::middle, GemmTile::small};

}  // namespace

TEST("gemm: bf16 and f16 tiles, ragged sizes") {
  for (const GemmTile tile : all_tiles) {
    run_case<bf16, bf16>({.rows = 130, .columns = 136, .inner = 96, .tile = tile}, 1e-6);
    run_case<bf16, float>({.rows = 5, .columns = 13, .inner = 33, .tile = tile}, 1e-6);
    run_case<f16, f16>({.rows = 1, .columns = 70, .inner = 200, .tile = tile}, 1e-6);
    run_case<f16, float>({.rows = 67, .columns = 1, .inner = 1, .tile = tile}, 1e-6);
  }
}

TEST("gemm: int8") {
  for (const GemmTile tile : all_tiles) run_case<int8_t, float>({.rows = 33, .columns = 50, .inner = 150, .tile = tile, .bias = true}, 1e-7);
}

TEST("gemm: float32 keeps 1e-6 of its sums") {
  run_case<float, float>({.rows = 70, .columns = 65, .inner = 99}, 1e-6);
  run_case<float, bf16>({.rows = 3, .columns = 130, .inner = 7, .bias = true, .residual = true}, 1e-6);
}

TEST("gemm: epilogues") {
  for (const UnaryKind kind : {UnaryKind::gelu, UnaryKind::quick_gelu, UnaryKind::gelu_tanh, UnaryKind::relu, UnaryKind::silu, UnaryKind::tanh}) {
    NOTE("activation " + std::to_string(static_cast<int>(kind)));
    run_case<bf16, bf16>({.rows = 20, .columns = 40, .inner = 24, .activation = kind, .bias = true, .residual = true, .out_gap = 8}, 1e-6);
  }
  run_case<bf16, float>({.rows = 21, .columns = 37, .inner = 64, .bias = true, .residual = true, .period = 7, .first = true, .scale = 0.25f, .out_gap = 5}, 1e-6);
}

TEST("gemm: nothing to sum leaves bias and residual") {
  run_case<bf16, float>({.rows = 3, .columns = 9, .inner = 0, .bias = true, .residual = true}, 0);
  run_case<float, float>({.rows = 3, .columns = 9, .inner = 0, .bias = true}, 0);
}

TEST("gemm: the same bits in every tile, and for a row in any batch") {
  const auto large = run_case<bf16, float>({.rows = 140, .columns = 72, .inner = 320, .tile = GemmTile::large}, 1e-6);
  for (const GemmTile tile : {GemmTile::large_three, GemmTile::middle, GemmTile::small}) {
    const auto other = run_case<bf16, float>({.rows = 140, .columns = 72, .inner = 320, .tile = tile}, 1e-6);
    CHECK(std::memcmp(large.data(), other.data(), large.size() * sizeof(float)) == 0);
    // The random rows are the same ones from the start.
    const auto fewer = run_case<bf16, float>({.rows = 9, .columns = 72, .inner = 320, .tile = tile}, 1e-6);
    CHECK(std::memcmp(large.data(), fewer.data(), fewer.size() * sizeof(float)) == 0);
  }
}

TEST("gemm: under 20 orders of threads") {
  const sim::Options before = sim::options();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    NOTE("seed " + std::to_string(seed));
    sim::Options options = before;
    options.seed = seed;
    sim::set_options(options);
    run_case<bf16, bf16>({.rows = 70, .columns = 70, .inner = 224, .tile = all_tiles[seed % 3], .bias = true}, 1e-6);
  }
  sim::set_options(before);
}

TEST("gemm: operands that are not aligned are refused") {
  const Matrix<bf16> x(4, 8, 9, 1), weight(4, 8, 8, 2), out(4, 4, 4, 3);
  Gemm a{};
  a.x = x.view();
  a.weight = weight.view();
  a.out = out.view();
  a.rows = a.columns = 4;
  a.inner = 8;
  a.period = 4;
  CHECK(launch_gemm_tile(a, GemmTile::small, nullptr) == cudaErrorInvalidValue);
}

}  // namespace chiasma::cuda
