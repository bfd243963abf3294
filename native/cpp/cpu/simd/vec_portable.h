// Vec for any processor, in the vector types of GCC and Clang, which become SSE2, NEON or what there is. Included by vec.h alone.
// fma is fused on 64-bit ARM; elsewhere it is a product and a sum, for fmaf without an instruction would take a call per lane.
#pragma once

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

template <typename T, int Lanes>
struct VectorOf {
  typedef T Type __attribute__((vector_size(Lanes * sizeof(T))));
};
using Floats = VectorOf<float, 4>::Type;
using Ints = VectorOf<int32_t, 4>::Type;
using Words = VectorOf<uint32_t, 4>::Type;
using Halves = VectorOf<uint16_t, 4>::Type;

struct Vec {
  static constexpr int lanes = 4;
  Floats v;
};
struct Mask {
  Ints m;  // all ones or zero
};

// lane(i) for each lane, for what the vector types lack.
template <typename F>
CHIASMA_INLINE Vec make(F&& lane) {
  return {Floats{lane(0), lane(1), lane(2), lane(3)}};
}

CHIASMA_INLINE Vec set(float value) { return {Floats{value, value, value, value}}; }

CHIASMA_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
CHIASMA_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
CHIASMA_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
CHIASMA_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
#if defined(__aarch64__)
CHIASMA_INLINE Vec fma(Vec a, Vec b, Vec c) { return {(Floats)vfmaq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v)}; }
CHIASMA_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {(Floats)vfmsq_f32((float32x4_t)c.v, (float32x4_t)a.v, (float32x4_t)b.v)}; }
#else
CHIASMA_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }   // a·b + c
CHIASMA_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {c.v - a.v * b.v}; }  // c − a·b
#endif
CHIASMA_INLINE Vec max(Vec a, Vec b) { return {a.v > b.v ? a.v : b.v}; }
CHIASMA_INLINE Vec min(Vec a, Vec b) { return {a.v < b.v ? a.v : b.v}; }
CHIASMA_INLINE Vec sqrt(Vec a) { return make([&](int i) { return sqrtf(a.v[i]); }); }
CHIASMA_INLINE Vec abs(Vec a) { return {(Floats)((Words)a.v & 0x7fffffffu)}; }
// a with its sign turned where b's is negative.
CHIASMA_INLINE Vec flip_sign(Vec a, Vec b) { return {(Floats)((Words)a.v ^ ((Words)b.v & 0x80000000u))}; }
// To the nearest integer, ties to even, for |a| < 2²².
CHIASMA_INLINE Vec round(Vec a) { return {(a.v + 0x1.8p23f) - 0x1.8p23f}; }
CHIASMA_INLINE Vec over(Vec a, Vec b) { return a / b; }
// a·2^n for integral n in [−160, 160]: in two halves, each a normal number, so that only the second product rounds.
// n's bits are read from the sum with 1.5·2²³, whose low bits are n's: a NaN is no undefined conversion.
CHIASMA_INLINE Vec scale_by_power(Vec a, Vec n) {
  const Words biased = (Words)(n.v + 0x1.8p23f) - (bits_of(0x1.8p23f) - 254);  // n + 254, at least 94
  const Words first = biased >> 1;
  return {a.v * (Floats)(first << 23) * (Floats)((biased - first) << 23)};
}
// For exp2: takes the integer n nearest to t off it and gives 2^n, from 2^-126 up, from 2^128 on infinity. Adding 1.5·2²³ rounds to an integer, and
// 127 more makes of it the exponent's bits.
CHIASMA_INLINE Vec take_power(Vec& t) {
  t = min(set(128.0f), max(set(-126.0f), t));  // NaN passes, for it is the second operand
  const Vec exponent = t + set(0x1.8p23f + 127);
  t = t - (exponent - set(0x1.8p23f + 127));
  return {(Floats)((Words)exponent.v << 23)};
}
CHIASMA_INLINE Vec times_power(Vec a, Vec power) { return a * power; }

CHIASMA_INLINE Mask operator<(Vec a, Vec b) { return {a.v < b.v}; }
CHIASMA_INLINE Mask is_nan(Vec a) { return {a.v != a.v}; }
CHIASMA_INLINE Mask first_lanes(int n) { return {Ints{0, 1, 2, 3} < n}; }  // n in [0, lanes]
CHIASMA_INLINE Vec select(Mask mask, Vec yes, Vec no) { return {mask.m ? yes.v : no.v}; }

// Lane i with lane i + 2, then + 1.
CHIASMA_INLINE float reduce_sum(Vec a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
// Some lane's value; NaN only if a lane is NaN, but a NaN lane may be passed over.
CHIASMA_INLINE float reduce_max(Vec a) {
  const float even = a.v[0] > a.v[2] ? a.v[0] : a.v[2], odd = a.v[1] > a.v[3] ? a.v[1] : a.v[3];
  return even > odd ? even : odd;
}

CHIASMA_INLINE Vec widen(Floats values) { return {values}; }
CHIASMA_INLINE Vec widen(Halves bf16) { return {(Floats)(__builtin_convertvector(bf16, Words) << 16)}; }
CHIASMA_INLINE Vec widen(Ints values) { return {__builtin_convertvector(values, Floats)}; }
CHIASMA_INLINE Vec widen(VectorOf<int8_t, 4>::Type values) { return {__builtin_convertvector(values, Floats)}; }
CHIASMA_INLINE Vec widen(VectorOf<uint8_t, 4>::Type values) { return {__builtin_convertvector(values, Floats)}; }
CHIASMA_INLINE void narrow(Vec a, Floats& values) { values = a.v; }
CHIASMA_INLINE void narrow(Vec a, Halves& bf16) {
  const Words bits = (Words)a.v;
  const Words rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  const Words quiet = bits | 0x400000u;
  bf16 = __builtin_convertvector((is_nan(a).m ? quiet : rounded) >> 16, Halves);
}

template <typename T>
struct Element {
  using Number = T;
};
template <>
struct Element<Bf16> {
  using Number = uint16_t;
};

template <typename T>
CHIASMA_INLINE Vec load(const T* p) {
  typename VectorOf<typename Element<T>::Number, Vec::lanes>::Type values;
  memcpy(&values, p, sizeof values);
  return widen(values);
}
// The first n lanes, n in [0, lanes]; the others are zero.
template <typename T>
CHIASMA_INLINE Vec load_part(const T* p, int n) {
  T values[Vec::lanes] = {};
  for (int i = 0; i < n; ++i) values[i] = p[i];
  return load(values);
}
template <typename T>
CHIASMA_INLINE void store(T* p, Vec a) {
  typename VectorOf<typename Element<T>::Number, Vec::lanes>::Type values;
  narrow(a, values);
  memcpy(p, &values, sizeof values);
}
template <typename T>
CHIASMA_INLINE void store_part(T* p, Vec a, int n) {
  T values[Vec::lanes];
  store(values, a);
  for (int i = 0; i < n; ++i) p[i] = values[i];
}

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
