// Vec in one 512-bit register: AVX-512 F, BW, DQ, VL. Included by vec.h alone.
// bfloat16 is rounded by integer operations where the instruction VCVTNEPS2BF16 is missing or, which takes them as zero, there are subnormal numbers.
#pragma once

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

struct Vec {
  static constexpr int lanes = 16;
  __m512 v;
};
struct Mask {
  __mmask16 m;
};

CHIASMA_INLINE Vec set(float value) { return {_mm512_set1_ps(value)}; }

CHIASMA_INLINE Vec operator+(Vec a, Vec b) { return {_mm512_add_ps(a.v, b.v)}; }
CHIASMA_INLINE Vec operator-(Vec a, Vec b) { return {_mm512_sub_ps(a.v, b.v)}; }
CHIASMA_INLINE Vec operator*(Vec a, Vec b) { return {_mm512_mul_ps(a.v, b.v)}; }
CHIASMA_INLINE Vec operator/(Vec a, Vec b) { return {_mm512_div_ps(a.v, b.v)}; }
CHIASMA_INLINE Vec fma(Vec a, Vec b, Vec c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }   // a·b + c
CHIASMA_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {_mm512_fnmadd_ps(a.v, b.v, c.v)}; }  // c − a·b
CHIASMA_INLINE Vec max(Vec a, Vec b) { return {_mm512_max_ps(a.v, b.v)}; }  // a > b ? a : b
CHIASMA_INLINE Vec min(Vec a, Vec b) { return {_mm512_min_ps(a.v, b.v)}; }  // a < b ? a : b
CHIASMA_INLINE Vec sqrt(Vec a) { return {_mm512_sqrt_ps(a.v)}; }
CHIASMA_INLINE Vec abs(Vec a) { return {_mm512_andnot_ps(_mm512_set1_ps(-0.0f), a.v)}; }
// a with its sign turned where b's is negative.
CHIASMA_INLINE Vec flip_sign(Vec a, Vec b) { return {_mm512_xor_ps(a.v, _mm512_and_ps(b.v, _mm512_set1_ps(-0.0f)))}; }
// To the nearest integer, ties to even.
CHIASMA_INLINE Vec round(Vec a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
// a·2^n for integral n or infinity, rounded once.
CHIASMA_INLINE Vec scale_by_power(Vec a, Vec n) { return {_mm512_scalef_ps(a.v, n.v)}; }
// For exp2: takes the integer n nearest to t off it, leaving 0 of infinity, and gives n; a·2^n.
CHIASMA_INLINE Vec take_power(Vec& t) {
  const Vec whole = t;
  t = {_mm512_reduce_ps(t.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  return whole - t;
}
CHIASMA_INLINE Vec times_power(Vec a, Vec n) { return scale_by_power(a, n); }
// a / b to 1.5e-7 for b >= 1: 1 / b by an estimate and a step of Newton's, in a quarter of a division's time. At infinity the step's error is NaN and
// max makes it −1.
CHIASMA_INLINE Vec over(Vec a, Vec b) {
  const Vec estimate = {_mm512_rcp14_ps(b.v)};
  return a * fma(estimate, max(fnma(b, estimate, set(1.0f)), set(-1.0f)), estimate);
}

CHIASMA_INLINE Mask operator<(Vec a, Vec b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
CHIASMA_INLINE Mask is_nan(Vec a) { return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)}; }
CHIASMA_INLINE Mask first_lanes(int n) { return {static_cast<__mmask16>((1u << n) - 1)}; }  // n in [0, lanes]
CHIASMA_INLINE Vec select(Mask mask, Vec yes, Vec no) { return {_mm512_mask_blend_ps(mask.m, no.v, yes.v)}; }

// Lane i with lane i + 8, then + 4, + 2, + 1.
CHIASMA_INLINE float reduce_sum(Vec a) {
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}
// Some lane's value; NaN only if a lane is NaN, but a NaN lane may be passed over.
CHIASMA_INLINE float reduce_max(Vec a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  four = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
}

CHIASMA_INLINE Vec from_bf16_bits(__m256i bits) { return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))}; }
constexpr int subnormal_class = 0x20;
CHIASMA_INLINE __m256i to_bf16_bits(Vec a) {
#if defined(CHIASMA_ISA_avx512_bf16) || defined(CHIASMA_ISA_amx)
  if (__builtin_expect(_mm512_fpclass_ps_mask(a.v, subnormal_class) == 0, 1)) return (__m256i)_mm512_cvtneps_pbh(a.v);
#endif
  const __m512i bits = _mm512_castps_si512(a.v);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i kept = _mm512_mask_or_epi32(rounded, is_nan(a).m, bits, _mm512_set1_epi32(0x400000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
}

CHIASMA_INLINE Vec load(const float* p) { return {_mm512_loadu_ps(p)}; }
CHIASMA_INLINE Vec load(const Bf16* p) { return from_bf16_bits(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))); }
CHIASMA_INLINE Vec load(const int8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
CHIASMA_INLINE Vec load(const uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
CHIASMA_INLINE Vec load(const int32_t* p) { return {_mm512_cvtepi32_ps(_mm512_loadu_si512(p))}; }

// The first n lanes, n in [0, lanes]; the others are zero.
CHIASMA_INLINE Vec load_part(const float* p, int n) { return {_mm512_maskz_loadu_ps(first_lanes(n).m, p)}; }
CHIASMA_INLINE Vec load_part(const Bf16* p, int n) { return from_bf16_bits(_mm256_maskz_loadu_epi16(first_lanes(n).m, p)); }
CHIASMA_INLINE Vec load_part(const int8_t* p, int n) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first_lanes(n).m, p)))};
}
CHIASMA_INLINE Vec load_part(const uint8_t* p, int n) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first_lanes(n).m, p)))};
}
CHIASMA_INLINE Vec load_part(const int32_t* p, int n) { return {_mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(first_lanes(n).m, p))}; }

CHIASMA_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a.v); }
CHIASMA_INLINE void store(Bf16* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), to_bf16_bits(a)); }
// Stores of what is rounded to bfloat16, quicker than `store` where there is an instruction for it, but not right of subnormal numbers: whether there were
// any is told in the end. Comparing each vector would take turns with products.
class RoundedStore {
 public:
  CHIASMA_INLINE void store(Bf16* p, Vec a) {
#if defined(CHIASMA_ISA_avx512_bf16) || defined(CHIASMA_ISA_amx)
    const __m512i bits = _mm512_castps_si512(a.v), one_less = _mm512_add_epi32(_mm512_add_epi32(bits, bits), _mm512_set1_epi32(-1));
    least_ = _mm512_min_epu32(least_, one_less);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), (__m256i)_mm512_cvtneps_pbh(a.v));
#else
    ::chiasma::cpu::CHIASMA_ISA::store(p, a);
#endif
  }
  CHIASMA_INLINE bool right() const { return _mm512_cmplt_epu32_mask(least_, _mm512_set1_epi32(0xffffff)) == 0; }

 private:
  __m512i least_ = _mm512_set1_epi32(-1);  // bits without the sign, twice and less one: 0xffffff for the least normal number, the greatest for 0
};
// As `store`, vector i to place(i), with one look for what the processor would not round.
template <int n, typename Place>
CHIASMA_INLINE void store_all(const Vec (&a)[n], const Place& place) {
#if defined(CHIASMA_ISA_avx512_bf16) || defined(CHIASMA_ISA_amx)
  __mmask16 found = 0;
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) found = _kor_mask16(found, _mm512_fpclass_ps_mask(a[i].v, subnormal_class));
  if (__builtin_expect(found == 0, 1)) {
#pragma GCC unroll 8
    for (int i = 0; i < n; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(place(i)), (__m256i)_mm512_cvtneps_pbh(a[i].v));
    return;
  }
#endif
#pragma GCC unroll 8
  for (int i = 0; i < n; ++i) store(place(i), a[i]);
}
CHIASMA_INLINE void store_part(float* p, Vec a, int n) { _mm512_mask_storeu_ps(p, first_lanes(n).m, a.v); }
CHIASMA_INLINE void store_part(Bf16* p, Vec a, int n) { _mm256_mask_storeu_epi16(p, first_lanes(n).m, to_bf16_bits(a)); }

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
