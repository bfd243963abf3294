// Cosine scores (see search.h): tiles of a few queries by a few rows, each pair with a register of partial sums of its own. The corpus is
// widened to float32 as it is read; products with int8 and bfloat16 are those of the exact values.
#include "cpu/simd/search.h"

#include "cpu/simd/vec.h"

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

constexpr int lanes = Vec::lanes;
// As many sums as there are registers beside a query and the rows.
#if defined(CHIASMA_VEC_512)
constexpr int tile_queries = 4, tile_rows = 6;
#else
constexpr int tile_queries = 4, tile_rows = 3;
#endif
// Of one query, whose rows come from memory as fast as they lie in order: reading more of them side by side takes twice as long on Zen 4, and one
// row's chain of sums leaves the processor no time to widen smaller types.
template <typename T>
constexpr int stream_rows = sizeof(T) == sizeof(float) ? 1 : 2;
constexpr int norm_rows = 8;  // enough sums to cover the latency of an addition
constexpr int64_t fetch_ahead = 8 << 10;  // bytes, into the first-level cache
constexpr int64_t stream_ahead = 2 << 10;  // into the second, of floats for one query, which come as fast as memory gives them: on Zen 4 a tenth faster
constexpr int64_t line_bytes = 64;
constexpr int64_t query_bytes = 16 << 10;  // of queries that stay in the first cache while the rows pass

CHIASMA_INLINE float widen(float value) { return value; }
CHIASMA_INLINE float widen(Bf16 value) { return to_float(value); }
CHIASMA_INLINE float widen(int8_t value) { return value; }

// 1 / ‖row‖ where the sum of squares left float32's comfortable range.
template <typename T>
float inverse_norm_in_double(const T* row, int64_t d) {
  double sum = 0;
  for (int64_t i = 0; i < d; ++i) sum += static_cast<double>(widen(row[i])) * widen(row[i]);
  if (sum == 0) return 0.0f;
  return static_cast<float>(1.0 / ::sqrt(sum));
}

// 1 / ‖row‖ of R rows; 0 for a row of zeros, NaN for one that holds NaN.
template <int R, typename T>
void invert_norms(const T* rows, int64_t stride, int64_t d, float* inverse) {
  Vec sum[R];
  for (int r = 0; r < R; ++r) sum[r] = zero();
  int64_t i = 0;
  for (; i + lanes <= d; i += lanes) {
    for (int r = 0; r < R; ++r) {
      const Vec value = load(rows + r * stride + i);
      sum[r] = fma(value, value, sum[r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    if (i < d) {
      const Vec value = load_part(rows + r * stride + i, static_cast<int>(d - i));
      sum[r] = fma(value, value, sum[r]);
    }
    const float squares = reduce_sum(sum[r]);
    const bool comfortable = squares > 1e-30f && squares < 1e37f;
    inverse[r] = comfortable ? 1.0f / sqrtf(squares) : inverse_norm_in_double(rows + r * stride, d);
  }
}

CHIASMA_INLINE float factor_of(float inverse_norm) { return inverse_norm == INFINITY ? 0.0f : inverse_norm; }  // 1 / 0: a row of zeros scores 0

#if defined(CHIASMA_VEC_256)
// Three of reduce_sum at once, in the same order of additions, times `factors`.
CHIASMA_INLINE void store_sums(const Vec (&sum)[3], const float (&factors)[3], float* scores) {
  __m128 four[3];
  for (int r = 0; r < 3; ++r) four[r] = _mm_add_ps(_mm256_castps256_ps128(sum[r].v), _mm256_extractf128_ps(sum[r].v, 1));
  const __m128 first = _mm_add_ps(_mm_movelh_ps(four[0], four[1]), _mm_movehl_ps(four[1], four[0]));
  const __m128 last = _mm_add_ps(four[2], _mm_movehl_ps(four[2], four[2]));
  const __m128 sums = _mm_add_ps(_mm_shuffle_ps(first, last, 0x88), _mm_shuffle_ps(first, last, 0xdd));
  const __m128 scaled = _mm_mul_ps(sums, _mm_setr_ps(factors[0], factors[1], factors[2], 0));
  _mm_storel_pi(reinterpret_cast<__m64*>(scores), scaled);
  _mm_store_ss(scores + 2, _mm_movehl_ps(scaled, scaled));
}
#endif
template <int R>
CHIASMA_INLINE void store_sums(const Vec (&sum)[R], const float (&factors)[R], float* scores) {
  for (int r = 0; r < R; ++r) scores[r] = reduce_sum(sum[r]) * factors[r];
}

template <int Q, int R, typename T>
void score_tile(const float* queries, int64_t query_stride, const T* rows, int64_t stride, int64_t d, const float* inverse_norms, float* scores,
                int64_t scores_stride) {
  Vec sum[Q][R];
  for (int q = 0; q < Q; ++q) {
    for (int r = 0; r < R; ++r) sum[q][r] = zero();
  }
  const auto add = [&](int64_t i, const Vec (&row)[R]) {
    for (int q = 0; q < Q; ++q) {
      const Vec query = load(queries + q * query_stride + i);
      for (int r = 0; r < R; ++r) sum[q][r] = fma(query, row[r], sum[q][r]);
    }
  };
  Vec row[R];
  const int64_t group = R * stride * static_cast<int64_t>(sizeof(T));  // bytes, some of which its rows side by side read late
  constexpr bool streams = Q == 1 && R == 1 && sizeof(T) == sizeof(float);
  const char* ahead = reinterpret_cast<const char*>(rows) + (streams ? stream_ahead : group > fetch_ahead ? group : fetch_ahead);
  int64_t i = 0;
  for (; i + lanes <= d; i += lanes) {
    if (i * static_cast<int64_t>(sizeof(T)) % line_bytes == 0) {  // in the order in which the rows lie
      for (int r = 0; r < R; ++r, ahead += line_bytes) __builtin_prefetch(ahead, 0, streams ? 2 : 3);
    }
    for (int r = 0; r < R; ++r) row[r] = load(rows + r * stride + i);
    add(i, row);
  }
  if (i < d) {
    for (int r = 0; r < R; ++r) row[r] = load_part(rows + r * stride + i, static_cast<int>(d - i));
    add(i, row);
  }
  float factors[R];
  for (int r = 0; r < R; ++r) factors[r] = factor_of(inverse_norms[r]);
  for (int q = 0; q < Q; ++q) store_sums(sum[q], factors, scores + q * scores_stride);
}

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

struct Block {
  const float* queries;
  int64_t query_stride, query_count;
  int64_t stride, d;  // of the rows
  float* scores;
  int64_t scores_stride;
};

// Rows in groups of R, then one by one, against queries [begin, end): Q at a time, all of them for a group of rows before the next.
template <int Q, int R, typename T>
void score_rows(const Block& block, const T* rows, int64_t count, const float* norms, int64_t begin, int64_t end) {
  const auto score = [&]<int group>(int64_t r) {
    for (int64_t q = begin; q < end; q += Q) {
      score_tile<Q, group>(block.queries + q * block.query_stride, block.query_stride, rows + r * block.stride, block.stride, block.d, norms + r,
                           block.scores + q * block.scores_stride + r, block.scores_stride);
    }
  };
  int64_t r = 0;
  for (; r + R <= count; r += R) score.template operator()<R>(r);
  for (; r < count; ++r) score.template operator()<1>(r);
}

template <typename T>
void score_all(const Block& block, const T* rows, int64_t count, const float* norms) {
  const int64_t tiled = block.query_count / tile_queries * tile_queries;
  const int64_t fitting = query_bytes / (block.query_stride * static_cast<int64_t>(sizeof(float))) / tile_queries * tile_queries;
  const int64_t step = fitting > tile_queries ? fitting : tile_queries;
  for (int64_t q = 0; q < tiled; q += step) score_rows<tile_queries, tile_rows>(block, rows, count, norms, q, smaller(q + step, tiled));
  score_rows<1, stream_rows<T>>(block, rows, count, norms, tiled, block.query_count);
}

template <typename F>
void with_type(const void* rows, GemmType type, F&& f) {
  switch (type) {
    case GemmType::float32:
      return f(static_cast<const float*>(rows));
    case GemmType::bfloat16:
      return f(static_cast<const Bf16*>(rows));
    case GemmType::int8:
      return f(static_cast<const int8_t*>(rows));
  }
}

void scores(const float* queries, int64_t query_stride, int64_t query_count, const void* rows, GemmType type, int64_t stride, int64_t count, int64_t d,
            const float* norms, float* out, int64_t out_stride) {
  const Block block{queries, query_stride, query_count, stride, d, out, out_stride};
  with_type(rows, type, [&](const auto* row) { score_all(block, row, count, norms); });
}

void inverse_norms(const void* rows, GemmType type, int64_t stride, int64_t count, int64_t d, float* out) {
  with_type(rows, type, [&](const auto* row) {
    int64_t r = 0;
    for (; r + norm_rows <= count; r += norm_rows) invert_norms<norm_rows>(row + r * stride, stride, d, out + r);
    for (; r < count; ++r) invert_norms<1>(row + r * stride, stride, d, out + r);
  });
}

int64_t next_above(const float* scores, int64_t begin, int64_t end, float threshold) {
  int64_t i = begin;
  for (; i + lanes <= end && !any_above(load(scores + i), set(threshold)); i += lanes) {
  }
  while (i < end && scores[i] <= threshold) ++i;
  return i;
}

}  // namespace

const SearchFunctions search_functions = {
    .lanes = lanes,
    .inverse_norms = inverse_norms,
    .scores = scores,
    .next_above = next_above,
};

}  // namespace chiasma::cpu::CHIASMA_ISA
