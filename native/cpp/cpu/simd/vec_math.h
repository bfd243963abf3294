// exp, tanh, erf and the activations on Vec. Included by vec.h alone. Polynomials and rational functions fitted for the least greatest
// relative error over the range reduced to; beside infinity and NaN, errors are (checked by test/native): exp 2 ulp with gradual underflow,
// tanh and erf 3e-7 relative, sigmoid 4e-7 relative, the gelus, silu 4e-7 · max(1, |result|).
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

// x · P(x²) / Q(x²) on [−4, 4], beyond which erf rounds to ±1.
CHIASMA_INLINE Vec erf(Vec x) {
  const Vec z = x * x;
  Vec p = fma(set(1.98677325e-6f), z, set(2.84566314e-4f));
  p = fma(p, z, set(3.88337478e-3f));
  p = fma(p, z, set(5.31018401e-2f));
  p = fma(p, z, set(1.93545829e-1f));
  p = fma(p, z, set(1.12837914f));
  Vec q = fma(set(3.7420101e-5f), z, set(1.18557807e-3f));
  q = fma(q, z, set(1.5207313e-2f));
  q = fma(q, z, set(1.15350311e-1f));
  q = fma(q, z, set(5.0485808e-1f));
  q = fma(q, z, set(1.0f));
  return select(set(4.0f) < abs(x), flip_sign(set(1.0f), x), x * p / q);
}

CHIASMA_INLINE Vec sigmoid(Vec x) { return set(1.0f) / (set(1.0f) + exp(-x)); }
CHIASMA_INLINE Vec silu(Vec x) { return x * sigmoid(x); }
CHIASMA_INLINE Vec quick_gelu(Vec x) { return x * sigmoid(set(1.702f) * x); }
// x · Φ(x).
CHIASMA_INLINE Vec gelu(Vec x) { return set(0.5f) * x * (set(1.0f) + erf(x * set(0.707106781f))); }
CHIASMA_INLINE Vec gelu_tanh(Vec x) {
  const Vec inner = set(0.797884561f) * fma(set(0.044715f) * x * x, x, x);
  return set(0.5f) * x * (set(1.0f) + tanh(inner));
}
// NaN stays NaN.
CHIASMA_INLINE Vec relu(Vec x) { return max(zero(), x); }

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
