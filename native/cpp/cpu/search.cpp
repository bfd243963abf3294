// cosineTopK: queries are brought to length 1, then tasks of (a batch of queries, a slice of the corpus) walk their rows in tiles that stay
// in cache, and keep the best k of each query in a heap; the heaps of a query's slices are merged at the end. An entry of a heap is one
// integer that orders as results do, so that what is found does not depend on how the work was cut. Of a corpus that is a weight the lengths
// of the rows are kept: to measure them takes a single query as long as to compare.
// Many queries are multiplied with the rows by the matrix multiply in the corpus's own type, to which they are rounded. Those products only choose:
// with a bound on their errors, `margin`, rows whose products may be of the best k are candidates, which are scored anew as for a single query.
// Letters: M queries, N rows of the corpus, D features.
#include "cpu/search.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "core/op_specs.h"
#include "cpu/cpu_device.h"
#include "cpu/gemm.h"
#include "cpu/simd/search.h"

namespace chiasma::cpu {

namespace {

using core::DType;
using core::Error;
using core::ErrorCode;
using core::TensorView;
using core::TopKSpec;

constexpr int64_t alignment = 64;
constexpr int64_t batch_queries = 64;        // of one task
constexpr int64_t tile_rows = 96;            // of the corpus, whose scores are held at once
constexpr int64_t min_slice_rows = 2048;
constexpr int64_t found_bytes = 32 << 20;    // of heaps and candidates, unless one slice of all queries has more

// Where queries are multiplied: from so many on, if there are enough rows to a place in the heap that few of them are scored anew.
constexpr int64_t min_product_queries = 20;
constexpr int64_t min_product_rows = 16;     // times k
constexpr int64_t max_product_k = 1024;      // for every query of a task has its candidates in memory
constexpr int64_t product_queries = 528;     // of one task, at most
constexpr int64_t product_rows = 96;         // of the corpus, multiplied at once

constexpr int64_t float_bytes = sizeof(float);

int64_t aligned(int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A score and its row as one integer: greater is better. The high half orders as the scores do, NaN below all; the low half is greater for
// lower rows. No entry equals `no_entry`.
using Entry = int64_t;
constexpr Entry no_entry = std::numeric_limits<Entry>::min();
constexpr float lowest = -std::numeric_limits<float>::infinity();
constexpr int32_t nan_key = std::numeric_limits<int32_t>::min();

Entry entry_of(float score, int64_t row) {
  const int32_t bits = std::bit_cast<int32_t>(score + 0.0f);  // one zero
  const int32_t key = std::isnan(score) ? nan_key : bits >= 0 ? bits : bits ^ 0x7fffffff;
  return static_cast<Entry>(static_cast<uint64_t>(static_cast<uint32_t>(key)) << 32 | (0xffffffffu - static_cast<uint32_t>(row)));
}

float score_of(Entry entry) {
  const int32_t key = static_cast<int32_t>(entry >> 32);
  if (key == nan_key) return std::numeric_limits<float>::quiet_NaN();
  return std::bit_cast<float>(key >= 0 ? key : key ^ 0x7fffffff);
}

int32_t row_of(Entry entry) { return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(entry)); }

// Replaces the least entry of a heap whose least is first.
template <typename T>
void replace_least(T* heap, int64_t size, T entry) {
  int64_t place = 0;
  for (;;) {
    int64_t child = 2 * place + 1;
    if (child >= size) break;
    if (child + 1 < size && heap[child + 1] < heap[child]) ++child;
    if (entry <= heap[child]) break;
    heap[place] = heap[child];
    place = child;
  }
  heap[place] = entry;
}

class SearchKernel final : public core::Kernel {
 public:
  SearchKernel(const core::KernelSpec& spec, const SimdKernels& simd) : SearchKernel(TopKSpec(spec), spec, simd) {}

  size_t workspace_bytes() const override {
    return static_cast<size_t>(query_bytes_ + 2 * margin_bytes_ + packed_bytes_ + heap_bytes_ + candidate_bytes_ + known_bytes() + threads_ * thread_bytes_);
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& queries = arguments.inputs[TopKSpec::queries];
    const TensorView& corpus = arguments.inputs[TopKSpec::corpus];
    const TensorView& norms = arguments.inputs[TopKSpec::norms];
    const CpuStream& stream = static_cast<const CpuStream&>(arguments.stream);
    stream.check_threads(threads_);
    const int64_t m = queries.rows(), n = corpus.rows();
    if (m == 0) return;

    char* const memory = static_cast<char*>(arguments.workspace);
    float* const directions = reinterpret_cast<float*>(memory);
    float* const margins = reinterpret_cast<float*>(memory + query_bytes_);
    auto* const thresholds = reinterpret_cast<std::atomic<float>*>(memory + query_bytes_ + margin_bytes_);
    char* const packed = memory + query_bytes_ + 2 * margin_bytes_;
    Entry* const heaps = reinterpret_cast<Entry*>(packed + packed_bytes_);
    auto* const lists = reinterpret_cast<Candidate*>(packed + packed_bytes_ + heap_bytes_);
    auto* const known = reinterpret_cast<int64_t*>(packed + packed_bytes_ + heap_bytes_ + candidate_bytes_);  // the batch of which each thread has seen products
    char* const scratch = reinterpret_cast<char*>(known) + known_bytes();
    const bool multiplied = multiplies(m, n);
    stream.parallel_for(m, [&](int64_t query, int) {
      float* const direction = directions + query * query_stride_;
      normalize(queries, query, direction);
      if (!multiplied) return;
      margins[query] = margin_of(direction);
      new (thresholds + query) std::atomic<float>(lowest);
    });
    const int64_t batch_size = multiplied ? product_columns_ : batch_queries;
    const int64_t batches = ceil_div(m, batch_size);
    if (multiplied) pack_queries(stream, directions, m, packed);

    const float* const inverse_norms = norms.present() ? norms.as<const float>() : kept_norms(corpus, stream);
    const int64_t slices = std::min(slices_for(batches, n), heaps_ / m);
    std::fill_n(known, threads_, -1);
    stream.parallel_for(batches * slices, [&](int64_t task, int worker) {
      const int64_t slice = task % slices, number = task / slices;
      const int64_t first = number * batch_size;
      const Batch batch{std::min(batch_size, m - first), directions + first * query_stride_, margins + first, thresholds + first, packed + number * one_packed_,
                  heaps + (first * slices + slice) * k_, lists + (first * slices + slice) * list_size_, slices};
      for (int64_t q = 0; q < batch.count; ++q) std::fill_n(batch.heaps + q * batch.slices * k_, k_, no_entry);
      const int64_t begin = slice * n / slices, end = (slice + 1) * n / slices;
      char* const own = scratch + worker * thread_bytes_;
      if (!multiplied) return search_slice(batch, corpus, inverse_norms, begin, end, reinterpret_cast<float*>(own));
      const bool first_slice = std::exchange(known[worker], number) != number;
      multiply_slice(batch, corpus, inverse_norms, begin, end, Scratch(*this, own), first_slice);
    });
    stream.parallel_for(m, [&](int64_t query, int worker) {
      if (multiplied) {
        float* const best = Scratch(*this, scratch + worker * thread_bytes_).best;
        std::fill_n(best, k_, lowest);
        for (int64_t i = query * slices; i < (query + 1) * slices; ++i) include(lists + i * list_size_, best);
        const float threshold = std::max(thresholds[query].load(std::memory_order_relaxed), threshold_of(best[0], margins[query]));
        for (int64_t i = query * slices; i < (query + 1) * slices; ++i) {
          score_candidates(directions + query * query_stride_, lists + i * list_size_, threshold, corpus, inverse_norms, heaps + i * k_);
        }
      }
      write_best(heaps + query * slices * k_, slices * k_, arguments.outputs[TopKSpec::scores], arguments.outputs[TopKSpec::indices], query);
    });
  }

 private:
  SearchKernel(const TopKSpec& checked, const core::KernelSpec& spec, const SimdKernels& simd)
      : simd_(*simd.search), gemm_(choose_gemm(simd)), threads_(spec.threads), corpus_type_(gemm_type(spec.inputs[TopKSpec::corpus].dtype)),
        k_(checked.k), d_(checked.columns) {
    const int64_t queries = spec.inputs[TopKSpec::queries].rows();
    const int64_t rows = spec.inputs[TopKSpec::corpus].rows();
    // Without dot products bfloat16 is as quick when nothing is rounded.
    product_type_ = corpus_type_ == GemmType::bfloat16 && !gemm_.dot ? GemmType::float32 : corpus_type_;
    const bool multiplied = multiplies(queries, rows);
    list_size_ = multiplied ? 2 * k_ + 65 : 0;
    const int64_t affordable = found_bytes / (k_ * static_cast<int64_t>(sizeof(Entry)) + list_size_ * static_cast<int64_t>(sizeof(Candidate)));
    // Where few heaps are affordable, tasks of fewer queries, so that every thread has some.
    const int64_t panel = gemm_.panel_columns(product_type_);
    product_columns_ = std::clamp(affordable / (2 * threads_), panel, product_queries) / panel * panel;
    query_stride_ = ceil_div(d_, simd_.lanes) * simd_.lanes;
    query_bytes_ = aligned(queries * query_stride_ * float_bytes);
    heaps_ = std::max(queries, std::min(most_heaps(queries, rows), affordable));
    heap_bytes_ = aligned(heaps_ * k_ * static_cast<int64_t>(sizeof(Entry)));
    thread_bytes_ = aligned((std::min(queries, batch_queries) + 1) * tile_rows * float_bytes);
    if (multiplied) {
      margin_bytes_ = aligned(queries * float_bytes);
      one_packed_ = aligned(static_cast<int64_t>(gemm_.weight_bytes(std::min(queries, product_columns_), d_, product_type_)));
      packed_bytes_ = ceil_div(queries, product_columns_) * one_packed_;
      row_bytes_ = static_cast<int64_t>(gemm_.row_bytes(d_, product_type_));
      rows_at_once_ = std::clamp(gemm_block_bytes() / row_bytes_ / gemm_.row_unit, int64_t{1}, product_rows / gemm_.row_unit) * gemm_.row_unit;
      batch_columns_ = std::min(queries, product_columns_);
      candidate_bytes_ = aligned(heaps_ * list_size_ * static_cast<int64_t>(sizeof(Candidate)));
      thread_bytes_ = std::max(thread_bytes_, Scratch(*this, nullptr).bytes);
    }
    const bool given = spec.inputs[TopKSpec::norms].present();
    if (!given && !spec.fixed.empty() && spec.fixed[TopKSpec::corpus]) kept_norms_.resize(static_cast<size_t>(rows));
  }

  // A row and its product, at length 1. The first of a list has their number as its row.
  struct Candidate {
    float product;
    int32_t row;
  };

  // `count` queries, with the heap and the list of candidates of one slice each.
  struct Batch {
    int64_t count;
    const float *directions, *margins;
    std::atomic<float>* thresholds;  // shared by the slices
    const char* packed;
    Entry* heaps;
    Candidate* lists;
    int64_t slices;  // heaps and lists from one query's to the next one's
  };

  // What a thread multiplies with. Without memory: its size.
  struct Scratch {
    Scratch(const SearchKernel& kernel, char* memory) {
      const auto take = [&](int64_t size) {
        const int64_t begin = std::exchange(bytes, bytes + aligned(size));
        return memory ? memory + begin : nullptr;
      };
      rows = take(kernel.rows_at_once_ * kernel.row_bytes_);
      gemm = take(static_cast<int64_t>(kernel.gemm_.scratch_bytes(kernel.rows_at_once_, kernel.d_, kernel.product_type_, gemm_block_bytes())));
      factors = reinterpret_cast<float*>(take(kernel.rows_at_once_ * float_bytes));
      hits = reinterpret_cast<GemmHit*>(take(kernel.rows_at_once_ * kernel.batch_columns_ * static_cast<int64_t>(sizeof(GemmHit))));
      thresholds = reinterpret_cast<float*>(take(kernel.batch_columns_ * float_bytes));
      best = reinterpret_cast<float*>(take(kernel.batch_columns_ * kernel.k_ * float_bytes));
    }
    int64_t bytes = 0;
    char *rows, *gemm;
    float* factors;
    GemmHit* hits;
    // Of each query: what a product must exceed; the k greatest products, a heap.
    float *thresholds, *best;
  };

  int64_t known_bytes() const { return aligned(threads_ * static_cast<int64_t>(sizeof(int64_t))); }

  bool multiplies(int64_t queries, int64_t rows) const {
    return queries >= min_product_queries && k_ <= max_product_k && rows >= min_product_rows * k_ && (product_type_ != GemmType::int8 || d_ <= max_int8_depth);
  }

  // Enough tasks for all threads, while a slice stays much longer than its heap.
  int64_t slices_for(int64_t batches, int64_t rows) const {
    return std::clamp<int64_t>(rows / std::max(min_slice_rows, 64 * k_), 1, ceil_div(16 * threads_, batches));
  }

  // The most that any number of queries up to the capacity wants.
  int64_t most_heaps(int64_t queries, int64_t rows) const {
    const int64_t size = multiplies(queries, rows) ? product_columns_ : batch_queries;
    return std::min(queries * slices_for(1, rows), size * (16 * threads_ + ceil_div(queries, size)));
  }

  void normalize(const TensorView& queries, int64_t query, float* direction) const {
    const auto value = [&, row = query * queries.row_stride](int64_t i) {
      return queries.dtype == DType::float32 ? queries.as<const float>()[row + i] : core::bf16_to_f32(queries.as<const uint16_t>()[row + i]);
    };
    double squares = 0;
    for (int64_t i = 0; i < d_; ++i) squares += double{value(i)} * value(i);
    const double inverse = squares == 0 ? 0.0 : 1.0 / std::sqrt(squares);
    for (int64_t i = 0; i < d_; ++i) direction[i] = static_cast<float>(value(i) * inverse);
    std::fill(direction + d_, direction + query_stride_, 0.0f);
  }

  void measure(const TensorView& corpus, int64_t row, int64_t count, float* inverse_norms) const {
    const int64_t row_bytes = corpus.row_stride * static_cast<int64_t>(core::size_of(corpus.dtype));
    simd_.inverse_norms(corpus.as<const char>() + row * row_bytes, corpus_type_, corpus.row_stride, count, d_, inverse_norms);
  }

  // Of a corpus that is a weight, measured by the first run; else null.
  const float* kept_norms(const TensorView& corpus, const CpuStream& stream) {
    if (kept_norms_.empty()) return nullptr;
    if (!measured_) {
      const auto rows = static_cast<int64_t>(kept_norms_.size());
      stream.parallel_for(ceil_div(rows, min_slice_rows), [&](int64_t slice, int) {
        const int64_t row = slice * min_slice_rows;
        measure(corpus, row, std::min(min_slice_rows, rows - row), kept_norms_.data() + row);
      });
      measured_ = true;
    }
    return kept_norms_.data();
  }

  void search_slice(const Batch& batch, const TensorView& corpus, const float* inverse_norms, int64_t begin, int64_t end,
                    float* scores) const {  // [count + 1, tile_rows] of scratch
    const int64_t row_bytes = corpus.row_stride * static_cast<int64_t>(core::size_of(corpus.dtype));
    for (int64_t row = begin; row < end; row += tile_rows) {
      const int64_t count = std::min(tile_rows, end - row);
      const void* rows = corpus.as<const char>() + row * row_bytes;
      float* const own_norms = scores + batch.count * tile_rows;
      if (!inverse_norms) measure(corpus, row, count, own_norms);
      simd_.scores(batch.directions, query_stride_, batch.count, rows, corpus_type_, corpus.row_stride, count, d_, inverse_norms ? inverse_norms + row : own_norms,
                   scores, tile_rows);
      for (int64_t q = 0; q < batch.count; ++q) keep_best(scores + q * tile_rows, count, row, batch.heaps + q * batch.slices * k_);
    }
  }

  // A bound on the difference between a score and the product of the rounded query with the row, brought to length 1: what rounding does to the
  // query, by Cauchy and Schwarz, and what the additions of both may lose.
  float margin_of(const float* direction) const {
    float largest = 0;
    for (int64_t i = 0; i < d_; ++i) largest = std::max(largest, std::abs(direction[i]));
    if (largest == 0) return 0.0f;
    const double step = largest / 127.0;
    const auto rounded = [&](float value) -> double {
      if (product_type_ == GemmType::float32) return value;
      return product_type_ == GemmType::int8 ? std::rint(value / step) * step : core::bf16_to_f32(core::f32_to_bf16(value));
    };
    double squares = 0;
    for (int64_t i = 0; i < d_; ++i) squares += std::pow(direction[i] - rounded(direction[i]), 2);
    constexpr double rounding = std::numeric_limits<float>::epsilon();
    return static_cast<float>(std::sqrt(squares) * 1.001 + rounding * (1.5 * static_cast<double>(d_) + 16));
  }

  void pack_queries(const CpuStream& stream, const float* directions, int64_t m, char* packed) const {
    const int64_t panel = gemm_.panel_columns(product_type_);
    stream.parallel_for(ceil_div(m, panel), [&](int64_t task, int) {
      const int64_t first = task * panel / product_columns_ * product_columns_, begin = task * panel - first;  // of a batch
      const int64_t size = std::min(product_columns_, m - first);
      gemm_.pack_weight(directions + task * panel * query_stride_, GemmType::float32, query_stride_, begin, std::min(panel, size - begin), size, d_, product_type_,
                        packed + first / product_columns_ * one_packed_);
    });
  }

  // Of the batch's `first_slice` on a thread nothing is known; of later ones, what the thread has seen.
  void multiply_slice(const Batch& batch, const TensorView& corpus, const float* given_norms, int64_t begin, int64_t end, const Scratch& scratch,
                      bool first_slice) const {
    if (first_slice) {
      std::fill_n(scratch.thresholds, batch.count, lowest);
      std::fill_n(scratch.best, batch.count * k_, lowest);
    }
    for (int64_t q = 0; q < batch.count; ++q) batch.lists[q * batch.slices * list_size_].row = 0;
    const int64_t pitch = corpus.row_stride * static_cast<int64_t>(core::size_of(corpus.dtype));
    const bool as_is = gemm_.as_is(corpus_type_, pitch, d_, product_type_);
    GemmBlock block{};
    block.weight = batch.packed;
    block.weight_type = product_type_;
    block.n = batch.count;
    block.k = d_;
    block.panel_end = ceil_div(batch.count, gemm_.panel_columns(product_type_));
    block.block_bytes = gemm_block_bytes();
    block.scratch = scratch.gemm;
    block.scale = 1;
    block.hits = scratch.hits;
    block.factors = scratch.factors;
    block.thresholds = scratch.thresholds;
    for (int64_t first = begin; first < end; first += rows_at_once_) {
      const char* const rows = corpus.as<const char>() + first * pitch;
      block.rows = std::min(rows_at_once_, end - first);
      block.x = as_is ? rows : scratch.rows;
      block.x_pitch = as_is ? pitch : row_bytes_;
      if (!as_is) gemm_.pack_rows(rows, corpus_type_, corpus.row_stride, block.rows, d_, product_type_, scratch.rows);
      const int64_t left = end - first - block.rows;
      block.upcoming = rows + block.rows * pitch;
      block.upcoming_bytes = std::min(left, rows_at_once_) * pitch;
      if (!given_norms) measure(corpus, first, block.rows, scratch.factors);
      for (int64_t r = 0; r < block.rows; ++r) scratch.factors[r] = product_factor(given_norms ? given_norms[first + r] : scratch.factors[r]);
      for (int64_t q = 0; q < batch.count; ++q) share(batch.thresholds[q], scratch.thresholds[q]);
      int64_t hits = 0;
      block.hit_count = &hits;
      gemm_.multiply(block);
      for (int64_t i = 0; i < hits; ++i) take(batch, scratch, scratch.hits[i], first, corpus, given_norms);
    }
    for (int64_t q = 0; q < batch.count; ++q) share(batch.thresholds[q], scratch.thresholds[q]);
  }

  // Makes a row a candidate, and raises the threshold where its product is of the k greatest.
  void take(const Batch& batch, const Scratch& scratch, const GemmHit& hit, int64_t first, const TensorView& corpus, const float* given_norms) const {
    const int64_t q = hit.column;
    float& threshold = scratch.thresholds[q];
    if (hit.value <= threshold) return;
    Candidate* const list = batch.lists + q * batch.slices * list_size_;
    if (list->row + 1 == list_size_) {
      drop_candidates(list, threshold);
      if (list->row > list_size_ / 2) {
        score_candidates(batch.directions + q * query_stride_, list, threshold, corpus, given_norms, batch.heaps + q * batch.slices * k_);
        list->row = 0;
      }
    }
    list[++list->row] = {hit.value, static_cast<int32_t>(first + hit.row)};
    float* const best = scratch.best + q * k_;
    if (!(hit.value > best[0])) return;
    replace_least(best, k_, hit.value);
    threshold = std::max(threshold, threshold_of(best[0], batch.margins[q]));
  }

  // Where k rows have products of `least` at least, so scores of no less than a margin below; and a product may be a margin less than its score.
  static float threshold_of(float least, float margin) { return std::nextafter(least - 2 * margin, lowest); }

  // The products of a list into a heap of the k greatest.
  void include(const Candidate* list, float* best) const {
    for (const Candidate* candidate = list + 1; candidate <= list + list->row; ++candidate) {
      if (candidate->product > best[0]) replace_least(best, k_, candidate->product);
    }
  }

  static void drop_candidates(Candidate* list, float threshold) {
    const Candidate* const end = list + 1 + list->row;
    list->row = 0;
    for (const Candidate* from = list + 1; from < end; ++from) {
      if (!(from->product <= threshold)) list[++list->row] = *from;
    }
  }

  // Slices learn of each other what a product must exceed. What is found does not depend on when they do.
  static void share(std::atomic<float>& all, float& own) {
    const float others = all.load(std::memory_order_relaxed);
    if (others > own) own = others;
    else if (own > others) all.store(own, std::memory_order_relaxed);
  }

  void score_candidates(const float* direction, const Candidate* list, float threshold, const TensorView& corpus, const float* given_norms, Entry* heap) const {
    const int64_t pitch = corpus.row_stride * static_cast<int64_t>(core::size_of(corpus.dtype));
    for (const Candidate* candidate = list + 1; candidate <= list + list->row; ++candidate) {
      if (candidate->product <= threshold) continue;
      const int64_t row = candidate->row;
      float inverse_norm, score;
      if (given_norms) inverse_norm = given_norms[row];
      else measure(corpus, row, 1, &inverse_norm);
      simd_.scores(direction, query_stride_, 1, corpus.as<const char>() + row * pitch, corpus_type_, corpus.row_stride, 1, d_, &inverse_norm, &score, 1);
      const Entry entry = entry_of(score, row);
      if (entry > heap[0]) replace_least(heap, k_, entry);
    }
  }

  // NaN, which lets every query score the row, where its numbers are so large or small that products overflow or are flushed to zero.
  static float product_factor(float inverse_norm) {
    if (std::isinf(inverse_norm)) return 0.0f;  // zeros
    return inverse_norm > 1e-18f && inverse_norm < 1e15f ? inverse_norm : std::numeric_limits<float>::quiet_NaN();
  }

  // Later rows lose ties, so only scores above the heap's least can enter; those of NaN decide themselves as entries.
  void keep_best(const float* scores, int64_t count, int64_t first_row, Entry* heap) const {
    float least = score_of(heap[0]);
    for (int64_t i = 0; (i = simd_.next_above(scores, i, count, least)) < count; ++i) {
      const Entry entry = entry_of(scores[i], first_row + i);
      if (entry <= heap[0]) continue;
      replace_least(heap, k_, entry);
      least = score_of(heap[0]);
    }
  }

  void write_best(Entry* entries, int64_t count, const TensorView& scores, const TensorView& indices, int64_t query) const {
    const auto better = [](Entry a, Entry b) { return a > b; };
    if (count > k_) std::nth_element(entries, entries + k_ - 1, entries + count, better);
    std::sort(entries, entries + k_, better);
    float* const to_scores = scores.as<float>() + query * scores.row_stride;
    int32_t* const to_indices = indices.as<int32_t>() + query * indices.row_stride;
    for (int64_t i = 0; i < k_; ++i) {
      const bool none = entries[i] == no_entry;
      to_scores[i] = none ? -std::numeric_limits<float>::infinity() : score_of(entries[i]);
      to_indices[i] = none ? -1 : row_of(entries[i]);
    }
  }

  const SearchFunctions& simd_;
  const GemmFunctions& gemm_;
  int threads_;
  GemmType corpus_type_ = GemmType::float32;
  int64_t k_ = 1, d_ = 1, query_stride_ = 1, heaps_ = 1;
  std::vector<float> kept_norms_;  // 1 / ‖row‖ of a corpus that is a weight
  bool measured_ = false;
  int64_t query_bytes_ = 0, heap_bytes_ = 0, thread_bytes_ = 0;
  // For products with many queries:
  GemmType product_type_ = GemmType::float32;  // in which they are multiplied
  int64_t product_columns_ = 0, batch_columns_ = 0;  // queries of a batch: whole panels; at most as many as there are
  int64_t list_size_ = 0, candidate_bytes_ = 0;  // of one list; of all
  int64_t one_packed_ = 0, packed_bytes_ = 0;  // one batch, packed; all of them
  int64_t margin_bytes_ = 0, row_bytes_ = 0, rows_at_once_ = 0;  // row_bytes_: of a packed row of the corpus
};

}  // namespace

std::unique_ptr<core::Kernel> make_cosine_top_k(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<SearchKernel>(spec, simd);
}

}  // namespace chiasma::cpu
