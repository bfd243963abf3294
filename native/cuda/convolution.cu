// unfold, depthwise, pool_windows, scale_sequences: a thread for each piece of eight columns of a row of the output. Bound by memory; what windows share
// comes from the caches.
#include "cuda/functions.cuh"
#include "cuda/kernels.cuh"
#include "cuda/pieces.cuh"

namespace chiasma::cuda {

namespace {

// A window's first pixel: its row in x, and where it lies in the picture, perhaps outside.
struct Corner {
  int64_t row, y, x;
};
__device__ __forceinline__ Corner corner_of(const Windows& w, int64_t row) {
  const int64_t per_picture = w.down * w.across;
  const int64_t picture = row / per_picture, within = row % per_picture;
  const int64_t y = within / w.across * w.stride_y - w.top, x = within % w.across * w.stride_x - w.left;
  return {(picture * w.height + y) * w.width + x, y, x};
}
__device__ __forceinline__ bool inside(const Windows& w, const Corner& corner, int64_t ky, int64_t kx) {
  const int64_t y = corner.y + ky, x = corner.x + kx;
  return y >= 0 && y < w.height && x >= 0 && x < w.width;
}

// body(row of x, number of the pixel in the window) for each pixel of the window that is within its picture.
template <class F>
__device__ __forceinline__ void for_pixels(const Windows& w, int64_t row, F&& body) {
  const Corner corner = corner_of(w, row);
  for (int64_t ky = 0; ky < w.kernel_y; ++ky) {
    for (int64_t kx = 0; kx < w.kernel_x; ++kx) {
      if (inside(w, corner, ky, kx)) body(corner.row + ky * w.width + kx, ky * w.kernel_x + kx);
    }
  }
}

template <class In, class Out>
__global__ void __launch_bounds__(piece_threads) unfold_kernel(Unfold a, bool in_vectors) {
  const Place place = place_of_thread(a.rows, a.out.stride);
  if (place.count == 0) return;
  const Windows& w = a.windows;
  const Corner corner = corner_of(w, place.row);
  const In* const x = static_cast<const In*>(a.x.data);
  const int64_t depth = w.kernel_y * w.kernel_x * a.channels;
  int64_t pixel = place.column / a.channels, channel = place.column % a.channels;
  float values[piece_size] = {};
  if (a.channels % piece_size == 0) {  // the piece is one pixel's
    const int64_t ky = pixel / w.kernel_x, kx = pixel % w.kernel_x;
    if (place.column < depth && inside(w, corner, ky, kx)) {
      load_piece(values, x + (corner.row + ky * w.width + kx) * a.x.stride + channel, piece_size, in_vectors);
    }
  } else {
    int64_t ky = pixel / w.kernel_x, kx = pixel % w.kernel_x;
#pragma unroll
    for (int i = 0; i < piece_size; ++i) {
      if (place.column + i < depth && inside(w, corner, ky, kx)) values[i] = to_float(ptx::load_nc(x + (corner.row + ky * w.width + kx) * a.x.stride + channel));
      if (++channel == a.channels) {
        channel = 0;
        if (++kx == w.kernel_x) {
          kx = 0;
          ++ky;
        }
      }
    }
  }
  store_piece(static_cast<Out*>(a.out.data) + place.row * a.out.stride + place.column, values, piece_size, true);
}

template <class In, class Out>
__global__ void __launch_bounds__(piece_threads) depthwise_kernel(Depthwise a, bool in_vectors, bool weight_vectors, bool out_vectors) {
  const Place place = place_of_thread(a.rows, a.columns);
  if (place.count == 0) return;
  float sum[piece_size] = {};
  if (a.bias) {
#pragma unroll
    for (int i = 0; i < piece_size; ++i) {
      if (i < place.count) sum[i] = ptx::load_nc(a.bias + place.column + i);
    }
  }
  for_pixels(a.windows, place.row, [&](int64_t row, int64_t pixel) {
    float values[piece_size], weights[piece_size];
    load_piece(values, static_cast<const In*>(a.x.data) + row * a.x.stride + place.column, place.count, in_vectors);
    load_piece(weights, a.weight + pixel * a.weight_stride + place.column, place.count, weight_vectors);
#pragma unroll
    for (int i = 0; i < piece_size; ++i) sum[i] = fmaf(values[i], weights[i], sum[i]);
  });
  if (a.activated) apply(a.activation, sum);
  store_piece(static_cast<Out*>(a.out.data) + place.row * a.out.stride + place.column, sum, place.count, out_vectors);
}

// sm_120: without the bound the compiler spills registers where there are enough.
template <class In, class Out>
__global__ void __launch_bounds__(piece_threads, architecture == 1200 ? 1 : 0) pool_windows_kernel(PoolWindows a, bool in_vectors, bool out_vectors) {
  const Place place = place_of_thread(a.rows, a.columns);
  if (place.count == 0) return;
  float all[piece_size];
#pragma unroll
  for (int i = 0; i < piece_size; ++i) all[i] = a.max ? -INFINITY : 0.0f;
  int pixels = 0;
  for_pixels(a.windows, place.row, [&](int64_t row, int64_t) {
    float values[piece_size];
    load_piece(values, static_cast<const In*>(a.x.data) + row * a.x.stride + place.column, place.count, in_vectors);
#pragma unroll
    for (int i = 0; i < piece_size; ++i) all[i] = a.max ? greater(all[i], values[i]) : all[i] + values[i];
    ++pixels;
  });
  const float divisor = a.max ? 1.0f : static_cast<float>(pixels);
#pragma unroll
  for (int i = 0; i < piece_size; ++i) all[i] /= divisor;
  store_piece(static_cast<Out*>(a.out.data) + place.row * a.out.stride + place.column, all, place.count, out_vectors);
}

template <class In, class Out>
__global__ void __launch_bounds__(piece_threads) scale_sequences_kernel(ScaleSequences a, bool in_vectors, bool out_vectors) {
  const Place place = place_of_thread(a.rows, a.columns);
  if (place.count == 0) return;
  const int64_t s = place.row / a.length;
  float x[piece_size];
  load_piece(x, static_cast<const In*>(a.x.data) + place.row * a.x.stride + place.column, place.count, in_vectors);
#pragma unroll
  for (int i = 0; i < piece_size; ++i) {
    if (i >= place.count) continue;
    x[i] *= ptx::load_nc(a.scale + s * a.scale_stride + place.column + i);
    if (a.shift) x[i] += ptx::load_nc(a.shift + s * a.shift_stride + place.column + i);
  }
  store_piece(static_cast<Out*>(a.out.data) + place.row * a.out.stride + place.column, x, place.count, out_vectors);
}

// Calls f(In, Out) with values of the types of x and out, and a grid for the pieces of so many rows.
template <class Arguments, class F>
cudaError_t over_rows(const Arguments& a, int64_t columns, F&& f) {
  const dim3 grid = grid_of_pieces(a.rows, columns);
  return with_float(a.x.type, [&](auto in) { return with_float(a.out.type, [&](auto out) { return f(in, out, grid); }); });
}

}  // namespace

cudaError_t launch_unfold(const Unfold& a, cudaStream_t stream) {
  if (a.out.stride % piece_size != 0 || reinterpret_cast<uintptr_t>(a.out.data) % 16 != 0) return cudaErrorInvalidValue;
  return over_rows(a, a.out.stride, [&](auto in, auto out, dim3 grid) {
    return LAUNCH((unfold_kernel<decltype(in), decltype(out)>), grid, piece_threads, 0, stream, a, aligned<decltype(in)>(a.x));
  });
}

cudaError_t launch_depthwise(const Depthwise& a, cudaStream_t stream) {
  const bool weight_vectors = reinterpret_cast<uintptr_t>(a.weight) % 16 == 0 && a.weight_stride % 4 == 0;
  return over_rows(a, a.columns, [&](auto in, auto out, dim3 grid) {
    return LAUNCH((depthwise_kernel<decltype(in), decltype(out)>), grid, piece_threads, 0, stream, a, aligned<decltype(in)>(a.x), weight_vectors, aligned<decltype(out)>(a.out));
  });
}

cudaError_t launch_pool_windows(const PoolWindows& a, cudaStream_t stream) {
  return over_rows(a, a.columns, [&](auto in, auto out, dim3 grid) {
    return LAUNCH((pool_windows_kernel<decltype(in), decltype(out)>), grid, piece_threads, 0, stream, a, aligned<decltype(in)>(a.x), aligned<decltype(out)>(a.out));
  });
}

cudaError_t launch_scale_sequences(const ScaleSequences& a, cudaStream_t stream) {
  return over_rows(a, a.columns, [&](auto in, auto out, dim3 grid) {
    return LAUNCH((scale_sequences_kernel<decltype(in), decltype(out)>), grid, piece_threads, 0, stream, a, aligned<decltype(in)>(a.x), aligned<decltype(out)>(a.out));
  });
}

}  // namespace chiasma::cuda
