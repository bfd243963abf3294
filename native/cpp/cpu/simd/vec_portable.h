// Vec for any processor: the vector types of GCC and Clang, which become what vectors the processor has; for other compilers a struct with
// the same operators. Both compute the same. Included by vec.h alone.
#pragma once

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

#if defined(__GNUC__)
typedef float Lanes __attribute__((vector_size(16)));
typedef int32_t LaneBits __attribute__((vector_size(16)));

CHIASMA_INLINE Lanes choose(LaneBits mask, Lanes yes, Lanes no) { return mask ? yes : no; }
#else
template <typename T>
struct LanesOf {
  T lane[4];
  T& operator[](int i) { return lane[i]; }
  T operator[](int i) const { return lane[i]; }
};
using Lanes = LanesOf<float>;
using LaneBits = LanesOf<int32_t>;  // comparisons give 0 or −1

#define CHIASMA_EACH(expression) {{(expression)(0), (expression)(1), (expression)(2), (expression)(3)}}
#define CHIASMA_LANE_OPERATOR(Result, Operand, op) \
  CHIASMA_INLINE Result operator op(Operand a, Operand b) { return CHIASMA_EACH([&](int i) { return a[i] op b[i]; }); }
#define CHIASMA_LANE_COMPARISON(Operand, op) \
  CHIASMA_INLINE LaneBits operator op(Operand a, Operand b) { return CHIASMA_EACH([&](int i) { return -static_cast<int32_t>(a[i] op b[i]); }); }
CHIASMA_LANE_OPERATOR(Lanes, Lanes, +)
CHIASMA_LANE_OPERATOR(Lanes, Lanes, -)
CHIASMA_LANE_OPERATOR(Lanes, Lanes, *)
CHIASMA_LANE_OPERATOR(Lanes, Lanes, /)
CHIASMA_LANE_OPERATOR(LaneBits, LaneBits, +)
CHIASMA_LANE_OPERATOR(LaneBits, LaneBits, -)
CHIASMA_LANE_OPERATOR(LaneBits, LaneBits, &)
CHIASMA_LANE_OPERATOR(LaneBits, LaneBits, ^)
CHIASMA_LANE_COMPARISON(Lanes, <)
CHIASMA_LANE_COMPARISON(Lanes, >)
CHIASMA_LANE_COMPARISON(Lanes, !=)
CHIASMA_LANE_COMPARISON(LaneBits, <)
CHIASMA_INLINE LaneBits operator<<(LaneBits a, int n) { return CHIASMA_EACH([&](int i) { return a[i] << n; }); }
CHIASMA_INLINE LaneBits operator>>(LaneBits a, int n) { return CHIASMA_EACH([&](int i) { return a[i] >> n; }); }
CHIASMA_INLINE Lanes choose(LaneBits mask, Lanes yes, Lanes no) { return CHIASMA_EACH([&](int i) { return mask[i] ? yes[i] : no[i]; }); }
#undef CHIASMA_LANE_COMPARISON
#undef CHIASMA_LANE_OPERATOR
#undef CHIASMA_EACH
#endif

struct Vec {
  static constexpr int lanes = 4;
  Lanes v;
};
struct Mask {
  LaneBits m;
};

CHIASMA_INLINE LaneBits lane_bits(Lanes value) {
  LaneBits bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
CHIASMA_INLINE Lanes lane_floats(LaneBits bits) {
  Lanes value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
CHIASMA_INLINE LaneBits all_bits(int32_t bits) { return LaneBits{bits, bits, bits, bits}; }
template <typename F>
CHIASMA_INLINE Vec make(F&& lane) {
  return {Lanes{lane(0), lane(1), lane(2), lane(3)}};
}

CHIASMA_INLINE Vec set(float value) { return {Lanes{value, value, value, value}}; }

CHIASMA_INLINE Vec operator+(Vec a, Vec b) { return {a.v + b.v}; }
CHIASMA_INLINE Vec operator-(Vec a, Vec b) { return {a.v - b.v}; }
CHIASMA_INLINE Vec operator*(Vec a, Vec b) { return {a.v * b.v}; }
CHIASMA_INLINE Vec operator/(Vec a, Vec b) { return {a.v / b.v}; }
#if defined(__FP_FAST_FMAF)
CHIASMA_INLINE Vec fma(Vec a, Vec b, Vec c) { return make([&](int i) { return fmaf(a.v[i], b.v[i], c.v[i]); }); }
CHIASMA_INLINE Vec fnma(Vec a, Vec b, Vec c) { return make([&](int i) { return fmaf(-a.v[i], b.v[i], c.v[i]); }); }
#else
CHIASMA_INLINE Vec fma(Vec a, Vec b, Vec c) { return {a.v * b.v + c.v}; }   // a·b + c
CHIASMA_INLINE Vec fnma(Vec a, Vec b, Vec c) { return {c.v - a.v * b.v}; }  // c − a·b
#endif
CHIASMA_INLINE Vec max(Vec a, Vec b) { return {choose(a.v > b.v, a.v, b.v)}; }
CHIASMA_INLINE Vec min(Vec a, Vec b) { return {choose(a.v < b.v, a.v, b.v)}; }
CHIASMA_INLINE Vec sqrt(Vec a) { return make([&](int i) { return sqrtf(a.v[i]); }); }
CHIASMA_INLINE Vec abs(Vec a) { return {lane_floats(lane_bits(a.v) & all_bits(INT32_MAX))}; }
// a with its sign turned where b's is negative.
CHIASMA_INLINE Vec flip_sign(Vec a, Vec b) { return {lane_floats(lane_bits(a.v) ^ (lane_bits(b.v) & all_bits(INT32_MIN)))}; }
// To the nearest integer, ties to even, for |a| < 2²².
CHIASMA_INLINE Vec round(Vec a) { return a + set(0x1.8p23f) - set(0x1.8p23f); }
// a·2^n for integral n in [−160, 160]: in two halves, each a normal number, so that only the second product rounds.
// n's bits are read from the sum with 1.5·2²³, whose low bits are n's: a NaN is no undefined conversion.
CHIASMA_INLINE Vec scale_by_power(Vec a, Vec n) {
  const LaneBits power = (lane_bits((n + set(0x1.8p23f)).v) + all_bits(254)) & all_bits(0x1ff);  // n + 254, at least 94
  const LaneBits first = power >> 1;
  return {a.v * lane_floats(first << 23) * lane_floats((power - first) << 23)};
}

CHIASMA_INLINE Mask operator<(Vec a, Vec b) { return {a.v < b.v}; }
CHIASMA_INLINE Mask is_nan(Vec a) { return {a.v != a.v}; }
CHIASMA_INLINE Mask first_lanes(int n) { return {LaneBits{0, 1, 2, 3} < all_bits(n)}; }  // n in [0, lanes]
CHIASMA_INLINE Vec select(Mask mask, Vec yes, Vec no) { return {choose(mask.m, yes.v, no.v)}; }

// Lane i with lane i + 2, then + 1.
CHIASMA_INLINE float reduce_sum(Vec a) { return (a.v[0] + a.v[2]) + (a.v[1] + a.v[3]); }
// Some lane's value; NaN only if a lane is NaN, but a NaN lane may be passed over.
CHIASMA_INLINE float reduce_max(Vec a) {
  float r = a.v[0];
  for (int i = 1; i < Vec::lanes; ++i) r = a.v[i] > r ? a.v[i] : r;
  return r;
}

CHIASMA_INLINE float to_float(int8_t value) { return static_cast<float>(value); }
CHIASMA_INLINE float to_float(uint8_t value) { return static_cast<float>(value); }
CHIASMA_INLINE float to_float(int32_t value) { return static_cast<float>(value); }

CHIASMA_INLINE Vec load(const float* p) {
  Vec r;
  memcpy(&r.v, p, sizeof r.v);
  return r;
}
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
CHIASMA_INLINE void store(float* p, Vec a) { memcpy(p, &a.v, sizeof a.v); }
CHIASMA_INLINE void store(Bf16* p, Vec a) {
  for (int i = 0; i < Vec::lanes; ++i) store_lane(p + i, a.v[i]);
}
template <typename T>
CHIASMA_INLINE void store_part(T* p, Vec a, int n) {
  for (int i = 0; i < n; ++i) store_lane(p + i, a.v[i]);
}

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
