#include "image/resize.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "core/error.h"
#include "image/filter_axis.h"
#include "image/fixed_point.h"

namespace chiasma::image {
namespace {

using core::Error;
using core::ErrorCode;

constexpr int64_t max_extent = std::numeric_limits<int32_t>::max();
// Source rows filtered and accumulated at a time: with a crop's width of some hundred pixels they stay in the first cache.
constexpr int64_t block_rows = 32;

struct Range {
  int64_t begin;
  int64_t end;
  int64_t size() const { return end - begin; }
};

// The picture after EXIF orientation, as a walk over the source's bytes.
struct Oriented {
  int64_t width, height;
  const uint8_t* origin;   // of pixel (0, 0)
  int64_t step_x, step_y;  // bytes
};

Oriented orient(const ImagePlan& plan, const uint8_t* pixels) {
  const int64_t pixel = plan.channels;
  const int64_t line = plan.width * pixel;
  const int64_t right = line - pixel;                // last pixel of a line
  const int64_t bottom = (plan.height - 1) * line;  // last line
  const int64_t w = plan.width, h = plan.height;
  switch (plan.orientation) {
    case 2:
      return {w, h, pixels + right, -pixel, line};
    case 3:
      return {w, h, pixels + bottom + right, -pixel, -line};
    case 4:
      return {w, h, pixels + bottom, pixel, -line};
    case 5:
      return {h, w, pixels, line, pixel};
    case 6:
      return {h, w, pixels + bottom, -line, pixel};
    case 7:
      return {h, w, pixels + bottom + right, -line, -pixel};
    case 8:
      return {h, w, pixels + right, line, -pixel};
    default:
      return {w, h, pixels, pixel, line};
  }
}

// How a source pixel becomes grey or RGB.
enum class Pixel { grey, rgb, inks };

Pixel pixel_of(const ImagePlan& plan) { return plan.channels < 3 ? Pixel::grey : plan.cmyk ? Pixel::inks : Pixel::rgb; }
constexpr int channels_of(Pixel pixel) { return pixel == Pixel::grey ? 1 : 3; }

// a * b / 255, rounded.
int of_255(int a, int b) {
  const int product = a * b + 128;
  return ((product >> 8) + product) >> 8;
}

template <Pixel P>
void read_pixel(const uint8_t* from, uint8_t* to) {
  if constexpr (P == Pixel::inks) {
    const int white = 255 - from[3];
    for (int c = 0; c < 3; ++c) to[c] = static_cast<uint8_t>(white - of_255(from[c], white));
  } else {
    for (int c = 0; c < channels_of(P); ++c) to[c] = from[c];
  }
}

// Calls f with the pixel's kind as a template argument.
template <typename F>
void with_pixel(Pixel pixel, const F& f) {
  switch (pixel) {
    case Pixel::grey:
      return f.template operator()<Pixel::grey>();
    case Pixel::rgb:
      return f.template operator()<Pixel::rgb>();
    case Pixel::inks:
      return f.template operator()<Pixel::inks>();
  }
}

// Rows of the oriented picture as grey or RGB, some columns of them: pointers into the source where it is laid out so, else copies.
class RowReader {
 public:
  RowReader(const ImagePlan& plan, const Oriented& picture, Range columns, int64_t rows)
      : picture_(picture),
        pixel_(pixel_of(plan)),
        channels_(channels_of(pixel_)),
        columns_(columns),
        direct_(pixel_ != Pixel::inks && picture.step_x == channels_ && picture.step_y > 0),
        copies_(direct_ ? 0 : std::min(block_rows, rows) * columns.size() * channels_) {}

  int channels() const { return channels_; }
  int64_t row_bytes() const { return columns_.size() * channels_; }

  // Rows [first, first + count), count at most block_rows; they live until the next call.
  void read(int64_t first, int64_t count, const uint8_t** rows) {
    const uint8_t* start = picture_.origin + columns_.begin * picture_.step_x + first * picture_.step_y;
    for (int64_t i = 0; i < count; ++i) rows[i] = direct_ ? start + i * picture_.step_y : copies_.data() + i * row_bytes();
    if (direct_) return;
    with_pixel(pixel_, [&]<Pixel P>() { copy<P>(start, count); });
  }

 private:
  // The source's lines are walked in the outer loop, whichever way the picture is turned.
  template <Pixel P>
  void copy(const uint8_t* start, int64_t count) {
    const bool turned = std::abs(picture_.step_x) > std::abs(picture_.step_y);
    const int64_t outer = turned ? columns_.size() : count;
    const int64_t inner = turned ? count : columns_.size();
    const int64_t from_outer = turned ? picture_.step_x : picture_.step_y;
    const int64_t from_inner = turned ? picture_.step_y : picture_.step_x;
    const int64_t to_outer = turned ? channels_of(P) : row_bytes();
    const int64_t to_inner = turned ? row_bytes() : channels_of(P);
    for (int64_t i = 0; i < outer; ++i) {
      const uint8_t* from = start + i * from_outer;
      uint8_t* to = copies_.data() + i * to_outer;
      for (int64_t j = 0; j < inner; ++j) read_pixel<P>(from + j * from_inner, to + j * to_inner);
    }
  }

  const Oriented& picture_;
  Pixel pixel_;
  int channels_;
  Range columns_;
  bool direct_;
  std::vector<uint8_t> copies_;
};

// Where the crop's visible part goes in the result.
class Target {
 public:
  Target(const ImagePlan& plan, uint8_t* rgb, Range columns, Range rows) : rgb_(rgb), columns_(columns), plan_(plan) {
    if (columns.size() < plan.crop_width || rows.size() < plan.crop_height) {
      std::fill(rgb, rgb + plan.crop_width * plan.crop_height * 3, uint8_t{0});
    }
  }

  // The visible part of the resized picture's row y.
  void write(int64_t y, const uint8_t* row, int channels) {
    uint8_t* out = rgb_ + ((y - plan_.crop_top) * plan_.crop_width + columns_.begin - plan_.crop_left) * 3;
    if (channels == 3) {
      std::copy(row, row + columns_.size() * 3, out);
    } else {
      for (int64_t x = 0; x < columns_.size(); ++x) out[3 * x] = out[3 * x + 1] = out[3 * x + 2] = row[x];
    }
  }

 private:
  uint8_t* rgb_;
  Range columns_;
  const ImagePlan& plan_;
};

Range visible(int64_t begin, int64_t size, int64_t limit) {
  const int64_t from = std::clamp<int64_t>(begin, 0, limit);
  return {from, std::clamp<int64_t>(begin + size, from, limit)};
}

// Source positions that the windows of all outputs in `out` touch.
Range source_of(const FilterAxis& axis, Range out) {
  return {axis.first(out.begin), axis.end(out.end - 1)};
}

// Source position of each output: Pillow adds the scale up, one output after the other.
std::vector<int64_t> nearest_positions(int64_t in_size, int64_t out_size, Range out) {
  const double scale = static_cast<double>(in_size) / static_cast<double>(out_size);
  std::vector<int64_t> positions;
  positions.reserve(out.size());
  double position = scale * 0.5;
  for (int64_t i = 0; i < out.end; ++i, position += scale) {
    if (i >= out.begin) positions.push_back(std::min(static_cast<int64_t>(position), in_size - 1));
  }
  return positions;
}

void resize_nearest(const ImagePlan& plan, const Oriented& picture, Range columns, Range rows, Target& target) {
  const auto xs = nearest_positions(picture.width, plan.resize_width, columns);
  const auto ys = nearest_positions(picture.height, plan.resize_height, rows);
  with_pixel(pixel_of(plan), [&]<Pixel P>() {
    constexpr int channels = channels_of(P);
    std::vector<uint8_t> line(columns.size() * channels);
    for (int64_t y = 0; y < rows.size(); ++y) {
      const uint8_t* source = picture.origin + ys[y] * picture.step_y;
      for (int64_t x = 0; x < columns.size(); ++x) read_pixel<P>(source + xs[x] * picture.step_x, line.data() + x * channels);
      target.write(rows.begin + y, line.data(), channels);
    }
  });
}

// The horizontal pass over a block of rows that begin at source column first_column.
void filter_rows(const uint8_t* const* rows, int64_t count, const RowReader& reader, int64_t first_column, FilterAxis& axis, Range columns,
                 std::vector<uint8_t>& filtered) {
  const int channels = reader.channels();
  const int64_t out_bytes = columns.size() * channels;
  const int64_t batch = axis.batch();
  for (int64_t group = 0; group < count; group += row_group) {
    for (int64_t x = columns.begin; x < columns.end; x += batch) {
      const uint8_t* in[row_group];
      uint8_t* out[row_group];
      for (int r = 0; r < row_group; ++r) {
        const int64_t row = std::min(group + r, count - 1);  // a short last group repeats its last row
        in[r] = rows[row];
        out[r] = filtered.data() + row * out_bytes + (x - columns.begin) * channels;
      }
      filter_columns(in, channels, first_column, reader.row_bytes(), axis.taps(x), batch, out);
    }
  }
}

// The vertical pass: sums of those output rows whose windows meet the rows seen last, in a ring.
class VerticalPass {
 public:
  VerticalPass(FilterAxis& axis, Range out, int64_t row_size) : axis_(axis), out_(out), next_(out.begin), end_(out.begin), row_size_(row_size) {
    const Range source = source_of(axis, out);
    int64_t first = out.begin, end = out.begin;
    for (int64_t row = source.begin; row < source.end; row += block_rows) {
      while (end < out.end && axis.first(end) < row + block_rows) ++end;
      capacity_ = std::max(capacity_, end - first);
      while (first < end && axis.end(first) <= row + block_rows) ++first;
    }
    sums_.resize(capacity_ * row_size);
    finished_.resize(row_size);
  }

  // Takes rows [first, first + count) of the source and hands finished output rows to `write`.
  template <typename Write>
  void add(const uint8_t* const* rows, int64_t first, int64_t count, Write write) {
    while (end_ < out_.end && axis_.first(end_) < first + count) {
      std::fill_n(ring(end_), row_size_, 0);
      ++end_;
    }
    for (int64_t y = next_; y < end_; ++y) {
      const int64_t from = std::max(first, axis_.first(y));
      const int64_t to = std::min(first + count, axis_.end(y));
      if (from < to) accumulate_rows(rows + (from - first), axis_.taps_within(y, from, to), row_size_, ring(y));
    }
    for (; next_ < end_ && axis_.end(next_) <= first + count; ++next_) {
      finish_row(ring(next_), row_size_, finished_.data());
      write(next_, finished_.data());
    }
  }

 private:
  int32_t* ring(int64_t y) { return sums_.data() + (y % capacity_) * row_size_; }

  FilterAxis& axis_;
  Range out_;
  int64_t next_, end_;  // output rows begun and not finished
  int64_t row_size_;
  int64_t capacity_ = 1;
  std::vector<int32_t> sums_;
  std::vector<uint8_t> finished_;
};

void resize_filtered(const ImagePlan& plan, const Oriented& picture, Range columns, Range rows, Target& target) {
  const bool horizontal = plan.resize_width != picture.width;
  const bool vertical = plan.resize_height != picture.height;
  std::vector<FilterAxis> axes;  // horizontal, then vertical, those there are
  axes.reserve(2);
  if (horizontal) axes.emplace_back(plan.filter, picture.width, plan.resize_width, columns.begin, columns.end);
  if (vertical) axes.emplace_back(plan.filter, picture.height, plan.resize_height, rows.begin, rows.end);
  const Range source_columns = horizontal ? source_of(axes.front(), columns) : columns;
  const Range source_rows = vertical ? source_of(axes.back(), rows) : rows;

  RowReader reader(plan, picture, source_columns, source_rows.size());
  const int channels = reader.channels();
  const int64_t row_size = columns.size() * channels;
  std::vector<uint8_t> filtered(horizontal ? std::min(block_rows, source_rows.size()) * row_size : 0);
  std::vector<VerticalPass> pass;
  if (vertical) pass.emplace_back(axes.back(), rows, row_size);

  const uint8_t* lines[block_rows];
  for (int64_t first = source_rows.begin; first < source_rows.end; first += block_rows) {
    const int64_t count = std::min(block_rows, source_rows.end - first);
    reader.read(first, count, lines);
    if (horizontal) {
      filter_rows(lines, count, reader, source_columns.begin, axes.front(), columns, filtered);
      for (int64_t i = 0; i < count; ++i) lines[i] = filtered.data() + i * row_size;
    }
    const auto write = [&](int64_t y, const uint8_t* row) { target.write(y, row, channels); };
    if (vertical) {
      pass.front().add(lines, first, count, write);
    } else {
      for (int64_t i = 0; i < count; ++i) write(first + i, lines[i]);
    }
  }
}

void check_extent(const char* name, int64_t value) {
  if (value < 1 || value > max_extent) {
    throw Error(ErrorCode::argument, std::string("[preprocessImage] ") + name + " is " + std::to_string(value) + "; expected 1 to " +
                                         std::to_string(max_extent));
  }
}

}  // namespace

Filter parse_filter(std::string_view name) {
  if (name == "nearest") return Filter::nearest;
  if (name == "bilinear") return Filter::bilinear;
  if (name == "bicubic") return Filter::bicubic;
  if (name == "lanczos") return Filter::lanczos;
  if (name == "box") return Filter::box;
  if (name == "hamming") return Filter::hamming;
  throw Error(ErrorCode::argument, "[preprocessImage] filter is '" + std::string(name) +
                                       "'; expected nearest, bilinear, bicubic, lanczos, box or hamming");
}

size_t check_plan(const ImagePlan& plan, size_t pixels_bytes) {
  check_extent("width", plan.width);
  check_extent("height", plan.height);
  check_extent("resizeWidth", plan.resize_width);
  check_extent("resizeHeight", plan.resize_height);
  check_extent("cropWidth", plan.crop_width);
  check_extent("cropHeight", plan.crop_height);
  if (plan.channels < 1 || plan.channels > 4) {
    throw Error(ErrorCode::argument, "[preprocessImage] channels is " + std::to_string(plan.channels) + "; expected 1, 2, 3 or 4");
  }
  if (plan.cmyk && plan.channels != 4) {
    throw Error(ErrorCode::argument, "[preprocessImage] channels is " + std::to_string(plan.channels) + "; CMYK has 4");
  }
  if (plan.orientation < 1 || plan.orientation > 8) {
    throw Error(ErrorCode::argument, "[preprocessImage] orientation is " + std::to_string(plan.orientation) + "; expected 1 to 8");
  }
  for (const int64_t offset : {plan.crop_left, plan.crop_top}) {
    if (offset < -max_extent || offset > max_extent) {
      throw Error(ErrorCode::argument, "[preprocessImage] the crop begins at " + std::to_string(offset) + ", too far outside");
    }
  }
  const auto expected = static_cast<uint64_t>(plan.width) * static_cast<uint64_t>(plan.height);  // below 2^62
  if (pixels_bytes % plan.channels != 0 || pixels_bytes / plan.channels != expected) {
    throw Error(ErrorCode::argument, "[preprocessImage] " + std::to_string(pixels_bytes) + " bytes of pixels came; " +
                                         std::to_string(plan.width) + " x " + std::to_string(plan.height) + " pixels of " +
                                         std::to_string(plan.channels) + " channels were expected");
  }
  const int64_t result = plan.crop_width * plan.crop_height;  // below 2^62
  if (result > max_extent / 3) {
    throw Error(ErrorCode::argument, "[preprocessImage] a crop of " + std::to_string(plan.crop_width) + " x " +
                                         std::to_string(plan.crop_height) + " is too large");
  }
  return static_cast<size_t>(result) * 3;
}

void preprocess(const ImagePlan& plan, const uint8_t* pixels, uint8_t* rgb) {
  const Oriented picture = orient(plan, pixels);
  const Range columns = visible(plan.crop_left, plan.crop_width, plan.resize_width);
  const Range rows = visible(plan.crop_top, plan.crop_height, plan.resize_height);
  Target target(plan, rgb, columns, rows);
  if (columns.size() == 0 || rows.size() == 0) return;
  if (plan.filter == Filter::nearest) {
    resize_nearest(plan, picture, columns, rows, target);
  } else {
    resize_filtered(plan, picture, columns, rows, target);
  }
}

}  // namespace chiasma::image
