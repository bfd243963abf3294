// Vec in one 256-bit register: AVX2 and FMA. Included by vec.h alone.
// Partial loads and stores of types narrower than four bytes go in pieces of 4, 2 and 1 elements, for AVX2 masks only wider ones.
#pragma once

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

struct Vec {
  static constexpr int lanes = 8;
  __m256 v;
};
struct Mask {
  __m256 m;
};

CHIASMA_INLINE Vec set(float value) { return {_mm256_set1_ps(value)}; }

CHIASMA_INLINE Vec operator+(Vec a, Vec b) { return {_mm256_add_ps(a.v, b.v)}; }
CHIASMA_INLINE Vec operator-(Vec a, Vec b) { return {_mm256_sub_ps(a.v, b.v)}; }
CHIASMA_INLINE Vec operator*(Vec a, Vec b) { return {_mm256_mul_ps(a.v, b.v)}; }
CHIASMA_INLINE Vec operator/(Vec a, Vec b) { return {_mm256_div_ps(a.v, b.v)}; }
CHIASMA_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }   // a·b + c
CHIASMA_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {_mm256_fnmadd_ps(a.v, b.v, c.v)}; }  // c − a·b
CHIASMA_INLINE Vec max(Vec a, Vec b) { return {_mm256_max_ps(a.v, b.v)}; }  // a > b ? a : b
CHIASMA_INLINE Vec min(Vec a, Vec b) { return {_mm256_min_ps(a.v, b.v)}; }  // a < b ? a : b
CHIASMA_INLINE Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.v)}; }
CHIASMA_INLINE Vec abs(Vec a) { return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)}; }
// a with its sign turned where b's is negative.
CHIASMA_INLINE Vec flip_sign(Vec a, Vec b) { return {_mm256_xor_ps(a.v, _mm256_and_ps(b.v, _mm256_set1_ps(-0.0f)))}; }
// To the nearest integer, ties to even.
CHIASMA_INLINE Vec round(Vec a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
CHIASMA_INLINE Vec over(Vec a, Vec b) { return a / b; }
// a·2^n for integral n in [−160, 160]: in two halves, each a normal number, so that only the second product rounds.
CHIASMA_INLINE Vec scale_by_power(Vec a, Vec n) {
  const __m256i whole = _mm256_cvtps_epi32(n.v);
  const __m256i half = _mm256_srai_epi32(whole, 1);
  const __m256i bias = _mm256_set1_epi32(127);
  const __m256 first = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const __m256 second = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23));
  return {_mm256_mul_ps(_mm256_mul_ps(a.v, first), second)};
}
// For exp2: takes the integer n nearest to t off it and gives 2^n, from 2^-126 up, from 2^128 on infinity. Adding 1.5·2²³ rounds to an integer, and
// 127 more makes of it the exponent's bits.
CHIASMA_INLINE Vec take_power(Vec& t) {
  t = min(set(128.0f), max(set(-126.0f), t));  // NaN passes, for it is the second operand
  const Vec exponent = t + set(0x1.8p23f + 127);
  t = t - (exponent - set(0x1.8p23f + 127));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(exponent.v), 23))};
}
CHIASMA_INLINE Vec times_power(Vec a, Vec power) { return a * power; }

CHIASMA_INLINE Mask operator<(Vec a, Vec b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)}; }
CHIASMA_INLINE Mask is_nan(Vec a) { return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)}; }
CHIASMA_INLINE Mask first_lanes(int n) {  // n in [0, lanes]
  return {_mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)))};
}
CHIASMA_INLINE Vec select(Mask mask, Vec yes, Vec no) { return {_mm256_blendv_ps(no.v, yes.v, mask.m)}; }

// Lane i with lane i + 4, then + 2, + 1.
CHIASMA_INLINE float reduce_sum(Vec a) {
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
// Some lane's value; NaN only if a lane is NaN, but a NaN lane may be passed over.
CHIASMA_INLINE float reduce_max(Vec a) {
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

// The first n elements of 2 bytes as the low lanes, zeros above.
CHIASMA_INLINE __m128i load_halves(const void* p, int n) {
  if (n == 8) return _mm_loadu_si128(static_cast<const __m128i*>(p));
  const char* from = static_cast<const char*>(p);
  uint64_t low = 0, high = 0;
  int rest = 0;  // bits of the element after the pieces of four and two
  if (n & 4) memcpy(&low, from, 8), from += 8;
  if (n & 2) {
    uint32_t two;
    memcpy(&two, from, 4), from += 4;
    high = two, rest = 32;
  }
  if (n & 1) {
    uint16_t one;
    memcpy(&one, from, 2);
    high |= static_cast<uint64_t>(one) << rest;
  }
  return n & 4 ? _mm_set_epi64x(static_cast<int64_t>(high), static_cast<int64_t>(low)) : _mm_set_epi64x(0, static_cast<int64_t>(high));
}
CHIASMA_INLINE void store_halves(void* p, __m128i halves, int n) {
  char* to = static_cast<char*>(p);
  if (n == 8) return _mm_storeu_si128(reinterpret_cast<__m128i*>(to), halves);
  uint64_t low = static_cast<uint64_t>(_mm_cvtsi128_si64(halves));
  if (n & 4) {
    memcpy(to, &low, 8), to += 8;
    low = static_cast<uint64_t>(_mm_extract_epi64(halves, 1));
  }
  if (n & 2) memcpy(to, &low, 4), to += 4, low >>= 32;
  if (n & 1) memcpy(to, &low, 2);
}
// The same for elements of one byte.
CHIASMA_INLINE __m128i load_bytes(const void* p, int n) {
  uint64_t bytes = 0;
  const uint8_t* from = static_cast<const uint8_t*>(p);
  if (n == 8) {
    memcpy(&bytes, from, 8);
  } else {
    for (int i = 0; i < n; ++i) bytes |= static_cast<uint64_t>(from[i]) << (8 * i);
  }
  return _mm_cvtsi64_si128(static_cast<int64_t>(bytes));
}

CHIASMA_INLINE Vec from_bf16_bits(__m128i bits) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))}; }
CHIASMA_INLINE __m128i to_bf16_bits(Vec a) {
  const __m256i bits = _mm256_castps_si256(a.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  const __m256i kept = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(is_nan(a).m)), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
}

CHIASMA_INLINE Vec load(const float* p) { return {_mm256_loadu_ps(p)}; }
CHIASMA_INLINE Vec load(const Bf16* p) { return from_bf16_bits(load_halves(p, 8)); }
CHIASMA_INLINE Vec load(const int8_t* p) { return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_bytes(p, 8)))}; }
CHIASMA_INLINE Vec load(const uint8_t* p) { return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_bytes(p, 8)))}; }
CHIASMA_INLINE Vec load(const int32_t* p) { return {_mm256_cvtepi32_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))}; }

// The first n lanes, n in [0, lanes]; the others are zero.
CHIASMA_INLINE Vec load_part(const float* p, int n) { return {_mm256_maskload_ps(p, _mm256_castps_si256(first_lanes(n).m))}; }
CHIASMA_INLINE Vec load_part(const Bf16* p, int n) { return from_bf16_bits(load_halves(p, n)); }
CHIASMA_INLINE Vec load_part(const int8_t* p, int n) { return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_bytes(p, n)))}; }
CHIASMA_INLINE Vec load_part(const uint8_t* p, int n) { return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_bytes(p, n)))}; }
CHIASMA_INLINE Vec load_part(const int32_t* p, int n) {
  return {_mm256_cvtepi32_ps(_mm256_maskload_epi32(p, _mm256_castps_si256(first_lanes(n).m)))};
}

CHIASMA_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a.v); }
CHIASMA_INLINE void store(Bf16* p, Vec a) { store_halves(p, to_bf16_bits(a), 8); }
CHIASMA_INLINE void store_part(float* p, Vec a, int n) { _mm256_maskstore_ps(p, _mm256_castps_si256(first_lanes(n).m), a.v); }
CHIASMA_INLINE void store_part(Bf16* p, Vec a, int n) { store_halves(p, to_bf16_bits(a), n); }

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
