#include "core/memory_planner.h"

#include <algorithm>
#include <numeric>

#include "core/checked.h"
#include "core/error.h"

namespace chiasma::core {

MemoryPlan plan_memory(const std::vector<Lifetime>& lifetimes) {
  MemoryPlan plan;
  plan.offsets.resize(lifetimes.size());
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });

  struct Placed {
    int64_t begin, end;
    int first, last;
  };
  std::vector<Placed> placed;  // by begin
  for (const size_t i : order) {
    const Lifetime& life = lifetimes[i];
    const int64_t bytes = (life.bytes + arena_alignment - 1) / arena_alignment * arena_alignment;
    int64_t offset = 0;
    for (const Placed& other : placed) {
      if (other.last < life.first || life.last < other.first) continue;
      if (other.begin >= offset + bytes) break;
      offset = std::max(offset, other.end);
    }
    plan.offsets[i] = offset;
    if (offset + bytes > max_size) throw Error(ErrorCode::out_of_memory, "the plan's values need more memory than any machine has");
    plan.bytes = std::max(plan.bytes, offset + bytes);
    const Placed mine{offset, offset + bytes, life.first, life.last};
    if (bytes > 0) placed.insert(std::upper_bound(placed.begin(), placed.end(), mine, [](const Placed& a, const Placed& b) { return a.begin < b.begin; }), mine);
  }
  return plan;
}

}  // namespace chiasma::core
