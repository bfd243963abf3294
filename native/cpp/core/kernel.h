// A kernel is an op made ready for one step of one plan: it checks its operands' types and attributes once, when it is made,
// and runs many times with at most the shapes it was made for.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/attributes.h"
#include "core/tensor_view.h"

namespace chiasma::core {

class Stream;

// Operands at capacity; `data` is null.
struct KernelSpec {
  std::string op;
  std::vector<TensorView> inputs;
  std::vector<TensorView> outputs;
  Attributes attributes;
  std::vector<bool> fixed;  // of each input, whether it is a weight: the same values at the same place in every run; empty: none is
  int threads = 1;  // of the device: the worker numbers a kernel meets are below this
  bool f16 = false;  // whether the device's kernels take float16
};

struct KernelArguments {
  std::span<const TensorView> inputs;  // actual shapes; absent optional inputs have rank -1
  std::span<const TensorView> outputs;
  void* workspace;  // workspace_bytes() of it, 64-byte aligned, contents undefined
  Stream& stream;
};

class Kernel {
 public:
  virtual ~Kernel() = default;
  virtual size_t workspace_bytes() const { return 0; }
  // May throw Error: an index out of range, say.
  virtual void run(const KernelArguments& arguments) = 0;
};

}  // namespace chiasma::core
