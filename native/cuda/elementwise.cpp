// add, sub, mul, div, unary, cast: element by element. Row strides are free; tensors without gaps are taken as one long row.
#include <algorithm>
#include <iterator>

#include "cuda/kernels.h"

namespace chiasma::cuda {

namespace {

using core::DType;
using core::ErrorCode;
using core::Operands;
using core::TensorView;

class BinaryKernel final : public CudaKernel {
 public:
  BinaryKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec) {
    constexpr std::string_view ops[] = {"add", "sub", "mul", "div"};  // as BinaryKind orders them
    const auto found = std::find(std::begin(ops), std::end(ops), spec.op);
    const Operands operands(spec, {"a", "b"});
    if (found == std::end(ops)) operands.refuse(ErrorCode::unsupported, "is no arithmetic op");
    kind_ = static_cast<BinaryKind>(found - std::begin(ops));
    operands.floats(0);
    operands.floats(1);
    const TensorView& a = operands.input(0);
    const TensorView& b = operands.input(1);
    const bool trailing = b.rank <= a.rank && std::equal(b.shape.begin(), b.shape.begin() + b.rank, a.shape.begin() + (a.rank - b.rank));
    if (!trailing) operands.refuse_shape(1, core::shape_text(a) + " or trailing dimensions of it");
    operands.result_like(0);
    spec.attributes.expect_only({"dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& a = arguments.inputs[0];
    const TensorView& b = arguments.inputs[1];
    const TensorView& out = arguments.outputs[0];
    const bool scalar = b.rank == 0;
    core::check_same(op(), arguments);
    core::check_run(scalar || b.columns() == a.columns(), op(), "a and b have different columns");
    core::check_run(a.rows() == 0 || (b.rows() > 0 && a.rows() % b.rows() == 0), op(), "the rows of a are no multiple of those of b");
    if (a.size() == 0) return;
    Binary binary{rows_of(a), rows_of(b), rows_of(out), a.rows(), a.columns(), b.rows(), kind_, scalar};
    const bool flat = a.contiguous() && out.contiguous() && (scalar || (b.rows() == a.rows() && b.contiguous()));
    if (flat) {
      binary.columns = a.size();
      binary.rows = binary.period = 1;
    }
    launch(library().binary, binary, arguments);
  }

 private:
  BinaryKind kind_;
};

class UnaryKernel final : public CudaKernel {
 public:
  UnaryKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec) {
    const Operands operands(spec, {"x"});
    operands.floats(0);
    operands.result_like(0);
    kind_ = static_cast<UnaryKind>(
        core::parse_choice(spec, "kind", {"gelu", "quick_gelu", "gelu_tanh", "relu", "silu", "tanh", "sigmoid", "exp", "neg", "sqrt", "abs"}));
    spec.attributes.expect_only({"kind", "dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[0];
    const TensorView& out = arguments.outputs[0];
    core::check_same(op(), arguments);
    if (x.size() == 0) return;
    const bool flat = x.contiguous() && out.contiguous();
    launch(library().unary, {rows_of(x), rows_of(out), flat ? 1 : x.rows(), flat ? x.size() : x.columns(), kind_}, arguments);
  }

 private:
  UnaryKind kind_;
};

class CastKernel final : public CudaKernel {
 public:
  CastKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec) {
    const Operands operands(spec, {"x"});
    operands.dtype(0, {DType::float32, DType::bfloat16, DType::float16, DType::int32, DType::uint8});
    operands.result_like(0);
    spec.attributes.expect_only({"dtype"});
  }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& x = arguments.inputs[0];
    const TensorView& out = arguments.outputs[0];
    core::check_same(op(), arguments);
    if (x.size() == 0) return;
    const bool flat = x.contiguous() && out.contiguous();
    launch(library().cast, {rows_of(x), rows_of(out), flat ? 1 : x.rows(), flat ? x.size() : x.columns()}, arguments);
  }
};

}  // namespace

std::unique_ptr<core::Kernel> make_binary(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<BinaryKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_unary(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<UnaryKernel>(spec, device); }
std::unique_ptr<core::Kernel> make_cast(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<CastKernel>(spec, device); }

}  // namespace chiasma::cuda
