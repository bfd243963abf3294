#include "image/fixed_point.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "cpu/processor.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define CHIASMA_IMAGE_X86 1
#define CHIASMA_AVX2 __attribute__((target("avx2")))
#endif

namespace chiasma::image {
namespace {

constexpr uint32_t half = 1u << (precision_bits - 1);

// Unsigned, so that an overflow wraps as the vector code does.
uint32_t product(uint8_t pixel, const Taps& taps, int64_t i) {
  const int32_t weight = (int32_t{taps.high[i]} * (1 << low_bits)) + taps.low[i];
  return static_cast<uint32_t>(int32_t{pixel}) * static_cast<uint32_t>(weight);
}

uint8_t round_to_8_bits(uint32_t sum) {
  return static_cast<uint8_t>(std::clamp(static_cast<int32_t>(sum + half) >> precision_bits, 0, 255));
}

// Sums of as many of a window's first taps as whole vectors inside the row cover, four rows, four lanes each; returns how many taps. For RGB
// the lanes are red, green, blue and one without meaning; for grey the sum is in four parts. `readable` bytes may be read of each row.
using SumRows = int64_t (*)(const uint8_t* const rows[row_group], const Taps& taps, int64_t readable, uint32_t sums[row_group][4]);
// As accumulate_rows, for as many of the elements as whole vectors cover; returns how many.
using AccumulateRows = int64_t (*)(const uint8_t* const* rows, const Taps& taps, int64_t size, int32_t* sums);

struct VectorLoops {
  SumRows sum_grey;
  SumRows sum_rgb;
  AccumulateRows accumulate;
};

int64_t sum_nothing(const uint8_t* const*, const Taps&, int64_t, uint32_t[row_group][4]) { return 0; }
int64_t accumulate_nothing(const uint8_t* const*, const Taps&, int64_t, int32_t*) { return 0; }

#ifdef CHIASMA_IMAGE_X86

template <typename T>
T load(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// How many vectors that advance by `step` bytes and read `size` fit into the readable bytes.
int64_t vectors_within(int64_t readable, int64_t size, int64_t step) { return readable < size ? 0 : (readable - size) / step + 1; }

void store_sums(uint32_t sums[4], __m128i low, __m128i high) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(sums), _mm_add_epi32(low, _mm_slli_epi32(high, low_bits)));
}

int64_t sum_grey_sse2(const uint8_t* const rows[row_group], const Taps& taps, int64_t readable, uint32_t sums[row_group][4]) {
  const int64_t octets = std::min((taps.count + 7) / 8, vectors_within(readable, 8, 8));
  const __m128i zero = _mm_setzero_si128();
  __m128i low[row_group] = {zero, zero, zero, zero};
  __m128i high[row_group] = {zero, zero, zero, zero};
  for (int64_t i = 0; i < 8 * octets; i += 8) {
    const __m128i weight_low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(taps.low + i));
    const __m128i weight_high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(taps.high + i));
    for (int r = 0; r < row_group; ++r) {
      const __m128i pixels = _mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(rows[r] + i)), zero);
      low[r] = _mm_add_epi32(low[r], _mm_madd_epi16(pixels, weight_low));
      high[r] = _mm_add_epi32(high[r], _mm_madd_epi16(pixels, weight_high));
    }
  }
  for (int r = 0; r < row_group; ++r) store_sums(sums[r], low[r], high[r]);
  return 8 * octets;
}

int64_t sum_rgb_sse2(const uint8_t* const rows[row_group], const Taps& taps, int64_t readable, uint32_t sums[row_group][4]) {
  const int64_t pairs = std::min((taps.count + 1) / 2, vectors_within(readable, 8, 6));
  const __m128i zero = _mm_setzero_si128();
  __m128i low[row_group] = {zero, zero, zero, zero};
  __m128i high[row_group] = {zero, zero, zero, zero};
  for (int64_t p = 0; p < pairs; ++p) {
    const __m128i weight_low = _mm_set1_epi32(load<int32_t>(taps.low + 2 * p));
    const __m128i weight_high = _mm_set1_epi32(load<int32_t>(taps.high + 2 * p));
    for (int r = 0; r < row_group; ++r) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(rows[r] + 6 * p));
      const __m128i wide = _mm_unpacklo_epi8(bytes, zero);                       // r0 g0 b0 r1 g1 b1 . .
      const __m128i pixels = _mm_unpacklo_epi16(wide, _mm_srli_si128(wide, 6));  // r0 r1 g0 g1 b0 b1 . .
      low[r] = _mm_add_epi32(low[r], _mm_madd_epi16(pixels, weight_low));
      high[r] = _mm_add_epi32(high[r], _mm_madd_epi16(pixels, weight_high));
    }
  }
  for (int r = 0; r < row_group; ++r) store_sums(sums[r], low[r], high[r]);
  return 2 * pairs;
}

CHIASMA_AVX2 int64_t sum_rgb_avx2(const uint8_t* const rows[row_group], const Taps& taps, int64_t readable, uint32_t sums[row_group][4]) {
  const int64_t quads = std::min((taps.count + 3) / 4, vectors_within(readable, 16, 12));
  // Taps 0 and 1 in the lower half, 2 and 3 in the upper: r0 r1 g0 g1 b0 b1 0 0 and so on, 16 bits each.
  const __m256i spread = _mm256_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1,  //
                                          6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
  const __m256i halves = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
  const __m256i zero = _mm256_setzero_si256();
  __m256i low[row_group] = {zero, zero, zero, zero};
  __m256i high[row_group] = {zero, zero, zero, zero};
  for (int64_t q = 0; q < quads; ++q) {
    const __m128i four_low = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(taps.low + 4 * q));
    const __m128i four_high = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(taps.high + 4 * q));
    const __m256i weight_low = _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(four_low), halves);
    const __m256i weight_high = _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(four_high), halves);
    for (int r = 0; r < row_group; ++r) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + 12 * q));
      const __m256i pixels = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(bytes), spread);
      low[r] = _mm256_add_epi32(low[r], _mm256_madd_epi16(pixels, weight_low));
      high[r] = _mm256_add_epi32(high[r], _mm256_madd_epi16(pixels, weight_high));
    }
  }
  for (int r = 0; r < row_group; ++r) {
    const __m256i sum = _mm256_add_epi32(low[r], _mm256_slli_epi32(high[r], low_bits));
    const __m128i lanes = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums[r]), lanes);
  }
  return 4 * quads;
}

int64_t accumulate_sse2(const uint8_t* const* rows, const Taps& taps, int64_t size, int32_t* sums) {
  const __m128i zero = _mm_setzero_si128();
  int64_t i = 0;
  for (; i + 16 <= size; i += 16) {
    __m128i low[4] = {zero, zero, zero, zero};
    __m128i high[4] = {zero, zero, zero, zero};
    for (int64_t t = 0; t < taps.count; t += 2) {
      const bool paired = t + 1 < taps.count;  // an odd last row is paired with zeros
      const __m128i weight_low = _mm_set1_epi32(load<int32_t>(taps.low + t));
      const __m128i weight_high = _mm_set1_epi32(load<int32_t>(taps.high + t));
      const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[t] + i));
      const __m128i b = paired ? _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[t + 1] + i)) : zero;
      const __m128i first = _mm_unpacklo_epi8(a, b);  // a0 b0 a1 b1 ...
      const __m128i second = _mm_unpackhi_epi8(a, b);
      const __m128i pixels[4] = {_mm_unpacklo_epi8(first, zero), _mm_unpackhi_epi8(first, zero), _mm_unpacklo_epi8(second, zero),
                                 _mm_unpackhi_epi8(second, zero)};
      for (int v = 0; v < 4; ++v) {
        low[v] = _mm_add_epi32(low[v], _mm_madd_epi16(pixels[v], weight_low));
        high[v] = _mm_add_epi32(high[v], _mm_madd_epi16(pixels[v], weight_high));
      }
    }
    for (int v = 0; v < 4; ++v) {
      __m128i* target = reinterpret_cast<__m128i*>(sums + i + 4 * v);
      const __m128i sum = _mm_add_epi32(low[v], _mm_slli_epi32(high[v], low_bits));
      _mm_storeu_si128(target, _mm_add_epi32(_mm_loadu_si128(target), sum));
    }
  }
  return i;
}

CHIASMA_AVX2 int64_t accumulate_avx2(const uint8_t* const* rows, const Taps& taps, int64_t size, int32_t* sums) {
  const __m256i zero = _mm256_setzero_si256();
  int64_t i = 0;
  for (; i + 32 <= size; i += 32) {
    __m256i low[4] = {zero, zero, zero, zero};
    __m256i high[4] = {zero, zero, zero, zero};
    for (int64_t t = 0; t < taps.count; t += 2) {
      const bool paired = t + 1 < taps.count;
      const __m256i weight_low = _mm256_set1_epi32(load<int32_t>(taps.low + t));
      const __m256i weight_high = _mm256_set1_epi32(load<int32_t>(taps.high + t));
      const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[t] + i));
      const __m256i b = paired ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[t + 1] + i)) : zero;
      // Within each half: elements 0 to 7 and 8 to 15, of the lower half, and 16 to 23 and 24 to 31, of the upper.
      const __m256i first = _mm256_unpacklo_epi8(a, b);
      const __m256i second = _mm256_unpackhi_epi8(a, b);
      const __m256i pixels[4] = {_mm256_unpacklo_epi8(first, zero), _mm256_unpackhi_epi8(first, zero), _mm256_unpacklo_epi8(second, zero),
                                 _mm256_unpackhi_epi8(second, zero)};
      for (int v = 0; v < 4; ++v) {
        low[v] = _mm256_add_epi32(low[v], _mm256_madd_epi16(pixels[v], weight_low));
        high[v] = _mm256_add_epi32(high[v], _mm256_madd_epi16(pixels[v], weight_high));
      }
    }
    for (int v = 0; v < 4; ++v) {
      const __m256i sum = _mm256_add_epi32(low[v], _mm256_slli_epi32(high[v], low_bits));
      __m128i* lower = reinterpret_cast<__m128i*>(sums + i + 4 * v);
      __m128i* upper = reinterpret_cast<__m128i*>(sums + i + 16 + 4 * v);
      _mm_storeu_si128(lower, _mm_add_epi32(_mm_loadu_si128(lower), _mm256_castsi256_si128(sum)));
      _mm_storeu_si128(upper, _mm_add_epi32(_mm_loadu_si128(upper), _mm256_extracti128_si256(sum, 1)));
    }
  }
  return i;
}

constexpr VectorLoops loops[] = {{sum_nothing, sum_nothing, accumulate_nothing},
                                 {sum_grey_sse2, sum_rgb_sse2, accumulate_sse2},
                                 {sum_grey_sse2, sum_rgb_avx2, accumulate_avx2}};

int best_level() { return cpu::processor_runs(cpu::Isa::avx2) ? 2 : 1; }

#else

constexpr VectorLoops loops[] = {{sum_nothing, sum_nothing, accumulate_nothing}};

int best_level() { return 0; }

#endif

std::atomic<int>& level() {
  static std::atomic<int> chosen = best_level();
  return chosen;
}

const VectorLoops& vector_loops() { return loops[level().load(std::memory_order_relaxed)]; }

}  // namespace

void filter_columns(const uint8_t* const rows[row_group], int channels, int64_t first_column, int64_t row_bytes, const Taps* taps, int64_t count,
                    uint8_t* const out[row_group]) {
  const SumRows sum_rows = channels == 3 ? vector_loops().sum_rgb : vector_loops().sum_grey;
  for (int64_t x = 0; x < count; ++x) {
    const Taps& window = taps[x];
    const int64_t start = (window.first - first_column) * channels;
    const uint8_t* in[row_group];
    for (int r = 0; r < row_group; ++r) in[r] = rows[r] + start;
    uint32_t sums[row_group][4] = {};
    const int64_t done = sum_rows(in, window, row_bytes - start, sums);
    for (int r = 0; r < row_group; ++r) {
      if (channels == 1) sums[r][0] += sums[r][1] + sums[r][2] + sums[r][3];
      for (int64_t t = done; t < window.count; ++t) {
        for (int c = 0; c < channels; ++c) sums[r][c] += product(in[r][t * channels + c], window, t);
      }
      for (int c = 0; c < channels; ++c) out[r][x * channels + c] = round_to_8_bits(sums[r][c]);
    }
  }
}

void accumulate_rows(const uint8_t* const* rows, const Taps& taps, int64_t size, int32_t* sums) {
  for (int64_t i = vector_loops().accumulate(rows, taps, size, sums); i < size; ++i) {
    auto sum = static_cast<uint32_t>(sums[i]);
    for (int64_t t = 0; t < taps.count; ++t) sum += product(rows[t][i], taps, t);
    sums[i] = static_cast<int32_t>(sum);
  }
}

void finish_row(const int32_t* sums, int64_t size, uint8_t* out) {
  for (int64_t i = 0; i < size; ++i) out[i] = round_to_8_bits(static_cast<uint32_t>(sums[i]));
}

int limit_vectors(int limit) {
  level() = std::clamp(limit, 0, best_level());
  return level();
}

}  // namespace chiasma::image
