#include "cuda/sim/stream.h"

#include <algorithm>
#include <map>
#include <utility>

#include "cuda/sim/options.h"

namespace chiasma::sim {

namespace {

std::mutex lost_mutex;
std::map<int, Failure> lost_devices;  // guarded

std::mutex streams_mutex;
std::vector<std::weak_ptr<Stream>> streams;  // guarded

}  // namespace

bool now_and_then(uint32_t of) {
  static std::atomic<uint64_t> turn{0};
  uint64_t x = (options().seed + 1) * 0x9e3779b97f4a7c15u + ++turn * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return (x ^ x >> 31) % of == 0;
}

Failure loss_of(int device) {
  std::lock_guard lock(lost_mutex);
  const auto found = lost_devices.find(device);
  return found == lost_devices.end() ? Failure{} : found->second;
}

void lose(int device, const Failure& failure) {
  std::lock_guard lock(lost_mutex);
  lost_devices.emplace(device, failure);  // the first reason stays
}

void repair_devices() {
  std::lock_guard lock(lost_mutex);
  lost_devices.clear();
}

void Stream::submit(Work work) {
  {
    std::lock_guard lock(mutex_);
    queue_.push_back(std::move(work));
    ++submitted_;
  }
  if (now_and_then(8)) finish();
}

uint64_t Stream::submitted() const {
  std::lock_guard lock(mutex_);
  return submitted_;
}

Failure Stream::finish(uint64_t position) {
  if (!done(position)) {
    std::lock_guard doing(doing_);
    while (!done(position)) {
      Work work;
      {
        std::lock_guard lock(mutex_);
        work = std::move(queue_.front());
        queue_.pop_front();
      }
      // A lost device does nothing more.
      if (!loss_of(device_)) {
        if (const Failure failure = work()) lose(device_, failure);
      }
      ++done_;
    }
  }
  return loss_of(device_);
}

std::shared_ptr<Stream> make_stream(int device) {
  auto made = std::make_shared<Stream>(device);
  std::lock_guard lock(streams_mutex);
  std::erase_if(streams, [](const auto& stream) { return stream.expired(); });
  streams.push_back(made);
  return made;
}

Failure finish_device(int device) {
  std::vector<std::shared_ptr<Stream>> all;
  {
    std::lock_guard lock(streams_mutex);
    for (const auto& weak : streams) {
      if (auto stream = weak.lock(); stream && stream->device() == device) all.push_back(std::move(stream));
    }
  }
  for (const auto& stream : all) stream->finish();
  return loss_of(device);
}

}  // namespace chiasma::sim
