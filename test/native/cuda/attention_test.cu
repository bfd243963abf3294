// attention against float64: head sizes, strides and alignments, self and cross, causal, windows, fewer heads of keys, ragged, empty, bias, infinity behind the
// mask, and faults in lengths.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "cuda/attention.cuh"
#include "cuda/sim/options.h"
#include "matrices.h"
#include "test.h"

namespace chiasma::cuda {

namespace {

using test::DeviceArray;
using test::Matrix;

struct Case {
  std::vector<int32_t> queries = {}, keys = {};  // lengths of the sequences; no keys: the same
  int64_t heads = 1, head_size = 16;
  int64_t kv_heads = 0;  // 0: as many as heads
  bool causal = false;
  int64_t window = -1;
  bool bias = false, ragged = true, ragged_queries = true;
  int64_t extra_rows = 0;               // past the last sequence
  int64_t gap = 0, offset = 0;          // of each operand: elements between rows, and before the first
  float size = 1;
  std::vector<std::pair<int64_t, float>> wild_values = {};  // row · columns + column of v, and what stands there
};

std::vector<int32_t> cumulative(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> sums{0};
  for (const int32_t length : lengths) sums.push_back(sums.back() + length);
  return sums;
}

template <class T, class Out>
std::vector<Out> run_case(const Case& c, double tolerance) {
  NOTE("head size " + std::to_string(c.head_size));
  const std::vector<int32_t>& key_lengths = c.keys.empty() ? c.queries : c.keys;
  const std::vector<int32_t> query_starts = cumulative(c.queries), key_starts = cumulative(key_lengths);
  const int64_t columns = c.heads * c.head_size, stride = columns + c.gap, kv_heads = c.kv_heads ? c.kv_heads : c.heads;
  const int64_t kv_columns = kv_heads * c.head_size, kv_stride = kv_columns + c.gap;
  const int64_t query_rows = query_starts.back() + c.extra_rows, key_rows = key_starts.back() + c.extra_rows;
  const Matrix<T> q(query_rows, columns, stride, 1, c.size, c.offset), k(key_rows, kv_columns, kv_stride, 2, c.size, c.offset);
  Matrix<T> v(key_rows, kv_columns, kv_stride, 3, 1, c.offset);
  const Matrix<Out> out(query_rows, columns, stride, 4, 1, c.offset);
  for (const auto& [at, value] : c.wild_values) {
    v.values[static_cast<size_t>(at)] = value;
    v.data()[at / kv_columns * kv_stride + at % kv_columns] = round_to<T>(value);
  }
  int64_t longest = 1;
  for (const int32_t length : c.queries) longest = std::max<int64_t>(longest, length);
  for (const int32_t length : key_lengths) longest = std::max<int64_t>(longest, length);
  const Matrix<float> bias(2 * longest - 1, c.heads, c.heads + 1, 5);
  const DeviceArray<int32_t> device_queries(query_starts), device_keys(key_starts);
  const DeviceArray<Fault> fault(std::vector<Fault>{{no_kernel, no_kernel, ~uint64_t{0}}});
  const auto sequences = static_cast<int64_t>(c.queries.size());

  Attention a{};
  a.q = q.view();
  a.k = k.view();
  a.v = v.view();
  a.out = out.view();
  const bool ragged_queries = c.ragged && c.ragged_queries;
  a.queries = {ragged_queries ? device_queries.get() : nullptr, ragged_queries ? 0 : c.queries[0], sequences, query_rows};
  a.keys = {c.ragged ? device_keys.get() : nullptr, c.ragged ? 0 : key_lengths[0], sequences, key_rows};
  a.heads = c.heads;
  a.kv_heads = kv_heads;
  a.window = c.window;
  a.head_size = c.head_size;
  a.scale = 1 / std::sqrt(static_cast<float>(c.head_size));
  a.causal = c.causal;
  if (c.bias) {
    a.bias = bias.data();
    a.bias_stride = c.heads + 1;
    a.longest = longest;
  }
  a.slot = {fault.get(), 7};
  const cudaError_t error = launch_attention(a, nullptr);
  const std::string report = sim::take_report();
  NOTE("report: " + report);
  CHECK(error == cudaSuccess);
  CHECK(fault.read()[0].kernel == no_kernel);

  const std::vector<Out> result = out.read();
  std::vector<double> expected(result.size(), 0);
  for (size_t s = 0; s < c.queries.size(); ++s) {
    for (int64_t h = 0; h < c.heads; ++h) {
      for (int64_t i = 0; i < c.queries[s]; ++i) {
        const int64_t row = query_starts[s] + i;
        const int64_t place = i + key_lengths[s] - c.queries[s], kv_column = h / (c.heads / kv_heads) * c.head_size;
        std::vector<double> scores;
        std::vector<int64_t> seen;
        for (int64_t j = 0; j < key_lengths[s]; ++j) {
          if ((c.causal && j > place) || (c.window >= 0 && std::abs(j - place) > c.window)) continue;
          seen.push_back(j);
          double score = 0;
          for (int64_t d = 0; d < c.head_size; ++d) score += q.at(row, h * c.head_size + d) * k.at(key_starts[s] + j, kv_column + d);
          scores.push_back(score * static_cast<double>(a.scale) + (c.bias ? bias.at(j - i + longest - 1, h) : 0));
        }
        if (scores.empty()) continue;
        const double largest = *std::max_element(scores.begin(), scores.end());
        double sum = 0;
        for (double& score : scores) sum += score = std::exp(score - largest);
        for (int64_t d = 0; d < c.head_size; ++d) {
          double& value = expected[static_cast<size_t>(row * columns + h * c.head_size + d)];
          for (size_t j = 0; j < scores.size(); ++j) value += scores[j] / sum * v.at(key_starts[s] + seen[j], kv_column + d);
        }
      }
    }
  }
  for (size_t i = 0; i < result.size(); ++i) {
    const double got = static_cast<double>(to_float(result[i]));
    const bool same = std::isfinite(expected[i]) ? std::fabs(got - expected[i]) <= tolerance : std::isnan(got) || got == expected[i];
    if (!same) {
      FAIL("row " + std::to_string(i / static_cast<size_t>(columns)) + ", column " + std::to_string(i % static_cast<size_t>(columns)) + ": " + std::to_string(got) +
           ", expected " + std::to_string(expected[i]));
    }
  }
  return result;
}

// bf16 weights and results: 2^-8 of values around 1 to 4. f16: 2^-11.
constexpr double bf16_tolerance = 1.6e-2, f16_tolerance = 2e-3, float_tolerance = 2e-6;

}  // namespace

TEST("attention: head sizes") {
  for (const int64_t head_size : {8, 12, 16, 24, 32, 64, 80, 96, 128}) {
    run_case<bf16, bf16>({.queries = {70, 3}, .heads = 2, .head_size = head_size}, bf16_tolerance);
    run_case<f16, f16>({.queries = {17}, .head_size = head_size, .causal = true}, f16_tolerance);
    run_case<float, float>({.queries = {35}, .head_size = head_size}, float_tolerance);
  }
  run_case<bf16, bf16>({.queries = {9}, .head_size = 200}, bf16_tolerance);
  run_case<float, float>({.queries = {9}, .head_size = 256}, float_tolerance);
}

TEST("attention: any stride and alignment") {
  for (const int64_t head_size : {1, 5, 6, 12, 64}) {
    for (const int64_t gap : {0, 1, 2, 4, 8}) {
      NOTE("gap " + std::to_string(gap));
      run_case<bf16, bf16>({.queries = {19}, .heads = 3, .head_size = head_size, .gap = gap, .offset = gap}, bf16_tolerance);
    }
  }
}

TEST("attention: fixed lengths, cross, causal") {
  for (const bool causal : {false, true}) {
    run_case<bf16, float>({.queries = {5, 5, 5}, .keys = {130, 130, 130}, .causal = causal, .ragged = false}, bf16_tolerance);
    run_case<f16, f16>({.queries = {90}, .keys = {65}, .head_size = 32, .causal = causal, .ragged = false}, f16_tolerance);  // some see nothing
    run_case<float, float>({.queries = {40}, .keys = {33}, .causal = causal, .ragged = false}, float_tolerance);
    run_case<bf16, bf16>({.queries = {197}, .head_size = 40, .causal = causal, .ragged = false}, bf16_tolerance);
  }
}

TEST("attention: windows") {
  for (const bool causal : {false, true}) {
    for (const int64_t window : {0, 1, 20, 64, 500}) {
      NOTE("window " + std::to_string(window));
      run_case<bf16, bf16>({.queries = {150, 0, 70}, .causal = causal, .window = window}, bf16_tolerance);
      run_case<float, float>({.queries = {70, 0, 9}, .causal = causal, .window = window}, float_tolerance);
    }
    run_case<f16, f16>({.queries = {90, 1, 30}, .keys = {65, 130, 200}, .head_size = 32, .causal = causal, .window = 10}, f16_tolerance);  // some see nothing
    run_case<bf16, bf16>({.queries = {90}, .head_size = 8, .causal = causal, .window = 9, .bias = true}, bf16_tolerance);
  }
}

TEST("attention: fewer heads of keys and values") {
  run_case<bf16, bf16>({.queries = {70, 3}, .heads = 4, .kv_heads = 2}, bf16_tolerance);
  run_case<bf16, bf16>({.queries = {30}, .heads = 6, .head_size = 12, .kv_heads = 1, .causal = true, .gap = 2}, bf16_tolerance);
  run_case<float, float>({.queries = {40, 3}, .heads = 6, .kv_heads = 3, .causal = true}, float_tolerance);
}

TEST("attention: ragged, empty sequences, rows past the last") {
  for (const bool causal : {false, true}) {
    const Case c{.queries = {0, 5, 1, 0, 64, 65, 0, 130, 2, 0}, .heads = 2, .causal = causal, .extra_rows = 67};
    run_case<bf16, bf16>(c, bf16_tolerance);
    run_case<float, float>(c, float_tolerance);
  }
  run_case<bf16, bf16>({.queries = {3, 0, 4}, .keys = {0, 7, 2}, .heads = 2}, bf16_tolerance);
  run_case<float, float>({.queries = {3, 0, 4}, .keys = {0, 7, 2}, .heads = 2}, float_tolerance);
  run_case<bf16, bf16>({.queries = {}, .extra_rows = 5}, 0);
  run_case<float, float>({.queries = {}, .extra_rows = 5}, 0);
}

TEST("attention: relative bias") {
  run_case<bf16, bf16>({.queries = {7, 70}, .heads = 3, .head_size = 8, .bias = true}, bf16_tolerance);
  run_case<float, float>({.queries = {7, 40}, .heads = 3, .head_size = 8, .causal = true, .bias = true}, float_tolerance);
}

TEST("attention: large scores") {
  run_case<f16, float>({.queries = {80}, .size = 12}, 4e-3);
  run_case<float, float>({.queries = {80}, .size = 12}, 4e-5);
}

TEST("attention: what is not finite behind the causal mask is not seen") {
  // Values 26 (row 3), 18 and 1600 (row 2 and row 200).
  const std::vector<std::pair<int64_t, float>> wild = {{26, NAN}, {18, INFINITY}, {1600, -INFINITY}};
  run_case<bf16, bf16>({.queries = {210}, .head_size = 8, .causal = true, .wild_values = wild}, bf16_tolerance);
  run_case<f16, f16>({.queries = {210}, .head_size = 8, .causal = true, .wild_values = wild}, f16_tolerance);
  run_case<float, float>({.queries = {210}, .head_size = 8, .causal = true, .wild_values = wild}, float_tolerance);
  run_case<bf16, bf16>({.queries = {210}, .head_size = 8, .window = 30, .wild_values = wild}, bf16_tolerance);
  run_case<float, float>({.queries = {210}, .head_size = 8, .window = 30, .wild_values = wild}, float_tolerance);
}

TEST("attention: a sequence has the same bits alone and among others") {
  // The random rows are the same ones from the start.
  for (const bool causal : {false, true}) {
    const auto alone = run_case<bf16, float>({.queries = {150}, .heads = 2, .head_size = 24, .causal = causal}, bf16_tolerance);
    const auto among = run_case<bf16, float>({.queries = {150, 3, 70}, .heads = 2, .head_size = 24, .causal = causal}, bf16_tolerance);
    CHECK(std::memcmp(alone.data(), among.data(), alone.size() * sizeof(float)) == 0);
  }
}

// Every length on both sides of a limit: of heads that share a block (32, 64), of the short kernel (128), of whole rows (256, 288), of a ring (shared memory).
TEST("attention: one length, at the limits of the kernels") {
  for (const int32_t length : {1, 16, 17, 32, 33, 64, 65, 128, 129, 256, 257, 288, 289}) {
    NOTE("length " + std::to_string(length));
    const bool causal = length % 2 == 1;
    run_case<bf16, bf16>({.queries = {length, length}, .heads = length <= 64 ? 3 : 1, .head_size = 16, .causal = causal, .ragged = false}, bf16_tolerance);
    run_case<f16, f16>({.queries = {length}, .heads = length <= 64 ? 5 : 1, .head_size = 64, .causal = !causal, .ragged = false}, f16_tolerance);
    run_case<bf16, float>({.queries = {length}, .head_size = 32, .ragged = false}, bf16_tolerance);  // no 16-byte results: the ring
  }
  for (const int64_t head_size : {64, 72, 80, 96, 128}) {
    for (const int32_t length : {50, 128, 129, 200}) {
      run_case<f16, f16>({.queries = {length}, .heads = 2, .head_size = head_size, .causal = length == 200, .ragged = false}, f16_tolerance);
    }
  }
  run_case<bf16, bf16>({.queries = {40}, .keys = {128}, .heads = 2, .head_size = 8, .causal = true, .ragged = false}, bf16_tolerance);
  run_case<bf16, bf16>({.queries = {1, 1}, .keys = {300, 300}, .head_size = 8, .ragged = false}, bf16_tolerance);
  run_case<bf16, bf16>({.queries = {200}, .keys = {40}, .heads = 3, .head_size = 8, .causal = true, .ragged = false}, bf16_tolerance);  // most see nothing
}

TEST("attention: with the shared memory of each generation") {
  const sim::Options before = sim::options();
  for (const size_t kilobytes : {99, 163, 227}) {
    NOTE("shared memory " + std::to_string(kilobytes));
    sim::Options options = before;
    options.shared_bytes = kilobytes << 10;
    sim::set_options(options);
    for (const bool causal : {false, true}) {
      // Heads of 64: 289 fit into the second, 577 into the third; of 128: 160 into the second, 352 into the third.
      run_case<bf16, bf16>({.queries = {289}, .head_size = 64, .causal = causal, .ragged = false}, bf16_tolerance);
      if (!causal) run_case<f16, f16>({.queries = {100}, .keys = {577}, .head_size = 64, .ragged = false}, f16_tolerance);
      run_case<f16, f16>({.queries = {160}, .head_size = 128, .causal = causal, .ragged = false}, f16_tolerance);
      run_case<bf16, bf16>({.queries = {100}, .keys = {352}, .head_size = 128, .causal = causal, .ragged = false}, bf16_tolerance);
      run_case<bf16, bf16>({.queries = {257}, .head_size = 80, .causal = causal, .ragged = false}, bf16_tolerance);
    }
  }
  sim::set_options(before);
}

TEST("attention: which sequences the resident kernel has") {
  const auto takes = [](int64_t keys, int64_t head_size, bool ragged = false, bool bias = false) {
    static float number;
    static const int32_t lengths[2] = {};
    Attention a{};
    a.queries = {ragged ? lengths : nullptr, keys, 1, keys};
    a.keys = {ragged ? lengths : nullptr, keys, 1, keys};
    a.head_size = head_size;
    a.scale = 1;
    a.bias = bias ? &number : nullptr;
    return residents_of(a, {16, 16, 16, true}).has(keys);
  };
  const sim::Options before = sim::options();
  const auto with_kilobytes = [&](size_t kilobytes) {
    sim::Options options = before;
    options.shared_bytes = kilobytes << 10;
    sim::set_options(options);
  };
  with_kilobytes(99);
  CHECK(takes(128, 128) && takes(256, 32) && !takes(100000, 32) && takes(288, 64) && !takes(289, 64) && !takes(129, 128));
  CHECK(takes(128, 64, true) && !takes(129, 64, true) && !takes(50, 64, false, true));
  with_kilobytes(163);
  CHECK(takes(512, 64) && !takes(577, 64) && takes(257, 80) && takes(160, 128) && !takes(300, 128));
  with_kilobytes(227);
  CHECK(takes(577, 64) && takes(729, 64) && !takes(1025, 64) && takes(352, 128));
  sim::set_options(before);
}

TEST("attention: of cumulative lengths, long sequences beside short ones") {
  for (const bool causal : {false, true}) {
    const Case c{.queries = {128, 129, 5, 0, 300, 64, 33}, .heads = 3, .head_size = 8, .causal = causal, .extra_rows = 3};
    run_case<bf16, bf16>(c, bf16_tolerance);
    run_case<f16, f16>(c, f16_tolerance);
    run_case<bf16, bf16>({.queries = {2, 2, 2, 2}, .keys = {5, 130, 300, 0}, .heads = 2, .causal = causal, .ragged_queries = false}, bf16_tolerance);
    run_case<bf16, bf16>({.queries = {50, 50}, .heads = 6, .kv_heads = 2, .causal = causal, .window = 7, .ragged = false}, bf16_tolerance);
    run_case<f16, f16>({.queries = {180}, .heads = 2, .kv_heads = 1, .causal = causal, .window = 30, .ragged = false}, f16_tolerance);
    run_case<f16, f16>({.queries = {100}, .keys = {300}, .head_size = 32, .causal = causal, .window = 40, .ragged = false}, f16_tolerance);
    run_case<bf16, bf16>({.queries = {130, 20, 7}, .keys = {9, 130, 128}, .heads = 2, .head_size = 16, .causal = causal}, bf16_tolerance);
  }
}

TEST("attention: short sequences have the same bits in any batch, and with any number of heads in a block") {
  for (const int32_t length : {20, 50, 77, 120, 197}) {
    NOTE("length " + std::to_string(length));
    // Random rows are the same ones from the start, and the same heads if there are as many.
    const auto alone = run_case<bf16, bf16>({.queries = {length}, .heads = 3, .head_size = 8, .causal = length == 77, .ragged = false}, bf16_tolerance);
    const auto many = run_case<bf16, bf16>({.queries = std::vector<int32_t>(7, length), .heads = 3, .head_size = 8, .causal = length == 77, .ragged = false}, bf16_tolerance);
    CHECK(std::memcmp(alone.data(), many.data(), alone.size() * sizeof(bf16)) == 0);
    if (length > 128) continue;
    const auto packed = run_case<bf16, bf16>({.queries = {length, 128, 200, 3}, .heads = 3, .head_size = 8, .causal = length == 77}, bf16_tolerance);
    CHECK(std::memcmp(alone.data(), packed.data(), alone.size() * sizeof(bf16)) == 0);
  }
}

TEST("attention: a query has the same bits alone and among all of its sequence") {
  for (const bool ragged : {false, true}) {
    for (const int32_t length : {50, 128, 197, 300, 600}) {
      NOTE("length " + std::to_string(length));
      const auto all = run_case<bf16, bf16>({.queries = {length}, .heads = 2, .head_size = 32, .ragged = ragged}, bf16_tolerance);
      const auto one = run_case<bf16, bf16>({.queries = {1}, .keys = {length}, .heads = 2, .head_size = 32, .ragged = ragged, .ragged_queries = false}, bf16_tolerance);
      CHECK(std::memcmp(one.data(), all.data(), one.size() * sizeof(bf16)) == 0);
    }
  }
}

TEST("attention: under 20 orders of threads") {
  const sim::Options before = sim::options();
  for (uint64_t seed = 0; seed < 20; ++seed) {
    NOTE("seed " + std::to_string(seed));
    sim::Options options = before;
    options.seed = seed;
    sim::set_options(options);
    run_case<bf16, bf16>({.queries = {5, 100}, .heads = 2, .head_size = seed % 2 ? 16 : 12, .causal = seed % 3 == 0}, bf16_tolerance);
    run_case<bf16, bf16>({.queries = {90}, .heads = 2, .head_size = 8, .causal = seed % 3 == 0, .ragged = false}, bf16_tolerance);
    run_case<float, float>({.queries = {5, 40}, .heads = 2, .causal = seed % 3 == 0}, float_tolerance);
  }
  sim::set_options(before);
}

TEST("attention: wrong lengths are reported, and nothing is read out of bounds") {
  const auto fault_of = [](std::vector<int32_t> queries, std::vector<int32_t> keys, int64_t longest) {
    const Matrix<bf16> q(10, 16, 16, 1), out(10, 16, 16, 2);
    const Matrix<float> bias(2 * longest - 1, 1, 1, 3);
    const DeviceArray<int32_t> device_queries(queries), device_keys(keys);
    const DeviceArray<Fault> fault(std::vector<Fault>{{no_kernel, no_kernel, ~uint64_t{0}}});
    Attention a{};
    a.q = a.k = a.v = q.view();
    a.out = out.view();
    a.queries = {device_queries.get(), 0, static_cast<int64_t>(queries.size()) - 1, 10};
    a.keys = {device_keys.get(), 0, static_cast<int64_t>(keys.size()) - 1, 10};
    a.heads = a.kv_heads = 1;
    a.head_size = 16;
    a.scale = 1;
    a.bias = bias.data();
    a.bias_stride = 1;
    a.longest = longest;
    a.slot = {fault.get(), 7};
    const cudaError_t error = launch_attention(a, nullptr);
    NOTE("report: " + sim::take_report());
    CHECK(error == cudaSuccess);
    const Fault found = fault.read()[0];
    CHECK(found.kernel == 7);
    return found.first;
  };
  CHECK(fault_of({0, 4, 11}, {0, 4, 10}, 8) == (uint64_t{2} << 32 | 11));
  CHECK(fault_of({0, 4, 10}, {0, 12, 10}, 8) == (static_cast<uint64_t>(attention_keys + 1) << 32 | 12));
  CHECK(fault_of({1, 4, 10}, {0, 4, 10}, 8) == (uint64_t{0} << 32 | 1));
  CHECK(fault_of({0, 4, 10}, {0, 4, 10}, 5) == (static_cast<uint64_t>(attention_bias + 1) << 32 | 6));
}

}  // namespace chiasma::cuda
