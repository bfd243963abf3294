// The step of an online softmax between two blocks of a row's scores (Milakov and Gimelshein, arXiv:1805.02867).
#pragma once

#include "cpu/simd/vec.h"

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

// Raises `most`, the greatest score so far, to `block_most` if that is greater. Gives what is subtracted from scores, and in `faded` what sums so far are
// multiplied by. weight(x) is e^x. A NaN score may be passed over here: its weight is NaN whatever is subtracted. Where all scores so far are
// −infinity the weights are zeros, and so is their sum: the row ends as 0 / 0, unless a later block has more.
template <typename Weight>
CHIASMA_INLINE Vec raise_most(float& most, float block_most, float& faded, const Weight& weight) {
  const float before = most;
  if (block_most > most) most = block_most;
  const Vec shift = set(most == -INFINITY ? 0.0f : most);
  faded = 1.0f;
  if (most != before && before != -INFINITY) store_part(&faded, weight(set(before) - shift), 1);
  return shift;
}

}  // namespace
}  // namespace chiasma::cpu::CHIASMA_ISA
