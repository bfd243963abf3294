// Transposition of a square of lanes × lanes floats in registers: row i's lane j becomes row j's lane i.
#pragma once

#include "cpu/simd/vec.h"

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

#if defined(CHIASMA_VEC_512)
// Pairs of rows, then of pairs, within each 128-bit quarter; then the quarters themselves.
CHIASMA_INLINE void transpose(Vec (&r)[16]) {
  __m512 t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm512_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  __m512 u[16];  // u[4g + c]: column c of each quarter, of rows 4g .. 4g + 3
  for (int g = 0; g < 16; g += 4) {
    for (int half = 0; half < 2; ++half) {
      const __m512d low = _mm512_castps_pd(t[g + half]), high = _mm512_castps_pd(t[g + 2 + half]);
      u[g + 2 * half] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      u[g + 2 * half + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  for (int c = 0; c < 4; ++c) {
    const __m512 a = _mm512_shuffle_f32x4(u[c], u[4 + c], 0x88), b = _mm512_shuffle_f32x4(u[8 + c], u[12 + c], 0x88);
    const __m512 d = _mm512_shuffle_f32x4(u[c], u[4 + c], 0xdd), e = _mm512_shuffle_f32x4(u[8 + c], u[12 + c], 0xdd);
    r[c].v = _mm512_shuffle_f32x4(a, b, 0x88);
    r[4 + c].v = _mm512_shuffle_f32x4(d, e, 0x88);
    r[8 + c].v = _mm512_shuffle_f32x4(a, b, 0xdd);
    r[12 + c].v = _mm512_shuffle_f32x4(d, e, 0xdd);
  }
}
#elif defined(CHIASMA_VEC_256)
CHIASMA_INLINE void transpose(Vec (&r)[8]) {
  __m256 t[8], u[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i].v, r[i + 1].v);
    t[i + 1] = _mm256_unpackhi_ps(r[i].v, r[i + 1].v);
  }
  for (int g = 0; g < 8; g += 4) {
    for (int half = 0; half < 2; ++half) {
      u[g + 2 * half] = _mm256_shuffle_ps(t[g + half], t[g + 2 + half], 0x44);
      u[g + 2 * half + 1] = _mm256_shuffle_ps(t[g + half], t[g + 2 + half], 0xee);
    }
  }
  for (int c = 0; c < 4; ++c) {
    r[c].v = _mm256_permute2f128_ps(u[c], u[4 + c], 0x20);
    r[4 + c].v = _mm256_permute2f128_ps(u[c], u[4 + c], 0x31);
  }
}
#else
CHIASMA_INLINE void transpose(Vec (&r)[Vec::lanes]) {
  for (int i = 0; i < Vec::lanes; ++i) {
    for (int j = 0; j < i; ++j) {
      const float held = r[i].v[j];
      r[i].v[j] = r[j].v[i];
      r[j].v[i] = held;
    }
  }
}
#endif

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
