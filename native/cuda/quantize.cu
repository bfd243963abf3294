// Rows of x as bytes for a product with an int8 weight: a warp for each row reads it for its range, then again for its bytes. Bound by memory.

#include "cuda/kernels.cuh"
#include "cuda/rows.cuh"

namespace chiasma::cuda {

namespace {

template <class In>
__global__ void __launch_bounds__(row_threads) quantize_kernel(Quantize a, bool in_vectors) {
  const int64_t row = row_of_warp();
  if (row >= a.rows) return;
  const LaneRow<In, 0> x(a.x, row, a.columns, in_vectors);
  float low = 0, high = 0, poison = 0;  // poison: NaN if a number is not finite
  x.each([&](const float(&values)[piece_size], int64_t, int) {
#pragma unroll
    for (int i = 0; i < piece_size; ++i) {
      low = fminf(low, values[i]);
      high = fmaxf(high, values[i]);
      poison += values[i] * 0.0f;
    }
  });
  low = -warp_max(-low);
  const float range = warp_max(high) - low + warp_sum(poison);
  // A range too small for its inverse counts as none.
  const bool usable = range >= 1e-30f && range < INFINITY;
  const float inverse = usable ? 255.0f / range : 0.0f;
  const float zero = rintf(-low * inverse);
  if (lane_of_thread() == 0) {
    a.scales[row] = usable ? range / 255.0f : range < INFINITY ? 0.0f : NAN;
    a.offsets[row] = usable ? 128 - static_cast<int>(zero) : 0;
  }
  int8_t* const out = static_cast<int8_t*>(a.out.data) + row * a.out.stride;
  x.each([&](const float(&values)[piece_size], int64_t column, int count) {
    uint32_t words[2] = {0, 0};
#pragma unroll
    for (int i = 0; i < piece_size; ++i) {
      const int byte = usable && i < count ? static_cast<int>(fminf(rintf(values[i] * inverse), 255.0f - zero) + zero) - 128 : 0;
      words[i / 4] |= (static_cast<uint32_t>(byte) & 0xffu) << i % 4 * 8;
    }
    *reinterpret_cast<uint2*>(out + column) = make_uint2(words[0], words[1]);
  });
}

}  // namespace

cudaError_t launch_quantize(const Quantize& a, cudaStream_t stream) {
  if (a.out.stride % piece_size != 0 || a.out.stride < a.columns) return cudaErrorInvalidValue;
  return with_float(a.x.type, [&](auto in) {
    using In = decltype(in);
    return LAUNCH((quantize_kernel<In>), grid_of_rows(a.rows), row_threads, 0, stream, a, aligned<In>(a.x));
  });
}

}  // namespace chiasma::cuda
