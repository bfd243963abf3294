// rotary: a warp turns each row, eight pairs of features at a time. A position outside the table is reported, and its row stays as it is. Bound by memory.
#include "cuda/kernels.cuh"
#include "cuda/rows.cuh"

namespace chiasma::cuda {

namespace {

// `vectors`, `out_vectors`: pieces of x and of the table, and of the output, lie at multiples of 16 bytes.
template <class In, class Out>
__global__ void __launch_bounds__(row_threads) rotary_kernel(Rotary a, bool vectors, bool out_vectors) {
  const int64_t row = row_of_warp();
  if (row >= a.rows) return;
  int64_t place = a.positions ? a.positions[row] : row % a.length - (a.length - a.table_rows);
  if (a.positions && (place < 0 || place >= a.table_rows)) {
    if (lane_of_thread() == 0) report_fault(a.slot, row, static_cast<int32_t>(place));
    place = -1;
  }
  const In* const x = static_cast<const In*>(a.x.data) + row * a.x.stride;
  Out* const out = static_cast<Out*>(a.out.data) + row * a.out.stride;
  const int rotated = place < 0 ? 0 : static_cast<int>(a.rotated), half = rotated / 2;
  const int head_size = static_cast<int>(a.head_size), heads = static_cast<int>(a.heads);
  const float* const angles = static_cast<const float*>(a.table.data) + place * a.table.stride;
  const int pieces = (half + piece_size - 1) / piece_size;
  for (int at = lane_of_thread(); at < heads * pieces; at += warp_size) {
    const int begin = at % pieces * piece_size, count = half - begin < piece_size ? half - begin : piece_size;
    const int low = at / pieces * head_size + begin;
    float first[piece_size], second[piece_size], cosines[piece_size], sines[piece_size];
    load_piece(first, x + low, count, vectors);
    load_piece(second, x + low + half, count, vectors);
    load_piece(cosines, angles + begin, count, vectors);
    load_piece(sines, angles + half + begin, count, vectors);
#pragma unroll
    for (int i = 0; i < piece_size; ++i) {
      const float turned = fmaf(first[i], cosines[i], -(second[i] * sines[i]));
      second[i] = fmaf(second[i], cosines[i], first[i] * sines[i]);
      first[i] = turned;
    }
    store_piece(out + low, first, count, out_vectors);
    store_piece(out + low + half, second, count, out_vectors);
  }
  const int rest = head_size - rotated;
  for (int at = lane_of_thread(); at < heads * rest; at += warp_size) {
    const int column = at / rest * head_size + rotated + at % rest;
    out[column] = round_to<Out>(to_float(x[column]));
  }
}

}  // namespace

cudaError_t launch_rotary(const Rotary& a, cudaStream_t stream) {
  const bool whole_pieces = a.head_size % piece_size == 0 && a.rotated / 2 % piece_size == 0 && aligned<float>(a.table);
  return with_float(a.x.type, [&](auto in) {
    return with_float(a.out.type, [&](auto out) {
      using In = decltype(in);
      using Out = decltype(out);
      return LAUNCH((rotary_kernel<In, Out>), grid_of_rows(a.rows), row_threads, 0, stream, a, whole_pieces && aligned<In>(a.x),
                    whole_pieces && aligned<Out>(a.out));
    });
  });
}

}  // namespace chiasma::cuda
