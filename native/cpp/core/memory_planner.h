// Lifetimes -> offsets in one arena. Buffers alive at the same step get disjoint memory; others may share it. Largest first, each at the
// lowest offset that is free during its life (where hundreds are in the way, behind them all).
#pragma once

#include <cstdint>
#include <vector>

namespace chiasma::core {

constexpr int64_t arena_alignment = 64;

struct Lifetime {
  int64_t bytes = 0;
  int first = 0;  // steps at which it is alive, both included; -1 is before the first step
  int last = 0;
};

struct MemoryPlan {
  std::vector<int64_t> offsets;  // one per lifetime, multiples of arena_alignment
  int64_t bytes = 0;
};

// Throws Error(out_of_memory) if the sum passes what a size can hold.
MemoryPlan plan_memory(const std::vector<Lifetime>& lifetimes);

}  // namespace chiasma::core
