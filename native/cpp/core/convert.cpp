#include "core/convert.h"

#include <cstring>

namespace chiasma::core {

namespace {

// The same as f16_to_f32 without branches, so that the compiler makes vectors of it: the exponent is moved by a multiplication.
void f16_array_to_f32(const uint16_t* source, float* target, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t half = source[i];
    const uint32_t magnitude = (half & 0x7fffu) << 13;
    float value;
    std::memcpy(&value, &magnitude, 4);
    value *= 0x1p112f;
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    bits |= (half & 0x8000u) << 16;
    bits |= (half & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;      // infinity, NaN
    bits |= (half & 0x7fffu) > 0x7c00u ? 0x400000u : 0u;         // a quiet one
    std::memcpy(target + i, &bits, 4);
  }
}

}  // namespace

void floats_to_f32(DType from, const void* source, float* target, int64_t n) {
  if (from == DType::float32) {
    std::memcpy(target, source, static_cast<size_t>(n) * 4);
  } else if (from == DType::bfloat16) {
    const auto* bits = static_cast<const uint16_t*>(source);
    for (int64_t i = 0; i < n; ++i) target[i] = bf16_to_f32(bits[i]);
  } else {
    f16_array_to_f32(static_cast<const uint16_t*>(source), target, n);
  }
}

void f32_to_floats(const float* source, DType to, void* target, int64_t n) {
  auto* bits = static_cast<uint16_t*>(target);
  if (to == DType::float32) {
    std::memcpy(target, source, static_cast<size_t>(n) * 4);
  } else if (to == DType::bfloat16) {
    for (int64_t i = 0; i < n; ++i) bits[i] = f32_to_bf16(source[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) bits[i] = f32_to_f16(source[i]);
  }
}

}  // namespace chiasma::core
