// Fused attention of one head (see attention.h). Per block of keys: K goes into panels [D][columns] of up to `tile_vectors` registers of
// keys, V into rows padded to whole registers; then for a few rows of queries at a time scores = q·kᵀ, the running maximum and sum of the
// online softmax, and out += p·v, both products by one register tile. Each score is one chain of fused multiply-adds over the features in
// ascending order, each output one over the keys in ascending order, whatever the tile: rows never depend on their neighbours.
// Keys that a row does not see are never multiplied, so that their NaN stays away.
#include "cpu/simd/attention.h"

#include "cpu/simd/softmax.h"
#include "cpu/simd/vec.h"
#include "cpu/simd/vec_transpose.h"

namespace chiasma::cpu::CHIASMA_ISA {
namespace {

constexpr int lanes = Vec::lanes;
#if defined(CHIASMA_VEC_512)
constexpr int tile_rows = 6, tile_vectors = 4;
#else
constexpr int tile_rows = 6, tile_vectors = 2;
#endif
constexpr int64_t query_run = 192;
constexpr int64_t query_block = 4 * tile_rows;  // rows whose scores are held at once
constexpr int64_t key_block = 256;              // part of the result's definition: the online softmax rounds at its ends
constexpr int64_t value_block = 64;             // keys whose values stay in the first cache for a block of queries

constexpr int64_t vectors(int64_t columns) { return (columns + lanes - 1) / lanes; }
constexpr int64_t padded(int64_t columns) { return vectors(columns) * lanes; }
constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t larger(int64_t a, int64_t b) { return a < b ? b : a; }

// c [R, V·lanes] (+)= a [R, k] · b [k, V·lanes]
template <int R, int V>
void multiply_tile(int64_t k, const float* a, int64_t a_stride, const float* b, int64_t b_stride, float* c, int64_t c_stride, bool add) {
  Vec sum[R][V];
  if (add) {
    for (int i = 0; i < R; ++i) {
      for (int j = 0; j < V; ++j) sum[i][j] = load(c + i * c_stride + j * lanes);
    }
  } else {
    for (int i = 0; i < R; ++i) {
      for (int j = 0; j < V; ++j) sum[i][j] = zero();
    }
  }
  for (int64_t p = 0; p < k; ++p) {
    Vec row[V];
    for (int j = 0; j < V; ++j) row[j] = load(b + p * b_stride + j * lanes);
    for (int i = 0; i < R; ++i) {
      const Vec factor = set(a[i * a_stride + p]);
      for (int j = 0; j < V; ++j) sum[i][j] = fma(factor, row[j], sum[i][j]);
    }
  }
  for (int i = 0; i < R; ++i) {
    for (int j = 0; j < V; ++j) store(c + i * c_stride + j * lanes, sum[i][j]);
  }
}

using MultiplyTile = void (*)(int64_t, const float*, int64_t, const float*, int64_t, float*, int64_t, bool);

template <int V>
MultiplyTile tile_of_rows(int rows) {
  static_assert(tile_rows == 6);
  constexpr MultiplyTile tiles[] = {multiply_tile<1, V>, multiply_tile<2, V>, multiply_tile<3, V>,
                                    multiply_tile<4, V>, multiply_tile<5, V>, multiply_tile<6, V>};
  return tiles[rows - 1];
}

MultiplyTile tile_for(int rows, int columns) {
  static_assert(tile_vectors == 2 || tile_vectors == 4);
  if constexpr (tile_vectors == 4) {
    if (columns == 4) return tile_of_rows<tile_vectors>(rows);
    if (columns == 3) return tile_of_rows<tile_vectors - 1>(rows);
  }
  return columns == 2 ? tile_of_rows<2>(rows) : tile_of_rows<1>(rows);
}

// `count` registers cut into groups of at most tile_vectors, as even as can be: group g is [begin(g), begin(g + 1)).
struct Groups {
  explicit Groups(int64_t registers) : count((registers + tile_vectors - 1) / tile_vectors), registers(registers) {}
  int64_t begin(int64_t group) const { return group * registers / count; }
  int size(int64_t group) const { return static_cast<int>(begin(group + 1) - begin(group)); }
  int64_t count, registers;
};

struct Scratch {
  float* q;       // [query_run, D], scaled
  float* out;     // [query_run, padded(D)]: Σ p·v so far
  float* most;    // [query_run]: greatest score so far
  float* sum;     // [query_run]: Σ p so far
  float* scores;  // [query_block, padded(block)]
  float* k;       // panels of the block's keys
  float* v;       // [block, padded(D)]
};

constexpr int64_t cache_line = 16;  // floats
constexpr int64_t rounded(int64_t floats) { return (floats + cache_line - 1) / cache_line * cache_line; }

// Lays the scratch out from `memory` and gives the floats it takes.
int64_t lay_out(int64_t keys, int64_t head_size, float* memory, Scratch& scratch) {
  const int64_t block = smaller(keys, key_block);
  int64_t used = 0;
  const auto take = [&](float*& part, int64_t floats) {
    part = memory ? memory + used : nullptr;
    used += rounded(floats);
  };
  take(scratch.q, query_run * head_size);
  take(scratch.out, query_run * padded(head_size));
  take(scratch.most, query_run);
  take(scratch.sum, query_run);
  take(scratch.scores, query_block * padded(block));
  take(scratch.k, padded(block) * head_size);
  take(scratch.v, block * padded(head_size));
  return used;
}

size_t scratch_bytes(int64_t keys, int64_t head_size) {
  Scratch scratch;
  return static_cast<size_t>(lay_out(keys, head_size, nullptr, scratch)) * sizeof(float);
}

template <typename T>
void pack_queries(const T* q, int64_t stride, int64_t rows, int64_t head_size, float scale, float* packed) {
  const Vec factor = set(scale);
  for (int64_t r = 0; r < rows; ++r) {
    const T* from = q + r * stride;
    float* to = packed + r * head_size;
    int64_t d = 0;
    for (; d + lanes <= head_size; d += lanes) store(to + d, load(from + d) * factor);
    if (d < head_size) store_part(to + d, load_part(from + d, static_cast<int>(head_size - d)) * factor, static_cast<int>(head_size - d));
  }
}

// Rows past the last key are zeros; their scores are never used.
template <typename T>
void pack_keys(const T* k, int64_t stride, int64_t keys, int64_t head_size, float* panels) {
  const Groups groups(vectors(keys));
  for (int64_t g = 0; g < groups.count; ++g) {
    const int64_t width = groups.size(g) * lanes;
    for (int64_t column = 0; column < width; column += lanes) {
      const int64_t first = groups.begin(g) * lanes + column;
      const int64_t rows = smaller(lanes, keys - first);
      for (int64_t d = 0; d < head_size; d += lanes) {
        const int features = static_cast<int>(smaller(lanes, head_size - d));
        Vec square[lanes];
        for (int i = 0; i < lanes; ++i) {
          const T* from = k + (first + i) * stride + d;
          square[i] = i >= rows ? zero() : features == lanes ? load(from) : load_part(from, features);
        }
        transpose(square);
        float* to = panels + d * width + column;
        for (int i = 0; i < features; ++i) store(to + i * width, square[i]);
      }
    }
    panels += width * head_size;
  }
}

template <typename T>
void pack_values(const T* v, int64_t stride, int64_t keys, int64_t head_size, float* packed) {
  for (int64_t j = 0; j < keys; ++j) {
    const T* from = v + j * stride;
    float* to = packed + j * padded(head_size);
    int64_t d = 0;
    for (; d + lanes <= head_size; d += lanes) store(to + d, load(from + d));
    if (d < head_size) store(to + d, load_part(from + d, static_cast<int>(head_size - d)));
  }
}

// Some keys of a block: [begin, end).
struct Range {
  int64_t begin, end;
};

// scores [rows, padded(keys)] = q · kᵀ for the panels that hold the block's keys of `seen`.
void compute_scores(const float* q, int64_t rows, int64_t head_size, const float* panels, int64_t keys, Range seen, float* scores,
                    int64_t scores_stride) {
  const Groups groups(vectors(keys));
  for (int64_t g = 0; g < groups.count && groups.begin(g) * lanes < seen.end; ++g) {
    const int64_t width = groups.size(g) * lanes;
    for (int64_t r = 0; r < rows && groups.begin(g + 1) * lanes > seen.begin; r += tile_rows) {
      const MultiplyTile tile = tile_for(static_cast<int>(smaller(tile_rows, rows - r)), groups.size(g));
      tile(head_size, q + r * head_size, head_size, panels, width, scores + r * scores_stride + groups.begin(g) * lanes, scores_stride, false);
    }
    panels += width * head_size;
  }
}

// e^x for x <= 0; zero where it would be no normal number, for those cost more than a hundred times as much.
CHIASMA_INLINE Vec weight(Vec x) {
  const Vec least = set(-87.3f);
  return select(x < least, zero(), exp(max(least, x)));
}

// What a row of the online softmax carries from block to block.
struct Row {
  Range seen;  // keys of the block
  float* scores;
  const float* bias;  // of the block's first key, or null
  float* most;
  float* sum;
  float* out;
};

// Turns the scores of R rows into weights p = exp(score − greatest so far), over the keys [begin, n) that any of them sees, and brings the
// rows' state to the new greatest. What a row does not see weighs nothing, as if it were not there. begin is a multiple of the lanes, and n
// greater. Several rows at once only hide the latency of their sums.
template <int R>
void soften(const Row (&row)[R], int64_t begin, int64_t n, int64_t out_columns) {
  const Vec least = set(-INFINITY);
  Vec greatest[R];
  for (int i = 0; i < R; ++i) greatest[i] = least;
  for (int64_t j = begin; j < n; j += lanes) {
    const int count = static_cast<int>(smaller(lanes, n - j));
    for (int i = 0; i < R; ++i) {
      Vec score = load(row[i].scores + j);
      if (row[i].bias) score = score + (count < lanes ? load_part(row[i].bias + j, count) : load(row[i].bias + j));
      const bool begins = j < row[i].seen.begin, ends = j + lanes > row[i].seen.end;
      if (ends) score = select_first(static_cast<int>(larger(row[i].seen.end - j, 0)), score, least);
      if (begins) score = select_first(static_cast<int>(smaller(row[i].seen.begin - j, lanes)), least, score);
      if (row[i].bias || begins || ends) store(row[i].scores + j, score);
      greatest[i] = max(score, greatest[i]);
    }
  }
  Vec shift[R], total[R];
  float faded[R];
  for (int i = 0; i < R; ++i) {
    shift[i] = raise_most(*row[i].most, reduce_max(greatest[i]), faded[i], weight);
    total[i] = zero();
  }
  for (int64_t j = begin; j < n; j += lanes) {
    for (int i = 0; i < R; ++i) {
      const Vec p = weight(load(row[i].scores + j) - shift[i]);
      store(row[i].scores + j, p);
      total[i] = total[i] + p;
    }
  }
  for (int i = 0; i < R; ++i) {
    *row[i].sum = *row[i].sum * faded[i] + reduce_sum(total[i]);
    if (faded[i] == 1.0f) continue;
    for (int64_t d = 0; d < out_columns; d += lanes) store(row[i].out + d, load(row[i].out + d) * set(faded[i]));
  }
}

// out [rows, padded(D)] += p · v over the keys that each row sees. Neither begin nor end of `seen` decreases from row to row.
void add_values(const float* p, int64_t p_stride, const Range* seen, int64_t rows, const float* v, int64_t v_columns, float* out) {
  const Groups groups(vectors(v_columns));
  const int64_t last = seen[rows - 1].end;
  for (int64_t j = seen[0].begin / value_block * value_block; j < last; j += value_block) {
    for (int64_t r = 0; r < rows; r += tile_rows) {
      const int count = static_cast<int>(smaller(tile_rows, rows - r));
      const auto within = [=](int64_t key) { return smaller(j + value_block, larger(j, key)); };
      // Keys that all rows of the tile see; each row's before and behind them are its own.
      int64_t common = within(seen[r + count - 1].begin), common_end = within(seen[r].end);
      if (common >= common_end) common = common_end = within(last);
      for (int64_t g = 0; g < groups.count; ++g) {
        const float* const values = v + groups.begin(g) * lanes;
        float* const to = out + r * v_columns + groups.begin(g) * lanes;
        const auto add = [&](int first, int many, int64_t from, int64_t end) {
          if (from >= end) return;
          tile_for(many, groups.size(g))(end - from, p + (r + first) * p_stride + from, p_stride, values + from * v_columns, v_columns,
                                         to + first * v_columns, v_columns, true);
        };
        for (int i = 0; i < count; ++i) add(i, 1, within(seen[r + i].begin), smaller(common, within(seen[r + i].end)));
        add(0, count, common, common_end);
        for (int i = 0; i < count; ++i) add(i, 1, larger(common_end, within(seen[r + i].begin)), within(seen[r + i].end));
      }
    }
  }
}

template <typename T>
void store_row(T* to, const float* out, int64_t head_size, float factor) {
  int64_t d = 0;
  for (; d + lanes <= head_size; d += lanes) store(to + d, load(out + d) * set(factor));
  if (d < head_size) store_part(to + d, load(out + d) * set(factor), static_cast<int>(head_size - d));
}

// Calls f with the rows' first element, of its type.
template <typename F>
void with_rows(const AttentionRows& rows, int64_t first, F&& f) {
  if (rows.bf16) {
    f(static_cast<Bf16*>(rows.data) + first * rows.stride);
  } else {
    f(static_cast<float*>(rows.data) + first * rows.stride);
  }
}

// Keys that query r sees.
Range seen_by(const AttentionRun& run, int64_t r) {
  const int64_t begin = larger(run.place + r - run.before, 0);
  return {begin, larger(smaller(run.place + r + run.after + 1, run.keys), begin)};
}

void run_attention(const AttentionRun& run, void* memory) {
  const int64_t head_size = run.head_size;
  const int64_t columns = padded(head_size);
  Scratch scratch;
  lay_out(run.keys, head_size, static_cast<float*>(memory), scratch);
  with_rows(run.q, 0, [&](const auto* q) { pack_queries(q, run.q.stride, run.queries, head_size, run.scale, scratch.q); });
  memset(scratch.out, 0, static_cast<size_t>(run.queries * columns) * sizeof(float));
  for (int64_t r = 0; r < run.queries; ++r) {
    scratch.most[r] = -INFINITY;
    scratch.sum[r] = 0.0f;
  }

  // Blocks are counted from the sequence's first key; what no query here sees of them is left out, in whole registers.
  const int64_t first_seen = seen_by(run, 0).begin / lanes * lanes, all_seen = seen_by(run, run.queries - 1).end;
  for (int64_t block = first_seen / key_block * key_block; block < all_seen; block += key_block) {
    const int64_t begin = larger(block, first_seen);
    const int64_t keys = smaller(block + key_block, all_seen) - begin;
    const int64_t scores_stride = padded(keys);
    with_rows(run.k, begin, [&](const auto* k) { pack_keys(k, run.k.stride, keys, head_size, scratch.k); });
    with_rows(run.v, begin, [&](const auto* v) { pack_values(v, run.v.stride, keys, head_size, scratch.v); });
    for (int64_t first = 0; first < run.queries; first += query_block) {
      const int64_t rows = smaller(query_block, run.queries - first);
      Range seen[query_block];  // of these keys
      for (int64_t r = 0; r < rows; ++r) {
        const Range all = seen_by(run, first + r);
        seen[r].begin = smaller(larger(all.begin - begin, 0), keys);
        seen[r].end = smaller(larger(all.end - begin, 0), keys);
      }
      const Range any = {seen[0].begin, seen[rows - 1].end};
      if (any.begin >= any.end) continue;
      float* const out = scratch.out + first * columns;
      compute_scores(scratch.q + first * head_size, rows, head_size, scratch.k, keys, any, scratch.scores, scores_stride);
      const auto row = [&](int64_t r) {
        const float* bias = run.bias ? run.bias + begin - (first + r) : nullptr;
        return Row{seen[r], scratch.scores + r * scores_stride, bias, scratch.most + first + r, scratch.sum + first + r, out + r * columns};
      };
      for (int64_t r = 0; r < rows;) {
        const int64_t more = r + 4 <= rows && seen[r].end > seen[r].begin && seen[r + 3].end > seen[r + 3].begin ? 4 : 1;
        const Range together = {seen[r].begin / lanes * lanes, seen[r + more - 1].end};
        if (more == 4) {
          soften<4>({row(r), row(r + 1), row(r + 2), row(r + 3)}, together.begin, together.end, columns);
        } else if (seen[r].end > seen[r].begin) {
          soften<1>({row(r)}, together.begin, together.end, columns);
        }
        r += more;
      }
      add_values(scratch.scores, scores_stride, seen, rows, scratch.v, columns, out);
    }
  }

  for (int64_t r = 0; r < run.queries; ++r) {
    const Range seen = seen_by(run, r);
    const float factor = seen.begin >= seen.end ? 0.0f : 1.0f / scratch.sum[r];
    with_rows(run.out, r, [&](auto* to) { store_row(to, scratch.out + r * columns, head_size, factor); });
  }
}

}  // namespace

const AttentionFunctions attention_functions = {
    .query_run = query_run,
    .key_block = key_block,
    .scratch_bytes = scratch_bytes,
    .run = run_attention,
};

}  // namespace chiasma::cpu::CHIASMA_ISA
