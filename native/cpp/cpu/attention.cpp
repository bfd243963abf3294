// attention: softmax(q·kᵀ·scale + bias)·v per sequence and head, without padding and without keys outside a window. The work is cut into units of (sequence, run of queries,
// head), heads innermost so that neighbours share memory pages; small units are grouped into one task of the pool.
// Letters: Tq, Tk rows; S sequences; H heads; D head size; L the longest sequence that the bias table serves.
#include "cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>

#include "core/op_specs.h"
#include "cpu/cpu_device.h"
#include "cpu/sequences.h"
#include "cpu/simd/attention.h"

namespace chiasma::cpu {

namespace {

using core::AttentionSpec;
using core::DType;
using core::Error;
using core::ErrorCode;
using core::TensorView;

constexpr int64_t alignment = 64;
constexpr int64_t min_query_run = 48;     // below it, packing a head's keys and values again costs more than an idle thread
constexpr int64_t task_products = 1 << 18;  // multiply-adds that make a task worth its scheduling

int64_t aligned(int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

[[noreturn]] void refuse(ErrorCode code, const std::string& message) { throw Error(code, "[attention] " + message); }

class AttentionKernel final : public core::Kernel {
 public:
  AttentionKernel(const core::KernelSpec& spec, const AttentionFunctions& simd) : simd_(simd), threads_(spec.threads), spec_(spec) {
    const TensorView& lengths = spec.inputs[AttentionSpec::lengths_q];
    const int64_t rows = spec.inputs[AttentionSpec::k].rows(), max_keys = spec_.key_length > 0 ? std::min(spec_.key_length, rows) : rows;
    max_sequences_ = lengths.present() ? lengths.shape[0] - 1 : spec.inputs[AttentionSpec::q].rows() / spec_.query_length;
    scratch_bytes_ = aligned(static_cast<int64_t>(simd.scratch_bytes(max_keys, spec_.head_size)));
    if (const TensorView& bias = spec.inputs[AttentionSpec::bias]; bias.present()) {
      const int64_t longest = std::min(max_keys, (bias.shape[0] + 1) / 2);
      bias_bytes_ = aligned((longest + simd.query_run) * static_cast<int64_t>(sizeof(float)));
    }
  }

  size_t workspace_bytes() const override {
    return static_cast<size_t>(first_unit_bytes() + threads_ * (scratch_bytes_ + bias_bytes_));
  }

  void run(const core::KernelArguments& arguments) override {
    const auto inputs = arguments.inputs;
    const TensorView& q = inputs[AttentionSpec::q];
    const TensorView& out = arguments.outputs[0];
    const CpuStream& stream = static_cast<const CpuStream&>(arguments.stream);
    stream.check_threads(threads_);

    const Sequences queries("attention", inputs[AttentionSpec::lengths_q], spec_.query_length, q.rows(), "cuSeqlensQ", "q");
    const Sequences keys("attention", inputs[AttentionSpec::lengths_k], spec_.key_length, inputs[AttentionSpec::k].rows(), "cuSeqlensK", "k");
    check_sequences(queries, keys, inputs[AttentionSpec::bias]);
    clear_rows(out, queries.end());

    // first_unit[s] is the number of units before sequence s.
    int64_t* const first_unit = static_cast<int64_t*>(arguments.workspace);
    const int64_t query_run = choose_query_run(queries, stream.threads());
    int64_t products = 0;
    first_unit[0] = 0;
    for (int64_t s = 0; s < queries.count(); ++s) {
      first_unit[s + 1] = first_unit[s] + runs(queries.length(s), query_run) * spec_.heads;
      const int64_t seen = std::min(keys.length(s), spec_.window < 0 ? unlimited : 2 * std::min(spec_.window, unlimited) + 1);
      products += queries.length(s) * seen * spec_.head_size * spec_.heads;
    }
    const int64_t units = first_unit[queries.count()];
    if (units == 0) return;
    const int64_t most = std::max<int64_t>(units / (4 * stream.threads()), 1);
    const int64_t group = std::clamp<int64_t>(task_products / std::max<int64_t>(products / units, 1), 1, most);

    char* const scratch = static_cast<char*>(arguments.workspace) + first_unit_bytes();
    stream.parallel_for((units + group - 1) / group, [&](int64_t task, int worker) {
      char* const own = scratch + worker * (scratch_bytes_ + bias_bytes_);
      const int64_t begin = task * group;
      const int64_t end = std::min(begin + group, units);
      int64_t s = std::upper_bound(first_unit, first_unit + queries.count() + 1, begin) - first_unit - 1;
      for (int64_t unit = begin; unit < end; ++unit) {
        while (unit >= first_unit[s + 1]) ++s;
        const int64_t within = unit - first_unit[s];
        run_unit(inputs, out, queries, keys, s, within / spec_.heads * query_run, query_run, within % spec_.heads, own);
      }
    });
  }

 private:
  static int64_t runs(int64_t queries, int64_t query_run) { return (queries + query_run - 1) / query_run; }

  int64_t first_unit_bytes() const { return aligned((max_sequences_ + 1) * static_cast<int64_t>(sizeof(int64_t))); }

  void check_sequences(const Sequences& queries, const Sequences& keys, const TensorView& bias) const {
    if (queries.count() != keys.count()) {
      refuse(ErrorCode::shape, "q has " + std::to_string(queries.count()) + " sequences, but k has " + std::to_string(keys.count()));
    }
    if (!bias.present()) return;
    const int64_t longest = (bias.shape[0] + 1) / 2;
    for (int64_t s = 0; s < queries.count(); ++s) {
      const int64_t length = std::max(queries.length(s), keys.length(s));
      if (length > longest) {
        refuse(ErrorCode::argument, "sequence " + std::to_string(s) + " has " + std::to_string(length) + " rows, but relativeBias serves " +
                                        std::to_string(longest) + " at most");
      }
    }
  }

  static void clear_rows(const TensorView& out, int64_t begin) {
    const size_t size = core::size_of(out.dtype);
    for (int64_t row = begin; row < out.rows(); ++row) {
      std::memset(out.as<char>() + row * out.row_stride * size, 0, out.columns() * size);
    }
  }

  // Shorter runs where there are too few units to keep all threads busy. The results do not depend on it.
  int64_t choose_query_run(const Sequences& queries, int threads) const {
    int64_t query_run = simd_.query_run;
    for (; query_run / 2 >= min_query_run; query_run /= 2) {
      int64_t units = 0;
      for (int64_t s = 0; s < queries.count() && units < 4 * threads; ++s) units += runs(queries.length(s), query_run) * spec_.heads;
      if (units >= 4 * threads) break;
    }
    return query_run;
  }

  AttentionRows head_rows(const TensorView& view, int64_t row, int64_t head) const {
    const int64_t offset = row * view.row_stride + head * spec_.head_size;
    return {view.as<char>() + offset * static_cast<int64_t>(core::size_of(view.dtype)), view.row_stride, view.dtype == DType::bfloat16};
  }

  void run_unit(std::span<const TensorView> inputs, const TensorView& out, const Sequences& queries, const Sequences& keys, int64_t sequence,
                int64_t first_query, int64_t query_run, int64_t head, char* scratch) const {
    AttentionRun run;
    const int64_t query_row = queries.begin(sequence) + first_query;
    const int64_t key_row = keys.begin(sequence);
    run.q = head_rows(inputs[AttentionSpec::q], query_row, head);
    run.out = head_rows(out, query_row, head);
    run.k = head_rows(inputs[AttentionSpec::k], key_row, spec_.kv_head(head));
    run.v = head_rows(inputs[AttentionSpec::v], key_row, spec_.kv_head(head));
    run.queries = std::min(query_run, queries.length(sequence) - first_query);
    run.keys = keys.length(sequence);
    run.place = first_query + run.keys - queries.length(sequence);
    run.before = spec_.window < 0 ? unlimited : std::min(spec_.window, unlimited);
    run.after = spec_.causal ? 0 : run.before;
    run.head_size = spec_.head_size;
    run.scale = spec_.scale;
    run.bias = nullptr;
    if (const TensorView& table = inputs[AttentionSpec::bias]; table.present() && run.keys > 0) {
      // Entry n is the bias of key − query = n − (first_query + queries − 1), so query r finds that of its key j at j − r + queries − 1.
      float* const bias = reinterpret_cast<float*>(scratch + scratch_bytes_);
      const int64_t first_row = (table.shape[0] - 1) / 2 - (first_query + run.queries - 1);
      const float* source = table.as<const float>() + first_row * table.row_stride + head;
      for (int64_t n = 0; n < run.keys + run.queries - 1; ++n) bias[n] = source[n * table.row_stride];
      run.bias = bias + run.queries - 1;
    }
    simd_.run(run, scratch);
  }

  const AttentionFunctions& simd_;
  int threads_;
  AttentionSpec spec_;
  int64_t max_sequences_ = 0;
  int64_t scratch_bytes_ = 0, bias_bytes_ = 0;
};

}  // namespace

std::unique_ptr<core::Kernel> make_attention(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<AttentionKernel>(spec, *simd.attention);
}

}  // namespace chiasma::cpu
