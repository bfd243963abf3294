// cosineTopK's kernels against float64: types and alignments of the corpus, few and many queries, several passes, ties, and what is not finite.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/kernels.cuh"
#include "cuda/sim/options.h"
#include "matrices.h"
#include "test.h"

namespace chiasma::cuda {

namespace {

using test::DeviceArray;
using test::Matrix;

struct Found {
  std::vector<float> scores;
  std::vector<int32_t> indices;
};

template <class Query, class T>
Found search(const Matrix<Query>& queries, const Matrix<T>& corpus, int64_t count, int64_t k, const float* norms = nullptr) {
  TopK a{};
  a.queries = queries.view();
  a.corpus = corpus.view();
  a.query_count = count;
  a.rows = corpus.rows;
  a.columns = corpus.columns;
  a.k = k;
  a.inverse_norms = norms;
  a.scores_stride = a.indices_stride = k;
  const DeviceArray<char> workspace(static_cast<size_t>(top_k_bytes(a)));
  const DeviceArray<float> scores(static_cast<size_t>(count * k));
  const DeviceArray<int32_t> indices(static_cast<size_t>(count * k));
  a.workspace = workspace.get();
  a.scores = scores.get();
  a.indices = indices.get();
  const cudaError_t error = launch_top_k(a, nullptr);
  NOTE("report: " + sim::take_report());
  CHECK(error == cudaSuccess);
  return {scores.read(), indices.read()};
}

template <class Query, class T>
std::vector<double> cosines(const Matrix<Query>& queries, int64_t query, const Matrix<T>& corpus) {
  std::vector<double> result;
  for (int64_t r = 0; r < corpus.rows; ++r) {
    double product = 0, own = 0, other = 0;
    for (int64_t i = 0; i < corpus.columns; ++i) {
      product += queries.at(query, i) * corpus.at(r, i);
      own += queries.at(query, i) * queries.at(query, i);
      other += corpus.at(r, i) * corpus.at(r, i);
    }
    result.push_back(own == 0 || other == 0 ? 0 : product / std::sqrt(own * other));
  }
  return result;
}

// Squares of most rows' numbers are outside of float32, the numbers are not.
template <class T>
void scale_rows(Matrix<T>& matrix) {
  for (int64_t r = 0; r < matrix.rows; ++r) {
    const double scale = std::ldexp(1.0, std::array{0, 80, -80, 120, -110}[static_cast<size_t>(r % 5)]);
    for (int64_t c = 0; c < matrix.columns; ++c) {
      double& value = matrix.values[static_cast<size_t>(r * matrix.columns + c)];
      value *= scale;
      matrix.data()[r * matrix.stride + c] = test::rounded<T>(static_cast<float>(value));
    }
  }
}

// Random rows lie farther apart than float32 sums are wrong, so that the order is known.
template <class Query, class T>
Found run_case(int64_t count, int64_t rows, int64_t columns, int64_t k, int64_t gap = 0, bool extremes = false) {
  NOTE(std::to_string(count) + " queries, " + std::to_string(rows) + " rows of " + std::to_string(columns) + ", k " + std::to_string(k));
  Matrix<Query> queries(count, columns, columns + 3, 1);
  Matrix<T> corpus(rows, columns, columns + gap, 2, std::is_same_v<T, int8_t> ? 40 : 1);
  if constexpr (!std::is_same_v<T, int8_t> && !std::is_same_v<Query, f16>) {
    if (extremes) scale_rows(queries), scale_rows(corpus);
  }
  Found found = search(queries, corpus, count, k);
  for (int64_t q = 0; q < count; ++q) {
    const std::vector<double> all = cosines(queries, q, corpus);
    std::vector<int32_t> order(all.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return all[static_cast<size_t>(a)] > all[static_cast<size_t>(b)]; });
    for (int64_t i = 0; i < k; ++i) {
      const auto at = static_cast<size_t>(q * k + i);
      if (i >= rows) {
        CHECK(found.indices[at] == -1 && found.scores[at] == -INFINITY);
        continue;
      }
      const double expected = all[static_cast<size_t>(order[static_cast<size_t>(i)])];
      if (!(std::fabs(found.scores[at] - expected) <= 1e-6)) {
        FAIL("query " + std::to_string(q) + ", place " + std::to_string(i) + " scores " + std::to_string(found.scores[at]) + ", expected " + std::to_string(expected));
      }
      CHECK(std::fabs(all[static_cast<size_t>(found.indices[at])] - expected) <= 1e-6);
    }
  }
  return found;
}

bool same(const Found& a, const Found& b) {
  const size_t count = std::min(a.scores.size(), b.scores.size());
  return std::memcmp(a.scores.data(), b.scores.data(), count * 4) == 0 && std::memcmp(a.indices.data(), b.indices.data(), count * 4) == 0;
}

}  // namespace

TEST("search: types, few and many queries") {
  run_case<float, float>(3, 300, 40, 10);
  run_case<float, bf16>(9, 2500, 72, 10);
  run_case<float, int8_t>(40, 260, 144, 20);
  run_case<bf16, bf16>(8, 300, 64, 5);
  run_case<bf16, float>(33, 200, 24, 5);
  run_case<f16, int8_t>(2, 129, 16, 3);
}

TEST("search: great and tiny rows beside ordinary ones") {
  run_case<float, float>(3, 700, 40, 10, 0, true);
  run_case<float, bf16>(3, 700, 40, 10, 0, true);
  run_case<bf16, float>(3, 700, 40, 10, 0, true);
  const Found many = run_case<bf16, bf16>(21, 700, 40, 10, 0, true), few = run_case<bf16, bf16>(5, 700, 40, 10, 0, true);
  CHECK(same(few, many));
}

TEST("search: rows at any address") {
  run_case<float, float>(2, 150, 13, 4);
  run_case<float, bf16>(2, 150, 13, 4);
  run_case<float, bf16>(2, 150, 14, 4, 2);
  run_case<float, int8_t>(2, 150, 33, 4);
  run_case<float, int8_t>(2, 150, 33, 4, 3);
}

TEST("search: long lists, several passes, more than there is") {
  run_case<float, bf16>(2, 1300, 16, 100);
  run_case<float, bf16>(9, 900, 16, 300);
  run_case<float, bf16>(2, 1700, 16, 1200);
  run_case<float, float>(2, 30, 16, 600);
}

TEST("search: a query has the same bits alone and among others") {
  const Found many = run_case<float, bf16>(21, 3000, 40, 9), one = run_case<float, bf16>(1, 3000, 40, 9);
  CHECK(same(one, many));
  const Found bytes = run_case<bf16, int8_t>(40, 1500, 40, 120), few = run_case<bf16, int8_t>(8, 1500, 40, 120);
  CHECK(same(few, bytes));
}

TEST("search: equal rows come in order, zeros score 0") {
  const Matrix<float> queries(1, 8, 8, 1);
  Matrix<float> corpus(700, 8, 8, 2);
  for (int64_t r = 0; r < 700; ++r) std::memcpy(corpus.data() + r * 8, corpus.data() + r % 2 * 8, 8 * sizeof(float));
  Found found = search(queries, corpus, 1, 400);
  CHECK(std::is_sorted(found.indices.begin(), found.indices.begin() + 350));
  CHECK(found.indices[0] < 2 && found.indices[1] == found.indices[0] + 2 && found.indices[350] == 1 - found.indices[0]);
  std::memset(corpus.data(), 0, 700 * 8 * sizeof(float));
  found = search(queries, corpus, 1, 20);
  for (int32_t i = 0; i < 20; ++i) CHECK(found.indices[static_cast<size_t>(i)] == i && found.scores[static_cast<size_t>(i)] == 0);
}

TEST("search: with norms given, infinity is the best and NaN the last") {
  const Matrix<float> queries(1, 8, 8, 1);
  const Matrix<float> corpus(40, 8, 8, 2);
  const DeviceArray<float> norms(std::vector<float>(40, 1.0f));
  corpus.data()[7 * 8 + 2] = queries.data()[2] > 0 ? INFINITY : -INFINITY;
  corpus.data()[9 * 8 + 1] = NAN;
  corpus.data()[11 * 8 + 3] = 3.4e38f;  // rounds to infinity in bf16
  const Found found = search(queries, corpus, 1, 40, norms.get());
  CHECK(found.indices[0] == 7 && found.scores[0] == INFINITY);
  CHECK(found.indices[39] == 9 && std::isnan(found.scores[39]));
  const float large = queries.data()[3] > 0 ? found.scores[1] : found.scores[38];
  CHECK((queries.data()[3] > 0 ? found.indices[1] : found.indices[38]) == 11 && std::isfinite(large) && std::fabs(large) > 1e36f);
}

TEST("search: under 20 orders of threads") {
  const sim::Options before = sim::options();
  const Found first = run_case<float, bf16>(9, 400, 40, 12);
  for (uint64_t seed = 0; seed < 20; ++seed) {
    NOTE("seed " + std::to_string(seed));
    sim::Options options = before;
    options.seed = seed;
    sim::set_options(options);
    CHECK(same(first, run_case<float, bf16>(9, 400, 40, 12)));
  }
  sim::set_options(before);
}

}  // namespace chiasma::cuda
