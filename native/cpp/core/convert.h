// Whole arrays from one float type to another, for loading. Pointers need no alignment but the type's.
#pragma once

#include <cstdint>

#include "core/dtype.h"

namespace chiasma::core {

constexpr bool is_float(DType dtype) noexcept {
  return dtype == DType::float32 || dtype == DType::float16 || dtype == DType::bfloat16;
}

// from: a float type.
void floats_to_f32(DType from, const void* source, float* target, int64_t n);
void f32_to_floats(const float* source, DType to, void* target, int64_t n);

}  // namespace chiasma::core
