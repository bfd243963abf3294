// The checks of a plan. They trust nothing: the plan may come from a program with a mistake.
#include "core/plan.h"

#include <algorithm>

#include "core/checked.h"
#include "core/error.h"

namespace chiasma::core {

namespace {

[[noreturn]] void refuse(ErrorCode code, std::string message) { throw Error(code, "plan: " + std::move(message)); }


// Elements from a value's first to one past its last, for `count` of its extent.
std::optional<int64_t> span_of(const PlanValue& value, int64_t count) {
  if (value.shape.empty()) return 1;
  std::vector<int64_t> shape = value.shape;
  if (value.extent != -1) shape[0] = value.per * count + value.extra;
  const auto n = checked_elements(shape);
  if (!n || *n == 0) return n;
  const int64_t columns = shape.back();
  const int64_t rows = *n / columns;
  return checked_size(rows - 1, value.alias ? value.alias->row_stride : columns, columns);
}

class Checker {
 public:
  Checker(Plan& plan, const std::vector<WeightShape>& weights) : plan_(plan), weights_(weights) {}

  void check() {
    for (const Extent& extent : plan_.extents) {
      if (extent.capacity < 0 || extent.capacity > max_size) {
        refuse(ErrorCode::argument, "capacity of extent '" + extent.name + "' is " + std::to_string(extent.capacity));
      }
    }
    for (int i = 0; i < count(); ++i) check_value(i);
    for (int i = 0; i < count(); ++i) find_root(i);
    check_flow();
  }

 private:
  int count() const { return static_cast<int>(plan_.values.size()); }
  PlanValue& value(int i) { return plan_.values[static_cast<size_t>(i)]; }

  void check_value(int i) {
    PlanValue& v = value(i);
    const std::string name = describe(plan_, i);
    if (v.shape.size() > max_rank) refuse(ErrorCode::shape, name + " has " + std::to_string(v.shape.size()) + " dimensions; at most 6 are possible");
    const auto elements = checked_elements(v.shape);
    const auto bytes = elements ? checked_size(*elements, static_cast<int64_t>(size_of(v.dtype))) : std::nullopt;
    if (!bytes) refuse(ErrorCode::shape, name + ": " + text_of(v.shape) + " is no possible shape");
    v.bytes = *bytes;
    if (v.extent != -1) {
      if (v.extent < 0 || v.extent >= static_cast<int>(plan_.extents.size())) refuse(ErrorCode::argument, name + " names extent " + std::to_string(v.extent));
      const auto rows = checked_size(plan_.extents[static_cast<size_t>(v.extent)].capacity, v.per, v.extra);
      if (v.shape.empty() || !rows || v.shape[0] != *rows) {
        refuse(ErrorCode::shape, name + " " + text_of(v.shape) + " does not begin with " + std::to_string(v.per) + " rows for each of extent '" +
                                     plan_.extents[static_cast<size_t>(v.extent)].name + "' and " + std::to_string(v.extra) + " more");
      }
    }
    if (v.kind == ValueKind::weight && !v.alias) check_weight(v, name);
  }

  void check_weight(const PlanValue& v, const std::string& name) {
    if (v.weight < 0 || v.weight >= static_cast<int>(weights_.size())) {
      refuse(ErrorCode::argument, name + " is weight " + std::to_string(v.weight) + " of " + std::to_string(weights_.size()));
    }
    const WeightShape& weight = weights_[static_cast<size_t>(v.weight)];
    if (v.extent != -1) refuse(ErrorCode::argument, name + " is a weight with an extent");
    if (v.dtype != weight.dtype) {
      refuse(ErrorCode::dtype, name + " is " + name_of(v.dtype) + "; weight '" + weight.name + "' is stored as " + name_of(weight.dtype));
    }
    if (v.shape != weight.shape) refuse(ErrorCode::shape, name + " is " + text_of(v.shape) + "; weight '" + weight.name + "' is " + text_of(weight.shape));
  }

  // Follows aliases to the value with memory and checks that each lies within the one it views, whatever the count.
  void find_root(int i) {
    int at = i;
    int64_t offset = 0;
    for (int hops = 0; value(at).alias; ++hops) {
      const PlanValue& v = value(at);
      const int of = v.alias->of;
      if (of < 0 || of >= count() || hops > count()) refuse(ErrorCode::argument, describe(plan_, i) + " is an alias of no value");
      check_alias(at, of);
      offset += v.alias->offset;
      at = of;
    }
    value(i).root = at;
    value(i).root_offset = offset;
    if (at != i && value(at).kind == ValueKind::weight && weights_[static_cast<size_t>(value(at).weight)].layout != Layout::plain) {
      refuse(ErrorCode::argument, describe(plan_, i) + " is an alias of the packed " + describe(plan_, at));
    }
  }

  void check_alias(int i, int of) {
    const PlanValue& v = value(i);
    const PlanValue& base = value(of);
    const std::string name = describe(plan_, i);
    if (v.dtype != base.dtype) refuse(ErrorCode::dtype, name + " is " + name_of(v.dtype) + " and an alias of the " + name_of(base.dtype) + " " + describe(plan_, of));
    if (!v.shape.empty() && v.alias->row_stride < v.shape.back()) refuse(ErrorCode::argument, name + ": rows of an alias overlap");
    if (base.extent != -1 && v.extent != base.extent) refuse(ErrorCode::argument, name + " and " + describe(plan_, of) + " differ in extent");
    const int64_t capacity = v.extent == -1 ? 0 : plan_.extents[static_cast<size_t>(v.extent)].capacity;
    // Both spans are linear in the count from 1 on, so that the ends decide.
    for (const int64_t n : {int64_t{0}, std::min<int64_t>(1, capacity), capacity}) {
      const auto inner = span_of(v, n);
      const auto outer = span_of(base, n);
      if (v.alias->offset < 0 || !inner || !outer || (*inner > 0 && (v.alias->offset > *outer || *inner > *outer - v.alias->offset))) {
        refuse(ErrorCode::shape, name + " " + text_of(v.shape) + " reaches beyond " + describe(plan_, of) + " " + text_of(base.shape));
      }
    }
  }

  void check_index(int i, const std::string& where) {
    if (i < 0 || i >= count()) refuse(ErrorCode::argument, where + " is value " + std::to_string(i) + " of " + std::to_string(count()));
  }

  // Every value is written, as an input, a weight or by a step, before it is read; a root is written as a whole only once.
  void check_flow() {
    std::vector<bool> defined(plan_.values.size());
    for (int i = 0; i < count(); ++i) defined[static_cast<size_t>(i)] = value(i).kind == ValueKind::weight && !value(i).alias;
    for (size_t k = 0; k < plan_.inputs.size(); ++k) {
      const int i = plan_.inputs[k];
      check_index(i, "input " + std::to_string(k));
      if (value(i).kind != ValueKind::input || value(i).alias || defined[static_cast<size_t>(i)]) {
        refuse(ErrorCode::argument, "input " + std::to_string(k) + " is " + describe(plan_, i) + "; expected a value of kind 'input', named once");
      }
      defined[static_cast<size_t>(i)] = true;
    }
    for (size_t k = 0; k < plan_.steps.size(); ++k) {
      const PlanStep& step = plan_.steps[k];
      const std::string where = "step " + std::to_string(k) + " (" + step.op + ")";
      for (const int i : step.inputs) {
        if (i == -1) continue;
        check_index(i, "an input of " + where);
        if (!defined[static_cast<size_t>(value(i).root)]) refuse(ErrorCode::argument, where + " reads " + describe(plan_, i) + " before it is written");
      }
      if (step.outputs.empty()) refuse(ErrorCode::argument, where + " has no output");
      for (const int i : step.outputs) {
        check_index(i, "an output of " + where);
        const PlanValue& root = value(value(i).root);
        if (root.kind == ValueKind::weight || root.kind == ValueKind::input) refuse(ErrorCode::argument, where + " writes " + describe(plan_, i));
        if (!value(i).alias && defined[static_cast<size_t>(i)]) refuse(ErrorCode::argument, where + " writes " + describe(plan_, i) + " a second time");
      }
      for (const int i : step.outputs) {
        for (const int j : step.inputs) {
          if (j != -1 && value(j).root == value(i).root) refuse(ErrorCode::argument, where + " reads and writes " + describe(plan_, value(i).root));
        }
        defined[static_cast<size_t>(value(i).root)] = true;
      }
    }
    for (size_t k = 0; k < plan_.outputs.size(); ++k) {
      const int i = plan_.outputs[k];
      check_index(i, "output " + std::to_string(k));
      const PlanValue& root = value(value(i).root);
      if (!defined[static_cast<size_t>(value(i).root)]) refuse(ErrorCode::argument, "output " + std::to_string(k) + ", " + describe(plan_, i) + ", is never written");
      if (root.kind == ValueKind::weight && weights_[static_cast<size_t>(root.weight)].layout != Layout::plain) {
        refuse(ErrorCode::argument, "output " + std::to_string(k) + " is the packed " + describe(plan_, value(i).root));
      }
    }
  }

  Plan& plan_;
  const std::vector<WeightShape>& weights_;
};

}  // namespace

std::string describe(const Plan& plan, int value) {
  const std::string& name = plan.values[static_cast<size_t>(value)].name;
  return "value " + std::to_string(value) + (name.empty() ? "" : " '" + name + "'");
}

void check_plan(Plan& plan, const std::vector<WeightShape>& weights) { Checker(plan, weights).check(); }

TensorView view_of(const PlanValue& value, Layout layout, int64_t count, void* memory) {
  TensorView view;
  view.dtype = value.dtype;
  view.layout = layout;
  view.rank = static_cast<int>(value.shape.size());
  std::copy(value.shape.begin(), value.shape.end(), view.shape.begin());
  if (value.extent != -1) view.shape[0] = value.per * count + value.extra;
  view.row_stride = value.alias ? value.alias->row_stride : view.columns();
  if (memory) view.data = static_cast<char*>(memory) + static_cast<size_t>(value.root_offset) * size_of(value.dtype);
  return view;
}

}  // namespace chiasma::core
