// The gelus, to 3e-7 · max(1, |result|), and to 2^-12 of max(|result|, 2^-7) for results that are rounded to bfloat16, on vectors of 512 bits: others have
// these as precise as any (test/native checks both). Those of −infinity are NaN, as in the formula. Tables are made for the epilogues of products: on Zen 4
// multiplications, comparisons and stores take turns with these, while additions and looking up one of sixteen numbers cost nothing beside them.
// Included by vec.h alone.
#pragma once

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

CHIASMA_INLINE Vec quick_gelu(Vec x) { return times_sigmoid_of(x, set(1.702f * by_ln2) * x); }

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

// gelu(x) = max(x, 0) − g(|x|), where g is a bump of one side. Range i of |x|, half wide, goes on a polynomial in the distance from its middle, fitted for
// the least greatest relative error, or a part of what is allowed; in the ranges beyond those given g is 0.
template <int degree>
struct GeluTable {
  float c[degree + 1][table_size];  // of −g
  float middle[table_size] = {0, 0.375f, 0.875f, 1.375f, 1.875f, 2.375f, 2.875f, 3.375f, 3.875f, 4.375f, 4.875f, 5.375f, 5.875f, 6.375f, 6.875f};
  float limit = 7.5f, offset = 0.125f, shift = 0x1.8p22f;  // the last bit of a sum with shift stands for a half
};
alignas(64) constexpr GeluTable<6> erf_gelu_table = {
    {{0, -0.13268633f, -0.16693859f, -0.116277866f, -0.05699318f, -0.020839378f, -0.005807895f, -0.0012456396f, -2.0658536e-4f, -2.6563375e-5f,
      -2.652214e-6f, -2.0581771e-7f, -1.242127e-8f, -5.8321825e-10f, -2.1310644e-11f},
     {-0.5f, -0.21438465f, 0.047261115f, 0.12857617f, 0.09857794f, 0.04768379f, 0.01637445f, 0.004157194f, 7.950478e-4f, 1.1570269e-4f,
      1.2891323e-5f, 1.1040063e-6f, 7.2868886e-8f, 3.7140773e-9f, 1.4639304e-10f},
     {0.3989423f, 0.34570938f, 0.16790898f, 0.008477364f, -0.05212696f, -0.043272298f, -0.020044183f, -0.0062970025f, -0.0014247632f,
      -2.3853987e-4f, -2.9989826e-5f, -2.8567654e-6f, -2.0740869e-7f, -1.1524317e-8f, -4.915102e-10f},
     {4.6661356e-8f, -0.089685634f, -0.12831563f, -0.074936256f, -0.01041672f, 0.015437477f, 0.013078629f, 0.0055758525f, 0.001557527f,
      3.0722047e-4f, 4.4233708e-5f, 4.73349e-6f, 3.8067262e-7f, 2.317794e-8f, 1.0740385e-9f},
     {-0.06649186f, -0.04704346f, 0.008761252f, 0.03654972f, 0.023639163f, 0.0036339401f, -0.0038520752f, -0.0030170141f, -0.0011345976f,
      -2.744262e-4f, -4.6323672e-5f, -5.6598683e-6f, -5.1069054e-7f, -3.4458182e-8f, -1.7533877e-9f},
     {2.0066089e-5f, 0.01882784f, 0.019934177f, 0.0014968669f, -0.008779916f, -0.0057436526f, -7.4660376e-4f, 8.291266e-4f, 5.539639e-4f,
      1.788906e-4f, 3.6941135e-5f, 5.2911387e-6f, 5.4545734e-7f, 4.1313758e-8f, 2.3289712e-9f},
     {0.009867243f, 0.0058533275f, -0.004485208f, -0.0059149396f, -6.2984595e-4f, 0.0019473028f, 0.0010767394f, 5.7550853e-5f, -1.5664e-4f,
      -7.860652e-5f, -2.036024e-5f, -3.3982485e-6f, -3.930006e-7f, -3.2606383e-8f, -1.980212e-9f}}};
alignas(64) constexpr GeluTable<6> tanh_gelu_table = {
    {{0, -0.13269223f, -0.16704732f, -0.11651145f, -0.057000965f, -0.020455407f, -0.005357268f, -9.950284e-4f, -1.2578818e-4f, -1.0325934e-5f,
      -5.237667e-7f, -1.5601529e-8f, -2.591966e-10f, -2.2800652e-12f, -1.0077218e-14f},
     {-0.5f, -0.21444438f, 0.046917826f, 0.12859368f, 0.09938779f, 0.04823447f, 0.01613099f, 0.0037180309f, 5.7257e-4f, 5.6426386e-5f,
      3.3929837e-6f, 1.1847417e-7f, 2.283662e-9f, 2.3077922e-11f, 1.1597181e-13f},
     {0.3989423f, 0.34549505f, 0.16776703f, 0.009317561f, -0.05172424f, -0.04405967f, -0.02061428f, -0.00618174f, -0.0011945557f, -1.4421954e-4f,
      -1.042831e-5f, -4.3109566e-7f, -9.702989e-9f, -1.13057556e-10f, -6.476685e-13f},
     {4.8855938e-8f, -0.0899611f, -0.12780093f, -0.074526615f, -0.011297265f, 0.015050923f, 0.013585276f, 0.005855133f, 0.0014912321f,
      2.2712015e-4f, 2.013033e-5f, 9.987895e-7f, 2.656433e-8f, 3.6201273e-10f, 2.4162662e-12f},
     {-0.066821024f, -0.046967592f, 0.009219138f, 0.035932697f, 0.023334302f, 0.0042401287f, -0.0037135272f, -0.003256376f, -0.0012092632f,
      -2.442597e-4f, -2.7429642e-5f, -1.6799302e-6f, -5.4331533e-8f, -8.931741e-10f, -7.1582965e-12f},
     {2.1009544e-5f, 0.01916724f, 0.019717218f, 0.0011749245f, -0.008309924f, -0.0056769783f, -0.0010224064f, 8.26103e-4f, 6.3097203e-4f,
      1.8781431e-4f, 2.8210146e-5f, 2.1989317e-6f, 8.7455895e-8f, 1.716457e-9f, 1.5947497e-11f},
     {0.010090246f, 0.0058823572f, -0.0047611003f, -0.00565696f, -5.4732757e-4f, 0.001710947f, 0.0011168971f, 1.347647e-4f, -1.7558968e-4f,
      -9.261313e-5f, -1.8729937e-5f, -1.7810847e-6f, -8.161918e-8f, -1.7726097e-9f, -1.7660949e-11f}}};
alignas(64) constexpr GeluTable<3> brief_erf_gelu_table = {
    {{0, -1.3266349e-1f, -1.6694243e-1f, -1.1629513e-1f, -5.7004046e-2f, -2.0841114e-2f, -5.806237e-3f, -1.244171e-3f, -2.0602622e-4f, -2.6426624e-5f, -2.6288699e-6f},
     {-5.000043e-1f, -2.145632e-1f, 4.7220074e-2f, 1.2851518e-1f, 9.853627e-2f, 4.7682818e-2f, 1.637888e-2f, 4.155576e-3f, 7.939654e-4f, 1.15352734e-4f, 1.2818954e-5f},
     {3.9953792e-1f, 3.4278893e-1f, 1.6843121e-1f, 1.0728713e-2f, -5.0672576e-2f, -4.3041646e-2f, -2.0274263e-2f, -6.4852815e-3f, -1.4962225e-3f, -2.5597156e-4f,
      -3.2957978e-5f},
     {-1.2539643e-2f, -8.493563e-2f, -1.2639573e-1f, -7.356019e-2f, -9.982109e-3f, 1.5159916e-2f, 1.2936558e-2f, 5.6535457e-3f, 1.6094683e-3f, 3.2400285e-4f,
      4.7701455e-5f}}};
alignas(64) constexpr GeluTable<3> brief_tanh_gelu_table = {
    {{0, -1.3266943e-1f, -1.670514e-1f, -1.1652843e-1f, -5.7011683e-2f, -2.0457387e-2f, -5.355638e-3f, -9.934463e-4f, -1.2519216e-4f, -1.0203457e-5f, -5.097103e-7f},
     {-5.000043e-1f, -2.1462347e-1f, 4.6876922e-2f, 1.2853436e-1f, 9.934541e-2f, 4.8231047e-2f, 1.6135154e-2f, 3.7164195e-3f, 5.713374e-4f, 5.605869e-5f, 3.3375436e-6f},
     {3.9954084e-1f, 3.4258e-1f, 1.6831756e-1f, 1.1531835e-2f, -5.028875e-2f, -4.3793377e-2f, -2.0836474e-2f, -6.384681e-3f, -1.270741e-3f, -1.598146e-4f, -1.2209608e-5f},
     {-1.2600988e-2f, -8.518216e-2f, -1.2589626e-1f, -7.3203005e-2f, -1.0823097e-2f, 1.4829487e-2f, 1.3433815e-2f, 5.932528e-3f, 1.550388e-3f, 2.4474558e-4f,
      2.2782153e-5f}}};

template <int degree>
CHIASMA_INLINE Halfway begin_gelu(Vec x, const GeluTable<degree>& table) {
  return {x, min(set(table.limit), abs(x)) + set(table.offset) + set(table.shift)};  // NaN passes
}
template <int degree>
CHIASMA_INLINE Vec end_gelu(Halfway half, const GeluTable<degree>& table) {
  const auto [x, index] = half;
  const Vec u = min(set(table.limit), abs(x)) - look_up(table.middle, index);
  Vec q = look_up(table.c[degree], index);
#pragma GCC unroll 8
  for (int i = degree - 1; i > 0; --i) q = fma(q, u, look_up(table.c[i], index));
  // Lets NaN pass, and makes it of −infinity, as the formula does. Its zeros are positive.
  const Vec positive = min(max(zero(), x), x + abs(x));
  return fma(q, u, positive + look_up(table.c[0], index));
}
template <int degree>
CHIASMA_INLINE Vec gelu_by(const GeluTable<degree>& table, Vec x) {
  return end_gelu(begin_gelu(x, table), table);
}
CHIASMA_INLINE Vec gelu(Vec x) { return gelu_by(erf_gelu_table, x); }
CHIASMA_INLINE Vec gelu_tanh(Vec x) { return gelu_by(tanh_gelu_table, x); }
CHIASMA_INLINE Vec brief_gelu(Vec x) { return gelu_by(brief_erf_gelu_table, x); }
CHIASMA_INLINE Vec brief_gelu_tanh(Vec x) { return gelu_by(brief_tanh_gelu_table, x); }

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
// x · (1 + tanh(u)) / 2 with u = √(2/π) · (x + 0.044715 x³), for (1 + tanh(u)) / 2 = sigmoid(2u).
CHIASMA_INLINE Vec gelu_tanh(Vec x) { return times_sigmoid_of(x, x * fma(set(0.0713548163f * by_ln2), x * x, set(1.59576912f * by_ln2))); }
// x · Φ(x), where Φ, the normal distribution, is sigmoid(x · W(x²)); W is fitted on |x| <= 6 and grows beyond, where Φ is 0 or 1 enough.
CHIASMA_INLINE Vec gelu(Vec x) {
  const Vec z = x * x;
  Vec w = fma(set(-5.20990563e-9f), z, set(3.85044853e-7f));
  w = fma(w, z, set(-1.14524276e-5f));
  w = fma(w, z, set(1.59389394e-4f));
  w = fma(w, z, set(9.55929932e-5f));
  w = fma(w, z, set(-0.104838581f));
  w = fma(w, z, set(-2.3022072f));
  return times_sigmoid_of(x, x * w);
}
CHIASMA_INLINE Vec brief_gelu(Vec x) { return gelu(x); }
CHIASMA_INLINE Vec brief_gelu_tanh(Vec x) { return gelu_tanh(x); }
CHIASMA_INLINE Vec brief_quick_gelu(Vec x) { return quick_gelu(x); }
#endif

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
