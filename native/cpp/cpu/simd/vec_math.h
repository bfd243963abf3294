// exp, tanh and the activations on Vec. Included by vec.h alone. Polynomials and rational functions are fitted for the least greatest error
// over the range reduced to. Errors (test/native checks them): exp 1 ulp, with gradual underflow; tanh 4e-7 relative;
// sigmoid, silu and the gelus 3e-7 · max(1, |result|). Infinity and NaN as in the formula: the gelus and silu of −infinity are NaN.
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

CHIASMA_INLINE Vec sigmoid(Vec x) { return set(1.0f) / (set(1.0f) + exp(-x)); }
CHIASMA_INLINE Vec silu(Vec x) { return x * sigmoid(x); }
CHIASMA_INLINE Vec quick_gelu(Vec x) { return x * sigmoid(set(1.702f) * x); }
// x · (1 + tanh(u)) / 2 with u = √(2/π) · (x + 0.044715 x³), for (1 + tanh(u)) / 2 = sigmoid(2u).
CHIASMA_INLINE Vec gelu_tanh(Vec x) { return x * sigmoid(x * fma(set(0.0713548163f), x * x, set(1.59576912f))); }
// x · Φ(x), where Φ, the normal distribution, is sigmoid(x · W(x²)); W is fitted on |x| <= 6 and grows beyond, where Φ is 0 or 1 enough.
CHIASMA_INLINE Vec gelu(Vec x) {
  const Vec z = x * x;
  Vec w = fma(set(3.6112314e-9f), z, set(-2.66892754e-7f));
  w = fma(w, z, set(7.93821787e-6f));
  w = fma(w, z, set(-1.10480309e-4f));
  w = fma(w, z, set(-6.62600137e-5f));
  w = fma(w, z, set(7.26685671e-2f));
  w = fma(w, z, set(1.59576843f));
  return x * sigmoid(x * w);
}
// NaN stays NaN.
CHIASMA_INLINE Vec relu(Vec x) { return max(zero(), x); }

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
