// A stack of its own and a switch to it: what a simulated CUDA thread runs on. By hand on x86-64 (some 10 ns), by ucontext elsewhere.
#pragma once

#include <cstddef>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace chiasma::sim {

// Where a suspended flow of control goes on.
struct Context {
#if defined(__x86_64__)
  void* stack_pointer = nullptr;
#else
  ucontext_t registers;
#endif
};

// Saves the flow that calls in `from` and goes on with `to`.
void switch_context(Context& from, Context& to);

// Makes `context` start `entry`, which never returns, on the given stack.
void prepare_context(Context& context, void* stack, size_t bytes, void (*entry)());

// Many stacks in one mapping, each with a page below it that cannot be touched.
class Stacks {
 public:
  Stacks(int count, size_t bytes);
  ~Stacks();
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  char* stack(int index) const { return base_ + static_cast<size_t>(index) * stride_ + (stride_ - bytes_); }
  size_t bytes() const { return bytes_; }

 private:
  char* base_ = nullptr;
  size_t bytes_, stride_, total_;
};

}  // namespace chiasma::sim
