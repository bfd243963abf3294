// patchify: pixels to the rows that patchEmbed's matrix product takes, normalised and cut into patches in one pass. Bound by memory: bytes are
// read and rows written by 16 bytes; between them a block holds the pixels of some patches and the values of all bytes in shared memory.
#include "cuda/kernels.cuh"
#include "cuda/rows.cuh"

namespace chiasma::cuda {

namespace {

constexpr int threads = 256;
constexpr int channels = 3;
constexpr int group = 8;       // patches of a block, side by side
constexpr int max_side = 32;   // of patches that a block holds
constexpr int vector_bytes = 16;

__device__ __forceinline__ float of_channel(const float (&values)[channels], int channel) {
  return channel == 0 ? values[0] : channel == 1 ? values[1] : values[2];  // an index would put the array into local memory
}
__device__ __forceinline__ float normalised(const Patchify& a, int value, int channel) {
  return (static_cast<float>(static_cast<double>(value) * a.rescale) - of_channel(a.mean, channel)) / of_channel(a.std, channel);
}

// Where an element of a patch's row comes from, and the next one.
struct Position {
  int channel, y, x;

  __device__ __forceinline__ Position(int column, int side) {
    const int area = side * side;
    channel = column / area;
    y = column % area / side;
    x = column % area % side;
  }
  __device__ __forceinline__ void advance(int side) {
    if (++x < side) return;
    x = 0;
    if (++y < side) return;
    y = 0;
    ++channel;
  }
};

// Bytes: a block for each `group` patches of a row of patches.
template <class Out>
__global__ void __launch_bounds__(threads) patchify_bytes_kernel(Patchify a, bool in_vectors) {
  SHARED(values, float[channels * 256]);
  SMEM_DYN(pixels, uint8_t);  // [side, pitch]
  const int side = static_cast<int>(a.side), across = static_cast<int>(a.width / a.side), down = static_cast<int>(a.height / a.side);
  const int groups = (across + group - 1) / group;
  const int64_t picture = static_cast<int64_t>(blockIdx.x) / (groups * down);
  const int within = static_cast<int>(static_cast<int64_t>(blockIdx.x) % (groups * down));
  const int patch_row = within / groups, first = within % groups * group;
  const int count = across - first < group ? across - first : group;

  for (int i = static_cast<int>(threadIdx.x); i < channels * 256; i += threads) values[i] = normalised(a, i % 256, i / 256);
  const int row_bytes = count * side * channels;
  const int pitch = group * max_side * channels;
  const int units = (row_bytes + vector_bytes - 1) / vector_bytes;
  const int64_t line_bytes = a.width * channels;
  const uint8_t* const from = static_cast<const uint8_t*>(a.pixels) + (picture * a.height + patch_row * side) * line_bytes + first * side * channels;
  for (int i = static_cast<int>(threadIdx.x); i < side * units; i += threads) {
    const int y = i / units, byte = i % units * vector_bytes;
    const uint8_t* const source = from + y * line_bytes + byte;
    uint8_t* const to = pixels + y * pitch + byte;
    if (in_vectors && byte + vector_bytes <= row_bytes) {
      *reinterpret_cast<uint4*>(to) = ptx::load_nc(reinterpret_cast<const uint4*>(source));
    } else {
      for (int b = 0; b < vector_bytes && byte + b < row_bytes; ++b) to[b] = ptx::load_nc(source + b);
    }
  }
  __syncthreads();

  const int pieces = static_cast<int>(a.out.stride / piece_size);
  const int depth = channels * side * side;
  const int64_t picture_row = picture * (static_cast<int64_t>(down) * across + a.first);
  Out* const out = static_cast<Out*>(a.out.data) + (picture_row + a.first + static_cast<int64_t>(patch_row) * across + first) * a.out.stride;
  for (int i = static_cast<int>(threadIdx.x); i < count * pieces; i += threads) {
    const int patch = i / pieces, column = i % pieces * piece_size;
    Position at(column, side);
    float piece[piece_size];
#pragma unroll
    for (int e = 0; e < piece_size; ++e) {
      piece[e] = 0;
      if (column + e < depth) piece[e] = values[at.channel * 256 + pixels[at.y * pitch + (patch * side + at.x) * channels + at.channel]];
      at.advance(side);
    }
    store_piece(out + patch * a.out.stride + column, piece, piece_size, true);
  }
  if (within > 0) return;
  constexpr float zeros[piece_size] = {};
  for (int i = static_cast<int>(threadIdx.x); i < a.first * pieces; i += threads) {
    store_piece(static_cast<Out*>(a.out.data) + picture_row * a.out.stride + i * piece_size, zeros, piece_size, true);
  }
}

// Pictures of floats, and patches of any size: a thread for each piece of eight elements of the output.
template <class Out>
__global__ void __launch_bounds__(threads) patchify_kernel(Patchify a) {
  const int64_t pieces = a.out.stride / piece_size;
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * threads + threadIdx.x;
  const int side = static_cast<int>(a.side);
  const int64_t across = a.width / side, per_picture = a.height / side * across + a.first;
  const int64_t row = piece / pieces, column = piece % pieces * piece_size;
  if (row >= a.pictures * per_picture) return;
  const int64_t picture = row / per_picture, patch = row % per_picture - a.first;
  const int64_t depth = int64_t{channels} * side * side;
  Position at(static_cast<int>(column), side);
  float values[piece_size];
#pragma unroll
  for (int i = 0; i < piece_size; ++i) {
    values[i] = 0;
    if (patch >= 0 && column + i < depth) {
      const int64_t y = patch / across * side + at.y, x = patch % across * side + at.x;
      if (a.bytes) {
        values[i] = normalised(a, ptx::load_nc(static_cast<const uint8_t*>(a.pixels) + ((picture * a.height + y) * a.width + x) * channels + at.channel), at.channel);
      } else {
        values[i] = ptx::load_nc(static_cast<const float*>(a.pixels) + ((picture * channels + at.channel) * a.height + y) * a.width + x);
      }
    }
    at.advance(side);
  }
  store_piece(static_cast<Out*>(a.out.data) + row * a.out.stride + column, values, piece_size, true);
}

}  // namespace

cudaError_t launch_patchify(const Patchify& a, cudaStream_t stream) {
  if (a.out.stride % piece_size != 0 || reinterpret_cast<uintptr_t>(a.out.data) % vector_bytes != 0) return cudaErrorInvalidValue;
  const int64_t across = a.width / a.side, down = a.height / a.side;
  return with_float(a.out.type, [&](auto out) {
    using Out = decltype(out);
    if (a.bytes && a.side <= max_side && across * down > 0) {
      const dim3 grid = grid_of(a.pictures * down * ceil_div(across, group));
      const auto shared_bytes = static_cast<size_t>(a.side * group * max_side * channels);
      const bool in_vectors = reinterpret_cast<uintptr_t>(a.pixels) % vector_bytes == 0 && a.width * channels % vector_bytes == 0 &&
                              a.height * a.width * channels % vector_bytes == 0 && group * a.side * channels % vector_bytes == 0;
      return LAUNCH((patchify_bytes_kernel<Out>), grid, threads, shared_bytes, stream, a, in_vectors);
    }
    const dim3 grid = grid_of(ceil_div(a.pictures * (down * across + a.first) * (a.out.stride / piece_size), threads));
    return LAUNCH((patchify_kernel<Out>), grid, threads, 0, stream, a);
  });
}

}  // namespace chiasma::cuda
