// exp, tanh and the activations on Vec but for the gelus. Included by vec.h alone. Polynomials and rational functions are fitted for the least greatest error
// over the range reduced to. Errors (test/native checks them): exp 1 ulp, with gradual underflow; tanh 4e-7 relative;
// sigmoid and silu 3e-7 · max(1, |result|). Infinity and NaN as in the formula: silu of −infinity is NaN.
#pragma once

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

// e^x = 2^n · e^r with n = round(x / ln 2), |r| <= ln 2 / 2. ln 2's high part has 9 bits, so its product with n is exact even unfused.
CHIASMA_INLINE Vec exp(Vec x) {
  // Beyond these ends the result is zero or infinity. NaN passes, for it is the second operand.
  x = min(set(89.0f), max(set(-105.0f), x));
  const Vec n = round(x * set(1.44269504f));
  Vec r = fnma(n, set(0.693359375f), x);
  r = fnma(n, set(-2.12194440e-4f), r);
  Vec q = fma(set(1.38145402e-3f), r, set(8.36874527e-3f));
  q = fma(q, r, set(4.16683908e-2f));
  q = fma(q, r, set(1.66665204e-1f));
  q = fma(q, r, set(0.499999934f));
  return scale_by_power(fma(r * r, q, r) + set(1.0f), n);
}

// x · P(x²) / Q(x²) on [−9.1, 9.1], beyond which tanh rounds to ±1.
CHIASMA_INLINE Vec tanh(Vec x) {
  const Vec z = x * x;
  Vec p = fma(set(-1.20337569e-11f), z, set(3.03557223e-8f));
  p = fma(p, z, set(2.79120283e-5f));
  p = fma(p, z, set(3.86359782e-3f));
  p = fma(p, z, set(1.36761407e-1f));
  p = fma(p, z, set(1.0f));
  Vec q = fma(set(1.28070077e-6f), z, set(3.9302916e-4f));
  q = fma(q, z, set(2.7228529e-2f));
  q = fma(q, z, set(4.70094726e-1f));
  q = fma(q, z, set(1.0f));
  return select(set(9.1f) < abs(x), flip_sign(set(1.0f), x), x * p / q);
}

// 2^t with a relative error of 2e-7, for t from -126 to 127.5: what other numbers give depends on the instruction set, but can be added to 1.
CHIASMA_INLINE Vec exp2(Vec t) {
  const Vec power = take_power(t);
  Vec q = fma(set(1.3264727e-3f), t, set(9.671513e-3f));
  q = fma(q, t, set(5.5507336e-2f));
  q = fma(q, t, set(0.24022242f));
  q = fma(q, t, set(0.693147f));
  return times_power(fma(q, t, set(1.0f)), power);
}

// sigmoid(x) and x·sigmoid(…) from t = −x / ln 2. The factor's rounding costs least where the result is near 0 or 1, so that t needs no second part.
CHIASMA_INLINE Vec sigmoid_of(Vec t) { return over(set(1.0f), set(1.0f) + exp2(t)); }
CHIASMA_INLINE Vec times_sigmoid_of(Vec x, Vec t) { return over(x, set(1.0f) + exp2(t)); }
constexpr float by_ln2 = -1.44269504f;

CHIASMA_INLINE Vec sigmoid(Vec x) { return sigmoid_of(set(by_ln2) * x); }
CHIASMA_INLINE Vec silu(Vec x) { return times_sigmoid_of(x, set(by_ln2) * x); }

// NaN stays NaN.
CHIASMA_INLINE Vec relu(Vec x) { return max(zero(), x); }

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
