// layerNorm, l2Normalize and softmax against float64 references on every instruction set this processor runs: odd sizes, large rows, strided
// operands between guards, NaN and infinity. Of all row ops: the same bits wherever a row stands, nothing to do, refusals.
#include <numeric>
#include <random>

#include "rows.h"

using namespace chiasma;
using namespace chiasma::test;

namespace {

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
  CHECK(contains(error(ErrorCode::argument, "layerNorm", {&x}, out, {{"eps", 0.0}}), "[layerNorm] 1 inputs and 1 outputs; expected 3 and 1"));
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
