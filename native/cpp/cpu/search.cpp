// cosineTopK: queries are brought to length 1, then tasks of (a batch of queries, a slice of the corpus) walk their rows in tiles that stay
// in cache, and keep the best k of each query in a heap; the heaps of a query's slices are merged at the end. An entry of a heap is one
// integer that orders as results do, so that what is found does not depend on how the work was cut. Of a corpus that is a weight the lengths
// of the rows are kept: to measure them takes a single query as long as to compare.
// Letters: M queries, N rows of the corpus, D features.
#include "cpu/search.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "core/op_specs.h"
#include "cpu/cpu_device.h"
#include "cpu/simd/search.h"

namespace chiasma::cpu {

namespace {

using core::DType;
using core::Error;
using core::ErrorCode;
using core::TensorView;
using core::TopKSpec;

CorpusType corpus_type(DType dtype) {
  return dtype == DType::int8 ? CorpusType::int8 : dtype == DType::bfloat16 ? CorpusType::bfloat16 : CorpusType::float32;
}

constexpr int64_t alignment = 64;
constexpr int64_t batch_queries = 64;        // of one task; whole groups of prepared queries
constexpr int64_t tile_rows = 96;            // of the corpus, whose scores are held at once
constexpr int64_t min_slice_rows = 2048;

int64_t aligned(int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }
int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

[[noreturn]] void refuse(ErrorCode code, const std::string& message) { throw Error(code, "[cosineTopK] " + message); }

// A score and its row as one integer: greater is better. The high half orders as the scores do, NaN below all; the low half is greater for
// lower rows. No entry equals `no_entry`.
using Entry = int64_t;
constexpr Entry no_entry = std::numeric_limits<Entry>::min();
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
void replace_least(Entry* heap, int64_t size, Entry entry) {
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
  SearchKernel(const core::KernelSpec& spec, const SearchFunctions& simd) : SearchKernel(TopKSpec(spec), spec, simd) {}

  size_t workspace_bytes() const override {
    return static_cast<size_t>(query_bytes_ + group_bytes_ + heap_bytes_ + threads_ * score_bytes_);
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& queries = arguments.inputs[TopKSpec::queries];
    const TensorView& corpus = arguments.inputs[TopKSpec::corpus];
    const TensorView& norms = arguments.inputs[TopKSpec::norms];
    const CpuStream& stream = static_cast<const CpuStream&>(arguments.stream);
    if (stream.threads() > threads_) refuse(ErrorCode::internal, "the stream has more threads than the kernel was made for");
    const int64_t m = queries.rows(), n = corpus.rows();
    if (m == 0) return;

    char* const memory = static_cast<char*>(arguments.workspace);
    float* const directions = reinterpret_cast<float*>(memory);
    char* const groups = memory + query_bytes_;
    Entry* const heaps = reinterpret_cast<Entry*>(groups + group_bytes_);
    char* const scratch = groups + group_bytes_ + heap_bytes_;
    stream.parallel_for(m, [&](int64_t query, int) { normalize(queries, query, directions + query * query_stride_); });
    if (one_group_ > 0) {
      stream.parallel_for(ceil_div(m, simd_.group_queries), [&](int64_t group, int) {
        const int64_t query = group * simd_.group_queries;
        simd_.prepare(directions + query * query_stride_, query_stride_, std::min(simd_.group_queries, m - query), corpus_type_, d_,
                      groups + group * one_group_);
      });
    }

    const float* const inverse_norms = norms.present() ? norms.as<const float>() : kept_norms(corpus, stream);
    const int64_t batches = ceil_div(m, batch_queries);
    const int64_t slices = std::min(slices_for(batches, n), heaps_ / m);
    stream.parallel_for(batches * slices, [&](int64_t task, int worker) {
      const int64_t slice = task % slices;
      const int64_t first = task / slices * batch_queries;
      const Batch batch{first, std::min(batch_queries, m - first), heaps + (first * slices + slice) * k_, slices * k_};
      float* const own = reinterpret_cast<float*>(scratch + worker * score_bytes_);
      search_slice(batch, directions, groups, corpus, inverse_norms, slice * n / slices, (slice + 1) * n / slices, own);
    });
    stream.parallel_for(m, [&](int64_t query, int) {
      write_best(heaps + query * slices * k_, slices * k_, arguments.outputs[TopKSpec::scores], arguments.outputs[TopKSpec::indices], query);
    });
  }

 private:
  SearchKernel(const TopKSpec& checked, const core::KernelSpec& spec, const SearchFunctions& simd)
      : simd_(simd), threads_(spec.threads), corpus_type_(corpus_type(spec.inputs[TopKSpec::corpus].dtype)), k_(checked.k), d_(checked.columns) {
    const int64_t queries = spec.inputs[TopKSpec::queries].rows();
    const int64_t rows = spec.inputs[TopKSpec::corpus].rows();
    query_stride_ = ceil_div(d_, simd.lanes) * simd.lanes;
    query_bytes_ = aligned(queries * query_stride_ * static_cast<int64_t>(sizeof(float)));
    one_group_ = static_cast<int64_t>(simd.group_bytes(corpus_type_, d_));
    group_bytes_ = ceil_div(queries, simd.group_queries) * one_group_;
    heaps_ = most_heaps(queries, rows);
    score_bytes_ = aligned((std::min(queries, batch_queries) + 1) * tile_rows * static_cast<int64_t>(sizeof(float)));
    heap_bytes_ = aligned(heaps_ * k_ * static_cast<int64_t>(sizeof(Entry)));
    const bool given = spec.inputs[TopKSpec::norms].present();
    if (!given && !spec.fixed.empty() && spec.fixed[TopKSpec::corpus]) kept_norms_.resize(static_cast<size_t>(rows));
  }

  // Queries [first, first + count), with the heap of one slice each, `step` entries apart.
  struct Batch {
    int64_t first, count;
    Entry* heaps;
    int64_t step;
  };

  // Enough tasks for all threads, while a slice stays much longer than its heap.
  int64_t slices_for(int64_t batches, int64_t rows) const {
    return std::clamp<int64_t>(rows / std::max(min_slice_rows, 8 * k_), 1, ceil_div(4 * threads_, batches));
  }

  // The most that any number of queries up to the capacity wants.
  int64_t most_heaps(int64_t queries, int64_t rows) const {
    const int64_t batches = ceil_div(queries, batch_queries);
    return std::min(queries * slices_for(1, rows), batch_queries * (4 * threads_ + batches));
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

  void search_slice(const Batch& batch, const float* directions, const char* groups, const TensorView& corpus, const float* inverse_norms, int64_t begin, int64_t end,
                    float* scores) const {  // [count + 1, tile_rows] of scratch
    for (int64_t q = 0; q < batch.count; ++q) std::fill_n(batch.heaps + q * batch.step, k_, no_entry);
    const int64_t row_bytes = corpus.row_stride * static_cast<int64_t>(core::size_of(corpus.dtype));
    for (int64_t row = begin; row < end; row += tile_rows) {
      const int64_t count = std::min(tile_rows, end - row);
      const void* rows = corpus.as<const char>() + row * row_bytes;
      float* const own_norms = scores + batch.count * tile_rows;
      if (!inverse_norms) measure(corpus, row, count, own_norms);
      simd_.scores(directions + batch.first * query_stride_, query_stride_, batch.count,
                   groups + batch.first / simd_.group_queries * one_group_, rows, corpus_type_, corpus.row_stride, count, d_,
                   inverse_norms ? inverse_norms + row : own_norms, scores, tile_rows);
      for (int64_t q = 0; q < batch.count; ++q) keep_best(scores + q * tile_rows, count, row, batch.heaps + q * batch.step);
    }
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
  int threads_;
  CorpusType corpus_type_ = CorpusType::float32;
  int64_t k_ = 1, d_ = 1, query_stride_ = 1, heaps_ = 1;
  std::vector<float> kept_norms_;  // 1 / ‖row‖ of a corpus that is a weight
  bool measured_ = false;
  int64_t query_bytes_ = 0, one_group_ = 0, group_bytes_ = 0, heap_bytes_ = 0, score_bytes_ = 0;  // one_group_: of prepared queries
};

}  // namespace

std::unique_ptr<core::Kernel> make_cosine_top_k(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<SearchKernel>(spec, *simd.search);
}

}  // namespace chiasma::cpu
