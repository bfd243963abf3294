// The table of library.h, over the CUDA runtime that this library is linked with.
#include <cstdio>
#include <map>
#include <mutex>
#include <utility>

#include "cuda/kernels.cuh"

namespace chiasma::cuda {

namespace {

cudaStream_t stream_of(StreamHandle handle) { return static_cast<cudaStream_t>(handle); }

int device_name(int device, char* name, size_t bytes) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error == cudaSuccess) std::snprintf(name, bytes, "%s", properties.name);
  return error;
}

int compute_capability(int device, int* major, int* minor) {
  const cudaError_t error = cudaDeviceGetAttribute(major, cudaDevAttrComputeCapabilityMajor, device);
  return error != cudaSuccess ? error : cudaDeviceGetAttribute(minor, cudaDevAttrComputeCapabilityMinor, device);
}

int copy(void* to, const void* from, size_t bytes, Copy kind, StreamHandle stream) {
  return cudaMemcpyAsync(to, from, bytes, kind == Copy::to_device ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost, stream_of(stream));
}

int make_stream(StreamHandle* stream) {
  cudaStream_t made = nullptr;
  const cudaError_t error = cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking);
  *stream = made;
  return error;
}

int make_event(EventHandle* event) {
  cudaEvent_t made = nullptr;
  const cudaError_t error = cudaEventCreateWithFlags(&made, cudaEventDisableTiming | cudaEventBlockingSync);
  *event = made;
  return error;
}

int end_recording(StreamHandle stream, GraphHandle* graph) {
  *graph = nullptr;
  cudaGraph_t recorded = nullptr;
  cudaError_t error = cudaStreamEndCapture(stream_of(stream), &recorded);
  if (error != cudaSuccess) return error;
  cudaGraphExec_t executable = nullptr;
  error = cudaGraphInstantiate(&executable, recorded, 0);
  cudaGraphDestroy(recorded);
  *graph = executable;
  return error;
}

template <class Arguments, cudaError_t (*launch)(const Arguments&, cudaStream_t)>
int on_stream(const Arguments& arguments, StreamHandle stream) {
  return launch(arguments, stream_of(stream));
}

const Library library = {
    .version = library_version,
#ifdef CHIASMA_SIM
    .simulated = true,
#else
    .simulated = false,
#endif
    .runtime =
        {
            .device_count = [](int* count) -> int { return cudaGetDeviceCount(count); },
            .device_name = device_name,
            .compute_capability = compute_capability,
            .set_device = [](int device) -> int { return cudaSetDevice(device); },
            .memory = [](size_t* free, size_t* total) -> int { return cudaMemGetInfo(free, total); },
            .allocate = [](void** memory, size_t bytes, StreamHandle stream) -> int { return cudaMallocAsync(memory, bytes, stream_of(stream)); },
            .release = [](void* memory, StreamHandle stream) -> int { return cudaFreeAsync(memory, stream_of(stream)); },
            .allocate_host = [](void** memory, size_t bytes) -> int { return cudaHostAlloc(memory, bytes, cudaHostAllocPortable); },
            .release_host = [](void* memory) -> int { return cudaFreeHost(memory); },
            .copy = copy,
            .fill = [](void* memory, int byte, size_t bytes, StreamHandle stream) -> int {
              return cudaMemsetAsync(memory, byte, bytes, stream_of(stream));
            },
            .make_stream = make_stream,
            .release_stream = [](StreamHandle stream) -> int { return cudaStreamDestroy(stream_of(stream)); },
            .synchronize = [](StreamHandle stream) -> int { return cudaStreamSynchronize(stream_of(stream)); },
            .make_event = make_event,
            .release_event = [](EventHandle event) -> int { return cudaEventDestroy(static_cast<cudaEvent_t>(event)); },
            .record_event = [](EventHandle event, StreamHandle stream) -> int {
              return cudaEventRecord(static_cast<cudaEvent_t>(event), stream_of(stream));
            },
            .query_event = [](EventHandle event) -> int { return cudaEventQuery(static_cast<cudaEvent_t>(event)); },
            .wait_event = [](EventHandle event) -> int { return cudaEventSynchronize(static_cast<cudaEvent_t>(event)); },
            .begin_recording = [](StreamHandle stream) -> int { return cudaStreamBeginCapture(stream_of(stream), cudaStreamCaptureModeThreadLocal); },
            .end_recording = end_recording,
            .replay = [](GraphHandle graph, StreamHandle stream) -> int {
              return cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), stream_of(stream));
            },
            .release_graph = [](GraphHandle graph) -> int { return cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)); },
            .clear_error = []() -> int { return cudaGetLastError(); },
            .error_name = [](int error) { return cudaGetErrorName(static_cast<cudaError_t>(error)); },
            .error_text = [](int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); },
        },
    .layer_norm = on_stream<LayerNorm, launch_layer_norm>,
    .rms_norm = on_stream<RmsNorm, launch_rms_norm>,
    .rotary = on_stream<Rotary, launch_rotary>,
    .l2_normalize = on_stream<L2Normalize, launch_l2_normalize>,
    .softmax = on_stream<Softmax, launch_softmax>,
    .gather = on_stream<Gather, launch_gather>,
    .scatter = on_stream<Scatter, launch_scatter>,
    .pick_token = on_stream<PickToken, launch_pick_token>,
    .prefix = on_stream<Prefix, launch_prefix>,
    .pool = on_stream<Pool, launch_pool>,
    .binary = on_stream<Binary, launch_binary>,
    .unary = on_stream<Unary, launch_unary>,
    .cast = on_stream<Cast, launch_cast>,
    .unfold = on_stream<Unfold, launch_unfold>,
    .depthwise = on_stream<Depthwise, launch_depthwise>,
    .pool_windows = on_stream<PoolWindows, launch_pool_windows>,
    .scale_sequences = on_stream<ScaleSequences, launch_scale_sequences>,
    .patchify = on_stream<Patchify, launch_patchify>,
    .gemm = on_stream<Gemm, launch_gemm>,
    .quantize = on_stream<Quantize, launch_quantize>,
    .attention = on_stream<Attention, launch_attention>,
    .top_k = on_stream<TopK, launch_top_k>,
    .top_k_bytes = top_k_bytes,
};

}  // namespace

cudaError_t allow_shared_bytes(const void* kernel, size_t bytes) {
  static std::mutex mutex;
  static std::map<std::pair<int, const void*>, size_t> allowed;  // by device and kernel
  int device = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  std::lock_guard lock(mutex);
  size_t& most = allowed[{device, kernel}];
  if (bytes <= most) return cudaSuccess;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes));
  if (error == cudaSuccess) most = bytes;
  return error;
}

}  // namespace chiasma::cuda

extern "C" __attribute__((visibility("default"))) const chiasma::cuda::Library* chiasma_cuda_library() { return &chiasma::cuda::library; }
