// gather, scatter, pickToken and pool against plain loops: all types, strides, empty sequences, rows left over, NaN.
#include <random>

#include "rows.h"

using namespace chiasma;
using namespace chiasma::test;

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
