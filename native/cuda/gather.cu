// gather, scatter, pickToken, prefixes: a warp moves each row, converted on the way if the types differ. Indices and lengths are checked where they are
// used; a row that a wrong one would name becomes zeros, and the fault is reported.
#include "cuda/kernels.cuh"
#include "cuda/rows.cuh"

namespace chiasma::cuda {

namespace {

// Row `from` of `source` to row `to` of `target`; zeros for from = -1.
template <class In, class Out>
__device__ __forceinline__ void move_row(const Rows& source, int64_t from, const Rows& target, int64_t to, int64_t columns, bool in_vectors, bool out_vectors) {
  Out* const out = static_cast<Out*>(target.data) + to * target.stride;
  if (from >= 0) {
    const LaneRow<In, 0> row(source, from, columns, in_vectors);
    row.each([&](const float(&values)[piece_size], int64_t column, int count) { store_piece(out + column, values, count, out_vectors); });
  } else {
    for (int64_t column = lane_of_thread(); column < columns; column += warp_size) out[column] = round_to<Out>(0.0f);
  }
}

template <class In, class Out>
__global__ void __launch_bounds__(row_threads) gather_kernel(Gather a, bool in_vectors, bool out_vectors) {
  const int64_t row = row_of_warp();
  if (row >= a.rows) return;
  int64_t from = a.indices[row];
  if (from < 0 || from >= a.table_rows) {
    if (lane_of_thread() == 0) report_fault(a.slot, row, static_cast<int32_t>(from));
    from = -1;
  }
  move_row<In, Out>(a.table, from, a.out, row, a.columns, in_vectors, out_vectors);
}

constexpr int32_t no_source = 0x7f7f7f7f;  // bytes that a memset can write

// sources[row]: the first index that names it.
__global__ void __launch_bounds__(row_threads) scatter_sources_kernel(Scatter a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * row_threads + threadIdx.x;
  if (i >= a.rows) return;
  const int32_t to = a.indices[i];
  if (to < 0 || to >= a.out_rows) {
    report_fault(a.slot, i, to);
  } else {
    atomicMin(a.sources + to, static_cast<int32_t>(i));
  }
}

__global__ void __launch_bounds__(row_threads) scatter_check_kernel(Scatter a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * row_threads + threadIdx.x;
  if (i >= a.rows) return;
  const int32_t to = a.indices[i];
  if (to >= 0 && to < a.out_rows && a.sources[to] != i) report_fault(a.slot, i, to);
}

template <class In, class Out>
__global__ void __launch_bounds__(row_threads) scatter_kernel(Scatter a, bool in_vectors, bool out_vectors) {
  const int64_t row = row_of_warp();
  if (row >= a.out_rows) return;
  const int32_t from = a.sources[row];
  move_row<In, Out>(a.x, from == no_source ? -1 : from, a.out, row, a.columns, in_vectors, out_vectors);
}

template <class In, class Out>
__global__ void __launch_bounds__(row_threads) pick_token_kernel(PickToken a, bool in_vectors, bool out_vectors) {
  const int64_t s = row_of_warp();
  if (s >= a.sequences.count) return;
  const Span span = span_of(a.sequences, s, a.slot, lane_of_thread() == 0);
  const int64_t from = span.length == 0 ? -1 : span.begin + (a.last ? span.length - 1 : 0);
  move_row<In, Out>(a.x, from, a.out, s, a.columns, in_vectors, out_vectors);
}

template <class Table, class In, class Out>
__global__ void __launch_bounds__(row_threads) prefix_kernel(Prefix a, bool table_vectors, bool x_vectors, bool out_vectors) {
  const int64_t row = row_of_warp();
  if (row >= a.rows) return;
  const int64_t s = row / (a.head + a.length), i = row % (a.head + a.length);
  if (i < a.head) {
    move_row<Table, Out>(a.table, a.each ? s * a.head + i : i, a.out, row, a.columns, table_vectors, out_vectors);
  } else {
    move_row<In, Out>(a.x, s * a.length + i - a.head, a.out, row, a.columns, x_vectors, out_vectors);
  }
}

}  // namespace

cudaError_t launch_gather(const Gather& a, cudaStream_t stream) {
  return with_float(a.table.type, [&](auto in) {
    return with_float(a.out.type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      return LAUNCH((gather_kernel<In, Out>), grid_of_rows(a.rows), row_threads, 0, stream, a, aligned<In>(a.table), aligned<Out>(a.out));
    });
  });
}

cudaError_t launch_scatter(const Scatter& a, cudaStream_t stream) {
  if (a.rows > no_source) return cudaErrorInvalidValue;
  cudaError_t error = cudaMemsetAsync(a.sources, 0x7f, static_cast<size_t>(a.out_rows) * sizeof(int32_t), stream);
  if (error != cudaSuccess) return error;
  const dim3 grid = grid_of(ceil_div(a.rows, row_threads));
  error = LAUNCH(scatter_sources_kernel, grid, row_threads, 0, stream, a);
  if (error != cudaSuccess) return error;
  error = LAUNCH(scatter_check_kernel, grid, row_threads, 0, stream, a);
  if (error != cudaSuccess) return error;
  return with_float(a.x.type, [&](auto in) {
    return with_float(a.out.type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      return LAUNCH((scatter_kernel<In, Out>), grid_of_rows(a.out_rows), row_threads, 0, stream, a, aligned<In>(a.x), aligned<Out>(a.out));
    });
  });
}

cudaError_t launch_prefix(const Prefix& a, cudaStream_t stream) {
  return with_float(a.table.type, [&](auto table) {
    return with_float(a.x.type, [&](auto in) {
      return with_float(a.out.type, [&](auto out) {
        using Table = decltype(table);
        using In = decltype(in);
        using Out = decltype(out);
        return LAUNCH((prefix_kernel<Table, In, Out>), grid_of_rows(a.rows), row_threads, 0, stream, a, aligned<Table>(a.table), aligned<In>(a.x),
                      aligned<Out>(a.out));
      });
    });
  });
}

cudaError_t launch_pick_token(const PickToken& a, cudaStream_t stream) {
  return with_float(a.x.type, [&](auto in) {
    return with_float(a.out.type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      return LAUNCH((pick_token_kernel<In, Out>), grid_of_rows(a.sequences.count), row_threads, 0, stream, a, aligned<In>(a.x), aligned<Out>(a.out));
    });
  });
}

}  // namespace chiasma::cuda
