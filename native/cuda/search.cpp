// cosineTopK: the k best rows of a corpus for each query.
#include "core/op_specs.h"
#include "cuda/kernels.h"

namespace chiasma::cuda {

namespace {

using core::TensorView;
using core::TopKSpec;

class SearchKernel final : public CudaKernel {
 public:
  SearchKernel(const core::KernelSpec& spec, CudaDevice& device) : CudaKernel(device, spec), spec_(spec) {
    workspace_ = static_cast<size_t>(library().top_k_bytes(arguments_of(spec.inputs[TopKSpec::queries], spec.inputs[TopKSpec::corpus])));
  }

  size_t workspace_bytes() const override { return workspace_; }

  void run(const core::KernelArguments& arguments) override {
    const TensorView& scores = arguments.outputs[TopKSpec::scores];
    const TensorView& indices = arguments.outputs[TopKSpec::indices];
    const TensorView& norms = arguments.inputs[TopKSpec::norms];
    TopK what = arguments_of(arguments.inputs[TopKSpec::queries], arguments.inputs[TopKSpec::corpus]);
    core::check_run(scores.rows() == what.query_count && indices.rows() == what.query_count, op(), "queries and the outputs have different counts");
    core::check_run(!norms.present() || norms.shape[0] == what.rows, op(), "corpus and inverseNorms have different counts");
    if (norms.present()) what.inverse_norms = norms.as<const float>();
    what.scores = scores.as<float>();
    what.scores_stride = scores.row_stride;
    what.indices = indices.as<int32_t>();
    what.indices_stride = indices.row_stride;
    what.workspace = arguments.workspace;
    launch(library().top_k, what, arguments);
  }

 private:
  TopK arguments_of(const TensorView& queries, const TensorView& corpus) const {
    TopK what{};
    what.queries = rows_of(queries);
    what.corpus = rows_of(corpus);
    what.query_count = queries.rows();
    what.rows = corpus.rows();
    what.columns = spec_.columns;
    what.k = spec_.k;
    return what;
  }

  TopKSpec spec_;
  size_t workspace_ = 0;
};

}  // namespace

std::unique_ptr<core::Kernel> make_cosine_top_k(const core::KernelSpec& spec, CudaDevice& device) { return std::make_unique<SearchKernel>(spec, device); }

}  // namespace chiasma::cuda
