// The side library's interface: one table of functions with plain arguments, so that the addon and the library may come from different compilers.
// libchiasma_cuda is built by nvcc with the CUDA runtime inside, libchiasma_cuda_sim by g++ with the simulator; the addon opens either at run time.
// Functions return a cudaError_t as an int, 0 for success. Kernels are launched on a stream and have been checked by the host code: sizes fit and
// pointers are of the device. "Row" means a row of the last dimension; strides count elements.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace chiasma::cuda {

using core::DType;

// To be raised with every change in this file.
constexpr uint32_t library_version = 8;
constexpr const char* library_entry = "chiasma_cuda_library";

using StreamHandle = void*;  // cudaStream_t
using EventHandle = void*;   // cudaEvent_t
using GraphHandle = void*;   // cudaGraphExec_t

enum class Copy : int32_t { to_device, to_host };

// Where a kernel says that the data it was given is wrong; all ones if none is. The run's first kernel to find a fault keeps it.
struct Fault {
  uint32_t kernel;
  uint32_t unused;
  uint64_t first;  // the least of position << 32 | value (an int32's bits), over the elements that are wrong
};
constexpr uint32_t no_kernel = ~uint32_t{0};

// What a kernel that checks data carries.
struct FaultSlot {
  Fault* fault;
  uint32_t kernel;
};

// A float or integer tensor seen as rows.
struct Rows {
  void* data;
  int64_t stride;
  DType type;
};

// --- norm ---

struct LayerNorm {
  Rows x, out;
  int64_t rows, columns;
  const float* weight;  // [columns], or null
  const float* bias;
  float eps;
};

struct RmsNorm {
  Rows x, out;
  int64_t rows, columns;
  const float* weight;  // [columns], or null
  float eps;
};

struct L2Normalize {
  Rows x, out;
  int64_t rows, columns;
  float eps;
};

struct Softmax {
  Rows x, out;
  int64_t rows, columns;
};

// --- rotary ---

// Row t of x [rows, heads · head_size] by row positions[t] of the table [table_rows, rotated], or, without positions, by row
// t % length - (length - table_rows); it stays if that is below 0.
struct Rotary {
  Rows x, out;
  Rows table;  // float32
  const int32_t* positions;
  int64_t length, table_rows, rows, heads, head_size, rotated;
  FaultSlot slot;
};

// --- gather ---

struct Gather {
  Rows table, out;
  const int32_t* indices;
  int64_t table_rows, rows, columns;
  FaultSlot slot;
};

// `sources`: workspace, int32 [out_rows].
struct Scatter {
  Rows x, out;
  const int32_t* indices;
  int32_t* sources;
  int64_t rows, out_rows, columns;
  FaultSlot slot;
};

// Sequences of packed rows: by cumulative lengths [count + 1], or all of `length` rows where that is null.
struct Sequences {
  const int32_t* cumulative;
  int64_t length, count, rows;
};

struct PickToken {
  Rows x, out;
  Sequences sequences;
  int64_t columns;
  bool last;
  FaultSlot slot;
};

// `head` rows of `table` before `length` rows of each sequence of x; x is not read for length 0. `each`: rows of the table for every sequence.
struct Prefix {
  Rows table, x, out;
  int64_t head, length, rows, columns;
  bool each;
};

// --- pool ---

enum class PoolMode : int32_t { mean, max, mean_sqrt_len };

struct Pool {
  Rows x, out;
  Sequences sequences;
  int64_t columns;
  PoolMode mode;
  int64_t skip;  // rows at the front of each sequence
  FaultSlot slot;
};

// --- elementwise ---

enum class BinaryKind : int32_t { add, sub, mul, div };

// Row r of a with row r % period of b; `scalar`: with b's one element.
struct Binary {
  Rows a, b, out;
  int64_t rows, columns, period;
  BinaryKind kind;
  bool scalar;
};

enum class UnaryKind : int32_t { gelu, quick_gelu, gelu_tanh, relu, silu, tanh, sigmoid, exp, neg, sqrt, abs };

struct Unary {
  Rows x, out;
  int64_t rows, columns;
  UnaryKind kind;
};

// x of any type that is a float, int32 or uint8.
struct Cast {
  Rows x, out;
  int64_t rows, columns;
};

// --- convolution ---

// Windows over pictures of height · width rows; `down` · `across` of them a picture.
struct Windows {
  int64_t height, width, kernel_y, kernel_x, stride_y, stride_x, top, left, down, across;
};

// The pixels of each window as a row [kernel_y · kernel_x · channels] of `out`, in the order y, x, channel, zeros outside of the picture and from there to
// out.stride. Rows of out begin at multiples of 16 bytes.
struct Unfold {
  Rows x, out;
  Windows windows;
  int64_t rows, channels;  // rows: of out
};

// Each channel by itself: weight [kernel_y · kernel_x, columns].
struct Depthwise {
  Rows x, out;
  Windows windows;
  int64_t rows, columns;
  const float* weight;
  int64_t weight_stride;
  const float* bias;  // [columns], or null
  bool activated;
  UnaryKind activation;
};

// Of the pixels of each window that are within the picture.
struct PoolWindows {
  Rows x, out;
  Windows windows;
  int64_t rows, columns;
  bool max;
};

// Row r of x · row r / length of scale + that of shift.
struct ScaleSequences {
  Rows x, out;
  const float* scale;
  int64_t scale_stride;
  const float* shift;  // or null
  int64_t shift_stride, length, rows, columns;
};

// --- patch embedding ---

// Each patch of side² pixels becomes a row [3·side·side] of `out`, zeros from there to out.stride, in the order channel, y, x; `first` rows of
// zeros stand before each picture's patches (its class token's place). A byte becomes (byte · rescale − mean) / std. Rows of out begin at multiples of 16 bytes.
struct Patchify {
  const void* pixels;
  bool bytes;  // uint8 [pictures, height, width, 3], else float32 [pictures, 3, height, width]
  double rescale;
  float mean[3], std[3];
  Rows out;
  int64_t pictures, height, width, side, first;
};

// --- gemm ---

// out = activation(x · weightᵀ · scale + bias) + residual, of type bf16, f16, int8 or float32 (x and weight the same), in float32 (int8: sums in int32).
// The rows of x and weight begin at multiples of 16 bytes.
struct Gemm {
  Rows x, weight, out;  // [rows, inner], [columns, inner], [rows, columns]
  int64_t rows, columns, inner;
  float scale;
  // int8: a row of x stands for x_scales[row] · (x + x_offsets[row]), one of the weight for weight_scales[column] · weight; weight_sums[column] is the sum
  // of its bytes. All four, or none of them.
  const float* x_scales;
  const int32_t* x_offsets;
  const float* weight_scales;
  const int32_t* weight_sums;
  const float* bias;           // [columns], or null
  bool activated;
  UnaryKind activation;
  Rows residual;  // data is null where there is none
  int64_t period;      // row r of the result takes the residual's row r % period
  const float* first;  // [columns], or null: each period's first row is this and the residual, and no product
};

// Rows of x as bytes: 256 steps from a row's least to its largest number, zero among them; out[i] + offset is the number of steps.
struct Quantize {
  Rows x, out;  // out: int8, its rows at multiples of 8 bytes
  int64_t rows, columns;
  float* scales;  // [rows]; NaN for a row that is not finite
  int32_t* offsets;
};

// --- attention ---

// softmax(q·kᵀ·scale + bias)·v by sequence and head; q and out [queries.rows, heads · head_size], k and v [keys.rows, heads · head_size].
// Rows of out past the last sequence become 0. Faults: position s is cuSeqlensQ[s]; attention_keys + s is cuSeqlensK[s]; attention_bias + s is sequence s,
// which is `value` rows long, too long for the bias.
struct Attention {
  Rows q, k, v, out;
  Sequences queries, keys;
  int64_t heads, kv_heads, head_size;
  float scale;
  bool causal;
  int64_t window = -1;  // -1: none
  const float* bias;  // [2 · longest − 1, heads] of row stride bias_stride, or null
  int64_t bias_stride, longest;
  FaultSlot slot;
};
constexpr int64_t attention_keys = int64_t{1} << 29, attention_bias = int64_t{1} << 30;
constexpr int64_t max_head_size = 256;

// --- search ---

// The k rows of the corpus with the greatest cosine to each query: scores and indices [query_count, k], best first.
struct TopK {
  Rows queries, corpus;  // a float type [query_count, columns]; float32, bf16 or int8 [rows, columns]
  int64_t query_count, rows, columns, k;
  const float* inverse_norms;  // [rows]: 1 / ‖row‖; null: computed
  float* scores;
  int64_t scores_stride;
  int32_t* indices;
  int64_t indices_stride;
  void* workspace;  // top_k_bytes of it
};

// --- The table ---

struct Runtime {
  int (*device_count)(int* count);
  int (*device_name)(int device, char* name, size_t bytes);
  int (*compute_capability)(int device, int* major, int* minor);
  int (*set_device)(int device);
  int (*memory)(size_t* free, size_t* total);
  int (*allocate)(void** memory, size_t bytes, StreamHandle stream);
  int (*release)(void* memory, StreamHandle stream);
  int (*allocate_host)(void** memory, size_t bytes);
  int (*release_host)(void* memory);
  int (*copy)(void* to, const void* from, size_t bytes, Copy kind, StreamHandle stream);
  int (*fill)(void* memory, int byte, size_t bytes, StreamHandle stream);
  int (*make_stream)(StreamHandle* stream);
  int (*release_stream)(StreamHandle stream);
  int (*synchronize)(StreamHandle stream);
  int (*make_event)(EventHandle* event);
  int (*release_event)(EventHandle event);
  int (*record_event)(EventHandle event, StreamHandle stream);
  int (*query_event)(EventHandle event);  // error_not_ready until what was before it is done
  int (*wait_event)(EventHandle event);   // the caller sleeps
  int (*begin_recording)(StreamHandle stream);
  int (*end_recording)(StreamHandle stream, GraphHandle* graph);
  int (*replay)(GraphHandle graph, StreamHandle stream);
  int (*release_graph)(GraphHandle graph);
  int (*clear_error)();  // gives the last error and forgets it, if it is one that can be forgotten
  const char* (*error_name)(int error);
  const char* (*error_text)(int error);
};

struct Library {
  uint32_t version;
  bool simulated;
  Runtime runtime;

  int (*layer_norm)(const LayerNorm& arguments, StreamHandle stream);
  int (*rms_norm)(const RmsNorm& arguments, StreamHandle stream);
  int (*rotary)(const Rotary& arguments, StreamHandle stream);
  int (*l2_normalize)(const L2Normalize& arguments, StreamHandle stream);
  int (*softmax)(const Softmax& arguments, StreamHandle stream);
  int (*gather)(const Gather& arguments, StreamHandle stream);
  int (*scatter)(const Scatter& arguments, StreamHandle stream);
  int (*pick_token)(const PickToken& arguments, StreamHandle stream);
  int (*prefix)(const Prefix& arguments, StreamHandle stream);
  int (*pool)(const Pool& arguments, StreamHandle stream);
  int (*binary)(const Binary& arguments, StreamHandle stream);
  int (*unary)(const Unary& arguments, StreamHandle stream);
  int (*cast)(const Cast& arguments, StreamHandle stream);
  int (*unfold)(const Unfold& arguments, StreamHandle stream);
  int (*depthwise)(const Depthwise& arguments, StreamHandle stream);
  int (*pool_windows)(const PoolWindows& arguments, StreamHandle stream);
  int (*scale_sequences)(const ScaleSequences& arguments, StreamHandle stream);
  int (*patchify)(const Patchify& arguments, StreamHandle stream);
  int (*gemm)(const Gemm& arguments, StreamHandle stream);
  int (*quantize)(const Quantize& arguments, StreamHandle stream);
  int (*attention)(const Attention& arguments, StreamHandle stream);
  int (*top_k)(const TopK& arguments, StreamHandle stream);
  int64_t (*top_k_bytes)(const TopK& arguments);  // enough for fewer queries and rows as well; reads no pointer
};

constexpr int error_memory = 2;       // cudaErrorMemoryAllocation
constexpr int error_not_ready = 600;  // cudaErrorNotReady

using LibraryEntry = const Library* (*)();

}  // namespace chiasma::cuda
