// An op's attributes as they come over the wire. Kernels read them by name when they are made; `expect_only` then refuses the rest.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace chiasma::core {

class Attributes {
 public:
  using Value = std::variant<double, bool, std::string, std::vector<double>>;

  void set(std::string name, Value value) { values_[std::move(name)] = std::move(value); }
  bool has(std::string_view name) const { return values_.find(name) != values_.end(); }

  // Each throws Error(argument) naming the attribute if it is absent or of another kind; those with a default only for the latter.
  double number(std::string_view name) const;
  double number(std::string_view name, double otherwise) const;
  int64_t integer(std::string_view name) const;
  int64_t integer(std::string_view name, int64_t otherwise) const;
  bool boolean(std::string_view name, bool otherwise) const;
  const std::string& string(std::string_view name) const;
  std::string string(std::string_view name, std::string_view otherwise) const;
  std::vector<double> numbers(std::string_view name) const;

  void expect_only(std::initializer_list<std::string_view> names) const;

 private:
  const Value* find(std::string_view name) const;
  const Value& get(std::string_view name) const;

  std::map<std::string, Value, std::less<>> values_;
};

}  // namespace chiasma::core
