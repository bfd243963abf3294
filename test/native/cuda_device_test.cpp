// The CUDA device over a library that is none: its memory is the host's, and it notes on which device it is called.
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "cuda/cuda_device.h"
#include "test.h"

namespace chiasma::cuda {

namespace {

constexpr int ordinal = 3;

struct Fake {
  thread_local static inline int current = 0;
  static inline std::atomic<int> elsewhere{0};  // calls while another device was current
  static inline std::atomic<int> alive{0};      // memory, streams, events and graphs
  static inline std::atomic<size_t> pinned{0};  // bytes, of all that was ever asked for
  static inline const void* copied_from = nullptr;

  static int here() {
    elsewhere += current != ordinal;
    return 0;
  }
  static int make(void** handle, size_t bytes = 1) {
    *handle = std::malloc(bytes);
    ++alive;
    return here();
  }
  static int drop(void* handle) {
    std::free(handle);
    --alive;
    return here();
  }
  static int set_device(int device) {
    current = device;
    return 0;
  }
  static int copy(void* to, const void* from, size_t bytes, Copy, StreamHandle) {
    std::memcpy(to, from, bytes);
    copied_from = from;
    return here();
  }
  static int fill(void* memory, int byte, size_t bytes, StreamHandle) {
    std::memset(memory, byte, bytes);
    return here();
  }
};

Library fake_library() {
  Library library{};
  Runtime& runtime = library.runtime;
  runtime.set_device = Fake::set_device;
  runtime.allocate = [](void** memory, size_t bytes, StreamHandle) { return Fake::make(memory, bytes); };
  runtime.release = [](void* memory, StreamHandle) { return Fake::drop(memory); };
  runtime.allocate_host = [](void** memory, size_t bytes) {
    Fake::pinned += bytes;
    return Fake::make(memory, bytes);
  };
  runtime.release_host = [](void* memory) { return Fake::drop(memory); };
  runtime.copy = Fake::copy;
  runtime.fill = Fake::fill;
  runtime.make_stream = [](StreamHandle* stream) { return Fake::make(stream); };
  runtime.release_stream = [](StreamHandle stream) { return Fake::drop(stream); };
  runtime.synchronize = [](StreamHandle) { return Fake::here(); };
  runtime.make_event = [](EventHandle* event) { return Fake::make(event); };
  runtime.release_event = [](EventHandle event) { return Fake::drop(event); };
  runtime.record_event = [](EventHandle, StreamHandle) { return Fake::here(); };
  runtime.query_event = [](EventHandle) { return Fake::here(); };
  runtime.wait_event = [](EventHandle) { return Fake::here(); };
  runtime.begin_recording = [](StreamHandle) { return Fake::here(); };
  runtime.end_recording = [](StreamHandle, GraphHandle* graph) { return Fake::make(graph); };
  runtime.replay = [](GraphHandle, StreamHandle) { return Fake::here(); };
  runtime.release_graph = [](GraphHandle graph) { return Fake::drop(graph); };
  runtime.clear_error = []() { return 0; };
  return library;
}

// A device and a stream that nobody has used.
struct Opened {
  Library library = fake_library();
  std::unique_ptr<core::Device> device = std::make_unique<CudaDevice>(library, DeviceFacts{.id = "fake", .isa = "", .ordinal = ordinal});
  std::unique_ptr<core::Stream> stream = device->make_stream(1);

  void run(const std::function<void()>& copies) {
    stream->begin();
    copies();
    stream->synchronize();
    stream->end();
  }
};

// On a thread that has no device yet.
void elsewhere(const std::function<void()>& work) { std::thread(work).join(); }

}  // namespace

TEST("cuda device: it is the current one wherever something is given back") {
  Fake::elsewhere = Fake::alive = 0;
  Opened opened;
  void* memory = nullptr;
  std::unique_ptr<core::Recording> recording;
  elsewhere([&] {
    memory = opened.device->allocate(1000);
    std::vector<char> host(1000, 'x'), back(1000);
    opened.run([&] {
      opened.device->upload(*opened.stream, memory, host.data(), host.size());
      opened.device->download(*opened.stream, back.data(), memory, back.size());
      recording = opened.stream->record([] {});
      opened.stream->replay(*recording);
    });
    CHECK(back == host);
  });
  CHECK(Fake::elsewhere == 0);
  elsewhere([&] { recording.reset(); });
  CHECK(Fake::elsewhere == 0);
  elsewhere([&] { opened.device->release(memory, 1000); });
  CHECK(Fake::elsewhere == 0);
  elsewhere([&] { opened.device->settle(); });
  elsewhere([&] { opened.stream->end(); });
  elsewhere([&] { opened.stream.reset(); });
  CHECK(Fake::elsewhere == 0);
  elsewhere([&] { opened.device.reset(); });
  CHECK(Fake::elsewhere == 0);
  CHECK(Fake::alive == 0);
}

TEST("cuda device: great copies go through little pinned memory, which is kept") {
  Fake::pinned = 0;
  Opened opened;
  constexpr size_t bytes = (size_t{150} << 20) + 7;
  void* const memory = opened.device->allocate(bytes);
  std::vector<char> host(bytes), back;
  for (size_t i = 0; i < bytes; ++i) host[i] = static_cast<char>(i * 2654435761u >> 13);
  for (int i = 0; i < 3; ++i) {
    back.assign(bytes, 0);
    opened.run([&] {
      opened.device->upload(*opened.stream, memory, host.data(), bytes);
      opened.device->download(*opened.stream, back.data(), memory, bytes);
    });
    CHECK(back == host);
    CHECK(Fake::pinned <= size_t{130} << 20);
  }
  opened.device->release(memory, bytes);
}

TEST("cuda device: pinned memory is lent for inputs, which are not copied again") {
  Opened opened;
  void* const memory = opened.device->allocate(1000);
  std::vector<char> host(1000, 'a');
  CHECK(!opened.device->take_host(1000));  // there is none before it was needed
  opened.run([&] { opened.device->upload(*opened.stream, memory, host.data(), 1000); });
  CHECK(!opened.device->take_host(size_t{1} << 30));
  auto* const lent = static_cast<char*>(opened.device->take_host(1000));
  CHECK(lent);
  std::memset(lent, 'b', 1000);
  opened.run([&] {
    opened.device->upload(*opened.stream, memory, lent + 64, 100);
    CHECK(Fake::copied_from == lent + 64);
    opened.device->upload(*opened.stream, static_cast<char*>(memory) + 100, host.data(), 100);
    CHECK(Fake::copied_from != host.data() && static_cast<const char*>(memory)[99] == 'b' && static_cast<const char*>(memory)[100] == 'a');
  });
  CHECK(opened.device->take_host(1000) != lent);
  opened.device->give_host(lent);
  CHECK(opened.device->take_host(1000) == lent);
  opened.device->release(memory, 1000);
}

}  // namespace chiasma::cuda
