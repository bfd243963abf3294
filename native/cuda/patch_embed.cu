// patchEmbed's own part: pixels to the rows that its matrix product takes, normalised and cut into patches in one pass, and the class tokens'
// rows. Bound by memory.
#include "cuda/kernels.cuh"
#include "cuda/rows.cuh"

namespace chiasma::cuda {

namespace {

constexpr int threads = 256;
constexpr int channels = 3;

// A thread for each piece of eight elements of the output.
template <class Out>
__global__ void __launch_bounds__(threads) patchify_kernel(Patchify a, bool out_vectors) {
  const int64_t pieces = ceil_div(a.out.stride, piece_size);
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  const int64_t patch_columns = a.width / a.side;
  const int64_t per_picture = a.height / a.side * patch_columns + a.first;
  const int64_t row = piece / pieces, column = piece % pieces * piece_size;
  if (row >= a.pictures * per_picture) return;
  const int64_t picture = row / per_picture, patch = row % per_picture - a.first;
  const int64_t area = a.side * a.side;
  const int count = static_cast<int>(a.out.stride - column < piece_size ? a.out.stride - column : piece_size);

  float values[piece_size];
#pragma unroll
  for (int i = 0; i < piece_size; ++i) {
    values[i] = 0;
    if (patch < 0 || column + i >= channels * area) continue;
    const int channel = static_cast<int>((column + i) / area);
    const int inside = static_cast<int>((column + i) % area);
    const int64_t y = patch / patch_columns * a.side + inside / static_cast<int>(a.side);
    const int64_t x = patch % patch_columns * a.side + inside % static_cast<int>(a.side);
    if (a.bytes) {
      const uint8_t byte = ptx::load_nc(static_cast<const uint8_t*>(a.pixels) + ((picture * a.height + y) * a.width + x) * channels + channel);
      values[i] = ptx::load_nc(a.normalised + channel * 256 + byte);
    } else {
      values[i] = ptx::load_nc(static_cast<const float*>(a.pixels) + ((picture * channels + channel) * a.height + y) * a.width + x);
    }
  }
  store_piece(static_cast<Out*>(a.out.data) + row * a.out.stride + column, values, count, out_vectors);
}

template <class Out>
__global__ void __launch_bounds__(threads) class_tokens_kernel(ClassTokens a) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  const int64_t picture = at / a.columns, column = at % a.columns;
  if (picture >= a.pictures) return;
  const float value = a.position ? a.token[column] + a.position[column] : a.token[column];
  static_cast<Out*>(a.out.data)[picture * a.tokens * a.out.stride + column] = round_to<Out>(value);
}

}  // namespace

cudaError_t launch_patchify(const Patchify& a, cudaStream_t stream) {
  const int64_t rows = a.pictures * (a.height / a.side * (a.width / a.side) + a.first);
  return with_float(a.out.type, [&](auto out) {
    using Out = decltype(out);
    const dim3 grid(static_cast<unsigned>(ceil_div(rows * ceil_div(a.out.stride, piece_size), threads)));
    return LAUNCH((patchify_kernel<Out>), grid, threads, 0, stream, a, aligned<Out>(a.out));
  });
}

cudaError_t launch_class_tokens(const ClassTokens& a, cudaStream_t stream) {
  return with_float(a.out.type, [&](auto out) {
    using Out = decltype(out);
    return LAUNCH((class_tokens_kernel<Out>), dim3(static_cast<unsigned>(ceil_div(a.pictures * a.columns, threads))), threads, 0, stream, a);
  });
}

}  // namespace chiasma::cuda
