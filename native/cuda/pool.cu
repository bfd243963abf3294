// pool: mean, maximum or sum/√length of each sequence's rows. A block takes 256 columns of one sequence; its warps take rows in turn and meet in
// shared memory, in a fixed order. Bound by memory.
#include "cuda/functions.cuh"
#include "cuda/kernels.cuh"
#include "cuda/rows.cuh"

namespace chiasma::cuda {

namespace {

constexpr int warps = 8;
constexpr int threads = warps * warp_size;
constexpr int strip = warp_size * piece_size;  // columns of a block

template <class In, class Out>
__global__ void __launch_bounds__(threads) pool_kernel(Pool a, int64_t strips, bool in_vectors, bool out_vectors) {
  SHARED(partial, float[warps][strip]);
  const int64_t s = blockIdx.x / strips;
  const int warp = static_cast<int>(threadIdx.x) / warp_size;
  const int place = lane_of_thread() * piece_size;  // in the strip
  const int64_t column = blockIdx.x % strips * strip + place;
  const int64_t left = a.columns - column;
  const int count = static_cast<int>(left < 0 ? 0 : left < piece_size ? left : piece_size);
  Span span = span_of(a.sequences, s, a.slot, threadIdx.x == 0);
  const int64_t skipped = a.skip < span.length ? a.skip : span.length;
  span = {span.begin + skipped, span.length - skipped};
  const bool is_max = a.mode == PoolMode::max;

  float sum[piece_size];
#pragma unroll
  for (int i = 0; i < piece_size; ++i) sum[i] = is_max ? -INFINITY : 0.0f;
  if (count > 0) {
    for (int64_t row = warp; row < span.length; row += warps) {
      float values[piece_size];
      load_piece(values, static_cast<const In*>(a.x.data) + (span.begin + row) * a.x.stride + column, count, in_vectors);
#pragma unroll
      for (int i = 0; i < piece_size; ++i) sum[i] = is_max ? greater(sum[i], values[i]) : sum[i] + values[i];
    }
  }
#pragma unroll
  for (int i = 0; i < piece_size; ++i) partial[warp][place + i] = sum[i];
  __syncthreads();
  if (warp != 0 || count == 0) return;
  for (int w = 1; w < warps; ++w) {
#pragma unroll
    for (int i = 0; i < piece_size; ++i) sum[i] = is_max ? greater(sum[i], partial[w][place + i]) : sum[i] + partial[w][place + i];
  }
  const float length = static_cast<float>(span.length);
  const float divisor = a.mode == PoolMode::mean ? length : a.mode == PoolMode::mean_sqrt_len ? sqrtf(length) : 1.0f;
#pragma unroll
  for (int i = 0; i < piece_size; ++i) sum[i] = span.length == 0 ? 0.0f : sum[i] / divisor;
  store_piece(static_cast<Out*>(a.out.data) + s * a.out.stride + column, sum, count, out_vectors);
}

}  // namespace

cudaError_t launch_pool(const Pool& a, cudaStream_t stream) {
  const int64_t strips = ceil_div(a.columns, strip);
  return with_float(a.x.type, [&](auto in) {
    return with_float(a.out.type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      return LAUNCH((pool_kernel<In, Out>), grid_of(a.sequences.count * strips), threads, 0, stream, a, strips, aligned<In>(a.x),
                    aligned<Out>(a.out));
    });
  });
}

}  // namespace chiasma::cuda
