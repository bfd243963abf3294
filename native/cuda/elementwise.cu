// add, sub, mul, div, unary, cast: a thread for each piece of eight elements of a row. Bound by memory.
#include "cuda/functions.cuh"
#include "cuda/kernels.cuh"
#include "cuda/pieces.cuh"

namespace chiasma::cuda {

namespace {

template <class T>
__device__ __forceinline__ T* at(const Rows& rows, int64_t row, int64_t column) {
  return static_cast<T*>(rows.data) + row * rows.stride + column;
}

template <class A, class B, class Out>
__global__ void __launch_bounds__(piece_threads) binary_kernel(Binary a, bool a_vectors, bool b_vectors, bool out_vectors) {
  const Place place = place_of_thread(a.rows, a.columns);
  if (place.count == 0) return;
  float left[piece_size], right[piece_size], result[piece_size];
  load_piece(left, at<const A>(a.a, place.row, place.column), place.count, a_vectors);
  if (a.scalar) {
    const float value = to_float(ptx::load_nc(static_cast<const B*>(a.b.data)));
#pragma unroll
    for (int i = 0; i < piece_size; ++i) right[i] = value;
  } else {
    load_piece(right, at<const B>(a.b, place.row % a.period, place.column), place.count, b_vectors);
  }
#pragma unroll
  for (int i = 0; i < piece_size; ++i) {
    switch (a.kind) {
      case BinaryKind::add:
        result[i] = left[i] + right[i];
        break;
      case BinaryKind::sub:
        result[i] = left[i] - right[i];
        break;
      case BinaryKind::mul:
        result[i] = left[i] * right[i];
        break;
      case BinaryKind::div:
        result[i] = left[i] / right[i];
        break;
    }
  }
  store_piece(at<Out>(a.out, place.row, place.column), result, place.count, out_vectors);
}

template <class In, class Out>
__global__ void __launch_bounds__(piece_threads) unary_kernel(Unary a, bool in_vectors, bool out_vectors) {
  const Place place = place_of_thread(a.rows, a.columns);
  if (place.count == 0) return;
  float x[piece_size];
  load_piece(x, at<const In>(a.x, place.row, place.column), place.count, in_vectors);
  apply(a.kind, x);
  store_piece(at<Out>(a.out, place.row, place.column), x, place.count, out_vectors);
}

template <class In, class Out>
__global__ void __launch_bounds__(piece_threads) cast_kernel(Cast a, bool in_vectors, bool out_vectors) {
  const Place place = place_of_thread(a.rows, a.columns);
  if (place.count == 0) return;
  float x[piece_size];
  load_piece(x, at<const In>(a.x, place.row, place.column), place.count, in_vectors);
  store_piece(at<Out>(a.out, place.row, place.column), x, place.count, out_vectors);
}

template <class In>
cudaError_t launch_cast_from(const Cast& a, cudaStream_t stream) {
  return with_float(a.out.type, [&](auto out) {
    using Out = decltype(out);
    return LAUNCH((cast_kernel<In, Out>), grid_of_pieces(a.rows, a.columns), piece_threads, 0, stream, a, aligned<In>(a.x), aligned<Out>(a.out));
  });
}

}  // namespace

cudaError_t launch_binary(const Binary& a, cudaStream_t stream) {
  return with_float(a.a.type, [&](auto left) {
    return with_float(a.b.type, [&](auto right) {
      return with_float(a.out.type, [&](auto out) {
        using A = decltype(left);
        using B = decltype(right);
        using Out = decltype(out);
        return LAUNCH((binary_kernel<A, B, Out>), grid_of_pieces(a.rows, a.columns), piece_threads, 0, stream, a, aligned<A>(a.a), aligned<B>(a.b), aligned<Out>(a.out));
      });
    });
  });
}

cudaError_t launch_unary(const Unary& a, cudaStream_t stream) {
  return with_float(a.x.type, [&](auto in) {
    return with_float(a.out.type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      return LAUNCH((unary_kernel<In, Out>), grid_of_pieces(a.rows, a.columns), piece_threads, 0, stream, a, aligned<In>(a.x), aligned<Out>(a.out));
    });
  });
}

cudaError_t launch_cast(const Cast& a, cudaStream_t stream) {
  if (a.x.type == DType::int32) return launch_cast_from<int32_t>(a, stream);
  if (a.x.type == DType::uint8) return launch_cast_from<uint8_t>(a, stream);
  return with_float(a.x.type, [&](auto in) { return launch_cast_from<decltype(in)>(a, stream); });
}

}  // namespace chiasma::cuda
