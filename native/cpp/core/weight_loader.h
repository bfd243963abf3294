// Reads weights by ranges and gives them to the device, a few megabytes at a time. Every source is checked against its file before any
// memory is taken.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "core/device.h"
#include "core/weights.h"
#include "core/work_queue.h"

namespace chiasma::core {

// A tensor in a file, row-major or with strides.
struct FileSource {
  std::string file;
  int64_t offset = 0;  // bytes
  DType dtype = DType::float32;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // elements, one per dimension; empty: row-major
};

// A tensor in memory, row-major.
struct HostSource {
  std::vector<char> data;
  DType dtype = DType::float32;
  std::span<const char> held = {};  // in place of `data`: memory that stays as it is until the load has finished

  std::span<const char> bytes() const { return held.data() ? held : std::span<const char>(data); }
};

struct WeightRequest {
  WeightShape shape;
  std::variant<FileSource, HostSource> source;
  std::vector<float> row_scale = {};  // a factor for each of shape[0]'s rows, of float sources; empty: 1
};

using Progress = std::function<void(uint64_t loaded, uint64_t total)>;  // bytes of the sources

// Throws Error(checkpoint) naming the file, Error(argument | shape | dtype) naming the weight, Error(out_of_memory), or what `stop` does.
std::shared_ptr<Weights> load_weights(const std::shared_ptr<Device>& device, const std::shared_ptr<std::atomic<size_t>>& usage,
                                      const std::vector<WeightRequest>& requests, const Stop& stop, const Progress& progress);

}  // namespace chiasma::core
