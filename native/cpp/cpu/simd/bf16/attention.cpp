// Fused attention of one head (see attention.h) by products of bfloat16, tiles of AMX or dot products, where everything is bfloat16 and all queries see
// all keys; the base set's vectors do the rest. Per block of keys, K and V go into panels as the matrix multiply's weights have them; then for 32 queries
// at a time scores = q·kᵀ, the online softmax, whose weights are rounded to bfloat16, and out += p·v. Which of the two computes does not depend on how
// queries are cut into runs.
#include "cpu/simd/attention.h"

#if defined(CHIASMA_ISA_amx)
#include "cpu/simd/gemm_amx.h"
#else
#include "cpu/simd/gemm_tile.h"
#endif
#include "cpu/simd/softmax.h"
#include "cpu/simd/vec_transpose.h"

namespace chiasma::cpu {
namespace CHIASMA_BASE_ISA {
extern const AttentionFunctions attention_functions;
}

namespace CHIASMA_ISA {
namespace {

namespace base = chiasma::cpu::CHIASMA_BASE_ISA;

constexpr int lanes = Vec::lanes;
constexpr int64_t query_run = 192;
constexpr int64_t key_block = 256;   // part of the result's definition, as for vectors
constexpr int64_t side = 32;         // rows and columns of a product
constexpr int64_t square = side * side;
constexpr int64_t pair = 2;          // bf16 in a word

static_assert(side == 2 * lanes);

constexpr int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }
constexpr int64_t squares(int64_t n) { return (n + side - 1) / side; }
constexpr int64_t padded(int64_t n) { return squares(n) * side; }

// Panels are [columns / side][depth / 2][side] words, products [columns / side][side rows][side columns].
struct Scratch {
  float* k;       // panels of the block's keys over the features
  float* v;       // panels of the features over the block's keys
  Bf16* q;        // [side, features]
  float* scores;  // products of `side` queries with the keys
  Bf16* p;        // [side, p_pitch]
  float* out;     // products of all queries with the features
  float* most;    // [query_run]: greatest score so far
  float* sum;     // [query_run]: Σ p so far
  int64_t q_pitch, p_pitch;  // elements
};

// Lays the scratch out from `memory` and gives the bytes it takes. Rows of q and p are an odd number of lines apart.
int64_t lay_out(int64_t keys, int64_t head_size, char* memory, Scratch& scratch) {
  const int64_t block = padded(smaller(keys, key_block)), features = padded(head_size);
  scratch.q_pitch = (features / side | 1) * side;
  scratch.p_pitch = (block / side | 1) * side;
  int64_t used = 0;
  const auto take = [&]<typename T>(T*& part, int64_t count) {
    part = memory ? reinterpret_cast<T*>(memory + used) : nullptr;
    used += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
  };
  take(scratch.k, block * features / pair);
  take(scratch.v, block * features / pair);
  take(scratch.q, side * scratch.q_pitch);
  take(scratch.scores, side * block);
  take(scratch.p, side * scratch.p_pitch);
  take(scratch.out, query_run * features);
  take(scratch.most, query_run);
  take(scratch.sum, query_run);
  return used;
}

size_t scratch_bytes(int64_t keys, int64_t head_size) {
  Scratch scratch;
  const auto own = static_cast<size_t>(lay_out(keys, head_size, nullptr, scratch));
  const size_t other = base::attention_functions.scratch_bytes(keys, head_size);
  return own > other ? own : other;
}

// `side` features of a row from feature d on, zeros behind the last.
CHIASMA_INLINE __m512i load_features(const Bf16* row, int64_t d, int64_t head_size) {
  const int64_t count = smaller(head_size - d, side);
  if (count == side) return _mm512_loadu_si512(row + d);
  return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint32_t{1} << count) - 1), row + d);
}

void pack_queries(const AttentionRows& q, int64_t rows, int64_t head_size, Bf16* packed, int64_t pitch) {
  const Bf16* from = static_cast<const Bf16*>(q.data);
  for (int64_t r = 0; r < rows; ++r, from += q.stride, packed += pitch) {
    for (int64_t d = 0; d < head_size; d += side) _mm512_store_si512(packed + d, load_features(from, d, head_size));
  }
}

// Keys behind the last are zeros.
void pack_keys(const Bf16* k, int64_t stride, int64_t keys, int64_t head_size, float* panels) {
  const int64_t features = padded(head_size);
  for (int64_t key = 0; key < padded(keys); key += lanes) {
    float* const panel = panels + key / side * (features / pair) * side + key % side;
    for (int64_t d = 0; d < features; d += side) {
      Vec words[lanes];
      for (int64_t i = 0; i < lanes; ++i) {
        words[i] = key + i < keys ? Vec{_mm512_castsi512_ps(load_features(k + (key + i) * stride, d, head_size))} : zero();
      }
      transpose(words);
      for (int64_t i = 0; i < lanes; ++i) store(panel + (d / pair + i) * side, words[i]);
    }
  }
}

void pack_values(const Bf16* v, int64_t stride, int64_t keys, int64_t head_size, float* panels) {
  alignas(64) static constexpr uint16_t order[2][32] = {  // the words of two rows: one's element, then the other's
      {0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44, 13, 45, 14, 46, 15, 47},
      {16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63}};
  const __m512i first = _mm512_load_si512(order[0]), second = _mm512_load_si512(order[1]);
  const int64_t panel_words = padded(keys) / pair * side;
  for (int64_t key = 0; key < padded(keys); key += pair) {
    for (int64_t d = 0; d < head_size; d += side) {
      const auto row = [&](int64_t j) { return j < keys ? load_features(v + j * stride, d, head_size) : _mm512_setzero_si512(); };
      const __m512i even = row(key), odd = row(key + 1);
      float* const to = panels + d / side * panel_words + key / pair * side;
      _mm512_store_si512(to, _mm512_permutex2var_epi16(even, first, odd));
      _mm512_store_si512(to + lanes, _mm512_permutex2var_epi16(even, second, odd));
    }
  }
}

#if defined(CHIASMA_ISA_amx)
static_assert(side == amx_rows && side == amx_columns);
constexpr int64_t depth_unit = side;

// The shape that tiles are configured for.
class Products {
 public:
  static void end() { _tile_release(); }

  // products [panels][rows, side] (+)= x [rows, depth] · panels, of `columns` columns; rows of a panel are `depth` deep, in whole units.
  void multiply(const Bf16* x, int64_t x_pitch, int64_t rows, const float* panels, int64_t columns, int64_t depth, float* products, int64_t step, bool fresh) {
    if (rows != configured_) amx_configure(configured_ = rows);
    TileWork work{};
    work.x = reinterpret_cast<const float*>(x);
    work.x_pitch = x_pitch / pair;
    work.groups = depth / side;
    work.fresh = fresh;
    for (int64_t i = 0; i < squares(columns); ++i) {
      work.w = panels + i * (padded(depth) / pair) * side;
      work.sums = products + i * step;
      work.ahead = work.next_x = work.x;
      work.next_w = work.w + (depth / pair) * side;
      rows > amx_side ? multiply_amx<false, true>(work) : multiply_amx<false, false>(work);
    }
  }

 private:
  int64_t configured_ = 0;
};
#else
constexpr int64_t depth_unit = pair;
constexpr int64_t dot_rows = 8;

// products [rows, vectors · lanes] (+)= x [rows, pairs] · panel
template <int rows, int vectors>
void multiply_dot(const float* x, int64_t x_pitch, const float* panel, int64_t pairs, float* products, bool fresh) {
  Vec sum[rows][vectors];
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < vectors; ++v) sum[r][v] = fresh ? zero() : load(products + r * side + v * lanes);
  }
  for (int64_t i = 0; i < pairs; ++i, panel += side) {
    for (int r = 0; r < rows; ++r) {
      for (int v = 0; v < vectors; ++v) sum[r][v] = DotStep::multiply(x + r * x_pitch + i, load_packed(panel + v * lanes), sum[r][v]);
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int v = 0; v < vectors; ++v) store(products + r * side + v * lanes, sum[r][v]);
  }
}

using MultiplyDot = void (*)(const float* x, int64_t x_pitch, const float* panel, int64_t pairs, float* products, bool fresh);

template <int vectors, int rows = dot_rows>
MultiplyDot find_dot(int64_t wanted) {
  if constexpr (rows > 1) {
    if (wanted < rows) return find_dot<vectors, rows - 1>(wanted);
  }
  return multiply_dot<rows, vectors>;
}

struct Products {
  static void end() {}
  // As for tiles.
  static void multiply(const Bf16* x, int64_t x_pitch, int64_t rows, const float* panels, int64_t columns, int64_t depth, float* products, int64_t step, bool fresh) {
    const int64_t pitch = x_pitch / pair;
    for (int64_t c = 0; c < columns; c += side, panels += padded(depth) / pair * side, products += step) {
      const bool both = columns - c > lanes;
      for (int64_t r = 0; r < rows; r += dot_rows) {
        const MultiplyDot dot = both ? find_dot<2>(rows - r) : find_dot<1>(rows - r);
        dot(reinterpret_cast<const float*>(x) + r * pitch, pitch, panels, depth / pair, products + r * side, fresh);
      }
    }
  }
};
#endif

// What a row of the online softmax carries from block to block, and its part of the scratch.
struct Row {
  float* scores;      // in the first of the products
  const float* bias;  // of the block's first key, or null
  Bf16* p;
  float *most, *sum;
  float* out;  // in the first of the products
};

constexpr float log2_e = 1.44269504f;

// e^x for x <= 0; zero where it would be no normal number.
CHIASMA_INLINE Vec weight(Vec x) {
  const Vec t = x * set(log2_e), least = set(-126.0f);
  return select(t < least, zero(), exp2(max(least, t)));
}

// As `soften` of the vectors, whose comments hold here, over all keys of the block.
template <int R>
void soften(const Row (&row)[R], int64_t keys, Vec scale, int64_t out_squares, int64_t out_step) {
  const Vec none = set(-INFINITY);
  const auto each = [&](auto&& f) {  // f(row, place of the score, key, whether it is there, for some lanes)
    for (int64_t j = 0; j < keys; j += lanes) {
      const int64_t place = j / side * square + j % side;
      for (int i = 0; i < R; ++i) f(i, place, j, static_cast<int>(smaller(lanes, keys - j)));
    }
  };
  Vec greatest[R], shift[R], total[R];
  for (int i = 0; i < R; ++i) greatest[i] = none, total[i] = zero();
  each([&](int i, int64_t place, int64_t j, int count) {
    Vec score = load(row[i].scores + place) * scale;
    if (row[i].bias) score = score + (count < lanes ? load_part(row[i].bias + j, count) : load(row[i].bias + j));
    if (count < lanes) score = select_first(count, score, none);
    store(row[i].scores + place, score);
    greatest[i] = max(score, greatest[i]);
  });
  float faded[R];
  for (int i = 0; i < R; ++i) shift[i] = raise_most(*row[i].most, reduce_max(greatest[i]), faded[i], weight);
  each([&](int i, int64_t place, int64_t j, int) {
    const Vec p = weight(load(row[i].scores + place) - shift[i]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(row[i].p + j), (__m256i)_mm512_cvtneps_pbh(p.v));
    total[i] = total[i] + p;
  });
  for (int i = 0; i < R; ++i) {
    if (keys % side > 0 && keys % side <= lanes) _mm256_store_si256(reinterpret_cast<__m256i*>(row[i].p + padded(keys) - lanes), _mm256_setzero_si256());
    *row[i].sum = *row[i].sum * faded[i] + reduce_sum(total[i]);
    if (faded[i] == 1.0f) continue;
    for (int64_t s = 0; s < out_squares; ++s) {
      float* const out = row[i].out + s * out_step;
      store(out, load(out) * set(faded[i]));
      store(out + lanes, load(out + lanes) * set(faded[i]));
    }
  }
}

void store_row(Bf16* to, const float* out, int64_t step, int64_t head_size, float factor) {
  for (int64_t d = 0; d < head_size; d += lanes) {
    const Vec value = load(out + d / side * step + d % side) * set(factor);
    if (d + lanes <= head_size) store(to + d, value);
    else store_part(to + d, value, static_cast<int>(head_size - d));
  }
}

void run_attention(const AttentionRun& run, void* memory) {
  const bool all_bf16 = run.q.bf16 && run.k.bf16 && run.v.bf16 && run.out.bf16;
  if (!all_bf16 || run.before < unlimited || run.after < unlimited || run.keys == 0) return base::attention_functions.run(run, memory);
  const int64_t head_size = run.head_size, query_squares = squares(run.queries);
  Scratch scratch;
  lay_out(run.keys, head_size, static_cast<char*>(memory), scratch);
  const Bf16 *const k = static_cast<const Bf16*>(run.k.data), *const v = static_cast<const Bf16*>(run.v.data);
  for (int64_t r = 0; r < run.queries; ++r) scratch.most[r] = -INFINITY, scratch.sum[r] = 0.0f;
  const int64_t out_step = query_squares * square;  // [features / side][queries, side]
  const Vec scale = set(run.scale);
  Products products;
  for (int64_t begin = 0; begin < run.keys; begin += key_block) {
    const int64_t keys = smaller(key_block, run.keys - begin);
    pack_keys(k + begin * run.k.stride, run.k.stride, keys, head_size, scratch.k);
    pack_values(v + begin * run.v.stride, run.v.stride, keys, head_size, scratch.v);
    for (int64_t first = 0; first < run.queries; first += side) {
      const int64_t rows = smaller(side, run.queries - first);
      const AttentionRows q = {static_cast<Bf16*>(run.q.data) + first * run.q.stride, run.q.stride, true};
      pack_queries(q, rows, head_size, scratch.q, scratch.q_pitch);
      products.multiply(scratch.q, scratch.q_pitch, rows, scratch.k, keys, round_up(head_size, depth_unit), scratch.scores, square, true);
      float* const out = scratch.out + first * side;
      const auto row = [&](int64_t r) {
        const float* bias = run.bias ? run.bias + begin - (first + r) : nullptr;
        return Row{scratch.scores + r * side, bias, scratch.p + r * scratch.p_pitch, scratch.most + first + r, scratch.sum + first + r, out + r * side};
      };
      int64_t r = 0;
      for (; r + 4 <= rows; r += 4) soften<4>({row(r), row(r + 1), row(r + 2), row(r + 3)}, keys, scale, squares(head_size), out_step);
      for (; r < rows; ++r) soften<1>({row(r)}, keys, scale, squares(head_size), out_step);
      products.multiply(scratch.p, scratch.p_pitch, rows, scratch.v, head_size, round_up(keys, depth_unit), out, out_step, begin == 0);
    }
  }
  products.end();
  for (int64_t r = 0; r < run.queries; ++r) {
    store_row(static_cast<Bf16*>(run.out.data) + r * run.out.stride, scratch.out + r * side, out_step, head_size, 1.0f / scratch.sum[r]);
  }
}

}  // namespace

const AttentionFunctions attention_functions = {
    .query_run = query_run,
    .key_block = key_block,
    .scratch_bytes = scratch_bytes,
    .run = run_attention,
};

}  // namespace CHIASMA_ISA
}  // namespace chiasma::cpu
