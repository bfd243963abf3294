// Vec in plain C++ for any processor: short fixed loops that compilers turn into what vectors they have. Included by vec.h alone.
#pragma once

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

struct Vec {
  static constexpr int lanes = 8;
  float v[lanes];
};
struct Mask {
  bool m[Vec::lanes];
};

template <typename F>
CHIASMA_INLINE Vec make(F&& lane) {
  Vec r;
  for (int i = 0; i < Vec::lanes; ++i) r.v[i] = lane(i);
  return r;
}
template <typename F>
CHIASMA_INLINE Mask make_mask(F&& lane) {
  Mask r;
  for (int i = 0; i < Vec::lanes; ++i) r.m[i] = lane(i);
  return r;
}

CHIASMA_INLINE Vec set(float value) { return make([&](int) { return value; }); }

CHIASMA_INLINE Vec operator+(Vec a, Vec b) { return make([&](int i) { return a.v[i] + b.v[i]; }); }
CHIASMA_INLINE Vec operator-(Vec a, Vec b) { return make([&](int i) { return a.v[i] - b.v[i]; }); }
CHIASMA_INLINE Vec operator*(Vec a, Vec b) { return make([&](int i) { return a.v[i] * b.v[i]; }); }
CHIASMA_INLINE Vec operator/(Vec a, Vec b) { return make([&](int i) { return a.v[i] / b.v[i]; }); }
#if defined(__FP_FAST_FMAF)
CHIASMA_INLINE Vec fma(Vec a, Vec b, Vec c) { return make([&](int i) { return fmaf(a.v[i], b.v[i], c.v[i]); }); }
CHIASMA_INLINE Vec fnma(Vec a, Vec b, Vec c) { return make([&](int i) { return fmaf(-a.v[i], b.v[i], c.v[i]); }); }
#else
CHIASMA_INLINE Vec fma(Vec a, Vec b, Vec c) { return make([&](int i) { return a.v[i] * b.v[i] + c.v[i]; }); }   // a·b + c
CHIASMA_INLINE Vec fnma(Vec a, Vec b, Vec c) { return make([&](int i) { return c.v[i] - a.v[i] * b.v[i]; }); }  // c − a·b
#endif
CHIASMA_INLINE Vec max(Vec a, Vec b) { return make([&](int i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; }); }
CHIASMA_INLINE Vec min(Vec a, Vec b) { return make([&](int i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; }); }
CHIASMA_INLINE Vec sqrt(Vec a) { return make([&](int i) { return sqrtf(a.v[i]); }); }
CHIASMA_INLINE Vec abs(Vec a) { return make([&](int i) { return float_of(bits_of(a.v[i]) & 0x7fffffffu); }); }
// a with its sign turned where b's is negative.
CHIASMA_INLINE Vec flip_sign(Vec a, Vec b) { return make([&](int i) { return float_of(bits_of(a.v[i]) ^ (bits_of(b.v[i]) & 0x80000000u)); }); }
// To the nearest integer, ties to even, for |a| < 2²².
CHIASMA_INLINE Vec round(Vec a) { return make([&](int i) { return (a.v[i] + 0x1.8p23f) - 0x1.8p23f; }); }
// a·2^n for integral n in [−160, 160]: in two halves, each a normal number, so that only the second product rounds.
// n's bits are read from the sum with 1.5·2²³, whose low bits are n's: a NaN is no undefined conversion.
CHIASMA_INLINE Vec scale_by_power(Vec a, Vec n) {
  return make([&](int i) {
    const uint32_t biased = bits_of(n.v[i] + 0x1.8p23f) - bits_of(0x1.8p23f) + 254;  // n + 254, at least 94
    const uint32_t first = biased >> 1;
    return a.v[i] * float_of(first << 23) * float_of((biased - first) << 23);
  });
}

CHIASMA_INLINE Mask operator<(Vec a, Vec b) { return make_mask([&](int i) { return a.v[i] < b.v[i]; }); }
CHIASMA_INLINE Mask is_nan(Vec a) { return make_mask([&](int i) { return a.v[i] != a.v[i]; }); }
CHIASMA_INLINE Mask first_lanes(int n) { return make_mask([&](int i) { return i < n; }); }  // n in [0, lanes]
CHIASMA_INLINE Vec select(Mask mask, Vec yes, Vec no) { return make([&](int i) { return mask.m[i] ? yes.v[i] : no.v[i]; }); }

// Lane i with lane i + 4, then + 2, + 1.
CHIASMA_INLINE float reduce_sum(Vec a) {
  return ((a.v[0] + a.v[4]) + (a.v[2] + a.v[6])) + ((a.v[1] + a.v[5]) + (a.v[3] + a.v[7]));
}
// Some lane's value; NaN only if a lane is NaN, but a NaN lane may be passed over.
CHIASMA_INLINE float reduce_max(Vec a) {
  float r = a.v[0];
  for (int i = 1; i < Vec::lanes; ++i) r = a.v[i] > r ? a.v[i] : r;
  return r;
}

CHIASMA_INLINE float to_float(int8_t value) { return static_cast<float>(value); }
CHIASMA_INLINE float to_float(uint8_t value) { return static_cast<float>(value); }
CHIASMA_INLINE float to_float(int32_t value) { return static_cast<float>(value); }

template <typename T>
CHIASMA_INLINE Vec load(const T* p) {
  return make([&](int i) { return to_float(p[i]); });
}
// The first n lanes, n in [0, lanes]; the others are zero.
template <typename T>
CHIASMA_INLINE Vec load_part(const T* p, int n) {
  return make([&](int i) { return i < n ? to_float(p[i]) : 0.0f; });
}

CHIASMA_INLINE void store_lane(float* p, float value) { *p = value; }
CHIASMA_INLINE void store_lane(Bf16* p, float value) { *p = to_bf16(value); }
template <typename T>
CHIASMA_INLINE void store(T* p, Vec a) {
  for (int i = 0; i < Vec::lanes; ++i) store_lane(p + i, a.v[i]);
}
template <typename T>
CHIASMA_INLINE void store_part(T* p, Vec a, int n) {
  for (int i = 0; i < n; ++i) store_lane(p + i, a.v[i]);
}

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
