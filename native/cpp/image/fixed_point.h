// The inner loops of resampling: exact sums of 8-bit pixels times 22-bit fixed-point weights. On x86-64 by 16-bit multiply-add instructions
// (AVX2 where the processor has it, else SSE2), elsewhere in plain C++; all give the same bits, the sums being integers modulo 2^32.
#pragma once

#include <cstdint>

#include "image/filter_axis.h"

namespace chiasma::image {

constexpr int row_group = 4;

// `count` output pixels of `channels` (1 or 3) for four rows at once, rounded to 8 bits. The rows begin at source position `first_column` and
// have row_bytes bytes.
void filter_columns(const uint8_t* const rows[row_group], int channels, int64_t first_column, int64_t row_bytes, const Taps* taps, int64_t count,
                    uint8_t* const out[row_group]);

// sums[i] += the sum over taps t of rows[t][i] * weight t, for i in [0, size); rows[0] is the row of the first tap.
void accumulate_rows(const uint8_t* const* rows, const Taps& taps, int64_t size, int32_t* sums);

// Rounds sums to 8 bits, clamped.
void finish_row(const int32_t* sums, int64_t size, uint8_t* out);

// 0: plain C++, 1: SSE2, 2: AVX2. Caps what is used from now on (tests); returns what is.
int limit_vectors(int level);

}  // namespace chiasma::image
