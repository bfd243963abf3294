// Free space is asked of a segment tree over the steps: each node holds the address ranges taken during its steps, touching ones as one.
// n buffers take O(n · log² n).
#include "core/memory_planner.h"

#include <algorithm>
#include <numeric>

#include "core/checked.h"
#include "core/error.h"

namespace chiasma::core {

namespace {

// Ranges in the way of a buffer before it is put behind all of them: bounds the search where thousands of buffers stay alive.
constexpr int most_tries = 256;

// Disjoint ranges of addresses, in order.
class Ranges {
 public:
  void add(int64_t begin, int64_t end) {
    // Those that meet or touch [begin, end] become one with it.
    const auto first = std::lower_bound(ranges_.begin(), ranges_.end(), begin, [](const Range& range, int64_t at) { return range.end < at; });
    const auto last = std::upper_bound(first, ranges_.end(), end, [](int64_t at, const Range& range) { return at < range.begin; });
    if (first == last) {
      ranges_.insert(first, {begin, end});
      return;
    }
    *first = {std::min(begin, first->begin), std::max(end, std::prev(last)->end)};
    ranges_.erase(std::next(first), last);
  }

  // The end of the first range that meets [begin, end), or `begin`.
  int64_t end_of_first(int64_t begin, int64_t end) const {
    const auto at = std::upper_bound(ranges_.begin(), ranges_.end(), begin, [](int64_t at, const Range& range) { return at < range.end; });
    return at != ranges_.end() && at->begin < end ? at->end : begin;
  }
  int64_t end() const { return ranges_.empty() ? 0 : ranges_.back().end; }

 private:
  struct Range {
    int64_t begin, end;
  };
  std::vector<Range> ranges_;
};

class Occupancy {
 public:
  explicit Occupancy(int steps) : steps_(steps), nodes_(4 * static_cast<size_t>(steps)) {}

  // The lowest offset with `bytes` free during all of [first, last], or one behind all that is in use then.
  int64_t find(int first, int last, int64_t bytes) {
    asked_.clear();
    collect({1, 0, steps_ - 1}, first, last);
    int64_t offset = 0, top = 0;
    for (const Ranges* ranges : asked_) top = std::max(top, ranges->end());
    size_t passed = 0;  // lists in a row that have nothing in the way
    for (int tries = 0; passed < asked_.size() && tries < most_tries;) {
      for (const Ranges* ranges : asked_) {
        const int64_t free = ranges->end_of_first(offset, offset + bytes);
        passed = free == offset ? passed + 1 : 0;
        tries += free != offset;
        offset = free;
      }
    }
    return passed < asked_.size() ? top : offset;
  }

  void take(int first, int last, int64_t begin, int64_t end) { take({1, 0, steps_ - 1}, first, last, begin, end); }

 private:
  struct Node {
    Ranges throughout;  // of buffers alive in all of its steps, and not in all of its parent's
    Ranges ever;        // of buffers alive in some of its steps, and not in all of its parent's
  };
  struct Span {
    size_t node;
    int first, last;
    bool within(int from, int to) const { return from <= first && last <= to; }
    bool apart(int from, int to) const { return to < first || last < from; }
    Span left() const { return {2 * node, first, (first + last) / 2}; }
    Span right() const { return {2 * node + 1, (first + last) / 2 + 1, last}; }
  };

  void collect(const Span& span, int first, int last) {
    if (span.apart(first, last)) return;
    const Node& node = nodes_[span.node];
    if (span.within(first, last)) return asked_.push_back(&node.ever);
    asked_.push_back(&node.throughout);
    collect(span.left(), first, last);
    collect(span.right(), first, last);
  }

  void take(const Span& span, int first, int last, int64_t begin, int64_t end) {
    if (span.apart(first, last)) return;
    Node& node = nodes_[span.node];
    node.ever.add(begin, end);
    if (span.within(first, last)) return node.throughout.add(begin, end);
    take(span.left(), first, last, begin, end);
    take(span.right(), first, last, begin, end);
  }

  int steps_;
  std::vector<Node> nodes_;  // a heap: node 1 has all steps
  std::vector<const Ranges*> asked_;
};

}  // namespace

MemoryPlan plan_memory(const std::vector<Lifetime>& lifetimes) {
  MemoryPlan plan;
  plan.offsets.resize(lifetimes.size());
  std::vector<size_t> order(lifetimes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return lifetimes[a].bytes > lifetimes[b].bytes; });

  int earliest = 0, latest = 0;
  for (const Lifetime& life : lifetimes) {
    earliest = std::min(earliest, life.first);
    latest = std::max(latest, life.last);
  }
  Occupancy occupancy(latest - earliest + 1);
  for (const size_t i : order) {
    const Lifetime& life = lifetimes[i];
    const int64_t bytes = (life.bytes + arena_alignment - 1) / arena_alignment * arena_alignment;
    if (bytes == 0) continue;  // they are the last
    const int first = life.first - earliest, last = life.last - earliest;
    const int64_t offset = occupancy.find(first, last, bytes);
    if (offset + bytes > max_size) throw Error(ErrorCode::out_of_memory, "the plan's values need more memory than any machine has");
    occupancy.take(first, last, offset, offset + bytes);
    plan.offsets[i] = offset;
    plan.bytes = std::max(plan.bytes, offset + bytes);
  }
  return plan;
}

}  // namespace chiasma::core
