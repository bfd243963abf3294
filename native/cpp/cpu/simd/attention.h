// Fused attention of one head: the seam between the op and the kernels. softmax(q·kᵀ·scale + bias)·v for a run of one sequence's queries
// against all of its keys. Keys are taken in blocks of `key_block`, counted from the sequence's start, with an online softmax over the
// blocks; arithmetic is float32, and bfloat16 is widened while packing, but where q, k, v and the output are bfloat16 and every query sees every
// key, processors that have products of bfloat16 take these.
// A row of the output depends on its query and the sequence's keys and values alone.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chiasma::cpu {

// Some rows of one head: `data` is the head's first column of the first row; strides are in elements.
struct AttentionRows {
  void* data;
  int64_t stride;
  bool bf16;  // else float32
};

constexpr int64_t unlimited = int64_t{1} << 48;  // keys that a query sees to a side, in a sum that cannot overflow

struct AttentionRun {
  AttentionRows q, out;  // `queries` rows
  AttentionRows k, v;    // `keys` rows, from the sequence's start
  int64_t queries;       // at most query_run
  int64_t keys;
  int64_t place;          // query r stands at the place of key `place` + r,
  int64_t before, after;  // and sees the keys from so many before to so many after that place, as far as there are any
  int64_t head_size;
  float scale;
  const float* bias;  // query r and key j: bias[j − r]; null if there is none
};

struct AttentionFunctions {
  int64_t query_run;
  int64_t key_block;
  // Scratch of one run for sequences of at most `keys` keys.
  size_t (*scratch_bytes)(int64_t keys, int64_t head_size);
  void (*run)(const AttentionRun& run, void* scratch);  // scratch is 64-byte aligned
};

#ifdef CHIASMA_ISA
namespace CHIASMA_ISA {
extern const AttentionFunctions attention_functions;
}
#endif

}  // namespace chiasma::cpu
