// layerNorm, rmsNorm, l2Normalize, softmax: a warp for each row, sums in float32 in a fixed order. Bound by memory.
#include "cuda/kernels.cuh"
#include "cuda/rows.cuh"

namespace chiasma::cuda {

namespace {

constexpr int piece_columns = warp_size * piece_size;  // of a row that a warp holds in one piece for each lane

// sm_100: without the bound the compiler spills a register where there are enough.
template <class In, class Out, int Pieces>
__global__ void __launch_bounds__(row_threads, architecture == 1000 ? 1 : 0) layer_norm_kernel(LayerNorm a, bool in_vectors, bool out_vectors, bool weight_vectors) {
  const int64_t row = row_of_warp();
  if (row >= a.rows) return;
  const LaneRow<In, Pieces> x(a.x, row, a.columns, in_vectors);
  const float columns = static_cast<float>(a.columns);
  float sum = 0;
  x.each([&](const float(&values)[piece_size], int64_t, int) {
#pragma unroll
    for (int i = 0; i < piece_size; ++i) sum += values[i];
  });
  const float mean = warp_sum(sum) / columns;
  float squares = 0;
  x.each([&](const float(&values)[piece_size], int64_t, int count) {
#pragma unroll
    for (int i = 0; i < piece_size; ++i) {
      const float distance = values[i] - mean;
      squares += i < count ? distance * distance : 0.0f;
    }
  });
  const float scale = 1.0f / sqrtf(warp_sum(squares) / columns + a.eps);
  Out* const out = static_cast<Out*>(a.out.data) + row * a.out.stride;
  x.each([&](const float(&values)[piece_size], int64_t column, int count) {
    float result[piece_size];
#pragma unroll
    for (int i = 0; i < piece_size; ++i) result[i] = (values[i] - mean) * scale;
    if (a.weight) {
      float weight[piece_size];
      load_piece(weight, a.weight + column, count, weight_vectors);
#pragma unroll
      for (int i = 0; i < piece_size; ++i) result[i] *= weight[i];
    }
    if (a.bias) {
      float bias[piece_size];
      load_piece(bias, a.bias + column, count, weight_vectors);
#pragma unroll
      for (int i = 0; i < piece_size; ++i) result[i] += bias[i];
    }
    store_piece(out + column, result, count, out_vectors);
  });
}

template <class In, class Out, int Pieces>
__global__ void __launch_bounds__(row_threads, 1) rms_norm_kernel(RmsNorm a, bool in_vectors, bool out_vectors, bool weight_vectors) {
  const int64_t row = row_of_warp();
  if (row >= a.rows) return;
  const LaneRow<In, Pieces> x(a.x, row, a.columns, in_vectors);
  float squares = 0;
  x.each([&](const float(&values)[piece_size], int64_t, int) {
#pragma unroll
    for (int i = 0; i < piece_size; ++i) squares += values[i] * values[i];
  });
  const float scale = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(a.columns) + a.eps);
  Out* const out = static_cast<Out*>(a.out.data) + row * a.out.stride;
  x.each([&](const float(&values)[piece_size], int64_t column, int count) {
    float result[piece_size];
#pragma unroll
    for (int i = 0; i < piece_size; ++i) result[i] = values[i] * scale;
    if (a.weight) {
      float weight[piece_size];
      load_piece(weight, a.weight + column, count, weight_vectors);
#pragma unroll
      for (int i = 0; i < piece_size; ++i) result[i] *= weight[i];
    }
    store_piece(out + column, result, count, out_vectors);
  });
}

template <class In, class Out>
__global__ void __launch_bounds__(row_threads) l2_normalize_kernel(L2Normalize a, bool in_vectors, bool out_vectors) {
  const int64_t row = row_of_warp();
  if (row >= a.rows) return;
  const LaneRow<In, 0> x(a.x, row, a.columns, in_vectors);
  float sum = 0;
  x.each([&](const float(&values)[piece_size], int64_t, int) {
#pragma unroll
    for (int i = 0; i < piece_size; ++i) sum += values[i] * values[i];
  });
  const float norm = sqrtf(warp_sum(sum));
  const float divisor = norm <= a.eps ? a.eps : norm;  // NaN stays
  Out* const out = static_cast<Out*>(a.out.data) + row * a.out.stride;
  x.each([&](const float(&values)[piece_size], int64_t column, int count) {
    float result[piece_size];
#pragma unroll
    for (int i = 0; i < piece_size; ++i) result[i] = values[i] / divisor;
    store_piece(out + column, result, count, out_vectors);
  });
}

template <class In, class Out>
__global__ void __launch_bounds__(row_threads) softmax_kernel(Softmax a, bool in_vectors, bool out_vectors) {
  const int64_t row = row_of_warp();
  if (row >= a.rows) return;
  const LaneRow<In, 0> x(a.x, row, a.columns, in_vectors);
  float greatest = -INFINITY;
  x.each([&](const float(&values)[piece_size], int64_t, int count) {
#pragma unroll
    for (int i = 0; i < piece_size; ++i) greatest = i < count ? fmaxf(greatest, values[i]) : greatest;
  });
  greatest = warp_max(greatest);
  float sum = 0;
  x.each([&](const float(&values)[piece_size], int64_t, int count) {
#pragma unroll
    for (int i = 0; i < piece_size; ++i) sum += i < count ? expf(values[i] - greatest) : 0.0f;
  });
  sum = warp_sum(sum);
  Out* const out = static_cast<Out*>(a.out.data) + row * a.out.stride;
  x.each([&](const float(&values)[piece_size], int64_t column, int count) {
    float result[piece_size];
#pragma unroll
    for (int i = 0; i < piece_size; ++i) result[i] = expf(values[i] - greatest) / sum;
    store_piece(out + column, result, count, out_vectors);
  });
}

bool is_aligned(const float* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

}  // namespace

cudaError_t launch_layer_norm(const LayerNorm& a, cudaStream_t stream) {
  const bool weight_vectors = is_aligned(a.weight) && is_aligned(a.bias);
  return with_float(a.x.type, [&](auto in) {
    return with_float(a.out.type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      const auto launch = [&](auto kernel) {
        return LAUNCH(kernel, grid_of_rows(a.rows), row_threads, 0, stream, a, aligned<In>(a.x), aligned<Out>(a.out), weight_vectors);
      };
      switch (ceil_div(a.columns, piece_columns)) {
        case 0:
        case 1:
        case 2:
          return launch(layer_norm_kernel<In, Out, 2>);
        case 3:
          return launch(layer_norm_kernel<In, Out, 3>);
        case 4:
          return launch(layer_norm_kernel<In, Out, 4>);
        case 5:
          return launch(layer_norm_kernel<In, Out, 5>);
        default:
          return launch(layer_norm_kernel<In, Out, 0>);
      }
    });
  });
}

cudaError_t launch_rms_norm(const RmsNorm& a, cudaStream_t stream) {
  const bool weight_vectors = is_aligned(a.weight);
  return with_float(a.x.type, [&](auto in) {
    return with_float(a.out.type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      const auto launch = [&](auto kernel) {
        return LAUNCH(kernel, grid_of_rows(a.rows), row_threads, 0, stream, a, aligned<In>(a.x), aligned<Out>(a.out), weight_vectors);
      };
      const int64_t pieces = ceil_div(a.columns, piece_columns);
      if (pieces <= 1) return launch(rms_norm_kernel<In, Out, 1>);  // a head
      if (pieces <= 4) return launch(rms_norm_kernel<In, Out, 4>);
      return launch(rms_norm_kernel<In, Out, 0>);
    });
  });
}

cudaError_t launch_l2_normalize(const L2Normalize& a, cudaStream_t stream) {
  return with_float(a.x.type, [&](auto in) {
    return with_float(a.out.type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      return LAUNCH((l2_normalize_kernel<In, Out>), grid_of_rows(a.rows), row_threads, 0, stream, a, aligned<In>(a.x), aligned<Out>(a.out));
    });
  });
}

cudaError_t launch_softmax(const Softmax& a, cudaStream_t stream) {
  return with_float(a.x.type, [&](auto in) {
    return with_float(a.out.type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      return LAUNCH((softmax_kernel<In, Out>), grid_of_rows(a.rows), row_threads, 0, stream, a, aligned<In>(a.x), aligned<Out>(a.out));
    });
  });
}

}  // namespace chiasma::cuda
