// cosineTopK against a float64 reference, on every instruction set here: types, odd sizes, ties, zero rows, NaN, k past the corpus, guard
// elements; and the same scores whatever the batch, the order of the corpus and the threads.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "core/error.h"
#include "cpu/cpu_device.h"
#include "test.h"

namespace {

using namespace chiasma;
using core::DType;
using core::TensorView;

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

// [rows, columns] with a gap between rows, in float32, bfloat16 or int8.
struct Table {
  Table(int64_t rows, int64_t columns, DType dtype, int64_t gap = 0) : rows(rows), columns(columns), stride(columns + gap), dtype(dtype) {
    bytes.resize(static_cast<size_t>(rows * stride) * core::size_of(dtype));
    for (int64_t i = 0; i < rows * stride; ++i) put(i, dtype == DType::int8 ? 99.0f : nan_value);
  }
  void fill(std::mt19937& random) {
    std::normal_distribution<float> normal;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) set(r, c, dtype == DType::int8 ? std::clamp(std::round(normal(random) * 40), -127.0f, 127.0f) : normal(random));
    }
  }
  void set(int64_t row, int64_t column, float value) { put(row * stride + column, value); }
  float at(int64_t row, int64_t column) const {
    const int64_t i = row * stride + column;
    if (dtype == DType::float32) {
      float value;
      std::memcpy(&value, bytes.data() + 4 * i, 4);
      return value;
    }
    if (dtype == DType::int8) return static_cast<int8_t>(bytes[static_cast<size_t>(i)]);
    uint16_t bits;
    std::memcpy(&bits, bytes.data() + 2 * i, 2);
    return core::bf16_to_f32(bits);
  }
  void copy_row(int64_t row, const Table& other, int64_t other_row) {
    for (int64_t c = 0; c < columns; ++c) set(row, c, other.at(other_row, c));
  }
  TensorView view() {
    TensorView view;
    view.data = bytes.data();
    view.dtype = dtype;
    view.rank = 2;
    view.shape = {rows, columns};
    view.row_stride = stride;
    return view;
  }

  int64_t rows, columns, stride;
  DType dtype;
  std::vector<char> bytes;

 private:
  void put(int64_t i, float value) {
    if (dtype == DType::float32) {
      std::memcpy(bytes.data() + 4 * i, &value, 4);
    } else if (dtype == DType::int8) {
      bytes[static_cast<size_t>(i)] = static_cast<char>(value);
    } else {
      const uint16_t bits = core::f32_to_bf16(value);
      std::memcpy(bytes.data() + 2 * i, &bits, 2);
    }
  }
};

constexpr int32_t guard = -77;

struct Found {
  Found(int64_t queries, int64_t k) : queries(queries), k(k), scores(static_cast<size_t>(queries * (k + 1)), guard), indices(scores.size(), guard) {}
  float score(int64_t query, int64_t i) const { return scores[static_cast<size_t>(query * (k + 1) + i)]; }
  int32_t index(int64_t query, int64_t i) const { return indices[static_cast<size_t>(query * (k + 1) + i)]; }
  bool guards_hold() const {
    for (int64_t q = 0; q < queries; ++q) {
      if (score(q, k) != guard || index(q, k) != guard) return false;
    }
    return true;
  }
  int64_t queries, k;
  std::vector<float> scores;  // [queries, k + 1], the last column a guard
  std::vector<int32_t> indices;
};

core::KernelSpec spec_of(Table& queries, Table& corpus, std::vector<float>* inverse_norms, Found& found) {
  core::KernelSpec spec;
  spec.op = "cosineTopK";
  TensorView norms;
  if (inverse_norms) {
    norms.data = inverse_norms->data();
    norms.rank = 1;
    norms.shape[0] = norms.row_stride = static_cast<int64_t>(inverse_norms->size());
  }
  TensorView scores, indices;
  scores.data = found.scores.data();
  scores.rank = 2;
  scores.shape = {found.queries, found.k};
  scores.row_stride = found.k + 1;
  indices = scores;
  indices.data = found.indices.data();
  indices.dtype = DType::int32;
  spec.inputs = {queries.view(), corpus.view(), norms};
  spec.outputs = {scores, indices};
  spec.attributes.set("k", static_cast<double>(found.k));
  return spec;
}

// With a kernel for as many threads as the device has, or more.
Found search(core::Device& device, Table& queries, Table& corpus, int64_t k, std::vector<float>* inverse_norms = nullptr, int threads = 0, int kernel_threads = 0) {
  Found found(queries.rows, k);
  core::KernelSpec spec = spec_of(queries, corpus, inverse_norms, found);
  spec.threads = std::max(device.threads(), kernel_threads);
  const auto kernel = device.make_kernel(spec);
  const size_t bytes = kernel->workspace_bytes();
  const auto free = [&](void* memory) { device.release(memory, bytes); };
  const std::unique_ptr<void, decltype(free)> workspace(device.allocate(bytes), free);
  std::memset(workspace.get(), 0xff, bytes);
  const auto stream = device.make_stream(threads);
  kernel->run({spec.inputs, spec.outputs, workspace.get(), *stream});
  return found;
}

double cosine(const Table& queries, int64_t query, const Table& corpus, int64_t row) {
  double product = 0, a = 0, b = 0;
  for (int64_t c = 0; c < queries.columns; ++c) {
    const double x = queries.at(query, c), y = corpus.at(row, c);
    product += x * y;
    a += x * x;
    b += y * y;
  }
  return a == 0 || b == 0 ? product : product / std::sqrt(a) / std::sqrt(b);  // 0, or NaN from the other side
}

// NaN last, then the greater score, then the lower row.
bool comes_before(float a, int32_t a_row, float b, int32_t b_row) {
  if (std::isnan(a) != std::isnan(b)) return std::isnan(b);
  if (!std::isnan(a) && a != b) return a > b;
  return a_row < b_row;
}

void check_found(const Found& found, const Table& queries, const Table& corpus) {
  const int64_t real = std::min(found.k, corpus.rows);
  CHECK(found.guards_hold());
  for (int64_t q = 0; q < found.queries; ++q) {
    std::vector<double> all(static_cast<size_t>(corpus.rows));
    for (int64_t r = 0; r < corpus.rows; ++r) all[static_cast<size_t>(r)] = cosine(queries, q, corpus, r);
    std::vector<double> sorted = all;
    std::sort(sorted.begin(), sorted.end(), [](double a, double b) { return std::isnan(a) ? false : std::isnan(b) || a > b; });
    std::set<int32_t> rows;
    for (int64_t i = 0; i < real; ++i) {
      const int32_t row = found.index(q, i);
      const float score = found.score(q, i);
      CHECK(row >= 0 && row < corpus.rows);
      rows.insert(row);
      const double its = all[static_cast<size_t>(row)], best = sorted[static_cast<size_t>(i)];
      CHECK(std::isnan(score) ? std::isnan(its) : std::abs(score - its) <= 2e-6);
      CHECK(std::isnan(score) ? std::isnan(best) : std::abs(score - best) <= 2e-6);
      CHECK(i == 0 || comes_before(found.score(q, i - 1), found.index(q, i - 1), score, row));
    }
    CHECK(static_cast<int64_t>(rows.size()) == real);
    for (int64_t i = real; i < found.k; ++i) CHECK(found.score(q, i) == -infinity && found.index(q, i) == -1);
  }
}

template <typename F>
void on_every_isa(F&& body) {
  for (const cpu::Isa isa : cpu::available_isas()) body(*cpu::open_device(cpu::name_of(isa), 0));
}

TEST("cosineTopK: equals the reference") {
  on_every_isa([](core::Device& device) {
    std::mt19937 random(5);
    struct Size { int64_t m, n, d, k; };
    for (const auto& [m, n, d, k] : {Size{1, 1, 1, 1}, Size{1, 300, 64, 10}, Size{3, 77, 7, 77}, Size{5, 50, 33, 60}, Size{70, 200, 100, 5}, Size{2, 5000, 16, 3},
                                     Size{1, 40000, 8, 100}, Size{7, 9, 700, 2}, Size{130, 3, 20, 1}, Size{4, 0, 5, 3}, Size{0, 10, 5, 3}}) {
      for (const DType corpus_type : {DType::float32, DType::bfloat16, DType::int8}) {
        NOTE(device.isa() + ", " + core::name_of(corpus_type) + ": " + std::to_string(m) + " by " + std::to_string(n) + ", d " + std::to_string(d));
        Table queries(m, d, corpus_type == DType::bfloat16 ? DType::bfloat16 : DType::float32, 2), corpus(n, d, corpus_type, 3);
        queries.fill(random);
        corpus.fill(random);
        const Found found = search(device, queries, corpus, k);
        check_found(found, queries, corpus);

        std::vector<float> inverse(static_cast<size_t>(n));
        for (int64_t r = 0; r < n; ++r) {
          double squares = 0;
          for (int64_t c = 0; c < d; ++c) squares += double{corpus.at(r, c)} * corpus.at(r, c);
          inverse[static_cast<size_t>(r)] = static_cast<float>(1.0 / std::sqrt(squares));  // infinite for a row of zeros
        }
        check_found(search(device, queries, corpus, k, &inverse), queries, corpus);
      }
    }
  });
}

TEST("cosineTopK: ties, zero rows, NaN and infinity") {
  on_every_isa([](core::Device& device) {
    std::mt19937 random(6);
    Table queries(3, 20, DType::float32), corpus(60, 20, DType::float32);
    queries.fill(random);
    corpus.fill(random);
    for (int64_t c = 0; c < 20; ++c) {
      queries.set(1, c, 0.0f);
      corpus.set(7, c, 0.0f);
      corpus.set(31, c, -0.0f);
    }
    for (const int64_t r : {3, 19, 40, 59}) corpus.copy_row(r, corpus, 11);
    corpus.set(5, 13, nan_value);
    corpus.set(50, 19, nan_value);
    corpus.set(23, 0, infinity);
    Found found = search(device, queries, corpus, 60);
    for (const int64_t q : {0, 2}) {
      CHECK(found.index(q, 57) == 5 && found.index(q, 58) == 23 && found.index(q, 59) == 50);
      for (int64_t i = 57; i < 60; ++i) CHECK(std::isnan(found.score(q, i)));
      int64_t place = 0;
      while (found.index(q, place) != 3) ++place;
      const int32_t equal[] = {3, 11, 19, 40, 59};
      for (int64_t i = 0; i < 5; ++i) CHECK(found.index(q, place + i) == equal[i] && found.score(q, place + i) == found.score(q, place));
      place = 0;
      while (found.index(q, place) != 7) ++place;
      CHECK(found.index(q, place + 1) == 31 && found.score(q, place) == 0.0f && found.score(q, place + 1) == 0.0f);
    }
    // A query of zeros scores 0 everywhere but where the row is not finite.
    for (int64_t i = 0; i < 57; ++i) CHECK(found.score(1, i) == 0.0f);
    for (int64_t i = 0; i < 4; ++i) CHECK(found.index(1, i) == i);
    // With fewer places NaN never enters while there are numbers; where all is NaN the rows come in order.
    found = search(device, queries, corpus, 57);
    for (int64_t i = 0; i < 57; ++i) CHECK(!std::isnan(found.score(0, i)));
    queries.set(0, 4, nan_value);
    found = search(device, queries, corpus, 9);
    for (int64_t i = 0; i < 9; ++i) CHECK(std::isnan(found.score(0, i)) && found.index(0, i) == i);
    check_found(search(device, queries, corpus, 4), queries, corpus);
  });
}

TEST("cosineTopK: very large and very small numbers") {
  on_every_isa([](core::Device& device) {
    std::mt19937 random(9);
    for (const DType type : {DType::float32, DType::bfloat16}) {
      Table queries(4, 30, DType::float32), corpus(90, 30, type);
      queries.fill(random);
      corpus.fill(random);
      const float factors[] = {1e-30f, 1e-18f, 1.0f, 1e18f, 1e30f};
      for (int64_t r = 0; r < corpus.rows; ++r) {
        for (int64_t c = 0; c < 30; ++c) corpus.set(r, c, corpus.at(r, c) * factors[r % 5]);
      }
      for (int64_t q = 0; q < queries.rows; ++q) {
        for (int64_t c = 0; c < 30; ++c) queries.set(q, c, queries.at(q, c) * factors[q]);
      }
      check_found(search(device, queries, corpus, 90), queries, corpus);
    }
  });
}

TEST("cosineTopK: the same bits in any company") {
  on_every_isa([](core::Device& device) {
    for (const DType type : {DType::float32, DType::bfloat16, DType::int8}) {
      std::mt19937 random(7);
      const int64_t m = 75, n = 3000, d = 45, k = 20;
      Table queries(m, d, DType::float32), corpus(n, d, type);
      queries.fill(random);
      corpus.fill(random);
      const Found all = search(device, queries, corpus, k), one_thread = search(device, queries, corpus, k, nullptr, 1);
      CHECK(all.scores == one_thread.scores && all.indices == one_thread.indices);

      std::vector<int64_t> order(static_cast<size_t>(n));
      std::iota(order.begin(), order.end(), 0);
      std::shuffle(order.begin(), order.end(), random);
      Table shuffled(n, d, type, 1);
      for (int64_t r = 0; r < n; ++r) shuffled.copy_row(r, corpus, order[static_cast<size_t>(r)]);
      for (const int64_t q : {0, 6, 74}) {
        Table one(1, d, DType::float32);
        one.copy_row(0, queries, q);
        const Found found = search(device, one, shuffled, k);
        for (int64_t i = 0; i < k; ++i) {
          const float a = found.score(0, i), b = all.score(q, i);
          CHECK(std::memcmp(&a, &b, 4) == 0);
          CHECK(order[static_cast<size_t>(found.index(0, i))] == all.index(q, i));
        }
      }
    }
  });
}

// Queries that are multiplied together, on rows that products may get wrong: copies of one row past any list of candidates, near copies, zeros,
// numbers that are not finite, tiny or huge.
TEST("cosineTopK: many queries find to the bit what each finds alone") {
  on_every_isa([](core::Device& device) {
    struct Size { int64_t m, n, d, k; };
    for (const auto& [m, n, d, k] : {Size{25, 900, 1, 3}, Size{30, 1500, 45, 10}, Size{64, 1000, 512, 1}, Size{560, 700, 33, 40}, Size{20, 16, 70000, 1}}) {
      for (const DType type : {DType::float32, DType::bfloat16, DType::int8}) {
        NOTE(device.isa() + ", " + core::name_of(type) + ": " + std::to_string(m) + " by " + std::to_string(n) + ", d " + std::to_string(d));
        std::mt19937 random(11);
        Table queries(m, d, DType::float32, 1), corpus(n, d, type, d % 2);
        queries.fill(random);
        corpus.fill(random);
        for (int64_t r = 10; r < n; r += 2) {
          if (r % 8 == 0) corpus.copy_row(r, corpus, 3);
          if (r % 8 == 2) {
            corpus.copy_row(r, corpus, 3);
            corpus.set(r, r % d, type == DType::int8 ? static_cast<float>(r % 100) : corpus.at(r, r % d) * 1.001f);
          }
        }
        for (int64_t c = 0; c < d; ++c) {
          corpus.set(1, c, 0.0f);
          queries.set(4, c, 0.0f);
          queries.set(5, c, corpus.at(3, c));
          queries.set(6, c, queries.at(6, c) * 1e-30f);
          queries.set(7, c, queries.at(7, c) * 1e30f);
          if (type == DType::int8) continue;
          corpus.set(2, c, queries.at(5, c) * 1e-39f);
          corpus.set(4, c, queries.at(5, c) * 1e37f);
          corpus.set(6, c, queries.at(8, c) * 1e-20f);
        }
        if (type != DType::int8) {
          corpus.set(5, 0, nan_value);
          corpus.set(7, 0, infinity);
          corpus.set(8, 0, -infinity);
        }
        queries.set(9, 0, nan_value);
        queries.set(10, 0, infinity);
        const Found all = search(device, queries, corpus, k), one_thread = search(device, queries, corpus, k, nullptr, 1);
        CHECK(all.guards_hold());
        for (const int64_t q : {0, 3, 4, 5, 6, 7, 8, 9, 10, static_cast<int>(m) - 1}) {
          Table one(1, d, DType::float32);
          one.copy_row(0, queries, q);
          const Found alone = search(device, one, corpus, k);
          for (int64_t i = 0; i < k; ++i) {
            const float a = all.score(q, i), b = alone.score(0, i), c = one_thread.score(q, i);
            CHECK(std::memcmp(&a, &b, 4) == 0 && std::memcmp(&a, &c, 4) == 0);
            CHECK(all.index(q, i) == alone.index(0, i) && all.index(q, i) == one_thread.index(q, i));
          }
        }
      }
    }
  });
}

// What a search needs for m queries, without a corpus.
int64_t workspace_of(core::Device& device, int64_t m, int64_t n, int64_t d, int64_t k, DType type, int threads) {
  Table queries(1, 1, DType::float32), corpus(1, 1, type);
  Found found(1, 1);
  core::KernelSpec spec = spec_of(queries, corpus, nullptr, found);
  const auto reshape = [](TensorView& view, int64_t rows, int64_t columns) {
    view.shape[0] = rows;
    view.shape[1] = view.row_stride = columns;
  };
  reshape(spec.inputs[0], m, d);
  reshape(spec.inputs[1], n, d);
  for (TensorView& output : spec.outputs) reshape(output, m, k);
  spec.attributes.set("k", static_cast<double>(k));
  spec.threads = threads;
  return static_cast<int64_t>(device.make_kernel(spec)->workspace_bytes());
}

TEST("cosineTopK: what is found takes a bounded part of memory, however many threads there are") {
  constexpr int64_t mib = 1 << 20;
  on_every_isa([](core::Device& device) {
    for (const DType type : {DType::float32, DType::bfloat16, DType::int8}) {
      for (const int64_t k : {1, 10, 100, 400, 1000, 1024, 1025, 5000}) {
        for (const int threads : {1, 2, 16, 64}) {
          for (const int64_t m : {1, 19, 512, 2000}) {
            const int64_t bytes = workspace_of(device, m, 2 * mib, 64, k, type, threads);
            const int64_t one_slice = m * (m >= 20 && k <= 1024 ? 24 * k + 520 : 8 * k);
            CHECK(bytes <= std::max(32 * mib, one_slice) + (4 + threads) * mib);  // with queries, and what each thread computes with
          }
        }
      }
    }
  });
}

TEST("cosineTopK: the same bits with the tasks of many threads") {
  on_every_isa([](core::Device& device) {
    std::mt19937 random(13);
    const int64_t m = 520, n = 200000, d = 4, k = 100;  // 22 slices are what memory allows of 31
    Table queries(m, d, DType::float32), corpus(n, d, DType::float32);
    queries.fill(random);
    corpus.fill(random);
    const Found few = search(device, queries, corpus, k, nullptr, 1), many = search(device, queries, corpus, k, nullptr, 0, 64);
    CHECK(few.scores == many.scores && few.indices == many.indices);
  });
}

TEST("cosineTopK: refuses what it cannot take") {
  using core::ErrorCode;
  const auto device = cpu::open_device("", 0);
  const auto making = [&](auto&& spoil) {
    Table queries(2, 8, DType::float32), corpus(5, 8, DType::int8);
    std::vector<float> norms(5, 1.0f);
    Found found(2, 3);
    core::KernelSpec spec = spec_of(queries, corpus, &norms, found);
    spoil(spec);
    device->make_kernel(spec);
  };
  making([](core::KernelSpec&) {});
  CHECK_THROWS(ErrorCode::argument, making([](core::KernelSpec& spec) { spec.attributes.set("k", 0.0); }));
  CHECK_THROWS(ErrorCode::argument, making([](core::KernelSpec& spec) { spec.attributes.set("metric", true); }));
  CHECK_THROWS(ErrorCode::argument, making([](core::KernelSpec& spec) { spec.inputs.pop_back(); }));
  CHECK_THROWS(ErrorCode::shape, making([](core::KernelSpec& spec) { spec.attributes.set("k", 4.0); }));
  CHECK_THROWS(ErrorCode::shape, making([](core::KernelSpec& spec) { spec.inputs[1].shape[1] = 7; }));
  CHECK_THROWS(ErrorCode::shape, making([](core::KernelSpec& spec) { spec.inputs[2].shape[0] = 4; }));
  CHECK_THROWS(ErrorCode::shape, making([](core::KernelSpec& spec) { spec.inputs[1].shape[0] = int64_t{1} << 31; }));
  CHECK_THROWS(ErrorCode::dtype, making([](core::KernelSpec& spec) { spec.inputs[1].dtype = DType::uint8; }));
  CHECK_THROWS(ErrorCode::dtype, making([](core::KernelSpec& spec) { spec.inputs[0].dtype = DType::int8; }));
  CHECK_THROWS(ErrorCode::dtype, making([](core::KernelSpec& spec) { spec.outputs[1].dtype = DType::float32; }));
}

}  // namespace
