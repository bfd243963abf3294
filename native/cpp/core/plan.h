// A plan as it comes over the wire (typings/addon.d.ts: WirePlan), and the checks that make it safe to run: after `check_plan` every index,
// size and alias is known to be within bounds, and every value is written before it is read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/attributes.h"
#include "core/device.h"
#include "core/dtype.h"
#include "core/tensor_view.h"

namespace chiasma::core {

struct Extent {
  std::string name;
  int64_t capacity = 0;
};

enum class ValueKind : uint8_t { input, weight, temporary, output };

// A view: element 0 is `offset` elements into value `of`, consecutive rows are `row_stride` elements apart.
struct Alias {
  int of = -1;
  int64_t offset = 0;
  int64_t row_stride = 0;
};

struct PlanValue {
  DType dtype = DType::float32;
  std::vector<int64_t> shape;  // capacity
  int extent = -1;             // index into Plan::extents; shape[0] = per * count + extra when run
  int64_t per = 0;
  int64_t extra = 0;
  ValueKind kind = ValueKind::temporary;
  int weight = -1;
  std::optional<Alias> alias;
  std::string name;

  // The following are found by check_plan.
  int root = -1;            // the value whose memory this is; itself if it is no alias
  int64_t root_offset = 0;  // elements
  int64_t bytes = 0;        // of a root, at capacity
};

struct PlanStep {
  std::string op;
  std::vector<int> inputs;  // indices of values; -1: absent
  std::vector<int> outputs;
  Attributes attributes;
};

struct Plan {
  std::vector<Extent> extents;
  std::vector<PlanValue> values;
  std::vector<PlanStep> steps;
  std::vector<int> inputs;
  std::vector<int> outputs;
};

// Throws Error(argument | shape | dtype) saying which value or step is wrong. `weights` are those the program will run with.
void check_plan(Plan& plan, const std::vector<WeightShape>& weights);

// What errors call a value: "value 3 'q'".
std::string describe(const Plan& plan, int value);

// The view of a value for `count` of its extent (its capacity for a value without one); `memory` is where its root begins, or null.
TensorView view_of(const PlanValue& value, Layout layout, int64_t count, void* memory);

}  // namespace chiasma::core
