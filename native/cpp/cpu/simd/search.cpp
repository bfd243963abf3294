// Cosine scores (see search.h): tiles of a few queries by a few rows, each pair with a register of partial sums of its own. The corpus is
// widened to float32 as it is read; products with int8 and bfloat16 are those of the exact values.
#include "cpu/simd/search.h"

#include "cpu/simd/vec.h"

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

constexpr int lanes = Vec::lanes;
#if defined(CHIASMA_VEC_512)
constexpr int tile_queries = 4, tile_rows = 6;
#else
constexpr int tile_queries = 2, tile_rows = 4;
#endif
constexpr int stream_rows = 8;  // of a single query: enough sums to cover the latency of an addition

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

template <typename T>
float inverse_norm(const T* row, int64_t d) {
  Vec sum = zero();
  int64_t i = 0;
  for (; i + lanes <= d; i += lanes) {
    const Vec value = load(row + i);
    sum = fma(value, value, sum);
  }
  if (i < d) {
    const Vec value = load_part(row + i, static_cast<int>(d - i));
    sum = fma(value, value, sum);
  }
  const float squares = reduce_sum(sum);
  if (!(squares > 1e-30f && squares < 1e37f)) return inverse_norm_in_double(row, d);
  return 1.0f / sqrtf(squares);
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
  int64_t i = 0;
  for (; i + lanes <= d; i += lanes) {
    for (int r = 0; r < R; ++r) row[r] = load(rows + r * stride + i);
    add(i, row);
  }
  if (i < d) {
    for (int r = 0; r < R; ++r) row[r] = load_part(rows + r * stride + i, static_cast<int>(d - i));
    add(i, row);
  }
  for (int r = 0; r < R; ++r) {
    const float inverse = inverse_norms[r] == INFINITY ? 0.0f : inverse_norms[r];  // 1 / 0: a row of zeros scores 0
    for (int q = 0; q < Q; ++q) scores[q * scores_stride + r] = reduce_sum(sum[q][r]) * inverse;
  }
}

template <int Q, int R, typename T>
void score_rows(const float* queries, int64_t query_stride, const T* rows, int64_t stride, int64_t count, int64_t d, const float* inverse_norms,
                float* scores, int64_t scores_stride) {
  int64_t r = 0;
  for (; r + R <= count; r += R) {
    score_tile<Q, R>(queries, query_stride, rows + r * stride, stride, d, inverse_norms + r, scores + r, scores_stride);
  }
  for (; r < count; ++r) score_tile<Q, 1>(queries, query_stride, rows + r * stride, stride, d, inverse_norms + r, scores + r, scores_stride);
}

template <typename F>
void with_type(const void* rows, CorpusType type, F&& f) {
  switch (type) {
    case CorpusType::float32:
      return f(static_cast<const float*>(rows));
    case CorpusType::bfloat16:
      return f(static_cast<const Bf16*>(rows));
    case CorpusType::int8:
      return f(static_cast<const int8_t*>(rows));
  }
}

void inverse_norms(const void* rows, CorpusType type, int64_t stride, int64_t count, int64_t d, float* out) {
  with_type(rows, type, [&](const auto* row) {
    for (int64_t r = 0; r < count; ++r) out[r] = inverse_norm(row + r * stride, d);
  });
}

void scores(const float* queries, int64_t query_stride, int64_t query_count, const void* rows, CorpusType type, int64_t stride, int64_t count,
            int64_t d, const float* norms, float* out, int64_t out_stride) {
  with_type(rows, type, [&](const auto* row) {
    int64_t q = 0;
    for (; q + tile_queries <= query_count; q += tile_queries) {
      score_rows<tile_queries, tile_rows>(queries + q * query_stride, query_stride, row, stride, count, d, norms, out + q * out_stride, out_stride);
    }
    for (; q < query_count; ++q) {
      score_rows<1, stream_rows>(queries + q * query_stride, query_stride, row, stride, count, d, norms, out + q * out_stride, out_stride);
    }
  });
}

int64_t next_above(const float* scores, int64_t begin, int64_t end, float threshold) {
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) {
    bool found = false;
    for (int lane = 0; lane < lanes; ++lane) found |= !(scores[i + lane] <= threshold);
    if (found) break;
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
