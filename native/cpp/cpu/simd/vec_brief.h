// The gelus for results that are rounded to bfloat16: with vectors of 512 bits to 2^-12 of max(|result|, 2^-7), else those of vec_math.h. Made for the
// epilogues of products: on Zen 4 multiplications, comparisons and stores take turns with these, while additions and looking up one of sixteen numbers
// cost nothing beside them. Included by vec.h alone.
#pragma once

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

#if defined(CHIASMA_VEC_512)
constexpr int table_size = 16;

// Of each lane, the entry that the lowest four bits of `index` name.
CHIASMA_INLINE Vec look_up(const float (&table)[table_size], Vec index) {
  return {_mm512_permutexvar_ps(_mm512_castps_si512(index.v), _mm512_load_ps(table))};
}

// What is known when half of a gelu is done. Its halves stand apart among products: the processor looks only so far ahead of what is not done, and would
// run out of products while it waits for a whole one.
struct Halfway {
  Vec x, more;
};

// gelu(x) = max(x, 0) − g(|x|), where g is a bump of one side. Range i of |x|, half wide, goes on a cubic in the distance from its middle, fitted for the
// least greatest error as a part of what is allowed; from 5.125 on g is 0.
struct GeluTable {
  float middle[table_size], c0[table_size], c1[table_size], c2[table_size], c3[table_size];  // of −g
  float limit = 7.5f, offset = 0.125f, shift = 0x1.8p22f;  // the last bit of a sum with shift stands for a half
};
alignas(64) constexpr GeluTable erf_gelu_table = {
    {0, 0.375f, 0.875f, 1.375f, 1.875f, 2.375f, 2.875f, 3.375f, 3.875f, 4.375f, 4.875f},
    {0, -1.3266349e-1f, -1.6694243e-1f, -1.1629513e-1f, -5.7004046e-2f, -2.0841114e-2f, -5.806237e-3f, -1.244171e-3f, -2.0602622e-4f, -2.6426624e-5f, -2.6288699e-6f},
    {-5.000043e-1f, -2.145632e-1f, 4.7220074e-2f, 1.2851518e-1f, 9.853627e-2f, 4.7682818e-2f, 1.637888e-2f, 4.155576e-3f, 7.939654e-4f, 1.15352734e-4f, 1.2818954e-5f},
    {3.9953792e-1f, 3.4278893e-1f, 1.6843121e-1f, 1.0728713e-2f, -5.0672576e-2f, -4.3041646e-2f, -2.0274263e-2f, -6.4852815e-3f, -1.4962225e-3f, -2.5597156e-4f,
     -3.2957978e-5f},
    {-1.2539643e-2f, -8.493563e-2f, -1.2639573e-1f, -7.356019e-2f, -9.982109e-3f, 1.5159916e-2f, 1.2936558e-2f, 5.6535457e-3f, 1.6094683e-3f, 3.2400285e-4f,
     4.7701455e-5f},
};
alignas(64) constexpr GeluTable tanh_gelu_table = {
    {0, 0.375f, 0.875f, 1.375f, 1.875f, 2.375f, 2.875f, 3.375f, 3.875f, 4.375f, 4.875f},
    {0, -1.3266943e-1f, -1.670514e-1f, -1.1652843e-1f, -5.7011683e-2f, -2.0457387e-2f, -5.355638e-3f, -9.934463e-4f, -1.2519216e-4f, -1.0203457e-5f, -5.097103e-7f},
    {-5.000043e-1f, -2.1462347e-1f, 4.6876922e-2f, 1.2853436e-1f, 9.934541e-2f, 4.8231047e-2f, 1.6135154e-2f, 3.7164195e-3f, 5.713374e-4f, 5.605869e-5f, 3.3375436e-6f},
    {3.9954084e-1f, 3.4258e-1f, 1.6831756e-1f, 1.1531835e-2f, -5.028875e-2f, -4.3793377e-2f, -2.0836474e-2f, -6.384681e-3f, -1.270741e-3f, -1.598146e-4f, -1.2209608e-5f},
    {-1.2600988e-2f, -8.518216e-2f, -1.2589626e-1f, -7.3203005e-2f, -1.0823097e-2f, 1.4829487e-2f, 1.3433815e-2f, 5.932528e-3f, 1.550388e-3f, 2.4474558e-4f,
     2.2782153e-5f},
};
CHIASMA_INLINE Halfway begin_gelu(Vec x, const GeluTable& table) {
  return {x, min(set(table.limit), abs(x)) + set(table.offset) + set(table.shift)};  // NaN passes
}
CHIASMA_INLINE Vec end_gelu(Halfway half, const GeluTable& table) {
  const auto [x, index] = half;
  const Vec u = min(set(table.limit), abs(x)) - look_up(table.middle, index);
  Vec q = fma(look_up(table.c3, index), u, look_up(table.c2, index));
  q = fma(q, u, look_up(table.c1, index));
  // Lets NaN pass, and makes it of −infinity, as the formula does. Its zeros are positive.
  const Vec positive = min(max(zero(), x), x + abs(x));
  return fma(q, u, positive + look_up(table.c0, index));
}
CHIASMA_INLINE Vec brief_gelu(Vec x) { return end_gelu(begin_gelu(x, erf_gelu_table), erf_gelu_table); }
CHIASMA_INLINE Vec brief_gelu_tanh(Vec x) { return end_gelu(begin_gelu(x, tanh_gelu_table), tanh_gelu_table); }

// x · sigmoid(1.702 x), which has no end from which on it is 0 or x: 2^t by a cubic in t − ⌊t⌋.
CHIASMA_INLINE Vec brief_quick_gelu(Vec x) {
  const Vec t = set(1.702f * by_ln2) * x;
  const Vec part = {_mm512_reduce_ps(t.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};
  Vec q = fma(set(0.0780246109f), part, set(0.22606729f));
  q = fma(q, part, set(0.695833325f));
  q = fma(q, part, set(0.999925256f));
  return x * Vec{_mm512_rcp14_ps((set(1.0f) + scale_by_power(q, t)).v)};  // scales by 2^⌊t⌋
}
#else
CHIASMA_INLINE Vec brief_gelu(Vec x) { return gelu(x); }
CHIASMA_INLINE Vec brief_gelu_tanh(Vec x) { return gelu_tanh(x); }
CHIASMA_INLINE Vec brief_quick_gelu(Vec x) { return quick_gelu(x); }
#endif

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
