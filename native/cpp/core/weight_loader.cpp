// Checks all sources, then loads the weights on as many threads as the device allows: TensorReader -> conversion to float32 -> Device::prepare_weight.
#include "core/weight_loader.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <limits>
#include <map>
#include <mutex>
#include <system_error>
#include <thread>

#include "core/checked.h"
#include "core/convert.h"
#include "core/error.h"
#include "core/file.h"
#include "core/tensor_reader.h"

namespace chiasma::core {

namespace {

constexpr int64_t piece_bytes = int64_t{1} << 20;

using Files = std::map<std::string, std::unique_ptr<File>>;

const File& open(Files& files, const std::string& path) {
  auto& file = files[path];
  if (!file) file = std::make_unique<File>(path);
  return *file;
}

DType source_dtype(const WeightRequest& request) {
  return std::visit([](const auto& source) { return source.dtype; }, request.source);
}

// Rows of one weight in the type Device::prepare_weight wants.
class SourceRows final : public RowReader {
 public:
  SourceRows(const WeightRequest& request, TensorReader tensor, const Stop& stop, std::function<void(uint64_t)> read)
      : request_(request), tensor_(std::move(tensor)), stop_(stop), read_bytes_(std::move(read)) {
    const auto& shape = request.shape.shape;
    const int64_t rows = shape.empty() ? 1 : shape[0];
    columns_ = rows == 0 ? 0 : tensor_.size() / rows;
  }

  void read(int64_t begin, int64_t count, void* dst) override {
    read_rows(begin, count, dst);
    if (request_.row_scale.empty()) return;
    float* row = static_cast<float*>(dst);
    for (int64_t i = begin; i < begin + count; ++i, row += columns_) {
      for (int64_t c = 0; c < columns_; ++c) row[c] *= request_.row_scale[i];
    }
  }

 private:
  void read_rows(int64_t begin, int64_t count, void* dst) {
    const DType from = tensor_.dtype();
    const DType to = is_float(from) ? DType::float32 : request_.shape.dtype;
    int64_t at = begin * columns_;
    int64_t left = count * columns_;
    const int64_t step = piece_bytes / static_cast<int64_t>(size_of(from));
    char* target = static_cast<char*>(dst);
    while (left > 0) {
      stop_.check();
      const int64_t n = std::min(step, left);
      if (from == to || size_of(from) == 1) {
        tensor_.read(at, n, target);
      } else {
        piece_.resize(static_cast<size_t>(n) * size_of(from));
        tensor_.read(at, n, piece_.data());
        if (is_float(from)) {
          floats_to_f32(from, piece_.data(), reinterpret_cast<float*>(target), n);
        } else {
          narrow(n, target);
        }
      }
      at += n;
      left -= n;
      target += static_cast<size_t>(n) * size_of(to);
      read_bytes_(static_cast<uint64_t>(n) * size_of(from));
    }
  }

  // int64 -> int32
  void narrow(int64_t n, char* target) const {
    for (int64_t i = 0; i < n; ++i) {
      int64_t value;
      std::memcpy(&value, piece_.data() + i * 8, 8);
      if (value < std::numeric_limits<int32_t>::min() || value > std::numeric_limits<int32_t>::max()) {
        throw Error(ErrorCode::checkpoint, "weight '" + request_.shape.name + "' holds " + std::to_string(value) + ", which is no int32");
      }
      const auto small = static_cast<int32_t>(value);
      std::memcpy(target + i * 4, &small, 4);
    }
  }

  const WeightRequest& request_;
  TensorReader tensor_;
  const Stop& stop_;
  std::function<void(uint64_t)> read_bytes_;
  int64_t columns_ = 0;
  std::vector<char> piece_;
};

TensorReader make_reader(const WeightRequest& request, Files& files) {
  if (const auto* host = std::get_if<HostSource>(&request.source)) {
    return TensorReader(host->dtype, request.shape.shape, {}, [host](int64_t offset, void* target, size_t bytes) {
      std::memcpy(target, host->bytes().data() + offset, bytes);
    });
  }
  const auto& source = std::get<FileSource>(request.source);
  const File& file = open(files, source.file);
  return TensorReader(source.dtype, source.shape, source.strides, [&file, &source](int64_t offset, void* target, size_t bytes) {
    file.read(source.offset + offset, target, bytes);
  });
}

void check_types(const WeightRequest& request, const Device& device) {
  const WeightShape& weight = request.shape;
  const DType from = source_dtype(request);
  const auto refuse = [&](const char* why) {
    throw Error(ErrorCode::dtype, "weight '" + weight.name + "' is " + name_of(from) + " and to be stored as " + name_of(weight.dtype) + ": " + why);
  };
  const bool quantized = weight.layout == Layout::linear && weight.dtype == DType::int8;
  if (quantized && !is_float(from)) refuse("int8 products are made from floats");
  if (!quantized && is_float(from) != is_float(weight.dtype)) refuse("floats and integers are not turned into each other");
  const bool bytes = (from == DType::boolean || from == DType::uint8) && (weight.dtype == DType::boolean || weight.dtype == DType::uint8);
  const bool narrows = from == DType::int64 && weight.dtype == DType::int32;
  if (!is_float(from) && from != weight.dtype && !bytes && !narrows) refuse("of integers only int64 is turned into int32");
  if (weight.layout == Layout::linear) {
    if (weight.shape.size() != 2) throw Error(ErrorCode::shape, "weight '" + weight.name + "' is " + text_of(weight.shape) + "; role 'linear' takes [rows, columns]");
    const bool taken = weight.dtype == DType::float32 || weight.dtype == DType::bfloat16 || (weight.dtype == DType::float16 && device.has_f16());
    if (!taken && !quantized) refuse("role 'linear' takes float32, bfloat16, int8 and, where the device computes in it, float16");
  }
}

// The bytes the source takes, after checking that they are there.
uint64_t check_source(const WeightRequest& request, const Device& device, Files& files) {
  const WeightShape& weight = request.shape;
  const auto elements = weight.shape.size() > max_rank ? std::nullopt : checked_elements(weight.shape);
  const auto bytes = elements ? checked_size(*elements, 8) : std::nullopt;  // 8: of the widest type
  if (!bytes) throw Error(ErrorCode::shape, "weight '" + weight.name + "': " + text_of(weight.shape) + " is no possible shape");
  check_types(request, device);
  const int64_t rows = weight.shape.empty() ? 1 : weight.shape[0];
  if (!request.row_scale.empty() && (!is_float(source_dtype(request)) || static_cast<int64_t>(request.row_scale.size()) != rows)) {
    throw Error(ErrorCode::argument, "weight '" + weight.name + "' " + text_of(weight.shape) + " has " + std::to_string(request.row_scale.size()) +
                                         " factors of rows; expected " + std::to_string(rows) + ", of floats");
  }
  const auto size = static_cast<int64_t>(size_of(source_dtype(request)));
  if (const auto* host = std::get_if<HostSource>(&request.source)) {
    if (host->bytes().size() != static_cast<size_t>(*elements * size)) {
      throw Error(ErrorCode::argument, "weight '" + weight.name + "' " + text_of(weight.shape) + " is given " + std::to_string(host->bytes().size()) +
                                           " bytes; expected " + std::to_string(*elements * size));
    }
    return host->bytes().size();
  }
  const auto& source = std::get<FileSource>(request.source);
  const TensorReader tensor = make_reader(request, files);
  if (tensor.size() != *elements) {
    throw Error(ErrorCode::shape, "weight '" + weight.name + "' is " + text_of(weight.shape) + "; its tensor in " + source.file + " is " + text_of(source.shape));
  }
  const int64_t end = source.offset < 0 ? -1 : checked_size(tensor.span(), size, source.offset).value_or(-1);  // -1: beyond any file
  const int64_t there = open(files, source.file).size();
  if (end < 0 || end > there) {
    throw Error(ErrorCode::checkpoint,
                source.file + ": weight '" + weight.name + "' lies at bytes " + std::to_string(source.offset) + " to " +
                    (end < 0 ? "beyond any file" : std::to_string(end)) + "; the file has " + std::to_string(there), source.file);
  }
  return static_cast<uint64_t>(*elements * size);
}

}  // namespace

std::shared_ptr<Weights> load_weights(const std::shared_ptr<Device>& device, const std::shared_ptr<std::atomic<size_t>>& usage,
                                      const std::vector<WeightRequest>& requests, const Stop& stop, const Progress& progress) {
  Files files;
  uint64_t total = 0, loaded = 0, needed = 0;
  for (const WeightRequest& request : requests) {
    total += check_source(request, *device, files);
    needed += device->weight_bytes(request.shape);
  }
  if (const size_t limit = device->memory_limit(); limit > 0 && needed > limit) {
    throw Error(ErrorCode::out_of_memory, "the weights need " + std::to_string(needed) + " bytes; the device has " + std::to_string(limit));
  }
  auto weights = std::make_shared<Weights>(device, usage);
  std::vector<void*> memory;
  for (const WeightRequest& request : requests) memory.push_back(weights->add(request.shape));

  // Threads take one weight after another; the first failure ends all.
  std::atomic<size_t> next = 0;
  std::atomic<bool> failed = false;
  std::mutex mutex;
  std::exception_ptr failure;
  const auto work = [&] {
    try {
      for (size_t i = next++; i < requests.size() && !failed; i = next++) {
        stop.check();
        SourceRows rows(requests[i], make_reader(requests[i], files), stop, [&](uint64_t bytes) {
          const std::lock_guard lock(mutex);
          loaded += bytes;
          if (progress) progress(std::min(loaded, total), total);
        });
        device->prepare_weight(requests[i].shape, rows, memory[i]);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> helpers;
    const auto wanted = std::min(static_cast<size_t>(device->loading_threads()), requests.size());
    try {
      for (size_t i = 1; i < wanted; ++i) helpers.emplace_back(work);
    } catch (const std::system_error&) {
      // Fewer threads than asked for do the same work.
    }
    work();
  }
  if (failure) std::rethrow_exception(failure);
  return weights;
}

}  // namespace chiasma::core
