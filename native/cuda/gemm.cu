// gemm: out = activation(x · weightᵀ · scale + bias) + residual. M rows of x, N of the weight, K columns of both.
//
// Tensor cores (bf16, f16, int8): a block computes a tile of the result; slices of 64 bytes of K run through a ring of three or four stages in shared memory, filled by
// cp.async and read by ldmatrix, the next k-step's fragments while the current one multiplies. Neighbouring blocks share rows of x or of the weight, which L2
// then holds. The epilogue goes through shared memory, so that bias, residual and result move by 16 bytes.
// float32: the same ring, products in float32 by the ordinary cores, since 1e-4 is beyond what one TF32 product keeps.
//
// Each element is the sum of its products in order of K, whatever the tile, the place in it and the number of rows: a row has the same bits in any batch.
#include "cuda/functions.cuh"
#include "cuda/gemm.cuh"
#include "cuda/kernels.cuh"
#include "cuda/rows.cuh"
#include "cuda/tile.cuh"

namespace chiasma::cuda {

namespace {

constexpr int slice_units = 4;  // of K, in a stage
constexpr int slice_bytes = slice_units * unit_bytes;
constexpr int raster_rows = 8;  // tiles of M that neighbouring blocks go through together
using Slice = Tile<slice_units>;

// Which 16-byte accesses the epilogue may make.
struct Vectors {
  bool bias, residual, out;
};

// Rows [row, row + Rows) of an operand, bytes [byte, byte + slice_bytes) of each, into a stage; what is outside the matrix becomes zero.
// Interleaved, row 8·x + j of the stage's 64 lies at x + 8·j.
template <int Rows, int Threads, bool Interleaved = false>
__device__ __forceinline__ void start_slice(uint32_t stage, const uint8_t* data, int64_t row_bytes, int64_t row, int64_t rows, int64_t byte, int64_t bytes) {
#pragma unroll
  for (int i = 0; i < ceil_div(Rows * slice_units, Threads); ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * Threads;
    if (Rows * slice_units % Threads != 0 && at >= Rows * slice_units) break;
    const int tile_row = at / slice_units, unit = at % slice_units;
    const int64_t left = bytes - byte - unit * unit_bytes;
    const bool inside = row + tile_row < rows && left > 0;
    const uint8_t* const from = inside ? data + (row + tile_row) * row_bytes + byte + unit * unit_bytes : data;
    const int place = Interleaved ? tile_row % 8 * 8 + tile_row / 8 : tile_row;
    ptx::cp_async<unit_bytes>(stage + Slice::offset(place, unit), from, !inside ? 0 : left < unit_bytes ? static_cast<int>(left) : unit_bytes);
  }
}

// The tile of this block: first row and first column.
struct Place {
  int64_t row, column;
};
template <int TileRows, int TileColumns>
__device__ __forceinline__ Place tile_of_block(const Gemm& a) {
  const int64_t tile_rows = ceil_div(a.rows, TileRows), tile_columns = ceil_div(a.columns, TileColumns);
  const int64_t group = static_cast<int64_t>(blockIdx.x) / (raster_rows * tile_columns);
  const int64_t within = static_cast<int64_t>(blockIdx.x) % (raster_rows * tile_columns);
  const int64_t first = group * raster_rows;
  const int64_t height = tile_rows - first < raster_rows ? tile_rows - first : raster_rows;
  return {(first + within % height) * TileRows, within / height * TileColumns};
}

template <class F>
__device__ __forceinline__ void with_type(DType type, F&& f) {
  if (type == DType::float32) f(float{});
  if (type == DType::bfloat16) f(bf16{});
  if (type == DType::float16) f(f16{});
}

// Sums of bytes to numbers.
__device__ __forceinline__ void scale_bytes(const Gemm& a, const int (&from)[piece_size], float (&to)[piece_size], int64_t row, int64_t column, int count) {
  if (!a.x_scales) {
#pragma unroll
    for (int i = 0; i < piece_size; ++i) to[i] = static_cast<float>(from[i]);
    return;
  }
  const float scale = a.x_scales[row];
  const auto offset = static_cast<uint32_t>(a.x_offsets[row]);
#pragma unroll
  for (int i = 0; i < piece_size; ++i) {
    to[i] = 0;
    if (i >= count) continue;
    // The sum of steps fits in an int32; its parts may not, and wrap around as unsigned numbers do.
    const uint32_t steps = static_cast<uint32_t>(from[i]) + offset * static_cast<uint32_t>(a.weight_sums[column + i]);
    to[i] = static_cast<float>(static_cast<int32_t>(steps)) * (scale * a.weight_scales[column + i]);
  }
}

// From sums to results: `count` neighbours of one row.
__device__ __forceinline__ void finish(const Gemm& a, float (&sums)[piece_size], int64_t row, int64_t column, int count, const Vectors& vectors) {
  const int64_t in_period = row < a.period ? row : static_cast<int64_t>(static_cast<uint32_t>(row) % static_cast<uint32_t>(a.period));
  const bool first = a.first && in_period == 0;
#pragma unroll
  for (int i = 0; i < piece_size; ++i) sums[i] = first ? 0.0f : sums[i] * a.scale;
  if (const float* const from = first ? a.first : a.bias) {
    float bias[piece_size];
    load_piece(bias, from + column, count, vectors.bias);
#pragma unroll
    for (int i = 0; i < piece_size; ++i) sums[i] += bias[i];
  }
  if (a.activated) apply(a.activation, sums);
  if (a.residual.data) {
    with_type(a.residual.type, [&](auto type) {
      using T = decltype(type);
      float residual[piece_size];
      load_piece(residual, static_cast<const T*>(a.residual.data) + in_period * a.residual.stride + column, count, vectors.residual);
#pragma unroll
      for (int i = 0; i < piece_size; ++i) sums[i] += residual[i];
    });
  }
  with_type(a.out.type, [&](auto type) {
    using T = decltype(type);
    store_piece(static_cast<T*>(a.out.data) + row * a.out.stride + column, sums, count, vectors.out);
  });
}

template <class T>
struct Math;
template <>
struct Math<bf16> {
  static constexpr ptx::Product product = ptx::Product::bf16;
  using Sum = float;
  using Two = float2;
  using Four = float4;
};
template <>
struct Math<f16> : Math<bf16> {
  static constexpr ptx::Product product = ptx::Product::f16;
};
template <>
struct Math<int8_t> {
  static constexpr ptx::Product product = ptx::Product::s8;
  using Sum = int;
  using Two = int2;
  using Four = int4;
};

// WarpRows × WarpColumns of the result for each warp, WarpsDown × WarpsAcross warps, a ring of `stages`.
template <int WarpRows_, int WarpColumns_, int WarpsDown_, int WarpsAcross_, int Stages = 4>
struct Shape {
  static constexpr int WarpRows = WarpRows_, WarpColumns = WarpColumns_, WarpsDown = WarpsDown_, WarpsAcross = WarpsAcross_, stages = Stages;
  static constexpr int rows = WarpRows * WarpsDown, columns = WarpColumns * WarpsAcross;
  static constexpr int threads = WarpsDown * WarpsAcross * warp_size;
  static constexpr int blocks = WarpRows >= 64 ? 2 : 4;  // of a multiprocessor, at least: what registers are dealt out for
  static constexpr int stage_bytes = (rows + columns) * slice_bytes;
  static constexpr int slab_stride = WarpColumns + 8;  // floats: neighbouring rows start in different banks
  static constexpr int slab_bytes = WarpsDown * WarpsAcross * 16 * slab_stride * 4;
  static constexpr int shared_bytes = stages * stage_bytes > slab_bytes ? stages * stage_bytes : slab_bytes;
};
using Large = Shape<64, 64, 2, 2>;
using LargeThree = Shape<64, 64, 2, 2, 3>;
using Middle = Shape<32, 32, 2, 2>;
using Small = Shape<16, 16, 1, 4>;

template <class T, class S>
__global__ void __launch_bounds__(S::threads, S::blocks) gemm_mma_kernel(Gemm a, Vectors vectors) {
  using Sum = typename Math<T>::Sum;
  using Two = typename Math<T>::Two;
  using Four = typename Math<T>::Four;
  constexpr int row_blocks = S::WarpRows / 16, column_blocks = S::WarpColumns / 8;
  SMEM_DYN(shared, uint8_t);
  const uint32_t ring = ptx::shared_address(shared);
  const int lane = lane_of_thread(), warp = static_cast<int>(threadIdx.x) / warp_size;
  const int warp_row = warp / S::WarpsAcross * S::WarpRows, warp_column = warp % S::WarpsAcross * S::WarpColumns;
  const Place tile = tile_of_block<S::rows, S::columns>(a);

  const auto* const x = static_cast<const uint8_t*>(a.x.data);
  const auto* const weight = static_cast<const uint8_t*>(a.weight.data);
  const int64_t bytes = a.inner * static_cast<int64_t>(sizeof(T));
  const int slices = static_cast<int>(ceil_div(bytes, slice_bytes));
  const auto start_stage = [&](int slice) {
    if (slice < slices) {
      const uint32_t stage = ring + static_cast<uint32_t>(slice % S::stages * S::stage_bytes);
      const int64_t byte = static_cast<int64_t>(slice) * slice_bytes;
      start_slice<S::rows, S::threads>(stage, x, a.x.stride * static_cast<int64_t>(sizeof(T)), tile.row, a.rows, byte, bytes);
      start_slice<S::columns, S::threads>(stage + S::rows * slice_bytes, weight, a.weight.stride * static_cast<int64_t>(sizeof(T)), tile.column, a.columns,
                                          byte, bytes);
    }
    ptx::cp_async_commit();  // an empty group too: waiting counts groups
  };
#pragma unroll
  for (int slice = 0; slice < S::stages - 1; ++slice) start_stage(slice);

  Sum sums[row_blocks][column_blocks][4];
#pragma unroll
  for (int i = 0; i < row_blocks; ++i) {
#pragma unroll
    for (int j = 0; j < column_blocks; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[i][j][e] = 0;
    }
  }
  uint32_t a_part[2][row_blocks][4], b_part[2][column_blocks][2];
  ptx::poison(a_part);
  ptx::poison(b_part);
  const auto load_step = [&](int slice, int step) {
    const uint32_t stage = ring + static_cast<uint32_t>(slice % S::stages * S::stage_bytes);
#pragma unroll
    for (int i = 0; i < row_blocks; ++i) Slice::load_a(a_part[step][i], stage, warp_row + i * 16, step * 2, lane);
#pragma unroll
    for (int j = 0; j < column_blocks; j += 2) {
      Slice::load_b(b_part[step][j], b_part[step][j + 1], stage + S::rows * slice_bytes, warp_column + j * 8, step * 2, lane);
    }
  };

  for (int slice = 0; slice < slices; ++slice) {
    ptx::cp_async_wait<S::stages - 2>();
    __syncthreads();  // this slice has landed for all, and all are done with the one whose stage is filled next
    load_step(slice, 0);
    start_stage(slice + S::stages - 1);
    load_step(slice, 1);
    ptx::mma<Math<T>::product>(sums, a_part[0], b_part[0]);
    ptx::mma<Math<T>::product>(sums, a_part[1], b_part[1]);
  }
  ptx::cp_async_wait<0>();
  __syncthreads();  // the ring becomes the epilogue's

  // Sixteen rows at a time through a slab of the warp's own.
  Sum* const slab = reinterpret_cast<Sum*>(shared) + warp * 16 * S::slab_stride;
  constexpr int lanes_to_row = S::WarpColumns / piece_size, rows_at_once = warp_size / lanes_to_row;
#pragma unroll
  for (int i = 0; i < row_blocks; ++i) {
#pragma unroll
    for (int j = 0; j < column_blocks; ++j) {
      Sum* const to = slab + lane / 4 * S::slab_stride + j * 8 + lane % 4 * 2;
      *reinterpret_cast<Two*>(to) = Two{sums[i][j][0], sums[i][j][1]};
      *reinterpret_cast<Two*>(to + 8 * S::slab_stride) = Two{sums[i][j][2], sums[i][j][3]};
    }
    __syncwarp();
#pragma unroll 1
    for (int r = lane / lanes_to_row; r < 16; r += rows_at_once) {
      const int slab_column = lane % lanes_to_row * piece_size;
      const int64_t row = tile.row + warp_row + i * 16 + r, column = tile.column + warp_column + slab_column;
      if (row >= a.rows || column >= a.columns) continue;
      const int count = static_cast<int>(a.columns - column < piece_size ? a.columns - column : piece_size);
      const Four low = *reinterpret_cast<const Four*>(slab + r * S::slab_stride + slab_column);
      const Four high = *reinterpret_cast<const Four*>(slab + r * S::slab_stride + slab_column + 4);
      Sum whole[piece_size] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
      if constexpr (std::is_same_v<Sum, int>) {
        float values[piece_size];
        scale_bytes(a, whole, values, row, column, count);
        finish(a, values, row, column, count, vectors);
      } else {
        finish(a, whole, row, column, count, vectors);
      }
    }
    __syncwarp();
  }
}

// 64 × 64 of the result by 64 threads, 8 × 8 each: rows y + 8i and columns 8x + j of the tile.
constexpr int float_tile = 64, float_threads = 64, stages = 4;

__global__ void __launch_bounds__(float_threads) gemm_float_kernel(Gemm a, Vectors vectors) {
  constexpr int stage_bytes = 2 * float_tile * slice_bytes;
  SMEM_DYN(shared, uint8_t);
  const uint32_t ring = ptx::shared_address(shared);
  const Place tile = tile_of_block<float_tile, float_tile>(a);
  const int tile_x = static_cast<int>(threadIdx.x) % 8, tile_y = static_cast<int>(threadIdx.x) / 8;
  const auto* const x = static_cast<const uint8_t*>(a.x.data);
  const auto* const weight = static_cast<const uint8_t*>(a.weight.data);
  const int64_t bytes = a.inner * 4;
  const int slices = static_cast<int>(ceil_div(bytes, slice_bytes));
  const auto start_stage = [&](int slice) {
    if (slice < slices) {
      const uint32_t stage = ring + static_cast<uint32_t>(slice % stages * stage_bytes);
      const int64_t byte = static_cast<int64_t>(slice) * slice_bytes;
      start_slice<float_tile, float_threads>(stage, x, a.x.stride * 4, tile.row, a.rows, byte, bytes);
      start_slice<float_tile, float_threads, true>(stage + float_tile * slice_bytes, weight, a.weight.stride * 4, tile.column, a.columns, byte, bytes);
    }
    ptx::cp_async_commit();
  };
#pragma unroll
  for (int slice = 0; slice < stages - 1; ++slice) start_stage(slice);

  float sums[8][piece_size];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
#pragma unroll
    for (int j = 0; j < piece_size; ++j) sums[i][j] = 0;
  }
  for (int slice = 0; slice < slices; ++slice) {
    ptx::cp_async_wait<stages - 2>();
    __syncthreads();
    start_stage(slice + stages - 1);
    const uint8_t* const stage = shared + slice % stages * stage_bytes;
#pragma unroll 1
    for (int unit = 0; unit < slice_units; ++unit) {
      float4 left[8];
#pragma unroll
      for (int i = 0; i < 8; ++i) left[i] = *reinterpret_cast<const float4*>(stage + Slice::offset(tile_y + 8 * i, unit));
#pragma unroll
      for (int j = 0; j < piece_size; ++j) {
        // Interleaved, so that threads of one y read eight neighbours.
        const float4 right = *reinterpret_cast<const float4*>(stage + float_tile * slice_bytes + Slice::offset(tile_x + 8 * j, unit));
#pragma unroll
        for (int i = 0; i < 8; ++i) {
          sums[i][j] = fmaf(left[i].x, right.x, sums[i][j]);
          sums[i][j] = fmaf(left[i].y, right.y, sums[i][j]);
          sums[i][j] = fmaf(left[i].z, right.z, sums[i][j]);
          sums[i][j] = fmaf(left[i].w, right.w, sums[i][j]);
        }
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int64_t row = tile.row + tile_y + 8 * i, column = tile.column + tile_x * piece_size;
    if (row >= a.rows || column >= a.columns) continue;
    finish(a, sums[i], row, column, static_cast<int>(a.columns - column < piece_size ? a.columns - column : piece_size), vectors);
  }
}

template <int TileRows, int TileColumns>
int64_t tiles(const Gemm& a) {
  return ceil_div(a.rows, TileRows) * ceil_div(a.columns, TileColumns);
}

Vectors vectors_of(const Gemm& a) {
  Vectors vectors{};
  vectors.bias = (reinterpret_cast<uintptr_t>(a.bias) | reinterpret_cast<uintptr_t>(a.first)) % 16 == 0;
  const auto check = [](const Rows& rows) { return rows.type == DType::float32 ? aligned<float>(rows) : aligned<bf16>(rows); };
  vectors.residual = check(a.residual);
  vectors.out = check(a.out);
  return vectors;
}

template <class T, class S>
cudaError_t launch_shape(const Gemm& a, cudaStream_t stream) {
  return LAUNCH((gemm_mma_kernel<T, S>), (grid_of(tiles<S::rows, S::columns>(a))), S::threads, S::shared_bytes, stream, a, vectors_of(a));
}

template <class T>
cudaError_t launch_mma(const Gemm& a, GemmTile tile, cudaStream_t stream) {
  switch (tile) {
    case GemmTile::large:
      return launch_shape<T, Large>(a, stream);
    case GemmTile::large_three:
      return launch_shape<T, LargeThree>(a, stream);
    case GemmTile::middle:
      return launch_shape<T, Middle>(a, stream);
    case GemmTile::small:
      return launch_shape<T, Small>(a, stream);
  }
  return cudaErrorInvalidValue;
}

// Large tiles need the fewest loads; smaller ones where the large ones would leave multiprocessors idle.
GemmTile choose_tile(const Gemm& a, int multiprocessors, int shared_bytes) {
  if (tiles<Large::rows, Large::columns>(a) >= multiprocessors) return shared_bytes < 2 * Large::shared_bytes ? GemmTile::large_three : GemmTile::large;
  if (a.rows <= Small::rows || tiles<Middle::rows, Middle::columns>(a) * 4 < multiprocessors) return GemmTile::small;
  return GemmTile::middle;
}

}  // namespace

cudaError_t launch_gemm_tile(const Gemm& a, GemmTile tile, cudaStream_t stream) {
  if (a.rows == 0 || a.columns == 0) return cudaSuccess;
  const auto misaligned = [](const Rows& rows) {
    return reinterpret_cast<uintptr_t>(rows.data) % unit_bytes != 0 || rows.stride * static_cast<int64_t>(core::size_of(rows.type)) % unit_bytes != 0;
  };
  if (a.rows > 0x7fffffff || a.period < 1 || a.x.type != a.weight.type || misaligned(a.x) || misaligned(a.weight)) return cudaErrorInvalidValue;
  switch (a.x.type) {
    case DType::bfloat16:
      return launch_mma<bf16>(a, tile, stream);
    case DType::float16:
      return launch_mma<f16>(a, tile, stream);
    case DType::int8:
      return launch_mma<int8_t>(a, tile, stream);
    case DType::float32:
      return LAUNCH(gemm_float_kernel, (grid_of(tiles<float_tile, float_tile>(a))), float_threads, stages * 2 * float_tile * slice_bytes, stream, a, vectors_of(a));
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t launch_gemm(const Gemm& a, cudaStream_t stream) {
  int device = 0, multiprocessors = 0, shared_bytes = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  return error == cudaSuccess ? launch_gemm_tile(a, choose_tile(a, multiprocessors, shared_bytes), stream) : error;
}

}  // namespace chiasma::cuda
