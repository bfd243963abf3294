// Resampling against a plain reference that resizes the whole picture and then crops: filters, channel counts, orientations, crops that
// reach outside, every set of vector instructions; extreme shapes; values known from Pillow; plans that are refused.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "core/error.h"
#include "image/fixed_point.h"
#include "image/resize.h"
#include "test.h"

namespace {

using namespace chiasma::image;
using chiasma::core::ErrorCode;

using Bytes = std::vector<uint8_t>;

struct Picture {
  int64_t width, height;
  Bytes rgb;  // [height, width, 3]
  uint8_t* at(int64_t x, int64_t y) { return rgb.data() + (y * width + x) * 3; }
};

Bytes random_bytes(size_t size, uint32_t seed) {
  std::mt19937 random(seed);
  Bytes bytes(size);
  for (auto& byte : bytes) byte = random() % 4 == 0 ? (random() % 2) * 255 : random() & 255;  // many extremes: sums overshoot
  return bytes;
}

// The source as RGB, turned upright.
Picture upright(const ImagePlan& plan, const Bytes& pixels) {
  const int64_t w = plan.width, h = plan.height;
  const bool turned = plan.orientation >= 5;
  Picture picture{turned ? h : w, turned ? w : h, Bytes(w * h * 3)};
  for (int64_t y = 0; y < picture.height; ++y) {
    for (int64_t x = 0; x < picture.width; ++x) {
      int64_t sx = turned ? y : x, sy = turned ? x : y;
      const int o = plan.orientation;
      if (o == 2 || o == 3 || o == 7 || o == 8) sx = w - 1 - sx;
      if (o == 3 || o == 4 || o == 6 || o == 7) sy = h - 1 - sy;
      const uint8_t* from = pixels.data() + (sy * w + sx) * plan.channels;
      for (int c = 0; c < 3; ++c) {
        uint8_t value = from[plan.channels < 3 ? 0 : c];
        if (plan.cmyk) value = static_cast<uint8_t>(255 - from[3] - std::lround(value * (255 - from[3]) / 255.0));
        picture.at(x, y)[c] = value;
      }
    }
  }
  return picture;
}

double kernel(Filter filter, double x) {
  const double pi = std::acos(-1.0);
  const auto sinc = [&](double v) { return v == 0 ? 1.0 : std::sin(v * pi) / (v * pi); };
  const double a = std::abs(x);
  switch (filter) {
    case Filter::box:
      return x > -0.5 && x <= 0.5;
    case Filter::bilinear:
      return std::max(0.0, 1 - a);
    case Filter::hamming:
      return a == 0 ? 1 : a >= 1 ? 0 : std::sin(a * pi) / (a * pi) * (0.54f + 0.46f * std::cos(a * pi));
    case Filter::bicubic:
      return a < 1 ? (1.5 * a - 2.5) * a * a + 1 : a < 2 ? (((a - 5) * a + 8) * a - 4) * -0.5 : 0;
    default:
      return a < 3 ? sinc(x) * sinc(x / 3) : 0;
  }
}

// One pass over lines of n pixels of which the next is `step` pixels away.
void resample_line(Filter filter, const uint8_t* in, int64_t n, int64_t step, uint8_t* out, int64_t out_n, int64_t out_step) {
  const double scale = static_cast<double>(n) / out_n;
  const double wide = std::max(scale, 1.0);
  const double support = wide * (filter == Filter::box ? 0.5 : filter == Filter::bicubic ? 2 : filter == Filter::lanczos ? 3 : 1);
  for (int64_t i = 0; i < out_n; ++i) {
    const double center = (i + 0.5) * scale;
    const auto begin = std::max<int64_t>(0, static_cast<int64_t>(center - support + 0.5));
    const auto end = std::min<int64_t>(n, static_cast<int64_t>(center + support + 0.5));
    double sum = 0;
    for (int64_t j = begin; j < end; ++j) sum += kernel(filter, (j - center + 0.5) * (1 / wide));
    for (int c = 0; c < 3; ++c) {
      int64_t total = 1 << 21;
      for (int64_t j = begin; j < end; ++j) {
        double w = kernel(filter, (j - center + 0.5) * (1 / wide));
        if (sum != 0) w /= sum;
        total += static_cast<int32_t>((w < 0 ? -0.5 : 0.5) + w * (1 << 22)) * int64_t{in[j * step * 3 + c]};
      }
      out[i * out_step * 3 + c] = static_cast<uint8_t>(std::clamp<int64_t>(total >> 22, 0, 255));
    }
  }
}

Picture resized(Picture in, int64_t width, int64_t height, Filter filter) {
  if (filter == Filter::nearest) {
    Picture out{width, height, Bytes(width * height * 3)};
    // Added up, not multiplied: where a position falls between two pixels, the rounding errors decide.
    const double step_x = static_cast<double>(in.width) / width, step_y = static_cast<double>(in.height) / height;
    double sy = step_y / 2;
    for (int64_t y = 0; y < height; ++y, sy += step_y) {
      double sx = step_x / 2;
      for (int64_t x = 0; x < width; ++x, sx += step_x) std::copy_n(in.at(static_cast<int64_t>(sx), static_cast<int64_t>(sy)), 3, out.at(x, y));
    }
    return out;
  }
  Picture wide{width, in.height, Bytes(width * in.height * 3)};
  for (int64_t y = 0; y < in.height; ++y) resample_line(filter, in.at(0, y), in.width, 1, wide.at(0, y), width, 1);
  Picture out{width, height, Bytes(width * height * 3)};
  for (int64_t x = 0; x < width; ++x) resample_line(filter, wide.at(x, 0), in.height, width, out.at(x, 0), height, width);
  return out;
}

Bytes reference(const ImagePlan& plan, const Bytes& pixels) {
  Picture picture = resized(upright(plan, pixels), plan.resize_width, plan.resize_height, plan.filter);
  Picture crop{plan.crop_width, plan.crop_height, Bytes(plan.crop_width * plan.crop_height * 3)};
  for (int64_t y = 0; y < crop.height; ++y) {
    for (int64_t x = 0; x < crop.width; ++x) {
      const int64_t px = x + plan.crop_left, py = y + plan.crop_top;
      if (px >= 0 && py >= 0 && px < picture.width && py < picture.height) std::copy_n(picture.at(px, py), 3, crop.at(x, y));
    }
  }
  return crop.rgb;
}

Bytes run(const ImagePlan& plan, const Bytes& pixels) {
  Bytes rgb(check_plan(plan, pixels.size()), 0x5a);
  preprocess(plan, pixels.data(), rgb.data());
  return rgb;
}

std::string text_of(const ImagePlan& p) {
  std::string text;
  for (const int64_t n : {p.width, p.height, int64_t{p.channels}, int64_t{p.cmyk}, int64_t{p.orientation}, p.resize_width, p.resize_height,
                          static_cast<int64_t>(p.filter), p.crop_left, p.crop_top, p.crop_width, p.crop_height}) {
    text += std::to_string(n) + " ";
  }
  return text;
}

// A plan without a crop.
ImagePlan plain(int64_t width, int64_t height, int64_t resize_width, int64_t resize_height, Filter filter = Filter::bicubic) {
  ImagePlan plan;
  plan.width = width;
  plan.height = height;
  plan.resize_width = plan.crop_width = resize_width;
  plan.resize_height = plan.crop_height = resize_height;
  plan.filter = filter;
  return plan;
}

void check_same(const ImagePlan& plan, uint32_t seed = 1) {
  NOTE(text_of(plan));
  const Bytes pixels = random_bytes(plan.width * plan.height * plan.channels, seed);
  CHECK(run(plan, pixels) == reference(plan, pixels));
}

// Back to all the processor has, however a test ends.
struct AllVectors {
  ~AllVectors() { limit_vectors(9); }
};

TEST("image: 600 random plans, with every set of vector instructions") {
  const AllVectors restore;
  std::mt19937 random(7);
  const auto upto = [&](int64_t n) { return static_cast<int64_t>(random() % n); };
  for (int i = 0; i < 600; ++i) {
    const int64_t most = i % 4 == 0 ? 6 : i % 4 == 1 ? 90 : 40;
    ImagePlan plan;
    plan.width = 1 + upto(most);
    plan.height = 1 + upto(most);
    plan.channels = static_cast<int>(1 + upto(4));
    plan.cmyk = plan.channels == 4 && upto(2) == 0;
    plan.orientation = static_cast<int>(1 + upto(8));
    const bool turned = plan.orientation >= 5;
    plan.resize_width = upto(4) == 0 ? (turned ? plan.height : plan.width) : 1 + upto(70);
    plan.resize_height = upto(4) == 0 ? (turned ? plan.width : plan.height) : 1 + upto(70);
    plan.filter = static_cast<Filter>(upto(6));
    plan.crop_width = 1 + upto(plan.resize_width + 4);
    plan.crop_height = 1 + upto(plan.resize_height + 4);
    plan.crop_left = upto(plan.resize_width + 6) - 3;
    plan.crop_top = upto(plan.resize_height + 6) - 3;
    limit_vectors(i % 3);
    check_same(plan, i);
  }
}

TEST("image: filters at photo size, shrinking and growing") {
  const AllVectors restore;
  for (int level = 0; level < 3; ++level) {
    if (limit_vectors(level) != level) continue;
    for (const Filter filter : {Filter::bilinear, Filter::bicubic, Filter::lanczos, Filter::box, Filter::hamming, Filter::nearest}) {
      ImagePlan plan = plain(250, 187, 149, 112, filter);
      plan.crop_left = 18;
      plan.crop_width = plan.crop_height = 112;
      check_same(plan);
      check_same(plain(33, 21, 90, 70, filter));
    }
  }
}

TEST("image: one pixel, one row, one column") {
  for (const Filter filter : {Filter::bilinear, Filter::bicubic, Filter::lanczos, Filter::box, Filter::hamming, Filter::nearest}) {
    check_same(plain(1, 1, 40, 30, filter));
    check_same(plain(5000, 1, 60, 20, filter));
    check_same(plain(1, 5000, 20, 60, filter));
    check_same(plain(1, 1, 1, 1, filter));
    check_same(plain(300, 2, 1, 1, filter));
  }
}

TEST("image: the middle of a very long picture") {
  // Resized to a shortest edge of 224 it would have 4,480,000 rows; only the crop's are computed.
  ImagePlan plan = plain(1, 20000, 224, 4480000);
  plan.crop_height = 224;
  plan.crop_top = (plan.resize_height - 224) / 2;
  const Bytes pixels = random_bytes(60000, 3);
  const Bytes crop = run(plan, pixels);
  // Each source pixel grows to 224 rows; the crop spans the boundary of rows 9999 and 10000.
  Bytes around(pixels.begin() + 9990 * 3, pixels.begin() + 10010 * 3);
  ImagePlan part = plain(1, 20, 224, 20 * 224);
  part.crop_height = 224;
  part.crop_top = (part.resize_height - 224) / 2;
  CHECK(crop == run(part, around));
  plan.orientation = 6;
  plan.resize_width = 4480000;
  plan.resize_height = 224;
  plan.crop_left = plan.crop_top = 0;
  CHECK(run(plan, pixels).size() == 224 * 224 * 3);
}

TEST("image: weights too many for a table are made as they are needed") {
  check_same(plain(1100000, 1, 3, 1));
  check_same(plain(1, 1100000, 1, 3));
  check_same(plain(1100000, 2, 2, 3, Filter::bilinear));
}

TEST("image: values of Pillow") {
  // Image.frombytes('RGB', (4, 2), bytes(range(0, 240, 10))).resize((3, 3), BICUBIC)
  Bytes ramp(24);
  for (int i = 0; i < 24; ++i) ramp[i] = static_cast<uint8_t>(10 * i);
  const Bytes expected = {0, 8, 18, 37, 47, 57, 76, 86, 96, 66, 76, 86, 105, 115, 125, 144, 154, 164, 134, 144, 154, 173, 183, 193, 212, 222, 232};
  CHECK(run(plain(4, 2, 3, 3), ramp) == expected);
}

TEST("image: a crop outside the picture is black") {
  ImagePlan plan = plain(4, 4, 4, 4);
  plan.crop_left = 4;
  CHECK(run(plan, Bytes(48, 200)) == Bytes(48, 0));
  plan.crop_left = -2147483647;
  CHECK(run(plan, Bytes(48, 200)) == Bytes(48, 0));
}

TEST("image: plans that are refused") {
  const auto refuses = [](auto change) {
    ImagePlan plan = plain(4, 4, 4, 4);
    change(plan);
    NOTE(text_of(plan));
    CHECK_THROWS(ErrorCode::argument, check_plan(plan, 48));
  };
  for (const int64_t n : {int64_t{0}, int64_t{-1}, int64_t{1} << 31, int64_t{1} << 62}) {
    refuses([n](ImagePlan& p) { p.width = n; });
    refuses([n](ImagePlan& p) { p.height = n; });
    refuses([n](ImagePlan& p) { p.resize_width = n; });
    refuses([n](ImagePlan& p) { p.resize_height = n; });
    refuses([n](ImagePlan& p) { p.crop_width = n; });
    refuses([n](ImagePlan& p) { p.crop_height = n; });
  }
  refuses([](ImagePlan& p) { p.width = p.height = (int64_t{1} << 31) - 1; });
  refuses([](ImagePlan& p) { p.crop_width = p.crop_height = 40000; });
  refuses([](ImagePlan& p) { p.crop_left = int64_t{1} << 40; });
  refuses([](ImagePlan& p) { p.crop_top = -(int64_t{1} << 40); });
  refuses([](ImagePlan& p) { p.orientation = 0; });
  refuses([](ImagePlan& p) { p.orientation = 9; });
  refuses([](ImagePlan& p) { p.channels = 0; });
  refuses([](ImagePlan& p) { p.channels = 5; });
  refuses([](ImagePlan& p) { p.channels = 4; });
  refuses([](ImagePlan& p) { p.cmyk = true; });
  CHECK_THROWS(ErrorCode::argument, check_plan(plain(4, 4, 4, 4), 47));
  CHECK_THROWS(ErrorCode::argument, check_plan(plain(4, 4, 4, 4), 0));
  CHECK_THROWS(ErrorCode::argument, parse_filter("cubic"));
}

}  // namespace
