// One register of floats, spelled alike for every instruction set, and the functions that models need of it (vec_math.h, vec_gelu.h).
// Included only by simd/*.cpp. Everything has internal linkage, so an object for one set shares nothing with another's.
// Rows are read in steps of Vec::lanes and end with load_part / store_part, which touch nothing past the end: each element then goes
// through the same operations wherever it stands.
#pragma once

#include <math.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(CHIASMA_ISA_avx512) || defined(CHIASMA_ISA_avx512_vnni) || defined(CHIASMA_ISA_avx512_bf16) || defined(CHIASMA_ISA_amx)
#define CHIASMA_VEC_512 1
#elif defined(CHIASMA_ISA_avx2)
#define CHIASMA_VEC_256 1
#endif
#if defined(CHIASMA_VEC_512) || defined(CHIASMA_VEC_256)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns of its own intrinsics: their "undefined" operands are variables initialised with themselves.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#endif

#define CHIASMA_INLINE inline __attribute__((always_inline))

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

// bfloat16 in memory; rows of it come from elsewhere as uint16_t.
struct Bf16 {
  uint16_t bits;
};

CHIASMA_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
CHIASMA_INLINE float float_of(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// One element to and from float32, the same values as the vector loads and stores below.
CHIASMA_INLINE float to_float(float value) { return value; }
CHIASMA_INLINE float to_float(Bf16 value) { return float_of(static_cast<uint32_t>(value.bits) << 16); }
CHIASMA_INLINE Bf16 to_bf16(float value) {
  const uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16)};
}

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA

#if defined(CHIASMA_VEC_512)
#include "cpu/simd/vec_avx512.h"
#elif defined(CHIASMA_VEC_256)
#include "cpu/simd/vec_avx2.h"
#else
#include "cpu/simd/vec_portable.h"
#endif

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

CHIASMA_INLINE Vec zero() { return set(0.0f); }
CHIASMA_INLINE Vec operator-(Vec a) { return flip_sign(a, set(-0.0f)); }

// NaN if either is (max and min give b then).
CHIASMA_INLINE Vec max_nan(Vec a, Vec b) { return select(is_nan(a), a, max(a, b)); }
CHIASMA_INLINE Vec min_nan(Vec a, Vec b) { return select(is_nan(a), a, min(a, b)); }

// The first n lanes of a, the others of b.
CHIASMA_INLINE Vec select_first(int n, Vec a, Vec b) { return select(first_lanes(n), a, b); }

// Whether a lane of `values` is not below or equal to its lane of `limits`.
CHIASMA_INLINE bool any_above(Vec values, Vec limits) {
#if defined(CHIASMA_VEC_512)
  return _mm512_cmp_ps_mask(values.v, limits.v, _CMP_NLE_UQ) != 0;
#elif defined(CHIASMA_VEC_256)
  return _mm256_movemask_ps(_mm256_cmp_ps(values.v, limits.v, _CMP_NLE_UQ)) != 0;
#else
  float value[Vec::lanes], limit[Vec::lanes];
  store(value, values);
  store(limit, limits);
  bool found = false;
  for (int lane = 0; lane < Vec::lanes; ++lane) found |= !(value[lane] <= limit[lane]);
  return found;
#endif
}

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA

#include "cpu/simd/vec_math.h"
#include "cpu/simd/vec_gelu.h"
