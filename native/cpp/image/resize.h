// From decoded pixels to a model's crop, with the bits of Pillow's Image.resize: EXIF orientation, resampling in 8-bit fixed point
// (horizontal pass, rounded to 8 bits, then vertical pass), centre crop. Only what the crop needs is computed.
// Pixels are uint8, interleaved, row-major without padding; the result is RGB [crop_height, crop_width, 3].
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chiasma::image {

// Pillow's filters, spelled as in typings/addon.d.ts. All but nearest widen with the scale when shrinking (antialiasing).
enum class Filter : uint8_t { nearest, bilinear, bicubic, lanczos, box, hamming };

// Throws Error(argument) for a name that is none.
Filter parse_filter(std::string_view name);

struct ImagePlan {
  int64_t width = 0;  // of the source
  int64_t height = 0;
  int channels = 3;  // 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; alpha is dropped, not blended
  bool cmyk = false;  // the 4 channels are inks, 255 the most of it; converted as Pillow does, without a colour profile
  int orientation = 1;  // EXIF 1..8, applied first
  int64_t resize_width = 0;  // after orientation; equal to the source's size: no resampling in that direction
  int64_t resize_height = 0;
  Filter filter = Filter::bicubic;
  int64_t crop_left = 0;  // of the resized picture; outside it is 0
  int64_t crop_top = 0;
  int64_t crop_width = 0;
  int64_t crop_height = 0;
};

// Bytes of the result. Throws Error(argument) naming the field unless the plan is sound and `pixels_bytes` is what it needs.
size_t check_plan(const ImagePlan& plan, size_t pixels_bytes);

// Fills `rgb` (check_plan bytes of it). The plan has been checked. Works in memory for some dozen rows of the source and of the crop; tables
// of weights stay below 32 MiB.
void preprocess(const ImagePlan& plan, const uint8_t* pixels, uint8_t* rgb);

}  // namespace chiasma::image
