// A reference to a function object, for parameters that are called during the call alone: what C++26 names std::function_ref. Making one allocates nothing.
#pragma once

#include <concepts>
#include <memory>
#include <type_traits>
#include <utility>

namespace chiasma::core {

template <typename Signature>
class FunctionRef;

template <typename Result, typename... Arguments>
class FunctionRef<Result(Arguments...)> {
 public:
  // None; not to be called.
  FunctionRef() = default;
  // Of a function object that outlives this.
  template <typename Function>
    requires(!std::same_as<std::remove_cvref_t<Function>, FunctionRef> && std::is_object_v<std::remove_reference_t<Function>> &&
             std::is_invocable_r_v<Result, Function&, Arguments...>)
  FunctionRef(Function&& function)
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(function)))), call_([](void* object, Arguments... arguments) -> Result {
          auto& target = *static_cast<std::add_pointer_t<Function>>(object);
          if constexpr (std::is_void_v<Result>) {
            target(std::forward<Arguments>(arguments)...);
          } else {
            return target(std::forward<Arguments>(arguments)...);
          }
        }) {}

  explicit operator bool() const noexcept { return call_ != nullptr; }
  Result operator()(Arguments... arguments) const { return call_(object_, std::forward<Arguments>(arguments)...); }

 private:
  void* object_ = nullptr;
  Result (*call_)(void* object, Arguments... arguments) = nullptr;
};

}  // namespace chiasma::core
