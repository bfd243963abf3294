// attention: softmax(q·kᵀ·scale + bias)·v per sequence and head, without padding. The work is cut into units of (sequence, run of queries,
// head), heads innermost so that neighbours share memory pages; small units are grouped into one task of the pool.
// Letters: Tq, Tk rows; S sequences; H heads; D head size; L the longest sequence that the bias table serves.
#include "cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>

#include "core/error.h"
#include "cpu/cpu_device.h"
#include "cpu/simd/attention.h"

namespace chiasma::cpu {

namespace {

using core::DType;
using core::Error;
using core::ErrorCode;
using core::TensorView;

enum Input { q_input, k_input, v_input, lengths_q_input, lengths_k_input, bias_input, input_count };

constexpr int64_t alignment = 64;
constexpr int64_t min_query_run = 48;     // below it, packing a head's keys and values again costs more than an idle thread
constexpr int64_t task_products = 1 << 18;  // multiply-adds that make a task worth its scheduling

int64_t aligned(int64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

std::string at(const char* name, int64_t index) { return std::string(name) + "[" + std::to_string(index) + "]"; }

[[noreturn]] void refuse(ErrorCode code, const std::string& message) { throw Error(code, "[attention] " + message); }

// The rows of each sequence of one operand: by cumulative lengths, or all of one length.
class Sequences {
 public:
  Sequences(const char* name, const TensorView& cumulative, int64_t length, int64_t rows) : name_(name), length_(length), rows_(rows) {
    if (cumulative.present()) {
      cumulative_ = cumulative.as<const int32_t>();
      count_ = cumulative.shape[0] - 1;
    } else {
      if (rows % length != 0) {
        refuse(ErrorCode::shape, std::to_string(rows) + " rows of " + name + " are no whole number of sequences of " + std::to_string(length));
      }
      count_ = rows / length;
    }
  }

  int64_t count() const { return count_; }
  int64_t begin(int64_t sequence) const { return cumulative_ ? cumulative_[sequence] : sequence * length_; }
  int64_t length(int64_t sequence) const { return cumulative_ ? cumulative_[sequence + 1] - cumulative_[sequence] : length_; }
  int64_t end() const { return cumulative_ ? cumulative_[count_] : rows_; }

  void check_values() const {
    if (!cumulative_) return;
    const std::string name = std::string("cuSeqlens") + name_;
    if (cumulative_[0] != 0) refuse(ErrorCode::argument, at(name.c_str(), 0) + " is " + std::to_string(cumulative_[0]) + "; expected 0");
    for (int64_t s = 0; s < count_; ++s) {
      if (cumulative_[s + 1] < cumulative_[s]) {
        refuse(ErrorCode::argument, at(name.c_str(), s + 1) + " is " + std::to_string(cumulative_[s + 1]) + ", less than the " +
                                        std::to_string(cumulative_[s]) + " before it");
      }
    }
    if (cumulative_[count_] > rows_) {
      refuse(ErrorCode::argument, name + " ends at " + std::to_string(cumulative_[count_]) + ", but there are " + std::to_string(rows_) + " rows");
    }
  }

 private:
  const char* name_;
  const int32_t* cumulative_ = nullptr;
  int64_t length_, rows_, count_;
};

class AttentionKernel final : public core::Kernel {
 public:
  AttentionKernel(const core::KernelSpec& spec, const AttentionFunctions& simd) : simd_(simd), threads_(spec.threads) {
    check_operands(spec);
    const TensorView& lengths = spec.inputs[lengths_q_input];
    const int64_t rows = spec.inputs[k_input].rows(), max_keys = key_length_ > 0 ? std::min(key_length_, rows) : rows;
    max_sequences_ = lengths.present() ? lengths.shape[0] - 1 : spec.inputs[q_input].rows() / query_length_;
    scratch_bytes_ = aligned(static_cast<int64_t>(simd.scratch_bytes(max_keys, head_size_)));
    if (const TensorView& bias = spec.inputs[bias_input]; bias.present()) {
      const int64_t longest = std::min(max_keys, (bias.shape[0] + 1) / 2);
      bias_bytes_ = aligned((longest + simd.query_run) * static_cast<int64_t>(sizeof(float)));
    }
  }

  size_t workspace_bytes() const override {
    return static_cast<size_t>(first_unit_bytes() + threads_ * (scratch_bytes_ + bias_bytes_));
  }

  void run(const core::KernelArguments& arguments) override {
    const auto inputs = arguments.inputs;
    const TensorView& q = inputs[q_input];
    const TensorView& out = arguments.outputs[0];
    const CpuStream& stream = static_cast<const CpuStream&>(arguments.stream);
    if (stream.threads() > threads_) refuse(ErrorCode::internal, "the stream has more threads than the kernel was made for");

    const Sequences queries("Q", inputs[lengths_q_input], query_length_, q.rows());
    const Sequences keys("K", inputs[lengths_k_input], key_length_, inputs[k_input].rows());
    check_sequences(queries, keys, inputs[bias_input]);
    clear_rows(out, queries.end());

    // first_unit[s] is the number of units before sequence s.
    int64_t* const first_unit = static_cast<int64_t*>(arguments.workspace);
    const int64_t query_run = choose_query_run(queries, stream.threads());
    int64_t products = 0;
    first_unit[0] = 0;
    for (int64_t s = 0; s < queries.count(); ++s) {
      first_unit[s + 1] = first_unit[s] + runs(queries.length(s), query_run) * heads_;
      products += queries.length(s) * keys.length(s) * head_size_ * heads_;
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
        run_unit(inputs, out, queries, keys, s, within / heads_ * query_run, query_run, within % heads_, own);
      }
    });
  }

 private:
  static int64_t runs(int64_t queries, int64_t query_run) { return (queries + query_run - 1) / query_run; }

  int64_t first_unit_bytes() const { return aligned((max_sequences_ + 1) * static_cast<int64_t>(sizeof(int64_t))); }

  void check_operands(const core::KernelSpec& spec) {
    if (spec.inputs.size() != input_count || spec.outputs.size() != 1) refuse(ErrorCode::argument, "expected 6 inputs and 1 output");
    const core::Attributes& attributes = spec.attributes;
    attributes.expect_only({"heads", "scale", "causal", "queryLength", "keyLength", "dtype"});
    heads_ = attributes.integer("heads");
    scale_ = static_cast<float>(attributes.number("scale"));
    causal_ = attributes.boolean("causal", false);
    query_length_ = attributes.integer("queryLength", 0);
    key_length_ = attributes.integer("keyLength", 0);
    if (heads_ < 1) refuse(ErrorCode::argument, "heads is " + std::to_string(heads_) + "; expected at least 1");
    if (!std::isfinite(scale_)) refuse(ErrorCode::argument, "scale is not finite in float32");

    const TensorView& q = spec.inputs[q_input];
    const TensorView& out = spec.outputs[0];
    const int64_t columns = q.present() ? q.columns() : 0;
    const struct { const char* name; const TensorView& view; } operands[] = {
        {"q", q}, {"k", spec.inputs[k_input]}, {"v", spec.inputs[v_input]}, {"the output", out}};
    for (const auto& [name, view] : operands) {
      if (!view.present() || view.rank < 2) refuse(ErrorCode::shape, std::string(name) + " has to be [rows, heads · head size]");
      if (view.dtype != DType::float32 && view.dtype != DType::bfloat16) {
        refuse(ErrorCode::dtype, std::string(name) + " is " + core::name_of(view.dtype) + "; expected float32 or bfloat16");
      }
      if (view.layout != core::Layout::plain) refuse(ErrorCode::argument, std::string(name) + " is a packed weight");
      if (view.columns() != columns) {
        refuse(ErrorCode::shape, std::string(name) + " has " + std::to_string(view.columns()) + " columns, but q has " + std::to_string(columns));
      }
    }
    if (columns < 1 || columns % heads_ != 0) {
      refuse(ErrorCode::shape, "q has " + std::to_string(columns) + " columns, which " + std::to_string(heads_) + " heads do not divide");
    }
    if (attributes.has("dtype") && core::parse_dtype(attributes.string("dtype")) != out.dtype) {
      refuse(ErrorCode::dtype, "the output is " + std::string(core::name_of(out.dtype)) + ", but the attribute dtype says " + attributes.string("dtype"));
    }
    if (out.rows() != q.rows()) refuse(ErrorCode::shape, "the output has another number of rows than q");
    if (spec.inputs[v_input].rows() != spec.inputs[k_input].rows()) refuse(ErrorCode::shape, "k and v have different numbers of rows");
    head_size_ = columns / heads_;

    check_lengths("Q", spec.inputs[lengths_q_input], "queryLength", query_length_);
    check_lengths("K", spec.inputs[lengths_k_input], "keyLength", key_length_);
    const TensorView& bias = spec.inputs[bias_input];
    if (bias.present()) {
      if (bias.dtype != DType::float32) refuse(ErrorCode::dtype, std::string("relativeBias is ") + core::name_of(bias.dtype) + "; expected float32");
      if (bias.rank != 2 || bias.shape[0] % 2 != 1 || bias.shape[1] != heads_ || bias.layout != core::Layout::plain) {
        refuse(ErrorCode::shape, "relativeBias has to be [2L − 1, " + std::to_string(heads_) + "]");
      }
    }
    if (!spec.inputs[lengths_q_input].present() && !spec.inputs[lengths_k_input].present()) {
      const Sequences queries("Q", {}, query_length_, q.rows()), keys("K", {}, key_length_, spec.inputs[k_input].rows());
      check_sequences(queries, keys, bias);
    }
  }

  static void check_lengths(const char* which, const TensorView& lengths, const char* attribute, int64_t length) {
    const std::string name = std::string("cuSeqlens") + which;
    if (!lengths.present()) {
      if (length < 1) refuse(ErrorCode::argument, "neither " + name + " nor a positive " + attribute + " is given");
      return;
    }
    if (length != 0) refuse(ErrorCode::argument, name + " and " + attribute + " are both given");
    if (lengths.dtype != DType::int32) refuse(ErrorCode::dtype, name + " is " + core::name_of(lengths.dtype) + "; expected int32");
    if (lengths.rank != 1 || lengths.shape[0] < 1) refuse(ErrorCode::shape, name + " has to be [sequences + 1]");
  }

  void check_sequences(const Sequences& queries, const Sequences& keys, const TensorView& bias) const {
    queries.check_values();
    keys.check_values();
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
      for (int64_t s = 0; s < queries.count() && units < 4 * threads; ++s) units += runs(queries.length(s), query_run) * heads_;
      if (units >= 4 * threads) break;
    }
    return query_run;
  }

  AttentionRows head_rows(const TensorView& view, int64_t row, int64_t head) const {
    const int64_t offset = row * view.row_stride + head * head_size_;
    return {view.as<char>() + offset * static_cast<int64_t>(core::size_of(view.dtype)), view.row_stride, view.dtype == DType::bfloat16};
  }

  void run_unit(std::span<const TensorView> inputs, const TensorView& out, const Sequences& queries, const Sequences& keys, int64_t sequence,
                int64_t first_query, int64_t query_run, int64_t head, char* scratch) const {
    AttentionRun run;
    const int64_t query_row = queries.begin(sequence) + first_query;
    const int64_t key_row = keys.begin(sequence);
    run.q = head_rows(inputs[q_input], query_row, head);
    run.out = head_rows(out, query_row, head);
    run.k = head_rows(inputs[k_input], key_row, head);
    run.v = head_rows(inputs[v_input], key_row, head);
    run.queries = std::min(query_run, queries.length(sequence) - first_query);
    run.keys = keys.length(sequence);
    run.causal = causal_;
    run.visible = causal_ ? first_query + 1 + run.keys - queries.length(sequence) : run.keys;
    run.head_size = head_size_;
    run.scale = scale_;
    run.bias = nullptr;
    if (const TensorView& table = inputs[bias_input]; table.present() && run.keys > 0) {
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
  int64_t heads_ = 1, head_size_ = 1, query_length_ = 0, key_length_ = 0, max_sequences_ = 0;
  int64_t scratch_bytes_ = 0, bias_bytes_ = 0;
  float scale_ = 1;
  bool causal_ = false;
};

}  // namespace

std::unique_ptr<core::Kernel> make_attention(const core::KernelSpec& spec, const SimdKernels& simd) {
  return std::make_unique<AttentionKernel>(spec, *simd.attention);
}

}  // namespace chiasma::cpu
