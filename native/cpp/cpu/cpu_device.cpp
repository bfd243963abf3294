// Opens the CPU with one instruction set: host memory, plain and packed weights, and kernels out of the table.
#include "cpu/cpu_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/convert.h"
#include "core/error.h"
#include "cpu/kernels.h"

namespace chiasma::cpu {

using core::DType;
using core::Error;
using core::ErrorCode;

// One constant table per instruction set this build has, defined in simd/simd_kernels.cpp.
#define CHIASMA_DECLARE(isa) \
  namespace isa {            \
  extern const SimdKernels kernels; \
  }
CHIASMA_DECLARE(portable)
#ifdef CHIASMA_HAS_avx2
CHIASMA_DECLARE(avx2)
#endif
#ifdef CHIASMA_HAS_avx512
CHIASMA_DECLARE(avx512)
#endif
#ifdef CHIASMA_HAS_avx512_vnni
CHIASMA_DECLARE(avx512_vnni)
#endif
#ifdef CHIASMA_HAS_avx512_bf16
CHIASMA_DECLARE(avx512_bf16)
#endif
#ifdef CHIASMA_HAS_amx
CHIASMA_DECLARE(amx)
#endif
#undef CHIASMA_DECLARE

namespace {

// Of a cache line; of a huge page where some of them fit.
std::align_val_t alignment_of(size_t bytes) { return std::align_val_t(bytes >= 2 * huge_page_bytes ? huge_page_bytes : 64); }
constexpr size_t chunk_bytes = size_t{1} << 20;  // temporary memory of a weight's conversion

const SimdKernels* kernels_of(Isa isa) noexcept {
  switch (isa) {
    case Isa::portable:
      return &portable::kernels;
#ifdef CHIASMA_HAS_avx2
    case Isa::avx2:
      return &avx2::kernels;
#endif
#ifdef CHIASMA_HAS_avx512
    case Isa::avx512:
      return &avx512::kernels;
#endif
#ifdef CHIASMA_HAS_avx512_vnni
    case Isa::avx512_vnni:
      return &avx512_vnni::kernels;
#endif
#ifdef CHIASMA_HAS_avx512_bf16
    case Isa::avx512_bf16:
      return &avx512_bf16::kernels;
#endif
#ifdef CHIASMA_HAS_amx
    case Isa::amx:
      return &amx::kernels;
#endif
    default:
      return nullptr;
  }
}

std::string list(const std::vector<Isa>& isas) {
  std::string text;
  for (const Isa isa : isas) text += (text.empty() ? "" : ", ") + std::string(name_of(isa));
  return text;
}

// The strongest available set that is no stronger than `name`.
Isa cap(Isa strongest, const std::string& name, const char* source) {
  if (name.empty()) return strongest;
  for (const Isa isa : all_isas) {
    if (name != name_of(isa)) continue;
    const auto available = available_isas();
    if (std::find(available.begin(), available.end(), isa) == available.end()) {
      throw Error(ErrorCode::device, std::string(source) + " asks for '" + name + "'; this processor and build have " + list(available));
    }
    return std::min(isa, strongest);
  }
  throw Error(ErrorCode::device, std::string(source) + " is '" + name + "'; expected portable, avx2, avx512, avx512_vnni, avx512_bf16 or amx");
}

class CpuDevice final : public core::Device {
 public:
  CpuDevice(Isa isa, int threads) : isa_(isa), simd_(*kernels_of(isa)), pool_(ThreadPool::shared()) {
    threads_ = threads > 0 ? std::min(threads, pool_->threads()) : pool_->threads();
    memory_limit_ = memory_info().total;
  }

  std::string id() const override { return "cpu"; }
  std::string isa() const override { return name_of(isa_); }
  bool has_bf16() const override { return isa_ >= Isa::avx512_bf16; }
  int threads() const override { return threads_; }

  size_t memory_limit() const override { return static_cast<size_t>(memory_limit_); }

  void* allocate(size_t bytes) override {
    void* memory = nullptr;
    // More than the machine has would be granted and fail at first touch, by a signal.
    if (memory_limit_ == 0 || bytes <= memory_limit_) memory = ::operator new(std::max<size_t>(bytes, 1), alignment_of(bytes), std::nothrow);
    if (!memory) throw Error(ErrorCode::out_of_memory, "no memory for " + std::to_string(bytes) + " bytes on the CPU");
    if (bytes >= 2 * huge_page_bytes) advise_huge_pages(memory, bytes);
    return memory;
  }

  void release(void* memory, size_t bytes) noexcept override { ::operator delete(memory, alignment_of(bytes)); }

  void upload(core::Stream&, void* device, const void* host, size_t bytes) override {
    if (bytes > 0) std::memcpy(device, host, bytes);
  }
  void download(core::Stream&, void* host, const void* device, size_t bytes) override {
    if (bytes > 0) std::memcpy(host, device, bytes);
  }

  std::unique_ptr<core::Stream> make_stream(int threads) override {
    return std::make_unique<CpuStream>(pool_, threads > 0 ? std::min(threads, threads_) : threads_);
  }

  size_t weight_bytes(const core::WeightShape& weight) const override {
    if (weight.layout == core::Layout::linear) return packing(weight).bytes(weight, simd_);
    size_t bytes = core::size_of(weight.dtype);
    for (const int64_t dim : weight.shape) bytes *= static_cast<size_t>(dim);
    return bytes;
  }

  void prepare_weight(const core::WeightShape& weight, core::RowReader& reader, void* memory) override {
    if (weight.layout == core::Layout::linear) {
      packing(weight).prepare(weight, reader, memory, simd_);
    } else {
      prepare_plain(weight, reader, static_cast<char*>(memory));
    }
  }

  int loading_threads() const override { return threads_; }

  bool has_kernel(std::string_view op) const override { return find(op) != nullptr; }

  std::unique_ptr<core::Kernel> make_kernel(const core::KernelSpec& spec) override {
    const KernelEntry* entry = find(spec.op);
    if (!entry) throw Error(ErrorCode::unsupported, "[" + spec.op + "] has no kernel on the CPU");
    return entry->make(spec, simd_);
  }

 private:
  static const KernelEntry* find(std::string_view op) {
    for (const KernelEntry& entry : kernel_table()) {
      if (entry.op == op) return &entry;
    }
    return nullptr;
  }

  static const WeightPacking& packing(const core::WeightShape& weight) {
    const WeightPacking* packing = linear_packing();
    if (!packing) throw Error(ErrorCode::unsupported, "weight '" + weight.name + "' cannot be packed on the CPU");
    return *packing;
  }

  // The rows as they are, in the storage type.
  static void prepare_plain(const core::WeightShape& weight, core::RowReader& reader, char* memory) {
    const int64_t rows = weight.shape.empty() ? 1 : weight.shape[0];
    int64_t columns = 1;
    for (size_t i = 1; i < weight.shape.size(); ++i) columns *= weight.shape[i];
    if (rows == 0 || columns == 0) return;
    const size_t size = core::size_of(weight.dtype);
    const int64_t step = std::clamp<int64_t>(static_cast<int64_t>(chunk_bytes / sizeof(float)) / columns, 1, rows);
    const bool convert = weight.dtype == DType::bfloat16 || weight.dtype == DType::float16;
    std::vector<float> floats(convert ? static_cast<size_t>(step * columns) : 0);
    for (int64_t row = 0; row < rows; row += step) {
      const int64_t count = std::min(step, rows - row);
      char* to = memory + static_cast<size_t>(row * columns) * size;
      reader.read(row, count, convert ? static_cast<void*>(floats.data()) : to);
      if (convert) core::f32_to_floats(floats.data(), weight.dtype, to, count * columns);
    }
  }

  Isa isa_;
  const SimdKernels& simd_;
  std::shared_ptr<ThreadPool> pool_;
  int threads_;
  uint64_t memory_limit_;
};

}  // namespace

const char* name_of(Isa isa) noexcept {
  constexpr const char* names[] = {"portable", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"};
  return names[static_cast<size_t>(isa)];
}

void CpuStream::check_threads(int most) const {
  if (threads_ > most) throw Error(ErrorCode::internal, "the stream has " + std::to_string(threads_) + " threads; the kernel was made for " + std::to_string(most));
}

std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : all_isas) {
    if (kernels_of(isa) && processor_runs(isa)) isas.push_back(isa);
  }
  return isas;
}

std::unique_ptr<core::Device> open_device(const std::string& isa, int threads) {
  Isa strongest = available_isas().back();
  const char* environment = std::getenv("CHIASMA_ISA");
  strongest = cap(strongest, environment ? environment : "", "the environment variable CHIASMA_ISA");
  strongest = cap(strongest, isa, "option isa");
  return std::make_unique<CpuDevice>(strongest, threads);
}

}  // namespace chiasma::cpu
