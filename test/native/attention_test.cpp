// attention against a float64 reference, on every instruction set here: shapes, types, ragged and empty sequences, causal, bias, views,
// NaN, guard bytes; and the same bits for a row whatever else is in the call.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "core/error.h"
#include "cpu/cpu_device.h"
#include "test.h"

namespace {

using namespace chiasma;
using core::DType;
using core::TensorView;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

// Rows inside a wider matrix. What lies between the rows is NaN in operands and has to stay untouched in results.
class Matrix {
 public:
  Matrix(int64_t rows, int64_t columns, DType dtype, int64_t gap) : rows_(rows), columns_(columns), gap_(gap), dtype_(dtype) {
    const float filler = nan_value;
    bytes_.resize(static_cast<size_t>((rows * (columns + gap) + gap) * element()));
    for (int64_t i = 0; i < rows * (columns + gap) + gap; ++i) put(i, filler);
    filled_ = bytes_;
  }

  void fill(std::mt19937& random, float spread = 1.0f) {
    std::normal_distribution<float> normal(0.0f, spread);
    for (int64_t i = 0; i < rows_ * columns_; ++i) set(i / columns_, i % columns_, normal(random));
  }
  void set(int64_t row, int64_t column, float value) { put(place(row, column), value); }
  float at(int64_t row, int64_t column) const {
    if (dtype_ == DType::float32) {
      float value;
      std::memcpy(&value, bytes_.data() + place(row, column) * 4, 4);
      return value;
    }
    uint16_t bits;
    std::memcpy(&bits, bytes_.data() + place(row, column) * 2, 2);
    return core::bf16_to_f32(bits);
  }
  TensorView view() {
    TensorView view;
    view.data = bytes_.data() + gap_ * element();
    view.dtype = dtype_;
    view.rank = 2;
    view.shape = {rows_, columns_};
    view.row_stride = columns_ + gap_;
    return view;
  }
  bool gaps_untouched() const {
    for (int64_t i = 0; i < rows_ * (columns_ + gap_) + gap_; ++i) {
      const bool gap = i < gap_ || (i - gap_) % (columns_ + gap_) >= columns_;
      if (gap && std::memcmp(bytes_.data() + i * element(), filled_.data() + i * element(), static_cast<size_t>(element())) != 0) return false;
    }
    return true;
  }
  bool same_row(int64_t row, const Matrix& other, int64_t other_row) const {
    return std::memcmp(bytes_.data() + place(row, 0) * element(), other.bytes_.data() + other.place(other_row, 0) * element(),
                       static_cast<size_t>(columns_ * element())) == 0;
  }
  void copy_row(int64_t row, const Matrix& other, int64_t other_row) {
    for (int64_t c = 0; c < columns_; ++c) set(row, c, other.at(other_row, c));
  }
  // Row-major, without the gaps.
  std::vector<double> values() const {
    std::vector<double> all;
    all.reserve(static_cast<size_t>(rows_ * columns_));
    for (int64_t i = 0; i < rows_ * columns_; ++i) all.push_back(at(i / columns_, i % columns_));
    return all;
  }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

 private:
  int64_t element() const { return static_cast<int64_t>(core::size_of(dtype_)); }
  int64_t place(int64_t row, int64_t column) const { return gap_ + row * (columns_ + gap_) + column; }
  void put(int64_t i, float value) {
    if (dtype_ == DType::float32) {
      std::memcpy(bytes_.data() + i * 4, &value, 4);
    } else {
      const uint16_t bits = core::f32_to_bf16(value);
      std::memcpy(bytes_.data() + i * 2, &bits, 2);
    }
  }

  int64_t rows_, columns_, gap_;
  DType dtype_;
  std::vector<char> bytes_, filled_;
};

struct Problem {
  int64_t heads = 1, head_size = 1;
  std::vector<int32_t> queries, keys;  // lengths
  bool causal = false;
  int64_t kv_heads = 0;  // 0: as many as heads
  int64_t window = -1;
  bool uniform = false;  // lengths by attributes
  int64_t longest = 0;   // of the relative bias; 0 for none
  DType in = DType::float32, out = DType::float32;
  int64_t gap = 0, spare_rows = 0;
  float spread = 1.0f;
};

std::vector<int32_t> cumulative(const std::vector<int32_t>& lengths) {
  std::vector<int32_t> sums(lengths.size() + 1);
  std::partial_sum(lengths.begin(), lengths.end(), sums.begin() + 1);
  return sums;
}

TensorView vector_view(std::vector<int32_t>& values) {
  TensorView view;
  view.data = values.data();
  view.dtype = DType::int32;
  view.rank = 1;
  view.shape[0] = view.row_stride = static_cast<int64_t>(values.size());
  return view;
}

struct Operands {
  Operands(const Problem& problem, unsigned seed)
      : problem(problem),
        cumulative_q(cumulative(problem.queries)),
        cumulative_k(cumulative(problem.keys)),
        q(cumulative_q.back() + problem.spare_rows, problem.heads * problem.head_size, problem.in, problem.gap),
        k(cumulative_k.back() + problem.spare_rows, kv_heads() * problem.head_size, problem.in, 2 * problem.gap),
        v(cumulative_k.back() + problem.spare_rows, kv_heads() * problem.head_size, problem.in, problem.gap),
        bias(std::max<int64_t>(2 * problem.longest - 1, 0), problem.heads, DType::float32, problem.gap) {
    std::mt19937 random(seed);
    q.fill(random, problem.spread);
    k.fill(random, problem.spread);
    v.fill(random);
    bias.fill(random);
  }

  core::KernelSpec spec(Matrix& out) {
    core::KernelSpec spec;
    spec.op = "attention";
    const auto lengths = [&](std::vector<int32_t>& values) { return problem.uniform ? TensorView{} : vector_view(values); };
    spec.inputs = {q.view(), k.view(), v.view(), lengths(cumulative_q), lengths(cumulative_k), problem.longest ? bias.view() : TensorView{}};
    spec.outputs = {out.view()};
    spec.attributes.set("heads", static_cast<double>(problem.heads));
    if (problem.kv_heads) spec.attributes.set("kvHeads", static_cast<double>(problem.kv_heads));
    spec.attributes.set("window", static_cast<double>(problem.window));
    spec.attributes.set("scale", scale());
    spec.attributes.set("causal", problem.causal);
    spec.attributes.set("queryLength", problem.uniform ? static_cast<double>(problem.queries[0]) : 0.0);
    spec.attributes.set("keyLength", problem.uniform ? static_cast<double>(problem.keys[0]) : 0.0);
    spec.attributes.set("dtype", std::string(core::name_of(problem.out)));
    return spec;
  }
  int64_t kv_heads() const { return problem.kv_heads ? problem.kv_heads : problem.heads; }
  double scale() const { return 1.0 / std::sqrt(static_cast<double>(problem.head_size)); }

  Problem problem;
  std::vector<int32_t> cumulative_q, cumulative_k;
  Matrix q, k, v, bias;
};

Matrix run_on(core::Device& device, Operands& operands, int threads = 0) {
  Matrix out(operands.q.rows(), operands.q.columns(), operands.problem.out, operands.problem.gap);
  core::KernelSpec spec = operands.spec(out);
  spec.threads = device.threads();
  const auto kernel = device.make_kernel(spec);
  const size_t bytes = kernel->workspace_bytes();
  const auto free = [&](void* memory) { device.release(memory, bytes); };
  const std::unique_ptr<void, decltype(free)> workspace(device.allocate(bytes), free);
  std::memset(workspace.get(), 0xff, bytes);  // NaN
  const auto stream = device.make_stream(threads);
  kernel->run({spec.inputs, spec.outputs, workspace.get(), *stream});
  return out;
}

// Row-major [Tq, H · D] in float64, NaN and infinity as IEEE arithmetic has them.
std::vector<double> reference(const Operands& o) {
  const int64_t columns = o.q.columns(), size = o.problem.head_size, kv_columns = o.k.columns(), share = o.problem.heads / o.kv_heads();
  const std::vector<double> q = o.q.values(), k = o.k.values(), v = o.v.values();
  std::vector<double> out(static_cast<size_t>(o.q.rows() * columns));
  for (size_t s = 0; s < o.problem.queries.size(); ++s) {
    const int64_t queries = o.problem.queries[s], keys = o.problem.keys[s], q0 = o.cumulative_q[s], k0 = o.cumulative_k[s];
    for (int64_t h = 0; h < o.problem.heads; ++h) {
      for (int64_t i = 0; i < queries; ++i) {
        const int64_t place = i + keys - queries;
        std::vector<int64_t> seen;
        for (int64_t j = 0; j < keys; ++j) {
          if (!(o.problem.causal && j > place) && (o.problem.window < 0 || std::abs(j - place) <= o.problem.window)) seen.push_back(j);
        }
        std::vector<double> weights;
        double most = -infinity, sum = 0;
        const double* const query = q.data() + (q0 + i) * columns + h * size;
        for (const int64_t j : seen) {
          const double* const key = k.data() + (k0 + j) * kv_columns + h / share * size;
          double score = 0;
          for (int64_t d = 0; d < size; ++d) score += query[d] * key[d];
          score = score * o.scale() + (o.problem.longest ? o.bias.at(j - i + o.problem.longest - 1, h) : 0.0);
          weights.push_back(score);
          if (!(score <= most)) most = score;
        }
        for (double& weight : weights) sum += weight = std::exp(weight - most);
        for (int64_t d = 0; d < size && !seen.empty(); ++d) {
          double value = 0;
          for (size_t n = 0; n < seen.size(); ++n) value += weights[n] * v[static_cast<size_t>((k0 + seen[n]) * kv_columns + h / share * size + d)];
          out[static_cast<size_t>((q0 + i) * columns + h * size + d)] = value / sum;
        }
      }
    }
  }
  return out;
}

// Whether the weights of the softmax are rounded to bfloat16, each by 2^-9 of it at most.
bool rounds_weights(const core::Device& device, const Problem& problem) {
  return (device.isa() == "amx" || device.isa() == "avx512_bf16") && problem.in == DType::bfloat16 && problem.out == DType::bfloat16 && !problem.causal && problem.window < 0;
}

double greatest(const Matrix& matrix) {
  double most = 0;
  for (const double value : matrix.values()) most = std::max(most, std::isfinite(value) ? std::abs(value) : 0.0);
  return most;
}

// The greatest difference in units of what is allowed.
double worst(const core::Device& device, const Operands& operands, const Matrix& out, const std::vector<double>& expected) {
  const Problem& problem = operands.problem;
  // A score's rounding error grows with the score, and a weight's relative error is the score's error.
  const double absolute = 4e-6 * std::max(1.0, double{problem.spread} * problem.spread) + (rounds_weights(device, problem) ? greatest(operands.v) / 512 : 0.0);
  const double relative = problem.out == DType::bfloat16 ? 1.0 / 256 : 4e-6;
  double worst = 0;
  for (int64_t row = 0; row < out.rows(); ++row) {
    for (int64_t column = 0; column < out.columns(); ++column) {
      const double a = out.at(row, column), b = expected[static_cast<size_t>(row * out.columns() + column)];
      if (std::isnan(a) != std::isnan(b)) return infinity;
      if (std::isnan(a) || a == b) continue;
      worst = std::max(worst, std::abs(a - b) / (absolute + relative * std::abs(b)));
    }
  }
  return worst;
}

template <typename F>
void on_every_isa(F&& body) {
  for (const cpu::Isa isa : cpu::available_isas()) body(*cpu::open_device(cpu::name_of(isa), 0));
}

std::vector<Problem> problems() {
  std::vector<Problem> list;
  for (const int64_t size : {1, 7, 8, 12, 16, 24, 32, 64, 80, 96, 128, 200, 256}) {
    list.push_back({.heads = 3, .head_size = size, .queries = {5, 1, 33}, .keys = {5, 1, 33}, .gap = 3});
    list.push_back({.heads = 1, .head_size = size, .queries = {31, 2}, .keys = {17, 40}, .causal = true, .in = DType::bfloat16, .gap = 1});
  }
  for (const int32_t length : {1, 2, 15, 16, 17, 50, 64, 65, 130, 197, 256, 257, 577}) {
    list.push_back({.heads = 2, .head_size = 64, .queries = {length, length}, .keys = {length, length}, .uniform = true, .gap = 64});
    list.push_back({.heads = 2, .head_size = 32, .queries = {length}, .keys = {length}, .causal = true, .longest = length, .out = DType::bfloat16});
    list.push_back({.heads = 2, .head_size = 20, .queries = {1, 3}, .keys = {length, 2 * length}, .causal = true, .longest = 2 * length + 2});
  }
  // Windows: none but one key, narrower and wider than a tile, a block and the sequence; other counts of queries and keys; with fewer heads of keys.
  for (const int64_t window : {0, 1, 3, 16, 64, 300}) {
    for (const bool causal : {false, true}) {
      list.push_back({.heads = 4, .head_size = 24, .queries = {5, 197, 600}, .keys = {5, 197, 600}, .causal = causal, .kv_heads = 2, .window = window, .gap = 3});
      list.push_back({.heads = 2, .head_size = 16, .queries = {40, 9, 1}, .keys = {23, 310, 70}, .causal = causal, .window = window, .in = DType::bfloat16});
      list.push_back({.heads = 2, .head_size = 8, .queries = {130}, .keys = {130}, .causal = causal, .window = window, .longest = 140, .out = DType::bfloat16});
    }
  }
  list.push_back({.heads = 6, .head_size = 32, .queries = {50, 3}, .keys = {50, 3}, .kv_heads = 1, .in = DType::bfloat16, .gap = 7});
  list.push_back({.heads = 6, .head_size = 20, .queries = {9, 130}, .keys = {9, 130}, .causal = true, .kv_heads = 3, .gap = 2});
  // Empty sequences on either side, queries that see no key, rows past the last sequence.
  list.push_back({.heads = 2, .head_size = 8, .queries = {0, 3, 0, 4, 9}, .keys = {2, 0, 0, 4, 5}, .causal = true, .gap = 5, .spare_rows = 4});
  list.push_back({.heads = 2, .head_size = 8, .queries = {3, 4}, .keys = {0, 4}, .longest = 9, .in = DType::bfloat16, .spare_rows = 1});
  list.push_back({.heads = 2, .head_size = 8, .queries = {}, .keys = {}, .spare_rows = 3});
  list.push_back({.heads = 2, .head_size = 8, .queries = {}, .keys = {}});
  // Scores so far apart that most weights vanish.
  list.push_back({.heads = 2, .head_size = 64, .queries = {300}, .keys = {600}, .spread = 8.0f});
  list.push_back({.heads = 1, .head_size = 64, .queries = {300}, .keys = {300}, .causal = true, .spread = 30.0f});
  // All in bfloat16.
  const std::vector<Problem> others = list;
  for (Problem problem : others) {
    if (problem.causal || problem.window >= 0) continue;
    problem.in = problem.out = DType::bfloat16;
    list.push_back(problem);
  }
  for (const int32_t length : {1, 15, 16, 17, 33, 255, 256, 257, 577}) {
    list.push_back({.heads = 2, .head_size = 33, .queries = {1, length}, .keys = {length, 3}, .longest = 600, .in = DType::bfloat16, .out = DType::bfloat16, .gap = 2});
  }
  return list;
}

TEST("attention: equals the reference") {
  unsigned seed = 1;
  for (const Problem& problem : problems()) {
    Operands operands(problem, seed++);
    const std::vector<double> expected = reference(operands);
    on_every_isa([&](core::Device& device) {
      const Matrix out = run_on(device, operands);
      const double error = worst(device, operands, out, expected);
      NOTE(device.isa() + ", problem " + std::to_string(seed - 2) + ": " + std::to_string(error) + " of what is allowed");
      CHECK(error <= 1.0);
      CHECK(out.gaps_untouched());
    });
  }
}

TEST("attention: of a row has the same bits in any call") {
  on_every_isa([](core::Device& device) {
    for (const auto& [causal, window] : {std::pair(false, -1), std::pair(true, -1), std::pair(false, 20), std::pair(true, 70)}) {
      for (const auto& [in, out_type] : {std::pair(DType::float32, DType::float32), std::pair(DType::bfloat16, DType::float32), std::pair(DType::bfloat16, DType::bfloat16)}) {
        const std::vector<int32_t> lengths = {197, 1, 50, 300, 64};
        const Problem many{.heads = 3, .head_size = 24, .queries = lengths, .keys = lengths, .causal = causal, .window = window, .in = in, .out = out_type};
        Operands all(many, 7);
        const Matrix out = run_on(device, all);
        const Matrix single_thread = run_on(device, all, 1);
        for (int64_t row = 0; row < out.rows(); ++row) CHECK(out.same_row(row, single_thread, row));

        for (size_t s = 0; s < many.queries.size(); ++s) {
          const int32_t n = many.queries[s];
          // The sequence alone, and its last query, or some query where all see everything, alone.
          for (const bool one : {false, true}) {
            const int32_t queries = one ? 1 : n;
            const int64_t from = one ? (causal || window >= 0 ? n - 1 : n / 3) : 0;
            Problem alone = many;
            alone.uniform = true;
            alone.queries = {queries};
            alone.keys = {n};
            Operands part(alone, 8);
            for (int64_t r = 0; r < queries; ++r) part.q.copy_row(r, all.q, all.cumulative_q[s] + from + r);
            for (int64_t r = 0; r < n; ++r) {
              part.k.copy_row(r, all.k, all.cumulative_k[s] + r);
              part.v.copy_row(r, all.v, all.cumulative_k[s] + r);
            }
            const Matrix part_out = run_on(device, part);
            for (int64_t r = 0; r < queries; ++r) CHECK(part_out.same_row(r, out, all.cumulative_q[s] + from + r));
          }
        }
      }
    }
  });
}

TEST("attention: keeps NaN and infinity where they belong") {
  on_every_isa([](core::Device& device) {
    for (const float bad : {nan_value, std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()}) {
      for (const auto& [causal, window] : {std::pair(false, -1), std::pair(true, -1), std::pair(false, 5), std::pair(true, 5)}) {
        for (const DType dtype : {DType::float32, DType::bfloat16}) {
          const std::vector<int32_t> lengths = {30, 19, 300};
          const Problem problem{.heads = 2, .head_size = 20, .queries = lengths, .keys = lengths, .causal = causal, .window = window, .in = dtype, .out = dtype};
          Operands clean(problem, 3);
          const Matrix before = run_on(device, clean);
          struct { Matrix Operands::*matrix; int64_t row; } places[] = {{&Operands::q, 35}, {&Operands::k, 40}, {&Operands::v, 40}, {&Operands::k, 330}};
          for (const auto& [matrix, row] : places) {
            Operands dirty(problem, 3);
            (dirty.*matrix).set(row, 23, bad);  // head 1, feature 3
            const Matrix after = run_on(device, dirty);
            const std::vector<double> expected = reference(dirty);
            CHECK(worst(device, dirty, after, expected) <= 1.0);
            const int64_t first = row < 49 ? 30 : 49, last = row < 49 ? 49 : 349;
            for (int64_t r = 0; r < after.rows(); ++r) {
              const bool may_differ = matrix == &Operands::q ? r == row : r >= (causal ? row : first) && r < last && (window < 0 || std::abs(r - row) <= window);
              for (int64_t c = 0; c < after.columns(); ++c) {
                const bool column_may = c >= 20 && (matrix != &Operands::v || c == 23);
                if (may_differ && column_may) continue;
                CHECK(after.at(r, c) == before.at(r, c));
              }
            }
          }
        }
      }
    }
  });
}

TEST("attention: refuses what it cannot take") {
  using core::ErrorCode;
  const auto device = cpu::open_device("", 0);
  const Problem ragged{.heads = 2, .head_size = 8, .queries = {3, 4}, .keys = {3, 4}, .longest = 4};
  const auto making = [&](const Problem& problem, auto&& spoil) {
    Operands operands(problem, 1);
    Matrix out(operands.q.rows(), operands.q.columns(), problem.out, 0);
    core::KernelSpec spec = operands.spec(out);
    spoil(spec);
    device->make_kernel(spec);
  };
  making(ragged, [](core::KernelSpec&) {});
  CHECK_THROWS(ErrorCode::argument, making(ragged, [](core::KernelSpec& spec) { spec.inputs.pop_back(); }));
  CHECK_THROWS(ErrorCode::argument, making(ragged, [](core::KernelSpec& spec) { spec.attributes.set("heads", 0.0); }));
  CHECK_THROWS(ErrorCode::shape, making(ragged, [](core::KernelSpec& spec) { spec.attributes.set("heads", 3.0); }));
  CHECK_THROWS(ErrorCode::argument, making(ragged, [](core::KernelSpec& spec) { spec.attributes.set("kvHeads", 0.0); }));
  CHECK_THROWS(ErrorCode::shape, making(ragged, [](core::KernelSpec& spec) { spec.attributes.set("kvHeads", 1.0); }));
  CHECK_THROWS(ErrorCode::argument, making(ragged, [](core::KernelSpec& spec) { spec.attributes.set("window", -2.0); }));
  CHECK_THROWS(ErrorCode::argument, making(ragged, [](core::KernelSpec& spec) { spec.attributes.set("scale", infinity); }));
  CHECK_THROWS(ErrorCode::argument, making(ragged, [](core::KernelSpec& spec) { spec.attributes.set("mask", 1.0); }));
  CHECK_THROWS(ErrorCode::argument, making(ragged, [](core::KernelSpec& spec) { spec.attributes.set("queryLength", 3.0); }));
  CHECK_THROWS(ErrorCode::argument, making(ragged, [](core::KernelSpec& spec) { spec.inputs[4] = {}; }));
  CHECK_THROWS(ErrorCode::dtype, making(ragged, [](core::KernelSpec& spec) { spec.inputs[1].dtype = DType::float16; }));
  CHECK_THROWS(ErrorCode::dtype, making(ragged, [](core::KernelSpec& spec) { spec.inputs[3].dtype = DType::float32; }));
  CHECK_THROWS(ErrorCode::dtype, making(ragged, [](core::KernelSpec& spec) { spec.outputs[0].dtype = DType::bfloat16; }));
  CHECK_THROWS(ErrorCode::shape, making(ragged, [](core::KernelSpec& spec) { spec.inputs[2].shape[0] = 6; }));
  CHECK_THROWS(ErrorCode::shape, making(ragged, [](core::KernelSpec& spec) { spec.inputs[2].shape[1] = 15; }));
  CHECK_THROWS(ErrorCode::shape, making(ragged, [](core::KernelSpec& spec) { spec.outputs[0].shape[0] = 6; }));
  CHECK_THROWS(ErrorCode::shape, making(ragged, [](core::KernelSpec& spec) { spec.inputs[5].shape[0] = 6; }));
  const Problem uniform{.heads = 2, .head_size = 8, .queries = {3, 3}, .keys = {4, 4}, .uniform = true, .longest = 4};
  making(uniform, [](core::KernelSpec&) {});
  CHECK_THROWS(ErrorCode::shape, making(uniform, [](core::KernelSpec& spec) { spec.attributes.set("queryLength", 4.0); }));
  CHECK_THROWS(ErrorCode::shape, making(uniform, [](core::KernelSpec& spec) { spec.attributes.set("queryLength", 2.0); }));
  CHECK_THROWS(ErrorCode::argument, making(uniform, [](core::KernelSpec& spec) { spec.inputs[5].shape[0] = 5; }));

  const auto running = [&](std::vector<int32_t> q, std::vector<int32_t> k) {
    Operands operands(ragged, 1);
    operands.cumulative_q = q;
    operands.cumulative_k = k;
    run_on(*device, operands);
  };
  running({0, 3, 7}, {0, 3, 7});
  CHECK_THROWS(ErrorCode::argument, running({1, 3, 7}, {0, 3, 7}));
  CHECK_THROWS(ErrorCode::argument, running({0, 3, 8}, {0, 3, 7}));
  CHECK_THROWS(ErrorCode::argument, running({0, 3, 7}, {0, 4, 3}));
  CHECK_THROWS(ErrorCode::argument, running({0, 3, 7}, {0, -1, 7}));
  CHECK_THROWS(ErrorCode::argument, running({0, 1, 7}, {0, 3, 7}));  // 6 rows, the bias serves 4
  CHECK_THROWS(ErrorCode::shape, running({0, 3, 7}, {0, 7}));
}

}  // namespace
