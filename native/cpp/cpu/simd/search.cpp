// Cosine scores (see search.h): tiles of a few queries by a few rows, each pair with a register of partial sums of its own. The corpus is
// widened to float32 as it is read; products with int8 and bfloat16 are those of the exact values.
#include "cpu/simd/search.h"

#include "cpu/simd/vec.h"
#if defined(CHIASMA_ISA_amx)
#include "cpu/simd/search_amx.h"
#endif

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

constexpr int lanes = Vec::lanes;
#if defined(CHIASMA_VEC_512)
constexpr int tile_queries = 4, tile_rows = 6;
#else
constexpr int tile_queries = 2, tile_rows = 4;
#endif
constexpr int stream_rows = 8;  // of few queries: enough sums to cover the latency of an addition

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

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

struct Block {
  const float* queries;
  int64_t query_stride, query_count;
  int64_t stride, d;  // of the rows
  float* scores;
  int64_t scores_stride;
};

// R rows, in the first cache, against all queries.
template <int R, typename T>
void score_rows(const Block& block, const T* rows, const float* norms, float* scores) {
  float computed[R];
  if (!norms) invert_norms<R>(rows, block.stride, block.d, computed);
  const float* const inverse = norms ? norms : computed;
  int64_t q = 0;
  if constexpr (R <= tile_rows) {
    for (; q + tile_queries <= block.query_count; q += tile_queries) {
      score_tile<tile_queries, R>(block.queries + q * block.query_stride, block.query_stride, rows, block.stride, block.d, inverse,
                                  scores + q * block.scores_stride, block.scores_stride);
    }
  }
  for (; q < block.query_count; ++q) {
    score_tile<1, R>(block.queries + q * block.query_stride, block.query_stride, rows, block.stride, block.d, inverse,
                     scores + q * block.scores_stride, block.scores_stride);
  }
}

// Rows in groups of R, then one by one.
template <int R, typename T>
void score_all_rows(const Block& block, const T* rows, int64_t count, const float* norms) {
  int64_t r = 0;
  for (; r + R <= count; r += R) score_rows<R>(block, rows + r * block.stride, norms ? norms + r : nullptr, block.scores + r);
  for (; r < count; ++r) score_rows<1>(block, rows + r * block.stride, norms ? norms + r : nullptr, block.scores + r);
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

#if defined(CHIASMA_ISA_amx)
// Of the rows' products with a query those that tiles may have got wrong: tiny or not finite. An exact zero is tiny too.
CHIASMA_INLINE uint32_t doubtful(Vec products) {
  const Vec size = abs(products);
  return ~static_cast<uint32_t>((set(1e-25f) < size).m & (size < set(INFINITY)).m);
}

// `count` rows, at most amx_group_rows, and their scores with all queries.
template <typename T>
void score_by_tiles(const Block& block, const char* group, const T* rows, int64_t count, const float* norms, float* scores) {
  constexpr bool bytes = sizeof(T) == 1;
  constexpr CorpusType type = bytes ? CorpusType::int8 : CorpusType::bfloat16;
  const auto group_bytes = static_cast<int64_t>(amx_group_bytes(type, block.d));
  const auto size = static_cast<int64_t>(sizeof(T));
  alignas(64) float sums[2 * amx_parts * amx_tile_words];
  float inverse[amx_group_rows] = {};
  if (norms) {
    memcpy(inverse, norms, static_cast<size_t>(count) * sizeof(float));
  } else {
    int64_t r = 0;
    for (; r + stream_rows <= count; r += stream_rows) invert_norms<stream_rows>(rows + r * block.stride, block.stride, block.d, inverse + r);
    for (; r < count; ++r) invert_norms<1>(rows + r * block.stride, block.stride, block.d, inverse + r);
  }
  for (float& one : inverse) one = one == INFINITY ? 0 : one;  // 1 / 0: a row of zeros scores 0
  for (int64_t q = 0; q < block.query_count; q += amx_side, group += group_bytes) {
    amx_multiply<bytes>(reinterpret_cast<const char*>(rows), block.stride * size, count, block.d * size, group, q == 0, sums);
    const int64_t queries = block.query_count - q < amx_side ? block.query_count - q : amx_side;
    const float* const scales = reinterpret_cast<const float*>(group + group_bytes) - amx_side;
    for (int64_t first = 0; first < count; first += amx_side) {
      Vec square[amx_side];
      uint32_t again[amx_side], any = 0;
      for (int r = 0; r < amx_side; ++r) {
        const Vec products = amx_product<bytes>(sums + first * amx_parts * amx_side + r * amx_side, scales);
        again[r] = bytes || first + r >= count ? 0 : doubtful(products) & ((1u << queries) - 1);
        any |= again[r];
        square[r] = products * set(inverse[first + r]);
      }
      transpose(square);
      for (int64_t i = 0; i < queries; ++i) store(scores + (q + i) * block.scores_stride + first, square[i]);
      if (any == 0) continue;
      for (int64_t r = first; r < smaller(first + amx_side, count); ++r) {
        for (int64_t i = 0; i < queries; ++i) {
          if ((again[r - first] >> i & 1) == 0) continue;
          score_tile<1, 1>(block.queries + (q + i) * block.query_stride, block.query_stride, rows + r * block.stride, block.stride, block.d,
                           inverse + r, scores + (q + i) * block.scores_stride + r, block.scores_stride);
        }
      }
    }
  }
}

template <typename T>
void score_all_by_tiles(const Block& block, const void* groups, const T* rows, int64_t count, const float* norms) {
  amx_load(AmxShape());
  for (int64_t r = 0; r < count; r += amx_group_rows) {
    score_by_tiles(block, static_cast<const char*>(groups), rows + r * block.stride, smaller(amx_group_rows, count - r), norms ? norms + r : nullptr,
                   block.scores + r);
  }
  _tile_release();
}
#else
size_t no_group_bytes(CorpusType, int64_t) { return 0; }
void no_prepare(const float*, int64_t, int64_t, CorpusType, int64_t, void*) {}
#endif

void scores(const float* queries, int64_t query_stride, int64_t query_count, const void* groups, const void* rows, CorpusType type, int64_t stride, int64_t count,
            int64_t d, const float* inverse_norms, float* out, int64_t out_stride) {
  const Block block{queries, query_stride, query_count, stride, d, out, out_stride};
#if defined(CHIASMA_ISA_amx)
  if (amx_group_bytes(type, d) > 0) {
    if (type == CorpusType::int8) return score_all_by_tiles(block, groups, static_cast<const int8_t*>(rows), count, inverse_norms);
    return score_all_by_tiles(block, groups, static_cast<const Bf16*>(rows), count, inverse_norms);
  }
#endif
  with_type(rows, type, [&](const auto* row) {
    if (query_count < tile_queries) {
      score_all_rows<stream_rows>(block, row, count, inverse_norms);
    } else {
      score_all_rows<tile_rows>(block, row, count, inverse_norms);
    }
  });
}

int64_t next_above(const float* scores, int64_t begin, int64_t end, float threshold) {
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) {
#if defined(CHIASMA_VEC_512)
    if (_mm512_cmp_ps_mask(load(scores + i).v, set(threshold).v, _CMP_NLE_UQ) != 0) break;
#else
    bool found = false;
    for (int lane = 0; lane < lanes; ++lane) found |= !(scores[i + lane] <= threshold);
    if (found) break;
#endif
  }
  while (i < end && scores[i] <= threshold) ++i;
  return i;
}

}  // namespace

const SearchFunctions search_functions = {
    .lanes = lanes,
#if defined(CHIASMA_ISA_amx)
    .group_queries = amx_side,
    .group_bytes = amx_group_bytes,
    .prepare = amx_prepare,
#else
    .group_queries = 1,
    .group_bytes = no_group_bytes,
    .prepare = no_prepare,
#endif
    .scores = scores,
    .next_above = next_above,
};

}  // namespace chiasma::cpu::CHIASMA_ISA
