// Parameters on a device. They live until the last program that uses them is gone.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "core/device.h"
#include "core/error.h"

namespace chiasma::core {

class Weights {
 public:
  // usage: a sum of bytes these add theirs to.
  Weights(std::shared_ptr<Device> device, std::shared_ptr<std::atomic<size_t>> usage) : device_(std::move(device)), usage_(std::move(usage)) {}
  Weights(const Weights&) = delete;
  Weights& operator=(const Weights&) = delete;
  ~Weights() {
    for (size_t i = 0; i < memory_.size(); ++i) device_->release(memory_[i], device_->weight_bytes(shapes_[i]));
    usage_->fetch_sub(bytes_);
  }

  // Makes room for one more and returns its memory, to be filled by Device::prepare_weight.
  void* add(const WeightShape& shape) {
    shapes_.reserve(shapes_.size() + 1);
    memory_.reserve(memory_.size() + 1);
    const size_t bytes = device_->weight_bytes(shape);
    WeightShape copy = shape;
    void* memory = device_->allocate(bytes);
    shapes_.push_back(std::move(copy));
    memory_.push_back(memory);
    bytes_ += bytes;
    usage_->fetch_add(bytes);
    return memory;
  }

  const Device& device() const noexcept { return *device_; }
  const std::vector<WeightShape>& shapes() const noexcept { return shapes_; }
  void* memory(size_t i) const { return memory_[i]; }
  size_t bytes() const noexcept { return bytes_; }

 private:
  std::shared_ptr<Device> device_;
  std::shared_ptr<std::atomic<size_t>> usage_;
  std::vector<WeightShape> shapes_;
  std::vector<void*> memory_;
  size_t bytes_ = 0;
};

}  // namespace chiasma::core
