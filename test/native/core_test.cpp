// Data types, attributes, sizes and the memory planner.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <limits>
#include <random>
#include <vector>

#include "core/attributes.h"
#include "core/checked.h"
#include "core/convert.h"
#include "core/dtype.h"
#include "core/memory_planner.h"
#include "test.h"

namespace {

using namespace chiasma::core;

// What the 16 bits stand for, by the definition of the format.
double value_of(uint16_t bits, int exponent_bits) {
  const int mantissa_bits = 15 - exponent_bits;
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const int exponent = (bits & 0x7fff) >> mantissa_bits;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == (1 << exponent_bits) - 1) return mantissa ? std::nan("") : sign * std::numeric_limits<double>::infinity();
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

bool same(float a, double b) { return std::isnan(b) ? std::isnan(a) : a == b && std::signbit(a) == std::signbit(b); }

// The nearest 16-bit value to a finite float: the lower of its neighbours plus a rounding to even, found by search over all magnitudes.
uint16_t nearest(float value, int exponent_bits) {
  const double magnitude = std::abs(static_cast<double>(value));
  const auto infinity = static_cast<uint16_t>(((1 << exponent_bits) - 1) << (15 - exponent_bits));
  int low = 0, high = infinity;  // value_of(low) <= magnitude < the next
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (value_of(static_cast<uint16_t>(middle), exponent_bits) <= magnitude ? low : high) = middle;
  }
  const double below = value_of(static_cast<uint16_t>(low), exponent_bits);
  // Past the largest finite value the next one would be as far away as the last step was wide.
  const double above = low + 1 == infinity ? 2 * below - value_of(static_cast<uint16_t>(low - 1), exponent_bits) : value_of(static_cast<uint16_t>(low + 1), exponent_bits);
  const double to_below = magnitude - below, to_above = above - magnitude;
  const bool up = to_above < to_below || (to_above == to_below && (low & 1));
  return static_cast<uint16_t>((std::signbit(value) ? 0x8000 : 0) | (low + (up ? 1 : 0)));
}

TEST("dtype: names there and back") {
  for (const char* name : {"float32", "float16", "bfloat16", "int8", "uint8", "int32", "int64", "bool"}) CHECK(std::string(name_of(parse_dtype(name))) == name);
  CHECK_THROWS(ErrorCode::dtype, parse_dtype("float64"));
  CHECK_THROWS(ErrorCode::dtype, parse_dtype(""));
}

TEST("dtype: all 16-bit floats to float32, one by one and as arrays") {
  std::vector<uint16_t> all(65536);
  for (int i = 0; i < 65536; ++i) all[static_cast<size_t>(i)] = static_cast<uint16_t>(i);
  std::vector<float> halves(65536), brains(65536);
  floats_to_f32(DType::float16, all.data(), halves.data(), 65536);
  floats_to_f32(DType::bfloat16, all.data(), brains.data(), 65536);
  for (const uint16_t bits : all) {
    NOTE("bits " + std::to_string(bits));
    CHECK(same(f16_to_f32(bits), value_of(bits, 5)));
    CHECK(same(bf16_to_f32(bits), value_of(bits, 8)));
    CHECK(same(halves[bits], value_of(bits, 5)));
    CHECK(same(brains[bits], value_of(bits, 8)));
  }
}

TEST("dtype: float32 to 16 bits rounds to nearest even") {
  std::vector<float> values;
  // Every 16-bit value, the midpoint above it, and the floats next to that midpoint.
  for (const int exponent_bits : {5, 8}) {
    for (int bits = 0; bits < 65536; ++bits) {
      const double here = value_of(static_cast<uint16_t>(bits), exponent_bits);
      const double next = value_of(static_cast<uint16_t>((bits & 0x8000) | ((bits + 1) & 0x7fff)), exponent_bits);
      if (!std::isfinite(here)) continue;
      values.push_back(static_cast<float>(here));
      if (!std::isfinite(next)) continue;
      const auto middle = static_cast<float>((here + next) / 2);
      for (const float value : {middle, std::nextafterf(middle, INFINITY), std::nextafterf(middle, -INFINITY)}) values.push_back(value);
    }
  }
  std::mt19937 random(1);
  for (int i = 0; i < 200000; ++i) {
    const uint32_t bits = random();
    float value;
    std::memcpy(&value, &bits, 4);
    values.push_back(value);
  }
  for (const float value : {65519.99f, 65520.0f, -65520.0f, 3.4e38f, 3.3961775e38f}) values.push_back(value);
  std::vector<uint16_t> halves(values.size()), brains(values.size());
  f32_to_floats(values.data(), DType::float16, halves.data(), static_cast<int64_t>(values.size()));
  f32_to_floats(values.data(), DType::bfloat16, brains.data(), static_cast<int64_t>(values.size()));
  for (size_t i = 0; i < values.size(); ++i) {
    const float value = values[i];
    NOTE("value " + std::to_string(value));
    if (!std::isfinite(value)) {
      CHECK(same(f16_to_f32(halves[i]), value));
      CHECK(same(bf16_to_f32(brains[i]), value));
      continue;
    }
    CHECK(halves[i] == nearest(value, 5));
    CHECK(brains[i] == nearest(value, 8));
    CHECK(f32_to_f16(value) == halves[i]);
    CHECK(f32_to_bf16(value) == brains[i]);
  }
  // A NaN whose payload lies in the bits that are cut off stays one.
  const uint32_t low_payload = 0x7f800001u;
  float nan;
  std::memcpy(&nan, &low_payload, 4);
  CHECK(std::isnan(f16_to_f32(f32_to_f16(nan))));
  CHECK(std::isnan(bf16_to_f32(f32_to_bf16(nan))));
}

TEST("attributes: read by name and kind") {
  Attributes attributes;
  attributes.set("eps", 1e-5);
  attributes.set("heads", 12.0);
  attributes.set("half", 0.5);
  attributes.set("huge", 1e300);
  attributes.set("causal", true);
  attributes.set("kind", std::string("gelu"));
  attributes.set("mean", std::vector<double>{1, 2, 3});
  CHECK(attributes.number("eps") == 1e-5);
  CHECK(attributes.number("absent", 7) == 7);
  CHECK(attributes.integer("heads") == 12);
  CHECK(attributes.integer("absent", -1) == -1);
  CHECK(attributes.boolean("causal", false));
  CHECK(attributes.boolean("absent", true));
  CHECK(attributes.string("kind") == "gelu");
  CHECK(attributes.string("absent", "none") == "none");
  CHECK(attributes.numbers("mean") == std::vector<double>({1, 2, 3}));
  CHECK(attributes.has("eps") && !attributes.has("ep"));
  CHECK_THROWS(ErrorCode::argument, attributes.number("absent"));
  CHECK_THROWS(ErrorCode::argument, attributes.number("kind"));
  CHECK_THROWS(ErrorCode::argument, attributes.number("kind", 1));
  CHECK_THROWS(ErrorCode::argument, attributes.integer("half"));
  CHECK_THROWS(ErrorCode::argument, attributes.integer("huge"));
  CHECK_THROWS(ErrorCode::argument, attributes.string("eps"));
  CHECK_THROWS(ErrorCode::argument, attributes.string("eps", "none"));
  CHECK_THROWS(ErrorCode::argument, attributes.boolean("eps", false));
  CHECK_THROWS(ErrorCode::argument, attributes.numbers("eps"));
  CHECK_THROWS(ErrorCode::argument, attributes.expect_only({"eps", "heads"}));
  attributes.expect_only({"eps", "heads", "half", "huge", "causal", "kind", "mean", "more"});
  try {
    attributes.number("kind");
  } catch (const Error& error) {
    CHECK(std::string(error.what()) == "attribute 'kind' is a string; expected a number");
  }
}

TEST("sizes: products that do not fit are none") {
  CHECK(checked_elements({}) == 1);
  CHECK(checked_elements({3, 0, 5}) == 0);
  CHECK(checked_elements({0, int64_t{1} << 47, int64_t{1} << 47}) == 0);
  CHECK(checked_elements({2, 3}) == 6);
  CHECK(!checked_elements({-1}));
  CHECK(!checked_elements({0, -1}));
  CHECK(!checked_elements({int64_t{1} << 40, int64_t{1} << 40}));
  CHECK(!checked_elements({std::numeric_limits<int64_t>::max(), 2}));
  CHECK(checked_size(3, 4, 5) == 17);
  CHECK(!checked_size(max_size, 1, 1));
}

TEST("planner: buffers alive together never overlap, others share") {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    NOTE("round " + std::to_string(round));
    std::vector<Lifetime> lives(random() % 60 + 1);
    for (Lifetime& life : lives) {
      life.bytes = random() % 5 == 0 ? 0 : random() % 5000;
      life.first = static_cast<int>(random() % 40) - 1;
      life.last = life.first + static_cast<int>(random() % 10);
    }
    const MemoryPlan plan = plan_memory(lives);
    CHECK(plan.offsets.size() == lives.size());
    for (size_t i = 0; i < lives.size(); ++i) {
      CHECK(plan.offsets[i] >= 0 && plan.offsets[i] % arena_alignment == 0);
      CHECK(plan.offsets[i] + lives[i].bytes <= plan.bytes);
      for (size_t j = 0; j < i; ++j) {
        if (lives[i].last < lives[j].first || lives[j].last < lives[i].first || lives[i].bytes == 0 || lives[j].bytes == 0) continue;
        CHECK(plan.offsets[i] + lives[i].bytes <= plan.offsets[j] || plan.offsets[j] + lives[j].bytes <= plan.offsets[i]);
      }
    }
  }
}

TEST("planner: a chain needs two buffers, whatever its length") {
  std::vector<Lifetime> lives;
  for (int i = 0; i < 100; ++i) lives.push_back({1024, i - 1, i});
  CHECK(plan_memory(lives).bytes == 2048);
  CHECK(plan_memory({}).bytes == 0);
  CHECK_THROWS(ErrorCode::out_of_memory, plan_memory({{max_size, 0, 0}, {max_size, 0, 0}}));
}

// A long chain with a residual stream: every fourth buffer lives on for a block, and some to the end.
std::vector<Lifetime> long_plan(int steps) {
  std::vector<Lifetime> lives;
  for (int i = 0; i < steps; ++i) {
    const int64_t bytes = i % 4 == 2 ? 4096 : 1024;
    lives.push_back({bytes, i - 1, i % 100 == 0 ? steps : i % 4 == 0 ? std::min(i + 4, steps) : i});
    lives.push_back({i % 3 == 0 ? 640 : 256, i, i});
  }
  return lives;
}

double seconds_of(const std::vector<Lifetime>& lives) {
  const std::clock_t began = std::clock();
  plan_memory(lives);
  return static_cast<double>(std::clock() - began) / CLOCKS_PER_SEC;
}

TEST("planner: plans of twenty thousand steps") {
  const std::vector<Lifetime> few = long_plan(2'500), many = long_plan(20'000);
  // The 200 buffers that stay, and what a short plan needs beside its one.
  CHECK(plan_memory(many).bytes <= 200 * 1024 + plan_memory(long_plan(99)).bytes - 1024);
  const double once = std::min({seconds_of(few), seconds_of(few), seconds_of(few)}), eightfold = seconds_of(many);
  NOTE(std::to_string(once) + " s, and for eight times as many steps " + std::to_string(eightfold) + " s");
  CHECK(eightfold < 30 * once);  // comparing all pairs takes 64 times as long
}

}  // namespace
