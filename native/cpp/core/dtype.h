// Data types, spelled as in lib/core/dtype.ts.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>

namespace chiasma::core {

enum class DType : uint8_t { float32, float16, bfloat16, int8, uint8, int32, int64, boolean };

constexpr size_t size_of(DType dtype) noexcept {
  switch (dtype) {
    case DType::float32:
    case DType::int32:
      return 4;
    case DType::float16:
    case DType::bfloat16:
      return 2;
    case DType::int64:
      return 8;
    default:
      return 1;
  }
}

const char* name_of(DType dtype) noexcept;
// Throws Error(dtype) for a name that is none.
DType parse_dtype(std::string_view name);

inline float bf16_to_f32(uint16_t bits) noexcept {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// Rounds to nearest even; NaN stays NaN.
inline uint16_t f32_to_bf16(float value) noexcept {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

float f16_to_f32(uint16_t bits) noexcept;
uint16_t f32_to_f16(float value) noexcept;

}  // namespace chiasma::core
