// Times the CUDA kernels call by call: the lines of bench/cuda-cases.mjs from a file, one line of JSON for each on standard output.
//   chiasma_bench_cuda CASES [SECONDS]      SECONDS: to stop after; a case that has not begun by then is left out
// Numbers are independent and normal. Calls go through several sets of buffers in turn, three times as large as the L2 cache together, and are launched as a
// graph; the times between two CUDA events are divided by the calls. Also built with the simulator, where times mean nothing, so that it is known to run.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/attention.cuh"
#include "cuda/kernels.cuh"
#include "cuda/number.cuh"

using namespace chiasma::cuda;

namespace {

#ifdef CHIASMA_SIM
constexpr int batches = 3;
constexpr double batch_milliseconds = 0;
#else
constexpr int batches = 21;
constexpr double batch_milliseconds = 2;
#endif

void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}

// --- Numbers ---

__device__ uint32_t scrambled(uint64_t x) {
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ x >> 27) * 0x94d049bb133111ebull;
  return static_cast<uint32_t>(x >> 32);
}

template <class T>
__global__ void __launch_bounds__(256) fill_kernel(T* to, int64_t count, uint64_t seed, float scale) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  if (at >= count) return;
  const uint64_t place = (seed << 40) + static_cast<uint64_t>(at) * 2;
  if constexpr (sizeof(T) == 1) {
    to[at] = static_cast<T>(scrambled(place));
  } else {
    const float u = (static_cast<float>(scrambled(place) >> 8) + 0.5f) * 0x1p-24f, v = static_cast<float>(scrambled(place + 1) >> 8) * 0x1p-24f;
    to[at] = round_to<T>(scale * sqrtf(-2 * logf(u)) * cosf(6.2831853f * v));
  }
}

// Device memory of one set of buffers; given back with it.
class Memory {
 public:
  Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() {
    for (void* block : blocks_) cudaFree(block);
  }

  void* bytes(size_t count) {
    void* block = nullptr;
    check(cudaMalloc(&block, count + 256), "cudaMalloc");
    blocks_.push_back(block);
    return block;
  }
  template <class T>
  T* normal(int64_t count, float scale = 1) {
    T* const to = static_cast<T*>(bytes(static_cast<size_t>(count) * sizeof(T)));
    check(LAUNCH((fill_kernel<T>), grid_of(ceil_div(count, 256)), 256, 0, nullptr, to, count, seed_++, scale), "fill");
    return to;
  }
  int32_t* copy(const std::vector<int32_t>& numbers) {
    auto* const to = static_cast<int32_t*>(bytes(numbers.size() * sizeof(int32_t)));
    check(cudaMemcpy(to, numbers.data(), numbers.size() * sizeof(int32_t), cudaMemcpyHostToDevice), "cudaMemcpy");
    return to;
  }
  // Rows [rows, columns] of 'f32', 'bf16' or 'u8'.
  Rows matrix(const std::string& type, int64_t rows, int64_t columns, float scale = 1) {
    if (type == "f32") return {normal<float>(rows * columns, scale), columns, DType::float32};
    if (type == "bf16") return {normal<bf16>(rows * columns, scale), columns, DType::bfloat16};
    throw std::runtime_error("no type " + type);
  }

 private:
  std::vector<void*> blocks_;
  uint64_t seed_ = 1;
};

// --- Calls ---

struct Case {
  std::string model, name, op;
  double flops, bytes;
  std::map<std::string, std::string> values;

  int64_t number(const std::string& key) const { return std::stoll(text(key)); }
  const std::string& text(const std::string& key) const {
    const auto found = values.find(key);
    if (found == values.end()) throw std::runtime_error(op + " lacks " + key);
    return found->second;
  }
};

using Call = std::function<cudaError_t(cudaStream_t)>;

UnaryKind activation_of(const std::string& name) {
  if (name == "quick_gelu") return UnaryKind::quick_gelu;
  if (name == "gelu") return UnaryKind::gelu;
  throw std::runtime_error("no activation " + name);
}

FaultSlot fault_of(Memory& memory) {
  const Fault none = {no_kernel, 0, ~uint64_t{0}};
  auto* const fault = static_cast<Fault*>(memory.bytes(sizeof none));
  check(cudaMemcpy(fault, &none, sizeof none, cudaMemcpyHostToDevice), "cudaMemcpy");
  return {fault, 1};
}

Call call_of(const Case& c, Memory& memory) {
  const auto rows = [&c] { return c.number("rows"); };
  const auto columns = [&c] { return c.number("columns"); };
  if (c.op == "gemm") {
    const int64_t inner = c.number("inner");
    Gemm a{};
    a.x = memory.matrix("bf16", rows(), inner);
    a.weight = memory.matrix("bf16", columns(), inner, 1 / std::sqrt(static_cast<float>(inner)));
    a.out = memory.matrix(c.text("out"), rows(), columns());
    a.rows = rows(), a.columns = columns(), a.inner = inner;
    a.scale = 1;
    a.bias = memory.normal<float>(columns());
    a.activated = c.text("activation") != "none";
    if (a.activated) a.activation = activation_of(c.text("activation"));
    a.period = c.number("period");
    if (c.number("residual")) a.residual = memory.matrix("f32", std::min(a.period, rows()), columns());
    return [a](cudaStream_t stream) { return launch_gemm(a, stream); };
  }
  if (c.op == "attention" || c.op == "attentionRing") {
    const int64_t count = c.number("sequences"), length = c.number("tokens"), heads = c.number("heads"), size = c.number("headSize"), all = count * length;
    Attention a{};
    a.q = memory.matrix("bf16", all, heads * size), a.k = memory.matrix("bf16", all, heads * size);
    a.v = memory.matrix("bf16", all, heads * size), a.out = memory.matrix("bf16", all, heads * size);
    a.queries = a.keys = {nullptr, length, count, all};
    if (c.values.count("packed") && c.number("packed")) {
      std::vector<int32_t> ends;
      for (int64_t i = 0; i <= count; ++i) ends.push_back(static_cast<int32_t>(i * length));
      a.queries.cumulative = a.keys.cumulative = memory.copy(ends);
    }
    a.heads = a.kv_heads = heads, a.head_size = size;
    a.scale = 1 / std::sqrt(static_cast<float>(size));
    a.causal = c.number("causal") != 0;
    a.slot = fault_of(memory);
    if (c.op == "attentionRing") return [a](cudaStream_t stream) { return launch_attention_ring(a, stream); };
    return [a](cudaStream_t stream) { return launch_attention(a, stream); };
  }
  if (c.op == "patchify") {
    const int64_t pictures = c.number("pictures"), side = c.number("side"), patch = c.number("patch"), tokens = side / patch * (side / patch) + 1;
    Patchify a{};
    a.pixels = memory.normal<uint8_t>(pictures * side * side * 3);
    a.bytes = true;
    a.rescale = 1.0 / 255;
    std::fill_n(a.mean, 3, 0.5f), std::fill_n(a.std, 3, 0.25f);
    a.out = memory.matrix("bf16", pictures * tokens, c.number("inner"));
    a.pictures = pictures, a.height = side, a.width = side, a.side = patch, a.first = 1;
    return [a](cudaStream_t stream) { return launch_patchify(a, stream); };
  }
  if (c.op == "layerNorm") {
    const LayerNorm a = {memory.matrix(c.text("from"), rows(), columns()), memory.matrix(c.text("to"), rows(), columns()), rows(), columns(),
                         memory.normal<float>(columns()), memory.normal<float>(columns()), 1e-5f};
    return [a](cudaStream_t stream) { return launch_layer_norm(a, stream); };
  }
  if (c.op == "l2Normalize") {
    const L2Normalize a = {memory.matrix(c.text("from"), rows(), columns()), memory.matrix(c.text("to"), rows(), columns()), rows(), columns(), 1e-12f};
    return [a](cudaStream_t stream) { return launch_l2_normalize(a, stream); };
  }
  if (c.op == "add") {
    const int64_t period = c.number("period");
    const Binary a = {memory.matrix(c.text("from"), rows(), columns()), memory.matrix("f32", period, columns()), memory.matrix(c.text("to"), rows(), columns()),
                      rows(), columns(), period, BinaryKind::add, false};
    return [a](cudaStream_t stream) { return launch_binary(a, stream); };
  }
  if (c.op == "gather") {
    Gather a{};
    a.table_rows = c.number("table"), a.rows = rows(), a.columns = columns();
    a.table = memory.matrix(c.text("from"), a.table_rows, columns());
    a.out = memory.matrix(c.text("to"), rows(), columns());
    std::vector<int32_t> indices(static_cast<size_t>(rows()));
    for (size_t i = 0; i < indices.size(); ++i) indices[i] = static_cast<int32_t>(i * 7919 % static_cast<size_t>(a.table_rows));
    a.indices = memory.copy(indices);
    a.slot = fault_of(memory);
    return [a](cudaStream_t stream) { return launch_gather(a, stream); };
  }
  if (c.op == "pickToken") {
    PickToken a{};
    const int64_t tokens = c.number("tokens");
    a.x = memory.matrix(c.text("from"), rows() * tokens, columns());
    a.out = memory.matrix(c.text("to"), rows(), columns());
    a.sequences = {nullptr, tokens, rows(), rows() * tokens};
    a.columns = columns();
    a.slot = fault_of(memory);
    return [a](cudaStream_t stream) { return launch_pick_token(a, stream); };
  }
  if (c.op == "topK") {
    TopK a{};
    a.query_count = c.number("queries"), a.rows = rows(), a.columns = columns(), a.k = c.number("k");
    a.queries = memory.matrix("bf16", a.query_count, columns()), a.corpus = memory.matrix("bf16", rows(), columns());
    a.scores = static_cast<float*>(memory.bytes(static_cast<size_t>(a.query_count * a.k) * sizeof(float)));
    a.indices = static_cast<int32_t*>(memory.bytes(static_cast<size_t>(a.query_count * a.k) * sizeof(int32_t)));
    a.scores_stride = a.indices_stride = a.k;
    a.workspace = memory.bytes(static_cast<size_t>(top_k_bytes(a)));
    return [a](cudaStream_t stream) { return launch_top_k(a, stream); };
  }
  throw std::runtime_error("no call " + c.op);
}

Case parse(const std::string& line) {
  std::istringstream fields(line);
  Case c;
  std::string flops, bytes, call, word;
  std::getline(fields, c.model, '\t'), std::getline(fields, c.name, '\t'), std::getline(fields, flops, '\t'), std::getline(fields, bytes, '\t');
  std::getline(fields, call);
  c.flops = std::stod(flops), c.bytes = std::stod(bytes);
  std::istringstream words(call);
  words >> c.op;
  while (words >> word) c.values[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
  return c;
}

// --- Timing ---

// `calls` launches as a graph, or one by one where the stream cannot record.
class Launches {
 public:
  Launches(const std::vector<Call>& sets, int calls, cudaStream_t stream) : sets_(sets), calls_(calls), stream_(stream) {
#ifndef CHIASMA_SIM
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    one_by_one();
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream, &graph), "cudaStreamEndCapture");
    check(cudaGraphInstantiate(&graph_, graph, 0), "cudaGraphInstantiate");
    cudaGraphDestroy(graph);
#endif
  }
  Launches(const Launches&) = delete;
  Launches& operator=(const Launches&) = delete;
  ~Launches() {
#ifndef CHIASMA_SIM
    cudaGraphExecDestroy(graph_);
#endif
  }

  void run() const {
#ifdef CHIASMA_SIM
    one_by_one();
#else
    check(cudaGraphLaunch(graph_, stream_), "cudaGraphLaunch");
#endif
  }

 private:
  void one_by_one() const {
    for (int i = 0; i < calls_; ++i) check(sets_[static_cast<size_t>(i) % sets_.size()](stream_), "launch");
  }

  const std::vector<Call>& sets_;
  int calls_;
  cudaStream_t stream_;
#ifndef CHIASMA_SIM
  cudaGraphExec_t graph_ = nullptr;
#endif
};

// Microseconds of one launch of `launches`, between events.
double microseconds(const Launches& launches, cudaEvent_t begin, cudaEvent_t end, cudaStream_t stream) {
  check(cudaEventRecord(begin, stream), "cudaEventRecord");
  launches.run();
  check(cudaEventRecord(end, stream), "cudaEventRecord");
  check(cudaEventSynchronize(end), "cudaEventSynchronize");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
  return milliseconds * 1e3;
}

void measure(const Case& c, size_t cache, cudaStream_t stream, cudaEvent_t begin, cudaEvent_t end) {
  const double wanted = 3 * static_cast<double>(cache) / std::max(c.bytes, 1.0);
  const size_t sets = static_cast<size_t>(std::clamp(std::ceil(wanted), 1.0, 64.0)) + 1;
  std::vector<Memory> memory(sets);
  std::vector<Call> calls;
  for (Memory& set : memory) calls.push_back(call_of(c, set));
  check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");

  const Launches once(calls, static_cast<int>(sets), stream);
  microseconds(once, begin, end, stream);
  const double each = microseconds(once, begin, end, stream) / static_cast<double>(sets);
  const int rounds = static_cast<int>(std::clamp(batch_milliseconds * 1e3 / std::max(each, 0.1) / static_cast<double>(sets), 1.0, 200.0));
  const int count = rounds * static_cast<int>(sets);
  const Launches many(calls, count, stream);
  microseconds(many, begin, end, stream);
  std::vector<double> times;
  for (int i = 0; i < batches; ++i) times.push_back(microseconds(many, begin, end, stream) / count);
  std::sort(times.begin(), times.end());
  const auto part = [&times](double share) { return times[static_cast<size_t>(share * static_cast<double>(times.size() - 1) + 0.5)]; };
  std::printf("{\"model\": \"%s\", \"name\": \"%s\", \"op\": \"%s\", \"flops\": %.0f, \"bytes\": %.0f, \"microseconds\": %.3f, \"low\": %.3f, \"high\": %.3f, \"calls\": %d, \"sets\": %zu}\n",
              c.model.c_str(), c.name.c_str(), c.op.c_str(), c.flops, c.bytes, part(0.5), part(0.1), part(0.9), count * batches, sets);
  std::fflush(stdout);
}

int run(const char* file, double seconds) {
  const auto started = std::chrono::steady_clock::now();
  cudaDeviceProp properties;
  check(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  std::printf("{\"device\": \"%s\", \"capability\": \"%d.%d\", \"multiprocessors\": %d, \"l2\": %d, \"memory\": %zu}\n", properties.name, properties.major,
              properties.minor, properties.multiProcessorCount, properties.l2CacheSize, properties.totalGlobalMem);
#ifdef CHIASMA_SIM
  const size_t cache = 0;
#else
  const auto cache = static_cast<size_t>(properties.l2CacheSize);
#endif
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  cudaEvent_t begin = nullptr, end = nullptr;
  check(cudaEventCreate(&begin), "cudaEventCreate");
  check(cudaEventCreate(&end), "cudaEventCreate");
  std::ifstream lines(file);
  if (!lines) throw std::runtime_error(std::string("cannot read ") + file);
  int failures = 0;
  for (std::string line; std::getline(lines, line);) {
    if (line.empty()) continue;
    const Case c = parse(line);
    if (std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count() > seconds) {
      std::fprintf(stderr, "no time left for %s, %s\n", c.model.c_str(), c.name.c_str());
      ++failures;
      continue;
    }
    try {
      measure(c, cache, stream, begin, end);
    } catch (const std::runtime_error& error) {
      std::fprintf(stderr, "%s, %s: %s\n", c.model.c_str(), c.name.c_str(), error.what());
      ++failures;
    }
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 2) throw std::runtime_error("usage: chiasma_bench_cuda CASES [SECONDS]");
    return run(argv[1], argc > 2 ? std::atof(argv[2]) : 1e9);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
