// Rows so far apart that offsets pass 2^31 elements: each kernel gives the bits that it gives of rows side by side. What lies between takes no memory.
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "cuda/attention.cuh"
#include "cuda/kernels.cuh"
#include "cuda/sim/options.h"
#include "matrices.h"
#include "test.h"

namespace chiasma::cuda {

namespace {

using test::check_cuda;
using test::DeviceArray;

constexpr int64_t near_stride = 192, far_stride = (int64_t{1} << 31) + 64;

// [rows, columns] of a device's memory, standard normal.
template <class T>
class FarRows {
 public:
  FarRows(int64_t rows, int64_t columns, int64_t stride, uint32_t seed, float size = 1) : rows_(rows), columns_(columns), stride_(stride) {
    if (cudaMalloc(&data_, static_cast<size_t>((rows - 1) * stride + columns) * sizeof(T)) != cudaSuccess) SKIP("the system does not give addresses for so much");
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    std::vector<T> row(static_cast<size_t>(columns));
    for (int64_t r = 0; r < rows; ++r) {
      for (T& value : row) value = test::rounded<T>(normal(random) * size);
      check_cuda(cudaMemcpy(data_ + r * stride, row.data(), row.size() * sizeof(T), cudaMemcpyHostToDevice));
    }
  }
  ~FarRows() { cudaFree(data_); }
  FarRows(const FarRows&) = delete;
  FarRows& operator=(const FarRows&) = delete;

  Rows view() const { return {data_, stride_, test::dtype_of<T>}; }
  T* data() const { return data_; }
  // The bytes of all rows.
  std::string bytes() const {
    std::string all;
    std::string row(static_cast<size_t>(columns_) * sizeof(T), '\0');
    for (int64_t r = 0; r < rows_; ++r) {
      check_cuda(cudaMemcpy(row.data(), data_ + r * stride_, row.size(), cudaMemcpyDeviceToHost));
      all += row;
    }
    return all;
  }

 private:
  T* data_ = nullptr;
  int64_t rows_, columns_, stride_;
};

// `work` of a stride launches a kernel and gives the bytes of its result.
void same_bits(const char* name, const std::function<std::string(int64_t stride)>& work) {
  NOTE(name);
  struct Memory {
    sim::Options before = sim::options();
    Memory() {
      sim::Options options = before;
      options.memory_bytes = size_t{64} << 30;
      sim::set_options(options);
    }
    ~Memory() { sim::set_options(before); }
  } memory;
  const std::string near = work(near_stride), far = work(far_stride);
  CHECK(!near.empty() && near == far);
}

void done(cudaError_t error) {
  const std::string report = sim::take_report();
  NOTE("report: " + report);
  CHECK(error == cudaSuccess);
}

constexpr int64_t rows = 2, columns = 128;

// launch(x, out) with two rows of each.
void rows_to_rows(const char* name, const std::function<cudaError_t(const Rows& x, const Rows& out)>& launch) {
  same_bits(name, [&](int64_t stride) {
    const FarRows<bf16> x(rows, columns, stride, 1), out(rows, columns, stride, 2);
    done(launch(x.view(), out.view()));
    return out.bytes();
  });
}

const std::vector<Fault> no_fault{{no_kernel, no_kernel, ~uint64_t{0}}};

}  // namespace

TEST("far rows: norms and elementwise") {
  rows_to_rows("layer_norm", [](const Rows& x, const Rows& out) { return launch_layer_norm({x, out, rows, columns, nullptr, nullptr, 1e-5f}, nullptr); });
  rows_to_rows("rms_norm", [](const Rows& x, const Rows& out) { return launch_rms_norm({x, out, rows, columns, nullptr, 1e-5f}, nullptr); });
  rows_to_rows("l2_normalize", [](const Rows& x, const Rows& out) { return launch_l2_normalize({x, out, rows, columns, 1e-5f}, nullptr); });
  rows_to_rows("softmax", [](const Rows& x, const Rows& out) { return launch_softmax({x, out, rows, columns}, nullptr); });
  rows_to_rows("unary", [](const Rows& x, const Rows& out) { return launch_unary({x, out, rows, columns, UnaryKind::gelu}, nullptr); });
  rows_to_rows("cast", [](const Rows& x, const Rows& out) { return launch_cast({x, out, rows, columns}, nullptr); });
  same_bits("binary", [](int64_t stride) {
    const FarRows<bf16> a(rows, columns, stride, 1), b(rows, columns, stride, 2), out(rows, columns, stride, 3);
    done(launch_binary({a.view(), b.view(), out.view(), rows, columns, rows, BinaryKind::mul, false}, nullptr));
    return out.bytes();
  });
}

TEST("far rows: gather, scatter, sequences and rotary") {
  const DeviceArray<Fault> fault(no_fault);
  const FaultSlot slot{fault.get(), 1};
  const DeviceArray<int32_t> swapped(std::vector<int32_t>{1, 0}), sources(2);
  const Sequences two{nullptr, 1, 2, 2};  // of one row each
  rows_to_rows("gather", [&](const Rows& x, const Rows& out) { return launch_gather({x, out, swapped.get(), rows, rows, columns, slot}, nullptr); });
  rows_to_rows("scatter", [&](const Rows& x, const Rows& out) { return launch_scatter({x, out, swapped.get(), sources.get(), rows, rows, columns, slot}, nullptr); });
  rows_to_rows("pick_token", [&](const Rows& x, const Rows& out) { return launch_pick_token({x, out, two, columns, true, slot}, nullptr); });
  rows_to_rows("pool", [&](const Rows& x, const Rows& out) { return launch_pool({x, out, two, columns, PoolMode::mean, 0, slot}, nullptr); });
  same_bits("prefix", [](int64_t stride) {
    const FarRows<bf16> table(rows, columns, stride, 1), x(rows, columns, stride, 2), out(4, columns, stride, 3);
    done(launch_prefix({table.view(), x.view(), out.view(), 1, 1, 4, columns, true}, nullptr));
    return out.bytes();
  });
  same_bits("rotary", [&](int64_t stride) {
    const FarRows<bf16> x(rows, columns, stride, 1), out(rows, columns, stride, 2);
    const FarRows<float> table(rows, 64, stride, 3);
    done(launch_rotary({x.view(), out.view(), table.view(), swapped.get(), 0, rows, rows, 2, 64, 64, slot}, nullptr));
    return out.bytes();
  });
  CHECK(fault.read()[0].kernel == no_kernel);
}

TEST("far rows: windows") {
  const Windows windows{1, 1, 1, 1, 1, 1, 0, 0, 1, 1};  // pictures of one pixel
  rows_to_rows("pool_windows", [&](const Rows& x, const Rows& out) { return launch_pool_windows({x, out, windows, rows, columns, true}, nullptr); });
  rows_to_rows("depthwise", [&](const Rows& x, const Rows& out) {
    const DeviceArray<float> weight(std::vector<float>(columns, 0.5f));
    return launch_depthwise({x, out, windows, rows, columns, weight.get(), columns, nullptr, false, UnaryKind::relu}, nullptr);
  });
  same_bits("unfold", [&](int64_t stride) {  // its output is dense
    const FarRows<bf16> x(rows, columns, stride, 1), out(rows, columns, columns, 2);
    done(launch_unfold({x.view(), out.view(), windows, rows, columns}, nullptr));
    return out.bytes();
  });
  same_bits("scale_sequences", [](int64_t stride) {
    const FarRows<bf16> x(rows, columns, stride, 1), out(rows, columns, stride, 2);
    const FarRows<float> scale(rows, columns, stride, 3), shift(rows, columns, stride, 4);
    done(launch_scale_sequences({x.view(), out.view(), scale.data(), stride, shift.data(), stride, 1, rows, columns}, nullptr));
    return out.bytes();
  });
}

namespace {

template <class T, class Out>
std::string product(int64_t stride) {
  const FarRows<T> x(rows, columns, stride, 1, 20), weight(2, columns, stride, 2, 20);
  const FarRows<Out> out(rows, 2, stride, 3), residual(rows, 2, stride, 4);
  Gemm gemm{};
  gemm.x = x.view();
  gemm.weight = weight.view();
  gemm.out = out.view();
  gemm.rows = gemm.period = rows;
  gemm.columns = 2;
  gemm.inner = columns;
  gemm.scale = 1;
  gemm.residual = residual.view();
  done(launch_gemm(gemm, nullptr));
  return out.bytes();
}

}  // namespace

TEST("far rows: products") {
  same_bits("bf16", product<bf16, bf16>);
  same_bits("int8", product<int8_t, float>);
  same_bits("float32", product<float, float>);
  same_bits("quantize", [](int64_t stride) {
    const FarRows<float> x(rows, columns, stride, 1);
    const FarRows<int8_t> out(rows, columns, stride, 2);
    const DeviceArray<float> scales(rows);
    const DeviceArray<int32_t> offsets(rows);
    done(launch_quantize({x.view(), out.view(), rows, columns, scales.get(), offsets.get()}, nullptr));
    return out.bytes();
  });
}

namespace {

template <class T, cudaError_t (*launch)(const Attention&, cudaStream_t)>
std::string attend(int64_t stride) {
  const DeviceArray<Fault> fault(no_fault);
  const DeviceArray<int32_t> queries(std::vector<int32_t>{0, 1, 2}), keys(std::vector<int32_t>{0, 1, 2});
  const FarRows<T> q(rows, columns, stride, 1), k(rows, columns, stride, 2), v(rows, columns, stride, 3), out(rows, columns, stride, 4);
  Attention a{};
  a.q = q.view();
  a.k = k.view();
  a.v = v.view();
  a.out = out.view();
  a.queries = {queries.get(), 0, 2, rows};
  a.keys = {keys.get(), 0, 2, rows};
  a.heads = a.kv_heads = 2;
  a.head_size = columns / 2;
  a.scale = 0.1f;
  a.slot = {fault.get(), 1};
  done(launch(a, nullptr));
  CHECK(fault.read()[0].kernel == no_kernel);
  return out.bytes();
}

template <class T>
std::string search(int64_t stride) {
  const FarRows<float> queries(rows, columns, stride, 1), scores(rows, 2, stride, 3);
  const FarRows<T> corpus(rows, columns, stride, 2, 20);
  const DeviceArray<int32_t> indices(rows * 2);
  TopK a{};
  a.queries = queries.view();
  a.corpus = corpus.view();
  a.query_count = a.rows = rows;
  a.columns = columns;
  a.k = 2;
  a.scores = scores.data();
  a.scores_stride = stride;
  a.indices = indices.get();
  a.indices_stride = 2;
  const DeviceArray<char> workspace(static_cast<size_t>(top_k_bytes(a)));
  a.workspace = workspace.get();
  done(launch_top_k(a, nullptr));
  return scores.bytes();
}

}  // namespace

TEST("far rows: attention and search") {
  same_bits("resident", attend<bf16, launch_attention>);
  same_bits("ring", attend<bf16, launch_attention_ring>);
  same_bits("float32", attend<float, launch_attention>);
  same_bits("bf16 corpus", search<bf16>);
  same_bits("int8 corpus", search<int8_t>);
  same_bits("float32 corpus", search<float>);
}

}  // namespace chiasma::cuda
