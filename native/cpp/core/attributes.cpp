// Reading attributes by name, with errors that say which and what was expected.
#include "core/attributes.h"

#include <cmath>

#include "core/error.h"

namespace chiasma::core {

namespace {

const char* kind_of(const Attributes::Value& value) noexcept {
  constexpr const char* kinds[] = {"a number", "a boolean", "a string", "a list of numbers"};
  return kinds[value.index()];
}

[[noreturn]] void absent(std::string_view name) {
  throw Error(ErrorCode::argument, "attribute '" + std::string(name) + "' is missing");
}

template <typename T>
const T& as(const Attributes::Value& value, std::string_view name, const char* expected) {
  if (const T* held = std::get_if<T>(&value)) return *held;
  throw Error(ErrorCode::argument, "attribute '" + std::string(name) + "' is " + kind_of(value) + "; expected " + expected);
}

int64_t to_integer(double value, std::string_view name) {
  constexpr double limit = 9007199254740992.0;  // 2^53: JavaScript's integers
  if (!(value >= -limit && value <= limit) || std::trunc(value) != value) {
    throw Error(ErrorCode::argument, "attribute '" + std::string(name) + "' is " + std::to_string(value) + "; expected an integer");
  }
  return static_cast<int64_t>(value);
}

}  // namespace

const Attributes::Value* Attributes::find(std::string_view name) const {
  const auto found = values_.find(name);
  return found == values_.end() ? nullptr : &found->second;
}

const Attributes::Value& Attributes::get(std::string_view name) const {
  const Value* value = find(name);
  if (!value) absent(name);
  return *value;
}

double Attributes::number(std::string_view name) const { return as<double>(get(name), name, "a number"); }

double Attributes::number(std::string_view name, double otherwise) const {
  const Value* value = find(name);
  return value ? as<double>(*value, name, "a number") : otherwise;
}

int64_t Attributes::integer(std::string_view name) const { return to_integer(number(name), name); }

int64_t Attributes::integer(std::string_view name, int64_t otherwise) const {
  return has(name) ? integer(name) : otherwise;
}

bool Attributes::boolean(std::string_view name, bool otherwise) const {
  const Value* value = find(name);
  return value ? as<bool>(*value, name, "a boolean") : otherwise;
}

const std::string& Attributes::string(std::string_view name) const { return as<std::string>(get(name), name, "a string"); }

std::string Attributes::string(std::string_view name, std::string_view otherwise) const {
  const Value* value = find(name);
  return value ? as<std::string>(*value, name, "a string") : std::string(otherwise);
}

std::vector<double> Attributes::numbers(std::string_view name) const {
  return as<std::vector<double>>(get(name), name, "a list of numbers");
}

void Attributes::expect_only(std::initializer_list<std::string_view> names) const {
  for (const auto& [name, value] : values_) {
    bool known = false;
    for (const std::string_view expected : names) known = known || name == expected;
    if (!known) throw Error(ErrorCode::argument, "attribute '" + name + "' is not known to this op");
  }
}

}  // namespace chiasma::core
